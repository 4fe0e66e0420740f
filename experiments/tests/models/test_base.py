"""The base models: parameter counts of the papers, shapes, masks, and what they are equivariant to."""

import pytest
import torch
from torch import Tensor, nn

from probsym_experiments.models import (
    GINID,
    MLP,
    MessagePassing,
    PairTransformer,
    ParticleDynamics,
    ParticleDynamicsTransformer,
    ParticleGNN,
    ParticleTransformer,
)
from probsym_experiments.models.dynamics import interactions
from probsym_experiments.models.message_passing import off_diagonal


def count(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def particles(n: int = 5, d: int = 3, p: int = 1, rows: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    return (
        torch.randn(rows, n, d, dtype=torch.float64),
        torch.randn(rows, n, d, dtype=torch.float64),
        torch.randn(rows, n, n, p, dtype=torch.float64),
    )


@pytest.mark.parametrize(
    ("net", "parameters"),
    [
        (MLP(64, (128, 64), 10), 17_226),
        (PairTransformer(5, 6, 2, 3), 208_387),
        (ParticleTransformer(), 208_387),
        (MessagePassing(), 92_103),
        (ParticleGNN(), 92_103),
        (ParticleDynamics(), 25_931),
        (ParticleDynamicsTransformer(), 216_600),
        (GINID(8, node_features=1), 9 * 64 + 64 + 2 * (64 * 64 + 64) + 64 * 10 + 10 + 3),
    ],
    ids=lambda x: type(x).__name__ if isinstance(x, nn.Module) else str(x),
)
def test_parameter_counts(net: nn.Module, parameters: int) -> None:
    assert count(net) == parameters


@pytest.mark.parametrize(("n", "d", "p"), [(5, 3, 1), (1, 3, 1), (2, 1, 3), (7, 2, 2), (4, 5, 1)])
@pytest.mark.parametrize("kind", [ParticleGNN, ParticleDynamics, ParticleDynamicsTransformer, ParticleTransformer])
def test_particles_of_any_number_and_dimension(kind: type, n: int, d: int, p: int) -> None:
    size = {"num_nodes": n} if kind in (ParticleTransformer, ParticleDynamicsTransformer) else {}
    net = kind(dim=d, pair_features=p, layers=2, **size).double()
    pos, vel, edge = particles(n, d, p)
    out = net(pos=pos.requires_grad_(), vel=vel, edge=edge)
    out.square().sum().backward()
    assert out.shape == pos.shape
    assert pos.grad is not None
    assert pos.grad.isfinite().all()
    assert all(q.grad is not None and q.grad.isfinite().all() for q in net.parameters())


@pytest.mark.parametrize(
    "net",
    [ParticleGNN(), ParticleDynamics(), ParticleDynamicsTransformer(), ParticleTransformer()],
    ids=["gnn", "dynamics", "dynamics-transformer", "transformer"],
)
def test_every_particle_input_counts(net: nn.Module) -> None:
    inputs, net = particles(), net.double()
    assert net(*inputs[:2], inputs[2][..., 0]).equal(net(*inputs))
    for i in range(3):
        changed = [torch.randn_like(x) if i == j else x for j, x in enumerate(inputs)]
        assert (net(*changed) - net(*inputs)).abs().max() > 1e-3


def test_gnns_are_equivariant_to_permutations_and_the_others_to_nothing() -> None:
    torch.manual_seed(0)
    order, q = torch.tensor([3, 0, 4, 1, 2]), torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))[0]
    pos, vel, edge = particles()
    moved = pos[:, order], vel[:, order], edge[:, order][:, :, order]
    turned = pos @ q.T, vel @ q.T, edge
    errors = {}
    others = ParticleTransformer, ParticleDynamicsTransformer
    for kind in (ParticleGNN, ParticleDynamics, *others):
        net = kind().double()
        y = net(pos, vel, edge)
        errors[kind] = [(net(*moved) - y[:, order]).abs().max(), (net(*turned) - y @ q.T).abs().max()]
    assert max(errors[kind][0] for kind in (ParticleGNN, ParticleDynamics)) <= 1e-10
    assert min(errors[kind][1] for kind in (ParticleGNN, ParticleDynamics)) > 1e-2
    assert min(min(errors[kind]) for kind in others) > 1e-2


def test_a_particle_that_feels_nothing_flies_straight_on() -> None:
    """The integrator with its forces off does not leave free flight, whatever the number of layers."""
    net = ParticleDynamics(layers=5).double()
    nn.init.zeros_(net.forces[0].weight)
    pos, vel, edge = particles()
    torch.testing.assert_close(net(pos, vel, edge), torch.zeros_like(pos))
    both = ParticleDynamics(velocity=True).double()
    out = both(pos, vel, edge)
    assert out["vel"].shape == vel.shape
    assert out["vel"].abs().max() > 0


@pytest.mark.parametrize("kind", [ParticleDynamics, ParticleDynamicsTransformer])
def test_the_integrator_moves_particles_as_its_formula_says(kind: type) -> None:
    """x_i <- x_i + t v_i in turn, with a clock that has learned; free flight, pos + vel, is taken off at the end."""
    torch.manual_seed(0)
    net, (pos, vel, edge) = kind(layers=3, velocity=True).double(), particles()
    net.times.data += 0.1 * torch.randn(3)
    h, x, v = net.start(pos, vel), pos, vel
    for i in range(3):
        h = net.rounds[i % len(net.rounds)](h, interactions(x, edge))
        v = v + net.forces[i % len(net.forces)](h)
        x = x + net.times[i] * v
    out = net(pos, vel, edge)
    torch.testing.assert_close(pos + vel + out["pos"], x, rtol=0, atol=1e-12)
    torch.testing.assert_close(vel + out["vel"], v, rtol=0, atol=1e-12)


def test_message_layer_is_the_concatenated_formula() -> None:
    torch.manual_seed(0)
    net = MessagePassing(4, 3, 2, hidden=8, layers=1).double()
    x, a = torch.randn(2, 4, 4, dtype=torch.float64), torch.randn(2, 4, 4, 3, dtype=torch.float64)
    h, layer = net.embed(x), net.layers[0]
    summed = torch.zeros_like(h)
    for i in range(4):
        for j in set(range(4)) - {i}:
            message = layer.edge_in(torch.cat([h[:, i], h[:, j], a[:, i, j]], -1))
            summed[:, i] += nn.functional.silu(layer.edge_out(nn.functional.silu(message)))
    expected = net.decode(h + layer.node(torch.cat([h, summed], -1)))
    torch.testing.assert_close(net(x, a), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("n", [0, 1, 2, 5])
def test_off_diagonal(n: int) -> None:
    x = torch.randn(2, n, n, 3)
    assert off_diagonal(x).equal(x[:, ~torch.eye(n, dtype=torch.bool)].view(2, n, max(n - 1, 0), 3))


def test_transformer_says_what_it_expected() -> None:
    with pytest.raises(ValueError, match=r"\(R, 5, F\).*\(2, 4, 6\)"):
        PairTransformer(5, 6, 2, 3, layers=1)(torch.randn(2, 4, 6), torch.randn(2, 4, 4, 2))
    with pytest.raises(ValueError, match="heads"):
        PairTransformer(5, 6, 2, 3, width=10)


def test_mlp_inputs_and_output_shape() -> None:
    net = MLP(2 * 15 + 1, (8,), 15, activation=nn.ReLU, out_shape=(5, 3))
    pos, vel, t = torch.randn(4, 5, 3), torch.randn(4, 5, 3), torch.randn(4)
    assert net(pos=pos, vel=vel, t=t).shape == (4, 5, 3)
    assert net(vel=vel, t=t, pos=pos).equal(net(pos, t, vel))
    assert MLP(9, (4,), 2, out_activation=nn.Tanh)(torch.full((1, 3, 3), 100)).abs().max() <= 1
    with pytest.raises(ValueError, match="out_shape"):
        MLP(3, (4,), 10, out_shape=(5, 3))


def test_gin_id_masks_and_identifiers() -> None:
    torch.manual_seed(0)
    net = GINID(8, node_features=2).double()
    a, x = torch.rand(3, 6, 6, dtype=torch.float64), torch.randn(3, 6, 2, dtype=torch.float64)
    padded_a, padded_x = a.new_full((3, 8, 8), float("nan")), x.new_full((3, 8, 2), float("nan"))
    padded_a[:, :6, :6], padded_x[:, :6] = a, x
    mask = (torch.arange(8) < 6).expand(3, -1)
    torch.testing.assert_close(net(padded_a, padded_x, mask), net(a, x), rtol=0, atol=1e-12)
    order = torch.randperm(6)
    assert (net(a[:, order][:, :, order], x[:, order]) - net(a, x)).abs().max() > 1e-2
    assert GINID(8, head=(10,), out_features=1)(torch.ones(2, 6, 6)).shape == (2, 1)
    with pytest.raises(ValueError, match="adjacency"):
        net(torch.ones(1, 9, 9))
