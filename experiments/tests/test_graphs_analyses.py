"""The two analyses: automorphism and sample-size, small; their graphs, measures and tables."""

from __future__ import annotations

import csv
import itertools
import json
import math
from pathlib import Path

import igraph
import numpy as np
import pytest
import torch

import probsym as ps
from probsym_experiments.batches import Batch
from probsym_experiments.cli import main
from probsym_experiments.config import load_config
from probsym_experiments.errors import UserError
from probsym_experiments.graphs.automorphism import share
from probsym_experiments.graphs.enumeration import edges
from probsym_experiments.graphs.models import Design, build, inputs
from probsym_experiments.graphs.sample_size import jackknife_ratio, summary
from probsym_experiments.graphs.spread import entropy, gradient_squares, loss, measure
from probsym_experiments.graphs.symmetric import GRAPHS
from probsym_experiments.registry import experiment
from wl_pairs import dataset


def orbits(graph: igraph.Graph) -> list[list[int]]:
    """From all automorphisms; the star's 720 are the most."""
    maps = np.array(graph.get_automorphisms_vf2())
    return sorted({tuple(sorted(set(column))) for column in maps.T.tolist()})


@pytest.mark.parametrize("graph", GRAPHS, ids=lambda graph: graph.name)
def test_orbits_are_those_of_igraph(graph) -> None:
    theirs = igraph.Graph(len(graph.places), edges(graph.adjacency))
    assert int(theirs.count_automorphisms()) == graph.order
    assert sorted(map(tuple, map(sorted, graph.orbits))) == orbits(theirs)
    assert theirs.is_connected()


def run(name: str, preset: str, data: Path, *arguments: str) -> dict:
    given = ["run", name, "--preset", preset, "--data", str(data), "--out", str(data / "out"), *arguments]
    assert main(given) == 0
    return json.loads((data / "out" / "result.json").read_text())


@pytest.mark.parametrize("preset", experiment("automorphism").presets)
def test_automorphism(preset: str, tmp_path: Path, fitting) -> None:
    few = fitting("automorphism", preset, ["--initialisations=2", "--eval_samples=[1,16]", "--samples=16"])
    result = run("automorphism", preset, tmp_path, *few)
    method = preset.rsplit("-", 1)[1]
    values = {(r["graph"], r["samples"]): r["share"] for r in result["by_samples"] if r["method"] == method}
    assert all(share == 0 for (graph, _), share in values.items() if graph == "no symmetry")
    if method == "fa":
        assert result["value"] == 0
    elif method == "canonical":
        assert result["value"] > 0.05
    else:
        assert result["value"] < values["7-cycle, D7", 1] / 4
    rows = list(csv.DictReader((tmp_path / "out" / "automorphism.csv").open()))
    assert len(rows) == len(result["by_samples"])
    assert (tmp_path / "out" / "automorphism.png").stat().st_size > 20_000


def test_share_is_between_equal_orbits_and_one_orbit() -> None:
    y = torch.tensor([1.0, 1.0, 3.0, 3.0])
    assert share(y, y[None], [[0, 1], [2, 3]]) == 0
    assert share(y, y[None], [[0, 1, 2, 3]]) == 1
    assert share(torch.ones(4), torch.ones(1, 4), [[0, 1, 2, 3]]) == 0


SMALL = ["--initialisations=3", "--graphs=4", "--eval_samples=[1,4]", "--samples=4", "--repeats=4", "--hidden=[8]"]


@pytest.mark.parametrize("preset", experiment("sample-size").presets)
def test_sample_size(preset: str, tmp_path: Path, fitting) -> None:
    arrays = dataset(220)
    np.savez(tmp_path / "exp.npz", **arrays)
    result = run("sample-size", preset, tmp_path, *fitting("sample-size", preset, SMALL))
    rows = result["by_samples"]
    assert [row["samples"] for row in rows] == [1, 4]
    assert result["value"] == rows[1]["output_variance_ratio"] > 0
    published = preset.endswith("-published")
    for row in rows:
        # There entropies of rows and of columns are added.
        assert row["entropy_ga"] <= (1 + published) * math.log(row["samples"]) + 1e-6
        assert ("gradient_norm_ps" in row) == published
    assert rows[1]["output_variance_ga"] < rows[0]["output_variance_ga"]
    assert (tmp_path / "out" / "sample_size.csv").exists()
    assert (tmp_path / "out" / "sample_size.png").stat().st_size > 20_000


@pytest.fixture(scope="module")
def averaged() -> tuple[ps.Symmetrizer, Batch]:
    """An MLP on graphs of 4 nodes, averaged over random orders."""
    torch.manual_seed(0)
    edge = torch.randint(2, (6, 4, 4)).float().triu(1)
    batch = {"adjacency": edge + edge.mT, "mask": torch.ones(6, 4, dtype=torch.bool), "target": torch.rand(6).round()}
    phi = build("mlp", "ga", batch, Design(out=1, hidden=(16,)))
    assert isinstance(phi, ps.Symmetrizer)
    torch._foreach_mul_([p.data for p in phi.model.parameters()], 3.0)  # else the loss is all but linear in the output
    return phi.eval(), batch


def test_gradient_square_is_that_of_all_orders(averaged: tuple[ps.Symmetrizer, Batch]) -> None:
    """Against the gradient of the loss of one and of two samples, over all 24 orders: within 5 standard errors.

    The square of a mean over as few draws, which would count their noise, is off by more.
    """
    phi, batch = averaged
    orders = torch.tensor(list(itertools.permutations(range(4))))
    moved = batch["adjacency"][:, orders[:, :, None], orders[:, None, :]].movedim(1, 0)
    y = phi.model(moved.flatten(0, 1), mask=None).unflatten(0, (24, 6))
    weights = list(phi.model.parameters())
    pairs = ((y[:, None] + y) / 2).flatten(0, 1)
    exact = torch.stack([square(loss(means, batch), weights) for means in (y, pairs)])
    torch.manual_seed(1)
    found = torch.stack([gradient_squares(phi, batch, [1, 2], 4) for _ in range(300)])
    error = found.std(0) / 300**0.5
    assert ((found.mean(0) - exact).abs() < 5 * error).all()
    assert (exact[0] - exact[1]).abs() > 5 * error.max()  # else one could be taken for the other
    noisy = torch.stack([naive_square(phi, batch, weights) for _ in range(300)])
    assert noisy.mean() - exact[0] > 10 * noisy.std() / 300**0.5


def square(losses: torch.Tensor, weights: list[torch.nn.Parameter]) -> torch.Tensor:
    return sum(g.square().sum() for g in torch.autograd.grad(losses.mean(), weights, retain_graph=True))


def naive_square(phi: ps.Symmetrizer, batch: Batch, weights: list[torch.nn.Parameter]) -> torch.Tensor:
    return square(loss(phi.sample(**inputs(batch), samples=4), batch), weights)


def test_output_variance_falls_as_one_over_k(averaged: tuple[ps.Symmetrizer, Batch]) -> None:
    """Of 4,000 independent samples; five standard errors of a variance are 5 sqrt(2 / 400) = 35 %."""
    phi, batch = averaged
    torch.manual_seed(0)
    variance = measure(phi, batch, [1, 10], 400, 1)[0]
    assert variance[0] / variance[1] == pytest.approx(10, rel=0.35)


def test_entropy_of_the_mean_permutation() -> None:
    mask = torch.tensor([[True, True, True, False]])
    one = torch.tensor([[[0, 1, 2, 3]]])
    assert entropy(one, mask) == 0
    both = torch.cat([one, torch.tensor([[[1, 0, 2, 3]]])])
    assert entropy(both, mask).item() == pytest.approx(2 / 3 * math.log(2))


def test_jackknife_agrees_with_the_delta_method() -> None:
    generator = torch.Generator().manual_seed(0)
    below = 2 + 0.1 * torch.randn(400, generator=generator).double()
    above = below / 2 + 0.1 * torch.randn(400, generator=generator).double()
    ratio, error = jackknife_ratio(above, below)
    delta = (above - ratio * below).std().item() / below.mean().item() / 20
    assert error == pytest.approx(delta, rel=0.02)


def test_a_single_model_has_no_error_bar_and_only_the_published_way_may_have_one() -> None:
    names = ("output_variance",)
    (row,) = summary(torch.tensor([[[[1.0]]], [[[4.0]]]]).double(), names, [10])
    assert row["output_variance_ratio"] == 0.25
    assert math.isnan(row["output_variance_ratio_stderr"])
    assert math.isnan(row["output_variance_ps_stderr"])
    with pytest.raises(UserError, match="initialisations: expected at least 2; got 1"):
        load_config(experiment("sample-size"), "mlp-ps", ["--initialisations=1"])


def test_too_few_graphs_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "exp.npz", **dataset(4))
    given = ["run", "sample-size", "--preset", "mlp-ps", "--data", str(tmp_path), "--out", str(tmp_path / "out")]
    assert main(given) == 2
    assert "graphs: expected at most 0; got 40" in capsys.readouterr().err


def test_bad_fields_are_named() -> None:
    for name, argument in (("automorphism", "--against=[pca]"), ("sample-size", "--samples=3")):
        with pytest.raises(UserError, match=argument[2:].partition("=")[0].replace("against", "symmetrizer")):
            load_config(experiment(name), "mlp-ps", [argument])
