"""From deviations to a verdict: rounding, tolerances, error bars and p-values."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from ase import Atoms

from probsym.integrations.audit.evaluation import Evaluation, Results

MILLI = 1000.0  # eV to meV
UNITS = {"energy": "meV/atom", "forces": "meV/A", "stress": "meV/A^3"}
QUANTITIES = tuple(UNITS)

# ---------------------------------------------------------------- tolerances


@dataclass(frozen=True)
class Tolerances:
    """How far results may be off, for every row of the table.

    Args:
        energy: meV/atom. forces: meV/A, root mean square over the components. stress: meV/A^3, likewise.

    Raises:
        ValueError: a tolerance that is not positive and finite.
    """

    energy: float = 0.1
    forces: float = 1.0
    stress: float = 0.1

    def __post_init__(self) -> None:
        for quantity in QUANTITIES:
            value = getattr(self, quantity)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not (number and math.isfinite(value) and value > 0):
                raise ValueError(
                    f"tolerances: {quantity}: expected a positive number of {UNITS[quantity]}; got {value!r}"
                )


# ---------------------------------------------------------------- rounding

JITTERS = 12  # second differences; as many degrees of freedom has the rounding of the energy
JITTER = 1e-6  # of the largest coordinate, at least 1 A: a few last digits in single precision
SAFETY = 10.0  # deviations up to this many times the rounding are rounding
SINGLE = 1e-5  # largest rounding that is forgiven, relative to the size of a result
DOUBLE = 1e-12  # and the least


@dataclass(frozen=True)
class Rounding:
    """How far two results differ by rounding alone, for one structure; see `measure_rounding`.

    Attributes:
        energy, forces, stress: root mean square of the difference of two results, in meV/atom, meV/A, meV/A^3; None
            for what the calculator does not have. step: A, the displacement of each coordinate.
        forgivable: by quantity, the largest rounding that is taken for rounding.
    """

    energy: float
    forces: float | None
    stress: float | None
    step: float
    forgivable: dict[str, float]

    def of(self, quantity: str) -> float:
        """Rounding that is forgiven, in the quantity's unit."""
        measured = getattr(self, quantity)
        if measured is None:
            return 0.0
        most = self.forgivable[quantity]
        return float(min(max(measured, DOUBLE / SINGLE * most), most))


def measure_rounding(evaluate: Evaluation, atoms: Atoms, given: Results, rng: np.random.Generator) -> Rounding:
    """What rounding makes of results, from second differences along random directions.

        d = f(x + h u) - 2 f(x) + f(x - h u) = h^2 f'' + rounding,        h = 1e-6 of the largest coordinate

    A step of h changes the last digits of single precision, and no smooth potential answers to its square: in float64 d
    is below 1e-5 meV. Three roundings with weights 1, -2, 1 make up d, and two the difference of two results, so the
    root mean square of d over sqrt(3) is that of a difference. No dtype has to be known, and a random calculator is
    seen as well.

    What is forgiven is at most single precision, 1e-5 of |E| / N + 1 eV, of the forces + 1 eV/A, of the stress +
    0.2 eV/A^3. More than that is no rounding, but a potential that is not smooth, or random. At least 1e-12 of the same
    is forgiven, since forces that vanish by symmetry show no rounding when atoms move together.
    """
    # 1. The step, by the largest number that the calculator rounds.
    extent = max(1.0, float(np.abs(atoms.positions).max()), float(np.abs(atoms.cell.array).max()))
    step = JITTER * extent

    # 2. Second differences.
    squares: dict[str, list[float]] = {quantity: [] for quantity in QUANTITIES}
    for _ in range(JITTERS):
        direction = rng.standard_normal(atoms.positions.shape)
        sides: list[Results] = []
        for sign in (1, -1):
            moved = atoms.copy()
            moved.positions += sign * step * direction
            sides.append(evaluate(moved, f"{formula(atoms)}, displaced by {step:.0e} A"))
        second = Results(
            sides[0].energy - 2 * given.energy + sides[1].energy,
            _second_difference(sides[0].forces, given.forces, sides[1].forces),
            _second_difference(sides[0].stress, given.stress, sides[1].stress),
        )
        zero = Results(
            0.0,
            None if second.forces is None else np.zeros_like(second.forces),
            None if second.stress is None else np.zeros((3, 3)),
        )
        for quantity, value in deviation(second, zero, len(atoms)).items():
            squares[quantity].append(value**2)
    measured: dict[str, float | None] = {}
    for quantity in QUANTITIES:
        measured[quantity] = math.sqrt(np.mean(squares[quantity]) / 3) if squares[quantity] else None

    # 3. The most that single precision explains.
    forgivable = {"energy": SINGLE * MILLI * (abs(given.energy) / len(atoms) + 1.0)}
    if given.forces is not None:
        forgivable["forces"] = SINGLE * MILLI * (root_mean_square(given.forces) + 1.0)
    if given.stress is not None:
        forgivable["stress"] = SINGLE * MILLI * (root_mean_square(given.stress) + 0.2)
    return Rounding(measured["energy"] or 0.0, measured["forces"], measured["stress"], step, forgivable)


def _second_difference(a: np.ndarray | None, b: np.ndarray | None, c: np.ndarray | None) -> np.ndarray | None:
    if a is None or b is None or c is None:
        return None
    return a - 2 * b + c


def deviation(a: Results, b: Results, atoms: int) -> dict[str, float]:
    """How far two results are apart: meV/atom, and the root mean square over components in meV/A and meV/A^3."""
    found = {"energy": MILLI * abs(a.energy - b.energy) / atoms}
    if a.forces is not None and b.forces is not None:
        found["forces"] = MILLI * root_mean_square(a.forces - b.forces)
    if a.stress is not None and b.stress is not None:
        found["stress"] = MILLI * root_mean_square(a.stress - b.stress)
    return found


def root_mean_square(values: np.ndarray) -> float:
    """Over all entries."""
    return float(np.sqrt(np.mean(np.square(values))))


def formula(atoms: Atoms) -> str:
    """A short name of a structure, for messages."""
    return str(atoms.get_chemical_formula())


# ---------------------------------------------------------------- outcomes

EXACT = "exact"
WITHIN = "within"
VIOLATED = "VIOLATED"
BETS = np.array([0.003, 0.01, 0.03, 0.1, 0.2, 0.4, 0.7, 1.0])


@dataclass(frozen=True)
class Outcome:
    """One row of the table, for one structure and one quantity.

    Attributes:
        row: name of the symmetry or test. quantity: "energy", "forces" or "stress".
        rms: root mean square of the deviations over the draws; stderr: its standard error, None for fixed moves.
        worst: the largest deviation. count: number of draws. All in meV/atom, meV/A, meV/A^3.
        rounding: of such a deviation. limit: the larger of the tolerance and ten times the rounding.
        p_value: of the claim that the rms over all moves is at most the limit; None for moves that are not random.
        verdict: "exact": no deviation beyond ten times the rounding; "within": none beyond the limit; "VIOLATED".
    """

    row: str
    quantity: str
    rms: float
    stderr: float | None
    worst: float
    count: int
    rounding: float
    limit: float
    p_value: float | None
    verdict: str

    @property
    def passed(self) -> bool:
        return self.verdict != VIOLATED

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "unit": UNITS[self.quantity]}


def judge(
    row: str, quantity: str, values: np.ndarray, tolerance: float, rounding: float, random: bool = True
) -> Outcome:
    """The outcome of deviations (K,).

    One deviation beyond the limit is a violation: a symmetric potential has none. So a potential that keeps to the
    tolerance at all moves is never flagged. For one whose results are rounded at random the limit is ten times the
    rounding measured from 12 second differences, which a difference of two results exceeds with probability 4e-7
    (Student's t with 12 degrees of freedom).

    >>> judge("rotation", "energy", np.array([0.2, 0.4]), tolerance=0.1, rounding=1e-9).verdict
    'VIOLATED'
    """
    limit = max(tolerance, SAFETY * rounding)
    squares = np.square(values)
    rms = math.sqrt(squares.mean())
    worst = float(values.max())
    if worst <= SAFETY * rounding:
        verdict = EXACT
    elif worst <= limit:
        verdict = WITHIN
    else:
        verdict = VIOLATED

    stderr = None
    p_value = None
    if random:
        p_value = mean_square_p_value(values, limit)
        if len(values) > 1 and rms > 0:
            # of the root: half of the relative error of the mean square
            stderr = float(squares.std(ddof=1) / math.sqrt(len(values)) / (2 * rms))
    return Outcome(row, quantity, rms, stderr, worst, len(values), rounding, limit, p_value, verdict)


def mean_square_p_value(values: np.ndarray, limit: float) -> float:
    """p-value of `the mean square of independent draws is at most limit^2`, for any law and any number of draws.

    With u_k = (v_k / limit)^2 >= 0 of mean at most one, a bet of the share b of one's capital on each draw,

        e = prod_k (1 + b (u_k - 1)),        0 <= b <= 1,

    has mean at most one, and so has the average over several b. By Markov's inequality 1 / e is a p-value (Waudby-Smith
    and Ramdas, arXiv 2010.09686).

    >>> mean_square_p_value(np.full(24, 2.0), limit=1.0) < 1e-9, mean_square_p_value(np.full(24, 0.5), limit=1.0)
    (True, 1.0)
    """
    u = np.square(values / limit)
    logarithms: list[float] = []
    for bet in BETS:
        factors = 1 + bet * (u - 1)
        if (factors <= 0).any():
            logarithms.append(-math.inf)
        else:
            logarithms.append(float(np.log(factors).sum()))
    largest = max(logarithms)
    e_value = largest + math.log(np.mean(np.exp(np.array(logarithms) - largest)))
    return min(1.0, math.exp(-e_value)) if e_value > 0 else 1.0
