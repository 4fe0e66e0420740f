"""n-body dynamics: charged particles, their simulator, models and experiment."""

from .config import Config
from .experiment import run

__all__ = ["Config", "run"]
