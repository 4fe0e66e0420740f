"""What an audit found: a table of 80 columns, and a dict for JSON."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from probsym.integrations.audit.outcome import QUANTITIES, SAFETY, UNITS, VIOLATED, Outcome, Rounding, Tolerances
from probsym.integrations.audit.poses import Residual, Spectrum

FORMAT = "probsym audit 1"
RULE = "-" * 79


@dataclass(frozen=True)
class StructureReport:
    """What was found for one structure.

    Attributes:
        name: number and formula. atoms: number of atoms. pbc: periodic directions.
        rounding: what two results differ by through rounding alone.
        outcomes: one per row and quantity. skipped: rows that do not apply, with the reason.
        spectra, residuals: by quantity; empty where they were not asked for.
        evaluations: calls of the calculator.
    """

    name: str
    atoms: int
    pbc: tuple[bool, bool, bool]
    rounding: Rounding
    outcomes: list[Outcome]
    skipped: dict[str, str]
    spectra: dict[str, Spectrum] = field(default_factory=dict)
    residuals: dict[str, list[Residual]] = field(default_factory=dict)
    evaluations: int = 0

    @property
    def passed(self) -> bool:
        return all(outcome.passed for outcome in self.outcomes)

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "atoms": self.atoms,
            "pbc": list(self.pbc),
            "passed": self.passed,
            "rounding": asdict(self.rounding),
            "outcomes": [outcome.to_dict() for outcome in self.outcomes],
            "skipped": self.skipped,
            "spectra": {quantity: found.to_dict() for quantity, found in self.spectra.items()},
            "residuals": {quantity: [one.to_dict() for one in found] for quantity, found in self.residuals.items()},
            "evaluations": self.evaluations,
        }


@dataclass(frozen=True)
class AuditReport:
    """What `audit` found. `print(report)` shows the table, `report.passed` is the verdict.

    Attributes:
        calculator: its name. structures: one report each. tolerances: in meV/atom, meV/A, meV/A^3.
        settings: poses, paths, blocks, rattle, seed. versions: of the packages.
    """

    calculator: str
    structures: list[StructureReport]
    tolerances: Tolerances
    settings: dict[str, Any]
    versions: dict[str, str]

    @property
    def passed(self) -> bool:
        """Whether no row of no structure is violated."""
        return all(structure.passed for structure in self.structures)

    @property
    def violations(self) -> list[tuple[StructureReport, Outcome]]:
        """All that is violated, with its structure."""
        found: list[tuple[StructureReport, Outcome]] = []
        for structure in self.structures:
            for outcome in structure.outcomes:
                if outcome.verdict == VIOLATED:
                    found.append((structure, outcome))
        return found

    def worst(self, row: str, quantity: str) -> tuple[StructureReport, Outcome] | None:
        """The structure that is furthest off in one row, relative to its limit; None if the row applies to none."""
        found: tuple[StructureReport, Outcome] | None = None
        for structure in self.structures:
            for outcome in structure.outcomes:
                if (outcome.row, outcome.quantity) != (row, quantity):
                    continue
                if found is None or outcome.worst / outcome.limit > found[1].worst / found[1].limit:
                    found = (structure, outcome)
        return found

    @property
    def rows(self) -> list[str]:
        """Names of the rows that apply to a structure, in order."""
        names: list[str] = []
        for structure in self.structures:
            for outcome in structure.outcomes:
                if outcome.row not in names:
                    names.append(outcome.row)
        return names

    @property
    def shown(self) -> StructureReport | None:
        """The structure whose spectrum is shown: the one that rotations change most, relative to the limit."""
        candidates = [structure for structure in self.structures if structure.spectra]
        if not candidates:
            return None

        def size(structure: StructureReport) -> float:
            largest = 0.0
            for outcome in structure.outcomes:
                if outcome.row in ("rotation", "reflection"):
                    largest = max(largest, outcome.rms / outcome.limit)
            return largest

        return max(candidates, key=size)

    def to_dict(self) -> dict[str, Any]:
        """For JSON: numbers in meV/atom, meV/A, meV/A^3; None where there is none."""
        content = {
            "format": FORMAT,
            "calculator": self.calculator,
            "passed": self.passed,
            "units": UNITS,
            "tolerances": asdict(self.tolerances),
            "settings": self.settings,
            "versions": self.versions,
            "structures": [structure.to_dict() for structure in self.structures],
        }
        return _without_nan(content)

    def __str__(self) -> str:
        """The tables, at most 80 columns."""
        lines = self._head()
        lines += self._outcomes()
        lines += self._remarks()
        shown = self.shown
        if shown is not None:
            lines += _spectrum(shown)
            lines += _averaging(shown)
        lines += self._verdict()
        return "\n".join(lines)

    # ---------------------------------------------------------------- parts of the table

    def _head(self) -> list[str]:
        names = ", ".join(structure.name for structure in self.structures)
        if len(names) > 60:
            names = f"{len(self.structures)} structures"
        limits = [f"{getattr(self.tolerances, quantity):g} {UNITS[quantity]}" for quantity in QUANTITIES]
        rattle = self.settings.get("rattle", 0.0)
        atoms = f"atoms displaced by {rattle:g} A at random" if rattle else "as given"
        return [
            f"audit of {self.calculator}",
            f"{names}; {atoms}; seed {self.settings.get('seed')}",
            f"tolerances: {', '.join(limits)}, or ten times the rounding",
        ]

    def _outcomes(self) -> list[str]:
        heading = (
            f"{'row':12} {'quantity':8} {'rms over draws':>17} {'worst':>9} {'rounding':>8} {'p':>7} {'verdict':>9}"
        )
        lines = [RULE, heading, RULE]
        for row in self.rows:
            name = row
            for quantity in QUANTITIES:
                found = self.worst(row, quantity)
                if found is None:
                    continue
                lines.append(_row(name, found[1]))
                name = ""
        lines.append(RULE)
        if len(self.structures) > 1:
            lines.append("Each line is the structure that is furthest off, relative to its limit.")
        lines.append("p: that the rms over all moves is within the limit, for any law of deviations")
        return lines

    def _remarks(self) -> list[str]:
        lines: list[str] = []
        for row in self.rows:
            for quantity in QUANTITIES:
                found = self.worst(row, quantity)
                if found is None:
                    continue
                structure, outcome = found
                expected = max(getattr(self.tolerances, quantity), SAFETY * outcome.rounding)
                if outcome.limit > expected:
                    limit = f"{_short(outcome.limit)} {UNITS[quantity]}"
                    lines.append(f"{row}, {structure.name}: limit {limit}, by the error of the integral")
        for structure in self.structures:
            reasons: dict[str, list[str]] = {}
            for row, reason in structure.skipped.items():
                reasons.setdefault(reason, []).append(row)
            for reason, names in reasons.items():
                line = f"not for {structure.name}: {', '.join(names)} ({reason})"
                if len(self.structures) <= 3:
                    lines.append(line)
        return lines

    def _verdict(self) -> list[str]:
        calls = sum(structure.evaluations for structure in self.structures)
        if self.passed:
            return [RULE, f"PASSED: no violation in {len(self.structures)} structures, {calls:,} evaluations."]
        lines = [RULE, f"VIOLATED, in {calls:,} evaluations:"]
        for structure, outcome in self.violations[:20]:
            lines.append(
                f"  {outcome.row}, {outcome.quantity}, {structure.name}: off by up to {outcome.worst:.3g} "
                f"{UNITS[outcome.quantity]}"
            )
        if len(self.violations) > 20:
            lines.append(f"  and {len(self.violations) - 20} more")
        return lines


def _row(name: str, outcome: Outcome) -> str:
    error = "" if outcome.stderr is None else f"+- {_short(outcome.stderr)}"
    p_value = "" if outcome.p_value is None else _p(outcome.p_value)
    return (
        f"{name:12} {outcome.quantity:8} {_short(outcome.rms):>8} {error:>9}{_short(outcome.worst):>9} "
        f"{_short(outcome.rounding):>8} {p_value:>7} {outcome.verdict:>9}"
    )


def _spectrum(structure: StructureReport) -> list[str]:
    lines = [
        "",
        f"{structure.name}: violation of rotations by degree l, share of the variance in %",
        f"standard deviation of one pose: {_units(structure.spectra)}",
    ]
    lines.append(f"{'l':>6}" + "".join(f"{quantity:>23}" for quantity in structure.spectra))
    count = len(next(iter(structure.spectra.values())).power)
    for place in range(count + 1):
        label = str(place + 1) if place < count else f"> {count}"
        cells: list[str] = []
        for found in structure.spectra.values():
            power = found.power[place] if place < count else found.rest
            stderr = found.stderr[place] if place < count else found.rest_stderr
            share = 100 / found.variance if found.variance > 0 else math.nan
            cells.append(f"{share * power:>10.2f} +- {share * stderr:<9.2g}")
        lines.append(f"{label:>6}" + "".join(cells))
    return lines


def _averaging(structure: StructureReport) -> list[str]:
    lines = ["", f"{structure.name}: what averaging leaves, standard deviation over random frozen poses"]
    lines.append(f"{'poses':>6} {'design':17}" + "".join(f"{quantity:>18}" for quantity in structure.residuals))
    for place in range(len(next(iter(structure.residuals.values())))):
        cells: list[str] = []
        for found in structure.residuals.values():
            cells.append(f"{spread(found[place]):>18}")
        first = next(iter(structure.residuals.values()))[place]
        lines.append(f"{first.size:>6} {first.design:17}" + "".join(cells))
    return lines


def _units(found: dict[str, Spectrum]) -> str:
    return ", ".join(f"{_short(math.sqrt(max(one.variance, 0)))} {UNITS[quantity]}" for quantity, one in found.items())


def spread(found: Residual) -> str:
    """A standard deviation with its error, or a bound of two errors where it is not distinguishable from zero.

    >>> spread(Residual(12, "tetrahedral", 4.0, 0.4)), spread(Residual(12, "tetrahedral", 0.1, 0.4))
    ('2.00 +- 0.1', '< 0.949')
    """
    if not math.isfinite(found.stderr):
        return _short(found.spread)
    if found.variance <= 2 * found.stderr:
        return f"< {_short(math.sqrt(max(found.variance, 0.0) + 2 * found.stderr))}"
    return f"{_short(found.spread)} +- {found.stderr / (2 * found.spread):.1g}"


def _short(value: float) -> str:
    """Three digits."""
    if value == 0:
        return "0"
    if 1e-3 <= abs(value) < 1e5:
        return f"{value:#.3g}".rstrip(".")
    return f"{value:.0e}"


def _p(value: float) -> str:
    return "< 1e-6" if value < 1e-6 else f"{value:.2g}"


def _without_nan(content: Any) -> Any:
    """JSON has no NaN: None instead."""
    if isinstance(content, dict):
        return {key: _without_nan(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_without_nan(value) for value in content]
    if isinstance(content, float) and not math.isfinite(content):
        return None
    return content
