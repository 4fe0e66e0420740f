"""Fields of the n-body recipe in whole runs."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from probsym_experiments.models import ParticleGNN

RECIPE = ("--steps=40", "--validate_every=20")


def history(out: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((out / "metrics.csv").open()))


@pytest.mark.parametrize(
    ("preset", "flags"),
    [("egnn-none", ["--layers=2"]), ("transformer-ps", ["--base=node-transformer", "--sinkhorn=2"])],
)
def test_new_bases_learn_and_are_equivariant(run, tmp_path: Path, preset: str, flags: list[str]) -> None:
    code, error, result = run("--steps=90", "--validate_every=30", "--lr=3e-3", *flags, preset=preset)
    assert code == 0, error
    losses = [float(row["train_loss"]) for row in history(tmp_path / "out")]
    assert losses[-1] < 0.5 * losses[0]
    assert result["equivariance"]["p_value"] >= 1e-6
    assert result["flops_by_part"]["base"] > 1e5
    assert (result["flops_by_part"]["distribution"] == 0) == (preset == "egnn-none")


def test_a_bare_network_is_reported_as_not_equivariant(run) -> None:
    _, _, result = run(*RECIPE, "--symmetrizer=none", preset="gnn-ps")
    assert result["equivariance"]["p_value"] < 1e-6
    assert result["equivariance"]["error"] > 1e-3
    base = sum(p.numel() for p in ParticleGNN(layers=1).parameters())
    assert result["params_by_part"] == {"base": base, "distribution": 0}
    assert "samples_for_tolerance" not in result


def test_late_samples_change_the_last_part_only(run, tmp_path: Path) -> None:
    runs = {}
    for name, extra in {"plain": (), "late": ("--late_samples=3", "--late_from=0.5")}.items():
        assert run(*RECIPE, *extra, out=tmp_path / name)[0] == 0
        runs[name] = history(tmp_path / name)
    assert runs["plain"][0] == runs["late"][0]
    assert runs["plain"][1] != runs["late"][1]


def test_a_run_resumes_though_fields_were_added_since(run, tmp_path: Path) -> None:
    """An old run.json lacks them: their defaults are what it ran with."""
    _, _, first = run(*RECIPE)
    identity = tmp_path / "out" / "run.json"
    old = json.loads(identity.read_text())
    del old["config"]["group"]
    identity.write_text(json.dumps(old))
    (tmp_path / "out" / "result.json").unlink()
    code, error, _ = run(*RECIPE, "--group=O", "--resume")
    assert (code, "group: None, not 'O'" in error) == (2, True)
    code, error, again = run(*RECIPE, "--resume")
    assert code == 0, error
    assert again["by_samples"] == first["by_samples"]


def test_group_about_the_origin_gets_centred_data(run) -> None:
    code, error, result = run(*RECIPE, "--group=SxSO", preset="gnn-ga")
    assert code == 0, error
    assert result["equivariance"]["p_value"] >= 1e-6
    assert result["overrides"]["group"] == "SxSO"
