"""Presets of the tasks: all there, named after what they are, and the paper's recipes run from end to end."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from molecules import contacts, keep, molecules, structures
from probsym_experiments.checks import idle
from probsym_experiments.cli import main
from probsym_experiments.config import load_config
from probsym_experiments.errors import UserError
from probsym_experiments.methods import PAPER as METHODS
from probsym_experiments.models.published_vit import Margin
from probsym_experiments.published import published
from probsym_experiments.registry import experiment, summary
from probsym_experiments.tasks import pattern
from probsym_experiments.tasks.bases import BASES, Backbone
from probsym_experiments.tasks.block_model import BlockModel, load

TASKS = ("pattern", "peptides-func", "peptides-struct", "pcqm-contact")
PRESETS = [(task, preset) for task in TASKS for preset in experiment(task).presets]
PUBLISHED = [(task, preset) for task, preset in PRESETS if preset.endswith("-published")]


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("method", METHODS)
def test_every_base_has_every_method_by_flags(task: str, base: str, method: str) -> None:
    found = experiment(task)
    preset = next(name for name in found.presets if not name.endswith("-published"))
    config = load_config(found, preset, ["--base", base, "--symmetrizer", method])
    assert (config.base, config.symmetrizer) == (base, method)


@pytest.mark.parametrize(("task", "preset"), PRESETS)
def test_names_say_base_method_and_variant(task: str, preset: str) -> None:
    config = load_config(experiment(task), preset)
    base = f"{config.base}-{config.symmetrizer}"
    variants = [name for name in preset.removeprefix(base).split("-") if name]
    assert preset.startswith(base)
    assert set(variants) <= {"scratch", "nodes", "published"}
    assert ("scratch" in variants) == (not config.pretrained)
    assert ("nodes" in variants) == (config.tokens == "nodes")
    assert config.base in BASES


EXPERIMENT_SIZES = {"pattern": 188, "peptides-func": 444, "peptides-struct": 444, "pcqm-contact": 53}
RECIPES = {  # steps, lr, weight decay, patch, samples of a learned p in training
    "pattern": (25_000, 1e-5, 0.01, 14, 1),
    "peptides-func": (50_000, 1e-5, 0.1, 32, 1),
    "peptides-struct": (50_000, 1e-5, 0.1, 32, 1),
    "pcqm-contact": (50_000, 5e-5, 0.01, 4, 10),
}


@pytest.mark.parametrize(("task", "preset"), PUBLISHED)
def test_the_papers_recipes(task: str, preset: str) -> None:
    config = load_config(experiment(task), preset)
    steps, lr, decay, patch, learned = RECIPES[task]
    assert (config.steps, config.lr, config.weight_decay, config.batch_size) == (steps, lr, decay, 128)
    assert (config.warmup, config.schedule, config.trainer.precision) == (5_000, "linear-published", "bf16-mixed")
    assert (config.base, config.published, config.layers) == ("vit-b16-in21k", True, None)
    assert config.source == "timm:vit_base_patch16_224.augreg_in21k"
    assert Margin.of(EXPERIMENT_SIZES[task], 14, "zeros", False).patch == patch
    assert (config.rate(0), config.rate(2_500)) == (0.0, lr / 2)
    method, samples = METHODS[config.symmetrizer], {"ps": learned, "ga": 10, "fa": None, "canonical": None}
    assert config.train_samples == samples[config.symmetrizer]
    if method.random:
        tested = 100 if task.startswith("peptides") else 10
        assert (config.valid_samples, config.samples) == (10, tested)
    assert config.select == ("metric" if task.startswith("peptides") else "loss")
    dropped = {"peptides-func": (0.5, False, "reflect"), "peptides-struct": (0.5, True, "circular")}
    margin = (config.patch_dropout, config.patch_dropout_varies, config.padding)
    assert margin == dropped.get(task, (0.0, False, "zeros"))
    if method.net:
        assert (config.entropy_weight, config.temperature, config.sinkhorn) == (0.1, 0.01, 20)
    if method.noisy:
        assert (config.scale, config.order_dropout) == (1.0, 0.0 if task == "pcqm-contact" else 0.1)


@pytest.mark.parametrize(("task", "preset"), PUBLISHED)
def test_the_papers_recipes_hold_nothing_idle(task: str, preset: str) -> None:
    found = experiment(task)
    fields = yaml.safe_load(found.presets[preset].read_text())
    idle(load_config(found, preset), fields)
    with pytest.raises(UserError, match="dropout: expected only with base gnn-id"):
        idle(load_config(found, preset), [*fields, "dropout"])


@pytest.mark.parametrize(("task", "preset"), sorted(set(PRESETS) - set(PUBLISHED)))
def test_presets_for_a_cpu_tell_their_minutes(task: str, preset: str) -> None:
    told = re.search(r": about (\d+) min$", summary(experiment(task).presets[preset]))
    assert told
    assert int(told[1]) <= 150


@pytest.mark.parametrize("task", TASKS)
def test_published_numbers_have_presets(task: str) -> None:
    rows = published(task)
    families = {name.removesuffix("-published") for name in experiment(task).presets}
    assert rows
    assert {row.preset for row in rows if row.preset} <= families


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published")
    keep(folder / "peptides_func.npz", molecules())
    keep(folder / "peptides_struct.npz", structures())
    keep(folder / "pcqm_contact.npz", contacts())
    return folder


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder in the layout of the hub, of ViT-B/16's architecture and hardly any weights."""
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16, image_size=32
    )
    folder = str(tmp_path_factory.mktemp("vit"))
    transformers.ViTModel(config).save_pretrained(folder)
    return folder


# Random weights come in the same way with every method.
DRY_RUNS = [case for case in PUBLISHED if "-scratch-" not in case[1] or "-ps-" in case[1]]


@pytest.mark.parametrize(("task", "preset"), DRY_RUNS)
def test_dry_run(
    task: str, preset: str, folder: Path, tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fitting
) -> None:
    """A step of everything that a full run does, in bf16 on a CPU, with a small network of the same kind."""
    few = BlockModel(patterns=2, train=2, valid=1, test=1, communities=2, largest=8)
    monkeypatch.setattr(pattern, "TASK", replace(pattern.TASK, load=lambda data: load(few, data)))
    monkeypatch.setattr(Backbone, "source", property(lambda backbone: tiny))
    sizes = 10 if task == "peptides-func" else 2  # there every label must occur
    options = ["--steps=1", "--validate_every=1", "--batch_size=2", "--warmup=1", "--repeats=1", "--bootstrap=2"]
    options += [f"--{part}_size={sizes}" for part in ("train", "valid", "test")]
    options += ["--trainer.accelerator=cpu", "--trainer.progress=false", "--data", str(folder)]
    options += [f"--source={tiny}", "--samples=2", "--eval_samples=[2]", "--valid_samples=2"]
    options = fitting(task, preset, options)
    assert main(["run", task, "--preset", preset, *options, "--out", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "learning_curve.png").is_file()


def test_missing_weights_are_told(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    """Neither a folder nor a network: one line that says where weights are looked for."""
    pytest.importorskip("transformers")
    monkeypatch.setattr(Backbone, "source", property(lambda backbone: str(tmp_path / "nothing")))
    given = [
        "run",
        "peptides-func",
        "--preset",
        "dinov2-s-ps",
        "--valid_size=10",
        "--test_size=10",
        "--data",
        str(folder),
    ]
    assert main([*given, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "set PROBSYM_MODELS to a folder that holds dinov2-small" in error
