"""Zero only where exact: poses that needed the fallback are random, and every estimator says so."""

import math

import pytest
import torch
from torch import nn

import probsym as ps
from cases import randn, seeded
from probsym.distributions.base import Support
from probsym.testing import equivariance_error

NODES, TURNS = ps.S("nodes"), ps.C(4)
MASKED, RAGGED = ps.S("nodes", mask="mask"), ps.S("nodes", batch="batch")


class Scores(nn.Module):
    """One score a node."""

    def forward(self, x, mask=None, batch=None):
        return x.flatten(2).sum(-1) if batch is None else x.sum(-1)


class Weighted(nn.Module):
    """A number that depends on the order of the nodes and on the turn."""

    def forward(self, x, mask=None, batch=None):
        if batch is not None:
            rank = torch.arange(len(x), dtype=x.dtype)
            return torch.zeros(int(batch.max()) + 1, 1, dtype=x.dtype).index_add(
                0, batch, (x[:, :1] * rank[:, None]).sin()
            )
        weight = torch.linspace(0.1, 2, x[0].numel(), dtype=x.dtype).view(x[0].shape)
        return (x * weight).sin().flatten(1).sum(1, keepdim=True)


def plain(kind=torch.float64):
    """Inputs 0 and 2 have equal scores, input 1 not; all nodes differ, so that the order matters."""
    x = randn(3, 3, 2, kind=kind)
    x[::2] = x[::2] - x[::2].mean(-1, keepdim=True) + 1
    return x


STORAGE = {
    "dense": (NODES, lambda x: {"x": x}),
    "padded": (MASKED, lambda x: {"x": nn.functional.pad(x, (0, 0, 0, 1)), "mask": torch.arange(4).expand(3, 4) < 3}),
    "ragged": (RAGGED, lambda x: {"x": x.flatten(0, 1), "batch": torch.arange(3).repeat_interleave(3)}),
}
ESTIMATORS = {
    "exact": ps.Exact(), "exact in chunks": ps.Exact(chunk=1), "one sample": ps.MonteCarlo(1),
    "one chunk": ps.MonteCarlo(1, chunk=1), "hybrid": ps.Hybrid(1), "many hybrids": ps.Hybrid(8),
    "hybrid pairs": ps.Hybrid(8, design="antithetic"),
}  # fmt: skip


@pytest.mark.parametrize("b", [1, 3])
@pytest.mark.parametrize("name", ["exact", "exact in chunks", "one sample", "one chunk", "hybrid"])
@pytest.mark.parametrize("storage", STORAGE)
@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_ties_have_an_infinite_error(storage, name, b, kind):
    nodes, call = STORAGE[storage]
    x = plain(kind)
    phi = ps.symmetrize(Weighted(), {"x": ps.Rep(nodes)}, ps.Rep(), ps.Canonical(Scores(), nodes)).eval()
    if b == 1 and storage == "dense":
        estimate = phi.estimate(x=x[:1], estimator=ESTIMATORS[name])
        assert estimate.stderr.isinf().all()
        return
    estimate = phi.estimate(**call(x), estimator=ESTIMATORS[name])
    assert estimate.stderr[[0, 2]].isinf().all()
    assert bool(estimate.stderr[1] == (math.inf if "one" in name else 0))
    assert estimate.aux["degenerate"] == 2
    again = phi.estimate(**call(x), estimator=ESTIMATORS[name])
    if "exact" in name:
        assert torch.equal(estimate.mean[1], again.mean[1])


@pytest.mark.parametrize("storage", STORAGE)
def test_many_samples_of_a_tie_have_an_honest_error(storage):
    """2,000 estimates of four samples: the mean of stderr^2 is the variance of the mean, to six standard deviations."""
    nodes, call = STORAGE["dense"]
    phi = ps.symmetrize(Weighted(), {"x": ps.Rep(nodes)}, ps.Rep(), ps.Canonical(Scores(), nodes)).eval()
    x = plain()[:1].expand(2000, 3, 2)
    for estimator in (ps.MonteCarlo(4), ps.MonteCarlo(4, chunk=3)):
        found = phi.estimate(**call(x), estimator=estimator, generator=seeded())
        truth = phi.estimate(x=x[:1], samples=20_000, generator=seeded(1)).mean
        gap = (found.mean - truth).square() - found.stderr.square()
        assert gap.mean().abs() < 6 * gap.std() / math.sqrt(2000) + 1e-3
    assert found.stderr.min() >= 0


@pytest.mark.parametrize("name", ESTIMATORS)
def test_products_with_a_finite_group(name):
    """All turns of one random order are one draw, not four: no spread over them is an error of the mean."""
    rep = ps.Rep(NODES, TURNS)
    x = randn(3, 3, 2, 2)
    x[::2] = x[::2] - x[::2].mean((2, 3), keepdim=True) + 1  # equal scores, but not zero
    p = ps.Canonical(Scores(), NODES) * ps.Haar(TURNS)
    phi = ps.symmetrize(Weighted(), {"x": rep}, ps.Rep(), p).eval()
    estimate = phi.estimate(x=x, estimator=ESTIMATORS[name])
    assert estimate.stderr[::2].isinf().all()
    if name.startswith("exact") or "hybrid" in name:
        assert estimate.stderr[1] == 0
    assert equivariance_error(phi, {"x": x}, samples=64).passed


def test_products_with_a_sampled_factor():
    """Four turns of 16 draws: the error is at least that of 16 draws, where 64 independent ones were claimed."""

    class Sampled(ps.Haar):
        """Lists 16 draws of a group of 120."""

        def support(self, x, generator=None):
            g = self.transport(x, self.noise(x, (16,), generator))
            weight = torch.full((16, x.count), 1 / 16, dtype=x.dtype)
            return Support(g, weight, torch.zeros(x.count, dtype=torch.bool), {})

    rep, x = ps.Rep(NODES, TURNS), randn(1, 5, 2, 2).expand(500, 5, 2, 2)
    phi = ps.symmetrize(Weighted(), {"x": rep}, ps.Rep(), Sampled(NODES) * ps.Haar(TURNS)).eval()
    found = phi.estimate(x=x, estimator=ps.Exact(), generator=seeded())
    assert found.samples.tolist() == [64] * 500
    alone = phi.distribution.parts[0].support(phi.bind((), {"x": x}))
    assert alone.independent.tolist() == [16] * 500
    assert found.stderr.square().mean() > 0.8 * found.mean.var(0)


def test_exact_factors_leave_products_exact():
    rep, x = ps.Rep(NODES, TURNS), randn(2, 3, 2, 2)
    phi = ps.symmetrize(Weighted(), {"x": rep}, ps.Rep(), ps.Haar(NODES) * ps.Haar(TURNS)).eval()
    estimate = phi.estimate(x=x, estimator=ps.Exact())
    assert (estimate.stderr == 0).all()
    assert estimate.samples.tolist() == [24, 24]
