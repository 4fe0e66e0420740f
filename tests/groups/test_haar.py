"""Uniformity, statistically. Every test here is seeded and fails by chance with probability at most 1e-6."""

import math
from itertools import permutations

import pytest
import torch

import probsym as ps
from probsym.reps import Layout

ALPHA = 1e-6


def chi_square_p(counts: torch.Tensor) -> float:
    """P(chi^2_k > x) for counts that should be equal, k = cells - 1."""
    mean = counts.sum() / len(counts)
    x = ((counts - mean) ** 2 / mean).sum()
    return float(torch.special.gammaincc(torch.tensor((len(counts) - 1) / 2.0).double(), x.double() / 2))


def cells(index: torch.Tensor, n: int) -> torch.Tensor:
    """How often each of the n! permutations occurs among (M, n)."""
    code = (index[:, :n] * (n ** torch.arange(n))).sum(1)
    known = torch.tensor([sum(p * n**i for i, p in enumerate(q)) for q in permutations(range(n))])
    hits = (code[:, None] == known).sum(0)
    assert int(hits.sum()) == len(index)
    return hits.double()


def test_chi_square_p_is_right_and_has_power():
    assert chi_square_p(torch.tensor([90.0, 110.0])) == pytest.approx(math.erfc(1.0), rel=1e-6)
    assert chi_square_p(torch.tensor([1300.0, 1000, 1000, 1000])) < ALPHA


@pytest.mark.parametrize(
    ("group", "square"),
    [
        (ps.O(1), 1),
        (ps.O(2), 1),
        (ps.O(3), 1),
        (ps.O(4), 1),
        (ps.SO(2), 2),
        (ps.SO(3), 1),
        (ps.SO(4), 1),
    ],
)
@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_trace_moments(group, square, kind):
    """E tr = 0 and E tr^2 = 1 (2 for SO(2)): the defining representation is irreducible. Hoeffding's inequality."""
    m, d = 100_000, group.dim
    trace = (
        group.haar((m,), generator=torch.Generator().manual_seed(1), dtype=kind)
        .matrix.diagonal(dim1=-2, dim2=-1)
        .sum(-1)
    )
    slack = math.sqrt(math.log(4 / ALPHA) / (2 * m))
    assert abs(trace.mean().item()) < 2 * d * slack
    assert abs(trace.square().mean().item() - square) < d * d * slack
    assert 2 * d * slack < 0.1


@pytest.mark.parametrize("group", [ps.O(2), ps.O(3), ps.SO(3), ps.SO(2)])
def test_every_column_is_uniform_and_half_are_reflections(group):
    g = group.haar((100_000,), generator=torch.Generator().manual_seed(2)).matrix
    octants = ((g > 0) * (2 ** torch.arange(group.dim))[:, None]).sum(-2)
    for column in range(group.dim):
        assert chi_square_p(torch.bincount(octants[:, column], minlength=2**group.dim).double()) > ALPHA
    det = torch.linalg.det(g)
    assert chi_square_p(torch.stack([(det > 0).sum(), (det < 0).sum()]).double()) > ALPHA or group.special
    assert (det > 0).all() or not group.special


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
def test_all_permutations_are_equally_likely(n):
    g = ps.S(n).haar((20_000,), generator=torch.Generator().manual_seed(n))
    assert chi_square_p(cells(g.index, n)) > ALPHA or n == 1


SIZES = (5, 2, 4, 1, 3)


def test_padded_batches_of_different_n():
    mask = torch.arange(5) < torch.tensor(SIZES)[:, None]
    g = ps.S("nodes", mask="mask").haar((20_000, 5), n=Layout(5, mask), generator=torch.Generator().manual_seed(0))
    for b, n in enumerate(SIZES):
        assert (g.index[:, b, n:] == torch.arange(n, 5)).all()
        assert n == 1 or chi_square_p(cells(g.index[:, b], n)) > ALPHA


@pytest.mark.parametrize("shuffled", [False, True])
def test_ragged_batches_of_different_n(shuffled):
    batch = torch.repeat_interleave(torch.arange(5), torch.tensor(SIZES))
    if shuffled:
        batch = batch[torch.randperm(len(batch), generator=torch.Generator().manual_seed(0))]
    layout = Layout(len(batch), batch=batch, count=5)
    g = ps.S("nodes", batch="batch").haar((20_000, 5), n=layout, generator=torch.Generator().manual_seed(0))
    assert g.shape == (20_000, 5)
    assert (batch[g.index] == batch).all()
    for b, n in enumerate(SIZES):
        places = (batch == b).nonzero()[:, 0]
        local = torch.searchsorted(places, g.index[:, places])
        assert n == 1 or chi_square_p(cells(local, n)) > ALPHA


@pytest.mark.parametrize("score", [0.0, 20.0, 1e20, 1e-20])
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("autocast", [False, True])
def test_ties_are_broken_uniformly(score, kind, autocast):
    """Equal scores, also such that differ by rounding, leave all 4! orders equally likely."""
    z = torch.full((20_000, 4), score, dtype=kind)
    if kind == torch.float32:
        z = z * (1 + torch.finfo(kind).eps * torch.arange(4))
    fallback = torch.randn(20_000, 4, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        g = ps.S(4).project(z, fallback)
    assert chi_square_p(cells(g.index, 4)) > ALPHA
    assert ps.S(4).degenerate(z).all()


def test_partial_ties():
    """Where only nodes 1 and 3 fallback, the others keep their rank, and both orders are equally likely."""
    z = torch.tensor([3.0, 1.0, 2.0, 1.0]).expand(20_000, 4)
    g = ps.S(4).project(z, torch.randn(20_000, 4, generator=torch.Generator().manual_seed(0)))
    assert (g.index[:, 0] == 3).all()
    assert (g.index[:, 2] == 2).all()
    assert chi_square_p(torch.bincount(g.index[:, 1], minlength=2).double()) > ALPHA
