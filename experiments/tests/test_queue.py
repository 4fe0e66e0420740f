"""The queue for GPUs: its list is good, and what it does is done once, in order, and goes on after an interruption."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from probsym_experiments.cli import main
from probsym_experiments.errors import UserError
from probsym_experiments.queue import next_batch, read, work
from probsym_experiments.results import read_result

ENTRY = """
- settles: first
  experiment: nbody
  presets: [gnn-none-published]
  flags: [{flags}]
  seeds: [1, 2]
  together: 2
"""
SMALL = [
    "--train_size=64", "--valid_size=16", "--test_size=16", "--validate_every=20", "--batch_size=32", "--layers=1",
    "--trainer.accelerator=cpu", "--trainer.threads=1", "--trainer.checkpoint_minutes=0",
]  # fmt: skip


def listed(path: Path, *flags: str) -> Path:
    quoted = ", ".join(f"'{flag}'" for flag in [*SMALL, *flags])
    path.write_text(ENTRY.format(flags=quoted))
    return path


def test_the_list_of_the_package_is_good(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Every preset and flag is known; the exact recipe of EXP-classify is first, several runs on one card."""
    assert main(["queue", "--dry-run", "--runs", str(tmp_path), "--results", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert text.count("<- next") == 3
    first = next_batch(read(), tmp_path, tmp_path)
    assert [job.preset for job in first] == ["mlp-ps-published", "mlp-ga-published", "mlp-canonical-published"]
    assert {job.seed for job in first} == {1}
    assert "transformer-ps-published" in text
    assert not list(tmp_path.iterdir())


@pytest.mark.slow  # processes that import and train
def test_runs_are_made_once_and_their_results_kept(data: Path, tmp_path: Path) -> None:
    """Both seeds at once; a second call finds nothing to do; what was there is not overwritten."""
    jobs = read(listed(tmp_path / "list.yaml", "--steps=20"))
    runs, results = tmp_path / "runs", tmp_path / "results"
    said: list[str] = []
    made = work(jobs, 10.0, runs, results, data, said.append)
    assert [path.name for path in made] == ["seed1.json", "seed2.json"]
    for path, job in zip(made, jobs, strict=True):
        result = read_result(path)
        assert (result["seed"], result["steps"], result["preset"]) == (job.seed, 20, "gnn-none-published")
        assert result["device"] == "cpu"
        assert "commit" in result
    made[0].write_text(json.dumps(read_result(made[0]) | {"value": 7.0}))
    assert work(jobs, 10.0, runs, results, data, said.append) == []
    assert read_result(made[0])["value"] == 7.0


@pytest.mark.slow
def test_the_end_of_the_time_leaves_a_checkpoint(data: Path, tmp_path: Path) -> None:
    """A run that is met by it has begun, and has no result."""
    jobs = read(listed(tmp_path / "list.yaml", "--steps=1000000"))[:1]
    runs, results = tmp_path / "runs", tmp_path / "results"
    minutes = 0.5
    while not (jobs[0].folder(runs) / "last.ckpt").exists() and minutes < 8:
        assert work(jobs, minutes, runs, results, data, lambda text: None) == []
        minutes *= 2  # a slow machine has not begun to train yet
    assert jobs[0].state(runs, results) == "begun"
    assert next_batch(jobs, runs, results) == jobs


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("settles: 3", "expected a list"),
        ("- {settles: a, experiment: nbody, presets: [gnn-ps]}", "entry 1: KeyError: 'seeds'"),
        ("- {settles: a, experiment: nbody, presets: [gnn-pss], seeds: [1]}", "entry 1: preset"),
        ("- {settles: a, experiment: nbody, presets: [gnn-ps], seeds: [1], flags: [--stepz=3]}", "entry 1: .*stepz"),
    ],
)
def test_bad_lists_are_named(text: str, named: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=named):
        read(path)
