"""Finite groups of orthogonal matrices, in float64 from their exact entries."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import permutations, product

import torch
from torch import Tensor

GOLDEN = (1 + 5**0.5) / 2
LARGEST = 4096


@cache
def signs(dim: int) -> Tensor:
    """Diagonal matrices of signs (2^D, D, D)."""
    return torch.diag_embed(torch.tensor(list(product((1.0, -1.0), repeat=dim)), dtype=torch.float64))


@cache
def signed_permutations(dim: int) -> Tensor:
    """Permutation matrices times signs (2^D D!, D, D): the symmetries of the cube."""
    order = torch.tensor(list(permutations(range(dim))))
    matrices = torch.nn.functional.one_hot(order, dim).double()
    return (signs(dim)[:, None] @ matrices).flatten(0, 1)


@cache
def tetrahedral() -> Tensor:
    """The 12 rotations of the tetrahedron: cyclic exchanges of the axes times signs of product one."""
    shift = torch.eye(3, dtype=torch.float64).roll(1, 0)
    cycles = torch.stack([torch.eye(3, dtype=torch.float64), shift, shift @ shift])
    return proper((signs(3)[:, None] @ cycles).flatten(0, 1))


@cache
def octahedral() -> Tensor:
    """The 24 rotations of the cube and the octahedron."""
    return proper(signed_permutations(3))


@cache
def icosahedral() -> Tensor:
    """The 60 rotations of the icosahedron: powers of a five-fold turn times the tetrahedral group."""
    a, b = GOLDEN / 2, 1 / (2 * GOLDEN)
    turn = torch.tensor([[0.5, -a, b], [a, b, -0.5], [b, 0.5, a]], dtype=torch.float64)
    powers = torch.stack([torch.linalg.matrix_power(turn, i) for i in range(5)])
    matrices = (powers[:, None] @ tetrahedral()).flatten(0, 1)
    entries = torch.tensor([0.0, 0.5, 1.0, a, b], dtype=torch.float64)
    entries = torch.cat([entries, -entries])
    return entries[(matrices[..., None] - entries).abs().argmin(-1)]


@cache
def rotations(order: int) -> Tensor:
    """The n rotations of the regular n-gon (n, 2, 2)."""
    angle = 2 * torch.pi * torch.arange(order, dtype=torch.float64) / order
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], -2)


@cache
def reflections(order: int) -> Tensor:
    """The 2n rotations and reflections of the regular n-gon (2 n, 2, 2)."""
    flip = torch.diag(torch.tensor([1.0, -1.0], dtype=torch.float64))
    return torch.cat([rotations(order), rotations(order) @ flip])


def proper(matrices: Tensor) -> Tensor:
    """Those with determinant one."""
    return matrices[torch.linalg.det(matrices) > 0]


def with_inversion(matrices: Tensor) -> Tensor:
    """The group times {1, -1}."""
    return torch.cat([matrices, -matrices])


POLYHEDRAL: dict[str, tuple[int, Callable[[], Tensor]]] = {
    "tetrahedral": (12, tetrahedral),
    "octahedral": (24, octahedral),
    "icosahedral": (60, icosahedral),
    "pyritohedral": (24, lambda: with_inversion(tetrahedral())),
    "full-octahedral": (48, lambda: with_inversion(octahedral())),
    "full-icosahedral": (120, lambda: with_inversion(icosahedral())),
}
