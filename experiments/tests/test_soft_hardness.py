"""How hard soft permutations are: a matrix of wide scores is a permutation, one of narrow scores is flat."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from probsym_experiments.graphs.exp_classify import Config, inputs
from probsym_experiments.graphs.exp_data import load
from wl_pairs import dataset


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "scripts"))
    return importlib.import_module("soft_hardness")


def measured(script: ModuleType, folder: Path, **fields: object) -> tuple[float, float]:
    """Of a model with the weights of the seed, and always the same noise."""
    config = Config(hidden=[4], valid_size=4, test_size=4, walks=0, **fields)
    parts = config.split(config.graphs(load(folder)))
    phi = config.model(parts["train"]).eval()
    torch.manual_seed(0)
    return script.hardness(phi, inputs(parts["test"]), config.temperature)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    np.savez(tmp_path / "exp.npz", **dataset(8))
    return tmp_path


def test_code_of_unknown_commit_is_told(script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"symmetrizer": "ps-soft", "unit norm": False, "steps": 3, "accuracy": {"10": 0.5, "200": 0.5}}
    numbers = {"spread": 1.0, "largest": 0.5}
    monkeypatch.setattr(script, "of_run", lambda *given: found | {"start": numbers, "end": numbers})
    monkeypatch.setattr(script, "commit", lambda: None)
    for name in ("last.ckpt", "result.json"):
        (tmp_path / name).touch()
    out = tmp_path / "out.json"
    monkeypatch.setattr("sys.argv", ["soft_hardness.py", str(tmp_path), "--out", str(out)])
    script.main()
    assert json.loads(out.read_text())["source"].startswith("commit unknown, ")


@pytest.mark.parametrize("symmetrizer", ["ps-soft", "ps"])
def test_scores_of_many_temperatures_harden(script: ModuleType, folder: Path, symmetrizer: str) -> None:
    ours = {"symmetrizer": symmetrizer, "net": "batch-norm-gin", "noise": "input", "scale": 0.5}
    spread, largest = measured(script, folder, **ours, temperature=1.0)
    wide, hard = measured(script, folder, **ours, temperature=1e-4)
    assert wide == pytest.approx(1e4 * spread)
    assert 1 / 32 < largest < 0.2 < 0.9 < hard <= 1


def test_scores_of_unit_norm_cannot_spread(script: ModuleType, folder: Path) -> None:
    """Their standard deviation over N nodes is at most 1 / sqrt(N); the graphs have 13 nodes or more."""
    spread, _ = measured(script, folder, symmetrizer="ps-soft", published=True, scale=1.0, temperature=0.01)
    assert 0 < spread <= 13**-0.5 / 0.01


def test_a_p_without_scores_is_refused(script: ModuleType, folder: Path) -> None:
    with pytest.raises(TypeError, match="expected a run with a net of p that is relaxed"):
        measured(script, folder, symmetrizer="ga")
