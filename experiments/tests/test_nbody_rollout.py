"""Rollouts: the truth is the simulator's, a perfect model has no error, and the tube is as wide as it says."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import probsym as ps
from probsym_experiments.nbody import Config, rollout
from probsym_experiments.nbody.models import build
from probsym_experiments.nbody.rollout import STEPS, predict, truth, tube
from probsym_experiments.nbody.simulator import Start, energy, simulate

CONFIG = Config(velocity_weight=1.0, symmetrizer="none")


@pytest.fixture
def start() -> dict[str, Tensor]:
    """Particles far apart, so that nothing is chaotic."""
    rng = np.random.default_rng(0)
    corners = 10.0 * np.mgrid[:2, :2, :2].reshape(3, 8).T
    pos = torch.from_numpy(np.stack([corners[rng.permutation(8)[:5]] for _ in range(3)]))
    charges = torch.from_numpy(rng.choice([-1.0, 1.0], (3, 5)))
    found = {"pos": pos, "vel": torch.from_numpy(0.1 * rng.standard_normal((3, 5, 3)))}
    return found | {"edge": (charges[:, :, None] * charges[:, None, :]).unsqueeze(-1)}


class Simulator(nn.Module):
    """The model that knows everything, up to an error of each prediction; it tells changes."""

    def __init__(self, spread: float = 0.0) -> None:
        super().__init__()
        self.spread = spread
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, pos: Tensor, vel: Tensor, edge: Tensor, samples: int = 1) -> dict[str, Tensor]:
        loc, speed = simulate(Start(edge[:, 0, :, 0].numpy(), pos.numpy(), vel.numpy()), [9], workers=1)
        noise = self.spread * torch.randn_like(pos)
        return {"pos": torch.from_numpy(loc[0]) - pos + noise, "vel": torch.from_numpy(speed[0]) - vel}


def test_a_perfect_model_follows_the_truth(start: dict[str, Tensor]) -> None:
    true = np.stack(truth(start, start["edge"][:, 0, :, 0].numpy()))
    assert true.shape == (2, STEPS + 1, 3, 5, 3)
    found = predict(Simulator(), start, CONFIG, 0)  # type: ignore[arg-type]
    np.testing.assert_allclose(found.numpy(), true, atol=1e-8)
    drift = energy(start["edge"][:, 0, :, 0].numpy(), *true)
    assert np.abs(drift - drift[:1]).max() < 1e-3


def test_a_run_reports_and_draws(run, tmp_path: Path) -> None:
    code, error, result = run("--steps=20", "--eval_samples=[1,4]", "--samples=4", preset="dynamics-ps-rollout")
    assert code == 0, error
    found = result["rollout"]
    errors = ("mse", "mse_stderr_test", "energy_drift", "energy_drift_stderr_test")
    assert all(found[name][0] == 0 and min(found[name][1:]) > 0 for name in (*errors, "spread"))
    beside = list(csv.DictReader((tmp_path / "out" / "rollout.csv").open()))
    assert [int(row["time"]) for row in beside] == list(range(STEPS + 1))
    for name in (*errors, "spread", "energy_drift_true"):
        assert [float(row[name]) for row in beside] == found[name]
    assert max(found["energy_drift_true"]) < 0.01
    assert (tmp_path / "out" / "rollout.png").read_bytes().startswith(b"\x89PNG")


def test_the_spread_is_that_of_single_rollouts(
    start: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the first step that of one prediction, to a few percent of 8 draws of 45 numbers."""
    monkeypatch.setattr(rollout, "STEPS", 2)
    config = Config(velocity_weight=1.0)
    found = rollout.rollout(Simulator(0.01), start, config, tmp_path)  # type: ignore[arg-type]
    assert found["spread"][1] == pytest.approx(0.01, rel=0.2)
    assert found["mse"][1] == pytest.approx(1e-4, rel=0.4)


def test_errors_over_systems_count_systems_and_not_draws() -> None:
    """A mean has s / sqrt(n), a median of Gaussians 1.25 times that; eight equal draws of a system tell no more."""
    rng = np.random.default_rng(0)
    drift = rng.normal(9.0, 1.0, (1, 1, 400))
    off = np.sqrt(drift)[..., None, None]
    for draws in (1, 8):
        loc, energies = (np.repeat(x, draws, axis=0) for x in (off, drift))
        found = rollout.error_curves(np.zeros_like(off[0]), loc, drift[0], energies)
        assert found["mse"] == pytest.approx(drift.mean())
        assert found["mse_stderr_test"] == pytest.approx(drift.std(ddof=1) / 20)
        assert found["energy_drift_stderr_test"] == pytest.approx(1.2533 / 20, rel=0.2)
        assert found["spread"] == pytest.approx(0)


def test_steps_commute_with_motions(start: dict[str, Tensor]) -> None:
    """All ten steps of an equivariant model, for O(d) about the centroid too."""
    torch.manual_seed(0)
    q = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))[0]
    moved = start | {"pos": start["pos"] @ q.T + 2, "vel": start["vel"] @ q.T}
    config = Config(base="egnn", symmetrizer="none", velocity_weight=1.0, group="O")
    phi: ps.Symmetrizer = build(config, start).double()
    one, other = predict(phi, start, config, 0), predict(phi, moved, config, 0)
    torch.testing.assert_close(other[0], one[0] @ q.T + 2)
    torch.testing.assert_close(other[1], one[1] @ q.T)


def test_the_tube_is_as_wide_as_the_error_across_the_motion() -> None:
    path = np.stack([np.arange(4.0), np.zeros(4)], 1)
    x, y = tube(path, np.tile([5.0, 0.25], (4, 1)))
    np.testing.assert_allclose(x, [0, 1, 2, 3, 3, 2, 1, 0])
    np.testing.assert_allclose(y, [0.25] * 4 + [-0.25] * 4)
