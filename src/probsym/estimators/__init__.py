"""From samples to a mean with its standard error: Monte Carlo and its designs, exact, hybrid, adaptive."""

from probsym.estimators.adaptive import Adaptive
from probsym.estimators.base import Estimate, Estimator, Integrand, positive
from probsym.estimators.designs import DESIGNS, Design
from probsym.estimators.exact import Exact, Hybrid
from probsym.estimators.monte_carlo import MonteCarlo

__all__ = [
    "DESIGNS", "Adaptive", "Design", "Estimate", "Estimator", "Exact", "Hybrid", "Integrand", "MonteCarlo", "positive",
]  # fmt: skip
