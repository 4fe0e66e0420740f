"""The plots of `probsym figures`: which numbers of a result each shows, and how rows of results are compared in it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from .figures import legend_below, published_lines, sample_axis, spaced
from .published import Published, published
from .registry import Experiment
from .tables import Row

Values = dict[str, Any]  # one line of a CSV file
MARKERS = "osD^vPX*<>"
BARS = "bars: one standard error, over seeds or over test inputs, whichever is larger"
NOUNS = {"fa": "frame", "none": "evaluation"}  # what an exact average is over, else elements


@dataclass(frozen=True)
class Look:
    """How a row appears in all figures of its experiment."""

    label: str
    colour: str
    marker: str
    line: str

    def style(self, **more: Any) -> dict[str, Any]:
        return {"color": self.colour, "marker": self.marker, "linestyle": self.line, "markersize": 5} | more


@dataclass(frozen=True)
class Point:
    """A mean over seeds, where the key columns have the values `at`, with its standard errors; None is unknown."""

    at: tuple[float, ...]
    value: float
    stderr_seeds: float | None
    stderr_test: float | None

    @property
    def bar(self) -> float:
        """The larger error that is known; NaN draws none."""
        known = [error for error in (self.stderr_seeds, self.stderr_test) if error is not None]
        return max(known, default=math.nan)


@dataclass(frozen=True)
class Curve:
    """What a plot shows of a row."""

    row: Row
    look: Look
    points: list[Point]

    def exact(self, field: str) -> bool:
        """Whether the average over the group is exact: then no number of samples was chosen, and there is one entry."""
        first = self.row.results[0]
        measured = [entry["samples"] for entry in first[field]]
        chosen = sorted(set(first["config"].get("eval_samples", ())))
        return len(measured) == 1 and measured != chosen

    @property
    def exact_label(self) -> str:
        """With how many elements the average is over."""
        first = self.row.results[0]
        count = first["samples"]
        noun = NOUNS.get(first["config"].get("symmetrizer"), "element")
        if count > 1:
            noun += "s"
        return f"{self.look.label}, exact ({count:,} {noun})"

    @property
    def train_petaflop(self) -> float | None:
        """Operations of the training in units of 1e15, if they were counted."""
        operations = self.row.known_mean("train_flops")
        if operations is None:
            return None
        return operations / 1e15

    def at_tolerance(self, tolerance: float) -> list[Point]:
        """Of `samples_for_tolerance`: the points of one tolerance."""
        return [point for point in self.points if point.at[0] == tolerance]


@dataclass(frozen=True)
class Plot:
    """One figure.

    Args:
        name: Of its files.
        lines: A result to its CSV lines; none if it lacks what the figure shows.
        keys: Columns that tell the lines of a result apart. value: The column that is drawn.
        draw: None if there is nothing to draw of these curves.
    """

    name: str
    lines: Callable[[dict[str, Any]], list[Values]]
    keys: tuple[str, ...]
    value: str
    draw: Callable[[Experiment, list[Curve]], Figure | None]


def entries(field: str, needed: str, *columns: str) -> Callable[[dict[str, Any]], list[Values]]:
    """Lines from those entries of a list in a result that have the column `needed`."""

    def lines(result: dict[str, Any]) -> list[Values]:
        having = []
        for entry in result.get(field) or ():
            if needed in entry:
                having.append({name: entry.get(name) for name in (*columns, needed)})
        return having

    return lines


def error_against_samples(experiment: Experiment, curves: list[Curve]) -> Figure:
    """Means over seeds against k; a mean over all group elements is a dashed line."""
    figure, axes = _wide()
    _by_samples(axes, curves, "by_samples")
    papers = _in_figures(experiment)
    published_lines(axes, papers)
    spaced(axes.set_yscale, axes.yaxis, _values(curves, papers))
    axes.set_ylabel(experiment.axis)
    legend_below(axes, BARS)
    return figure


def equivariance_against_samples(experiment: Experiment, curves: list[Curve]) -> Figure:
    """Root-mean-square of phi_k(h x) - h phi_k(x) against k; random ones fall as 1 / sqrt(k)."""
    figure, axes = _wide()
    _by_samples(axes, curves, "equivariance_by_samples")
    spaced(axes.set_yscale, axes.yaxis, _values(curves))
    axes.set_ylabel(f"equivariance error\n(RMS of one coordinate, {experiment.outputs})")
    legend_below(axes, f"of averages over k samples it is Monte Carlo noise\n{BARS}")
    return figure


def samples_for_tolerance(experiment: Experiment, curves: list[Curve]) -> Figure:
    """A panel a tolerance: the share of test inputs that need at most k samples, a line a row."""
    # 1. The tolerances. Lines end one doubling after the last number of samples at which one is below 100 %.
    tolerances = set()
    last = 1.0
    for curve in curves:
        for point in curve.points:
            tolerance, samples = point.at
            tolerances.add(tolerance)
            if point.value < 1:
                last = max(last, samples)
    end = 2 * last

    # 2. The panels, from the coarsest tolerance to the finest.
    figure = Figure(figsize=(max(9.0, 3.6 * len(tolerances)), 4.2), layout="constrained")
    panels = figure.subplots(1, len(tolerances), sharex=True, sharey=True, squeeze=False)[0]
    ticks = [4**i for i in range(math.ceil(math.log(end, 4)) + 1)]
    for axes, tolerance in zip(panels, sorted(tolerances, reverse=True), strict=True):
        for curve in curves:
            points = [point for point in curve.at_tolerance(tolerance) if point.at[1] <= end]
            samples_of_points = [point.at[1] for point in points]
            _bars(axes, samples_of_points, points, curve.look.style(label=_measured(curve)))
        sample_axis(axes, ticks)
        axes.set(title=f"Monte Carlo standard error\nbelow {tolerance:g} (units of the positions)")
        axes.title.set_fontsize("small")
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("test inputs that need at most k samples")
    panels[0].yaxis.set_major_formatter(PercentFormatter(1.0))
    legend_below(panels[0], BARS)
    return figure


def error_against_cost(experiment: Experiment, curves: list[Curve]) -> Figure | None:
    """Operations of the training against the metric, published results as grey points; rows without are named."""
    figure, axes = _wide()
    costs: list[float] = []
    missing = []

    # 1. Our rows. Nothing is drawn unless the operations of one of them are known.
    drawn = []
    for curve in curves:
        cost = curve.train_petaflop
        if cost is None:
            missing.append(curve.look.label)
            continue
        _bars(axes, [cost], curve.points, curve.look.style(label=curve.look.label, linestyle=""))
        costs.append(cost)
        drawn.append(curve)
    if not drawn:
        return None

    # 2. Published results.
    drawn_papers: list[Published] = []
    for paper in published(experiment.name):
        if paper.train_flops is None:
            if paper.figure:
                missing.append(paper.row)
            continue
        cost = paper.train_flops / 1e15
        marker = MARKERS[len(drawn_papers) % len(MARKERS)]
        axes.plot(cost, paper.value, marker, color="0.6", label=f"published: {paper.row} {paper}")
        costs.append(cost)
        drawn_papers.append(paper)

    # 3. The axes, and who is not in the figure.
    spaced(axes.set_yscale, axes.yaxis, _values(drawn, drawn_papers))
    spaced(axes.set_xscale, axes.xaxis, costs)
    axes.set(xlabel="training (PFLOP of matrix products)", ylabel=experiment.axis)
    note = BARS
    if missing:
        note += f"\nwithout a count of operations, not drawn: {', '.join(missing)}"
    legend_below(axes, note)
    return figure


def learning_curve(experiment: Experiment, curves: list[Curve]) -> Figure:
    """The validation metric against the step, means over seeds; grey lines are published test results."""
    figure, axes = _wide()
    for curve in curves:
        steps = []
        values = []
        low = []
        high = []
        for point in curve.points:
            error = point.stderr_seeds or 0.0
            steps.append(point.at[0])
            values.append(point.value)
            low.append(point.value - error)
            high.append(point.value + error)
        axes.plot(steps, values, **curve.look.style(label=curve.look.label, markevery=0.1, linewidth=1.2))
        axes.fill_between(steps, low, high, color=curve.look.colour, alpha=0.15, linewidth=0)
    papers = _in_figures(experiment)
    published_lines(axes, papers)
    spaced(axes.set_yscale, axes.yaxis, _values(curves, papers))
    axes.set(xlabel="step", ylabel=experiment.axis.replace("test", "validation"))
    legend_below(axes, "bands: one standard error over seeds; published results are of the test set")
    return figure


def _wide() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.subplots()
    axes.grid(alpha=0.3)
    return figure, axes


def _by_samples(axes: Axes, curves: list[Curve], field: str) -> None:
    """A line a row, points side by side; an exact average is a dashed line through all k, its bar at the right."""
    # 1. A tick at each k that was chosen. The entry of an exact average was not, but may be all there is.
    chosen = set()
    of_exact = set()
    for curve in curves:
        for point in curve.points:
            if curve.exact(field):
                of_exact.add(int(point.at[0]))
            else:
                chosen.add(int(point.at[0]))
    counts = sorted(chosen or of_exact)

    # 2. The lines.
    for i, curve in enumerate(curves):
        aside = 1.015 ** (i - len(curves) / 2)
        if not curve.exact(field):
            x = [point.at[0] * aside for point in curve.points]
            _bars(axes, x, curve.points, curve.look.style(label=curve.look.label))
            continue
        style = curve.look.style(marker="", linestyle="--", label=curve.exact_label)
        for point in curve.points:
            without_bar = replace(point, stderr_seeds=None, stderr_test=None)
            _bars(axes, [counts[0], counts[-1] * aside], [without_bar, point], style)
    sample_axis(axes, counts)


def _bars(axes: Axes, x: Sequence[float], points: Sequence[Point], style: dict[str, Any]) -> None:
    """The points at these places, with their bars."""
    values = [point.value for point in points]
    bars = [point.bar for point in points]
    axes.errorbar(x, values, bars, capsize=3, linewidth=1.2, zorder=3, **style)  # type: ignore[arg-type]


def _values(curves: Iterable[Curve], papers: Iterable[Published] = ()) -> list[float]:
    """All that stand in a figure."""
    values = []
    for curve in curves:
        for point in curve.points:
            values.append(point.value)
    for paper in papers:
        values.append(paper.value)
    return values


def _in_figures(experiment: Experiment) -> list[Published]:
    return [paper for paper in published(experiment.name) if paper.figure]


def _measured(curve: Curve) -> str:
    """The label, with a word on results from before the samples needed were computed from a pool."""
    for result in curve.row.results:
        for entry in result["samples_for_tolerance"]:
            if "pool" not in entry:
                return f"{curve.look.label} (older: multiples of 16)"
    return curve.look.label


def _tolerance_lines(result: dict[str, Any]) -> list[Values]:
    """A line a tolerance and bin: how many test inputs need more than `above` and at most `samples`, and the share
    that needs at most `samples`.
    """
    lines = []
    for entry in result.get("samples_for_tolerance") or ():
        counts = list(entry["histogram"])
        total = sum(counts)
        counts[-1] -= round(entry.get("above", 0.0) * total)  # of older results, where 1024 were not enough
        done = 0
        for bin, count in enumerate(counts):
            done += count
            share = done / total
            lines.append(
                {
                    "tolerance": entry["tolerance"],
                    "above": 2**bin // 2,
                    "samples": 2**bin,
                    "inputs": count,
                    "share": share,
                    "stderr_test": math.sqrt(share * (1 - share) / total),  # of a binomial
                }
            )
    return lines


def _cost_lines(result: dict[str, Any]) -> list[Values]:
    """What a training took, as far as it is known; none of what was not trained."""
    if not result["steps"]:
        return []
    columns = ("train_flops", "cpu_s", "wall_s", "steps", "params", "samples", "value", "stderr", "stderr_test")
    return [{name: result.get(name) for name in columns}]


PLOTS = (
    Plot(
        "error_by_samples",
        entries("by_samples", "value", "samples", "stderr", "stderr_test", "draws"),
        ("samples",),
        "value",
        error_against_samples,
    ),
    Plot(
        "equivariance_by_samples",
        entries("equivariance_by_samples", "error", "samples", "stderr_test"),
        ("samples",),
        "error",
        equivariance_against_samples,
    ),
    Plot("samples_for_tolerance", _tolerance_lines, ("tolerance", "samples"), "share", samples_for_tolerance),
    Plot("error_by_cost", _cost_lines, (), "value", error_against_cost),
    Plot(
        "learning_curve",
        entries("learning_curve", "valid", "step", "lr", "train_loss"),
        ("step",),
        "valid",
        learning_curve,
    ),
)
