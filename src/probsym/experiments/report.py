"""`probsym figures`: all results on one plot each, and the same numbers as CSV."""

from __future__ import annotations

import statistics
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from probsym.files import write

from .figures import STYLES, sample_axis, save
from .published import published
from .registry import EXPERIMENTS, Experiment
from .tables import Row, ours
from .training import table

MARKERS = "osD^vPX*<>"
Values = dict[str, Any]  # one line of a CSV file


@dataclass(frozen=True)
class Plot:
    """One figure: which field of a result it needs, its CSV lines, and how it is drawn from the rows that have it."""

    name: str
    field: str
    lines: Callable[[dict[str, Any]], list[Values]]
    draw: Callable[[Experiment, list[Row]], Figure]


def figures(runs: Path, out: Path) -> list[Path]:
    """Draws what the results allow into `out`/EXPERIMENT/NAME.png, with NAME.csv beside it; returns all paths."""
    made = []
    for name, rows in ours(runs).items():
        if name not in EXPERIMENTS:
            continue
        for plot in PLOTS:
            fit = [Row(r.preset, kept) for r in rows if (kept := [x for x in r.results if x.get(plot.field)])]
            if not fit:
                continue
            path = out / name / f"{plot.name}.png"
            save(plot.draw(EXPERIMENTS[name], fit), path)
            write(path.with_suffix(".csv"), table(_lines(plot, fit)))
            made += [path, path.with_suffix(".csv")]
    return made


def _lines(plot: Plot, rows: list[Row]) -> list[Values]:
    return [{"row": r.name, "seed": x["seed"], **line} for r in rows for x in r.results for line in plot.lines(x)]


def error_against_samples(experiment: Experiment, rows: list[Row]) -> Figure:
    """Lines of means over seeds, their standard error as bars; a mean over all group elements is a dashed line."""
    figure, axes = _wide()
    _curves(axes, rows, "by_samples", "value")
    for style, paper in zip(STYLES, [p for p in published(experiment.name) if p.figure], strict=False):
        axes.axhline(paper.value, color="0.6", linestyle=style, linewidth=1, label=f"published: {paper.row} {paper}")
    sample_axis(axes, _counts(rows, "by_samples"))
    axes.set(yscale="log", ylabel=experiment.metric)
    _legend(axes)
    return figure


def equivariance_against_samples(experiment: Experiment, rows: list[Row]) -> Figure:
    """Root-mean-square of phi_k(h x) - h phi_k(x) against k; random ones fall as 1 / sqrt(k)."""
    figure, axes = _wide()
    _curves(axes, rows, "equivariance_by_samples", "error")
    sample_axis(axes, _counts(rows, "equivariance_by_samples"))
    axes.set(yscale="log", ylabel="equivariance error (RMS, units of the positions)")
    _legend(axes)
    return figure


def samples_for_tolerance(experiment: Experiment, rows: list[Row]) -> Figure:
    """A panel a tolerance: shares of test inputs by the number of samples that they need, a line a row."""
    tolerances = [entry["tolerance"] for entry in rows[0].results[0]["samples_for_tolerance"]]
    figure = Figure(figsize=(4 * len(tolerances) + 3, 4), layout="constrained")
    panels = figure.subplots(1, len(tolerances), sharey=True, squeeze=False)[0]
    looks = _looks(rows)
    for i, (axes, tolerance) in enumerate(zip(panels, tolerances, strict=True)):
        for row in rows:
            entries = [x["samples_for_tolerance"][i]["histogram"] for x in row.results]
            counts = [sum(column) for column in zip(*entries, strict=True)]
            ends = [2**bin for bin in range(len(counts))]
            color, marker = looks[row.name]
            share = [100 * c / sum(counts) for c in counts]
            axes.plot(ends, share, color=color, marker=marker, markersize=5, label=_short(row.name))
        axes.set(xscale="log", xlabel="samples needed (at most)", title=f"standard error below {tolerance:g}")
        axes.set_xticks(ends[::2], [str(e) for e in ends[::2]])
        axes.xaxis.set_minor_locator(NullLocator())
    panels[0].set_ylabel("test inputs (%)")
    _legend(panels[-1])
    return figure


def error_against_cost(experiment: Experiment, rows: list[Row]) -> Figure:
    """Minutes of training and testing against the metric, means over seeds; bars are standard errors over seeds."""
    figure, axes = _wide()
    looks = _looks(rows)
    for row in sorted(rows, key=lambda r: r.mean("value")):
        color, marker = looks[row.name]
        minutes, value = row.mean("wall_s") / 60, row.mean("value")
        bars = {"capsize": 3, "linestyle": "", "label": _short(row.name)}
        axes.errorbar(minutes, value, row.stderr(), color=color, marker=marker, **bars)  # type: ignore[arg-type]
    for style, paper in zip(STYLES, [p for p in published(experiment.name) if p.figure], strict=False):
        axes.axhline(paper.value, color="0.6", linestyle=style, linewidth=1, label=f"published: {paper.row} {paper}")
    axes.set(xscale="log", yscale="log", xlabel="minutes of training and testing, as run", ylabel=experiment.metric)
    _legend(axes)
    return figure


def learning_curve(experiment: Experiment, rows: list[Row]) -> Figure:
    """The validation metric against the step, a line a seed; grey lines are published test results."""
    figure, axes = _wide()
    looks = _looks(rows)
    for row in rows:
        for number, result in enumerate(row.results):
            curve = result["learning_curve"]
            steps, values = [point["step"] for point in curve], [point["valid"] for point in curve]
            colour, marker = looks[row.name]
            label = None if number else _short(row.name)
            axes.plot(steps, values, color=colour, marker=marker, markersize=4, linewidth=1.2, label=label)
    for style, paper in zip(STYLES, [p for p in published(experiment.name) if p.figure], strict=False):
        axes.axhline(paper.value, color="0.6", linestyle=style, linewidth=1, label=f"published: {paper.row} {paper}")
    axes.set(xlabel="step", ylabel=experiment.metric.replace("test", "validation"))
    _legend(axes)
    return figure


def _wide() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(11, 5.5), layout="constrained")
    return figure, figure.subplots()


def _legend(axes: Axes) -> None:
    for panel in axes.figure.axes:
        panel.grid(which="major", alpha=0.3)
    axes.legend(fontsize="x-small", loc="center left", bbox_to_anchor=(1.01, 0.5))


def _looks(rows: Sequence[Row]) -> dict[str, tuple[str, str]]:
    """A colour for each symmetrizer (the same in all experiments) and a marker for each row that shares it."""
    known = ["ps", "ga", "fa", "canonical", "none"]
    found: dict[str, tuple[str, str]] = {}
    seen: dict[str, int] = {}
    for row in rows:
        method = row.results[0].get("config", {}).get("symmetrizer", "")
        colour = f"C{known.index(method)}" if method in known else "0.3"
        found[row.name] = colour, MARKERS[seen.get(colour, 0) % len(MARKERS)]
        seen[colour] = seen.get(colour, 0) + 1
    return found


def _curves(axes: Axes, rows: list[Row], field: str, value: str) -> None:
    """A line a row; where no number of samples was chosen, because the average is exact, a dashed one through all k."""
    looks, counts = _looks(rows), _counts(rows, field)
    for row in rows:
        by_k: dict[int, list[float]] = {}
        for entry in (entry for result in row.results for entry in result[field]):
            by_k.setdefault(entry["samples"], []).append(entry[value])
        exact = len(by_k) == 1
        found = [next(iter(by_k.values()))] * len(counts) if exact else [by_k[k] for k in sorted(by_k)]
        mean = [statistics.fmean(v) for v in found]
        spread = [statistics.stdev(v) / len(v) ** 0.5 if len(v) > 1 else 0.0 for v in found]
        colour, marker = looks[row.name]
        style = {"color": colour, "marker": marker, "markersize": 5, "linestyle": "--" if exact else "-"}
        bars = {"capsize": 3, "linewidth": 1.2, "label": _short(row.name), "zorder": 3}
        axes.errorbar(counts if exact else sorted(by_k), mean, spread, **style, **bars)  # type: ignore[arg-type]


def _counts(rows: list[Row], field: str) -> list[int]:
    """Every k that somebody chose; those of exact averages only if there is no other."""
    every = [[entry["samples"] for entry in x[field]] for row in rows for x in row.results]
    return sorted({k for counts in every for k in counts if len(counts) > 1} or {k for counts in every for k in counts})


def _short(name: str) -> str:
    """A name for a legend, in lines."""
    return textwrap.fill(name, 44, subsequent_indent="   ", break_long_words=False)


def _histogram(result: dict[str, Any]) -> list[Values]:
    """A line a tolerance and bin: how many test inputs need more than `above` and at most `samples`."""
    return [
        {"tolerance": entry["tolerance"], "above": 2**bin // 2, "samples": 2**bin, "inputs": count}
        for entry in result["samples_for_tolerance"]
        for bin, count in enumerate(entry["histogram"])
    ]


def _cost(result: dict[str, Any]) -> list[Values]:
    fields = ("wall_s", "steps", "params", "samples", "value", "stderr")
    return [{name: result[name] for name in fields} | {"flops": sum(result.get("flops_by_part", {}).values())}]


PLOTS = (
    Plot("error_by_samples", "by_samples", lambda x: x["by_samples"], error_against_samples),
    Plot(
        "equivariance_by_samples",
        "equivariance_by_samples",
        lambda x: x["equivariance_by_samples"],
        equivariance_against_samples,
    ),
    Plot("samples_for_tolerance", "samples_for_tolerance", _histogram, samples_for_tolerance),
    Plot("error_by_cost", "wall_s", _cost, error_against_cost),
    Plot("learning_curve", "learning_curve", lambda x: x["learning_curve"], learning_curve),
)
