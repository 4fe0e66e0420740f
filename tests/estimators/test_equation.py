"""The equation: what an orbit is, what estimators make of it, and estimators and designs of one's own."""

from dataclasses import dataclass

import pytest
import torch
from torch import nn

import probsym as ps
from cases import SETTINGS, seeded
from probsym.estimators import OutputSamples, Source
from probsym.estimators.design import Design, map_noise
from probsym.reps import leaves

EVERYWHERE = ["S x E(3)", "padded S x E(3)", "ragged S x E(3)", "labels", "Axis x E(3)", "O(3)"]


def entries(y, spec):
    """The tensors of an output, in the order of its Reps."""
    found = []
    for path in leaves(spec):
        value = y
        for key in path:
            value = value[key]
        found.append(value)
    return found


def drawn(phi, call, k):
    """A bound call and k elements per input."""
    x = phi.bind((), call)
    return x, phi.distribution.transport(x, phi.draw_noise(**call, samples=k, generator=seeded()))


@pytest.mark.parametrize("setting", EVERYWHERE)
def test_an_orbit_is_g_f_of_g_inverse_x(setting):
    """Sample by sample, with the model called on each pose alone."""
    s = SETTINGS[setting]()
    phi = s.symmetrized("haar")
    x, g = drawn(phi, s.call, 3)
    samples = phi.orbit(x, g)
    assert samples.count == 3
    assert samples.counts.tolist() == [3] * x.count
    for k in range(3):
        one = g.select(k)
        pose = x.act(one.inverse())
        outputs = entries(s.model(*pose.args, **pose.kwargs), phi.output)
        for rep, out, found in zip(leaves(phi.output).values(), outputs, samples.tensors, strict=True):
            torch.testing.assert_close(found[k], rep.act(one, out), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("setting", EVERYWHERE)
def test_plain_monte_carlo_is_the_mean_of_an_orbit(setting):
    """To the bit, and its standard error is s / sqrt(k)."""
    s = SETTINGS[setting]()
    phi = s.symmetrized("haar")
    x, g = drawn(phi, s.call, 5)
    samples = phi.orbit(x, g).tensors
    estimate = phi.estimate(**s.call, samples=5, generator=seeded())
    for y, mean, error in zip(
        samples, entries(estimate.mean, phi.output), entries(estimate.stderr, phi.output), strict=True
    ):
        assert torch.equal(mean, y.mean(0))
        assert torch.equal(error, y.std(0) / 5**0.5)


@pytest.mark.parametrize("setting", EVERYWHERE)
def test_weights_of_samples(setting):
    """Every sample of an input times its weight, the same in every block; weight zero clears what is not finite."""
    s = SETTINGS[setting]()
    phi = s.symmetrized("haar")
    x, g = drawn(phi, s.call, 4)
    with torch.no_grad():
        samples = phi.orbit(x, g)
    samples = OutputSamples([y.clone() for y in samples.tensors], samples.structure)
    weights = torch.tensor([[2.0, 0.0, 1.0], [0.5, 1.0, 3.0]], dtype=torch.float64)
    for y in samples.tensors:
        y[1] = torch.nan
    factors = samples.structure.align(weights, samples.tensors)
    found = samples.weighted(weights, start=1)  # samples 1, 2, 3, 4 of blocks of two
    for y, factor, weighted in zip(samples.tensors, factors, found.tensors, strict=True):
        for k in range(4):
            expected = torch.where(factor[(k + 1) % 2] == 0, 0.0, factor[(k + 1) % 2] * y[k])
            torch.testing.assert_close(weighted[k], expected, rtol=0, atol=0, equal_nan=True)
    assert samples.weighted(None) is samples


def test_given_noise_has_as_many_samples_as_are_taken():
    s = SETTINGS["S"]()
    phi = s.symmetrized("haar")
    x = phi.bind((), s.call)
    noise = phi.draw_noise(**s.call, samples=4)
    assert Source(noise=noise).draw(phi.distribution, x, 4) is noise
    with pytest.raises(ValueError, match="noise: expected 5 samples, as many as the estimator takes, got 4"):
        Source(noise=noise).draw(phi.distribution, x, 5)
    for estimator in (ps.Adaptive(0.1), ps.Hybrid(4)):
        with pytest.raises(ValueError, match=f"noise: {type(estimator).__name__} draws its own"):
            phi(**s.call, estimator=estimator, noise=noise)


@dataclass(frozen=True)
class MedianOfMeans(ps.Estimator):
    """The median of the means of three groups of samples: an estimator of one's own."""

    k: int

    def __call__(self, p, x, orbit, source):
        samples = orbit(x, p.transport(x, source.draw(p, x, 3 * self.k)))
        middle = [y.unflatten(0, (3, self.k)).mean(1).median(0).values for y in samples.tensors]
        return ps.Estimate(samples.build(middle), None, samples.counts)


@dataclass(frozen=True)
class Mirrored(Design):
    """Pairs of noise (eps, -eps): a design of one's own."""

    size = 2

    def samples_per_draw(self, p, x):
        return 2

    def transport(self, p, x, noise, diagnostics=None):
        def mirrored(path, rep, eps):
            return torch.stack([eps, -eps], 1).flatten(0, 1)

        return p.transport(x, map_noise(p, x, noise, mirrored), diagnostics)


@pytest.mark.parametrize("setting", EVERYWHERE)
def test_an_estimator_of_ones_own(setting):
    s = SETTINGS[setting]()
    phi = s.symmetrized("haar", eval_samples=MedianOfMeans(2))
    x, g = drawn(phi, s.call, 6)
    estimate = phi.estimate(**s.call, generator=seeded())
    assert estimate.samples.tolist() == [6] * x.count
    assert estimate.aux is estimate.diagnostics == {}
    for y, found in zip(phi.orbit(x, g).tensors, entries(estimate.mean, phi.output), strict=True):
        assert torch.equal(found, y.unflatten(0, (3, 2)).mean(1).median(0).values)


@pytest.mark.parametrize("chunk", [None, 3])
@pytest.mark.parametrize("setting", EVERYWHERE)
def test_a_design_of_ones_own(setting, chunk):
    """It is the library's antithetic pairs, and exact for what is odd in the noise."""
    s = SETTINGS[setting]()
    phi = s.symmetrized("haar")
    own, ours = (
        phi.estimate(**s.call, estimator=ps.MonteCarlo(8, chunk, design), generator=seeded())
        for design in (Mirrored(), "antithetic")
    )
    for name in ("mean", "stderr"):
        for a, b in zip(entries(getattr(own, name), phi.output), entries(getattr(ours, name), phi.output), strict=True):
            assert torch.equal(a, b)
    assert phi.estimate(**s.call, estimator=ps.Adaptive(1.0, design=Mirrored())).samples.min() >= 4
    space = ps.O(3)
    odd = ps.symmetrize(nn.Linear(3, 1, bias=False).double(), ps.Rep(space), ps.Rep(), "haar").eval()
    assert odd(torch.eye(3).double(), estimator=ps.MonteCarlo(4, chunk, Mirrored())).abs().max() < 1e-12
    with pytest.raises(ValueError, match=r"k: expected a multiple of 2, the block of Mirrored\(\), got 5"):
        ps.MonteCarlo(5, design=Mirrored())
