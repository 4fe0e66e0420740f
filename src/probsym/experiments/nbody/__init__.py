"""n-body dynamics: charged particles, their simulator, models and experiment."""

from .experiment import Config, run

__all__ = ["Config", "run"]
