"""The demo on a slice: a table of both models, a figure, and nothing overwritten."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from probsym_experiments import demo
from probsym_experiments.cli import main
from probsym_experiments.nbody.data import System


def test_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(demo, "SYSTEM", System(train=32, valid=8, test=16))
    monkeypatch.setattr(demo, "RECIPE", replace(demo.RECIPE, steps=20, validate_every=10))
    figures = []
    for _ in range(2):
        assert main(["demo", "--out", str(tmp_path)]) == 0
        figures.append({path.name: path.read_bytes() for path in tmp_path.iterdir()})
    shown = capsys.readouterr().out
    assert all(word in shown for word in ("bare", "symmetrized", "equivariance error", "p-value", "yes", "no"))
    assert figures[0].keys() == {"probsym-demo.png"}
    assert figures[1].keys() == {"probsym-demo.png", "probsym-demo-2.png"}
    assert figures[0].items() <= figures[1].items()
