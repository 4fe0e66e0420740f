"""`probsym run` on a small slice: it learns, it writes what it should, it resumes, and it refuses politely."""

from __future__ import annotations

import csv
import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import probsym as ps
from probsym.nets import ParticleGNN


def rows(out: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((out / "metrics.csv").open()))


def test_learns_and_reports(run, tmp_path: Path) -> None:
    code, _, result = run("--steps=300", "--validate_every=50", "--trainer.tensorboard=true")
    assert code == 0
    history = rows(tmp_path / "out")
    assert float(history[-1]["train_loss"]) < 0.5 * float(history[0]["train_loss"])
    assert result["best_valid"] == min(float(row["valid"]) for row in history)
    told = {
        "experiment": "nbody",
        "preset": "gnn-ps-quick",
        "metric": "test MSE",
        "seed": 1,
        "samples": 2,
        "steps": 300,
    }
    assert told.items() <= result.items()
    assert [row["samples"] for row in result["by_samples"]] == [1, 2]
    assert [row["draws"] for row in result["by_samples"]] == [4, 2]
    assert result["value"] == result["by_samples"][1]["value"]
    assert result["params_by_part"]["base"] == 92_103
    assert result["overrides"]["steps"] == 300
    assert {"python", "torch", "numpy", "probsym", "lightning"} <= result["versions"].keys()
    assert result["equivariance"]["p_value"] >= 1e-6
    for name in ("error_by_samples.png", "last.ckpt", "tensorboard", "run.json"):
        assert (tmp_path / "out" / name).exists()


def test_the_trained_model_is_saved(run, tmp_path: Path) -> None:
    run("--steps=20")
    assert isinstance(ps.load(tmp_path / "out" / "model", model=ParticleGNN()), ps.Symmetrizer)


@pytest.mark.parametrize("preset", ["gnn-ga-quick", "gnn-fa-quick", "gnn-canonical-quick"])
def test_other_symmetrizers(run, preset: str) -> None:
    code, error, result = run("--steps=4", "--validate_every=2", preset=preset)
    assert (code, result["preset"]) == (0, preset), error


@pytest.mark.parametrize("method", ["ps", "ga", "canonical"])
def test_transformer(run, method: str) -> None:
    code, error, result = run("--steps=2", "--validate_every=2", preset=f"transformer-{method}-quick")
    assert code == 0, error
    assert result["params_by_part"]["base"] == 208_387


def test_average_of_weights_is_what_is_tested(run, tmp_path: Path) -> None:
    _, _, plain = run(out=tmp_path / "plain")
    _, _, averaged = run("--ema=0.99", out=tmp_path / "averaged")
    assert plain["value"] != averaged["value"]


def same(one: dict, other: dict) -> None:
    for field in ("value", "stderr", "by_samples", "best_valid", "equivariance"):
        assert one[field] == other[field], field


def test_killed_and_resumed_ends_the_same(run, small: list[str], data: Path, tmp_path: Path) -> None:
    recipe = ["--steps=200", "--validate_every=10", "--ema=0.9", "--trainer.checkpoint_minutes=0"]
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    command = [sys.executable, "-m", "probsym.cli", "run", "nbody", "--preset", "gnn-ps-quick", *small, *recipe]
    process = subprocess.Popen([*command, "--data", str(data), "--out", str(killed)], stderr=subprocess.PIPE)
    while not (killed / "last.ckpt").exists() or len(rows(killed)) < 4:
        assert process.poll() is None, process.stderr.read().decode()  # type: ignore[union-attr]
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (killed / "result.json").exists()
    assert len(rows(killed)) < 20
    code, error, resumed = run(*recipe, "--resume", out=killed)
    assert code == 0, error
    _, _, straight = run(*recipe, out=whole)
    same(resumed, straight)
    assert (killed / "metrics.csv").read_text() == (whole / "metrics.csv").read_text()


def test_a_finished_run_is_read_not_repeated(run, tmp_path: Path) -> None:
    _, _, first = run()
    before = (tmp_path / "out" / "result.json").stat().st_mtime_ns
    assert run("--resume") == (0, "", first)
    assert (tmp_path / "out" / "result.json").stat().st_mtime_ns == before


def test_an_occupied_folder_is_refused(run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("years of work")
    for extra in ((), ("--resume",)):
        code, error, _ = run(*extra)
        assert code == 2
        assert str(out) in error
    assert [p.name for p in out.iterdir()] == ["thesis.tex"]


def test_another_run_is_not_overwritten_nor_resumed(run, tmp_path: Path) -> None:
    run("--steps=20")
    kept = (tmp_path / "out" / "result.json").read_text()
    code, error, _ = run("--steps=40")
    assert (code, "--resume" in error) == (2, True)
    code, error, _ = run("--steps=40", "--resume")
    assert (code, "steps: 20, not 40" in error) == (2, True)
    assert (tmp_path / "out" / "result.json").read_text() == kept


def test_a_file_where_a_folder_should_be(run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    code, error, _ = run(out=tmp_path / "file" / "out")
    assert (code, error.count("\n")) == (2, 1)
    assert "file" in error


def test_a_read_only_folder(run) -> None:
    code, error, _ = run(out=Path("/proc/probsym"))  # even root cannot write there
    assert (code, error.count("\n"), "/proc/probsym" in error) == (2, 1, True)


def test_a_full_disk(run, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        os.close(handle)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/full/metrics.csv")

    monkeypatch.setattr("probsym.files.os.fdopen", lambda handle, mode: full(handle))
    code, error, _ = run()
    assert (code, error) == (2, "probsym: error: /full/metrics.csv: No space left on device\n")


def test_a_damaged_data_file(run, data: Path, tmp_path: Path) -> None:
    file = min(data.glob("*.npz"), key=lambda path: len(path.name))  # other tests keep velocities beside it
    (tmp_path / file.name).write_bytes(file.read_bytes()[:1000])
    code, error, _ = run("--data", str(tmp_path))
    assert (code, error.count("\n"), str(tmp_path / file.name) in error) == (2, 1, True)


def test_a_damaged_checkpoint(run, tmp_path: Path) -> None:
    run("--steps=20")
    (tmp_path / "out" / "result.json").unlink()
    (tmp_path / "out" / "last.ckpt").write_bytes(b"no checkpoint")
    code, error, _ = run("--steps=20", "--resume")
    assert (code, error.count("\n"), "last.ckpt: damaged" in error) == (2, 1, True), error


def test_divergence_is_told(run) -> None:
    code, error, _ = run("--lr=1e30", "--clip=0")
    assert (code, error.count("\n"), "diverged" in error) == (2, 1, True)


def test_the_test_set_is_not_looked_at(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training and the choice of a checkpoint are the same whatever the test set holds."""
    from probsym.experiments.nbody import experiment as nbody

    _, _, first = run(out=tmp_path / "a")
    read = nbody.load

    def other(*arguments):
        parts = read(*arguments)
        return parts | {"test": {name: values + 1 for name, values in parts["test"].items()}}

    monkeypatch.setattr(nbody, "load", other)
    _, _, second = run(out=tmp_path / "b")
    assert first["value"] != second["value"]
    assert (tmp_path / "a" / "metrics.csv").read_text() == (tmp_path / "b" / "metrics.csv").read_text()
    assert json.loads((tmp_path / "a" / "run.json").read_text()) == json.loads(
        (tmp_path / "b" / "run.json").read_text()
    )
