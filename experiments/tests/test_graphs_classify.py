"""EXP-classify on made pairs: every preset runs, learning works, and the two ablations are what they say."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import probsym as ps
from places import DATA
from probsym_experiments.cli import main
from probsym_experiments.config import load_config
from probsym_experiments.errors import UserError
from probsym_experiments.evaluation import parameters
from probsym_experiments.fixed_noise import FixedNoise
from probsym_experiments.graphs import exp_data, published_spread
from probsym_experiments.graphs.dense import relabelled, return_probabilities
from probsym_experiments.graphs.exp_classify import Config
from probsym_experiments.graphs.exp_classify import test as classify
from probsym_experiments.graphs.logits import correct
from probsym_experiments.graphs.models import Design, Shape, build, inputs
from probsym_experiments.graphs.soft import Soft
from probsym_experiments.registry import experiment
from wl_pairs import cfi, complete, dataset, rings

CLASSIFY = experiment("exp-classify")
QUICK = [
    "--valid_samples=1", "--eval_samples=[1,2]", "--samples=2", "--repeats=2", "--trainer.progress=false",
    "--trainer.accelerator=cpu",
]  # fmt: skip
SMALL = [
    *QUICK, "--steps=2", "--validate_every=2", "--batch_size=4", "--valid_size=4", "--test_size=4", "--hidden=[8]",
]  # fmt: skip


@pytest.fixture
def data(tmp_path: Path) -> Path:
    np.savez(tmp_path / "exp.npz", **dataset(8))
    return tmp_path


def run(data: Path, preset: str, *arguments: str) -> dict:
    out = data / "out"
    assert main(["run", "exp-classify", "--preset", preset, "--data", str(data), "--out", str(out), *arguments]) == 0
    return json.loads((out / "result.json").read_text())


# Those that say the same in other sizes: of samples, or of the network.
SIZES = {f"mlp-ps-k{samples}" for samples in (1, 2, 10, 20, 50)} | {"mlp-ps-large"}


@pytest.mark.parametrize("preset", sorted(set(CLASSIFY.presets) - SIZES))
def test_every_preset_runs(preset: str, data: Path, fitting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published_spread, "TRIALS", 3)
    given = [*SMALL, "--train_samples=2"] if load_config(CLASSIFY, preset).train_samples else SMALL
    result = run(data, preset, *fitting("exp-classify", preset, given))
    assert result["equivariance"] is None or result["equivariance"]["p_value"] >= 1e-6
    assert 8 * result["value"] in range(9)  # of two estimates of each of four graphs
    assert (result["metric"], result["steps"]) == ("test accuracy", 2)
    random = result["config"]["symmetrizer"] not in ("fa", "canonical")
    assert [row["samples"] for row in result["by_samples"]][: 2 if random else 0] == ([1, 2] if random else [])
    spread = result["spread_by_samples"]
    assert [row["samples"] for row in spread] == ([1, 2] if random and "soft" not in preset else [])
    published = preset.endswith("-published")  # there entropies of rows and of columns are added
    assert all(0 <= row["entropy"] <= (1 + published) * math.log(row["samples"]) + 1e-9 for row in spread)
    assert all(("gradient_norm" in row) == published for row in spread)
    assert (data / "out" / "accuracy_by_samples.png").exists()


def test_it_learns(data: Path) -> None:
    """An easy question: is it a complete graph or a cycle?"""
    np.savez(data / "exp.npz", **dataset(40, kinds=[(complete(6), rings()[1])]))
    small = ["--valid_size=20", "--test_size=20", "--hidden=[16]", "--steps=30", "--validate_every=10", "--warmup=0"]
    result = run(data, "mlp-ps", *QUICK, *small, "--batch_size=20", "--ema=0", "--lr=1e-2")
    assert result["value"] > 0.9
    assert result["equivariance"]["p_value"] > 1e-6


def test_penalties_and_growing_samples_reach_the_training(data: Path) -> None:
    """The same seed has another loss with each of them."""
    options = {"none": [], "variance": ["--variance_weight=9"], "grow": ["--grow_samples=8"]}
    losses = {}
    for name, given in options.items():
        (data / name).mkdir()
        (data / name / "exp.npz").symlink_to(data / "exp.npz")
        run(data / name, "mlp-ps", *SMALL, "--train_samples=2", "--entropy_weight=0", *given)
        losses[name] = (data / name / "out" / "metrics.csv").read_text()
    assert len(set(losses.values())) == 3, losses


def test_fixed_noise_is_fixed_and_not_equivariant() -> None:
    """A graph has the same output at every call and in every batch, but its relabelling has another."""
    data = exp_data.tensors(dataset(2))
    batch, moved = inputs(data), inputs(relabelled(data, torch.Generator().manual_seed(0)))
    phi = build("mlp", "ps-fixed-noise", data, Design(hidden=(8,), out=1, walks=4, scale=0.5), (2, 8)).eval()
    with torch.no_grad():
        whole = phi(**batch)
        torch.testing.assert_close(phi(**batch), whole)
        alone = torch.cat([phi(**inputs(data, slice(i, i + 1))) for i in range(4)])
        torch.testing.assert_close(alone, whole)
        assert ((phi(**moved) - whole).abs() > 1e-3).any()


@pytest.mark.parametrize("noise", ["late", "input"])
def test_fixed_noise_is_tested_as_it_was_trained(noise: str) -> None:
    """k samples begin those of any larger k, and the score at k is that of the k that the model calls with."""
    data = exp_data.tensors(dataset(6))
    config = Config(symmetrizer="ps-fixed-noise", noise=noise, scale=0.5, walks=4, hidden=[8], repeats=3)
    config = replace(config, train_samples=2, valid_samples=2, samples=2, eval_samples=[1, 2, 5])
    phi = config.model(data)
    batch = inputs(data)
    with torch.no_grad():
        first, more = (phi.sample(**batch, samples=k) for k in (2, 5))
        torch.testing.assert_close(more[:2], first)
        torch.testing.assert_close(phi.train()(**batch), first.mean(0))
        found = {score.samples: score for score in classify(phi.eval(), data, config)}
        assert found[2].value == pytest.approx(correct(phi(**batch), data).double().mean().item())
    assert {score.draws for score in found.values()} == {1}


@pytest.mark.parametrize(("net", "own"), [("gin", False), ("batch-norm-gin", True)])
def test_whose_fixed_noise_is(net: str, own: bool) -> None:
    """With the paper's net of p each graph has its own, as in the published code, in whatever batch it is."""
    walks = 0 if own else 4
    config = Config(symmetrizer="ps-fixed-noise", net=net, walks=walks, noise="input", scale=0.5, hidden=[8])
    data = config.graphs(exp_data.tensors(dataset(2)))
    phi = config.model(data).eval()
    drawn = torch.utils._pytree.tree_leaves(phi.draw_noise(**inputs(data), samples=3)["features"])
    turned = inputs(data, torch.tensor([2, 0]))
    again = torch.utils._pytree.tree_leaves(phi.draw_noise(**turned, samples=3)["features"])
    for before, after in zip(drawn, again, strict=True):
        assert torch.equal(after, before[:, [2, 0]])
        assert torch.equal(before[:, 0], before[:, 1]) != own
    with torch.no_grad():
        torch.testing.assert_close(phi(**turned), phi(**inputs(data))[[2, 0]])


def test_fixed_noise_of_two_seeds_has_nothing_in_common() -> None:
    batch, nodes = inputs(exp_data.tensors(dataset(2))), ps.S("nodes", mask="mask")
    phi = build("mlp", "ps", batch, Design(out=1, walks=4), (4,))
    x = phi.bind((), batch)
    draws = [FixedNoise(phi.distribution, seed).noise(x, (10,))["features"][nodes][:, 0] for seed in (1, 2)]
    assert (draws[0][:, None] != draws[1][None]).all()
    assert FixedNoise(phi.distribution, 1).noise(x)["features"][nodes].shape == batch["mask"].shape


def test_learned_is_equivariant() -> None:
    batch = inputs(exp_data.tensors(dataset(2)))
    phi = build("gin-id", "ps", batch, Design(out=1, walks=4, scale=0.5), (1, 8)).eval()
    assert ps.testing.equivariance_error(phi, batch, samples=64, generator=torch.Generator().manual_seed(0)).passed


def soft(**design: float) -> tuple[Soft, dict[str, torch.Tensor]]:
    """In float64, with a pair of graphs."""
    data = inputs(exp_data.tensors(dataset(1, kinds=[cfi(complete(4))])))
    phi = build("mlp", "ps-soft", data, Design(hidden=(8,), out=1, walks=4, **design), (2, 2))  # type: ignore[arg-type]
    assert isinstance(phi, Soft)
    return phi.double(), {name: v.double() if v.is_floating_point() else v for name, v in data.items()}


def test_soft_is_invariant_when_graph_and_noise_move_together() -> None:
    phi, batch = soft(scale=0.5, sinkhorn=3)
    x = phi.phi.bind((), batch)
    noise = phi.learned.noise(x, (3,))
    h = ps.Haar(x.group).transport(x, ps.Haar(x.group).noise(x))
    moved = x.act(h)
    assert not torch.equal(moved.kwargs["adjacency"], batch["adjacency"])
    there = phi.sample(**moved.kwargs, noise=phi.learned.move_noise(x, h, noise), samples=3)
    torch.testing.assert_close(there, phi.sample(**batch, noise=noise, samples=3))


def test_soft_at_low_temperature_is_the_hard_model() -> None:
    phi, batch = soft(temperature=1e-7)
    noise = phi.phi.draw_noise(**batch, samples=2)
    torch.testing.assert_close(phi.sample(**batch, noise=noise, samples=2), phi.phi.sample(**batch, noise=noise))


def test_soft_has_gradients() -> None:
    phi, batch = soft(temperature=0.5)
    batch["nodes"] = torch.randn_like(batch["nodes"]) * batch["mask"][..., None]  # without features all nodes are alike
    phi(**batch).sum().backward()
    slopes = [p.grad for p in phi.distribution.parameters()]
    assert all(g is not None and g.isfinite().all() for g in slopes)
    assert max(g.abs().max().item() for g in slopes if g is not None) > 0


def test_accuracy_counts_logits_as_logits() -> None:
    """All logits within [0, 1] are still logits: 0.3 means label 1."""
    batch = {"target": torch.tensor([1.0, 0.0])}
    assert correct(torch.tensor([[[0.3], [0.2]], [[0.3], [-0.2]]]), batch).tolist() == [[1, 0], [1, 1]]


def test_published_sizes() -> None:
    config = load_config(CLASSIFY, "mlp-ps-published")
    numbers = Shape(64, 2, True).numbers
    assert (numbers, config.hidden, config.steps) == (
        4224,
        [2048, 4096, 2048, 10],
        16_008,
    )  # 2,001 passes over 8 batches
    assert (config.train_samples, config.temperature, config.entropy_weight, config.clip) == (10, 0.01, 0.1, 0.1)
    assert (config.rate(0), config.rate(800), config.rate(1600), config.rate(16_007)) == (0.0, 5e-4, 1e-3, 1e-3)


@pytest.mark.parametrize(
    ("preset", "base", "steps"),
    [
        ("mlp-ps-published", 4225 * 2048 + 2049 * 4096 + 4097 * 2048 + 2049 * 10 + 11, 16_008),
        ("gin-id-ps-published", 67 * 64 + 2 * 65 * 64 + 65 * 10 + 11 + 3, 8_008),
    ],
)
def test_published_nets_are_built_at_full_size(preset: str, base: int, steps: int) -> None:
    config = load_config(CLASSIFY, preset)
    phi = config.model(config.graphs(exp_data.tensors(dataset(2))))
    assert (parameters(phi)["base"], config.steps, config.warmup) == (base, steps, 1_600)


@pytest.mark.skipif(not (DATA / "exp.npz").exists(), reason="needs ../shared/data")
def test_walk_probabilities_alone_classify_exp() -> None:
    """Why the paper's ablations do not show with them: a linear function of their sums over nodes needs no symmetrizer.

    Without them the sums of what is left, the node types, tell nothing.
    """
    data = exp_data.load(DATA)
    walks = return_probabilities(data["adjacency"].double(), 12) * data["mask"][..., None]
    seen = {"types": data["nodes"].double(), "walks": torch.cat([data["nodes"].double(), walks], -1)}
    right = {}
    for name, features in seen.items():
        sums = torch.cat([features.sum(1), torch.ones(1200, 1)], 1).double()
        weights = torch.linalg.lstsq(sums[400:], 2 * data["target"][400:, None].double() - 1, driver="gelsd").solution
        right[name] = ((sums[200:400] @ weights)[:, 0] > 0).eq(data["target"][200:400] > 0).double().mean().item()
    assert right["walks"] > 0.98
    assert right["types"] < 0.55


def test_the_split_is_the_published_one() -> None:
    config = load_config(CLASSIFY, "mlp-ps")
    parts = config.split({"target": torch.arange(1200)})
    assert {name: (int(v["target"][0]), int(v["target"][-1])) for name, v in parts.items()} == {
        "valid": (0, 199), "test": (200, 399), "train": (400, 1199),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--symmetrizer=pca"], "symmetrizer"),
        (["--noise=early"], "noise: expected one of late, input"),
        (["--activation=gelu"], "activation: expected one of tanh, relu"),
        (["--temperature=0"], "temperature"),
        (["--samples=3"], "eval_samples"),
        (["--head=[0]"], "head"),
        (["--walks=-1"], "walks"),
        (["--net=dgcnn"], "net"),
        (["--net=batch-norm-gin", "--walks=4"], "walks"),
    ],
)
def test_bad_fields_are_named(arguments: list[str], named: str) -> None:
    with pytest.raises(UserError, match=named):
        load_config(CLASSIFY, "mlp-ps", arguments)


def test_too_few_graphs_are_told(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "exp-classify", "--preset", "mlp-ps", "--data", str(data), "--out", str(data / "out")]) == 2
    assert "valid_size, test_size: expected a sum below 16 graphs" in capsys.readouterr().err


def test_a_net_of_p_is_refused_where_there_is_none(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It would change the node features alone."""
    call = ["run", "exp-classify", "--preset", "mlp-ga", "--net=batch-norm-gin", "--data", str(data)]
    assert main([*call, "--walks=0", "--out", str(data / "out")]) == 2
    assert "net: expected only with a net that orders the nodes (ps, canonical)" in capsys.readouterr().err
