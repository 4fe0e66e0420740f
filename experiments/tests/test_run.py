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
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from torch import Tensor

import probsym as ps
from probsym_experiments import runner
from probsym_experiments.config import load_config
from probsym_experiments.errors import UserError
from probsym_experiments.folder import claim
from probsym_experiments.models import ParticleGNN
from probsym_experiments.nbody.models import BASES
from probsym_experiments.registry import experiment
from probsym_experiments.runner import torch_threads

ADVICE = "the same command with --resume goes on"


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
        "preset": "gnn-ps",
        "metric": "test MSE",
        "seed": 1,
        "samples": 2,
        "steps": 300,
    }
    assert told.items() <= result.items()
    assert [row["samples"] for row in result["by_samples"]] == [1, 2]
    assert [row["draws"] for row in result["by_samples"]] == [4, 2]
    assert result["value"] == result["by_samples"][1]["value"]
    assert result["params_by_part"]["base"] == sum(p.numel() for p in ParticleGNN(layers=1).parameters())
    assert result["overrides"]["steps"] == 300
    assert {"python", "torch", "numpy", "probsym", "lightning"} <= result["versions"].keys()
    assert result["device"] == ("cpu" if not torch.cuda.is_initialized() else torch.cuda.get_device_name())
    assert result["equivariance"]["p_value"] >= 1e-6
    for name in ("error_by_samples.png", "last.ckpt", "tensorboard", "run.json"):
        assert (tmp_path / "out" / name).exists()


def test_the_trained_model_is_saved(run, tmp_path: Path) -> None:
    run("--steps=20")
    assert isinstance(ps.load(tmp_path / "out" / "model", model=ParticleGNN(layers=1)), ps.Symmetrizer)


@pytest.mark.parametrize(
    "preset", ["gnn-ga", "gnn-fa", "gnn-canonical", "transformer-ps", "transformer-ga", "transformer-canonical"]
)
def test_other_symmetrizers_and_bases_learn_and_are_equivariant(run, tmp_path: Path, preset: str) -> None:
    # With ten passes 60 steps leave one near tie of scores, whose order float32 rounds differently in another pose.
    code, error, result = run("--steps=60", "--lr=1e-3", "--warmup=0", "--sinkhorn=2", preset=preset)
    assert code == 0, error
    losses = [float(row["train_loss"]) for row in rows(tmp_path / "out")]
    assert losses[-1] < 0.8 * losses[0]
    assert result["equivariance"]["p_value"] >= 1e-6


@pytest.mark.parametrize(("base", "size"), [("gnn", 92_103), ("transformer", 208_387), ("dynamics", 25_931)])
def test_bases_of_the_presets_are_of_full_size(base: str, size: int) -> None:
    config = load_config(experiment("nbody"), f"{base}-ps")
    assert sum(p.numel() for p in BASES[base].build(config).parameters()) == size


def test_average_of_weights_is_what_is_tested(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The saved model holds the average of the weights after each step, made by hand; plain training the last ones."""
    steps: list[list[Tensor]] = []
    step = torch.optim.AdamW.step

    def watched(optimizer: torch.optim.AdamW, closure) -> None:
        weights = optimizer.param_groups[0]["params"]
        if not steps:
            steps.append([w.detach().clone() for w in weights])
        step(optimizer, closure)
        steps.append([w.detach().clone() for w in weights])

    monkeypatch.setattr(torch.optim.AdamW, "step", watched)
    for decay, out in ((0.0, tmp_path / "plain"), (0.99, tmp_path / "averaged")):
        steps.clear()
        run("--steps=30", "--validate_every=30", f"--ema={decay}", out=out)
        expected = steps[0]
        for t, live in enumerate(steps[1:]):
            d = min(decay, (1 + t) / (10 + t))
            expected = [d * w + (1 - d) * new for w, new in zip(expected, live, strict=True)]
        tested = ps.load(out / "model", model=ParticleGNN(layers=1)).parameters()
        torch.testing.assert_close([w.detach() for w in tested], expected)
        assert len(steps) == 31


def same(one: dict, other: dict) -> None:
    for field in ("value", "stderr", "by_samples", "best_valid", "equivariance"):
        assert one[field] == other[field], field


@pytest.mark.parametrize(
    ("number", "code", "minutes"),
    [(signal.SIGKILL, -signal.SIGKILL, 0), (signal.SIGINT, 130, 9), (signal.SIGTERM, 143, 9)],
)
def test_stopped_and_resumed_ends_the_same(
    run, small: list[str], data: Path, tmp_path: Path, number: int, code: int, minutes: int
) -> None:
    """What is killed has checkpoints by the clock; what is told to end says how to go on, and writes one then."""
    recipe = ["--steps=120", "--validate_every=10", "--ema=0.9", f"--trainer.checkpoint_minutes={minutes}"]
    recipe.append("--trainer.threads=1")  # not those of this process, and of the other one, by chance
    stopped, whole = tmp_path / "stopped", tmp_path / "whole"
    command = [sys.executable, "-m", "probsym_experiments.cli", "run", "nbody", "--preset", "gnn-ps", *small, *recipe]
    process = subprocess.Popen(
        [*command, "--data", str(data), "--out", str(stopped)],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # which a background process ignores
    )
    while not (stopped / "metrics.csv").exists() or len(rows(stopped)) < 4:
        assert process.poll() is None, process.stderr.read()  # type: ignore[union-attr]
        time.sleep(0.01)
    assert (stopped / "last.ckpt").exists() == (minutes == 0)
    process.send_signal(number)
    _, told = process.communicate(timeout=60)
    assert process.returncode == code
    assert told == ("" if code < 0 else f"probsym: interrupted by {signal.Signals(number).name}; {ADVICE}\n")
    assert (stopped / "last.ckpt").exists()
    assert not (stopped / "result.json").exists()
    assert len(rows(stopped)) < 12
    code, error, resumed = run(*recipe, "--resume", out=stopped)
    assert code == 0, error
    _, _, straight = run(*recipe, out=whole)
    same(resumed, straight)
    assert (stopped / "metrics.csv").read_text() == (whole / "metrics.csv").read_text()


def test_a_run_computes_with_the_threads_that_it_began_with(tmp_path: Path) -> None:
    """Resumed on a machine that offers others, it keeps its own; asked for others, it says that it would not."""
    before = torch.get_num_threads()

    def claimed(*overrides: str, resume: bool) -> dict:
        config = load_config(experiment("nbody"), "gnn-ps", overrides)
        return claim(tmp_path, {"experiment": "nbody", "preset": "gnn-ps", "config": asdict(config)}, {}, resume)

    assert claimed("--trainer.threads=3", resume=False)["threads"] == 3
    assert claimed(resume=True)["threads"] == 3
    with pytest.raises(UserError, match=r"--trainer\.threads 2: .* begun with 3 threads"):
        claimed("--trainer.threads=2", resume=True)
    with torch_threads(3):
        assert torch.get_num_threads() == 3
    assert torch.get_num_threads() == before


def test_threads_are_recorded(run, tmp_path: Path) -> None:
    _, _, result = run("--steps=2", "--validate_every=2", "--trainer.threads=2")
    assert result["threads"] == 2
    assert json.loads((tmp_path / "out" / "run.json").read_text())["threads"] == 2


@pytest.mark.parametrize(
    ("hook", "at", "kept"),
    [("on_train_batch_start", 36, 37), ("on_train_batch_start", 39, 40), ("on_validation_start", 40, 40)],
)
def test_a_signal_waits_for_a_whole_step(
    run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hook: str, at: int, kept: int
) -> None:
    """It comes within step 37, step 40 or the validation after it; seconds of both parts are told."""
    from probsym_experiments.training import Training

    whole, parts = tmp_path / "whole", tmp_path / "parts"
    _, _, straight = run(out=whole)
    begin = getattr(Training, hook)

    def stop(module: Training, *arguments) -> None:
        begin(module, *arguments)
        if module.global_step == at:
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(Training, hook, stop)
        assert run(out=parts)[::2] == (143, None)
    checkpoint = torch.load(parts / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == kept
    progress = checkpoint["progress"]
    assert 0 < progress["cpu_seconds"] < 60 * os.cpu_count()
    torch.save(checkpoint | {"progress": progress | {"seconds": 2000.0, "cpu_seconds": 1000.0}}, parts / "last.ckpt")
    _, error, resumed = run("--resume", out=parts)
    assert resumed is not None, error
    same(resumed, straight)
    assert (parts / "metrics.csv").read_text() == (whole / "metrics.csv").read_text()
    assert 1000 < resumed["cpu_s"] < 2000 < resumed["wall_s"] < 3000


def test_a_signal_before_training_ends_at_once(run, monkeypatch: pytest.MonkeyPatch) -> None:
    from probsym_experiments.nbody import experiment as nbody

    before = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch:
        patch.setattr(nbody, "load", lambda *arguments: signal.raise_signal(signal.SIGTERM))
        assert run("--steps=20") == (143, f"probsym: interrupted by SIGTERM; {ADVICE}\n", None)
    assert signal.getsignal(signal.SIGTERM) is before
    assert run("--steps=20", "--resume")[0] == 0


def test_code_is_that_of_the_start_and_of_each_resumption(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run made by commit a is resumed by b, twice; a run.json without commits takes the present one."""
    out = tmp_path / "out"

    def by(commit: str, *arguments: str) -> dict:
        (out / "result.json").unlink(missing_ok=True)
        monkeypatch.setattr(runner, "commit", lambda: commit)
        return run("--steps=20", *arguments)[2]

    made = by("a")
    assert (made["commit"], "resumed" in made) == ("a", False)
    assert "resumed" not in by("a", "--resume")
    for _ in range(2):
        made = by("b", "--resume")
        assert made["commit"] == "a"
        assert made["resumed"] == [{"versions": made["versions"], "commit": "b"}]
    identity = json.loads((out / "run.json").read_text())
    old = {name: identity[name] for name in ("experiment", "preset", "config")}
    (out / "run.json").write_text(json.dumps(old))
    assert by("c", "--resume")["commit"] == "c"
    assert by("d", "--resume")["resumed"] == [{"versions": made["versions"], "commit": "d"}]


def test_the_commit_is_taken_before_the_run(run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkout that moves on while the run goes on does not change what made it."""
    commits = iter(["at the start", "at the end"])
    monkeypatch.setattr(runner, "commit", lambda: next(commits))
    assert run("--steps=20")[2]["commit"] == "at the start"


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
    for _ in range(2):  # the folder was given back
        code, error, _ = run("--data", str(tmp_path))
        assert (code, error.count("\n"), str(tmp_path / file.name) in error) == (2, 1, True)
    assert not any((tmp_path / "out").iterdir())


def test_a_damaged_checkpoint(run, tmp_path: Path) -> None:
    run("--steps=20")
    (tmp_path / "out" / "result.json").unlink()
    (tmp_path / "out" / "last.ckpt").write_bytes(b"no checkpoint")
    code, error, _ = run("--steps=20", "--resume")
    assert (code, error.count("\n"), "last.ckpt: damaged" in error) == (2, 1, True), error
    assert (tmp_path / "out" / "run.json").exists()  # it is still that run's folder


def test_divergence_is_told(run) -> None:
    code, error, _ = run("--lr=1e30", "--clip=0")
    assert (code, error.count("\n"), "diverged" in error) == (2, 1, True)


def test_the_test_set_is_not_looked_at(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training and the choice of a checkpoint are the same whatever the test set holds."""
    from probsym_experiments.nbody import experiment as nbody

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
