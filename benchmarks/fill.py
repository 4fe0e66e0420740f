"""Writes the tables of committed measurements into the documentation, so that no number there is typed by hand.

python benchmarks/fill.py                 rewrites docs/*.md
python benchmarks/fill.py --check         says which files would change, and ends with 1 if any would

A table stands between `<!-- table: FILE.json N -->` and `<!-- end -->`: the Nth table (from 0) of
results/benchmarks/FILE.json, which `python benchmarks NAME --out results/benchmarks/FILE.json` wrote. Above the first
table of a file stands what it was measured with.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
MARKED = re.compile(r"<!-- table: (\S+\.json) (\d+) -->\n.*?<!-- end -->", re.DOTALL)


def table(name: str, number: int) -> str:
    """A table as Markdown, under what it was measured with if it is the first of its file."""
    file = ROOT / "results" / "benchmarks" / name
    if not file.exists():
        return f"*Not measured yet: no `results/benchmarks/{name}`.*"
    kept = json.loads(file.read_text(encoding="utf-8"))
    found = kept["tables"][number]
    rows = [found["columns"], ["---"] * len(found["columns"]), *found["rows"]]
    lines = ["| " + " | ".join(cells) + " |" for cells in rows]
    if number == 0:
        lines = [origin(name, kept), "", *lines]
    return "\n".join(lines)


def origin(name: str, kept: dict[str, Any]) -> str:
    """Where and how the numbers of a file were measured."""
    device = "" if kept["device"] == "cpu" else f", {kept['device']}"
    facts = [
        kept["date"][:10],
        f"commit {kept['commit']}",
        f"torch {kept['torch']}",
        f"{kept['threads']} thread(s) of {kept['processor']}{device}",
        f"load average {kept['load_at_start']} at the start",
    ]
    return f"*`results/benchmarks/{name}`: {', '.join(facts)}.*"


def filled(text: str) -> str:
    """A page with its tables as they are measured."""

    def fill(marked: re.Match[str]) -> str:
        name, number = marked.group(1), int(marked.group(2))
        return f"<!-- table: {name} {number} -->\n{table(name, number)}\n<!-- end -->"

    return MARKED.sub(fill, text)


def main() -> int:
    check = "--check" in sys.argv[1:]
    stale = []
    for page in sorted((ROOT / "docs").glob("*.md")):
        text = page.read_text(encoding="utf-8")
        new = filled(text)
        if new == text:
            continue
        stale.append(page.name)
        if not check:
            page.write_text(new, encoding="utf-8")
    print("\n".join(stale))
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
