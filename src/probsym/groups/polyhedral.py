"""The symmetries of the tetrahedron, the cube and the icosahedron."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field

from probsym.groups import cayley
from probsym.groups.base import Slot
from probsym.groups.cayley import CayleyGraph, Matrices
from probsym.groups.generated import GeneratedGroup, MultipliedEntries, TurnedGrid, determinants
from probsym.members import register

GOLDEN = (1 + 5**0.5) / 2
EXCHANGE: Matrices = (((0, 0, 1), (1, 0, 0), (0, 1, 0)),)  # x to y, y to z, z to x: a third of a turn about (1, 1, 1)
HALF_TURN: Matrices = (((-1, 0, 0), (0, -1, 0), (0, 0, 1)),)  # about z
QUARTER_TURN: Matrices = (((0, -1, 0), (1, 0, 0), (0, 0, 1)),)  # about z, from x to y
INVERSION: Matrices = (((-1, 0, 0), (0, -1, 0), (0, 0, -1)),)
FIFTH_TURN: Matrices = (
    (
        (0.5, -GOLDEN / 2, 1 / (2 * GOLDEN)),
        (GOLDEN / 2, 1 / (2 * GOLDEN), -0.5),
        (1 / (2 * GOLDEN), 0.5, GOLDEN / 2),
    ),
)


@dataclass(frozen=True)
class PolyhedralGroup(GeneratedGroup):
    """Shared by the groups of polyhedra: rotations of space about the origin, with the inversion where asked for.

    Args:
        reflections: whether -1 is among the elements, and with it as many improper ones as there are rotations.
        name: tells this group from others.
    """

    reflections: bool = False
    name: str | None = None
    graph: CayleyGraph = field(init=False, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.reflections, bool):
            raise TypeError(f"reflections: expected True or False, got {self.reflections!r}")
        object.__setattr__(self, "graph", cayley.of_matrices(self.generators))

    @property
    @abstractmethod
    def rotations(self) -> Matrices:
        """The rotations that generate all others."""

    @property
    def generators(self) -> Matrices:
        """The matrices of the generators, in the order in which `permutation` and the other slots take their images."""
        return self.rotations + INVERSION if self.reflections else self.rotations

    @property
    def defining(self) -> Slot:
        return self.vector

    @property
    def vector(self) -> Slot:
        """Vectors (x, y, z), and points about the origin."""
        return MultipliedEntries(self, self.generators)

    @property
    def det(self) -> Slot:
        """The determinant, 1 or -1: pseudoscalars."""
        return determinants(self, self.generators)

    def __repr__(self) -> str:
        shown: list[str] = []
        if self.reflections:
            shown.append("reflections=True")
        if self.name is not None:
            shown.append(f"name={self.name!r}")
        return f"{type(self).__name__}({', '.join(shown)})"


@dataclass(frozen=True, repr=False)
class CubicGroup(PolyhedralGroup):
    """Shared by the groups whose elements keep the cube, and with it a grid of voxels."""

    @property
    def voxels(self) -> Slot:
        """Volumes: three axes, along x, y and z in this order, the order of the components of `vector`.

        A voxel moves as its centre does, counted from the centre of the volume. So a tensor (B, X, Y, Z, C) is
        `Rep(G.voxels)`, and a field of vectors on it `Rep(G.voxels, G.vector)`. Where the axes are depth, height and
        width, the components of vectors are along depth, height and width too. Exact, and for volumes with three equal
        sides.
        """
        images: list[tuple[int, ...]] = []
        for matrix in self.generators:
            image: list[int] = []
            for row in matrix:
                for place, entry in enumerate(row):
                    if entry != 0:
                        image.append(int(entry) * (1 + place))
            images.append(tuple(image))
        return TurnedGrid(self, tuple(images))


@register
@dataclass(frozen=True, repr=False)
class Tetrahedral(CubicGroup):
    """The 12 rotations of the tetrahedron; with reflections the 24 elements of T_h, pyritohedral.

    The corners are (1, 1, 1), (1, -1, -1), (-1, 1, -1) and (-1, -1, 1). T_d, the full group of the tetrahedron without
    the inversion, is `Finite` of a quarter turn times -1 and the third of a turn about (1, 1, 1).

    >>> Tetrahedral().order(), Tetrahedral(reflections=True).order()
    (12, 24)
    """

    @property
    def rotations(self) -> Matrices:
        return EXCHANGE + HALF_TURN


@register
@dataclass(frozen=True, repr=False)
class Octahedral(CubicGroup):
    """The 24 rotations of the cube and the octahedron, whose axes are x, y and z; with reflections all 48 of O_h.

    >>> from probsym.reps import Rep
    >>> import torch
    >>> cube = Octahedral()
    >>> quarter = cube.generator_elements.select(slice(1, 2))                          # about z, from x to y
    >>> Rep(cube).act(quarter, torch.tensor([[1.0, 0.0, 0.0]])).tolist()
    [[0.0, 1.0, 0.0]]
    >>> volume = torch.rand(1, 4, 4, 4)
    >>> torch.equal(Rep(cube.voxels).act(quarter, volume), torch.rot90(volume, 1, (1, 2)))
    True
    """

    @property
    def rotations(self) -> Matrices:
        return EXCHANGE + QUARTER_TURN


@register
@dataclass(frozen=True, repr=False)
class Icosahedral(PolyhedralGroup):
    """The 60 rotations of the icosahedron and the dodecahedron; with reflections all 120 of I_h.

    The corners of the icosahedron are (0, golden ratio, 1), with all signs and cyclic exchanges of the axes.

    >>> Icosahedral().order(), Icosahedral(reflections=True).order()
    (60, 120)
    """

    @property
    def rotations(self) -> Matrices:
        return EXCHANGE + HALF_TURN + FIFTH_TURN
