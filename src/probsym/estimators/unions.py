"""Unions of icosahedral cosets: sets of rotations that are exact up to degree 9, with few elements."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from probsym.estimators import finite
from probsym.estimators.cosets import MatrixCoset
from probsym.groups import Group, IsometryGroup
from probsym.members import register
from probsym.reps import Inputs

# Quaternions (w, x, y, z) of a_1, a_2, ... and the weight of each coset a_j I; see `IcosahedralUnion`.
QUATERNIONS: dict[int, list[list[float]]] = {
    5: [
        [1.0, 0.0, 0.0, 0.0],
        [0.1621031529200925, -0.33184771542679514, -0.9254875007248794, 0.08409843982737236],
        [0.19353789335599308, 0.614524872716189, -0.7643353968257155, -0.02633753609872827],
        [0.23472286508828666, -0.24051207523909374, -0.9150196263298006, -0.2231551068207997],
        [0.31146950587272515, 0.3498533882851151, -0.8171128830561034, -0.33602959685207423],
    ],
    6: [
        [1.0, 0.0, 0.0, 0.0],
        [0.07177792618235651, 0.06605796320957492, 0.7545350886952304, 0.6489692402088432],
        [0.5917940611796808, -0.25691698890904546, -0.1138730019511004, 0.7555172991990418],
        [0.10494574535140633, 0.1656173892855551, -0.860863625761093, -0.4695434897220273],
        [0.900810326716018, -0.08114582766568382, -0.2282527612176308, 0.3603564720256308],
        [0.1769493268242046, -0.6738091488459015, 0.5553797962101698, 0.45411832007701797],
    ],
}
WEIGHTS: dict[int, list[float]] = {
    5: [0.22358472592424306, 0.17868487961415003, 0.18941340175325452, 0.21249833826262657, 0.19581865444572577],
    6: [1.0, 1.0, 1.0, 1.0, 1.0, 1.0],
}


@register
@dataclass(frozen=True)
class IcosahedralUnion(MatrixCoset):
    """Cosets of a union of rotated icosahedral groups I, in 3-d: exact up to degree 9.

        H = a_1 I  u  a_2 I  u  ...        a block is g h for all h in H

    The mean of D^l over I vanishes for 1 <= l <= 9 except l = 6, where it is v v^T with the one vector v that I leaves
    alone. The mean over H is sum_j w_j D^6(a_j) v v^T. So H is exact up to degree 9 if

        sum_j w_j D^6(a_j) v = 0                                                   (13 equations)

    The rotations and weights solve this to rounding. They were found by least squares from random starts. Of a dozen
    solutions each, one is kept that leaves little of degree 10, the next that survives: 0.63 and 0.50 of what one coset
    leaves. Degree 7 or 8 costs as much as 9.

        icosahedral-5, 300 elements, positive weights (0.89 to 1.12 of the mean)
        icosahedral-6, 360 elements, equal weights
        full-icosahedral-5 and -6, twice as many: times {1, -1}, for functions that depend on reflections (O, E)

    With a learned p this averages over p * (law of h in H), which is another model: train with the design that you
    evaluate with.

    Args:
        cosets: 5, with weights, or 6, with equal ones.
        inversion: whether every element comes with its negative; needs reflections.

    Raises:
        ValueError: another number of cosets.

    >>> import torch, probsym as ps
    >>> class Product(torch.nn.Module):                      # degree 8 in the rotation
    ...     def forward(self, v):
    ...         return v[:, 0] ** 5 * v[:, 1] ** 3
    >>> phi = ps.symmetrize(Product(), ps.Rep(ps.SO(3)), ps.Rep(), "haar").eval()
    >>> y = phi(torch.randn(4, 3, dtype=torch.float64), estimator=ps.MonteCarlo(360, design="icosahedral-6"))
    >>> bool(y.abs().max() < 1e-10)                          # its average over rotations is zero
    True
    """

    cosets: int
    inversion: bool = False

    def __post_init__(self) -> None:
        if self.cosets not in QUATERNIONS:
            known = " or ".join(str(number) for number in QUATERNIONS)
            raise ValueError(f"cosets: expected {known}, got {self.cosets!r}")

    @property
    def size(self) -> int:
        rotations = 60 * self.cosets
        return 2 * rotations if self.inversion else rotations

    @property
    def needs(self) -> str:
        return "O(3) or E(3)" if self.inversion else "SO(3), O(3), SE(3) or E(3)"

    def fits(self, factor: Any) -> bool:
        if not factor.isometric or factor.dim != 3 or factor.kept_axes:
            return False
        return not (self.inversion and factor.special)

    def matrices(self, factor: IsometryGroup) -> np.ndarray:
        rotations = _rotations(self.cosets)
        return finite.with_inversion(rotations) if self.inversion else rotations

    def shares(self, factor: Group, x: Inputs) -> Tensor | None:
        weights = np.array(WEIGHTS[self.cosets])
        if (weights == weights[0]).all():
            return None
        # 1. One weight per rotation, coset after coset, of mean one.
        per_rotation = np.repeat(weights / weights.mean(), 60)
        # 2. The negatives follow in the same order.
        if self.inversion:
            per_rotation = np.concatenate([per_rotation, per_rotation])
        shares = torch.from_numpy(per_rotation).to(x.device)
        return shares[:, None].expand(-1, x.count)


@cache
def _rotations(cosets: int) -> np.ndarray:
    """(60 J, 3, 3) in float64, coset after coset."""
    rotated: list[np.ndarray] = []
    for quaternion in QUATERNIONS[cosets]:
        rotated.append(_matrix(np.array(quaternion)) @ finite.icosahedral())
    return np.concatenate(rotated)


def _matrix(quaternion: np.ndarray) -> np.ndarray:
    """The rotation (3, 3) of a quaternion (w, x, y, z) of any length."""
    w, x, y, z = quaternion / np.linalg.norm(quaternion)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
