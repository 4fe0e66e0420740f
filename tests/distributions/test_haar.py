"""Group averaging."""

import math

import pytest
import torch

import probsym as ps
from cases import NODES, SETTINGS, particles, sets
from probsym.distributions.geometry import centroid


def test_uniform_elements_and_repr():
    s = sets()
    p = ps.Haar(NODES)
    x = s.symmetrized("haar").bind((), s.call)
    g = p.transport(x, p.noise(x, (8000,), torch.Generator().manual_seed(0)))
    first = torch.bincount(g.index[:, 0, 0], minlength=4).double()
    assert ((first - 2000).square() / 2000).sum() < 35  # chi^2 with 3 degrees of freedom, p < 1e-6 above 30.7
    assert repr(ps.Haar(NODES * ps.E(3), origin="centroid")) == "Haar(E(3) * S('nodes'), origin='centroid')"


def test_list_of_all_permutations():
    for n in range(7):
        s = sets(2, n)
        p = ps.Haar(NODES)
        found = p.support(s.symmetrized(p).bind((), s.call))
        assert len(found.weight) == math.factorial(n)
        assert torch.allclose(found.weight.sum(0), torch.ones(2).double())
        assert len({tuple(row) for row in found.element.index[:, 0].tolist()}) == math.factorial(n)
        assert found.exact.all()


@pytest.mark.parametrize("setting", ["padded S x E(3)", "S x E(3)", "O(3)", "S x S x O(2)"])
def test_what_cannot_be_listed(setting):
    s = SETTINGS[setting]()
    phi = s.symmetrized("haar")
    assert not phi.distribution.has_enumerate_support
    with pytest.raises(TypeError, match="infinite or too large support: use MonteCarlo"):
        phi(**s.call, estimator=ps.Exact())


def test_large_symmetric_groups_are_not_listed():
    s = sets(1, 9)
    with pytest.raises(TypeError, match="too large"):
        s.symmetrized("haar")(**s.call, estimator=ps.Exact())


def test_elements_sit_at_the_centroid():
    s = particles(ps.E(3))
    phi = s.symmetrized("haar")
    x = phi.bind((), s.call)
    g = phi.distribution.transport(x, phi.draw_noise(**s.call, samples=5))
    origin = ps.Rep(ps.E(3)).act(g, torch.zeros(5, 3, 3).double())
    assert torch.allclose(origin, centroid(x, ps.E(3)).expand(5, 3, 3), atol=1e-12)
    moved = ps.Rep(NODES, ps.E(3)).act(g.inverse(), s.call["pos"], 1)
    assert moved.mean(2).abs().max() < 1e-12


def test_samples_are_unbiased():
    """The mean of 20000 samples lies within six standard errors of the average over all permutations."""
    s = sets()
    phi = s.symmetrized("haar")
    exact = phi(**s.call, estimator=ps.Exact())
    est = phi.estimate(**s.call, samples=20_000, generator=torch.Generator().manual_seed(0))
    for key, value in exact.items():
        assert ((est.mean[key] - value).abs() < 6 * est.stderr[key] + 1e-12).all()
        assert est.stderr[key].max() < 0.01


def test_few_elements_are_averaged_exactly_in_evaluation():
    """C(4) needs four calls of the model for the exact average, less than the ten samples of a larger group."""
    x = torch.randn(3, 1, 6, 6).double()
    for group, in_evaluation in ((ps.C(4), 4), (ps.D(4), 8), (ps.Shift(4), 10)):
        model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(36, 2)).double()
        if group == ps.Shift(4):
            x = x[..., :4, :4]
            model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 2)).double()
        phi = ps.symmetrize(model, ps.Rep(None, group), ps.Rep(), "haar")
        assert phi.train().estimate(x).samples.tolist() == [1] * 3
        est = phi.eval().estimate(x)
        assert est.samples.tolist() == [in_evaluation] * 3
        exact = bool((est.stderr == 0).all())
        assert exact == (in_evaluation < 10)
        assert torch.equal(phi(x), phi(x)) == exact
