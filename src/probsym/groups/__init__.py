"""Groups: what they are (`Group`), their elements (`Element`) and how they act on an axis (`Slot`).

A new group is one new file, here or anywhere. `FAMILIES` are those that the property tests walk; node axes (`S`,
`Axis`) are in `probsym.reps`, since they know how a batch of inputs is stored.
"""

from probsym.groups import rotations
from probsym.groups.base import Element, Group, Slot
from probsym.groups.euclidean import SE, E, Motion
from probsym.groups.finite import FiniteGroup
from probsym.groups.generated import Finite
from probsym.groups.images import C, D
from probsym.groups.lorentz import Lorentz
from probsym.groups.orthogonal import SO, IsometryGroup, O, OrthogonalElement
from probsym.groups.permutation import Permutation, SymmetricGroup
from probsym.groups.polyhedral import Icosahedral, Octahedral, Tetrahedral
from probsym.groups.product import Product, ProductElement, product
from probsym.groups.shift import Shift
from probsym.groups.signs import Signs
from probsym.groups.unitary import SU, U
from probsym.groups.weighted import WeightedElement

FAMILIES: tuple[type[Group], ...] = (
    SymmetricGroup, O, SO, E, SE, C, D, Shift, Signs, Finite, Tetrahedral, Octahedral, Icosahedral, U, SU, Lorentz,
)  # fmt: skip

__all__ = [
    "FAMILIES", "SE", "SO", "SU", "C", "D", "E", "Element", "Finite", "FiniteGroup", "Group", "Icosahedral",
    "IsometryGroup", "Lorentz", "Motion", "O", "Octahedral", "OrthogonalElement", "Permutation", "Product",
    "ProductElement", "Shift", "Signs", "Slot", "SymmetricGroup", "Tetrahedral", "U",
    "WeightedElement", "product", "rotations",
]  # fmt: skip
