"""Atoms: energies and forces of molecules from quantum chemistry, their dynamics, models and experiment."""

from .config import Config
from .experiment import run

__all__ = ["Config", "run"]
