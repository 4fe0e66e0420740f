"""Members that a reader of the guides wrote: each passes its checkers, trains, and comes back from a folder."""

import math

import pytest
import torch
from tests.stranger.lorentz import Lorentz, dot, velocity
from tests.stranger.near_rest import NearRest, Sums
from tests.stranger.unitary import U2, TwoSums
from tests.stranger.weighted_frame import PairFrame
from torch import nn

import probsym as ps


class Net(nn.Module):
    """A model that knows nothing of groups: (B, ...) to (B, *shape), complex numbers as pairs."""

    def __init__(self, size, *shape, is_complex=False):
        super().__init__()
        self.shape = (*shape, 2) if is_complex else shape
        self.net = nn.Sequential(nn.Linear(size, 32), nn.Tanh(), nn.Linear(32, math.prod(self.shape))).double()

    def forward(self, **named):
        (x,) = named.values()
        if not x.is_complex():
            return self.net(x.flatten(1)).unflatten(1, self.shape)
        return torch.view_as_complex(self.net(torch.view_as_real(x).flatten(1)).unflatten(1, self.shape))


def lorentz(batch):
    group = Lorentz("spacetime")
    mass = 0.5 + torch.rand(batch, 3, 1, dtype=torch.float64)
    x = mass * velocity(torch.randn(batch, 3, 3, dtype=torch.float64) / 2)
    y = (dot(x, x)[..., None] * x).sum(1)
    p = NearRest(Sums().double(), group, 0.3)
    inputs = {"momenta": ps.Rep(None, group)}
    return group, p, lambda: Net(12, 4), inputs, ps.Rep(group), {"momenta": x}, y, ps.MonteCarlo(1)


def unitary(batch):
    group = U2("spin")
    x = torch.randn(batch, 3, 2, dtype=torch.complex128)
    y = (x.abs().square().sum(-1, keepdim=True) * x).mean(1)
    p = ps.Learned(TwoSums().double(), group)
    return (
        group,
        p,
        lambda: Net(12, 2, is_complex=True),
        {"spinors": ps.Rep(None, group)},
        ps.Rep(group),
        {"spinors": x},
        y,
        ps.MonteCarlo(1),
    )


def frame_of(space):
    def case(batch):
        nodes = ps.Axis("nodes")
        x = torch.randn(batch, 3, space.dim, dtype=torch.float64)
        y = x * x.square().sum((1, 2), keepdim=True)
        rep = ps.Rep(nodes, space)
        return (
            space,
            PairFrame(space, nodes),
            lambda: Net(3 * space.dim, 3, space.dim),
            {"pos": rep},
            rep,
            {"pos": x},
            y,
            ps.Exact(),
        )

    return case


FRAMES = [ps.O(2, "space"), ps.SO(2, "space"), ps.SO(3, "space")]
CASES = [
    pytest.param(lorentz, id="lorentz"),
    pytest.param(unitary, id="unitary"),
    *[pytest.param(frame_of(space), id=f"frame-{space!r}") for space in FRAMES],
]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def loss_of(phi, x, y):
    return (phi(**x, generator=seeded()) - y).abs().square().mean()


@pytest.mark.parametrize("case", CASES)
def test_passes_the_checkers(case):
    group, p, model, inputs, output, x, _, estimator = case(4)
    ps.testing.assert_group(group)
    ps.testing.assert_distribution(p, x, inputs)
    phi = ps.symmetrize(model(), inputs, output, p, eval_samples=estimator).eval()
    assert phi.estimate(**x).mean.isfinite().all()
    ps.testing.assert_equivariant(phi, x)


@pytest.mark.parametrize("case", CASES)
def test_trains_and_comes_back_from_a_folder(case, tmp_path):
    _, p, model, inputs, output, x, y, estimator = case(32)
    many = estimator if isinstance(estimator, ps.Exact) else ps.MonteCarlo(32)
    phi = ps.symmetrize(model(), inputs, output, p, train_samples=estimator, eval_samples=many)
    with torch.no_grad():
        before = loss_of(phi.eval(), x, y)
    optimizer = torch.optim.Adam(phi.parameters(), lr=1e-2)
    phi.train()
    for step in range(20):
        loss = (phi(**x, generator=seeded(step)) - y).abs().square().mean()
        optimizer.zero_grad()
        loss.backward()
        assert all(w.grad.isfinite().all() for w in phi.parameters())
        optimizer.step()
    with torch.no_grad():
        assert loss_of(phi.eval(), x, y) < 0.95 * before

    ps.save(phi, tmp_path / "model")
    again = ps.load(tmp_path / "model", model=model()).eval()
    assert again.eval_estimator == phi.eval_estimator
    assert torch.equal(again(**x, generator=seeded()), phi(**x, generator=seeded()))


def test_the_law_moves_where_momenta_do_not_determine_a_frame():
    _, p, model, inputs, output, x, _, _ = lorentz(2)
    x = {"momenta": x["momenta"][:, :1].expand(-1, 3, -1).clone()}  # one direction of spacetime only
    ps.testing.assert_equivariant(ps.symmetrize(model(), inputs, output, p, eval_samples=8).eval(), x)


@pytest.mark.parametrize("space", FRAMES, ids=repr)
def test_frames_of_every_cloud(space):
    _, p, model, inputs, output, x, _, estimator = frame_of(space)(2)
    pos = x["pos"]
    line, twice, zero = pos[:, :1] * torch.tensor([-1.0, 1, 2])[:, None], pos.clone(), torch.zeros_like(pos)
    twice[:, 1], twice[:, 2] = twice[:, 0], 0
    phi = ps.symmetrize(model(), inputs, output, p, eval_samples=estimator).eval()
    for cloud in (line, twice, zero):
        ps.testing.assert_distribution(p, {"pos": cloud}, inputs)
        ps.testing.assert_equivariant(phi, {"pos": cloud})


@pytest.mark.parametrize("space", FRAMES, ids=repr)
def test_no_jump_where_two_points_get_in_line(space):
    _, p, model, inputs, output, x, _, estimator = frame_of(space)(2)
    phi = ps.symmetrize(model(), inputs, output, p, eval_samples=estimator).eval()
    sides = []
    for shift in (-1e-7, 1e-7):
        pos = x["pos"].clone()
        pos[:, 1] = 2 * pos[:, 0]
        pos[:, 1, 0] += shift
        sides.append(phi(pos=pos))
    assert torch.allclose(*sides, atol=1e-5)


def test_haar_is_refused_and_not_suggested_for_a_group_that_has_none():
    group = Lorentz("spacetime")
    with pytest.raises(ValueError, match=r"not compact .* learn one with a NetDistribution"):
        ps.Haar(group)
    with pytest.raises(ValueError, match="no default net orients by") as refused:
        ps.symmetrize(Net(12, 4), ps.Rep(None, group), ps.Rep(group), "learned")
    assert "Haar" not in str(refused.value)
    with pytest.raises(ValueError, match=r"no default net orients by .* or use Haar"):
        ps.symmetrize(Net(4, 2), ps.Rep(U2("spin")), ps.Rep(U2("spin")), "learned")
