"""The checkers: what they accept, and that each rejects a member broken on purpose."""

import dataclasses
import math
from dataclasses import dataclass

import pytest
import torch
from torch import nn

import probsym as ps
from cases import DISTRIBUTIONS, SETTINGS, particles, randn
from probsym.distributions import DefaultNet, Haar, Support
from probsym.distributions.base import ProjectedDistribution
from probsym.groups.orthogonal import OrthogonalElement
from probsym.reps.storage import StoredSymmetric
from probsym.testing import assert_distribution, assert_equivariant, assert_group, equivariance_error
from probsym.testing.statistics import symmetric_p_value

# ---------------------------------------------------------------- groups


@dataclass(frozen=True, repr=False)
class Sloppy(ps.O):
    """Projects without a second key: a rank-deficient z is completed by the axes of the laboratory."""

    def project(self, z, tie):
        return super().project(z, torch.eye(self.dim, dtype=tie.dtype).expand_as(tie))


@dataclass(frozen=True, repr=False)
class Uncovariant(ps.O):
    """Projects by rounding to a signed permutation: no covariance at generic z."""

    def project(self, z, tie):
        return super().project(z.round(decimals=1), tie)


@dataclass(frozen=True, repr=False)
class Reversed(ps.O):
    """Composes in the wrong order."""

    def compose(self, g, h):
        return OrthogonalElement(self, h.matrix @ g.matrix)


@dataclass(frozen=True, repr=False)
class Lazy(ps.O):
    """Its inverse is itself."""

    def inverse(self, g):
        return g


@dataclass(frozen=True, repr=False)
class Stretched(ps.O):
    """Its elements are not orthogonal."""

    def project(self, z, tie):
        g = super().project(z, tie)
        return dataclasses.replace(g, matrix=g.matrix * 1.001)


@dataclass(frozen=True, repr=False)
class Biased(ps.O):
    """Its Haar measure favours rotations."""

    def haar(self, shape=(), **kwargs):
        g = super().haar(shape, **{k: v for k, v in kwargs.items() if k != "n"})
        sign = torch.where(
            torch.rand(shape, generator=torch.Generator().manual_seed(0)) < 0.5, torch.linalg.det(g.matrix).sign(), 1.0
        )
        return OrthogonalElement(self, g.matrix * sign[..., None, None])


@dataclass(frozen=True, eq=False, repr=False)
class ById(ps.O):
    """Equal only to itself."""

    __eq__, __hash__ = object.__eq__, object.__hash__


@dataclass(frozen=True, repr=False)
class Undecided(ps.O):
    """Leaves everything to its fallback, and says so."""

    def project(self, z, fallback):
        return super().project(torch.zeros_like(z), fallback)

    def degenerate(self, z):
        return torch.ones(z.shape[:-2], dtype=torch.bool)


@dataclass(frozen=True, repr=False)
class Constant(ps.O):
    """Knows one element only: every law holds for it."""

    def project(self, z, fallback):
        return self.identity(z.shape[:-2], dtype=z.dtype)

    def degenerate(self, z):
        return torch.zeros(z.shape[:-2], dtype=torch.bool)


@dataclass(frozen=True, repr=False)
class Nowhere(Undecided):
    """As Undecided, of a group that has no Haar measure to check."""

    compact = False


@dataclass(frozen=True, repr=False)
class Resting(Constant):
    """As Constant, of a group that has no Haar measure to check."""

    compact = False


class ByIndex(StoredSymmetric):
    def project(self, z, tie):
        return super().project(z, torch.arange(z.shape[-1]).to(z).expand_as(z))


@dataclass(frozen=True, repr=False)
class Indexed(ps.S):
    """Breaks ties by input order."""

    def stored(self, layout=None):
        return ByIndex(self, super().stored(layout).layout)


@pytest.mark.parametrize(
    ("group", "law"),
    [
        (Sloppy(3), "covariance .* (zero|constant|twice)"),
        (Uncovariant(3), "covariance .* generic"),
        (Reversed(3), "action .ab.x"),
        (Lazy(3), "inverse"),
        (Stretched(3), "must hold its elements|inverse"),
        (Biased(3), "haar must be invariant"),
        (ById(3), "equality and hash"),
        (Indexed("n"), "covariance .* (zero|constant|rounded)"),
        (ps.S("n") * Sloppy(2), "covariance"),
        (Undecided(3), "generic features must not all be degenerate"),
        (Nowhere(3), "generic features must not all be degenerate"),
        (Constant(3), "project must depend on its features"),
        (Resting(3), "project must depend on its features"),
        (ps.S("n") * Constant(2), "project must depend on its features"),
    ],
)
def test_broken_groups_are_rejected(group, law):
    with pytest.raises(AssertionError, match=law):
        assert_group(group)


# ---------------------------------------------------------------- distributions


class InputOrder(Haar):
    """Breaks ties of constant scores by input order."""

    def features(self, x, z):
        return {f: torch.arange(v.shape[-1]).to(v).expand_as(v) for f, v in z.items()}


class WrongLaw(Haar):
    """Its noise is not what noise_rep says: not invariant under rotations."""

    def noise(self, x, shape=(), generator=None):
        noise = super().noise(x, shape, generator)
        return {**noise, "features": {f: v.exp() for f, v in noise["features"].items()}}


class Hidden(Haar):
    """Draws randomness that it does not declare."""

    def features(self, x, z):
        return {f: v + torch.randn_like(v) for f, v in z.items()}


class Sighted(ProjectedDistribution):
    """A distribution over S_n that looks at coordinates: not invariant to rotations."""

    def features(self, x, z):
        return {f: v + x.kwargs["pos"][..., 0] for f, v in z.items()}


class Half(Haar):
    """Lists only half of S_n, the permutations that put node 0 in the first half."""

    def support(self, x, generator=None):
        full = super().support(x, generator)
        keep = full.element.index[:, 0, 0] < 2
        element = full.element.select(keep)
        return Support(element, full.weight[keep] * 2, full.exact, full.diagnostics)


def test_broken_distributions_are_rejected():
    s = SETTINGS["S"]()
    for p, law in [(InputOrder(s.group), "transport"), (Hidden(s.group), "deterministic"), (Half(s.group), "support")]:
        with pytest.raises(AssertionError, match=law):
            assert_distribution(p, s.call, s.inputs)
    s = SETTINGS["O(3)"]()
    with pytest.raises(AssertionError, match="law of noise_rep"):
        assert_distribution(WrongLaw(s.group), s.call, s.inputs)


def test_factors_must_be_invariant_to_the_others():
    s = particles(ps.O(3))
    nodes, space = ps.S("nodes"), ps.O(3)
    good = ps.Learned(DefaultNet(s.inputs, nodes), nodes)
    assert_distribution(good * Haar(space), s.call, s.inputs)
    assert_distribution(good, s.call, s.inputs)
    for p in (Sighted(nodes), Sighted(nodes) * Haar(space)):
        with pytest.raises(AssertionError, match="h transport"):
            assert_distribution(p, s.call, s.inputs)


def test_canonical_without_ties_handled_is_rejected():
    """Degenerate inputs: equal nodes have equal scores, and who comes first must be chance, not input order."""
    nodes = ps.S("nodes")

    class Argsorted(ps.Canonical):
        def project(self, x, factor, z, tie):
            return super().project(x, factor, z, torch.arange(tie.shape[-1]).to(tie).expand_as(tie))

    x = {"x": torch.ones(2, 4, 1)}
    net = nn.Flatten(1)
    spec = {"x": ps.Rep(nodes)}

    class Net(nn.Module):
        def forward(self, x):
            return net(x)

    assert_distribution(ps.Canonical(Net(), nodes), x, spec)
    with pytest.raises(AssertionError, match="h transport"):
        assert_distribution(Argsorted(Net(), nodes), x, spec)


def test_assert_distribution_takes_symmetrizers_and_leaves_them_alone():
    s = SETTINGS["S x E(3)"](kind=torch.float32)
    phi = s.symmetrized("learned")
    before = {k: v.clone() for k, v in phi.state_dict().items()}
    state = torch.get_rng_state()
    assert_distribution(phi, s.call)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(v, before[k]) and v.dtype == before[k].dtype for k, v in phi.state_dict().items())
    with pytest.raises(TypeError, match="expected reps"):
        assert_distribution(phi.distribution, s.call)


# ---------------------------------------------------------------- models


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize("setting", ["S x E(3)", "padded S x SE(2)", "ragged S x E(3)", "O(3)", "S", "labels"])
@pytest.mark.parametrize("kind", [torch.float64, torch.float32])
def test_symmetrized_models_pass_and_bare_ones_do_not(distribution, setting, kind):
    s = SETTINGS[setting](kind=kind)
    phi = s.symmetrized(distribution)
    rounding = (
        1e-3 if (distribution, kind) == ("canonical", torch.float32) else None
    )  # a net's frame may be ill-conditioned
    report = assert_equivariant(phi, s.call, samples=64, elements=2, tolerance=rounding)
    assert report.passed
    assert report.error < 5 * report.stderr + report.tolerance
    bare = equivariance_error(phi.model, s.call, s.inputs, s.output)
    assert not bare.passed
    assert bare.p_value == 0
    assert bare.error > 1e-2
    with pytest.raises(AssertionError, match="NOT equivariant under"):
        assert_equivariant(phi.model, s.call, s.inputs, s.output)


class Chiral(nn.Module):
    """Adds cross products, so reflections change it."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(12, 32), nn.Tanh(), nn.Linear(32, 12)).double()

    def forward(self, pos):
        return self.layers(pos.flatten(1)).view_as(pos) + torch.cross(pos, pos.roll(1, 1), dim=-1)


def relabelled(group):
    return {"pos": ps.Rep(ps.S("nodes"), group)}, ps.Rep(ps.S("nodes"), group)


@pytest.mark.parametrize("distribution", ["haar", "learned", "canonical"])
def test_wrong_groups_are_rejected(distribution):
    x = {"pos": randn(4, 4, 3)}
    so, o = relabelled(ps.SO(3)), relabelled(ps.O(3))
    nodes_only = {"pos": ps.Rep(ps.S("nodes"), None)}, ps.Rep(ps.S("nodes"), None)
    for reps, wrong in [(so, o), (nodes_only, o)]:
        phi = ps.symmetrize(Chiral(), *reps, distribution).double()
        phi(**x)
        assert equivariance_error(phi, x).passed
        report = equivariance_error(phi, x, *wrong)
        assert not report.passed, report
        assert report.error > 5 * report.stderr


def test_an_error_in_one_input_or_one_output_is_found():
    """A model that is right but for one input, or one of two outputs."""
    rep = ps.Rep(ps.S("nodes"))

    class Off(nn.Module):
        def forward(self, x):
            return {"good": x.tanh(), "bad": x.tanh() + 0.01 * torch.arange(4.0) * (x[:, :1] > 2)}

    x = torch.cat([randn(5, 4).clamp(-1, 1), torch.full((1, 4), 2.5).double() + randn(1, 4).abs()])
    spec = {"good": rep, "bad": rep}
    report = equivariance_error(Off(), x, rep, spec)
    assert not report.passed
    assert "bad" in str(report)
    assert equivariance_error(Off(), x[:-1], rep, spec).passed
    noisy = lambda x: {key: y + torch.randn_like(y) for key, y in Off()(x).items()}  # noqa: E731
    assert equivariance_error(noisy, x[:-1], rep, spec).passed
    loud = lambda x: {key: y + 0.05 * torch.randn_like(y) for key, y in Off()(x).items()}  # noqa: E731
    assert not equivariance_error(loud, x, rep, spec, samples=1024).passed


@pytest.mark.parametrize("distribution", ["haar", "frame"])
def test_outputs_that_are_left_out_are_not_compared(distribution):
    class Model(nn.Module):
        def forward(self, x):
            return x.exp(), x

    rep = ps.Rep(None, ps.O(3))
    x = randn(2, 4, 3)
    phi = ps.symmetrize(Model(), rep, (rep, None), distribution)
    assert assert_equivariant(phi, x).passed
    assert_distribution(phi, x)
    assert not equivariance_error(Model(), x, rep, (rep, None)).passed
    assert equivariance_error(Model(), x, rep, (None, rep)).passed


def test_noise_is_told_from_bias():
    """The error of an honest model falls with samples and stays near its noise; that of a biased one does not."""
    s = SETTINGS["S x E(3)"]()
    phi = s.symmetrized("haar")
    few, many = (equivariance_error(phi, s.call, samples=k) for k in (16, 1024))
    assert many.stderr < few.stderr / 6
    assert 0.8 < many.error / many.stderr < 1.2
    wrong = ps.Rep(ps.S("nodes"), None), ps.Rep(ps.S("nodes"), None)
    x = randn(4, 4, 3)
    half = ps.symmetrize(Chiral(), *wrong, "haar")
    spec = ps.Rep(ps.S("nodes"), ps.O(3))
    biased = equivariance_error(half, x, spec, spec, samples=1024)
    assert biased.error > 10 * biased.stderr
    assert not biased.passed


def test_not_a_number_fails():
    rep = ps.Rep(ps.S("nodes"))
    for f in (lambda x: x * math.nan, lambda x: x + torch.randn_like(x) * math.nan, lambda x: torch.randn_like(x) / 0):
        report = equivariance_error(f, randn(2, 4), rep, rep)
        assert not report.passed
        assert not math.isfinite(report.error)


def test_degenerate_inputs_of_canonical_take_the_statistical_test():
    """Equal nodes: the exact estimator draws, so the error is Monte Carlo noise and the test statistical."""
    nodes = ps.S("nodes")
    x = torch.cat([torch.ones(1, 4, 2), randn(1, 4, 2).float()])
    phi = ps.symmetrize(
        nn.Sequential(nn.Flatten(1), nn.Linear(8, 4), nn.Tanh()), ps.Rep(nodes), ps.Rep(nodes), "canonical"
    )
    assert phi.estimate(x).aux["degenerate"] == 1
    report = equivariance_error(phi, x)
    assert report.passed
    assert report.samples == 256
    assert report.stderr > 0
    assert equivariance_error(phi, x[1:]).samples == 0


def test_reports_and_arguments():
    s = SETTINGS["S"]()
    phi = s.symmetrized("haar")
    report = equivariance_error(phi, s.call)
    assert str(report).startswith("equivariant under S('nodes')")
    assert "256 samples" in str(report)
    assert report == equivariance_error(phi, s.call)
    assert report != equivariance_error(phi, s.call, generator=torch.Generator().manual_seed(1))
    with pytest.raises(TypeError, match="expected reps and output"):
        equivariance_error(phi.model, s.call)
    with pytest.raises(ValueError, match="samples >= 4"):
        equivariance_error(phi, s.call, samples=2)
    loose = equivariance_error(phi.model, s.call, s.inputs, s.output, tolerance=10.0)
    assert loose.passed


# ---------------------------------------------------------------- calibration


@pytest.mark.parametrize("law", ["normal", "cauchy", "coin", "one in a hundred"])
@pytest.mark.parametrize("n", [4, 32, 256])
def test_p_values_are_super_uniform(law, n):
    """P(p <= u) <= u + five standard deviations, at 2e5 trials; exactly so whatever the tails."""
    generator, trials = torch.Generator().manual_seed(0), 200_000 // (n // 4)
    draw = torch.randn(2, n, trials, generator=generator).double()
    a, b = {
        "normal": draw,
        "cauchy": torch.tan(math.pi * (torch.rand(2, n, trials, generator=generator).double() - 0.5)),
        "coin": draw.sign(),
        "one in a hundred": draw * (torch.rand(2, n, trials, generator=generator) < 0.01),
    }[law]
    p = symmetric_p_value(a - b)
    for u in (0.5, 0.1, 0.01, 1e-3, 1e-4):
        found = (p <= u).double().mean().item()
        assert found <= u + 5 * math.sqrt(u / trials)


def test_p_values_have_power():
    """At the usual size the price of the exact bound against the normal test is a factor of 3.2."""
    t = torch.tensor([2.0, 4.0, 6.0])
    n = 1_000_000
    d = torch.ones(n, 3).double()
    d[: n // 2] *= -1
    shifted = d + t / math.sqrt(n)
    normal = torch.special.erfc(t.double() / math.sqrt(2))
    assert (symmetric_p_value(shifted) / normal).tolist() == pytest.approx([3.18] * 3, rel=0.01)


def test_the_whole_test_is_calibrated():
    """Honest models at many seeds: family-wise p-values are super-uniform, and none is near alpha."""
    rep = ps.Rep(ps.S("nodes"))
    phi = ps.symmetrize(nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 4)), rep, rep, "haar")
    x = torch.randn(2, 4)
    p = torch.tensor(
        [
            equivariance_error(phi, x, samples=k, elements=2, generator=torch.Generator().manual_seed(seed)).p_value
            for seed in range(150)
            for k in (4, 32)
        ]
    )
    assert p.min() > 1e-4
    for u in (0.05, 0.2, 0.5):
        assert (p <= u).float().mean() <= u + 5 * math.sqrt(u / len(p))
