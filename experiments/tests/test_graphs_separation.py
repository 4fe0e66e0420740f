"""Counting separated pairs: exactly, and with a control that catches a model that separates a graph from itself."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from probsym_experiments.cli import main
from probsym_experiments.config import load_config
from probsym_experiments.errors import UserError
from probsym_experiments.graphs.distance import apart, close_pairs, nearest
from probsym_experiments.graphs.separation import Tally
from probsym_experiments.registry import experiment
from wl_pairs import dataset


def brute_force(y: torch.Tensor, threshold: float) -> torch.Tensor:
    i, j = torch.triu_indices(len(y), len(y), 1)
    return torch.stack([i, j])[:, (y[i] - y[j]).abs().sum(-1) <= threshold]


def ordered(pairs: torch.Tensor) -> list[list[int]]:
    return sorted(pairs.T.tolist())


@pytest.mark.parametrize("threshold", [0.0, 1e-3, 0.3, 100.0])
@pytest.mark.parametrize("kind", ["random", "ties", "constant", "one direction", "large"])
def test_close_pairs_are_those_of_brute_force(kind: str, threshold: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("probsym_experiments.graphs.distance.CHUNK", 97)
    y = torch.randn(120, 3)
    y = {
        "random": 0.2 * y,
        "ties": y.round(),
        "constant": torch.ones(120, 3),
        "one direction": y[:, :1] * torch.tensor([1.0, -2.0, 0.5]),
        "large": 1e6 + 1e-2 * y,
    }[kind].double()
    found = close_pairs(y, threshold)
    assert ordered(found) == ordered(brute_force(y, threshold))
    assert (found[0] < found[1]).all()


def test_nearest_and_apart() -> None:
    y = torch.randn(70, 4).double()
    i, j = torch.triu_indices(70, 70, 1)
    assert nearest(y, block=16) == pytest.approx((y[i] - y[j]).abs().sum(-1).min().item())
    assert apart(y, torch.tensor([[0], [0]])).item() == 0
    assert nearest(y[:1]) == float("inf")
    assert close_pairs(y[:1], 1.0).shape == close_pairs(y[:0], 1.0).shape == (2, 0)


def test_a_pair_stays_separated_once_it_is() -> None:
    """Outputs that come one model at a time leave the pairs that no model separates, and only those are looked at."""
    models = [torch.randn(8, 2).round().double() for _ in range(3)]
    never = torch.stack([(m[:, None] - m[None]).abs().sum(-1) <= 0.5 for m in models]).all(0)
    tally = Tally(6, None, torch.tensor([[0, 1], [6, 7]]))
    assert tally.needed().tolist() == list(range(8))
    for m in models:
        seen = torch.full_like(m, torch.nan)
        seen[tally.needed()] = m[tally.needed()]
        tally.update(seen, 0.5)
    i, j = torch.triu_indices(6, 6, 1)
    assert tally.pairs is not None
    assert ordered(tally.pairs) == ordered(torch.stack([i, j])[:, never[i, j]])
    assert ordered(tally.controls) == [[a, b] for a, b in ((0, 6), (1, 7)) if never[a, b]]


def run(name: str, preset: str, data: Path, out: Path, *arguments: str) -> dict:
    given = ["run", name, "--preset", preset, "--data", str(data), "--out", str(out), *arguments]
    assert main(given) == 0
    assert (out / "distances.png").stat().st_size > 5_000
    return json.loads((out / "result.json").read_text())


@pytest.mark.parametrize("preset", experiment("graph8c").presets)
def test_graph8c_on_five_nodes(preset: str, tmp_path: Path) -> None:
    exact = preset.endswith("-exact")
    few = [] if exact else ["--initialisations=3"]
    result = run("graph8c", preset, tmp_path, tmp_path / "out", "--nodes=5", *few)
    assert (result["value"], result["steps"]) == (0, 0)
    if exact:
        assert (result["isomorphic called different"], result["initialisations"]) == (0, 1)
        assert result["isomorphic_largest"] < 1e-12 < 1e-6 < result["first"]["other_smallest"]
    elif preset.endswith(("-ps", "-ga")):
        assert result["isomorphic called different"] > 0.8  # all but the complete graph
    gin_id = 9_357
    if "published" in preset:
        gin_id += 2 * 64  # it sees two features of each node
    assert result["params_by_part"]["base"] == (25 * 128 + 128 + 64 * 129 + 650 if "mlp" in preset else gin_id)


def test_published_sizes() -> None:
    config = load_config(experiment("graph8c"), "mlp-ps")
    phi = config.model({"adjacency": torch.zeros(2, 8, 8)}, 0)
    assert sum(p.numel() for p in phi.model.parameters()) == 17_226
    assert (config.initialisations, config.threshold, config.samples) == (100, 1e-3, 10)
    assert load_config(experiment("exp"), "mlp-ps").hidden == [2048, 4096, 2048]


@pytest.mark.parametrize("preset", experiment("exp").presets)
def test_exp_on_made_pairs(preset: str, tmp_path: Path, fitting) -> None:
    np.savez(tmp_path / "exp.npz", **dataset(4))
    few = fitting("exp", preset, ["--initialisations=2", "--hidden=[16]"])
    result = run("exp", preset, tmp_path, tmp_path / "out", *few)
    assert result["value"] in range(5 if "canonical" in preset else 1)
    assert result["controls"] == min(8, result["config"]["controls"] or 8)


def test_exact_averages_of_large_graphs_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "exp.npz", **dataset(4))
    given = [
        "run",
        "exp",
        "--preset",
        "gin-id-ga",
        "--samples=null",
        "--data",
        str(tmp_path),
        "--out",
        str(tmp_path / "o"),
    ]
    assert main(given) == 2
    assert "samples: ga is exact for up to 8 nodes; got null for 64" in capsys.readouterr().err


def test_a_model_that_sees_no_edges_separates_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control of the count: all pairs stay, and no isomorphic pair is called different."""
    from probsym_experiments.graphs import models

    class Blind(torch.nn.Linear):
        def forward(self, adjacency: torch.Tensor) -> torch.Tensor:
            return super().forward(torch.ones(len(adjacency), 1))

    monkeypatch.setitem(models.BASES, "mlp", models.Base(lambda shape, design: Blind(1, 10), ()))  # type: ignore[arg-type]
    result = run("graph8c", "mlp-ga", tmp_path, tmp_path / "out", "--nodes=5", "--initialisations=3")
    assert (result["value"], result["isomorphic called different"]) == (21 * 20 // 2, 0)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--samples=null"], "samples: ps has no exact average"),
        (["--samples=0"], "samples"),
        (["--threshold=-1"], "threshold"),
        (["--scale=0"], "scale"),
        (["--hidden=[]"], "hidden"),
        (["--base=gnn"], "base: expected one of mlp, gin-id"),
        (["--symmetrizer=ps-soft"], "symmetrizer: expected one of ps, ga, fa, canonical"),
        (["--nodes=2"], "nodes"),
    ],
)
def test_bad_fields_are_named(arguments: list[str], named: str) -> None:
    with pytest.raises(UserError, match=named):
        load_config(experiment("graph8c"), "mlp-ps", arguments)
