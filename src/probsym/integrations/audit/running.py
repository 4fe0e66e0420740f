"""The audit itself: which tests are made of which structure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
from ase import Atoms

from probsym.groups.whole import positive, whole_number
from probsym.integrations.audit import gradients
from probsym.integrations.audit.evaluation import AuditError, Evaluation, Results, has_stress
from probsym.integrations.audit.moves import SYMMETRIES, Moved, Symmetry
from probsym.integrations.audit.outcome import (
    JITTERS,
    QUANTITIES,
    Outcome,
    Rounding,
    Tolerances,
    deviation,
    formula,
    judge,
    measure_rounding,
)
from probsym.integrations.audit.poses import evaluate_poses, evaluations_per_block, quantities, residuals
from probsym.integrations.audit.poses import spectrum as spectrum_of
from probsym.integrations.audit.report import AuditReport, StructureReport

Progress = Callable[[int, int, str], None]  # evaluations done, evaluations planned, what is being done

REPEATS = 3
SPECTRUM = ("auto", "always", "never")
SMALLEST_DISTANCE = 0.1  # A
SMALLEST_VOLUME = 1e-3  # of a box with edges as long


def audit(
    calculator: Any,
    structures: Atoms | Sequence[Atoms],
    *,
    tolerances: Tolerances | None = None,
    poses: int = 24,
    paths: int = 6,
    spectrum: str = "auto",
    blocks: int = 4,
    rattle: float = 0.05,
    seed: int = 0,
    symmetries: Iterable[Symmetry] = SYMMETRIES,
    progress: Progress | None = None,
) -> AuditReport:
    """Which symmetries a potential has, and by how much it misses the others.

    For every structure x and random moves g of each symmetry,

        v_g = |g^-1 f(g x) - f(x)|        f: energy (meV/atom), forces (meV/A), stress (meV/A^3)

    its root mean square with a standard error, and the worst, are compared with a tolerance and with what rounding
    makes of a result (`Rounding`), which is measured, so that no dtype has to be known. One deviation beyond the limit
    is a violation; docs/atoms.md lists the rows. Then: are the forces minus the gradient of the energy, and of any
    energy; where rotations are violated, the spectrum by degree, and what averaging over 12 to 300 poses leaves.

    Args:
        calculator: an ASE calculator, or a function of `Atoms` that returns a dict with "energy" (eV) and, where the
            model has them, "forces" (N, 3) (eV/A) and "stress" (3, 3) or (6,) (eV/A^3). A calculator with a method
            `calculate_batch(structures, properties)`, as for `SymmetrizedCalculator`, gets moved structures together.
        structures: one or more. They are not changed.
        tolerances: 0.1 meV/atom, 1 meV/A and 0.1 meV/A^3 unless given.
        poses: moves of each symmetry. paths: random lines, loops and strains.
        spectrum: "always", "never", or "auto": for structures where rotations or reflections are violated. It takes
            420 evaluations for each of `blocks` random cosets.
        blocks: random cosets of 300 rotations, at least 4.
        rattle: A, a random displacement of each coordinate before anything else, since symmetric positions hide
            violations: on a perfect crystal all forces vanish. 0 takes the structures as they are.
        seed: of all that is random.
        symmetries: rows of the table; yours are subclasses of `Symmetry`.
        progress: called after each evaluation with (evaluations done, evaluations planned, what is being done).

    Raises:
        AuditError: the calculator failed, or returned no finite numbers of the right shape.
        ValueError, TypeError: no structure, two atoms at one place, a periodic structure without a cell, options out of
            range.

    >>> from ase.build import bulk
    >>> from ase.calculators.emt import EMT
    >>> report = audit(EMT(), bulk("Cu", cubic=True), poses=4, paths=2)
    >>> report.passed, report.worst("rotation", "energy")[1].verdict
    (True, 'exact')
    """
    # 1. Options.
    poses = positive("poses", poses)
    paths = positive("paths", paths)
    seed = whole_number("seed", seed, 0)
    if positive("blocks", blocks) < 4:
        raise ValueError(f"blocks: expected at least 4, to have error bars; got {blocks}")
    if spectrum not in SPECTRUM:
        raise ValueError(f"spectrum: expected one of {', '.join(map(repr, SPECTRUM))}; got {spectrum!r}")
    if isinstance(rattle, bool) or not isinstance(rattle, int | float) or not 0 <= rattle < np.inf:
        raise ValueError(f"rattle: expected a displacement of at least 0 A; got {rattle!r}")
    limits = tolerances if tolerances is not None else Tolerances()
    if isinstance(structures, Atoms):
        structures = [structures]
    structures = list(structures)
    if not structures:
        raise ValueError("structures: expected at least one; got none")
    rows = list(symmetries)

    # 2. Structures, each with random numbers of its own, so that its results do not depend on the others.
    given: list[Atoms] = []
    for number, atoms in enumerate(structures):
        check_structure(atoms, number)
        given.append(_rattled(atoms, rattle, np.random.default_rng([seed, number, 0])))

    # 3. How many evaluations, for the progress; what the spectrum takes is added when it is known to be needed.
    counter = _Counter(progress)
    for atoms in given:
        counter.planned += _planned(atoms, rows, poses, paths)
    evaluate = Evaluation(calculator, counter.count)

    # 4. One after the other.
    reports: list[StructureReport] = []
    for number, atoms in enumerate(given):
        before = evaluate.count
        found = _audit_one(evaluate, atoms, number, limits, poses, paths, seed, rows, counter)
        turned = [one for one in found.outcomes if one.row in ("rotation", "reflection")]
        if spectrum == "always" or (spectrum == "auto" and not all(one.passed for one in turned)):
            _add_spectrum(evaluate, atoms, found, blocks, np.random.default_rng([seed, number, 1]), counter)
        reports.append(replace(found, evaluations=evaluate.count - before))

    settings = {"poses": poses, "paths": paths, "spectrum": spectrum, "blocks": blocks, "rattle": rattle, "seed": seed}
    return AuditReport(_name(calculator), reports, limits, settings, _versions())


def check_structure(atoms: Atoms, number: int) -> None:
    """Refuse what no potential can be asked about.

    Raises:
        TypeError: no Atoms. ValueError: no atoms, positions that are not finite, atoms at one place, a periodic
            direction without a lattice vector; names the structure.
    """
    if not isinstance(atoms, Atoms):
        raise TypeError(f"structures[{number}]: expected ase.Atoms; got {type(atoms).__name__}")
    name = f"structures[{number}] ({formula(atoms)})"
    if len(atoms) == 0:
        raise ValueError(f"structures[{number}]: expected at least one atom; got none")
    if not (np.isfinite(atoms.positions).all() and np.isfinite(atoms.cell.array).all()):
        raise ValueError(f"{name}: expected finite positions and cell; got NaN or infinity")
    periodic = atoms.cell.array[atoms.pbc]
    if len(periodic):
        lengths = np.linalg.norm(periodic, axis=1)
        scaled = periodic / np.where(lengths > 0, lengths, 1)[:, None]
        if (lengths == 0).any() or np.linalg.svd(scaled, compute_uv=False).min() < SMALLEST_VOLUME:
            raise ValueError(
                f"{name}: expected independent lattice vectors along all periodic directions {atoms.pbc.tolist()}; "
                f"got the cell {atoms.cell.array.tolist()}"
            )
    if len(atoms) > 1:
        distances = atoms.get_all_distances(mic=bool(atoms.pbc.any()))
        distances[np.diag_indices(len(atoms))] = np.inf
        if distances.min() < SMALLEST_DISTANCE:
            one, other = np.unravel_index(distances.argmin(), distances.shape)
            raise ValueError(
                f"{name}: expected atoms at different places; atoms {one} and {other} are {distances.min():.2g} A apart"
            )


def _rattled(atoms: Atoms, rattle: float, rng: np.random.Generator) -> Atoms:
    """A copy with displaced atoms, without calculator and constraints."""
    new = atoms.copy()
    new.set_constraint()
    if rattle > 0:
        new.positions += rattle * rng.standard_normal(new.positions.shape)
    return new


# ---------------------------------------------------------------- one structure


def _audit_one(
    evaluate: Evaluation,
    atoms: Atoms,
    number: int,
    tolerances: Tolerances,
    poses: int,
    paths: int,
    seed: int,
    symmetries: list[Symmetry],
    counter: _Counter,
) -> StructureReport:
    """All rows of the table."""
    name = f"{number} {formula(atoms)}"
    counter.what = f"{name}: rounding"
    given = evaluate(atoms, name)
    rounding = measure_rounding(evaluate, atoms, given, np.random.default_rng([seed, number, 2]))
    outcomes: list[Outcome] = []
    skipped: dict[str, str] = {}

    def add(row: str, deviations: list[dict[str, float]], random: bool = True) -> None:
        for quantity in QUANTITIES:
            values = [one[quantity] for one in deviations if quantity in one]
            if values:
                tolerance = getattr(tolerances, quantity)
                outcomes.append(judge(row, quantity, np.array(values), tolerance, rounding.of(quantity), random))

    # 1. The same structure again, and displaced by less than anything physical.
    repeated = [deviation(evaluate(atoms, f"{name}, once more"), given, len(atoms)) for _ in range(REPEATS)]
    add("same again", repeated)
    add("rounding", [_as_deviation(rounding)], random=False)

    # 2. Symmetries.
    for place, symmetry in enumerate(symmetries):
        obstacle = symmetry.obstacle(atoms)
        if obstacle is not None:
            skipped[symmetry.name] = obstacle
            continue
        counter.what = f"{name}: {symmetry.name}"
        rng = np.random.default_rng([seed, number, 3, place])
        moves = list(symmetry.moves(atoms, poses, rng))
        against = [moved.against for moved in moves if moved.against is not None]
        try:
            found = _measured(evaluate, moves, f"{name}, {symmetry.name}")
            references = iter(_measured(evaluate, against, f"{name}, {symmetry.name}"))
        except AuditError as error:
            # An error of the calculator's own is a refusal. Numbers that are none are not.
            if not symmetry.refusable or error.__cause__ is None:
                raise
            skipped[symmetry.name] = "the calculator refuses such structures"
            continue
        deviations: list[dict[str, float]] = []
        for moved, results in zip(moves, found, strict=True):
            reference = given if moved.against is None else next(references)
            deviations.append(deviation(results, reference, len(atoms)))
        add(symmetry.name, deviations, symmetry.random)

    # 3. Are the forces and the stress derivatives of the energy?
    rng = np.random.default_rng([seed, number, 4])
    tests: list[tuple[str, str, str | None, Callable[..., gradients.PathTest], str]] = [
        ("F = -dE/dx", "forces", None, gradients.lines, "energy"),
        ("curl of F", "forces", None, gradients.loops, "forces"),
        ("stress=dE/de", "stress", None if has_stress(atoms) else "not periodic", gradients.strains, "energy"),
    ]
    for row, quantity, obstacle, test, rounded in tests:
        if obstacle is None and getattr(given, quantity) is None:
            obstacle = f"the calculator has no {quantity}"
        if obstacle is not None:
            skipped[row] = obstacle
            continue
        counter.what = f"{name}: {row}"
        made = test(evaluate, atoms, paths, rng, rounding.of(rounded))
        # What the quadrature misses is no deviation: twice the difference to the coarser rule is allowed.
        tolerance = max(getattr(tolerances, quantity), 2 * made.quadrature)
        outcomes.append(judge(row, quantity, made.values, tolerance, made.rounding))

    pbc = (bool(atoms.pbc[0]), bool(atoms.pbc[1]), bool(atoms.pbc[2]))
    return StructureReport(name, len(atoms), pbc, rounding, outcomes, skipped)


def _measured(evaluate: Evaluation, moves: list[Moved], what: str) -> list[Results]:
    """The results of structures that were moved, moved back."""
    found = evaluate.many([moved.atoms for moved in moves], what)
    return [moved.back(results) for moved, results in zip(moves, found, strict=True)]


def _as_deviation(rounding: Rounding) -> dict[str, float]:
    found: dict[str, float] = {}
    for quantity in QUANTITIES:
        value = getattr(rounding, quantity)
        if value is not None:
            found[quantity] = value
    return found


def _add_spectrum(
    evaluate: Evaluation,
    atoms: Atoms,
    found: StructureReport,
    blocks: int,
    rng: np.random.Generator,
    counter: _Counter,
) -> None:
    counter.planned += blocks * evaluations_per_block()
    counter.what = f"{found.name}: spectrum"
    measured = evaluate_poses(evaluate, atoms, blocks, rng)
    for quantity in quantities(measured):
        found.spectra[quantity] = spectrum_of(measured.rotations, measured.values[quantity], measured.weights)
        found.residuals[quantity] = residuals(measured, quantity)


# ---------------------------------------------------------------- counting


class _Counter:
    """Evaluations done and planned, told to whoever shows a progress."""

    def __init__(self, progress: Progress | None) -> None:
        self.progress = progress
        self.done = 0
        self.planned = 0
        self.what = ""

    def count(self) -> None:
        self.done += 1
        if self.progress is not None:
            self.progress(self.done, max(self.planned, self.done), self.what)


def _planned(atoms: Atoms, symmetries: list[Symmetry], poses: int, paths: int) -> int:
    """Evaluations of one structure without its spectrum, about."""
    total = 1 + 2 * JITTERS + REPEATS + paths * (gradients.NODES + 1 + gradients.POINTS)
    if has_stress(atoms):
        total += paths * (gradients.NODES + 1)
    for symmetry in symmetries:
        if symmetry.obstacle(atoms) is not None:
            continue
        total += poses if symmetry.random else 4
        if symmetry.name == "reflection":
            total += poses
    return total


def _name(calculator: Any) -> str:
    name = getattr(calculator, "__name__", None)
    return str(name) if name is not None else type(calculator).__name__


def _versions() -> dict[str, str]:
    found: dict[str, str] = {}
    for package in ("probsym", "ase", "numpy", "torch"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "unknown"
    return found


__all__ = ["AuditError", "Progress", "audit", "check_structure"]
