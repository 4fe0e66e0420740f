"""Figures of the graph experiments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

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

OURS, OTHER, GREY = "tab:blue", "tab:orange", "0.4"
COLOURS = {"ps": OURS, "ga": OTHER, "fa": "tab:green", "canonical": "tab:red"}
NAMES = {"ps": "PS", "ga": "GA", "fa": "FA", "canonical": "canonical"}
PANELS = {  # label and scale
    "output_variance": ("variance of the output", "log"),
    "loss_variance": ("variance of the loss", "log"),
    "entropy": ("entropy of the mean order (nats)", "linear"),
    "gradient_square": ("squared norm of the expected gradient", "linear"),
}


def distances(other: Tensor, same: Tensor, threshold: float, title: str, path: Path) -> None:
    """Distributions of the L1 distance of two outputs: graphs that are not isomorphic, and graphs that are."""
    figure = Figure(figsize=(6.5, 3.5), layout="constrained")
    axes = figure.subplots()
    floor = min(v[v > 0].min().item() if (v > 0).any() else threshold for v in (other, same)) / 3
    floor = min(floor, threshold / 10)
    values = [v.clamp_min(floor).log10() for v in (other, same)]
    low = min(v.min().item() for v in values)
    bins = torch.linspace(low - 0.25, max(v.max().item() for v in values) + 0.25, 80)
    names = f"not isomorphic ({len(other):,} pairs)", f"isomorphic ({len(same):,} pairs)"
    for value, name, colour in zip(values, names, (OURS, OTHER), strict=True):
        share = torch.histogram(value.float(), bins)[0] / len(value)
        axes.stairs(share.tolist(), (10**bins).tolist(), fill=True, alpha=0.55, color=colour, label=name)
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
    for axes, (name, (label, scale)) in zip(panels, PANELS.items(), strict=False):
        for method in ("ps", "ga"):
            value, error = ([row[f"{name}_{method}{end}"] for row in rows] for end in ("", "_stderr"))
            axes.errorbar(counts, value, yerr=error, marker="o", capsize=3, color=COLOURS[method], label=NAMES[method])
        axes.set(ylabel=label, yscale=scale)
        axes.legend()
        sample_axis(axes, counts)
    for axes, name in zip(panels[len(PANELS) :], ("output_variance", "loss_variance"), strict=True):
        value, error = ([row[f"{name}_ratio{end}"] for row in rows] for end in ("", "_stderr"))
        axes.errorbar(counts, value, yerr=error, marker="o", capsize=3, color=GREY)
        axes.axhline(1, color=GREY, linestyle=":", linewidth=1)
        axes.set(ylabel=f"{PANELS[name][0]}, PS / GA", ylim=(0, None))
        sample_axis(axes, counts)
    figure.suptitle(title)
    save(figure, path)


def orbits(curves: Sequence[Curve], graphs: Sequence[Example], title: str, path: Path) -> None:
    """Outputs at the largest k as colours, one row of graphs a method, and below the share within orbits against k."""
    figure = Figure(figsize=(2.6 * len(graphs) + 1, 2.3 * len(curves) + 3.2), layout="constrained")
    heights = [*[1.0] * len(curves), 1.25]
    grid = figure.subplots(len(curves) + 1, len(graphs), height_ratios=heights, squeeze=False)
    for curve, line in zip(curves, grid, strict=False):
        for axes, graph, y, size in zip(line, graphs, curve.shown, curve.sizes, strict=True):
            _graph(axes, graph, y, 0.3 * size)
            axes.set_title(graph.name if curve is curves[0] else "", fontsize="medium")
        exact = "one order" if METHODS[curve.method].net else "exact"
        k = f"k = {curve.samples[-1]:,}" if len(curve.samples) > 1 else exact
        line[0].set_ylabel(f"{NAMES[curve.method]}, {k}", fontsize="medium")
    for i, axes in enumerate(grid[-1]):
        for curve in curves:
            _share(axes, curve, i)
        sample_axis(axes, max((c.samples for c in curves), key=len))
        axes.set_yscale("symlog", linthresh=1e-4)
        axes.set(ylim=(-3e-5, 3))
    grid[-1][0].set_ylabel("spread within orbits\n/ that of one sample")
    grid[-1][0].legend(fontsize="small", loc="center")
    figure.suptitle(title)
    save(figure, path)


def _share(axes: Axes, curve: Curve, graph: int) -> None:
    share, error = curve.share[graph].tolist(), curve.stderr[graph].tolist()
    colour, label = COLOURS[curve.method], NAMES[curve.method]
    if len(share) > 1:
        axes.errorbar(curve.samples, share, yerr=error, marker="o", ms=4, capsize=2, color=colour, label=label)
    else:
        axes.axhline(share[0], linestyle="--", color=colour, label=label)


def _graph(axes: Axes, graph: Example, y: Tensor, least: float) -> None:
    """A drawing; colours span the outputs, at least `least` and a thousandth of them, so that noise looks small."""
    centre, half = (y.max() + y.min()) / 2, (y.max() - y.min()) / 2
    half = torch.maximum(half, 1e-3 * y.abs().max()).clamp_min(least)
    i, j = graph.adjacency.nonzero()
    lines = [(graph.places[a], graph.places[b]) for a, b in zip(i, j, strict=True) if a < b]
    axes.add_collection(LineCollection(lines, color=GREY, linewidth=1, zorder=1))
    across, up = zip(*graph.places, strict=True)
    colour = Normalize(float(centre - half), float(centre + half))
    axes.scatter(across, up, c=y.tolist(), s=90, cmap="coolwarm", norm=colour, edgecolor="black", lw=0.8, zorder=2)
    axes.set(aspect="equal", xticks=[], yticks=[], xlim=(-1.35, 1.35), ylim=(-1.2, 1.2))
    axes.spines[:].set_visible(False)
