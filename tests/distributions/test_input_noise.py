"""Noise at the input leaves the origin of the elements at the centroid of the clean points, at every size."""

import pytest
import torch
from torch import nn

import probsym as ps
from cases import SETTINGS, randn, seeded
from probsym.distributions import DefaultNet
from probsym.distributions.geometry import centroid
from probsym.testing import assert_distribution

POINTS = ["E(2)", "SE(3)", "S x E(3)", "S x SE(2)", "padded S x E(3)", "ragged S x E(3)", "Axis x E(3)"]


def learned(s, scale=1.0, net=None):
    return ps.Learned(net or DefaultNet(s.inputs, s.group), s.group, "input", scale)


@pytest.mark.parametrize("samples", [1, 5])
@pytest.mark.parametrize("setting", POINTS)
def test_the_origin_is_the_clean_centroid(setting, samples):
    """Up to the rounding of a sum, at a noise that moves a naive centroid by about a third of the size."""
    s = SETTINGS[setting]()
    phi = s.symmetrized(learned(s))
    x = phi.bind((), s.call)
    g = phi.distribution.transport(x, phi.draw_noise(**s.call, samples=samples, generator=seeded()))
    for space in (f for f in s.group.factors if f.anchored):
        clean = centroid(x, space)
        assert (g[space].target - clean).abs().max() < 1e-13
        assert g[space].target.shape == (samples, x.count, space.dim)


@pytest.mark.parametrize("b", [1, 3])
def test_the_net_still_sees_noise(b):
    """Relative positions move by the noise; the mean of the points does not."""
    space, seen = ps.E(3), []

    class Looking(nn.Module):
        def forward(self, x):
            seen.append(x)
            return (x - x.mean(1, keepdim=True)).mT[..., :3]

    rep = ps.Rep(None, space)
    phi = ps.symmetrize(nn.Identity(), rep, rep, ps.Learned(Looking(), space, "input", 0.5)).eval()
    x = randn(b, 5, 3) + 2
    phi(x, samples=400, generator=seeded())
    moved = seen[0].view(400, b, 5, 3) - x
    size = (x - x.mean(1, keepdim=True)).square().sum((1, 2)).div(5).sqrt()
    assert moved.mean(2).abs().max() < 1e-14
    spread = moved.std(0).mean((1, 2)) / size
    assert torch.allclose(spread, torch.full((b,), 0.5 * (4 / 5) ** 0.5).double(), rtol=0.05)


@pytest.mark.parametrize("setting", POINTS)
def test_noise_at_the_input_moves_with_the_input(setting):
    s = SETTINGS[setting]()
    assert_distribution(learned(s, 0.3), s.call, s.inputs)


def test_two_clouds_have_one_centroid():
    """Points of several arguments, a lone point and vectors among them: one origin for all, and vectors are free."""
    space = ps.E(2)
    inputs = {"a": ps.Rep(None, space), "b": ps.Rep(space), "v": ps.Rep(space.vector)}
    call = {"a": randn(3, 4, 2), "b": randn(3, 2) + 5, "v": randn(3, 2)}

    class Net(nn.Module):
        def forward(self, a, b, v):
            return torch.stack([a[:, 0] - b, v], -1)

    class Model(nn.Module):
        def forward(self, a, b, v):
            return b

    phi = ps.symmetrize(Model(), inputs, ps.Rep(space), ps.Learned(Net(), space, "input")).eval()
    g = phi.distribution.transport(phi.bind((), call), phi.draw_noise(**call, samples=7, generator=seeded()))
    clean = torch.cat([call["a"], call["b"][:, None]], 1).mean(1)
    assert (g.target - clean).abs().max() < 1e-14
    assert_distribution(phi, call)


@pytest.mark.parametrize("noise", ["late", "input"])
@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [1e-25, 1e-19, 1.0, 1e19, 1e25])
def test_sizes_whose_squares_are_out_of_range(size, kind, noise):
    """The noise knows the size of the cloud where its square is zero or infinite."""
    space, x = ps.E(3), randn(2, 5, 3)

    class Columns(nn.Module):
        def forward(self, x):
            away = x - x.mean(1, keepdim=True)
            return (away / away.abs().amax((1, 2), keepdim=True)).mT[..., :3]

    rep = ps.Rep(None, space)
    phi = ps.symmetrize(nn.Identity(), rep, rep, ps.Learned(Columns(), space, noise)).eval()
    noise = phi.draw_noise(x.to(kind), samples=3, generator=seeded())
    plain, scaled = (
        phi.distribution.transport(phi.bind(((factor * x).to(kind),), {}), noise) for factor in (1.0, size)
    )
    eps = torch.finfo(kind).eps
    assert scaled.matrix.isfinite().all()
    assert (scaled.matrix - plain.matrix).abs().max() < 1e4 * eps
    assert (scaled.target / size - plain.target).abs().max() < 100 * eps


def test_coincident_points_have_noise_of_size_one():
    """Nothing tells their size; the noise is finite and the origin right."""
    s = SETTINGS["S x E(3)"]()
    s.call["pos"] = torch.full_like(s.call["pos"], 7.0)
    phi = s.symmetrized(learned(s))
    g = phi.distribution.transport(phi.bind((), s.call), phi.draw_noise(**s.call, samples=4, generator=seeded()))
    assert (g[ps.E(3)].target - 7).abs().max() < 1e-13
    assert g[ps.E(3)].matrix.isfinite().all()


def test_vectors_on_the_edges_of_ragged_graphs():
    """They are as long as there are edges, not nodes."""
    nodes, space = ps.S("nodes", batch="batch"), ps.E(2)
    inputs = {
        "pos": ps.Rep(nodes, space),
        "away": ps.Rep(nodes.edges, space.vector),
        "edge_index": ps.Rep(nodes.labels),
    }
    edges = torch.tensor([[0, 1, 2], [1, 0, 3]])
    call = {
        "pos": randn(4, 2) + 3, "away": randn(3, 2), "edge_index": edges, "batch": torch.tensor([0, 0, 1, 1]),
    }  # fmt: skip

    class Net(nn.Module):
        def forward(self, pos, away, edge_index, batch):
            total = torch.zeros(int(batch.max()) + 1, 2, dtype=pos.dtype).index_add(0, batch[edge_index[0]], away)
            first = torch.zeros_like(total).index_add(0, batch, pos.pow(3))
            return {nodes: pos[:, 0] * 0 + torch.arange(len(pos)), space: torch.stack([total, first], -1)}

    class Model(nn.Module):
        def forward(self, pos, away, edge_index, batch):
            return pos

    p = ps.Learned(Net(), nodes * space, "input")
    phi = ps.symmetrize(Model(), inputs, ps.Rep(nodes, space), p).eval()
    g = phi.distribution.transport(phi.bind((), call), phi.draw_noise(**call, samples=3, generator=seeded()))
    clean = torch.stack([call["pos"][:2].mean(0), call["pos"][2:].mean(0)])
    assert (g[space].target - clean).abs().max() < 1e-13


def test_padding_stays_zero():
    """A net of one's own that adds up all rows sees none that are not there."""
    nodes, space, seen = ps.S("nodes", mask="mask"), ps.E(3), []

    class Looking(nn.Module):
        def forward(self, pos, pairs, h, mask):
            seen.append((pos, pairs, h, mask))
            return {nodes: h.sum(-1), space: (pos - pos[:, :1]).mT @ pairs @ pos}

    class Model(nn.Module):
        def forward(self, pos, pairs, h, mask):
            return h.sum((1, 2))

    spec = {"pos": ps.Rep(nodes, space), "pairs": ps.Rep(nodes, nodes), "h": ps.Rep(nodes)}
    phi = ps.symmetrize(Model(), spec, ps.Rep(), ps.Learned(Looking(), nodes * space, "input")).eval()
    mask = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]).bool()
    phi(pos=randn(3, 4, 3) + 5, pairs=randn(3, 4, 4), h=randn(3, 4, 2), mask=mask, samples=2)
    pos, pairs, h, mask = seen[0]
    assert not pos[~mask].any()
    assert not h[~mask].any()
    assert not pairs[~(mask[:, :, None] & mask[:, None])].any()
    assert pos[mask].all()
