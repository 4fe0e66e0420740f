"""`probsym table`: our results, seed by seed made one row, beside published ones."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from .published import published
from .registry import EXPERIMENTS, Experiment, summary
from .results import RESULT, read_result

VARIANTS = ("-quick", "-published")
ERRORS = ("± seeds", "± test", "± samples")
COLUMNS = ("published", "ours", *ERRORS, "seeds", "k", "steps", "PFLOP", "wall", "CPU", "params")
CHECKOUT = Path(__file__).parents[3]


@dataclass(frozen=True)
class Row:
    """All seeds of one preset with the same overrides."""

    preset: str
    results: list[dict[str, Any]]

    @property
    def name(self) -> str:
        """The preset and what was changed in it."""
        return " ".join([self.preset, *(f"{k}={v}" for k, v in self.results[0]["overrides"].items())])

    @property
    def family(self) -> str:
        """The preset without -quick or -published."""
        name = self.preset
        for ending in VARIANTS:
            name = name.removesuffix(ending)
        return name

    def mean(self, field: str) -> float:
        """NaN where a result is no number, since a training diverged."""
        return mean_and_error([result[field] for result in self.results])[0]

    def known_mean(self, field: str) -> float | None:
        """Mean of a field over the results that have it: those of earlier versions may not."""
        values = [result[field] for result in self.results if result.get(field) is not None]
        return statistics.fmean(values) if values else None

    def stderr(self) -> float | None:
        """Standard error over seeds."""
        return mean_and_error([result["value"] for result in self.results])[1]


def mean_and_error(values: Sequence[float | None]) -> tuple[float, float | None]:
    """Mean and standard error, which one value does not have; NaN if a value is none.

    >>> mean_and_error([1.0, 3.0]), mean_and_error([None])
    ((2.0, 1.0), (nan, None))
    """
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return math.nan, math.nan if len(values) > 1 else None
    return statistics.fmean(known), statistics.stdev(known) / len(known) ** 0.5 if len(known) > 1 else None


def collect(results: Path, runs: Path) -> dict[str, list[Row]]:
    """Rows by experiment, from `results`/EXPERIMENT/PRESET/*.json and every result.json under `runs`.

    Of two results with the same recipe and seed the one in `results` counts.
    """
    found: dict[str, dict[str, dict[int, dict[str, Any]]]] = {}
    for path in [*sorted(results.glob("*/*/*.json")), *sorted(runs.rglob(RESULT))]:
        result = read_result(path)
        key = json.dumps([result["preset"], result["overrides"]], sort_keys=True)
        found.setdefault(result["experiment"], {}).setdefault(key, {}).setdefault(result["seed"], result)
    return {
        name: [Row(json.loads(key)[0], list(seeds.values())) for key, seeds in sorted(rows.items())]
        for name, rows in found.items()
    }


def ours(runs: Path) -> dict[str, list[Row]]:
    """`collect` from `results` (here, or in the checkout) and `runs`."""
    return collect(next((p for p in (Path("results"), CHECKOUT / "results") if p.is_dir()), Path("results")), runs)


def tables(runs: Path) -> list[Table]:
    """One table an experiment."""
    found = ours(runs)
    return [table(experiment, found.get(name, [])) for name, experiment in EXPERIMENTS.items()]


def table(experiment: Experiment, rows: Iterable[Row]) -> Table:
    """Published rows in their order, each followed by our presets of the same method, then our others.

    Below stands what each of our presets is.
    """
    made = Table(title=f"{experiment.name}: {experiment.metric}", title_justify="left", caption_justify="left")
    made.add_column("row")
    for heading in (*COLUMNS, *(name.replace("_", " ") for name in experiment.beside)):
        made.add_column(heading, justify="right", no_wrap=heading in COLUMNS)
    left = list(rows)
    told = dict.fromkeys(row.preset for row in left if row.preset in experiment.presets)
    made.caption = "\n".join(f"{name}: {summary(experiment.presets[name])}" for name in told)
    for paper in published(experiment.name):
        made.add_row(paper.row, str(paper), *[""] * 6, _count(paper.steps), _petaflop(paper.train_flops))
        for row in [row for row in left if row.family == paper.preset]:
            made.add_row(*_cells(row, experiment.beside))
            left.remove(row)
    for row in left:
        made.add_row(*_cells(row, experiment.beside))
    return made


def _cells(row: Row, beside: Iterable[str]) -> list[str]:
    first = row.results[0]
    return [
        f"  {row.name}",
        "",
        f"{row.mean('value'):.4g}",
        _number(row.stderr(), ".1g"),
        _number(row.known_mean("stderr_test"), ".1g"),
        f"{row.mean('stderr'):.1g}",
        str(len(row.results)),
        str(first["samples"]),
        _count(first["steps"]),
        _petaflop(row.known_mean("train_flops")),
        f"{row.mean('wall_s') / 60:.1f} min",
        "" if (cpu := row.known_mean("cpu_s")) is None else f"{cpu / 60:.1f} min",
        f"{first['params']:,}",
        *(_number(row.known_mean(name), ".2g") for name in beside),
    ]


def _number(value: float | None, style: str) -> str:
    return "" if value is None else format(value, style)


def _count(number: int | None) -> str:
    return "" if number is None else f"{number:,}"


def _petaflop(operations: float | None) -> str:
    return "" if operations is None else f"{operations / 1e15:.2g}"
