"""`probsym figures`: what it draws, and that the CSV beside each figure holds the numbers of the results."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from probsym.cli import main

BASE = {
    "experiment": "nbody", "preset": "gnn-ps", "value": 0.005, "stderr": 1e-5, "samples": 20, "steps": 10,
    "wall_s": 600.0, "params": 100, "overrides": {}, "config": {"symmetrizer": "ps"},
    "by_samples": [{"samples": k, "value": v, "stderr": 0.0, "stderr_test": 0.0, "draws": 2}
                   for k, v in ((1, 0.006), (20, 0.005))],
}  # fmt: skip
ANALYSED = {
    "equivariance_by_samples": [{"samples": 1, "error": 0.02}, {"samples": 20, "error": 0.005}],
    "samples_for_tolerance": [{"tolerance": 0.01, "median": 4.0, "above": 0.0, "histogram": [0, 1, 3]}],
}


def result(folder: Path, seed: int, **fields: Any) -> None:
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps(BASE | {"seed": seed} | fields))


def table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.open()))


@pytest.fixture
def drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results").mkdir()  # not those of the checkout
    result(tmp_path / "runs/a", 1)
    result(tmp_path / "runs/b", 2, value=0.007, **ANALYSED)
    exact = {"preset": "gnn-fa", "by_samples": [BASE["by_samples"][0] | {"samples": 8}]}  # type: ignore[index]
    result(tmp_path / "runs/c", 1, **exact, equivariance_by_samples=[{"samples": 8, "error": 1e-6}])
    assert main(["figures", "--out", str(tmp_path / "drawn")]) == 0
    return tmp_path / "drawn" / "nbody"


def test_every_figure_has_its_numbers_beside_it(drawn: Path) -> None:
    names = {"error_by_samples", "equivariance_by_samples", "samples_for_tolerance", "error_by_cost"}
    assert {path.name for path in drawn.iterdir()} == {n + e for n in names for e in (".png", ".csv")}
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in drawn.glob("*.png"))


def test_numbers_are_those_of_the_results(drawn: Path) -> None:
    errors = table(drawn / "error_by_samples.csv")
    assert {(r["row"], r["seed"], r["samples"], r["value"]) for r in errors} == {
        ("gnn-ps", "1", "1", "0.006"), ("gnn-ps", "1", "20", "0.005"), ("gnn-ps", "2", "1", "0.006"),
        ("gnn-ps", "2", "20", "0.005"), ("gnn-fa", "1", "8", "0.006"),
    }  # fmt: skip
    moved = table(drawn / "equivariance_by_samples.csv")
    assert [r["error"] for r in moved if r["row"] == "gnn-ps"] == ["0.02", "0.005"]
    needed = table(drawn / "samples_for_tolerance.csv")
    assert [(r["above"], r["samples"], r["inputs"]) for r in needed] == [
        ("0", "1", "0"),
        ("1", "2", "1"),
        ("2", "4", "3"),
    ]
    cost = table(drawn / "error_by_cost.csv")
    assert [(r["row"], r["seed"], r["wall_s"], r["value"]) for r in cost] == [
        ("gnn-fa", "1", "600.0", "0.005"), ("gnn-ps", "1", "600.0", "0.005"), ("gnn-ps", "2", "600.0", "0.007")
    ]  # fmt: skip


def test_nothing_to_draw_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results").mkdir()
    assert main(["figures"]) == 2
    assert "--runs runs: expected results" in capsys.readouterr().err
    assert not (tmp_path / "figures").exists()
