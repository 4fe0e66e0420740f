"""Complex outputs: real standard errors, every estimator as for the pair of both parts, checkers that see both."""

import math
from dataclasses import dataclass

import pytest
import torch
from torch import nn

import probsym as ps
from cases import randn, seeded
from probsym.learning import variance
from probsym.testing import assert_distribution, assert_equivariant, assert_group, equivariance_error

SPACE = ps.O(2, "space")
SIZES = torch.tensor([3, 2, 3])
AXES = {"dense": ps.S("nodes"), "padded": ps.S("nodes", mask="mask"), "ragged": ps.S("nodes", batch="batch")}


def call(storage):
    pos, mask = randn(3, 3, 2), torch.arange(3) < SIZES[:, None]
    if storage == "dense":
        return {"pos": pos}
    if storage == "padded":
        return {"pos": pos * mask[..., None], "mask": mask}
    return {"pos": pos[mask], "batch": torch.arange(3).repeat_interleave(SIZES)}


class Pair(nn.Module):
    """Two parts of outputs without symmetry, on a last axis."""

    def forward(self, pos, mask=None, batch=None):
        rank = torch.arange(len(pos) if batch is not None else pos.shape[1]).to(pos)[:, None]
        moved = (2 * pos + rank % 3).sin() + pos[..., :1]
        node = torch.stack([moved, (3 * pos - rank % 3).cos()], -1)
        if mask is not None:
            node = node * mask[..., None, None]
        count = len(pos) if batch is None else int(batch.max()) + 1
        total = node.sum(1) if batch is None else node.new_zeros(count, 2, 2).index_add(0, batch, node)
        return {"node": node, "all": total.tanh()}


class Complex(nn.Module):
    """The same as one complex number."""

    def __init__(self, kind=torch.complex128):
        super().__init__()
        self.pair, self.kind = Pair(), kind

    def forward(self, **kwargs):
        return {key: torch.view_as_complex(y.contiguous()).to(self.kind) for key, y in self.pair(**kwargs).items()}


def symmetrized(model, storage, distribution="haar"):
    nodes = AXES[storage]
    output = {"node": ps.Rep(nodes, SPACE), "all": ps.Rep(SPACE)}
    return ps.symmetrize(model, {"pos": ps.Rep(nodes, SPACE)}, output, distribution).double().eval()


ESTIMATORS = {
    "one": ps.MonteCarlo(1),
    "samples": ps.MonteCarlo(24),
    "chunks": ps.MonteCarlo(24, chunk=5),
    "one at once": ps.MonteCarlo(24, chunk=1),
    "antithetic": ps.MonteCarlo(48, design="antithetic"),
    "dihedral": ps.MonteCarlo(48, 4, "dihedral"),
    "sobol": ps.MonteCarlo(64, 8, "sobol"),
    "joint": ps.MonteCarlo(48, 5, ("shifts", "signs")),
    "hybrid": ps.Hybrid(6),
    "hybrid in chunks": ps.Hybrid(6, chunk=2),
    "adaptive": ps.Adaptive(1e-9, max_samples=64),
}


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("storage", AXES)
@pytest.mark.parametrize("gradients", [False, True])
def test_complex_outputs_are_pairs(name, storage, gradients):
    """The same mean, and the error of the complex number is that of both parts together."""
    options = {"estimator": ESTIMATORS[name], "generator": seeded()}
    with torch.set_grad_enabled(gradients):
        found, pair = (
            symmetrized(model, storage).estimate(**call(storage), **{**options, "generator": seeded()})
            for model in (Complex(), Pair())
        )
    assert found.samples.tolist() == pair.samples.tolist()
    for key, mean in found.mean.items():
        assert mean.dtype == torch.complex128
        assert found.stderr[key].dtype == torch.float64
        assert torch.allclose(torch.view_as_real(mean), pair.mean[key], atol=1e-12)
        both = pair.stderr[key].square().sum(-1).sqrt()
        assert torch.allclose(found.stderr[key], both, atol=1e-12)
        assert found.stderr[key].shape == mean.shape


@pytest.mark.parametrize("distribution", ["frame", "canonical"])
@pytest.mark.parametrize("estimator", [ps.Exact(), ps.Exact(chunk=1)])
def test_exact_averages_of_complex_outputs(distribution, estimator):
    found, pair = (
        symmetrized(model, "padded", ps.Frame(AXES["padded"] * SPACE) if distribution == "frame" else distribution)
        for model in (Complex(), Pair())
    )
    pair.distribution = found.distribution
    a, b = (phi.estimate(**call("padded"), estimator=estimator) for phi in (found, pair))
    for key in a.mean:
        assert torch.allclose(torch.view_as_real(a.mean[key]), b.mean[key], atol=1e-12)
        assert a.stderr[key].dtype == torch.float64
        assert (a.stderr[key] == 0).all()


def test_ties_of_complex_canonical_outputs_are_infinite():
    nodes = ps.S("nodes")
    phi = ps.symmetrize(Complex(), {"pos": ps.Rep(nodes, None)}, {"node": ps.Rep(nodes, None)}, "canonical").double()
    error = phi.estimate(pos=torch.ones(1, 3, 2).double()).stderr["node"]
    assert error.dtype == torch.float64
    assert error.isinf().all()


@pytest.mark.parametrize("kind", [torch.complex64, torch.complex32])
def test_precision_of_the_outputs(kind):
    """Sums are made in single precision or better, the answer comes in that of the outputs."""
    x = {"pos": randn(3, 3, 2, kind=torch.float32)}
    nodes = AXES["dense"]
    phi = ps.symmetrize(Complex(kind), {"pos": ps.Rep(nodes, SPACE)}, {"all": ps.Rep(None)}, "haar").eval()
    precise = ps.symmetrize(Complex(), {"pos": ps.Rep(nodes, SPACE)}, {"all": ps.Rep(None)}, "haar").eval()
    eps = torch.finfo(kind.to_real()).eps
    for estimator in (ps.MonteCarlo(256), ps.MonteCarlo(256, chunk=100), ps.Adaptive(1e-3, max_samples=256)):
        found, right = (f.estimate(**x, estimator=estimator, generator=seeded()) for f in (phi, precise))
        assert found.mean["all"].dtype == kind
        assert found.stderr["all"].dtype == kind.to_real()
        gap = (found.mean["all"].to(torch.complex128) - right.mean["all"]).abs()
        assert gap.max() < 4 * eps * right.mean["all"].abs().max()
        assert torch.allclose(found.stderr["all"].double(), right.stderr["all"], rtol=8 * eps, atol=0)


def test_adaptive_reaches_its_tolerance():
    """C(4) averages the phase to 0 with spread E|z|^2 = 1 though E z^2 = 0; 200 inputs, six standard deviations."""
    phase = torch.exp(1j * torch.arange(4.0) * torch.pi / 2).reshape(1, 2, 2)

    class Phase(nn.Module):
        def forward(self, x):
            return x * phase

    phi = ps.symmetrize(Phase(), ps.Rep(ps.C(4)), ps.Rep(ps.C(4)), "haar").eval()
    for tol in (0.1, 0.05):
        found = phi.estimate(torch.ones(200, 2, 2), tol=tol, generator=seeded())
        square = found.mean.abs().square().mean((1, 2))
        assert square.mean() + 6 * square.std() / math.sqrt(200) < (1.4 * tol) ** 2
        assert square.mean() > (0.5 * tol) ** 2
        assert found.aux["above_tol"] == 0
        assert found.stderr.square().mean().sqrt() < 1.1 * tol


def test_standard_errors_of_complex_means_are_right():
    """Over 2000 repetitions |mean - truth|^2 agrees with stderr^2 to six standard deviations."""
    phi = symmetrized(Complex(), "dense")
    x = {"pos": randn(1, 3, 2).expand(2000, 3, 2)}
    truth = phi.estimate(
        pos=x["pos"][:1], estimator=ps.MonteCarlo(48 * 400, 48, ("shifts", "dihedral")), generator=seeded(1)
    )
    for estimator in (ps.MonteCarlo(6), ps.MonteCarlo(6, chunk=4), ps.MonteCarlo(6, design="antithetic")):
        found = phi.estimate(**x, estimator=estimator, generator=seeded())
        for key in found.mean:
            gap = (found.mean[key] - truth.mean[key]).abs().square() - found.stderr[key].square()
            assert (gap.mean(0).abs() < 6 * gap.std(0) / math.sqrt(2000) + 6 * truth.stderr[key].square()).all()


def test_variance_penalty_is_real():
    outputs = torch.randn(5, 3, dtype=torch.complex64, generator=seeded())
    both = torch.view_as_real(outputs).var(0).sum(-1).mean()
    assert torch.allclose(variance(outputs), both)
    one = variance(outputs[:1].requires_grad_())
    assert not one.is_complex()
    one.backward()


# ---------------------------------------------------------------- checkers


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [1.0, 1e-3])
def test_the_checker_sees_the_imaginary_part(kind, size):
    rep, order = ps.Rep(ps.C(4)), torch.arange(4.0).view(2, 2)
    right = lambda x: torch.complex(x, x.square())  # noqa: E731
    for wrong in (lambda x: x + 1j * size * order, lambda x: torch.complex(x, size * x * order)):
        x = randn(3, 2, 2, kind=kind)
        assert assert_equivariant(right, x, rep, rep).samples == 0
        assert not equivariance_error(wrong, x, rep, rep).passed
        loud = lambda x, f=wrong: f(x) + 0.1 * size * torch.randn(x.shape, generator=NOISE)  # noqa: E731
        assert not equivariance_error(loud, x, rep, rep).passed
    assert equivariance_error(lambda x: right(x) + 1j * torch.randn(x.shape, generator=NOISE), x, rep, rep).passed


NOISE = seeded(5)


@pytest.mark.parametrize("storage", AXES)
def test_symmetrized_complex_models_pass_and_bare_ones_do_not(storage):
    phi = symmetrized(Complex(), storage)
    assert assert_equivariant(phi, call(storage), samples=64).samples == 64
    assert not equivariance_error(phi.model, call(storage), phi.inputs, phi.output).passed


@dataclass(frozen=True, repr=False)
class Turning(ps.SO):
    """SO(2) that also turns the phase of complex numbers: by the angle (right), or in the imaginary part alone."""

    right: bool = True

    @property
    def regular(self):
        return Phase(self)


@dataclass(frozen=True, repr=False)
class Phase(type(ps.O(2).vector)):
    suffix = ".regular"

    def act(self, g, x, axis, shared_dims):
        cos, sin = g.matrix[..., 0, 0], g.matrix[..., 1, 0]
        phase = torch.complex(cos, sin) if self.group.right else torch.complex(torch.ones_like(sin), sin)
        return phase.reshape(*phase.shape, *[1] * (x.ndim - shared_dims)) * x


def test_a_group_that_acts_on_phases_is_checked():
    assert_group(Turning(2))
    with pytest.raises(AssertionError, match=r"action .ab.x"):
        assert_group(Turning(2, None, False))


def test_a_complex_net_is_checked_in_double():
    """Lazy double precision of `p.double()` leaves complex parameters alone; the copy does not."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.turn = nn.Parameter(torch.randn(2, dtype=torch.complex64, generator=seeded()))

        def forward(self, x):
            return (x * self.turn.to(x.dtype.to_complex())).abs().sum(-1)

    nodes = ps.S("nodes")
    p = ps.Learned(Net(), nodes)
    assert_distribution(p, {"x": torch.randn(2, 4, 2)}, {"x": ps.Rep(nodes)})
    assert p.net.turn.dtype == torch.complex64


@pytest.mark.parametrize("estimator", [ps.MonteCarlo(4), ps.MonteCarlo(4, chunk=3), ps.Exact(), ps.Adaptive(0.5)])
@pytest.mark.parametrize("kind", [torch.complex32, torch.complex64, torch.complex128])
@pytest.mark.parametrize("group", [ps.C(4), ps.C(8), ps.D(4), ps.Shift(4), ps.Signs(4), ps.S(4), ps.SO(3)], ids=repr)
def test_complex_outputs_of_every_group(group, kind, estimator):
    """Half precision too, of which torch knows few operations; other angles turn both parts of an image."""
    if not group.finite and isinstance(estimator, ps.Exact):
        return
    rep, x = ps.Rep(group), randn(2, 4, 4).float()
    if isinstance(group, ps.SO):
        rep, x = ps.Rep(None, group), randn(2, 4, 3).float()

    class Model(nn.Module):
        def forward(self, x):
            return torch.complex(x, x.sin()).to(kind)

    class Parts(nn.Module):
        def forward(self, x):
            return torch.view_as_real(torch.complex(x, x.sin()))

    found, pair = (
        ps.symmetrize(model, rep, rep, "haar").eval().estimate(x, estimator=estimator, generator=seeded())
        for model in (Model(), Parts())
    )
    assert found.mean.dtype == kind
    assert not found.stderr.is_complex()
    if not isinstance(estimator, ps.Adaptive):
        gap = found.mean.to(torch.complex64) - torch.view_as_complex(pair.mean.contiguous())
        assert gap.abs().max() < (1e-2 if kind == torch.complex32 else 1e-5)


def test_the_parts_of_images_without_channels_are_channels():
    """The output of a square image as a pair, with as many channels as columns: its input says how it is read."""

    class Parts(nn.Module):
        def forward(self, x):
            return torch.stack([x, x.square()], -1)

    rep = ps.Rep(ps.C(4))
    phi = ps.symmetrize(Parts(), rep, rep, "haar").eval()
    assert phi(torch.ones(1, 2, 2)).shape == (1, 2, 2, 2)
    with pytest.raises(ValueError, match="channels came first"):
        phi(torch.ones(1, 2, 2, 2))
