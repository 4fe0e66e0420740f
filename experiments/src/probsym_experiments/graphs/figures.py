"""Figures of the graph experiments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from torch import Tensor

from ..evaluation import Score
from ..figures import by_samples, sample_axis, save
from ..published import Published
from .models import METHODS

if TYPE_CHECKING:
    from .automorphism import Curve
    from .symmetric import Example

OURS = "tab:blue"
OTHER = "tab:orange"
GREY = "0.4"
COLOURS = {"ps": OURS, "ga": OTHER, "fa": "tab:green", "canonical": "tab:red"}
NAMES = {"ps": "PS", "ga": "GA", "fa": "FA", "canonical": "canonical"}
PANELS = {  # label and scale
    "output_variance": ("variance of the output", "log"),
    "loss_variance": ("variance of the loss", "log"),
    "entropy": ("entropy of the mean order (nats)", "linear"),
    "gradient_square": ("squared norm of the expected gradient", "linear"),
    "gradient_norm": ("norm of the mean gradient", "linear"),
}


def distances(other: Tensor, same: Tensor, threshold: float, title: str, path: Path) -> None:
    """Distributions of the L1 distance of two outputs: graphs that are not isomorphic, and graphs that are."""
    figure = Figure(figsize=(6.5, 3.5), layout="constrained")
    axes = figure.subplots()

    # 1. Zeros have no place on a logarithmic axis: they are drawn well below everything else.
    smallest = threshold
    for distance in (other, same):
        positive = distance[distance > 0]
        if len(positive):
            smallest = min(smallest, positive.min().item())
    floor = min(smallest / 3, threshold / 10)
    log_other = other.clamp_min(floor).log10()
    log_same = same.clamp_min(floor).log10()

    # 2. The same bins for both.
    low = min(log_other.min().item(), log_same.min().item())
    high = max(log_other.max().item(), log_same.max().item())
    bins = torch.linspace(low - 0.25, high + 0.25, 80)
    drawn = [
        (log_other, f"not isomorphic ({len(other):,} pairs)", OURS),
        (log_same, f"isomorphic ({len(same):,} pairs)", OTHER),
    ]
    for values, name, colour in drawn:
        share = torch.histogram(values.float(), bins)[0] / len(values)
        axes.stairs(share.tolist(), (10**bins).tolist(), fill=True, alpha=0.55, color=colour, label=name)

    # 3. The threshold and the axes.
    axes.axvline(threshold, color=GREY, linestyle="--", linewidth=1, label=f"threshold {threshold:g}")
    axes.set(
        xscale="log",
        xlabel="L1 distance of the two outputs, zeros at the left end",
        ylabel="share of pairs",
        title=title,
    )
    axes.legend(fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=3)
    save(figure, path)


def accuracy_by_samples(
    curves: Mapping[str, Sequence[Score]], path: Path, references: Sequence[Published] = ()
) -> None:
    """Accuracy against the number of samples k; grey lines are numbers from papers.

    Bars are one Monte Carlo standard error, bands one standard error over test graphs.
    """
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    by_samples(axes, curves, references)
    axes.set(ylabel="test accuracy", ylim=(0.45, 1.02))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    save(figure, path)


def sample_size(rows: Sequence[Mapping[str, float]], title: str, path: Path) -> None:
    """Each quantity against k for PS and GA, and the ratio of their output variances; bars are one standard error."""
    figure = Figure(figsize=(12, 6.5), layout="constrained")
    panels = list(figure.subplots(2, 3).flat)
    counts = [int(row["samples"]) for row in rows]

    def draw(axes: Axes, column: str, colour: str, label: str | None = None) -> None:
        values = [row[column] for row in rows]
        errors = [row[f"{column}_stderr"] for row in rows]
        axes.errorbar(counts, values, yerr=errors, marker="o", capsize=3, color=colour, label=label)
        sample_axis(axes, counts)

    # 1. Each quantity.
    shown = [name for name in PANELS if f"{name}_ps" in rows[0]]
    for axes, name in zip(panels[:4], shown, strict=True):
        label, scale = PANELS[name]
        for method in ("ps", "ga"):
            draw(axes, f"{name}_{method}", COLOURS[method], NAMES[method])
        axes.set(ylabel=label, yscale=scale)
        axes.legend()

    # 2. The ratios, in the last two panels.
    for name, axes in (("output_variance", panels[-2]), ("loss_variance", panels[-1])):
        draw(axes, f"{name}_ratio", GREY)
        axes.axhline(1, color=GREY, linestyle=":", linewidth=1)
        label, _ = PANELS[name]
        axes.set(ylabel=f"{label}, PS / GA", ylim=(0, None))
    figure.suptitle(title)
    save(figure, path)


def orbits(curves: Sequence[Curve], graphs: Sequence[Example], title: str, path: Path) -> None:
    """Outputs at the largest k as colours, one row of graphs a method, and below the share within orbits against k."""
    figure = Figure(figsize=(2.6 * len(graphs) + 1, 2.3 * len(curves) + 3.2), layout="constrained")
    heights = [1.0] * len(curves)
    grid = figure.subplots(len(curves) + 1, len(graphs), height_ratios=[*heights, 1.25], squeeze=False)

    # 1. A row of drawings for each method.
    for row, curve in enumerate(curves):
        for column, graph in enumerate(graphs):
            _graph(grid[row][column], graph, curve.shown[column], 0.3 * curve.sizes[column])
        if len(curve.samples) > 1:
            average = f"k = {curve.samples[-1]:,}"
        elif METHODS[curve.method].net:
            average = "one order"
        else:
            average = "exact"
        grid[row][0].set_ylabel(f"{NAMES[curve.method]}, {average}", fontsize="medium")
    for column, graph in enumerate(graphs):
        grid[0][column].set_title(graph.name, fontsize="medium")

    # 2. The shares of all methods below each graph.
    counts = max((curve.samples for curve in curves), key=len)
    for column, axes in enumerate(grid[-1]):
        for curve in curves:
            _share(axes, curve, column)
        sample_axis(axes, counts)
        axes.set_yscale("symlog", linthresh=1e-4)
        axes.set(ylim=(-3e-5, 3))
    grid[-1][0].set_ylabel("spread within orbits\n/ that of one sample")
    grid[-1][0].legend(fontsize="small", loc="center")
    figure.suptitle(title)
    save(figure, path)


def _share(axes: Axes, curve: Curve, graph: int) -> None:
    """The share within orbits against k; a line across where there is only one."""
    shares = curve.share[graph].tolist()
    errors = curve.stderr[graph].tolist()
    colour = COLOURS[curve.method]
    label = NAMES[curve.method]
    if len(shares) > 1:
        axes.errorbar(curve.samples, shares, yerr=errors, marker="o", ms=4, capsize=2, color=colour, label=label)
    else:
        axes.axhline(shares[0], linestyle="--", color=colour, label=label)


def _graph(axes: Axes, graph: Example, y: Tensor, least: float) -> None:
    """A drawing; colours span the outputs, at least `least` and a thousandth of them, so that noise looks small."""
    # 1. The edges.
    lines = []
    for i, j in np.argwhere(graph.adjacency):
        if i < j:
            lines.append((graph.places[i], graph.places[j]))
    axes.add_collection(LineCollection(lines, color=GREY, linewidth=1, zorder=1))

    # 2. The nodes.
    centre = (y.max() + y.min()) / 2
    half = (y.max() - y.min()) / 2
    half = torch.maximum(half, 1e-3 * y.abs().max()).clamp_min(least)
    norm = Normalize(float(centre - half), float(centre + half))
    across = [place[0] for place in graph.places]
    up = [place[1] for place in graph.places]
    axes.scatter(across, up, c=y.tolist(), s=90, cmap="coolwarm", norm=norm, edgecolor="black", lw=0.8, zorder=2)

    # 3. Nothing around it.
    axes.set(aspect="equal", xticks=[], yticks=[], xlim=(-1.35, 1.35), ylim=(-1.2, 1.2))
    axes.spines[:].set_visible(False)
