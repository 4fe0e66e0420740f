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
        styles = looks(rows)
        for plot in PLOTS:
            # 1. The rows that have what this plot shows.
            curves = []
            for row, look in zip(rows, styles, strict=True):
                curve = curve_of(plot, row, look)
                if curve is not None:
                    curves.append(curve)
            if not curves:
                continue

            # 2. The numbers, and the figure if there is enough to draw.
            path = out / name / f"{plot.name}.csv"
            lines = []
            for curve in curves:
                lines += csv_lines(plot, curve)
            write(path, table(lines))
            made.append(path)
            figure = plot.draw(EXPERIMENTS[name], curves)
            if figure is not None:
                save(figure, path.with_suffix(".png"))
                made.append(path.with_suffix(".png"))
    return made


def looks(rows: Sequence[Row]) -> list[Look]:
    """Of all rows of an experiment; their labels tell only the overrides in which they differ."""
    # 1. Fields that distinguish rows.
    overrides = [row.results[0]["overrides"] for row in rows]
    told = set()
    for mine in overrides:
        for field, value in mine.items():
            differs = any(other.get(field) != value for other in overrides)
            if differs and field not in UNTOLD:
                told.add(field)

    # 2. Labels, and colours, markers and lines in turn.
    chosen = []
    for number, row in enumerate(rows):
        words = [row.preset]
        for field, value in overrides[number].items():
            if field in told:
                words.append(f"{field}={value}")
        colour = COLOURS[number % len(COLOURS)]
        marker = MARKERS[number % len(MARKERS)]
        line = LINES[number // len(COLOURS) % len(LINES)]
        chosen.append(Look(" ".join(words), colour, marker, line))
    return chosen


def curve_of(plot: Plot, row: Row, look: Look) -> Curve | None:
    """What a plot shows of those results of a row that have it; None if none has."""
    having = []
    by_place: dict[tuple[Any, ...], list[Values]] = {}
    for result in row.results:
        lines = plot.lines(result)
        if not lines:
            continue
        having.append(result)
        for line in lines:
            by_place.setdefault(place_of(plot, line), []).append(line)
    if not having:
        return None
    points = [mean_point(place, by_place[place], plot.value) for place in sorted(by_place)]
    return Curve(Row(row.preset, having), look, points)


def place_of(plot: Plot, line: Values) -> tuple[Any, ...]:
    """Where in a plot a line of its CSV file belongs."""
    return tuple(line[key] for key in plot.keys)


def mean_point(place: tuple[Any, ...], lines: Sequence[Values], column: str) -> Point:
    """The mean over seeds, NaN if a value is none; the test inputs are the same for all, so their error stays."""
    values = []
    test_errors = []
    for line in lines:
        values.append(line[column])
        if line.get("stderr_test") is not None:
            test_errors.append(line["stderr_test"])
    mean, stderr_seeds = mean_and_error(values)
    stderr_test = None
    if test_errors:
        stderr_test = statistics.fmean(test_errors)
    return Point(place, mean, stderr_seeds, stderr_test)


def csv_lines(plot: Plot, curve: Curve) -> list[Values]:
    """Those of each seed, with the standard error over seeds beside."""
    stderr_seeds = {point.at: point.stderr_seeds for point in curve.points}
    made = []
    for result in curve.row.results:
        for line in plot.lines(result):
            of_row = {"row": curve.row.name, "seed": result["seed"]}
            made.append(of_row | line | {"stderr_seeds": stderr_seeds[place_of(plot, line)]})
    return made
