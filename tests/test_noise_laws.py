"""The law of the noise is the distribution's own: boosts leave it alone, unitary matrices turn complex noise."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

import probsym as ps
from cases import seeded
from probsym.distributions.base import ProjectedDistribution, draw_options
from probsym.distributions.learned import NetDistribution
from probsym.groups import Element, Group, Slot
from probsym.testing import assert_distribution, assert_equivariant, assert_group, equivariance_error

# ---------------------------------------------------------------- the Lorentz group, which is not compact

METRIC = torch.diag(torch.tensor([1.0, -1.0, -1.0, -1.0], dtype=torch.float64))


@dataclass(frozen=True, eq=False)
class Matrix(Element):
    matrix: Tensor = torch.empty(0, 0)
    trailing_dims: ClassVar[dict[str, int]] = {"matrix": 2}


@dataclass(frozen=True)
class FourVector(Slot):
    @property
    def sizes(self):
        return (4,)

    def act(self, g, x, axis, shared_dims):
        return ps.groups.orthogonal.rotate(g.matrix, x, axis, shared_dims)


@dataclass(frozen=True)
class ProperLorentz(Group):
    """Boosts and rotations of four-vectors: features are four-vectors, and the noise stays."""

    name: str | None = None

    defining = property(lambda self: FourVector(self))
    compact = property(lambda self: False)
    feature_slots = property(lambda self: (self.defining, None))
    noise_slots = property(lambda self: (None, None))

    def identity(self, shape=(), n=None, **options):
        return Matrix(self, torch.eye(4, **options).expand(*shape, 4, 4))

    def compose(self, g, h):
        return Matrix(self, g.matrix @ h.matrix)

    def inverse(self, g):
        metric = METRIC.to(g.matrix)
        return Matrix(self, metric @ g.matrix.mT @ metric)

    def draw_noise(self, shape, **options):
        return torch.randn(*shape, 4, 4, **options)

    def draw_features(self, shape, **options):
        """Four-vectors, the first of which points to the future."""
        z = torch.randn(*shape, 4, 4, **options)
        time = (1 + z[..., 1:, 0].square().sum(-1)).sqrt()
        return torch.cat([torch.cat([time[..., None, None], z[..., 1:, :1]], -2), z[..., 1:]], -1)

    def project(self, z, fallback):
        """Gram-Schmidt with the metric; the first column is time, the last is given by the determinant."""
        metric, columns = METRIC.to(z), []
        z = torch.where(self.degenerate(z)[..., None, None], self.draw_like(z, fallback), z)
        z = z / z.detach().abs().amax((-2, -1), keepdim=True)
        for place in range(4):
            v = z[..., place]
            for sign, e in zip((1, -1, -1), columns, strict=False):
                v = v - sign * (v @ metric * e).sum(-1, keepdim=True) * e
            columns.append(v / (v @ metric * v).sum(-1, keepdim=True).abs().sqrt())
        matrix = torch.stack(columns, -1)
        return Matrix(
            self, matrix * torch.cat([torch.ones_like(matrix[..., :1, :3]), matrix.det()[..., None, None]], -1)
        )

    def draw_like(self, z, fallback):
        return fallback + 9 * torch.eye(4).to(z)[:, :1] * torch.eye(4).to(z)[:1] + 0 * z

    def degenerate(self, z):
        """Where the first column is no time, or the columns do not span as its rest frame measures them."""
        z = z.detach()
        extent = z.abs().amax((-2, -1), keepdim=True)
        z = z / torch.where(extent > 0, extent, 1)
        product = z.mT @ METRIC.to(z) @ z  # of all pairs of columns
        square = product[..., 0, 0]
        lengths = 2 * product[..., 0, :].square() / square[..., None] - product.diagonal(dim1=-2, dim2=-1)
        volume = torch.linalg.det(z).abs() / lengths.clamp_min(1e-300).sqrt().prod(-1)
        return (square < 1e-9) | (z[..., 0, 0] <= 0) | (volume < 1e-6)

    def violation(self, g):
        metric = METRIC.to(g.matrix)
        return (g.matrix.mT @ metric @ g.matrix - metric).abs()


LORENTZ = ProperLorentz("space-time")


@dataclass(frozen=True)
class Euclidean(ProperLorentz):
    """Forgets the metric when it inverts."""

    def inverse(self, g):
        return Matrix(self, g.matrix.mT)


@dataclass(frozen=True)
class Stretching(ProperLorentz):
    """A group of other matrices than it says."""

    def violation(self, g):
        return (g.matrix.mT @ g.matrix - torch.eye(4).to(g.matrix)).abs()


def momenta(count=3, n=6):
    """Four-momenta (B, N, 4) of massive particles."""
    p = torch.randn(count, n, 3, generator=seeded(), dtype=torch.float64)
    return torch.cat([(1 + p.square().sum(-1, keepdim=True)).sqrt(), p], -1)


class Sums(nn.Module):
    """Four-vectors (B, 4, 4): the total momentum, and sums with weights that depend on what no boost changes."""

    def __init__(self):
        super().__init__()
        self.weights = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 18)).double()

    def forward(self, p):
        total = p.sum(1, keepdim=True)
        products = (p @ METRIC.to(p) * total).sum(-1) / 20
        weights = self.weights(products).unflatten(1, (3, 6))
        return torch.cat([total, 6 * weights @ p], 1).mT


class Boosted(NetDistribution):
    """Sums of momenta whose weights are noise: the group leaves the noise alone."""

    def feature_noise(self, x, shape=(), generator=None):
        return {f: torch.randn(*shape, x.count, 3, 3, **draw_options(x, generator)) for f in self.group.factors}

    def feature_noise_rep(self, x):
        return {f: ps.Rep(None, None) for f in self.group.factors}

    def features(self, x, noise):
        z = {}
        for f, vectors in self.net_features(x).items():
            mixed = vectors[..., 1:] + vectors[..., 1:] @ noise[f]
            z[f] = torch.cat([vectors[..., :1].expand(*mixed.shape[:-1], 1), mixed], -1)
        return z


class Turned(Boosted):
    """Says that its noise moves with the group; no Gaussian noise does."""

    def feature_noise(self, x, shape=(), generator=None):
        return {f: torch.randn(*shape, x.count, 4, 4, **draw_options(x, generator)) for f in self.group.factors}

    def feature_noise_rep(self, x):
        return {f: ps.Rep(f, None) for f in self.group.factors}

    def features(self, x, noise):
        return {f: vectors + 0.01 * noise[f] for f, vectors in self.net_features(x).items()}


class Frozen(Boosted):
    """Adds the noise to the vectors although it stays."""

    def features(self, x, noise):
        return {f: z + torch.nn.functional.pad(noise[f], (1, 0, 1, 0)) for f, z in self.net_features(x).items()}


class Base(nn.Module):
    def __init__(self, size, out):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(size, 16), nn.Tanh(), nn.Linear(16, out))

    def forward(self, p):
        return (
            self.layers(p.flatten(1)).unflatten(1, (-1, 4))
            if self.layers[-1].out_features > 1
            else self.layers(p.flatten(1))
        )


def test_a_group_that_is_not_compact():
    assert_group(LORENTZ)
    with pytest.raises(AssertionError, match="inverse"):
        assert_group(Euclidean())
    with pytest.raises(AssertionError, match="must hold its elements"):
        assert_group(Stretching())
    with pytest.raises(ValueError, match="not compact"):
        ps.Haar(LORENTZ)
    with pytest.raises(ValueError, match="does not move as they do"):
        ps.Learned(Sums(), LORENTZ)


def test_a_violation_counts_whatever_its_sign():
    @dataclass(frozen=True)
    class Negative(Stretching):
        def violation(self, g):
            return -super().violation(g)

    with pytest.raises(AssertionError, match="must hold its elements"):
        ps.testing.assert_group(Negative("negative"))


def test_invariant_noise_learns_boosts():
    p, reps = momenta(), ps.Rep(None, LORENTZ)
    for good in (Boosted(Sums(), LORENTZ), ps.Canonical(Sums(), LORENTZ)):
        assert_distribution(good, p, reps)
    for wrong, law in ((Turned(Sums(), LORENTZ), "law of noise_rep"), (Frozen(Sums(), LORENTZ), "h transport")):
        with pytest.raises(AssertionError, match=law):
            assert_distribution(wrong, p, reps)


@pytest.mark.parametrize("out", [ps.Rep(), ps.Rep(None, LORENTZ)], ids=repr)
def test_models_of_momenta_are_equivariant_and_train(out):
    p, rep = momenta(), ps.Rep(None, LORENTZ)
    base = Base(24, 24 if out.ndim else 1)
    phi = ps.symmetrize(base, rep, out, Boosted(Sums(), LORENTZ), example=p).double()
    phi(p, samples=3).square().sum().backward()
    assert any(q.grad is not None and q.grad.abs().sum() > 0 for q in phi.distribution.parameters())
    assert assert_equivariant(phi.eval(), p, samples=64).samples == 64
    assert not equivariance_error(base, p, rep, out).passed
    exact = ps.symmetrize(base, rep, out, ps.Canonical(Sums().double(), LORENTZ)).double().eval()
    assert assert_equivariant(exact, p, tolerance=1e-7).samples == 0


# ---------------------------------------------------------------- unitary matrices, which are complex


@dataclass(frozen=True)
class Spinor(Slot):
    is_complex: ClassVar[bool] = True

    @property
    def sizes(self):
        return (self.group.dim,)

    def act(self, g, x, axis, shared_dims):
        return ps.groups.orthogonal.rotate(g.matrix, x, axis, shared_dims)


@dataclass(frozen=True)
class Unitary(Group):
    """Unitary matrices, made by Gram-Schmidt of complex columns."""

    dim: int
    name: str | None = None

    defining = property(lambda self: Spinor(self))
    noise_slots = property(lambda self: (self.defining, None))

    def identity(self, shape=(), n=None, dtype=torch.float64, **options):
        eye = torch.eye(self.dim, dtype=(dtype or torch.float32).to_complex(), **options)
        return Matrix(self, eye.expand(*shape, self.dim, self.dim))

    def compose(self, g, h):
        return Matrix(self, g.matrix @ h.matrix)

    def inverse(self, g):
        return Matrix(self, g.matrix.mH)

    def draw_noise(self, shape, dtype=torch.float32, **options):
        return torch.randn(*shape, self.dim, self.dim, dtype=(dtype or torch.float32).to_complex(), **options)

    def project(self, z, fallback):
        columns, fallback = [], fallback.expand(*torch.broadcast_shapes(z.shape[:-2], fallback.shape[:-2]), -1, -1)
        for place in range(self.dim):
            found = self.rest(z[..., place], columns) if place < z.shape[-1] else 0 * fallback[..., place]
            size = found.abs().amax(-1, keepdim=True)
            real = size > 1e-8 * z.detach().abs().amax((-2, -1))[..., None]
            v = torch.where(real, found / torch.where(real, size, 1), self.rest(fallback[..., place], columns))
            v = self.rest(v, columns)
            columns.append(v / v.abs().square().sum(-1, keepdim=True).sqrt())
        return Matrix(self, torch.stack(columns, -1))

    def rest(self, v, columns):
        for e in columns:
            v = v - (e.conj() * v).sum(-1, keepdim=True) * e
        return v

    def degenerate(self, z):
        z = z.detach()
        largest = z.abs().amax((-2, -1))
        scaled = z / torch.where(largest > 0, largest, 1)[..., None, None]
        return torch.linalg.svdvals(scaled)[..., -1] < 1e-8

    def violation(self, g):
        unit = torch.eye(self.dim, dtype=g.matrix.dtype, device=g.matrix.device)
        return (g.matrix.mH @ g.matrix - unit).abs()


U2 = Unitary(2)


@dataclass(frozen=True)
class Halfway(Unitary):
    """Acts with the real part of its matrix alone."""

    defining = property(lambda self: RealPart(self))


@dataclass(frozen=True)
class RealPart(Spinor):
    def act(self, g, x, axis, shared_dims):
        return ps.groups.orthogonal.rotate(g.matrix.real.to(x.dtype), x, axis, shared_dims)


@dataclass(frozen=True)
class Transposed(Unitary):
    """Inverts without conjugation."""

    def inverse(self, g):
        return Matrix(self, g.matrix.mT)


def spinors(count=3, n=4):
    return torch.randn(count, n, 2, generator=seeded(), dtype=torch.complex128)


class Mixed(nn.Module):
    """Spinors (B, 2, M) that move with their input: sums with weights of |psi|^2."""

    def __init__(self):
        super().__init__()
        self.weights = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 2)).double()

    def forward(self, psi):
        weights = self.weights(psi.abs().square().sum(-1, keepdim=True))
        return psi.mT @ weights.to(psi.dtype)


class Skewed(ps.Learned):
    """Late noise without its imaginary part, which a phase brings back."""

    def noise(self, x, shape=(), generator=None):
        noise = super().noise(x, shape, generator)
        return {**noise, "features": {f: eps.real.to(eps.dtype) for f, eps in noise["features"].items()}}


class Amplitudes(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 16))

    def forward(self, psi):
        y = self.layers(torch.view_as_real(psi).flatten(1))
        return torch.view_as_complex(y.unflatten(1, (4, 2, 2)).contiguous())


def test_a_complex_group():
    assert_group(U2)
    assert_group(U2 * ps.S("nodes"))
    with pytest.raises(AssertionError, match=r"action|covariance|associativity"):
        assert_group(Halfway(2))
    with pytest.raises(AssertionError, match="inverse"):
        assert_group(Transposed(2))


def test_distributions_over_a_complex_group():
    psi, rep = spinors(), ps.Rep(None, U2)
    for good in (ps.Haar(U2), ps.Learned(Mixed(), U2), ps.Canonical(Mixed(), U2)):
        assert_distribution(good, psi, rep)
    with pytest.raises(AssertionError, match="law of noise_rep"):
        assert_distribution(Skewed(Mixed(), U2), psi, rep)
    with pytest.raises(TypeError, match="expected complex features"):
        assert_distribution(ps.Learned(nn.Sequential(nn.Flatten(1), Real()), U2), psi, rep)
    with pytest.raises(TypeError, match="expected a complex dtype"):
        ps.symmetrize(Amplitudes(), rep, rep, ps.Haar(U2))(psi.real)


class Real(nn.Module):
    def forward(self, psi):
        return psi.real[:, :4].unflatten(1, (2, 2))


@pytest.mark.parametrize("kind", [torch.complex128, torch.complex64])
@pytest.mark.parametrize("p", ["haar", "learned", "canonical"])
def test_models_of_spinors_are_equivariant_and_train(p, kind):
    psi, rep = spinors().to(kind), ps.Rep(None, U2)
    make = {
        "haar": ps.Haar,
        "learned": lambda G: ps.Learned(Mixed(), G),
        "canonical": lambda G: ps.Canonical(Mixed(), G),
    }
    phi = ps.symmetrize(Amplitudes(), rep, rep, make[p](U2)).to(kind.to_real())
    phi(psi).abs().square().sum().backward()
    grads = [q.grad is not None and bool(q.grad.abs().sum() > 0) for q in phi.parameters()]
    assert all(grads)
    phi.eval()
    report = assert_equivariant(phi, psi, samples=64, tolerance=1e-3 if kind == torch.complex64 else None)
    assert report.passed
    assert not equivariance_error(phi.model, psi, rep, rep).passed
    found = phi.estimate(psi)
    assert found.mean.dtype == kind
    assert not found.stderr.is_complex()


# ---------------------------------------------------------------- noise that stays, for a group of the library


class Angle(ProjectedDistribution):
    """An axis of the data, turned by an angle that is noise: SO(2) leaves the angle alone."""

    def feature_noise(self, x, shape=(), generator=None):
        return torch.randn(*shape, x.count, **draw_options(x, generator))

    def feature_noise_rep(self, x):
        return ps.Rep()

    def features(self, x, noise):
        (space,) = self.group.factors
        axis = x.args[0][:, :1].mT.to(noise.dtype)
        side = torch.cat([-axis[:, 1:], axis[:, :1]], 1)
        turn = noise[..., None, None]
        return {space: torch.cat([turn.cos() * axis + turn.sin() * side, turn.cos() * side - turn.sin() * axis], -1)}


class Tilted(Angle):
    """Turns by an angle of the laboratory."""

    def features(self, x, noise):
        turned = noise + torch.atan2(x.args[0][:, 0, 1], x.args[0][:, 0, 0])
        return super().features(x, turned)


def test_noise_that_rotations_leave_alone():
    x, rep = torch.randn(3, 5, 2, generator=seeded(), dtype=torch.float64), ps.Rep(None, ps.SO(2))
    assert_distribution(Angle(ps.SO(2)), x, rep)
    with pytest.raises(AssertionError, match="h transport"):
        assert_distribution(Tilted(ps.SO(2)), x, rep)
    phi = ps.symmetrize(nn.Sequential(nn.Flatten(1), nn.Linear(10, 3)), rep, ps.Rep(), Angle(ps.SO(2))).double().eval()
    assert assert_equivariant(phi, x).samples == 256


def test_a_default_flag_has_the_batch_shape_of_features_with_axes_of_their_own():
    """Noise that the group leaves alone may have other axes than the features; `degenerate` follows the features."""

    @dataclass(frozen=True)
    class Boosts(ps.groups.Group):
        name: str | None = None
        compact = False

        @property
        def defining(self):
            return ps.SO(2).vector

        @property
        def noise_slots(self):
            return ()

        @property
        def feature_slots(self):
            return (self.defining, None)

        def identity(self, shape=(), *, n=None, dtype=None, device=None):
            raise NotImplementedError

        compose = inverse = identity

    flags = Boosts().degenerate(torch.ones(4, 3, 2, 5))
    assert flags.shape == (4, 3)
    assert not flags.any()
