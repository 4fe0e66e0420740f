"""Writes the tables of committed measurements into the documentation, so that no number there is typed by hand.

python benchmarks/fill.py                 rewrites the pages under docs/
python benchmarks/fill.py --check         says which pages would change, and ends with 1 if any would

A table stands between `<!-- table: FILE.json N -->` and `<!-- end -->`: the Nth table (from 0) of
results/benchmarks/FILE.json, which `python benchmarks NAME --out results/benchmarks/FILE.json` wrote, or a program that
summarizes results and names them as "source". Above the first table of a file stands what it was measured with.
`rows=0,3` and `columns=0,2` after N choose some of the table, which then stands without that line.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
MARKED = re.compile(r"<!-- table: (\S+\.json) (\d+)((?: \w+=[\d,]+)*) -->\n.*?<!-- end -->", re.DOTALL)


def pages() -> list[Path]:
    """All pages of the documentation."""
    return sorted((ROOT / "docs").rglob("*.md"))


def table(name: str, number: int, choice: str = "") -> str:
    """A table as Markdown, under what it was measured with if it is the first of its file and whole."""
    file = ROOT / "results" / "benchmarks" / name
    if not file.exists():
        return f"*Not measured yet: no `results/benchmarks/{name}`.*"
    kept = json.loads(file.read_text(encoding="utf-8"))
    columns = kept["tables"][number]["columns"]
    rows = kept["tables"][number]["rows"]

    # 1. The rows and columns that are shown, in the order in which they are named.
    for option in choice.split():
        axis, numbers = option.split("=")
        chosen = [int(i) for i in numbers.split(",")]
        if axis == "rows":
            rows = pick(rows, chosen)
        elif axis == "columns":
            columns = pick(columns, chosen)
            rows = [pick(row, chosen) for row in rows]
        else:
            raise ValueError(f"table {name} {number}: expected rows= or columns=, got {option}")

    # 2. As Markdown.
    lines = []
    if number == 0 and not choice:
        lines = [origin(name, kept), ""]
    for cells in [columns, ["---"] * len(columns), *rows]:
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def pick(entries: list[Any], indices: list[int]) -> list[Any]:
    """Those entries of a list, in this order."""
    return [entries[i] for i in indices]


def origin(name: str, kept: dict[str, Any]) -> str:
    """Where and how the numbers of a file were measured; of a summary, what it summarizes."""
    if "source" in kept:
        return f"*`results/benchmarks/{name}`: {kept['source']}.*"
    machine = f"{kept['threads']} thread(s) of {kept['processor']}"
    if kept["device"] != "cpu":
        machine += f", {kept['device']}"
    facts = [
        kept["date"][:10],
        f"commit {kept['commit']}",
        f"torch {kept['torch']}",
        machine,
        f"load average {kept['load_at_start']} at the start",
    ]
    return f"*`results/benchmarks/{name}`: {', '.join(facts)}.*"


def filled(text: str) -> str:
    """A page with its tables as they are measured."""

    def fill(marked: re.Match[str]) -> str:
        name, number, choice = marked.groups()
        return f"<!-- table: {name} {number}{choice} -->\n{table(name, int(number), choice)}\n<!-- end -->"

    return MARKED.sub(fill, text)


def main() -> int:
    check = "--check" in sys.argv[1:]
    stale = []
    for page in pages():
        text = page.read_text(encoding="utf-8")
        new = filled(text)
        if new == text:
            continue
        stale.append(str(page.relative_to(ROOT)))
        if not check:
            page.write_text(new, encoding="utf-8")
    print("\n".join(stale))
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
