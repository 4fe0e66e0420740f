"""The tables of n-body and BREC in the documentation are those of the results."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """docs/figures/reproduction.py, which makes them."""
    spec = importlib.util.spec_from_file_location("reproduction", ROOT / "docs" / "figures" / "reproduction.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_tables_are_those_of_the_results(script: ModuleType) -> None:
    """After new results: python docs/figures/reproduction.py, then python benchmarks/fill.py."""
    for name, content in script.summaries().items():
        file = ROOT / "results" / "benchmarks" / f"{name}.json"
        assert json.loads(file.read_text(encoding="utf-8")) == content, name


def test_cells(script: ModuleType) -> None:
    two = [{"value": 0.010, "cpu_s": 70.0}, {"value": 0.012, "cpu_s": 300.0}]
    assert script.error(two, digits=3) == "0.011 +- 0.001 (2)"
    assert script.error(two, digits=3, count=False) == "0.011 +- 0.001"
    assert script.error(two[:1], digits=3) == "0.010"
    assert script.error([]) == ""
    assert (script.cost(two), script.cost(two[:1])) == ("1 to 5 min", "70 s")


def test_published_rows_of_all_six_tasks_are_found(script: ModuleType) -> None:
    """Their names are read by the script."""
    found = script.published_ahead()
    tasks = {key[1:] for key in found}
    assert len(tasks) == 6
    assert len(found) == 6 * len(script.AHEAD)
    assert found["SEGNO", "gravity", 2_000].value == 0.04017
    assert found["SEGNO", "charged", 1_000].value == 0.00433
