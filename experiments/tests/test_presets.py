"""Presets one by one, and what is said about bad fields."""

from __future__ import annotations

from pathlib import Path

import pytest

from probsym_experiments.config import fields_help, load_config, parse
from probsym_experiments.errors import UserError
from probsym_experiments.registry import EXPERIMENTS, experiment, summary
from probsym_experiments.runner import changed

PRESETS = [(name, preset) for name, found in EXPERIMENTS.items() for preset in found.presets]
NBODY = experiment("nbody")


@pytest.mark.parametrize(("name", "preset"), PRESETS)
def test_preset_parses_and_says_what_it_is(name: str, preset: str) -> None:
    found = experiment(name)
    assert isinstance(load_config(found, preset), found.config)
    assert 10 < len(summary(found.presets[preset])) < 100


@pytest.mark.parametrize("preset", NBODY.presets)
def test_nbody_names_say_base_and_symmetrizer(preset: str) -> None:
    config = load_config(NBODY, preset)
    assert preset.startswith(f"{config.base}-{config.symmetrizer}")


def test_every_nbody_recipe_has_its_forms() -> None:
    """Ours, and the published one of methods that have been published; one that predicts velocities."""
    plain = {f"{b}-{s}" for b in ("gnn", "transformer") for s in ("ps", "ga", "canonical", "none")}
    plain |= {f"node-transformer-{s}" for s in ("ps", "ga", "canonical", "none")} | {"gnn-fa", "egnn-none"}
    papers = {name for name in plain if not name.startswith("node-")} - {"transformer-none"}
    forms = plain | {f"{name}-published" for name in papers}
    forms |= {f"dynamics-{s}" for s in ("ps", "ga", "fa", "canonical", "none")}
    forms |= {f"dynamics-transformer-{s}" for s in ("ps", "ga", "canonical", "none")} | {"egnn-inverse-none"}
    assert set(NBODY.presets) == forms | {"dynamics-ps-rollout", "dynamics-ps-long"}


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
