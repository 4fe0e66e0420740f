"""`probsym run pattern` and `peptides-func` on small graphs: it learns, every base and method runs, it resumes."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import probsym as ps
from molecules import keep, molecules
from probsym.integrations.transformers import encoder
from probsym_experiments import training
from probsym_experiments.cli import main
from probsym_experiments.config import load_config
from probsym_experiments.methods import PAPER as METHODS
from probsym_experiments.models import WalkTransformer
from probsym_experiments.registry import experiment
from probsym_experiments.tasks import pattern
from probsym_experiments.tasks.block_model import BlockModel, assemble, draw, load
from probsym_experiments.tasks.build import arguments, build
from probsym_experiments.tasks.collate import Channels, Padded

TINY = [
    "--width=16", "--heads=2", "--layers=1", "--trainer.progress=false", "--trainer.accelerator=cpu", "--bootstrap=10",
    "--eval_samples=[1,2]", "--samples=2", "--repeats=2", "--rows=16", "--batch_size=4", "--train_size=8",
    "--valid_size=3", "--test_size=3", "--steps=4", "--validate_every=2", "--ema=0",
]  # fmt: skip


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tasks")
    keep(folder / "peptides_func.npz", molecules(90))
    return folder


@pytest.fixture
def run(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, fitting):
    """Runs `probsym run EXPERIMENT --preset PRESET ...` tiny; gives exit code, stderr and the result."""
    few = BlockModel(patterns=4, train=3, valid=1, test=1, communities=2, largest=8)
    monkeypatch.setattr(pattern, "TASK", replace(pattern.TASK, load=lambda data: load(few, data)))

    def start(name: str, preset: str, *arguments: str, out: Path | None = None):
        out = out or tmp_path / "out"
        few = fitting(name, preset, TINY, [a for a in arguments if "=" in a])
        code = main(["run", name, "--preset", preset, "--data", str(folder), "--out", str(out), *few, *arguments])
        result = out / "result.json"
        return code, capsys.readouterr().err, json.loads(result.read_text()) if result.is_file() else None

    return start


@pytest.mark.parametrize("method", ["ps", "ga", "fa", "canonical"])
@pytest.mark.parametrize(
    ("name", "preset", "base"),
    [("pattern", "walk-transformer-ga", "walk-transformer"), ("peptides-func", "gnn-id-ga", "gnn-id")],
)
def test_every_method_runs_and_is_equivariant(run, name: str, preset: str, base: str, method: str) -> None:
    sizes = ["--train_size=30", "--valid_size=30", "--test_size=30"] if name == "peptides-func" else []
    code, error, result = run(name, preset, f"--base={base}", f"--symmetrizer={method}", *sizes)
    assert code == 0, error
    assert 0 <= result["value"] <= 1
    assert result["equivariance"]["p_value"] >= 1e-6
    assert result["stderr_test"] > 0 or name == "pattern"  # where all three graphs may be of one class
    assert [row["step"] for row in result["learning_curve"]] == [2, 4]
    assert (result["params_by_part"]["distribution"] > 0) == (method in ("ps", "canonical"))


@pytest.mark.parametrize("tokens", ["patches", "nodes"])
@pytest.mark.parametrize(("name", "preset"), [("pattern", "walk-transformer-ga"), ("peptides-func", "gnn-id-ga")])
def test_a_vision_transformer_runs(run, name: str, preset: str, tokens: str) -> None:
    pytest.importorskip("transformers")
    sizes = ["--train_size=30", "--valid_size=30", "--test_size=30"] if name == "peptides-func" else []
    patch = ["--patch=47"] if tokens == "patches" else []
    code, error, result = run(name, preset, "--base=scratch", f"--tokens={tokens}", *patch, *sizes)
    assert code == 0, error
    assert result["equivariance"]["p_value"] >= 1e-6


@pytest.fixture(scope="session")
def vit(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder in the layout of the hub: a ViT of two layers."""
    transformers = pytest.importorskip("transformers")
    shape = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    folder = str(tmp_path_factory.mktemp("vit"))
    transformers.ViTModel(transformers.ViTConfig(**shape, image_size=32)).save_pretrained(folder)
    return folder


@pytest.fixture
def pretrained(run, vit: str, tmp_path: Path):
    """Trains a pretrained base with an option: its result, and its weights before and after."""

    def start(*option: str):
        out = tmp_path / "-".join(["out", *option])
        code, error, result = run("pattern", "dinov2-s-ga", f"--source={vit}", "--patch=47", *option, out=out)
        assert code == 0, error
        return result, load_file(Path(vit) / "model.safetensors"), load_file(out / "model" / "model.safetensors")

    return start


@pytest.mark.parametrize(
    ("option", "kept", "updates"),
    [
        ([], False, False),
        (["--backbone_lr=0"], True, False),
        (["--frozen=true"], True, False),
        (["--lora=2"], True, True),
        (["--pretrained=false"], False, False),
    ],
)
def test_what_learns_of_a_backbone(pretrained, option: list[str], kept: bool, updates: bool) -> None:
    """Whether a matrix of the first block is still among the weights of the trained model."""
    if updates:
        pytest.importorskip("peft")
    _, before, after = pretrained(*option)
    query = before["encoder.layer.0.attention.attention.query.weight"]
    assert any(torch.equal(query, weight) for weight in after.values()) == kept
    assert any("lora" in name for name in after) == updates


def test_checkpointing_changes_nothing_but_memory(pretrained, monkeypatch: pytest.MonkeyPatch) -> None:
    again = []
    whole = encoder.checkpoint
    monkeypatch.setattr(encoder, "checkpoint", lambda *given, **more: again.append(1) or whole(*given, **more))
    (plain, *_), without = pretrained(), len(again)
    found, *_ = pretrained("--checkpointing=true")
    assert (without, len(again) > 0) == (0, True)
    for field in ("value", "learning_curve"):
        assert found[field] == plain[field]


def test_patches_that_are_left_out_change_training(pretrained) -> None:
    left_out, *_, other = pretrained("--patch_dropout=0.5")
    plain, *_, same = pretrained("--patch_dropout=0")
    *_, default = pretrained()
    assert all(torch.equal(same[name], default[name]) for name in default)
    assert not all(torch.equal(other[name], default[name]) for name in default)
    assert left_out["equivariance"]["p_value"] >= 1e-6 <= plain["equivariance"]["p_value"]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--layers=20"], "base: dinov2-s: layers: expected .* 1 to 2, .*; got 20"),
        (["--source=/no/such/folder"], "base: dinov2-s: source: expected a folder .*got '/no/such/folder'"),
    ],
)
def test_what_a_backbone_refuses_is_one_line(run, vit: str, tmp_path: Path, arguments: list[str], named: str) -> None:
    code, error, _ = run("pattern", "dinov2-s-ga", f"--source={vit}", *arguments)
    assert code == 2
    assert re.match(f"probsym: error: {named}$", error.splitlines()[-1])  # before it, transformers shows its progress
    assert not list((tmp_path / "out").iterdir())  # the same command may start again


def test_the_model_and_its_history_are_kept(run, tmp_path: Path) -> None:
    _, _, result = run("pattern", "walk-transformer-ga")
    rows = list(csv.DictReader((tmp_path / "out" / "metrics.csv").open()))
    assert result["best_valid"] == max(float(row["valid"]) for row in rows)
    assert (tmp_path / "out" / "learning_curve.png").is_file()
    net = WalkTransformer(188, 3, 1, 2, 16, 1, 2)
    assert isinstance(ps.load(tmp_path / "out" / "model", model=net), ps.Symmetrizer)


def test_it_learns(run, folder: Path, tmp_path: Path) -> None:
    """Label i is whether an atom of kind i occurs, in about a third of the molecules: the precision of a guess."""
    arrays = molecules(900)
    owner = np.repeat(np.arange(900), arrays["num_nodes"])
    for label in range(10):
        arrays["y"][:, label] = np.bincount(owner, arrays["x"][:, 0] == label, 900) > 0
    keep(tmp_path / "data" / "peptides_func.npz", arrays)
    sizes = ["--train_size=300", "--valid_size=100", "--test_size=100", "--batch_size=50", "--width=32"]
    steps = ["--steps=150", "--validate_every=50", "--lr=1e-2", "--warmup=0", "--dropout=0", "--walks=0"]
    code, error, result = run("peptides-func", "gnn-id-ga", *sizes, *steps, "--data", str(tmp_path / "data"))
    assert code == 0, error
    assert result["value"] > 0.7
    curve = [row["train_loss"] for row in result["learning_curve"]]
    assert curve[-1] < 0.7 * curve[0]


def test_an_interrupted_run_ends_the_same(run, tmp_path: Path) -> None:
    """Everything random is a function of the step: batches by size, samples, dropout."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    options = ["--trainer.checkpoint_minutes=0", "--symmetrizer=ps", "--steps=6"]
    _, _, straight = run("pattern", "walk-transformer-ga", *options, out=whole)
    keep_on = training.Keeper.on_train_epoch_end

    def stop(keeper, trainer, module) -> None:
        keep_on(keeper, trainer, module)
        if trainer.global_step == 4:
            raise OSError("the disk is full")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training.Keeper, "on_train_epoch_end", stop)
        assert run("pattern", "walk-transformer-ga", *options, out=parts)[::2] == (2, None)
    _, error, resumed = run("pattern", "walk-transformer-ga", *options, "--resume", out=parts)
    assert resumed is not None, error
    for field in ("value", "stderr", "by_samples", "best_valid", "equivariance", "learning_curve"):
        assert resumed[field] == straight[field], field


class Degrees(torch.nn.Module):
    """Links of each node, which no order of the nodes changes as long as it keeps every node."""

    def forward(self, x: torch.Tensor, edge: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return edge.sum(2) * mask.unsqueeze(-1)


@pytest.mark.parametrize("method", METHODS)
def test_averages_keep_every_node_of_graphs_of_different_sizes(method: str) -> None:
    """Twelve graphs of different sizes, several samples: an average over orders of what has none is that itself."""
    graphs = assemble(draw(BlockModel(patterns=4, train=1, valid=1, test=1)))
    batch = arguments(Padded(Channels((3,)))(graphs))
    assert len(set(graphs.sizes.tolist())) > 6
    config = load_config(experiment("pattern"), "walk-transformer-ga", [f"--symmetrizer={method}"])
    phi = build(config, pattern.TASK, Channels((3,)), Padded(Channels((3,)))(graphs))
    phi.model = Degrees()
    found = phi.sample(**batch, samples=3)
    assert torch.equal(found, batch["edge"].sum(2).expand_as(found))


def test_figures_show_learning_curves(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run("pattern", "walk-transformer-ga", out=tmp_path / "runs" / "a")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results").mkdir()  # not those of the checkout
    assert main(["figures", "--out", "drawn"]) == 0
    drawn = tmp_path / "drawn" / "pattern"
    assert (drawn / "learning_curve.png").read_bytes().startswith(b"\x89PNG")
    rows = list(csv.DictReader((drawn / "learning_curve.csv").open()))
    assert [(row["row"].split()[0], row["step"]) for row in rows] == [
        ("walk-transformer-ga", "2"),
        ("walk-transformer-ga", "4"),
    ]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--base=gnn-id"], "base: expected one of .* for pattern; got 'gnn-id'"),
        (["--train_size=99"], "train_size: expected at most 12; got 99"),
        (["--patch=0"], "patch: expected at least 1"),
        (["--base=scratch", "--patch=189"], "patch: expected at most 188 for pattern; got 189"),
        (["--tokens=words"], "tokens: expected one of patches, nodes; got 'words'"),
        (["--width=15"], "width: expected a multiple of heads = 2; got 15"),
        (["--schedule=step"], "schedule: expected one of cosine, linear, linear-published; got 'step'"),
        (["--dropout=1"], "dropout: expected less than 1"),
        (["--patch_dropout=1"], "patch_dropout: expected less than 1"),
        (
            ["--base=scratch", "--tokens=nodes", "--patch_dropout=0.5"],
            "patch_dropout: expected only with tokens patches",
        ),
    ],
)
def test_bad_arguments_are_named(run, arguments: list[str], named: str) -> None:
    code, error, _ = run("pattern", "walk-transformer-ga", *arguments)
    assert code == 2
    assert error.count("\n") == 1
    assert re.search(named, error), error
