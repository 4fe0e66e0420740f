"""probsym: make any PyTorch model equivariant by averaging it over a distribution of group elements.

phi(x) = E_{g ~ p(g|x)} [ g f(g^-1 x) ]
"""

from probsym import learning, testing
from probsym.distributions import (
    Canonical,
    EquivariantDistribution,
    Frame,
    Haar,
    Learned,
    Recursive,
    Relaxation,
    Scored,
    ScoreFunction,
    WeightedFrame,
)
from probsym.estimators import Adaptive, Estimate, Estimator, Exact, Hybrid, MonteCarlo, designs
from probsym.forces import energy_and_forces
from probsym.groups import (
    SE,
    SO,
    SU,
    C,
    D,
    E,
    Element,
    Finite,
    Group,
    Icosahedral,
    Lorentz,
    O,
    Octahedral,
    Shift,
    Signs,
    Tetrahedral,
    U,
    rotations,
)
from probsym.groups.rotations import nearest_rotation
from probsym.reps import Axis, Rep, S
from probsym.saving import load, save
from probsym.symmetrizer import Symmetrizer, symmetrize
from probsym.symmetry_breaking import SymmetryBreaking

__version__ = "0.1.0"

__all__ = [
    "SE",
    "SO",
    "SU",
    "Adaptive",
    "Axis",
    "C",
    "Canonical",
    "D",
    "E",
    "Element",
    "EquivariantDistribution",
    "Estimate",
    "Estimator",
    "Exact",
    "Finite",
    "Frame",
    "Group",
    "Haar",
    "Hybrid",
    "Icosahedral",
    "Learned",
    "Lorentz",
    "MonteCarlo",
    "O",
    "Octahedral",
    "Recursive",
    "Relaxation",
    "Rep",
    "S",
    "ScoreFunction",
    "Scored",
    "Shift",
    "Signs",
    "Symmetrizer",
    "SymmetryBreaking",
    "Tetrahedral",
    "U",
    "WeightedFrame",
    "designs",
    "energy_and_forces",
    "learning",
    "load",
    "nearest_rotation",
    "rotations",
    "save",
    "symmetrize",
    "testing",
]
