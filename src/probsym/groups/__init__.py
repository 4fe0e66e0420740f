"""Groups: what they are (`Group`), their elements (`Element`) and how they act on an axis (`Slot`).

A new group is one new file here and one line in `FAMILIES`, which the property tests walk.
"""

from probsym.groups.axis import Axis, Layout, NodeAxis
from probsym.groups.base import Element, Group, Product, Slot, product
from probsym.groups.cyclic import C
from probsym.groups.dihedral import D
from probsym.groups.euclidean import SE, E, Motion
from probsym.groups.orthogonal import SO, IsometryGroup, O, OrthogonalElement
from probsym.groups.permutation import Permutation, S
from probsym.groups.shift import Shift
from probsym.groups.signs import Signs

FAMILIES: tuple[type[Group], ...] = (S, Axis, O, SO, E, SE, C, D, Shift, Signs)

__all__ = [
    "FAMILIES",
    "SE",
    "SO",
    "Axis",
    "C",
    "D",
    "E",
    "Element",
    "Group",
    "IsometryGroup",
    "Layout",
    "Motion",
    "NodeAxis",
    "O",
    "OrthogonalElement",
    "Permutation",
    "Product",
    "S",
    "Shift",
    "Signs",
    "Slot",
    "product",
]  # fmt: skip
