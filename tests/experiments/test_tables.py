"""Rows of `probsym table`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from probsym.cli import main
from probsym.experiments.published import published
from probsym.experiments.registry import EXPERIMENTS
from probsym.experiments.tables import collect


def result(folder: Path, seed: int, value: float, **fields: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    base = {
        "experiment": "nbody", "preset": "gnn-ps", "value": value, "stderr": 1e-5, "seed": seed, "samples": 20,
        "steps": 20_000, "wall_s": 600.0, "params": 100_000, "overrides": {},
    }  # fmt: skip
    (folder / f"{seed}.json").write_text(json.dumps(base | fields))


def test_seeds_become_one_row(tmp_path: Path) -> None:
    for seed, value in enumerate((0.0050, 0.0054, 0.0058)):
        result(tmp_path / "results/nbody/gnn-ps", seed, value)
    result(tmp_path / "results/nbody/gnn-ps", 9, 0.02, overrides={"steps": 5}, steps=5)
    rows = {row.name: row for row in collect(tmp_path / "results", tmp_path / "runs")["nbody"]}
    assert rows["gnn-ps"].mean("value") == pytest.approx(0.0054)
    assert rows["gnn-ps"].stderr() == pytest.approx(0.0004 / 3**0.5)
    assert rows["gnn-ps steps=5"].stderr() is None


def test_table_shows_ours_beside_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    result(tmp_path / "results/nbody/gnn-ps", 1, 0.0056, train_flops=12_000_000_000_000, cpu_s=300.0)
    run = tmp_path / "runs/nbody/gnn-ps/seed2"
    result(run, 2, 0.0054)
    (run / "2.json").rename(run / "result.json")
    assert main(["table"]) == 0
    lines = capsys.readouterr().out.splitlines()
    place = next(i for i, line in enumerate(lines) if "GNN PS" in line)
    assert "unverified" in lines[place]
    assert "gnn-ps" in lines[place + 1]
    assert all(text in lines[place] for text in ("300,000", "2.7"))
    assert all(text in lines[place + 1] for text in ("0.0055", "0.0001", "2", "20,000", "0.012", "10.0 min", "5.0 min"))
    assert "unverified" not in next(line for line in lines if "EGNN" in line and "0.0071" in line)


def test_a_damaged_result_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/result.json").write_text("{")
    assert main(["table", "--runs", str(tmp_path)]) == 2
    assert str(tmp_path / "a/result.json") in capsys.readouterr().err
    (tmp_path / "a/result.json").write_text("{}")
    assert main(["table", "--runs", str(tmp_path)]) == 2
    assert "lacks experiment" in capsys.readouterr().err


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_published_rows_name_our_presets(name: str) -> None:
    presets = EXPERIMENTS[name].presets
    assert all(row.preset is None or row.preset in presets for row in published(name))
