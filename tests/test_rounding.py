"""Rounding is told from errors: outputs that vanish, far clouds, steep potentials pass; small errors do not."""

import pytest
import torch
from torch import nn

import probsym as ps
from cases import SETTINGS, randn, seeded
from probsym.testing import assert_equivariant, equivariance_error

ATOMS, SPACE = ps.Axis("atoms"), ps.E(3)
POINTS = ps.Rep(ATOMS, SPACE)
KINDS = [torch.float32, torch.float64]


class Forces(nn.Module):
    """Forces of pairs, which add up to zero: their sum is rounding."""

    def __init__(self, power=1, size=1.0):
        super().__init__()
        self.power, self.size = power, nn.Parameter(torch.tensor(size))

    def forward(self, pos):
        away = pos[:, :, None] - pos[:, None]
        square = away.square().sum(-1, keepdim=True) + 0.1
        return self.size * (away / square**self.power).sum(2)


class Net(nn.Module):
    """The sum of the forces."""

    def __init__(self, *args):
        super().__init__()
        self.forces = Forces(*args)

    def forward(self, pos):
        return self.forces(pos).sum(1)


def cloud(kind, b=2, n=7, far=0.0):
    return (randn(b, n, 3) + far).to(kind)


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e8])
@pytest.mark.parametrize("b", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_outputs_that_vanish_pass(kind, b, size):
    """Whatever their unit, from modules and from functions."""
    x, forces = cloud(kind, b), Forces(3, size).to(kind)
    model = Net(3, size).to(kind)
    assert model(x).abs().max() > 0
    report = assert_equivariant(model, x, POINTS, ps.Rep(SPACE.vector))
    assert report.samples == 0
    assert report.error <= report.tolerance

    def function(pos):
        away = size * (pos[:, :, None] - pos[:, None])
        return away.pow(3).sum((1, 2)), away.norm(dim=-1).sum((1, 2))[:, None]

    nodes = ps.Rep(ps.S("atoms"), None)  # permutations change the order of the sums
    assert_equivariant(function, x, nodes, (ps.Rep(None), ps.Rep()))
    assert not equivariance_error(forces, x, POINTS, ps.Rep(ATOMS, SPACE.vector, SPACE.det)).passed


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("distribution", ["haar", "learned", "frame"])
def test_symmetrized_models_whose_outputs_vanish_pass(kind, distribution):
    """At random and exactly: what is averaged is rounding."""
    nodes = ps.S("nodes")
    model, rep = Net(2).to(kind), ps.Rep(nodes, SPACE)
    phi = ps.symmetrize(model, rep, ps.Rep(SPACE.vector), distribution, example=cloud(kind)).to(kind).eval()
    for seed in range(3):
        assert_equivariant(phi, cloud(kind), samples=64, generator=seeded(seed))


@pytest.mark.parametrize("kind", KINDS)
def test_a_vanishing_output_hides_no_wrong_one(kind):
    class Both(nn.Module):
        def __init__(self, wrong):
            super().__init__()
            self.net, self.forces, self.wrong = Net(2), Forces(2), wrong

        def forward(self, pos):
            off = self.wrong * torch.arange(3).to(pos)
            return {"net": self.net(pos), "forces": self.forces(pos) + off}

    spec = {"net": ps.Rep(SPACE.vector), "forces": ps.Rep(ATOMS, SPACE.vector)}
    assert_equivariant(Both(0.0).to(kind), cloud(kind), POINTS, spec)
    report = equivariance_error(Both(1e-2).to(kind), cloud(kind), POINTS, spec)
    assert not report.passed
    assert "forces" in report.where


@pytest.mark.parametrize("size", [1e-12, 1.0, 1e12])
@pytest.mark.parametrize(("kind", "off"), [(torch.float32, 1e-3), (torch.float64, 1e-9)])
@pytest.mark.parametrize("kind_of_error", ["added", "scaled", "bent"])
def test_small_errors_are_found(kind, off, kind_of_error, size):
    """A thousandth in single precision, a billionth in double, in any unit."""

    class Off(nn.Module):
        def __init__(self):
            super().__init__()
            self.forces = Forces(2, size)

        def forward(self, pos):
            y = self.forces(pos)
            axes, own = torch.arange(1, 4).to(pos), y.square().mean().sqrt()
            if kind_of_error == "added":
                return y + off * own * axes / 2
            return y * (1 + off * axes) if kind_of_error == "scaled" else y + off * own * (pos * axes).sin()

    rep = ps.Rep(ATOMS, SPACE.vector)
    for b in (1, 3):
        report = equivariance_error(Off().to(kind), cloud(kind, b), POINTS, rep)
        assert not report.passed, report
        assert report.error > off / 20
    assert_equivariant(Forces(2, size).to(kind), cloud(kind), POINTS, rep)


@pytest.mark.parametrize("far", [1e2, 1e4, 1e5])
@pytest.mark.parametrize("output", ["invariant", "vectors", "points"])
def test_far_clouds_pass_in_single_precision(far, output):
    """Their coordinates have lost digits, which the input loses again when it is moved."""

    class Model(nn.Module):
        def forward(self, pos):
            away = pos[:, :, None] - pos[:, None]
            if output == "invariant":
                return away.square().sum(-1).tanh().sum((1, 2))[:, None]
            pull = (away * away.square().sum(-1, keepdim=True).tanh()).mean(2)
            return pull if output == "vectors" else pos + pull

    rep = {"invariant": ps.Rep(), "vectors": ps.Rep(ATOMS, SPACE.vector), "points": POINTS}[output]
    assert_equivariant(Model(), cloud(torch.float32, far=far), POINTS, rep)
    assert_equivariant(Model(), cloud(torch.float64, far=far), POINTS, rep)

    class Off(Model):
        def forward(self, pos):
            return super().forward(pos) + (0.3 * torch.arange(1.0, 4) if output != "invariant" else pos[:, 0, :1].sin())

    assert not equivariance_error(Off(), cloud(torch.float32, far=far), POINTS, rep).passed
    assert not equivariance_error(Off(), cloud(torch.float64, far=far), POINTS, rep).passed


@pytest.mark.parametrize("kind", KINDS)
def test_steep_potentials_pass(kind):
    """r^-12 multiplies the rounding of the positions by twelve times their size over the distance."""

    class Steep(nn.Module):
        def forward(self, pos):
            away = pos[:, :, None] - pos[:, None] + torch.eye(pos.shape[1]).to(pos)[..., None]
            energy = (1e-2 / away.square().sum(-1)).pow(6)
            return (energy * (1 - torch.eye(pos.shape[1]).to(pos))).sum((1, 2))[:, None]

    x = cloud(kind)
    x[:, 1] = x[:, 0] + 3e-3  # ten thousand times the digits of the distance
    assert_equivariant(Steep(), x, ps.Rep(ATOMS, ps.SO(3)), ps.Rep())

    class Off(Steep):
        def forward(self, pos):
            return super().forward(pos) * (1 + 0.05 * pos[:, 0, :1].tanh())

    assert not equivariance_error(Off(), x, ps.Rep(ATOMS, ps.SO(3)), ps.Rep()).passed


class FirstOfTies(nn.Module):
    """The node of the smallest score, the first of equal ones: not equivariant where scores are equal."""

    def forward(self, x):
        return x[torch.arange(len(x)), x[..., 0].argmin(1)]


class Nearest(nn.Module):
    """The point nearest to the centroid: rounding decides among the corners of a cube."""

    def forward(self, pos):
        away = (pos - pos.mean(1, keepdim=True)).square().sum(-1)
        return pos[torch.arange(len(pos)), away.argmin(1)]


@pytest.mark.parametrize("far", [0.0, 1e4])
@pytest.mark.parametrize("kind", KINDS)
def test_jumps_are_no_rounding(kind, far):
    """Where rounding decides, the answer to the last digits is as large as the output: no excuse."""
    x = randn(3, 5, 2).to(kind)
    equal = torch.cat([torch.ones_like(x[..., :1]), x[..., 1:]], -1)
    nodes = ps.Rep(ps.S("nodes"))
    assert not equivariance_error(FirstOfTies(), equal, nodes, ps.Rep()).passed
    assert_equivariant(FirstOfTies(), x, nodes, ps.Rep())
    cube = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 3).expand(2, 8, 3).to(kind)
    assert not equivariance_error(Nearest(), cube + far, POINTS, ps.Rep(SPACE)).passed
    assert_equivariant(Nearest(), cloud(kind) + far, POINTS, ps.Rep(SPACE))


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_half_precision_of_the_outputs_counts(kind):
    """Inputs in single, outputs in half: 2 % passes, 10 % does not."""

    class Half(nn.Module):
        def __init__(self, off=0.0):
            super().__init__()
            self.forces, self.off = Forces(), off

        def forward(self, pos):
            return (self.forces(pos) * (1 + self.off * torch.arange(3))).to(kind)

    x, rep = cloud(torch.float32), ps.Rep(ATOMS, SPACE.vector)
    assert_equivariant(Half(), x, POINTS, rep)
    assert not equivariance_error(Half(0.1), x, POINTS, rep).passed


def test_single_precision_of_the_outputs_counts():
    """Inputs in double, outputs in single."""
    x, rep = cloud(torch.float64), ps.Rep(ATOMS, SPACE.vector)
    assert_equivariant(lambda pos: Forces()(pos.float()), x, POINTS, rep)
    assert not equivariance_error(
        lambda pos: Forces()(pos).float() * (1 + 1e-3 * torch.arange(3)), x, POINTS, rep
    ).passed


def test_a_given_tolerance_is_taken_as_it_is():
    x, rep = cloud(torch.float32), ps.Rep(ATOMS, SPACE.vector)
    off = lambda pos: Forces()(pos) * (1 + 1e-3 * torch.arange(3))  # noqa: E731
    assert assert_equivariant(off, x, POINTS, rep, tolerance=1e-2).tolerance == 1e-2
    close, turned = x.clone(), ps.Rep(ATOMS, ps.SO(3))
    close[:, 1] = close[:, 0] + 3e-3
    steep = lambda pos: (pos[:, 1] - pos[:, 0]).square().sum(-1, keepdim=True).pow(-6)  # noqa: E731
    assert_equivariant(steep, close, turned, ps.Rep())
    assert not equivariance_error(steep, close, turned, ps.Rep(), tolerance=1e-5).passed
    assert_equivariant(Net(), x, POINTS, ps.Rep(SPACE.vector), tolerance=1e-9)  # but nothing is nothing


@pytest.mark.parametrize("kind", KINDS)
def test_nearly_equivariant_models_at_random(kind):
    """A base that is equivariant leaves Monte Carlo no noise but rounding, near and far; one off by more is found."""
    rep = ps.Rep(ATOMS, SPACE.vector)
    for far in (0.0, 1e4):
        phi = ps.symmetrize(Forces(2).to(kind), POINTS, rep, "haar").eval()
        for seed in range(3):
            assert_equivariant(phi, cloud(kind, far=far), samples=64, generator=seeded(seed))

    def off(pos):
        right = Forces(2).to(kind)(pos)
        return right * (1 + 1e-2 * torch.arange(3)) + 1e-3 * torch.randn(pos.shape, generator=NOISE)

    assert not equivariance_error(off, cloud(kind), POINTS, rep).passed


NOISE = seeded(3)


@pytest.mark.parametrize("setting", ["S x E(3)", "padded S x E(3)", "ragged S x E(3)"])
def test_canonical_models_in_single_precision_need_no_tolerance_of_their_own(setting):
    """A net's frame may be ill-conditioned: its answer to the last digits says how much."""
    s = SETTINGS[setting](kind=torch.float32)
    assert_equivariant(s.symmetrized("canonical"), s.call, generator=seeded(1))
