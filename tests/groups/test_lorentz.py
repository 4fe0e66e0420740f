"""SO+(1, 3) and what keeps a beam: axioms, precision at large boosts, light-like and parallel momenta."""

from dataclasses import dataclass

import pytest
import torch
from torch import nn

import probsym as ps
from probsym.groups.lorentz import FourVector, LorentzElement, boost_to, four_velocity, minkowski
from probsym.groups.orthogonal import rotate
from probsym.testing import assert_group, assert_slot, equivariance_error

GROUPS = [ps.Lorentz(), ps.Lorentz("beam", name="spacetime")]
ETA = torch.diag(torch.tensor([1.0, -1, -1, -1], dtype=torch.float64))


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=1):
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def elements(group, *shape, seed=0):
    z = group.draw_features(shape, generator=seeded(seed), dtype=torch.float64)
    return group.project(z, normal(*shape, 3, 4))


# ---------------------------------------------------------------- the group


@pytest.mark.parametrize("group", GROUPS, ids=repr)
def test_axioms(group):
    assert_group(group)
    assert_slot(group.vector)
    g = elements(group, 50)
    assert torch.allclose(g.matrix.mT @ ETA @ g.matrix, ETA.expand(50, 4, 4), atol=1e-10)
    assert (g.matrix[:, 0, 0] >= 1).all()
    assert torch.allclose(torch.linalg.det(g.matrix), torch.ones(50, dtype=torch.float64))


def test_names():
    with pytest.raises(ValueError, match="about: expected None or 'beam', got 'z'"):
        ps.Lorentz("z")
    assert (repr(ps.Lorentz()), repr(GROUPS[1])) == ("Lorentz()", "Lorentz('beam', name='spacetime')")
    assert ps.Lorentz() != ps.Lorentz("beam")
    with pytest.raises(ValueError, match="not compact"):
        ps.Lorentz().haar((2,))


def test_what_keeps_the_beam():
    """The z axis of E and pz, and the plane across, are not mixed; pT and z^2 - t^2 stay."""
    g = elements(GROUPS[1], 20)
    assert (g.matrix[:, 0, 1:3] == 0).all()
    assert (g.matrix[:, 1:3, 3] == 0).all()
    p = normal(20, 4)
    q = ps.Rep(GROUPS[1]).act(g, p)
    assert torch.allclose(q[:, 1:3].norm(dim=1), p[:, 1:3].norm(dim=1))
    assert torch.allclose(q[:, 0].square() - q[:, 3].square(), p[:, 0].square() - p[:, 3].square())
    assert GROUPS[1].violation(LorentzElement(GROUPS[1], elements(GROUPS[0], 20).matrix)).min() > 0.01


@dataclass(frozen=True, repr=False)
class Galilean(ps.Lorentz):
    """Projects on boosts that keep time: x -> x + v t."""

    def project(self, z, fallback):
        matrix = super().project(z, fallback).matrix.clone()
        matrix[..., 0, :] = torch.tensor([1.0, 0, 0, 0])
        matrix[..., 1:, 1:] = torch.eye(3, dtype=matrix.dtype)
        return LorentzElement(self, matrix)


@dataclass(frozen=True, repr=False)
class WrongMetric(ps.Lorentz):
    """Inverts as if the metric were that of space: by the transpose."""

    def inverse(self, g):
        return LorentzElement(self, g.matrix.mT)


@dataclass(frozen=True, repr=False)
class Inverted(FourVector):
    """Acts by the inverse."""

    def act(self, g, x, axis, shared_dims):
        return rotate(self.group.inverse(g).matrix, x, axis, shared_dims)


def test_what_is_no_lorentz_group_is_rejected():
    with pytest.raises(AssertionError, match=r"must hold its elements|inverse"):
        assert_group(Galilean())
    with pytest.raises(AssertionError, match="inverse"):
        assert_group(WrongMetric())
    with pytest.raises(AssertionError, match=r"action .ab.x"):
        assert_slot(Inverted(ps.Lorentz()))
    group = ps.Lorentz()
    for wrong in (-torch.eye(4), torch.diag(torch.tensor([1.0, 1, 1, -1])), torch.diag(torch.tensor([-1.0, -1, 1, 1]))):
        assert group.violation(LorentzElement(group, wrong)) >= 1
    galilean = torch.eye(4)
    galilean[1:, 0] = 0.3
    assert group.violation(LorentzElement(group, galilean)) > 0.05


def test_the_checker_knows_the_metric():
    """The mass of a sum is invariant; the same with all signs plus, and a mass from E and p of one beam, are not."""
    group = ps.Lorentz()
    p = four_velocity(normal(4, 3, 3)).clone()
    rep = ps.Rep(None, group)
    mass = lambda p: minkowski(p.sum(1), p.sum(1))  # noqa: E731
    assert equivariance_error(mass, p, rep, ps.Rep()).passed
    assert not equivariance_error(lambda p: p.sum(1).square().sum(-1), p, rep, ps.Rep()).passed
    transverse = lambda p: p.sum(1)[:, 1:3].norm(dim=-1)  # noqa: E731
    assert not equivariance_error(transverse, p, rep, ps.Rep()).passed
    assert equivariance_error(transverse, p, ps.Rep(None, ps.Lorentz("beam")), ps.Rep()).passed


# ---------------------------------------------------------------- project


@pytest.mark.parametrize("group", GROUPS, ids=repr)
@pytest.mark.parametrize("reversed_time", [False, True])
def test_the_first_time_like_column_comes_to_rest(group, reversed_time):
    z = group.draw_features((20,), generator=seeded(), dtype=torch.float64)
    z = z[..., [1, 0, 2]]
    z[:, :, 0] = 0  # passed over
    if reversed_time:
        z[:, :, 1] = -z[:, :, 1]
    g = group.project(z, normal(20, 3, 4))
    seen = ps.Rep(group, None).act(g.inverse(), z)
    momentum = seen[:, :, 1]
    assert (momentum[:, 0] < 0 if reversed_time else momentum[:, 0] > 0).all()
    still = momentum[:, 1:] if group.about is None else momentum[:, 3:]
    assert still.abs().max() < 1e-12
    # the next one lies along the first axis
    if group.about is None:
        assert seen[:, 2:, 2].abs().max() < 1e-11
        assert (seen[:, 1, 2] > 0).all()
    else:
        assert seen[:, 2, 2].abs().max() < 1e-11


def light(*shape):
    """Momenta of massless particles."""
    p = normal(*shape, 3)
    return torch.cat([p.norm(dim=-1, keepdim=True), p], -1)


ONE = four_velocity(normal(3))
POOR = {
    "nothing": torch.zeros(4, 3, dtype=torch.float64),
    "one particle": ONE.unsqueeze(-1),
    "no column": torch.zeros(4, 0, dtype=torch.float64),
    "one light-like particle": light().unsqueeze(-1),
    "parallel": ONE.unsqueeze(-1) * torch.tensor([1.0, -2.0, 0.5]),
    "parallel light-like": light().unsqueeze(-1) * torch.tensor([1.0, -2.0, 0.5]),
    "light-like": light(3).mT,
    "light-like beside one with a mass": torch.stack([light(), ONE, light()], -1),
    "two in a plane with the beam": torch.tensor([[5.0, 0, 0, 4], [3, 0, 0, -1]], dtype=torch.float64).mT,
    "space-like": normal(3, 3).mT.new_zeros(4, 3).index_copy(0, torch.arange(1, 4), normal(3, 3)),
    "tiny": 1e-30 * torch.stack([ONE, light(), light()], -1),
    "huge": 1e30 * torch.stack([ONE, light(), light()], -1),
}


@pytest.mark.parametrize("name", POOR)
@pytest.mark.parametrize("group", GROUPS, ids=repr)
@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_every_rank_is_finite_with_a_finite_gradient(group, name, kind):
    z = POOR[name].to(kind).requires_grad_()
    fallbacks = normal(40, 3, 4).to(kind)
    g = group.project(z.expand(40, *z.shape), fallbacks)
    assert group.violation(g).max() < 1e-12
    random = bool((g.matrix - g.matrix[0]).abs().max() > 1e-12)
    assert bool(group.degenerate(z)) == random
    total = (g.matrix * normal(40, 4, 4)).sum() + 0 * z.sum()
    (slope,) = torch.autograd.grad(total, z)
    assert slope.isfinite().all()
    # noise added to it is finite as well
    noisy = group.add_noise(z, fallbacks, 1.0)
    assert noisy.isfinite().all()
    assert group.violation(group.project(noisy, fallbacks)).max() < 1e-12


@pytest.mark.parametrize("group", GROUPS, ids=repr)
@pytest.mark.parametrize("name", ["one particle", "parallel", "light-like beside one with a mass"])
def test_what_features_leave_open_turns_with_their_rest_frame(group, name):
    """project(h z, W fallback) = h project(z, fallback) with Wigner's rotation W, whose law is that of the noise."""
    z = POOR[name].expand(20, *POOR[name].shape)
    h, eps = elements(group, 20, seed=3), normal(20, 3, 4, seed=4)
    moved = ps.Rep(group, None).act(h, z)
    turned = group.move_noise(h, z, eps)
    assert torch.allclose(turned.mT @ turned, eps.mT @ eps)
    left, right = group.project(moved, turned), h @ group.project(z, eps)
    assert torch.allclose(left.matrix, right.matrix, rtol=1e-8, atol=1e-8)
    noisy = group.add_noise(moved, turned, 0.7), group.add_noise(z, eps, 0.7)
    left, right = group.project(noisy[0], turned), h @ group.project(noisy[1], eps)
    assert torch.allclose(left.matrix, right.matrix, rtol=1e-8, atol=1e-8)


# ---------------------------------------------------------------- precision


@pytest.mark.parametrize("gamma", [1e1, 1e3, 1e4])
@pytest.mark.parametrize("group", GROUPS, ids=repr)
def test_large_boosts_in_double_precision(group, gamma):
    """What is lost is the rounding of a momentum, eps gamma^2, as the docstring says; an inverse loses nothing."""
    u = torch.tensor([0.0, 0.0, (gamma**2 - 1) ** 0.5], dtype=torch.float64)
    h = LorentzElement(group, boost_to(four_velocity(u)))
    assert torch.equal(h.inverse().inverse().matrix, h.matrix)
    bound = 64 * torch.finfo(torch.float64).eps * gamma**2
    assert (h.inverse() @ h).matrix.sub(torch.eye(4)).abs().max() < bound
    z = group.draw_features((20,), generator=seeded(), dtype=torch.float64)
    eps = normal(20, 3, 4)
    left = group.project(ps.Rep(group, None).act(h.map(lambda m, _: m.expand(20, 4, 4)), z), eps)
    relative = h.inverse().matrix @ left.matrix
    assert (relative - group.project(z, eps).matrix).abs().max() < 100 * bound


def test_large_boosts_in_single_precision():
    """float32 knows a mass up to gamma = 724; beyond that a momentum counts as light-like and is degenerate."""
    group = ps.Lorentz("beam")
    for gamma, known in ((100.0, True), (600.0, True), (1e3, False), (1e4, False)):
        p = torch.tensor([gamma, 0.0, 0.0, (gamma**2 - 1) ** 0.5], dtype=torch.float64).float()
        g = group.project(torch.stack([p, torch.tensor([1.0, 1, 0, 0])], -1), torch.zeros(3, 4))
        assert bool(group.degenerate(p.unsqueeze(-1))) or known
        if known:
            seen = ps.Rep(group).act(g.inverse(), p)
            assert abs(float(seen[0]) - 1) < 4 * 1.2e-7 * gamma**2
    assert g.matrix.dtype == torch.float64


def test_half_precision_and_autocast():
    group = ps.Lorentz()
    g = elements(group, 8)
    x = four_velocity(normal(8, 3)).to(torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        moved = ps.Rep(group).act(g, x)
    assert moved.dtype == torch.bfloat16
    exact = torch.einsum("bij,bj->bi", g.matrix, x.double())
    assert torch.allclose(moved.double(), exact, rtol=0.01)


def test_distance_to_identity():
    group = ps.Lorentz()
    far = LorentzElement(
        group, boost_to(four_velocity(torch.tensor([[0.0, 0, 0], [0.1, 0, 0], [1, 0, 0], [99, 0, 0]])))
    )
    distance = group.distance_to_identity(far)
    assert distance[0] == 0
    assert (distance.diff() > 0).all()
    assert distance[-1] < 1


class Sum(nn.Module):
    """Three fixed sums of the momenta (B, N, 4), as columns."""

    def forward(self, momenta):
        weights = torch.tensor([[1.0, 1.0, 1.0], [1.0, -0.5, 0.3], [0.2, 0.1, -0.4]], dtype=momenta.dtype)
        return momenta.mT @ weights[:, : momenta.shape[1]].mT


def test_noise_that_would_not_move_is_refused_where_it_is_not_known_how():
    group = ps.Lorentz()
    assert isinstance(ps.Learned(Sum(), group), ps.Learned)
    with pytest.raises(ValueError, match="not compact and has no uniform distribution"):
        ps.Haar(group)
    with pytest.raises(ValueError, match="no frames are known for Lorentz"):
        ps.Frame(group)
