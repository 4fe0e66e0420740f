"""From samples to a mean with its standard error: Monte Carlo and its designs, exact, hybrid, adaptive."""

from probsym.estimators.adaptive import Adaptive
from probsym.estimators.designs import DESIGNS, Design
from probsym.estimators.estimate import Estimate
from probsym.estimators.estimator import Estimator, IndependentPart, OrbitMap, Source
from probsym.estimators.exact import Exact, Hybrid
from probsym.estimators.monte_carlo import MonteCarlo
from probsym.estimators.samples import OutputSamples

__all__ = [
    "DESIGNS", "Adaptive", "Design", "Estimate", "Estimator", "Exact", "Hybrid", "IndependentPart",
    "MonteCarlo", "OrbitMap", "OutputSamples", "Source",
]  # fmt: skip
