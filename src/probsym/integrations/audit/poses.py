"""A structure evaluated at many rotations: its spectrum by degree, and what averaging over designs leaves.

    f(R) = R^-1 . y(R x)                 y: energy, forces, stress; f is constant for an equivariant potential

    f(R) = sum_l sum_mn c^l_mn (2l + 1)^(1/2) D^l_mn(R)      (Peter and Weyl),      power P_l = sum_mn |c^l_mn|^2

The sum of P_l over l >= 1 is the variance of f over all poses.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from ase import Atoms

from probsym.estimators import finite
from probsym.estimators.unions import WEIGHTS, IcosahedralUnion
from probsym.groups import SO
from probsym.groups.representations import wigner
from probsym.integrations.audit.evaluation import Evaluation, Results
from probsym.integrations.audit.moves import random_rotations, turned
from probsym.integrations.audit.outcome import MILLI, QUANTITIES, formula

COSETS = 5  # icosahedral ones in a union that is exact up to degree 9
TURN = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])  # what the tetrahedron lacks of the cube
LARGEST_DEGREE = 9
SIZES = (1, 12, 24, 60, 120, 300)
DESIGNS = {
    1: "one pose", 12: "tetrahedral", 24: "octahedral", 60: "icosahedral", 120: "full-icosahedral",
    300: "icosahedral-5",
}  # fmt: skip


@dataclass(frozen=True)
class Poses:
    """One structure at B random cosets of the design icosahedral-5, and at what other designs need besides.

    Attributes:
        rotations: (B, 300, 3, 3): R = (g_b h)^-1 for all h of the design. So does a calculator that is averaged over
            the cosets g_b H turn the structure.
        weights: (300,), of mean one.
        values: by quantity (B, 300, C), f(R) in meV/atom, meV/A, meV/A^3.
        turned: (B, 60, C), at (g_b a_j c q)^-1 for tetrahedral c and a quarter turn q: beside the (g_b a_j c)^-1, an
            octahedral coset for each coset a_j I of the design.
        inverted: (B, 60, C), the first icosahedral coset times -1.
    """

    rotations: np.ndarray
    weights: np.ndarray
    values: dict[str, np.ndarray]
    turned: dict[str, np.ndarray]
    inverted: dict[str, np.ndarray]

    @property
    def evaluations(self) -> int:
        return self.rotations.shape[0] * evaluations_per_block()


def evaluations_per_block() -> int:
    """Evaluations of one structure in one random coset."""
    return 60 * COSETS + 12 * COSETS + 60


def evaluate_poses(evaluate: Evaluation, atoms: Atoms, blocks: int, rng: np.random.Generator) -> Poses:
    """A structure at `blocks` random cosets; (300 + 120) evaluations each."""
    design = IcosahedralUnion(COSETS).matrices(SO(3))
    weights = np.repeat(np.array(WEIGHTS[COSETS]), 60)
    # The first twelve of sixty are the tetrahedral group: `finite.icosahedral` has powers of a five-fold turn times it.
    firsts = design.reshape(COSETS, 60, 3, 3)[:, :12].reshape(-1, 3, 3)
    starts = random_rotations(blocks, rng)

    def measured(matrices: np.ndarray) -> dict[str, np.ndarray]:
        rows: dict[str, list[list[np.ndarray]]] = {}
        for block in matrices:
            of_block: dict[str, list[np.ndarray]] = {}
            poses = list(turned(atoms, block))
            results = evaluate.many([moved.atoms for moved in poses], f"{formula(atoms)}, turned")
            for moved, result in zip(poses, results, strict=True):
                for quantity, numbers in _numbers(moved.back(result), len(atoms)).items():
                    of_block.setdefault(quantity, []).append(numbers)
            for quantity, found in of_block.items():
                rows.setdefault(quantity, []).append(found)
        return {quantity: np.array(found) for quantity, found in rows.items()}

    starts = starts[:, None]
    rotations = inverses(starts @ design)
    return Poses(
        rotations,
        weights / weights.mean(),
        measured(rotations),
        measured(inverses(starts @ firsts @ TURN)),
        measured(inverses(-starts @ finite.icosahedral())),
    )


def inverses(matrices: np.ndarray) -> np.ndarray:
    """Of orthogonal matrices (..., 3, 3)."""
    return np.swapaxes(matrices, -1, -2)


def _numbers(results: Results, atoms: int) -> dict[str, np.ndarray]:
    """The results as rows (C,) in meV/atom, meV/A, meV/A^3."""
    found = {"energy": np.array([MILLI * results.energy / atoms])}
    if results.forces is not None:
        found["forces"] = MILLI * results.forces.ravel()
    if results.stress is not None:
        found["stress"] = MILLI * results.stress.ravel()
    return found


# ---------------------------------------------------------------- spectrum


@dataclass(frozen=True)
class Spectrum:
    """The variance of one quantity over all rotations, by degree; see `spectrum`.

    Attributes:
        power: P_l for l = 1 ... 9, in the square of the unit; mean over components. stderr: standard errors.
        rest, rest_stderr: the variance that is left for degrees above nine.
        variance, variance_stderr: of all degrees.
    """

    power: list[float]
    stderr: list[float]
    rest: float
    rest_stderr: float
    variance: float
    variance_stderr: float

    def to_dict(self) -> dict[str, Any]:
        return {
            "degrees": list(range(1, len(self.power) + 1)),
            "power": self.power,
            "power_stderr": self.stderr,
            "power_above": self.rest,
            "power_above_stderr": self.rest_stderr,
            "variance": self.variance,
            "variance_stderr": self.variance_stderr,
        }


def spectrum(rotations: np.ndarray, values: np.ndarray, weights: np.ndarray, largest: int = LARGEST_DEGREE) -> Spectrum:
    """The power of f in each degree, from B random cosets g_b H of a design.

        c_b^l = (2l + 1)^(1/2) mean_h w_h f(R_bh) D^l(R_bh),        P_l = mean over b != b' of <c_b^l, c_b'^l>

    Every R_bh is uniform, so each c_b^l has mean c^l, and products of two independent cosets have mean |c^l|^2: P_l is
    unbiased for every f, also one with degrees beyond the design's. Such degrees alias into single c_b^l, by an amount
    that differs from coset to coset; they make noise and no bias, and the standard error, a jackknife over cosets,
    knows it. An estimate may be negative: a power of zero within its error.

    Less noise: before degree l is estimated from the cosets b and b', the lower degrees are subtracted as the other
    cosets know them, each times the share of it that they agree on. They have no degree l, and are independent of b and
    b', so this makes no bias. Where f has degrees up to 4 only there is no noise at all: the design sums up products of
    degree nine and less exactly.

    The rest, above the largest degree, is the variance (all f^2, less products of means of two cosets) less the sum.

    Args:
        rotations: (B, M, 3, 3), B > 1. values: (B, M, C). weights: (M,) of mean one. largest: degree.

    Raises:
        ValueError: one coset.

    >>> design = IcosahedralUnion(5).matrices(SO(3))
    >>> rotations = random_rotations(2, np.random.default_rng(0))[:, None] @ design
    >>> weights = np.repeat(np.array(WEIGHTS[5]), 60)
    >>> values = rotations[..., 0, :1] * rotations[..., 1, 1:2]                     # degree two and less, mean zero
    >>> found = spectrum(rotations, values, weights / weights.mean())
    >>> [abs(round(power, 6)) for power in found.power[:4]], round(found.variance, 6)
    ([0.083333, 0.05, 0.0, 0.0], 0.133333)
    """
    blocks, size, components = values.shape
    if blocks < 2:
        raise ValueError(f"rotations: expected at least two random cosets; got {blocks}")
    # A constant changes degree zero only, and the digits are better without it.
    values = values - values.mean((0, 1))
    turns = torch.from_numpy(np.ascontiguousarray(rotations))
    harmonics: list[np.ndarray] = []  # (2l + 1)^(1/2) D^l, (B, M, (2l + 1)^2)
    for degree in range(largest + 1):
        matrices = wigner(turns, degree).numpy().reshape(blocks, size, -1)
        harmonics.append(math.sqrt(2 * degree + 1) * matrices)
    shares = weights[None, :, None] / size

    # 1. Products of the coefficients of two cosets, (L + 1, B, B).
    products = np.zeros((largest + 1, blocks, blocks))
    for b in range(blocks):
        for other in range(b):
            third = np.array([c for c in range(blocks) if c not in (b, other)])
            left = values
            for degree, harmonic in enumerate(harmonics):
                coefficients = np.swapaxes(left * shares, 1, 2) @ harmonic  # (B, C, (2l + 1)^2)
                product = np.sum(coefficients[b] * coefficients[other]) / components
                products[degree, b, other] = product
                products[degree, other, b] = product
                if len(third) > 1:
                    known = coefficients[third]
                    mean = known.mean(0)
                    agreed = max(0.0, cross_power(known.reshape(len(third), -1)))
                    size_of_mean = float(np.sum(mean * mean))
                    if size_of_mean > 0:
                        left = left - harmonic @ (agreed / size_of_mean * mean).T

    # 2. Powers from all cosets, and without each one.
    squares = (values**2 * shares).sum((1, 2)) / components

    def powers(chosen: np.ndarray) -> np.ndarray:
        pairs = products[:, chosen][:, :, chosen]
        count = len(chosen)
        estimated = pairs.sum((1, 2)) / (count * (count - 1))  # the diagonal is zero
        variance = squares[chosen].mean() - estimated[0]
        return np.array([*estimated[1:], variance - estimated[1:].sum(), variance])

    estimate, stderr = jackknife(powers, blocks)
    return Spectrum(
        estimate[:largest].tolist(),
        stderr[:largest].tolist(),
        float(estimate[largest]),
        float(stderr[largest]),
        float(estimate[largest + 1]),
        float(stderr[largest + 1]),
    )


def cross_power(rows: np.ndarray) -> float:
    """The mean of <a_b, a_b'> over all pairs b != b' of rows (B, F): unbiased for |E a|^2."""
    count = len(rows)
    total = rows.sum(0)
    return float((total @ total - (rows * rows).sum()) / (count * (count - 1)))


def jackknife(estimator: Callable[[np.ndarray], np.ndarray], count: int) -> tuple[np.ndarray, np.ndarray]:
    """An estimate from numbers 0 ... count - 1, and its standard error from those that leave one out."""
    everything = np.arange(count)
    estimate = estimator(everything)
    if count < 3:
        # without one, no pair is left to estimate from
        return estimate, np.full_like(estimate, np.nan)
    without = np.stack([estimator(np.delete(everything, place)) for place in everything])
    spread = ((without - without.mean(0)) ** 2).sum(0)
    return estimate, np.sqrt(spread * (count - 1) / count)


# ---------------------------------------------------------------- averaging


@dataclass(frozen=True)
class Residual:
    """What averaging over a design with frozen pose leaves.

    Attributes:
        size: number of poses. design: its name. variance: over random frozen poses, in the square of the unit, the mean
            over components; stderr: its standard error.
    """

    size: int
    design: str
    variance: float
    stderr: float

    @property
    def spread(self) -> float:
        """The standard deviation, zero where the estimate of the variance is negative."""
        return math.sqrt(max(self.variance, 0.0))

    def to_dict(self) -> dict[str, Any]:
        return {
            "poses": self.size,
            "design": self.design,
            "spread": self.spread,
            "variance": self.variance,
            "variance_stderr": self.stderr,
        }


def residuals(poses: Poses, quantity: str) -> list[Residual]:
    """The spread of averages over 12, 24, 60, 120 and 300 poses, if the frozen pose is random; and that of one pose.

    The evaluations of a random coset of icosahedral-5 serve all designs: it is five icosahedral cosets, each of which
    is five tetrahedral ones. Averages of one random coset depend on one another, and those of different ones do not:

        variance = mean of A^2  -  mean over b != b' of <mean A_b, mean A_b'>

    is unbiased, and the standard error is a jackknife over random cosets.

    The polyhedra stand along x, y and z. What a potential violates with the symmetry of a cube along these axes, by
    differences along x, y and z, the octahedral design therefore does not reduce at all.
    """
    values = poses.values[quantity]
    blocks, _, components = values.shape
    centre = values.mean((0, 1))
    values = values - centre
    icosahedral = values.reshape(blocks, COSETS, 60, components)
    tetrahedral = icosahedral.reshape(blocks, COSETS * 5, 12, components)
    quarter = (poses.turned[quantity] - centre).reshape(blocks, COSETS, 12, components)
    inverted = poses.inverted[quantity] - centre
    of_sixty = icosahedral.mean(2)
    weights = poses.weights[:, None]
    averages = {
        1: values,
        12: tetrahedral.mean(2),
        24: (icosahedral[:, :, :12].mean(2) + quarter.mean(2)) / 2,
        60: of_sixty,
        120: (of_sixty[:, :1] + inverted.mean(1, keepdims=True)) / 2,
        300: (values * weights).mean(1, keepdims=True),
    }

    found: list[Residual] = []
    for size in SIZES:
        average = averages[size]
        squares = (average**2).mean((1, 2))
        means = average.mean(1)

        def variance(chosen: np.ndarray, squares: np.ndarray = squares, means: np.ndarray = means) -> np.ndarray:
            return np.array([squares[chosen].mean() - cross_power(means[chosen]) / components])

        estimate, stderr = jackknife(variance, blocks)
        found.append(Residual(size, DESIGNS[size], float(estimate[0]), float(stderr[0])))
    return found


def quantities(poses: Poses) -> list[str]:
    """Those that were measured, in order."""
    return [quantity for quantity in QUANTITIES if quantity in poses.values]
