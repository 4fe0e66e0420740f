"""A net of p in a narrower dtype than the inputs: the fallback decides what it cannot tell apart, and says so."""

import pytest
import torch
from torch import nn

import probsym as ps
from cases import randn, seeded

DTYPES = [(torch.float32, torch.float64), (torch.bfloat16, torch.float32), (torch.float16, torch.float32)]
FAMILIES = [ps.O, ps.SO, ps.E, ps.SE]


def ring(n, height):
    angle = torch.arange(n, dtype=torch.float64) * 2 * torch.pi / n
    return torch.stack([angle.cos(), angle.sin(), torch.full_like(angle, height)], -1)


SHAPES = {
    "ammonia": torch.cat([ring(3, 0.0), torch.tensor([[0, 0, 0.4]], dtype=torch.float64)]),
    "ethane, twisted": torch.cat([ring(3, 1.1), -ring(3, 1.0)]),
    "hcn": torch.tensor([[0, 0, 0], [0, 0, 1.1], [0, 0, -1.3]], dtype=torch.float64),
}


class Ignored(nn.Module):
    def forward(self, pos, batch=None):
        return pos


@pytest.mark.parametrize(("narrow", "wide"), DTYPES)
@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("permuted", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_default_net_at_symmetric_molecules(family, permuted, ragged, narrow, wide):
    """Either degenerate, or the same pose however the molecule is turned."""
    name = {"batch": "batch"} if ragged else {}
    nodes = ps.S("nodes", **name) if permuted else ps.Axis("nodes", **name)
    points = ps.Rep(nodes, family(3, "space"))
    phi = ps.symmetrize(Ignored(), {"pos": points}, points, "canonical").eval()

    for shape in SHAPES.values():
        turn = ps.SO(3).haar((4,), generator=seeded(1), dtype=torch.float64).matrix
        pos = (shape @ turn.mT).to(wide)
        call = {"pos": pos}
        if ragged:
            call = {"pos": pos.flatten(0, 1), "batch": torch.arange(4).repeat_interleave(len(shape))}
        phi(**call)  # makes the lazy net
        nets = [m for m in phi.distribution.modules() if hasattr(m, "reads_only")]
        for net in nets:
            net.to(narrow)
        flags = phi.estimate(**call, samples=2).aux["degenerate"]
        assert nets
        assert flags == 4, "the axis of the molecule is all that an equivariant net can know"


class Columns(nn.Module):
    """Columns (B, 3, 3) of rank r, and scores of which two are equal, but for rounding of a dtype."""

    def __init__(self, nodes, space, rank, kind):
        super().__init__()
        self.nodes, self.space, self.rank, self.kind = nodes, space, rank, kind

    def forward(self, pos):
        mix = randn(self.rank, 3, seed=3).to(pos)
        columns = pos[:, : self.rank].mT @ mix
        scores = pos.square().sum(-1) + torch.tensor([0.0, 0.0, 7.0, 13.0]).to(pos)
        return {self.space: columns.to(self.kind), self.nodes: scores.to(self.kind)}


@pytest.mark.parametrize(("narrow", "wide"), DTYPES)
@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("family", [ps.O, ps.SO])
def test_features_of_a_net_of_ones_own(family, rank, narrow, wide):
    """Ties and missing columns are found at the precision of the net; what is certain stays, gradients included."""
    nodes, space = ps.S("nodes"), family(3, "space")
    points = ps.Rep(nodes, space)
    net = Columns(nodes, space, rank, narrow)
    phi = ps.symmetrize(Ignored(), {"pos": points}, points, ps.Canonical(net, nodes * space)).eval()
    pos = randn(1, 4, 3, seed=5)
    pos = pos / pos.norm(dim=-1, keepdim=True)  # all scores differ by the shift alone, two of them by rounding
    turn = space.haar((8,), generator=seeded(1), dtype=torch.float64).matrix
    pos = (pos @ turn.mT).to(wide).requires_grad_()
    x = phi.bind((), {"pos": pos})
    z = phi.distribution.net_features(x)
    lacking = 3 - rank if family is ps.O else max(2 - rank, 0)
    assert (space.degenerate(z[space]) == (lacking > 0)).all()
    assert x.stored(nodes).degenerate(z[nodes]).all()
    columns = net(pos)[space].to(wide)
    tolerance = 20 * torch.finfo(narrow).eps
    assert (z[space] - columns).abs().max() < tolerance * columns.abs().max()
    (gradient,) = torch.autograd.grad(z[space].square().sum(), pos)
    assert torch.isfinite(gradient).all()
    order = phi.distribution.transport(x, phi.distribution.noise(x, (16,), seeded(3)))[nodes].index
    assert (order[..., 2:] == torch.tensor([2, 3])).all(), "scores that differ are not tied"
    assert 0 < (order[..., 0] == 0).float().mean() < 1, "equal scores are ordered by the fallback"


def test_the_same_dtype_is_left_alone():
    nodes, space = ps.S("nodes"), ps.SO(3, "space")
    points = ps.Rep(nodes, space)
    net = Columns(nodes, space, 1, torch.float64)
    x = ps.symmetrize(Ignored(), {"pos": points}, points, ps.Canonical(net, nodes * space)).bind(
        (), {"pos": randn(2, 4, 3)}
    )
    z = ps.Canonical(net, nodes * space).net_features(x)
    found = net(randn(2, 4, 3))
    assert torch.equal(z[space], found[space])
    assert torch.equal(z[nodes], found[nodes])
