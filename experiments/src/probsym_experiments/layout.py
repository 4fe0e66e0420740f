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
    """Where results were looked for, and one table per experiment."""
    found = ours(runs, results)
    texts = [sources(found, place(results), runs, width)]
    for name, experiment in EXPERIMENTS.items():
        texts.append(table(experiment, found.get(name, []), width))
    return texts


def sources(found: dict[str, list[Row]], results: Path, runs: Path, width: int) -> str:
    """Where results were looked for, and how many there are."""
    count = 0
    for rows in found.values():
        for row in rows:
            count += len(row.results)
    folders = []
    for folder in (results, runs):
        missing = "" if folder.is_dir() else " (no such folder)"
        folders.append(f"{folder.resolve()}{missing}")
    text = f"{count} results in {' and '.join(folders)}; --results DIR and --runs DIR name others."
    return textwrap.fill(text, width, break_long_words=False, break_on_hyphens=False)


def table(experiment: Experiment, rows: Iterable[Row], width: int) -> str:
    """Published rows in their order, each followed by our runs of the same method; then our others, apart.

    Below stand the presets that were never run, and what each of the others is.
    """
    left = list(rows)
    presets = experiment.presets
    run_presets = dict.fromkeys(row.preset for row in left if row.preset in presets)

    # 1. Published rows, and ours of the same method. Where there is none, the row says so.
    compared: list[Line] = []
    said_not_run: set[str] = set()
    for paper in published(experiment.name):
        compared.append(published_line(paper))
        same = [row for row in left if row.family == paper.preset]
        for row in same:
            compared.append(our_line(row, experiment.beside))
            left.remove(row)
        if paper.preset is not None and not same:
            compared.append(Line(f"  {paper.preset}", {"ours": NOT_RUN}))
            said_not_run |= {name for name in presets if family(name) == paper.preset}

    # 2. What is left of ours.
    others = [our_line(row, experiment.beside) for row in left]
    sections = [
        Section("published, and our presets of the same method", compared),
        Section("ours, with nothing published to compare", others),
    ]
    headings = [*COLUMNS, *(heading(field) for field in experiment.beside)]
    parts = [f"{experiment.name}: {experiment.axis}", body([s for s in sections if s.lines], headings, width)]

    # 3. What the presets are.
    never = [name for name in presets if name not in run_presets and name not in said_not_run]
    if never:
        parts.append(filled(f"never run: {', '.join(never)}", width))
    for name in run_presets:
        parts.append(filled(f"{name}: {summary(presets[name])}", width))
    return "\n".join(part for part in parts if part) + "\n"


def published_line(paper: Published) -> Line:
    """A row of a paper."""
    cells = {"published": str(paper), "PFLOP": petaflop(paper.train_flops)}
    if paper.steps is not None:
        cells["steps"] = f"{paper.steps:,}"
    return Line(paper.row, cells)


def our_line(row: Row, beside: Iterable[str]) -> Line:
    """A row of ours.

    Args:
        beside: Further fields of its results that are shown.
    """
    cpu = row.known_mean("cpu_s")
    cells = {
        "ours": f"{row.mean('value'):.4g}",
        "± seeds": number(row.stderr(), ".1g"),
        "± test": number(row.known_mean("stderr_test"), ".1g"),
        "± samples": f"{row.mean('stderr'):.1g}",
        "seeds": str(len(row.results)),
        "k": row.each("samples"),
        "device": row.each("device"),
        "steps": row.each("steps", ","),
        "PFLOP": petaflop(row.known_mean("train_flops")),
        "wall": f"{row.mean('wall_s') / 60:.1f} min",
        "CPU": "" if cpu is None else f"{cpu / 60:.1f} min",
        "params": row.each("params", ","),
    }
    for field in beside:
        cells[heading(field)] = number(row.known_mean(field), ".2g")
    return Line(f"  {row.name}", cells)


def heading(field: str) -> str:
    """Of the column of a field of results."""
    return field.replace("_", " ")


def body(sections: list[Section], headings: Iterable[str], width: int) -> str:
    """One line per row if the terminal is wide enough for all of them, else two or more."""
    lines = [line for section in sections for line in section.lines]
    if not lines:
        return "no row"

    # 1. Columns that have an entry, as wide as their widest; names that are very long do not count.
    widths: dict[str, int] = {}
    for name in headings:
        entries = [line.cells.get(name, "") for line in lines]
        if any(entries):
            widths[name] = max(len(name), *map(len, entries))
    names = [len(line.name) for line in lines if len(line.name) <= LONGEST]
    first = max(names, default=0)
    fits = first + sum(len(GAP) + size for size in widths.values()) <= width

    # 2. The rows, under the titles of their sections.
    made = []
    if fits:
        made.append(" " * first + "".join(GAP + name.rjust(size) for name, size in widths.items()))
    for section in sections:
        made.append(f"-- {section.title}")
        for line in section.lines:
            made += in_columns(line, first, widths) if fits else stacked(line, widths, width)
    return "\n".join(made)


def in_columns(line: Line, first: int, widths: dict[str, int]) -> list[str]:
    """A row as one line; a name wider than `first` has a line of its own."""
    cells = "".join(GAP + line.cells.get(name, "").rjust(size) for name, size in widths.items())
    if len(line.name) <= first:
        return [(line.name.ljust(first) + cells).rstrip()]
    return [line.name, (" " * first + cells).rstrip()]


def stacked(line: Line, names: Iterable[str], width: int) -> list[str]:
    """The name alone, and below it what is known, each with its heading, as many to a line as there is room for."""
    indent = " " * 6
    made = [line.name]
    text = ""
    for name in names:
        cell = line.cells.get(name)
        if not cell:
            continue
        entry = f"{name} {cell}"
        if not text:
            text = entry
        elif len(indent + text + GAP + entry) <= width:
            text += GAP + entry
        else:
            made.append(indent + text)
            text = entry
    if text:
        made.append(indent + text)
    return made


def filled(text: str, width: int) -> str:
    """A paragraph, indented from its second line on."""
    return textwrap.fill(text, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def number(value: float | None, style: str) -> str:
    """A number, or nothing."""
    return "" if value is None else format(value, style)


def petaflop(operations: float | None) -> str:
    """Operations in units of 1e15, or nothing."""
    return "" if operations is None else number(operations / 1e15, ".2g")
