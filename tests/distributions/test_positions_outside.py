"""The straight-through gradient of a learned order, with the positions added outside the average and inside it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import probsym as ps

POINTS, STEP = 5, 0.05


class Plus(nn.Module):
    """share * x + 1.5 net(x)."""

    def __init__(self, net: nn.Module, share: float) -> None:
        super().__init__()
        self.net, self.share = net, share

    def forward(self, x: Tensor) -> Tensor:
        return self.share * x + 1.5 * self.net(x)


def gradients(seed: int, draws: int) -> tuple[Tensor, Tensor, Tensor]:
    """Of an expected loss with respect to a small net of p: the true one; straight through outside, and inside.

    The loss is that of single samples, so that it depends on p. The true gradient is by finite differences, and all
    three use the same noise.
    """
    torch.manual_seed(seed)
    x = torch.randn(8, POINTS, 3, dtype=torch.float64)
    base = nn.Sequential(
        nn.Flatten(), nn.Linear(3 * POINTS, 32), nn.Tanh(), nn.Linear(32, 3 * POINTS), nn.Unflatten(1, (POINTS, 3))
    )
    base.double().requires_grad_(False)
    target = x + 0.5 * torch.randn_like(x)
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1, bias=False), nn.Flatten(-2)).double()
    nodes = ps.S("nodes")
    p, rep = ps.Learned(net, nodes, scale=0.5, relaxation=ps.Relaxation(0.1, 20)), ps.Rep(nodes)
    outside = ps.symmetrize(Plus(base, 0.0), rep, rep, p).train()
    inside = ps.symmetrize(Plus(base, 1.0), rep, rep, p).train()
    noise = outside.draw_noise(x, samples=draws, generator=torch.Generator().manual_seed(seed))

    def loss_outside() -> Tensor:
        return (x + outside.sample(x, noise=noise) - target).square().mean()

    def loss_inside() -> Tensor:
        return (inside.sample(x, noise=noise) - target).square().mean()

    weights = list(net.parameters())
    torch.testing.assert_close(loss_outside(), loss_inside())  # one loss, one true gradient
    through = [torch.autograd.grad(loss(), weights) for loss in (loss_outside, loss_inside)]
    first, second = (torch.cat([g.reshape(-1) for g in found]) for found in through)

    flat, true = nn.utils.parameters_to_vector(weights).detach(), []
    with torch.no_grad():
        for direction in STEP * torch.eye(len(flat), dtype=flat.dtype):
            nn.utils.vector_to_parameters(flat + direction, weights)
            up = loss_outside()
            nn.utils.vector_to_parameters(flat - direction, weights)
            true.append((up - loss_outside()) / (2 * STEP))
    return torch.stack(true), first, second


def test_positions_outside_turn_the_gradient_the_right_way() -> None:
    """The mean cosine with the true gradient over eight problems; their seeds are fixed, so nothing here is random.

    Over the 24 problems of seeds 0 to 23, with 2,000 samples each, the means are 0.69 outside and 0.24 inside.
    """
    cosine = nn.functional.cosine_similarity
    found = []
    for seed in range(8):
        true, outside, inside = gradients(seed, draws=300)
        found.append([cosine(true, outside, 0), cosine(true, inside, 0)])
    outside_mean, inside_mean = torch.tensor(found).mean(0).tolist()
    print(f"mean cosine with the true gradient: positions outside {outside_mean:.2f}, inside {inside_mean:.2f}")
    assert outside_mean > 0.5
    assert outside_mean > inside_mean + 0.2


def test_the_identity_shows_what_goes_wrong() -> None:
    """As base it is its own average, whatever p is, and yet p hears of it; with x outside it does not."""
    torch.manual_seed(0)
    x, target = torch.randn(8, POINTS, 3), torch.randn(8, POINTS, 3)
    net, nodes = nn.Sequential(nn.Linear(3, 1), nn.Flatten(-2)), ps.S("nodes")
    rep, p = ps.Rep(nodes), ps.Learned(net, nodes)
    inside = ps.symmetrize(nn.Identity(), rep, rep, p).train()
    still = nn.Linear(3, 3, bias=False)
    nn.init.zeros_(still.weight)
    outside = ps.symmetrize(still, rep, rep, p).train()
    y = inside(x)
    assert torch.equal(y, x)
    (wrong,) = torch.autograd.grad((y - target).square().mean(), net[0].weight)
    assert wrong.norm() > 0.1
    (right,) = torch.autograd.grad((x + outside(x) - target).square().mean(), net[0].weight)
    assert right.norm() == 0
