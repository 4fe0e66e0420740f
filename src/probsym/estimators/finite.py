"""Finite groups of orthogonal matrices, in float64 from their exact entries.

In numpy: a tensor that a compiler, an exporter or inference mode made must not outlive its call in a cache.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import permutations, product

import numpy as np

GOLDEN = (1 + 5**0.5) / 2
LARGEST = 4096


@cache
def signs(dim: int) -> np.ndarray:
    """Diagonal matrices of signs (2^D, D, D)."""
    return np.array(list(product((1.0, -1.0), repeat=dim)))[:, None] * np.eye(dim)


@cache
def signed_permutations(dim: int) -> np.ndarray:
    """Permutation matrices times signs (2^D D!, D, D): the symmetries of the cube."""
    matrices = np.eye(dim)[np.array(list(permutations(range(dim))))]
    return (signs(dim)[:, None] @ matrices).reshape(-1, dim, dim)


@cache
def tetrahedral() -> np.ndarray:
    """The 12 rotations of the tetrahedron: cyclic exchanges of the axes times signs of product one."""
    shift = np.roll(np.eye(3), 1, 0)
    cycles = np.stack([np.eye(3), shift, shift @ shift])
    return proper((signs(3)[:, None] @ cycles).reshape(-1, 3, 3))


@cache
def octahedral() -> np.ndarray:
    """The 24 rotations of the cube and the octahedron."""
    return proper(signed_permutations(3))


@cache
def icosahedral() -> np.ndarray:
    """The 60 rotations of the icosahedron: powers of a five-fold turn times the tetrahedral group."""
    a, b = GOLDEN / 2, 1 / (2 * GOLDEN)
    turn = np.array([[0.5, -a, b], [a, b, -0.5], [b, 0.5, a]])
    powers = np.stack([np.linalg.matrix_power(turn, i) for i in range(5)])
    matrices = (powers[:, None] @ tetrahedral()).reshape(-1, 3, 3)
    entries = np.array([0.0, 0.5, 1.0, a, b, -0.5, -1.0, -a, -b])
    return entries[np.abs(matrices[..., None] - entries).argmin(-1)]


@cache
def rotations(order: int) -> np.ndarray:
    """The n rotations of the regular n-gon (n, 2, 2)."""
    angle = 2 * np.pi * np.arange(order) / order
    cos, sin = np.cos(angle), np.sin(angle)
    return np.stack([np.stack([cos, -sin], -1), np.stack([sin, cos], -1)], -2)


@cache
def reflections(order: int) -> np.ndarray:
    """The 2n rotations and reflections of the regular n-gon (2 n, 2, 2)."""
    return np.concatenate([rotations(order), rotations(order) @ np.diag([1.0, -1.0])])


def proper(matrices: np.ndarray) -> np.ndarray:
    """Those with determinant one."""
    return matrices[np.linalg.det(matrices) > 0]


def with_inversion(matrices: np.ndarray) -> np.ndarray:
    """The group times {1, -1}."""
    return np.concatenate([matrices, -matrices])


POLYHEDRAL: dict[str, tuple[int, Callable[[], np.ndarray]]] = {
    "tetrahedral": (12, tetrahedral),
    "octahedral": (24, octahedral),
    "icosahedral": (60, icosahedral),
    "pyritohedral": (24, lambda: with_inversion(tetrahedral())),
    "full-octahedral": (48, lambda: with_inversion(octahedral())),
    "full-icosahedral": (120, lambda: with_inversion(icosahedral())),
}
