"""The command line without training: what it says, how it fails, and that it starts light."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from probsym_experiments.cli import main
from probsym_experiments.registry import EXPERIMENTS


def test_list_has_one_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == sum(1 + len(found.presets) for found in EXPERIMENTS.values())
    assert all(len(line) <= 120 for line in lines)


def test_the_module_is_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    listed = subprocess.run([sys.executable, "-m", "probsym_experiments", "list"], capture_output=True, text=True)
    assert (listed.returncode, listed.stdout) == (0, capsys.readouterr().out)
    assert subprocess.run([sys.executable, "-m", "probsym_experiments", "foo"], capture_output=True).returncode == 2


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["foo"], "foo"),
        (["list", "--all"], "--all"),
        (["run"], "nbody"),
        (["run", "foo", "--preset", "x"], "experiment: expected one of nbody, .*; got 'foo'"),
        (["run", "nbody"], "--preset"),
        (["run", "nbody", "--preset", "gnn"], "preset: expected one of .*gnn-ps.* got 'gnn'"),
        (["run", "nbody", "--preset", "gnn-ps", "--stepz", "3"], "--stepz"),
        (["run", "nbody", "--preset", "gnn-ps", "--steps", "many"], "steps: .*many"),
        (["run", "nbody", "--preset"], "--preset"),
    ],
)
def test_user_errors_are_one_line_and_exit_with_2(
    arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    import re

    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(named, error), error


HUGE = str(2**70)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--seed", HUGE], r"seed: expected a whole number below 2\^63; got 1180591620717411303424"),
        (["--seed", str(2**63)], "seed: expected a whole number below"),
        (["--seed", "-1"], "seed: expected at least 0"),
        (["--seed", "1.5"], "seed: Expected a int"),
        (["--seed", "2^70"], "seed: Expected a int"),
        (["--seed", ""], "seed: Expected a int"),
        (["--steps", HUGE], r"steps: expected a whole number below 2\^31"),
        (["--batch_size", HUGE], "batch_size: expected a whole number below"),
        (["--eval_samples", f"[20,{HUGE}]"], "eval_samples: expected a whole number below"),
        (["--lr", "1e400"], "lr: expected a finite number; got inf"),
        (["--trainer.checkpoint_minutes", "1e400"], "trainer.checkpoint_minutes: expected a finite number"),
        (["--trainer.checkpoint_minutes", "-1"], "checkpoint_minutes: expected at least 0"),
        (["--trainer.strategy", "os.system"], "trainer.strategy: expected one of auto, ddp, .*; got 'os.system'"),
        (["--trainer.strategy", "fsdp"], "trainer.strategy: expected one of"),
        (["--trainer.accelerator", "tpu"], "trainer.accelerator: expected one of auto, cpu, .*; got 'tpu'"),
        (["--trainer.precision", "16"], "trainer.precision: expected one of 32-true, .*; got '16'"),
        (["--trainer.devices", "0"], "trainer.devices: expected auto"),
        (["--trainer.devices", "-3"], "trainer.devices: expected auto"),
        (["--trainer.devices", "many"], "trainer.devices: expected auto"),
        (["--trainer.num_nodes", "0"], "num_nodes: expected at least 1"),
    ],
)
def test_fields_out_of_range(arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]) -> None:
    import re

    assert main(["run", "nbody", "--preset", "gnn-ps", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(named, error), error


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_knows_the_range_of_a_seed(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", name, "--preset", next(iter(EXPERIMENTS[name].presets)), "--seed", HUGE]) == 2
    assert "seed: expected a whole number below" in capsys.readouterr().err


def test_the_largest_seed_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A control of the bound."""
    import toy
    from probsym_experiments import registry

    monkeypatch.setattr(registry, "PRESETS", registry.PRESETS)
    monkeypatch.setattr(registry, "EXPERIMENTS", dict(registry.EXPERIMENTS))
    toy.install(tmp_path / "presets")
    where = ["--data", str(tmp_path / "data"), "--out", str(tmp_path / "out")]
    assert main(["run", "toy", "--preset", "plain", "--seed", str(2**63 - 1), *where]) == 0


NAMES = {
    "a class": ["--trainer", "canary.Trainer"],
    "a function": ["--trainer", "canary.call"],
    "with an equals sign": ["--trainer=canary.Trainer"],
    "appended": ["--trainer+=canary.Trainer"],
    "a class path": ["--trainer", '{"class_path": "canary.Trainer"}'],
    "a field of the group": ["--trainer.class_path", "canary.Trainer"],
    "help on a class": ["--trainer.help", "canary.Trainer"],
    "a strategy": ["--trainer.strategy", "canary.call"],
    "a strategy's class path": ["--trainer.strategy", '{"class_path": "canary.call"}'],
    "an accelerator": ["--trainer.accelerator", "canary.call"],
    "a precision": ["--trainer.precision", "canary.call"],
    "devices": ["--trainer.devices", "canary.call"],
    "yaml": ["--lr", "!!python/object/apply:canary.call []"],
    "yaml name": ["--base", "!!python/name:canary.call"],
    "a preset": ["--preset", "canary.call"],
    "a config": ["--config", "canary.call"],
}


@pytest.mark.parametrize("what", NAMES)
def test_what_a_user_names_is_never_imported(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "canary.py").write_text(
        "from probsym_experiments.recipe import TrainerOptions\n"
        "class Trainer(TrainerOptions): pass\n"
        "def call(*arguments): raise SystemError('called')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert main(["run", "nbody", "--preset", "gnn-ps", "--out", str(tmp_path / "out"), *NAMES[what]]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert "canary" not in sys.modules
    assert not (tmp_path / "out").exists()


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    assert "probsym run nbody --preset gnn-ps" in capsys.readouterr().out
    assert main([]) == 0
    assert main(["run", "nbody", "--help"]) == 0
    assert "--eval_samples" in capsys.readouterr().out


def test_starts_light() -> None:
    heavy = ["lightning", "jsonargparse", "matplotlib", "rich", "yaml"]
    code = f"import sys, probsym_experiments.cli; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
