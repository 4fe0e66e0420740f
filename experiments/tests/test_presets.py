"""Presets one by one, and what is said about bad fields."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from probsym_experiments.cli import main
from probsym_experiments.config import fields_help, load_config, parse
from probsym_experiments.errors import UserError
from probsym_experiments.registry import EXPERIMENTS, experiment, method_name, summary
from probsym_experiments.results import read_result
from probsym_experiments.runner import changed
from probsym_experiments.tables import collect

RESULTS = Path(__file__).parents[2] / "results"
PRESETS = [(name, preset) for name, found in EXPERIMENTS.items() for preset in found.presets]
NBODY = experiment("nbody")


@pytest.mark.parametrize(("name", "preset"), PRESETS)
def test_preset_parses_and_says_what_it_is(name: str, preset: str) -> None:
    found = experiment(name)
    config = load_config(found, preset)
    assert isinstance(config, found.config)
    assert all(isinstance(has, bool) for has, _ in config.uses().values())  # which a run asks before it begins
    assert 10 < len(summary(found.presets[preset])) < 100


@pytest.mark.parametrize("preset", NBODY.presets)
def test_nbody_names_say_base_and_symmetrizer(preset: str) -> None:
    config = load_config(NBODY, preset)
    assert preset.startswith(f"{config.base}-{config.symmetrizer}")


def test_every_published_nbody_method_has_its_recipe() -> None:
    papers = {f"gnn-{method}" for method in ("ps", "ga", "fa", "canonical", "none")}
    papers |= {f"transformer-{method}" for method in ("ps", "ga", "canonical")} | {"egnn-none"}
    assert {f"{name}-published" for name in papers} <= set(NBODY.presets)


# Experiments that wait for their first result: presets to begin with.
FIRST = {
    ("peptides-struct", "gnn-id-ga"),
    ("peptides-struct", "dinov2-s-ps"),
    ("pcqm-contact", "scratch-ps"),
    ("pcqm-contact", "dinov2-s-ps"),
}


def test_a_preset_has_a_result_or_is_a_recipe_of_the_paper() -> None:
    """Whatever else there is, is a preset with flags."""
    for name, preset in PRESETS:
        run = (RESULTS / name / preset).is_dir()
        assert run or preset.endswith("-published") or (name, preset) in FIRST, f"{name}: {preset}"


@pytest.mark.parametrize("path", sorted(RESULTS.rglob("*.json")), ids=lambda path: str(path.relative_to(RESULTS)))
def test_a_published_result_can_be_run_again(path: Path) -> None:
    """Its preset with its overrides is its config, less fields that change nothing of it and how Lightning runs."""
    if path.is_relative_to(RESULTS / "benchmarks"):
        return
    result = read_result(path)
    found = experiment(result["experiment"])
    given = []
    for name, value in result["overrides"].items():
        if not isinstance(value, str):
            value = json.dumps(value)
        given.append(f"--{name}={value}")
    file = str(found.presets[result["preset"]])
    now = parse(found, ["--preset", file, *given, f"--seed={result['seed']}"])
    recorded = asdict(found.config()) | result["config"]  # fields younger than the run had their defaults
    idle = {name for has, names in now.uses().values() if not has for name in names}
    for name, value in json.loads(json.dumps(asdict(now))).items():
        if name not in idle and name != "trainer":
            assert value == recorded[name], name


def test_flags_make_another_method_with_a_folder_of_its_own(
    data: Path, small: list[str], fitting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is published beside it is that of the method, not of the preset."""
    assert method_name("gnn-ps-published", {"base": "gnn", "symmetrizer": "ga"}, ["symmetrizer"]) == "gnn-ga"
    scratch = {"base": "minilm", "symmetrizer": "ps", "tokens": "nodes", "pretrained": False}
    assert method_name("dinov2-s-ps", scratch, ["pretrained", "base"]) == "minilm-ps-nodes-scratch"
    monkeypatch.chdir(tmp_path)
    flags = ["--symmetrizer=none"]
    given = [*fitting("nbody", "gnn-ps", small, flags), *flags, "--steps=20", "--validate_every=20"]
    assert main(["run", "nbody", "--preset", "gnn-ps", "--data", str(data), *given]) == 0
    assert (tmp_path / "runs/nbody/gnn-none/seed1/result.json").is_file()
    ((row,),) = collect(tmp_path / "results", tmp_path / "runs").values()
    assert row.name.startswith("gnn-ps ")
    assert row.family == "gnn-none"


def test_overrides_win_and_are_told() -> None:
    config = load_config(NBODY, "gnn-ps", ["--lr", "1e-4", "--eval_samples", "[5]", "--samples=5", "--seed=3"])
    assert (config.lr, config.eval_samples, config.samples, config.seed) == (1e-4, [5], 5, 3)
    plain = load_config(NBODY, "gnn-ps")
    assert changed(vars(config), vars(plain)) == {"lr": 1e-4, "eval_samples": [5], "samples": 5}


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--stepz", "3"], "--stepz"),
        (["--step", "3"], "--step"),
        (["--trainer.device", "3"], "--trainer.device"),
        (["--steps", "many"], "steps: .*int.* many"),
        (["--steps", "1.5"], "steps"),
        (["--steps"], "--steps"),
        (["--steps", "0"], "steps: expected at least 1; got 0"),
        (["--lr", "nan"], "lr"),
        (["--ema", "1"], "ema"),
        (["--trainer.threads", "0"], "threads: expected at least 1; got 0"),
        (["--eval_samples", "3"], "eval_samples"),
        (["--samples", "7"], "eval_samples"),
        (["--base", "mlp"], "base: expected one of gnn, dynamics, egnn, .*; got 'mlp'"),
        (["--symmetrizer", "pca"], "symmetrizer: expected one of ps, ga, fa, canonical"),
        (["--group", "SU"], "group: expected one of E, SE, O, SO, SxE, SxSE, SxO, SxSO; got 'SU'"),
        (["--noise", "both"], "noise: expected one of late, input; got 'both'"),
        (["--noise_scale", "0"], "noise_scale: expected a positive number; got 0"),
        (["--haar_share", "1.5"], "haar_share: expected 0 to 1; got 1.5"),
        (["--late_samples", "0"], "late_samples: expected at least 1"),
        (["--late_from", "0.5"], "late_from: expected only with late_samples"),
        (["--temperature", "0.2"], "temperature: expected only with learned orders .*a group with S"),
        (["--entropy_weight", "0.1"], "entropy_weight: expected only with learned orders"),
        (["--symmetrizer", "ga", "--noise_scale", "2"], "noise_scale: expected only with noise"),
        (
            ["--symmetrizer", "none", "--haar_share", "0.1"],
            "haar_share: expected only with symmetrizer ps or",
        ),
        (["--system", "springs"], "system: expected one of charged, gravity; got 'springs'"),
        (["--horizon", "1200"], "horizon: expected one of 1000, 1500, 2000; got 1200"),
        (["--horizon", "1500", "--velocity_weight", "1"], "velocity_weight: expected only with system charged and hor"),
        (["--tolerances", "[0.1,0]"], "tolerances: expected positive numbers"),
        (["--train_size", "20000"], "train"),
        (["stray"], "stray"),
    ],
)
def test_bad_arguments_are_named(arguments: list[str], named: str) -> None:
    with pytest.raises(UserError, match=named) as caught:
        load_config(NBODY, "gnn-ps", arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "named"),
    [("stepz: 7", "stepz"), ("steps: many", "steps"), ("trainer: {devicez: 2}", "devicez"), ("steps: [", "parsing")],
)
def test_bad_preset_files_are_named(text: str, named: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=named):
        parse(NBODY, ["--preset", str(path)])


def test_help_tells_every_field() -> None:
    text = fields_help(NBODY)
    for field in ("--steps", "--eval_samples", "--trainer.devices", "Peak learning rate"):
        assert field in text
