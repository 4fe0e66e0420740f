"""`probsym table`: our rows beside published ones, as text that is whole at every width."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .published import Published, published
from .registry import EXPERIMENTS, Experiment, summary
from .tables import Row, family, ours, place

COLUMNS = (
    "published", "ours", "± seeds", "± test", "± samples", "seeds", "k", "device", "steps", "PFLOP", "wall", "CPU",
    "params",
)  # fmt: skip
GAP = "  "
LONGEST = 54  # a longer name, of a preset with many overrides, has a line of its own
NOT_RUN = "not run"


@dataclass(frozen=True)
class Line:
    """One row of a table: what it is called, and what stands in each of its columns; "" is nothing."""

    name: str
    cells: dict[str, str]


@dataclass(frozen=True)
class Section:
    """Rows that belong together, under a title."""

    title: str
    lines: list[Line]


def tables(runs: Path, results: Path | None, width: int) -> list[str]:
    """Where results were looked for, and one table an experiment."""
    found = ours(runs, results)
    texts = [sources(found, place(results), runs, width)]
    for name, experiment in EXPERIMENTS.items():
        texts.append(table(experiment, found.get(name, []), width))
    return texts


def sources(found: dict[str, list[Row]], results: Path, runs: Path, width: int) -> str:
    """Where results were looked for, and how many there are."""
    count = sum(len(row.results) for rows in found.values() for row in rows)
    folders = " and ".join(
        f"{folder.resolve()}{'' if folder.is_dir() else ' (no such folder)'}" for folder in (results, runs)
    )
    text = f"{count} results in {folders}; --results DIR and --runs DIR name others."
    return textwrap.fill(text, width, break_long_words=False, break_on_hyphens=False)


def table(experiment: Experiment, rows: Iterable[Row], width: int) -> str:
    """Published rows in their order, each followed by our presets of the same method; then our others, apart.

    Below stand the presets that were never run, and what each of the others is.
    """
    left = list(rows)
    presets = experiment.presets
    told = dict.fromkeys(row.preset for row in left if row.preset in presets)
    beside = {name: name.replace("_", " ") for name in experiment.beside}
    compared: list[Line] = []
    named: set[str] = set()  # presets that a line says were not run
    for paper in published(experiment.name):
        compared.append(_published(paper))
        same = [row for row in left if row.family == paper.preset]
        compared += [_ours(row, beside) for row in same]
        left = [row for row in left if row not in same]
        if paper.preset is not None and not same:
            compared.append(Line(f"  {paper.preset}", {"ours": NOT_RUN}))
            named |= {name for name in presets if family(name) == paper.preset}
    sections = [
        Section("published, and our presets of the same method", compared),
        Section("ours, with nothing published to compare", [_ours(row, beside) for row in left]),
    ]
    parts = [experiment.name + ": " + experiment.axis, _body([s for s in sections if s.lines], beside, width)]
    never = [name for name in presets if name not in told and name not in named]
    if never:
        parts.append(_filled(f"never run: {', '.join(never)}", width))
    parts += [_filled(f"{name}: {summary(presets[name])}", width) for name in told]
    return "\n".join(part for part in parts if part) + "\n"


def _published(paper: Published) -> Line:
    return Line(
        paper.row,
        {
            "published": str(paper),
            "steps": "" if paper.steps is None else f"{paper.steps:,}",
            "PFLOP": _petaflop(paper.train_flops),
        },
    )


def _ours(row: Row, beside: dict[str, str]) -> Line:
    cpu = row.known_mean("cpu_s")
    cells = {
        "ours": f"{row.mean('value'):.4g}",
        "± seeds": _number(row.stderr(), ".1g"),
        "± test": _number(row.known_mean("stderr_test"), ".1g"),
        "± samples": f"{row.mean('stderr'):.1g}",
        "seeds": str(len(row.results)),
        "k": row.each("samples"),
        "device": row.each("device"),
        "steps": row.each("steps", ","),
        "PFLOP": _petaflop(row.known_mean("train_flops")),
        "wall": f"{row.mean('wall_s') / 60:.1f} min",
        "CPU": "" if cpu is None else f"{cpu / 60:.1f} min",
        "params": row.each("params", ","),
    }
    cells |= {heading: _number(row.known_mean(field), ".2g") for field, heading in beside.items()}
    return Line(f"  {row.name}", cells)


def _body(sections: list[Section], beside: dict[str, str], width: int) -> str:
    """One line a row if the terminal is wide enough for all of them, else two or more."""
    lines = [line for section in sections for line in section.lines]
    if not lines:
        return "no row"
    names = [name for name in (*COLUMNS, *beside.values()) if any(line.cells.get(name) for line in lines)]
    short = [len(line.name) for line in lines if len(line.name) <= LONGEST]
    first = max(short, default=0)
    widths = {name: max(len(name), *(len(line.cells.get(name, "")) for line in lines)) for name in names}
    wide = first + sum(len(GAP) + size for size in widths.values()) <= width
    made = []
    if wide:
        made.append(" " * first + "".join(GAP + name.rjust(size) for name, size in widths.items()))
    for section in sections:
        made.append(f"-- {section.title}")
        for line in section.lines:
            made += _in_columns(line, first, widths) if wide else _stacked(line, names, width)
    return "\n".join(made)


def _in_columns(line: Line, first: int, widths: dict[str, int]) -> list[str]:
    cells = "".join(GAP + line.cells.get(name, "").rjust(size) for name, size in widths.items())
    if len(line.name) <= first:
        return [(line.name.ljust(first) + cells).rstrip()]
    return [line.name, (" " * first + cells).rstrip()]


def _stacked(line: Line, names: Iterable[str], width: int) -> list[str]:
    """The name alone, and below it what is known, each with its heading, as many to a line as there is room for."""
    made, indent = [line.name], " " * 6
    text = ""
    for name in names:
        cell = line.cells.get(name)
        if not cell:
            continue
        entry = f"{name} {cell}"
        if text and len(indent + text + GAP + entry) > width:
            made.append(indent + text)
            text = entry
        else:
            text = text + GAP + entry if text else entry
    return [*made, indent + text] if text else made


def _filled(text: str, width: int) -> str:
    return textwrap.fill(text, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def _number(value: float | None, style: str) -> str:
    return "" if value is None else format(value, style)


def _petaflop(operations: float | None) -> str:
    return "" if operations is None else f"{operations / 1e15:.2g}"
