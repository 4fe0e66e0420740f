"""`probsym figures`: all results on one plot each, and the same numbers as CSV."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from probsym.files import write

from .comparisons import MARKERS, PLOTS, Curve, Look, Plot, Point, Values
from .figures import save
from .registry import EXPERIMENTS
from .tables import Row, mean_and_error, ours
from .training import table

COLOURS = [f"C{i}" for i in range(10) if i != 7]  # grey is for papers
LINES = ["-", "-.", ":"]
UNTOLD = {"test_size"}  # overrides that make no other method


def figures(runs: Path, out: Path, results: Path | None = None) -> list[Path]:
    """Draws what the results allow into `out`/EXPERIMENT/NAME.png, with NAME.csv beside it; returns all paths.

    Args:
        results: Folder of EXPERIMENT/PRESET/*.json; `tables.place` finds one unless given.
    """
    made = []
    for name, rows in ours(runs, results).items():
        if name not in EXPERIMENTS:
            continue
        for plot in PLOTS:
            curves = [
                c for row, look in zip(rows, looks(rows), strict=True) if (c := curve(plot, row, look)) is not None
            ]
            if not curves:
                continue
            path = out / name / f"{plot.name}.csv"
            write(path, table([line for c in curves for line in _lines(plot, c)]))
            made.append(path)
            if (figure := plot.draw(EXPERIMENTS[name], curves)) is not None:
                save(figure, path.with_suffix(".png"))
                made.append(path.with_suffix(".png"))
    return made


def looks(rows: Sequence[Row]) -> list[Look]:
    """Of all rows of an experiment; their names tell only the overrides in which they differ."""
    overrides = [row.results[0]["overrides"] for row in rows]
    told = {k for one in overrides for k in one if any(other.get(k) != one[k] for other in overrides)} - UNTOLD
    return [
        Look(
            " ".join([row.preset, *(f"{k}={v}" for k, v in changed.items() if k in told)]),
            COLOURS[i % len(COLOURS)],
            MARKERS[i % len(MARKERS)],
            LINES[i // len(COLOURS) % len(LINES)],
        )
        for i, (row, changed) in enumerate(zip(rows, overrides, strict=True))
    ]


def curve(plot: Plot, row: Row, look: Look) -> Curve | None:
    """What a plot shows of those results of a row that have it; None if none has."""
    kept = [result for result in row.results if plot.lines(result)]
    found: dict[tuple[Any, ...], list[Values]] = {}
    for line in (line for result in kept for line in plot.lines(result)):
        found.setdefault(_at(plot, line), []).append(line)
    points = [_point(at, found[at], plot.value) for at in sorted(found)]
    return Curve(Row(row.preset, kept), look, points) if kept else None


def _at(plot: Plot, line: Values) -> tuple[Any, ...]:
    return tuple(line[key] for key in plot.keys)


def _point(at: tuple[Any, ...], lines: Sequence[Values], column: str) -> Point:
    """The mean over seeds, NaN if a value is none; the test inputs are the same for all, so their error stays."""
    value, seeds = mean_and_error([line[column] for line in lines])
    errors = [line["stderr_test"] for line in lines if line.get("stderr_test") is not None]
    return Point(at, value, seeds, statistics.fmean(errors) if errors else None)


def _lines(plot: Plot, shown: Curve) -> list[Values]:
    """Those of each seed, with the standard error over seeds beside."""
    spread = {point.at: point.stderr_seeds for point in shown.points}
    return [
        {"row": shown.row.name, "seed": result["seed"], **line, "stderr_seeds": spread[_at(plot, line)]}
        for result in shown.row.results
        for line in plot.lines(result)
    ]
