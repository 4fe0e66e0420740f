"""EGNN and the one-token transformer: sizes, exact equivariance of the first, none of the second, any n and d."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from probsym_experiments.models import EGNN, NodeTransformer, ParticleGNN, ParticleNodeTransformer, ParticleTransformer
from probsym_experiments.models.egnn import norm

EDGE = 1


def particles(n: int = 5, d: int = 3, rows: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(n + 10 * d)
    shapes = (rows, n, d), (rows, n, d), (rows, n, n, EDGE)
    pos, vel, edge = (torch.randn(shape, dtype=torch.float64, generator=generator) for shape in shapes)
    return pos, vel, edge


def moved(x: tuple[Tensor, Tensor, Tensor], order: Tensor, q: Tensor, shift: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    pos, vel, edge = x
    return pos[:, order] @ q.T + shift, vel[:, order] @ q.T, edge[:, order][:, :, order]


def reflection(d: int) -> Tensor:
    q = torch.linalg.qr(torch.randn(d, d, dtype=torch.float64, generator=torch.Generator().manual_seed(d)))[0]
    return q if q.det() < 0 else q * torch.tensor([-1.0, *[1.0] * (d - 1)], dtype=q.dtype)


@pytest.mark.parametrize(("n", "d"), [(5, 3), (20, 2), (2, 1), (1, 3), (4, 5)])
@pytest.mark.parametrize("velocity", [False, True])
def test_egnn_is_equivariant_to_permutations_and_motions(n: int, d: int, velocity: bool) -> None:
    torch.manual_seed(0)
    net, x = EGNN(hidden=16, layers=3, velocity=velocity).double(), particles(n, d)
    order, q, shift = torch.randperm(n), reflection(d), torch.randn(d, dtype=torch.float64)
    y, z = net(*x), net(*moved(x, order, q, shift))
    pos, new = (y["pos"], z["pos"]) if velocity else (y, z)
    torch.testing.assert_close(new, pos[:, order] @ q.T, rtol=0, atol=1e-10)  # displacements feel no translation
    if velocity:
        torch.testing.assert_close(z["vel"], y["vel"][:, order] @ q.T, rtol=0, atol=1e-10)


def test_egnn_follows_its_formula() -> None:
    """One layer by loops."""
    torch.manual_seed(0)
    net, (pos, vel, edge) = EGNN(hidden=8, layers=1).double(), particles(3, 2, rows=1)
    (layer,), x = net.layers, pos[0]
    h = net.embed(vel[0].norm(dim=-1, keepdim=True))
    expected = x + layer.along_velocity(h) * vel[0]
    for i in range(3):
        for j in {0, 1, 2} - {i}:
            square = (x[i] - x[j]).square().sum().view(1)
            inner = layer.edge_in(torch.cat([h[i], h[j], square, edge[0, i, j], square]))
            message = torch.nn.functional.silu(layer.edge_out(torch.nn.functional.silu(inner)))
            expected[i] = expected[i] + (x[i] - x[j]) * layer.along_pairs(message) / 2
    torch.testing.assert_close(net(pos, vel, edge)[0], expected - x, rtol=0, atol=1e-12)


def test_every_input_and_every_parameter_counts() -> None:
    for net in (EGNN(velocity=True).double(), ParticleNodeTransformer(velocity=True).double()):
        x = particles()
        y = net(*x)
        for i in range(3):
            changed = net(*[torch.randn_like(t) if i == j else t for j, t in enumerate(x)])
            assert all((changed[name] - y[name]).abs().max() > 1e-6 for name in ("pos", "vel"))
        (y["pos"].square().sum() + y["vel"].square().sum()).backward()
        assert not [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()]


@pytest.mark.parametrize("n", [1, 2, 5])
def test_particles_at_one_place_have_finite_gradients(n: int) -> None:
    x = [torch.zeros(2, n, 3, requires_grad=True), torch.zeros(2, n, 3, requires_grad=True), torch.zeros(2, n, n, 1)]
    for net in (EGNN(), ParticleNodeTransformer(num_nodes=n)):
        net(*x).sum().backward()
        assert all(t.grad is not None and t.grad.isfinite().all() for t in x[:2])
    assert norm(torch.zeros(1, 3)).item() == 0


def test_node_transformer_knows_places_and_pairs() -> None:
    """Not S_n-equivariant; without the embeddings of places it would be."""
    torch.manual_seed(0)
    net, (pos, _, edge) = NodeTransformer(5, 3, 1, 3, width=16, layers=2).double(), particles()
    order = torch.tensor([3, 0, 4, 1, 2])

    def gap() -> Tensor:
        return (net(pos[:, order], edge[:, order][:, :, order]) - net(pos, edge)[:, order]).abs().max()

    assert gap() > 1e-2
    net.position.data.zero_()
    net.pair_position.data.zero_()
    assert gap() <= 1e-10


def test_node_transformer_refuses_another_number_of_nodes() -> None:
    with pytest.raises(ValueError, match=r"nodes \(R, 5, F\)"):
        ParticleNodeTransformer()(*[t.float() for t in particles(4)])
    with pytest.raises(ValueError, match="width"):
        NodeTransformer(5, 6, 2, 3, width=10)


@pytest.mark.parametrize("kind", [ParticleGNN, ParticleTransformer, ParticleNodeTransformer])
def test_velocities_are_predicted_as_changes(kind: type) -> None:
    net, x = kind(dim=2, velocity=True).double(), particles(5, 2)
    last = "decode" if kind is ParticleGNN else "head"
    setattr(net.net, last, Constant(4))
    y = net(*x)
    torch.testing.assert_close(y["pos"], torch.tensor([0.0, 1.0]).double().expand_as(x[0]))
    torch.testing.assert_close(y["vel"], torch.tensor([2.0, 3.0]).double().expand_as(x[1]))


class Constant(torch.nn.Module):
    """0, 1, 2, ... whatever comes."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, h: Tensor) -> Tensor:
        return torch.arange(self.size, dtype=h.dtype).expand(*h.shape[:-1], -1)
