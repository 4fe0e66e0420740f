"""The loss and what a recipe adds to it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import probsym as ps
from probsym_experiments.models import ParticleGNN
from probsym_experiments.nbody import Config
from probsym_experiments.nbody.loss import Loss
from probsym_experiments.nbody.models import build, haar, inputs
from probsym_experiments.nbody.motion import Motion


@pytest.fixture
def batch() -> dict[str, Tensor]:
    torch.manual_seed(0)
    found = {name: torch.randn(10, 5, 3) for name in ("pos", "vel", "target", "target_vel")}
    return found | {"edge": torch.randn(10, 5, 5, 1).sign()}


class Still(nn.Module):
    """Nothing moves."""

    def forward(self, pos: Tensor, vel: Tensor, edge: Tensor) -> dict[str, Tensor]:
        return {"pos": torch.zeros_like(pos), "vel": torch.zeros_like(vel)}


def test_plain_loss_is_the_mean_of_the_errors(batch: dict[str, Tensor]) -> None:
    net = ParticleGNN()
    loss = Loss()
    torch.testing.assert_close(loss(net, batch), loss.errors(net, batch).mean())
    off = batch["pos"] + net(**inputs(batch)) - batch["target"]
    torch.testing.assert_close(loss.errors(net, batch).mean(), off.square().mean())


@pytest.mark.parametrize("free_flight", [False, True])
def test_errors_are_those_of_positions_and_velocities(batch: dict[str, Tensor], free_flight: bool) -> None:
    """A model that knows the truth has no error, whatever its outputs are changes of and however many draws lead."""
    motion = Motion(free_flight)
    start = batch["pos"] + batch["vel"] * free_flight
    right = {"pos": batch["target"] - start, "vel": batch["target_vel"] - batch["vel"]}
    torch.testing.assert_close(motion.positions(right, batch), batch["target"])
    torch.testing.assert_close(motion.velocities(right, batch), batch["target_vel"])
    off = torch.stack([right["pos"], right["pos"] + 2])
    torch.testing.assert_close(motion.mse(off, batch), torch.tensor([0.0, 4.0])[:, None].expand(2, 10))
    assert Loss(motion, velocity_weight=1.0)(lambda **x: right, batch) < 1e-10  # type: ignore[arg-type]


def test_velocities_are_weighted(batch: dict[str, Tensor]) -> None:
    position = (batch["pos"] - batch["target"]).square().mean()
    velocity = (batch["vel"] - batch["target_vel"]).square().mean()
    torch.testing.assert_close(Loss(velocity_weight=0.5)(Still(), batch), position + 0.5 * velocity)
    torch.testing.assert_close(Motion().mse(Still()(**inputs(batch)), batch).mean(), position)


def test_input_noise_has_its_size_and_leaves_the_batch_alone(batch: dict[str, Tensor]) -> None:
    big = {name: value.repeat(500, *[1] * (value.ndim - 1)) for name, value in batch.items()}
    kept = {name: value.clone() for name, value in big.items()}
    clean, noisy = Loss()(Still(), big), Loss(input_noise=0.5)(Still(), big)
    assert noisy - clean == pytest.approx(0.25, rel=0.1)
    assert all(torch.equal(big[name], kept[name]) for name in big)


def test_haar_share_mixes_by_rows(batch: dict[str, Tensor]) -> None:
    """A share of 1 never asks p, so its net has no gradient; in between both parts are weighted by their rows."""
    phi = build(Config(), batch)
    uniform = haar(phi)
    assert isinstance(uniform.distribution, ps.Haar)
    Loss(haar_share=1.0, haar=uniform)(phi, batch).backward()
    assert all(p.grad is None for p in phi.distribution.parameters())
    assert all(p.grad is not None for p in phi.model.parameters())
    mixed = Loss(haar_share=0.3, haar=lambda **x: torch.ones_like(x["pos"]))  # type: ignore[arg-type]
    off = batch["pos"] - batch["target"]
    expected = 0.3 * (off[:3] + 1).square().mean() + 0.7 * off[3:].square().mean()
    torch.testing.assert_close(mixed(Still(), batch), expected)


def test_late_samples_follow_the_step(batch: dict[str, Tensor]) -> None:
    config = Config(steps=100, late_samples=4, late_from=0.6)
    assert [config.train_samples_at(step) for step in (0, 59, 60, 99)] == [None, None, 4, 4]
    asked: list[int | None] = []

    class Counting(Still):
        def forward(self, samples: int | None = None, **x: Tensor) -> Tensor:  # type: ignore[override]
            asked.append(samples)
            return torch.zeros_like(x["pos"])

    loss = Loss(samples=config.train_samples_at)
    for step in (0, 60):
        loss.begin(step)
        loss(Counting(), batch)
    assert asked == [None, 4]


def test_entropy_is_added(batch: dict[str, Tensor]) -> None:
    phi = build(Config(base="node-transformer", entropy_weight=0.1), batch)
    values = []
    for weight in (0.0, 2.0):
        torch.manual_seed(0)
        values.append(Loss(entropy_weight=weight)(phi, batch))
    torch.manual_seed(0)
    entropy = phi.estimate(**inputs(batch)).aux["entropy"]
    torch.testing.assert_close(values[1] - values[0], 2 * entropy)
