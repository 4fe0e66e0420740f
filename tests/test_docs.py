"""The code on the pages runs, as it stands there.

All blocks of a page marked `python` are one module, in the order of the page, so later blocks use what earlier ones
define. The module has the line numbers of the page: a traceback points into it.
"""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
FENCE = "```"


def code_of(page: Path) -> str:
    """The Python of a page, with an empty line for every other line."""
    lines = []
    inside = False
    for line in page.read_text(encoding="utf-8").splitlines():
        starts = line.startswith(FENCE + "python")
        ends = inside and line == FENCE
        lines.append(line if inside and not ends else "")
        inside = starts or (inside and not ends)
    return "\n".join(lines)


def pages_with_code() -> list[Path]:
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [page for page in pages if code_of(page).strip()]


@pytest.mark.parametrize("page", pages_with_code(), ids=lambda page: page.relative_to(ROOT).as_posix())
def test_the_code_of_a_page_runs(page, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    name = "page_" + page.stem.replace("-", "_")
    module = types.ModuleType(name)
    monkeypatch.setitem(sys.modules, name, module)  # dataclasses and saved models look their classes up there
    torch.manual_seed(0)
    exec(compile(code_of(page), str(page), "exec"), vars(module))


def test_a_page_whose_code_fails_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "Text.\n\n```python\nx = 1\n```\n\nMore.\n\n```bash\nnot python\n```\n\n```python\nassert x == 2\n```\n"
    )
    assert code_of(page).splitlines()[3] == "x = 1"
    with pytest.raises(AssertionError):
        exec(compile(code_of(page), str(page), "exec"), {})


def all_matches(pattern: str) -> set:
    """What a pattern finds on all pages."""
    pages = [ROOT / "experiments" / "README.md", *ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    matches: set = set()
    for page in pages:
        matches.update(re.findall(pattern, page.read_text(encoding="utf-8")))
    return matches


def test_the_files_that_pages_name_exist():
    paths = all_matches(r"\b((?:experiments/)?(?:tests|examples)/[\w/]+\.py)")
    assert len(paths) > 15
    missing = [path for path in paths if not (ROOT / path).exists()]
    assert not missing


def test_the_presets_that_pages_run_exist():
    presets = ROOT / "experiments" / "src" / "probsym_experiments" / "presets"
    runs = all_matches(r"run ([\w-]+) --preset ([\w-]+)")
    assert len(runs) > 10
    missing = [run for run in runs if not (presets / run[0] / f"{run[1]}.yaml").exists()]
    assert not missing


def test_the_guides_are_among_the_pages():
    names = {page.relative_to(ROOT).as_posix() for page in pages_with_code()}
    guides = {"docs/guides/group.md", "docs/guides/distribution.md", "docs/guides/estimator.md"}
    assert {"README.md", "docs/index.md", *guides} <= names
