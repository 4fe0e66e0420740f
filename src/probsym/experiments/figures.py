"""Figures of results, drawn without a display."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from probsym.files import write

from .evaluation import Score
from .published import Published

STYLES = ["-", "--", "-.", ":", (0, (8, 2)), (0, (1, 4)), (0, (6, 2, 1, 2, 1, 2))]


def error_by_samples(
    curves: Mapping[str, Sequence[Score]],
    path: Path,
    metric: str,
    references: Sequence[Published] = (),
) -> None:
    """Error against the number of samples k, both axes logarithmic; grey lines are numbers from papers.

    Bars are one Monte Carlo standard error, bands one standard error over test inputs.
    """
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.subplots()
    by_samples(axes, curves, references)
    axes.set(yscale="log", ylabel=metric)
    save(figure, path)


def by_samples(axes: Axes, curves: Mapping[str, Sequence[Score]], references: Sequence[Published]) -> None:
    """Scores against k with Monte Carlo bars and bands over the test set, grey lines for papers, a legend beside."""
    for name, scores in curves.items():
        k, value = [s.samples for s in scores], [s.value for s in scores]
        lines = axes.errorbar(k, value, yerr=[s.stderr for s in scores], marker="o", capsize=3, label=name, zorder=3)
        low, high = ([s.value + sign * s.stderr_test for s in scores] for sign in (-1, 1))
        axes.fill_between(k, low, high, color=lines[0].get_color(), alpha=0.15)
    for style, row in zip(STYLES, sorted(references, key=lambda row: -row.value), strict=False):
        axes.axhline(row.value, color="0.5", linestyle=style, linewidth=1, label=f"{row.row}: {row}")
    sample_axis(axes, sorted({s.samples for scores in curves.values() for s in scores}))
    axes.legend(fontsize="x-small", loc="center left", bbox_to_anchor=(1.01, 0.5))


def learning_curve(
    history: Sequence[Mapping[str, float]], path: Path, metric: str, references: Sequence[Published] = ()
) -> None:
    """Training loss and the metric of the validation set against the step; grey lines are numbers from papers."""
    figure = Figure(figsize=(9, 4), layout="constrained")
    losses, judged = figure.subplots(1, 2)
    steps = [row["step"] for row in history]
    losses.plot(steps, [row["train_loss"] for row in history])
    losses.set(xlabel="step", ylabel="training loss")
    judged.plot(steps, [row["valid"] for row in history], label="validation")
    for style, row in zip(STYLES, references, strict=False):
        judged.axhline(row.value, color="0.5", linestyle=style, linewidth=1, label=f"test, {row.row}: {row}")
    judged.set(xlabel="step", ylabel=metric)
    judged.legend(fontsize="x-small")
    save(figure, path)


def sample_axis(axes: Axes, samples: Sequence[int]) -> None:
    """A logarithmic axis with a tick at each k."""
    axes.set(xscale="log", xlabel="samples k")
    axes.set_xticks(samples, [str(k) for k in samples])
    axes.xaxis.set_minor_locator(NullLocator())


def save(figure: Figure, path: Path) -> None:
    """As PNG, whole or not at all."""
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=150)
    write(path, png.getvalue())
