"""The dihedral group D(n): rotations and reflections of images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from probsym.groups.cyclic import C
from probsym.members import register


@register
@dataclass(frozen=True, repr=False)
class D(C):
    """Rotations of an image by multiples of 360/n degrees, and the same after a flip of its columns: 2 n elements.

    Exact on square images for n = 1, 2, 4, and on all images for n = 1 and 2; see `C` for other angles and for the
    arguments. D(1) is the left-right flip.

    >>> D(4).order(), D(4, "image").regular
    (8, D(4, 'image').regular)
    """

    mirrored: ClassVar[bool] = True
