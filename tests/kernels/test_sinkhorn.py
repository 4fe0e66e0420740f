"""Soft permutations in closed form, against autograd through the reference in logarithms."""

import itertools
import math

import pytest
import torch

from probsym.kernels import sinkhorn
from probsym.kernels.sinkhorn import (
    log_soft_permutation,
    soft_permutation,
    soft_permutation_entropies,
    soft_permutation_entropy,
    soft_permutation_gradient,
    soft_permutation_token,
    soft_permutation_token_reference,
)

MASK = torch.tensor([[True, True, True, True, False, False], [True] * 6, [True] + [False] * 5, [False] * 6])
# temperature, passes, and whether a softmax comes first
SETTINGS = pytest.mark.parametrize(
    "setting", [(0.1, 2), (1.0, 0), (0.02, 30), (0.1, 1, False), (0.02, 30, False)], ids=str
)
PADDED = pytest.mark.parametrize("mask", [None, MASK], ids=["dense", "padded"])


def reference_gradient(z, mask, grad, *setting):
    z = z.clone().requires_grad_()
    return torch.autograd.grad(log_soft_permutation(z, mask, *setting).exp(), z, grad)[0]


def scores(kind):
    z = torch.randn(3, 4, 6, dtype=torch.float64)
    if kind == "tied":
        z[..., 1] = z[..., 0]
    return {"constant": 0 * z, "wide": 30 * z}.get(kind, z)


def slopes(mask):
    grad = torch.randn(3, 4, 6, 6, dtype=torch.float64)
    return grad if mask is None else grad * (mask[..., None] & mask[..., None, :])


@SETTINGS
@PADDED
@pytest.mark.parametrize("kind", ["generic", "tied", "constant", "wide"])
def test_closed_form_is_autograd(setting, mask, kind):
    z, grad = scores(kind), slopes(mask)
    found = soft_permutation_gradient(z, mask, grad, *setting)
    assert torch.allclose(found, reference_gradient(z, mask, grad, *setting), atol=1e-9)


@SETTINGS
@PADDED
def test_second_derivatives(setting, mask):
    """The gradient can be differentiated again, with respect to the scores and to what came in."""
    z, grad = scores("generic").requires_grad_(), slopes(mask).requires_grad_()
    weight = torch.randn(3, 4, 6, dtype=torch.float64)
    first = soft_permutation_gradient(z, mask, grad, *setting)
    plain = torch.autograd.grad(log_soft_permutation(z, mask, *setting).exp(), z, grad, create_graph=True)[0]
    found = torch.autograd.grad((first * weight).sum(), (z, grad))
    expected = torch.autograd.grad((plain * weight).sum(), (z, grad))
    for a, b in zip(found, expected, strict=True):
        assert torch.allclose(a, b, rtol=1e-7, atol=1e-7 * float(1 + b.abs().max()))


@pytest.mark.parametrize("n", [0, 1, 2, 15, 16, 17, 500])
def test_float32_is_finite_and_near(n):
    """On both sides of the size from which matrices are laid out another way."""
    z, grad = 5 * torch.randn(2, n), torch.randn(2, n, n)
    found = soft_permutation_gradient(z, None, grad, 0.1, 2)
    wide = soft_permutation_gradient(z.double(), None, grad.double(), 0.1, 2)
    assert found.dtype == torch.float32
    assert found.isfinite().all()
    assert n == 0 or (found - wide).abs().max() <= 1e-3 * wide.abs().max()


@pytest.mark.parametrize("shape", [(), (1,), (5,), (0,), (2, 3)], ids=str)
@pytest.mark.parametrize("n", [3, 20])
def test_batch_shapes(n, shape):
    z, grad = torch.randn(*shape, n, dtype=torch.float64), torch.randn(*shape, n, n, dtype=torch.float64)
    found = soft_permutation_gradient(z, None, grad, 0.1, 2)
    assert found.shape == z.shape
    assert torch.allclose(found, reference_gradient(z, None, grad, 0.1, 2), atol=1e-9)
    transposed = soft_permutation_gradient(z, None, grad.mT.contiguous().mT, 0.1, 2)
    assert torch.allclose(found, transposed, atol=1e-12)


def test_pages_of_padded_scores_are_autograd():
    """Enough matrices for several pages, of different sizes; scores as large as the distance of the padding, too."""
    mask = torch.arange(40) < torch.randint(0, 41, (60, 1))
    grad = torch.randn(2, 60, 40, 40, dtype=torch.float64) * (mask[..., None] & mask[..., None, :])
    z = torch.randn(2, 60, 40, dtype=torch.float64)
    for shift in (0.0, 5e9):
        z = z + shift
        found = soft_permutation_gradient(z, mask, grad, 0.1, 3)
        assert torch.allclose(found, reference_gradient(z, mask, grad, 0.1, 3), atol=1e-9)
        assert found[:, ~mask].eq(0).all()
        largest, n = int(mask.sum(-1).argmax()), int(mask.sum(-1).max())
        alone, padded = soft_permutation(z[0, largest, :n], None, 0.1, 3), soft_permutation(z[0], mask, 0.1, 3)[largest]
        assert torch.allclose(padded[:n, :n], alone)


def test_pages_do_not_matter(monkeypatch):
    z, grad = torch.randn(7, 20, dtype=torch.float64), torch.randn(7, 20, 20, dtype=torch.float64)
    whole = soft_permutation_gradient(z, None, grad, 0.1, 2)
    monkeypatch.setattr(sinkhorn, "PAGE_ENTRIES", 1)
    assert torch.equal(soft_permutation_gradient(z, None, grad, 0.1, 2), whole)


@SETTINGS
@PADDED
def test_tokens_hold_nothing_but_a_gradient(setting, mask):
    z, grad = scores("generic").requires_grad_(), slopes(mask)
    token, plain = soft_permutation_token(z, mask, *setting), soft_permutation_token_reference(z, mask, *setting)
    assert token.untyped_storage().nbytes() == 8  # one number
    assert torch.equal(token, plain.detach())
    assert not token.any()
    found, expected = (torch.autograd.grad(t, z, grad)[0] for t in (token, plain))
    assert torch.allclose(found, expected, atol=1e-9)


@PADDED
def test_matrices_are_doubly_stochastic_and_covariant(mask):
    """Rows and columns of P add up to one, on padding too, and nodes that are renumbered take their rows along."""
    z = scores("generic")
    p = soft_permutation(z, mask, 0.5, 60)
    one = torch.ones((), dtype=torch.float64)
    assert torch.allclose(p.sum(-2), one)  # normalised last
    assert torch.allclose(p.sum(-1), one, atol=1e-2)
    index = torch.rand(6).argsort(-1)
    if mask is None:
        assert torch.allclose(soft_permutation(z[..., index], None, 0.5, 60), p[..., index, :], atol=1e-12)
    else:
        for b in range(4):
            own = int(mask[b].sum())
            assert torch.allclose(p[:, b, own:, own:], torch.eye(6 - own, dtype=torch.float64))
            assert not p[:, b, own:, :own].any()


def test_small_temperatures_give_permutations():
    z = torch.randn(5, 7, dtype=torch.float64)
    hard = torch.nn.functional.one_hot(z.argsort(-1).argsort(-1), 7).double()
    assert torch.allclose(soft_permutation(z, None, 1e-4, 2), hard, atol=1e-6)


@SETTINGS
@PADDED
def test_entropies(setting, mask):
    """The mean entropy of a row and of a column, over real nodes."""
    z = scores("generic")
    p = soft_permutation(z, mask, *setting)
    total, count = 0.0, 0
    by_input = soft_permutation_entropies(z, mask, *setting)
    for k, b in itertools.product(range(3), range(4)):
        own = 6 if mask is None else int(mask[b].sum())
        matrix = p[k, b, :own, :own]
        rows = -(matrix * (matrix.log() - matrix.sum(-1, keepdim=True).log())).nansum()
        columns = -(matrix * (matrix.log() - matrix.sum(-2, keepdim=True).log())).nansum()
        total, count = total + float(rows + columns), count + own
        rows = torch.special.entr(matrix / matrix.sum(-1, keepdim=True)).nansum()
        columns = torch.special.entr(matrix / matrix.sum(-2, keepdim=True)).nansum()
        assert float(by_input[k, b]) == pytest.approx(float(rows + columns) / max(own, 1), abs=1e-9)
    assert float(soft_permutation_entropy(z, mask, *setting)) == pytest.approx(total / count, abs=1e-9)


@PADDED
def test_without_the_softmax_rows_are_normalised_first(mask):
    """One pass by hand: rows, then columns; many passes end where those behind a softmax do."""
    z = scores("generic")
    own = 6
    if mask is not None:
        own = 4
    some = z[:, 0, :own]
    weights = torch.exp(-(some.unsqueeze(-1) - some.sort(-1).values.unsqueeze(-2)).abs() / 0.3)
    weights = weights / weights.sum(-1, keepdim=True)
    weights = weights / weights.sum(-2, keepdim=True)
    assert torch.allclose(soft_permutation(z, mask, 0.3, 1, False)[:, 0, :own, :own], weights, atol=1e-12)
    with_softmax, without = soft_permutation(z, mask, 2.0, 500), soft_permutation(z, mask, 2.0, 500, False)
    assert torch.allclose(with_softmax, without, atol=1e-9)


def test_entropies_of_equal_and_of_distant_scores():
    assert float(soft_permutation_entropy(torch.zeros(2, 4), None, 0.1, 2)) == pytest.approx(2 * math.log(4), rel=1e-4)
    assert float(soft_permutation_entropy(100 * torch.arange(4.0)[None], None, 0.1, 2)) < 1e-6
