"""What is measured of a trained n-body model, against models of which it is known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import probsym as ps
from probsym_experiments.batches import Batch
from probsym_experiments.nbody import Config
from probsym_experiments.nbody.analysis import root_mean_square, samples_for_tolerance
from probsym_experiments.nbody.models import reps

INPUTS = 63


class Loud(nn.Module):
    """No displacement but of the first particle: Gaussian noise of a size that the input tells."""

    def __init__(self, velocity: bool) -> None:
        super().__init__()
        self.velocity = velocity

    def forward(self, pos: Tensor, vel: Tensor, edge: Tensor) -> Tensor | dict[str, Tensor]:
        first = torch.eye(pos.shape[1])[0][:, None]
        noisy = edge[:, 0, 1][:, None] * first * torch.randn_like(pos)
        return {"pos": noisy, "vel": 1e3 * torch.randn_like(vel)} if self.velocity else noisy


@pytest.fixture
def data() -> Batch:
    """Noise of 0.1, 0.2, 0.4, and again."""
    sizes = 0.1 * 2.0 ** (torch.arange(INPUTS) % 3)
    moving = {name: torch.randn(INPUTS, 5, 3) for name in ("pos", "vel", "target")}
    return moving | {"edge": sizes[:, None, None, None].expand(INPUTS, 5, 5, 1)}


@pytest.mark.parametrize("velocity", [False, True])
def test_samples_needed_are_those_of_a_known_variance(data: Batch, velocity: bool) -> None:
    """s^2 = 3 sigma^2, so that k = 3, 12 and 48 for a tolerance of 0.1; what velocities do does not count."""
    config = Config(tolerances=[0.1, 0.05, 100.0], velocity_weight=float(velocity))
    phi = ps.symmetrize(Loud(velocity), *reps(config, permuted=False), "haar")
    found = samples_for_tolerance(phi, data, config)
    filled = [{i: count for i, count in enumerate(entry["histogram"]) if count} for entry in found]
    assert filled == [dict.fromkeys((2, 4, 6), 21), dict.fromkeys((4, 6, 8), 21), {0: INPUTS}]
    assert [entry["tolerance"] for entry in found] == config.tolerances
    assert found[0]["median"] == pytest.approx(12, abs=1)
    assert found[2]["median"] == 1


def test_error_of_a_root_mean_square() -> None:
    """As far as its values scatter over many test sets."""
    squares = torch.randn(4000, 50).square()
    found = [root_mean_square(row) for row in squares]
    errors, claimed = (torch.tensor([f[name] for f in found]) for name in ("error", "stderr_test"))
    assert claimed.mean() == pytest.approx(errors.std().item(), rel=0.05)
    assert root_mean_square(torch.full((4,), 9.0)) == {"error": 3.0, "stderr_test": 0.0}
    assert root_mean_square(torch.zeros(4)) == {"error": 0.0, "stderr_test": 0.0}
