"""Figures of results, drawn without a display."""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.container import Container
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, NullLocator, StrMethodFormatter

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
    """Error against the number of samples k; grey lines are numbers from papers.

    Bars are one Monte Carlo standard error, bands one standard error over test inputs.
    """
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    by_samples(axes, curves, references)
    values = [row.value for row in references]
    for scores in curves.values():
        values += [score.value for score in scores]
    spaced(axes.set_yscale, axes.yaxis, values)
    axes.set_ylabel(metric)
    save(figure, path)


def by_samples(axes: Axes, curves: Mapping[str, Sequence[Score]], references: Sequence[Published]) -> None:
    """Scores against k with Monte Carlo bars and bands over the test set, grey lines for papers, a legend below."""
    counts = set()
    for name, scores in curves.items():
        samples = []
        values = []
        bars = []
        low = []
        high = []
        for score in scores:
            samples.append(score.samples)
            values.append(score.value)
            bars.append(score.stderr)
            low.append(score.value - score.stderr_test)
            high.append(score.value + score.stderr_test)
        line, *_ = axes.errorbar(samples, values, yerr=bars, marker="o", capsize=3, label=name, zorder=3)
        axes.fill_between(samples, low, high, color=line.get_color(), alpha=0.15)
        counts.update(samples)
    published_lines(axes, sorted(references, key=lambda row: -row.value))
    sample_axis(axes, sorted(counts))
    legend_below(axes, "bars: Monte Carlo standard error; band: standard error over test inputs")


def learning_curve(
    history: Sequence[Mapping[str, float]], path: Path, metric: str, references: Sequence[Published] = ()
) -> None:
    """Training loss and the metric of the validation set against the step; grey lines are numbers from papers."""
    steps = [row["step"] for row in history]
    train_losses = [row["train_loss"] for row in history]
    valid_metrics = [row["valid"] for row in history]
    figure = Figure(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(steps, train_losses)
    left.set(xlabel="step", ylabel="training loss")
    right.plot(steps, valid_metrics, label="validation")
    published_lines(right, references)
    right.set(xlabel="step", ylabel=metric)
    legend_below(right)
    save(figure, path)


def published_lines(axes: Axes, rows: Iterable[Published]) -> None:
    """A grey line for each test result of a paper."""
    for style, row in zip(STYLES, rows, strict=False):
        axes.axhline(row.value, color="0.6", linestyle=style, linewidth=1, label=f"published: {row.row} {row}")


def sample_axis(axes: Axes, samples: Sequence[int]) -> None:
    """A logarithmic axis with a tick at each k."""
    axes.set(xscale="log", xlabel="samples k")
    axes.set_xticks(samples, [str(k) for k in samples])
    axes.xaxis.set_minor_locator(NullLocator())


def spaced(set_scale: Callable[[str], None], axis: Axis, values: Iterable[float]) -> None:
    """Logarithmic where positive values span a factor of 5, else linear; ticks below two decades are plain numbers."""
    finite = [value for value in values if math.isfinite(value)]
    decades = 0.0
    if finite and min(finite) > 0:
        decades = math.log10(max(finite) / min(finite))
    logarithmic = decades >= math.log10(5)
    if logarithmic:
        set_scale("log")
    else:
        set_scale("linear")
    if decades < 2:
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.set_minor_formatter(NullFormatter())
    if logarithmic and decades < 2:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))


def legend_below(axes: Axes, title: str = "") -> None:
    """All labels of the axes, ours before grey ones, in two columns below them; by its height the figure grows."""
    figure = axes.get_figure()
    assert isinstance(figure, Figure)

    # 1. Ours have bars, so matplotlib keeps them as containers; grey lines are plain.
    ours = []
    grey = []
    for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
        if isinstance(handle, Container):
            ours.append((handle, label))
        else:
            grey.append((handle, label))
    handles = []
    labels = []
    for handle, label in ours + grey:
        handles.append(handle)
        labels.append(textwrap.fill(label, 50, subsequent_indent="   ", break_long_words=False))

    # 2. The legend below the axes.
    title_lines = [textwrap.fill(line, 100, break_on_hyphens=False) for line in title.split("\n")]
    legend = figure.legend(
        handles,
        labels,
        loc="outside lower center",
        title="\n".join(title_lines),
        ncols=2,
        fontsize="small",
        title_fontsize="small",
    )

    # 3. The axes keep their size.
    width, height = figure.get_size_inches()
    figure.set_size_inches(width, height + legend.get_window_extent().height / figure.dpi)


def save(figure: Figure, path: Path) -> None:
    """As PNG, whole or not at all."""
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=150)
    write(path, png.getvalue())
