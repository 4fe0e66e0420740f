"""One protocol for every distribution; the settings of test_equivariance.py, any size, and nothing public left out."""

import inspect
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import probsym as ps
from cases import DISTRIBUTIONS, SETTINGS, moved, particles, rotated, sets
from probsym.distributions import NAMES, EquivariantDistribution, ProductDistribution
from probsym.distributions.base import ProjectedDistribution
from probsym.testing import assert_distribution

# Those that serve some groups only have files of their own, which hold them to the same checker.
ELSEWHERE = {ps.WeightedFrame: "test_weighted_frame.py", ps.Scored: "test_scored.py"}


def test_every_public_distribution_is_tested():
    s = SETTINGS["S x E(3)"]()
    tested = {type(make(s)) for make in DISTRIBUTIONS.values()}
    public = {
        c for c in vars(ps.distributions).values() if inspect.isclass(c) and issubclass(c, EquivariantDistribution)
    }
    assert {c for c in public if not inspect.isabstract(c)} == tested | set(ELSEWHERE)
    for file in ELSEWHERE.values():
        assert "assert_distribution(" in (Path(__file__).parent / file).read_text(encoding="utf-8")
    assert ProductDistribution in tested
    assert inspect.isabstract(ProjectedDistribution)
    assert set(NAMES) <= set(DISTRIBUTIONS)


@pytest.mark.slow
@settings(max_examples=12, deadline=None, derandomize=True)
@given(st.sampled_from(sorted(DISTRIBUTIONS)), st.integers(1, 4), st.integers(1, 6), st.integers(1, 4))
def test_any_size(distribution, batch, n, d):
    for s in (
        sets(batch, n),
        particles(ps.E(d), batch, n),
        particles(ps.SO(d), batch, n),
        moved(ps.SE(d), batch),
        rotated(ps.O(d), batch),
    ):
        assert_distribution(DISTRIBUTIONS[distribution](s), s.call, s.inputs, elements=1)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_random_state_is_explicit(distribution):
    """The generator decides everything: equal seeds give equal elements, whatever torch's global state."""
    s = SETTINGS["S x E(3)"]()
    phi = s.symmetrized(distribution)
    x = phi.bind((), s.call)
    drawn = []
    for state in (1, 2):
        torch.manual_seed(state)
        drawn.append(phi(**s.call, samples=3, generator=torch.Generator().manual_seed(5)))
    assert torch.equal(*drawn)
    before = torch.get_rng_state()
    phi.distribution.noise(x, (2,), torch.Generator().manual_seed(0))
    assert torch.equal(before, torch.get_rng_state())
