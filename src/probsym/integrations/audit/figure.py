"""An audit as a figure: how far each row is from its limit, the spectrum, what averaging leaves."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from probsym.integrations.audit.outcome import QUANTITIES, UNITS
from probsym.integrations.audit.report import AuditReport, StructureReport

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {"energy": "C0", "forces": "C1", "stress": "C2"}
SMALLEST = 1e-8  # of the limit: what is less is drawn there


def draw(report: AuditReport) -> Figure:
    """Left: the worst deviation of each row, in units of its limit; beyond the line at one it is a violation.

    Where there are spectra, for the structure that rotations change most: the variance by degree, and the spread
    that averaging over a design leaves, in units of that of one pose.
    """
    from matplotlib.figure import Figure

    shown = report.shown
    if shown is None:
        figure = Figure(figsize=(5.6, 4.4), layout="constrained")
        _rows(figure.subplots(), report)
    else:
        figure = Figure(figsize=(12.6, 4.4), layout="constrained")
        rows, by_degree, averaging = figure.subplots(1, 3)
        _rows(rows, report)
        _spectrum(by_degree, shown)
        _averaging(averaging, shown)
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    verdict = "passed" if report.passed else "violated"
    figure.suptitle(f"Audit of {report.calculator}: {verdict}", fontsize=11)
    return figure


def _rows(axes: Axes, report: AuditReport) -> None:
    places: list[int] = []
    names: list[str] = []
    for place, row in enumerate(report.rows):
        places.append(place)
        names.append(row)
        for offset, quantity in enumerate(QUANTITIES):
            found = report.worst(row, quantity)
            if found is None:
                continue
            outcome = found[1]
            ratio = max(outcome.worst / outcome.limit, SMALLEST)
            height = place + 0.25 * (offset - 1)
            axes.plot([SMALLEST, ratio], [height, height], color=COLOURS[quantity], lw=1, alpha=0.5)
            marker = "o" if outcome.passed else "X"
            axes.plot([ratio], [height], color=COLOURS[quantity], marker=marker, ms=5 if outcome.passed else 8)
    axes.axvline(1.0, color="0.3", lw=1)
    axes.set_xscale("log")
    axes.set_yticks(places, names)
    axes.set_ylim(len(places) - 0.5, -0.5)
    axes.set_xlabel("worst deviation / limit")
    # What stands in the picture, and nothing else, stands in the legend.
    for quantity in QUANTITIES:
        if any(report.worst(row, quantity) is not None for row in report.rows):
            axes.plot([], [], color=COLOURS[quantity], marker="o", label=quantity)
    if not report.passed:
        axes.plot([], [], color="0.3", marker="X", ls="", ms=8, label="violated")
    axes.legend(fontsize=8, loc="lower center", bbox_to_anchor=(0.4, 1.0), ncols=4, frameon=False, columnspacing=1.0)


def _spectrum(axes: Axes, structure: StructureReport) -> None:
    count = 0
    for quantity, found in structure.spectra.items():
        count = len(found.power)
        shares: list[float] = []
        errors: list[float] = []
        for power, stderr in zip([*found.power, found.rest], [*found.stderr, found.rest_stderr], strict=True):
            shares.append(100 * power / found.variance if found.variance > 0 else math.nan)
            errors.append(100 * stderr / found.variance if found.variance > 0 else math.nan)
        offset = 0.25 * (QUANTITIES.index(quantity) - 1)
        degrees = [degree + offset for degree in range(1, count + 2)]
        axes.bar(degrees, shares, 0.25, yerr=errors, color=COLOURS[quantity], error_kw={"lw": 1}, label=quantity)
    axes.axhline(0.0, color="0.3", lw=0.8)
    axes.set_xticks(range(1, count + 2), [*map(str, range(1, count + 1)), f">{count}"])
    axes.set(xlabel="degree l of the rotation group", ylabel="share of the variance (%)")
    axes.set_title(structure.name, fontsize=9)
    axes.legend(fontsize=8, frameon=False)


def _averaging(axes: Axes, structure: StructureReport) -> None:
    for quantity, found in structure.residuals.items():
        one = found[0].spread
        sizes = [residual.size for residual in found]
        if one == 0:
            continue
        heights: list[float] = []
        lower: list[float] = []
        upper: list[float] = []
        for residual in found:
            spread = residual.spread / one
            above = math.sqrt(max(residual.variance + residual.stderr, 0.0)) / one
            below = math.sqrt(max(residual.variance - residual.stderr, 0.0)) / one
            heights.append(max(spread, SMALLEST))
            lower.append(max(spread, SMALLEST) - max(below, SMALLEST))
            upper.append(max(above, SMALLEST) - max(spread, SMALLEST))
        label = f"{quantity}, one pose: {one:.3g} {UNITS[quantity]}"
        axes.errorbar(sizes, heights, yerr=[lower, upper], color=COLOURS[quantity], marker="o", capsize=2, label=label)
    axes.set_xscale("log")
    axes.set_yscale("log")
    sizes = [residual.size for residual in next(iter(structure.residuals.values()))]
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.minorticks_off()
    axes.set(xlabel="poses of a design", ylabel="spread / spread of one pose")
    axes.legend(fontsize=8, loc="lower left")
