"""Interatomic potentials in ASE: any calculator, averaged over the poses of a structure; docs/atoms.md."""

from probsym.integrations.ase.calculator import SymmetrizedCalculator
from probsym.integrations.ase.potential import TorchCalculator
from probsym.integrations.ase.structures import turned

__all__ = ["SymmetrizedCalculator", "TorchCalculator", "turned"]
