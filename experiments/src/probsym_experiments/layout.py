"""`probsym table`: our rows beside published ones, as text that is whole at every width."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .published import Published, published
from .registry import EXPERIMENTS, Experiment, summary
from .tables import Row, ours, place, recipe_name

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
    rows_by_experiment = ours(runs, results)
    texts = [sources(rows_by_experiment, place(results), runs, width)]
    for name, experiment in EXPERIMENTS.items():
        texts.append(table(experiment, rows_by_experiment.get(name, []), width))
    return texts


def sources(rows_by_experiment: dict[str, list[Row]], results: Path, runs: Path, width: int) -> str:
    """Where results were looked for, and how many there are."""
    count = 0
    for rows in rows_by_experiment.values():
        for row in rows:
            count += len(row.results)
    folders = []
    for folder in (results, runs):
        text = str(folder.resolve())
        if not folder.is_dir():
            text += " (no such folder)"
        folders.append(text)
    text = f"{count} results in {' and '.join(folders)}; --results DIR and --runs DIR name others."
    return textwrap.fill(text, width, break_long_words=False, break_on_hyphens=False)


def table(experiment: Experiment, rows: Sequence[Row], width: int) -> str:
    """Setting by setting: published rows in their order, each followed by our runs of its method; then our others.

    Below stand the sources, the presets that were never run, and what each of the others is.
    """
    papers = published(experiment.name)
    presets = experiment.presets
    run_presets = []
    for row in rows:
        if row.preset in presets and row.preset not in run_presets:
            run_presets.append(row.preset)
    sources = list(dict.fromkeys(paper.source for paper in papers))  # in the order of their numbers

    # 1. The experiment's own task first, then the others.
    settings = dict.fromkeys(["", *(paper.setting for paper in papers)])
    settings |= dict.fromkeys(experiment.setting(row.config) for row in rows)
    sections: list[Section] = []
    told: set[str] = set()  # presets of which a line says that they were not run
    for setting in settings:
        ours_here = [row for row in rows if experiment.setting(row.config) == setting]
        papers_here = [paper for paper in papers if paper.setting == setting]
        compared, others, not_run = beside_each_other(experiment, papers_here, ours_here, sources, run_presets)
        told |= not_run
        if setting:
            sections.append(Section(setting, compared + others))
            continue
        if compared:
            sections.append(Section("published, and our presets of the same method", compared))
        if others:
            sections.append(Section("ours, with nothing published to compare", others))

    headings = [*COLUMNS]
    for field in experiment.beside:
        headings.append(heading(field))
    parts = [f"{experiment.name}: {experiment.axis}", body(sections, headings, width)]

    # 2. Where the published numbers stand, and what the presets are.
    for index, source in enumerate(sources, 1):
        parts.append(filled(f"[{index}] {source}", width))
    never_run = [name for name in presets if name not in run_presets and name not in told]
    if never_run:
        parts.append(filled(f"never run: {', '.join(never_run)}", width))
    for name in run_presets:
        parts.append(filled(f"{name}: {summary(presets[name])}", width))
    return "\n".join(part for part in parts if part) + "\n"


def beside_each_other(
    experiment: Experiment,
    papers: Sequence[Published],
    rows: Sequence[Row],
    sources: Sequence[str],
    run_presets: Collection[str],
) -> tuple[list[Line], list[Line], set[str]]:
    """Published rows with ours of the same method below each, the rest of ours, and the presets told not to be run.

    Args:
        papers, rows: Of one setting.
        sources: Of published numbers, in the order of the list below the table.
        run_presets: Those that were run in any setting.
    """
    compared: list[Line] = []
    not_run: set[str] = set()
    recipes = [(paper.exact, paper.flags) for paper in papers]
    left = list(rows)
    for paper in papers:
        compared.append(published_line(paper, sources.index(paper.source) + 1))
        if paper.preset is None or paper.exact is None:
            continue

        # The exact recipe first, then the same with other flags, which is the recipe no more, then ours. The first and
        # the last say so where they were not run.
        exact = [row for row in rows if (row.preset, row.overrides) == (paper.exact, paper.flags)]
        same = [row for row in left if row.family == paper.preset and (row.preset, row.overrides) not in recipes]
        shortened = [row for row in same if row.preset == paper.exact]
        own = [row for row in same if row.preset != paper.exact]
        for row in exact:
            compared.append(our_line(row, experiment.beside))
        if paper.exact in experiment.presets and not exact:
            compared.append(Line(f"  {recipe_name(paper.exact, paper.flags)}", {"ours": waits(paper)}))
            not_run.add(paper.exact)
        for row in shortened + own:
            compared.append(our_line(row, experiment.beside))
        if not own and paper.preset not in run_presets:
            compared.append(Line(f"  {paper.preset}", {"ours": NOT_RUN}))
            not_run.add(paper.preset)
        left = [row for row in left if row not in exact + same]
    others = [our_line(row, experiment.beside) for row in left]
    return compared, others, not_run


def published_line(paper: Published, source: int) -> Line:
    """A row of a paper.

    Args:
        source: Its number in the list below the table.
    """
    cells = {"published": f"{paper} [{source}]", "PFLOP": petaflop(paper.train_flops)}
    if paper.steps is not None:
        cells["steps"] = f"{paper.steps:,}"
    return Line(paper.row, cells)


def waits(paper: Published) -> str:
    """That the exact recipe of a row was not run, and what it would take."""
    if paper.device_minutes is None:
        return NOT_RUN
    return f"{NOT_RUN}: {paper.device_minutes:,.0f} GPU min"


def our_line(row: Row, beside: Iterable[str]) -> Line:
    """A row of ours.

    Args:
        beside: Further fields of its results that are shown.
    """
    cells = {
        "ours": f"{row.mean('value'):.4g}",
        "± seeds": number(row.stderr(), ".1g"),
        "± test": number(row.known_mean("stderr_test"), ".1g"),
        "± samples": number(row.known_mean("stderr"), ".1g"),
        "seeds": str(len(row.results)),
        "k": row.each("samples"),
        "device": row.each("device"),
        "steps": row.each("steps", ","),
        "PFLOP": petaflop(row.known_mean("train_flops")),
        "wall": minutes(row.mean("wall_s")),
        "CPU": minutes(row.known_mean("cpu_s")),
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
    lines = []
    for section in sections:
        lines += section.lines
    if not lines:
        return "no row"

    # 1. Columns that have an entry, as wide as their widest; names that are very long do not count.
    widths: dict[str, int] = {}
    for name in headings:
        entries = [line.cells.get(name, "") for line in lines]
        if any(entries):
            widths[name] = max(len(name), *map(len, entries))
    first = 0
    for line in lines:
        if len(line.name) <= LONGEST:
            first = max(first, len(line.name))
    total = first
    for size in widths.values():
        total += len(GAP) + size

    # 2. The rows, under the titles of their sections.
    text_lines = []
    fits = total <= width
    if fits:
        of_headings = {name: name for name in widths}
        text_lines.append(" " * first + cells_in_columns(of_headings, widths))
    for section in sections:
        text_lines.append(f"-- {section.title}")
        for line in section.lines:
            if fits:
                text_lines += in_columns(line, first, widths)
            else:
                text_lines += stacked(line, widths, width)
    return "\n".join(text_lines)


def cells_in_columns(cells: dict[str, str], widths: dict[str, int]) -> str:
    """Cells aligned to the right, each after a gap."""
    text = ""
    for name, size in widths.items():
        text += GAP + cells.get(name, "").rjust(size)
    return text


def in_columns(line: Line, first: int, widths: dict[str, int]) -> list[str]:
    """A row as one line; a name wider than `first` has a line of its own."""
    cells = cells_in_columns(line.cells, widths)
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
    if value is None:
        return ""
    return format(value, style)


def minutes(seconds: float | None) -> str:
    """A time in minutes, or nothing."""
    if seconds is None:
        return ""
    return f"{seconds / 60:.1f} min"


def petaflop(operations: float | None) -> str:
    """Operations in units of 1e15, or nothing."""
    if operations is None:
        return ""
    return format(operations / 1e15, ".2g")
