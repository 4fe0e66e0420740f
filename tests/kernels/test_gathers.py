"""Gathers against their references: values and gradients, storages of x, dtypes, shapes and edge cases."""

import pytest
import torch

from probsym.kernels import gathers
from probsym.kernels.gathers import (
    gather_nodes,
    gather_nodes_reference,
    gather_pairs,
    gather_pairs_reference,
    inverse_index,
    stable_order,
)

SAMPLES = [(), (3,), (2, 3)]
BATCHES = [(), (4,), (2, 4)]


@pytest.fixture(autouse=True)
def _whole_rows(monkeypatch):
    """Few entries would all be gathered as the reference does."""
    monkeypatch.setattr(gathers, "FEW_ENTRIES", 0)


def permutations(shape, nodes):
    return torch.rand(*shape, nodes).argsort(-1)


def compare(fast, plain, x, index, axis, shared_dims):
    """Equal bits forward, the same gradient to x; second derivatives of a gather are zero."""
    y = fast(x, index, axis, shared_dims)
    assert torch.equal(y, plain(x, index, axis, shared_dims))
    assert y.dtype == x.dtype
    if not x.is_floating_point() or not y.numel():
        return
    weight = torch.randn_like(y)
    leaf, other = x.clone().requires_grad_(), x.clone().requires_grad_()
    (found,) = torch.autograd.grad((fast(leaf, index, axis, shared_dims) * weight).sum(), leaf)
    (expected,) = torch.autograd.grad((plain(other, index, axis, shared_dims) * weight).sum(), other)
    assert torch.allclose(found, expected, atol=1e-5 if x.dtype == torch.float32 else 1e-12)


@pytest.mark.parametrize("kind", [torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.bool], ids=str)
@pytest.mark.parametrize("samples", SAMPLES, ids=str)
@pytest.mark.parametrize("batch", BATCHES, ids=str)
@pytest.mark.parametrize("middle", [(), (2,), (2, 3)], ids=str)
@pytest.mark.parametrize("rest", [(), (1,), (3,), (2, 4)], ids=str)
def test_nodes(rest, middle, batch, samples, kind):
    """Rows shorter and longer than those that are copied whole, behind and inside of other axes."""
    for nodes in (0, 1, 5):
        x = torch.randn(*batch, *middle, nodes, *rest).mul(9).to(kind)
        if kind == torch.bfloat16:
            x = x.detach()
        index = permutations((*samples, *batch), nodes)
        shared_dims, axis = len(batch), len(batch) + len(middle)
        assert torch.equal(
            gather_nodes(x, index, axis, shared_dims), gather_nodes_reference(x, index, axis, shared_dims)
        )
        if kind != torch.bfloat16:
            compare(gather_nodes, gather_nodes_reference, x, index, axis, shared_dims)


@pytest.mark.parametrize("kind", [torch.float32, torch.float64, torch.int64], ids=str)
@pytest.mark.parametrize("samples", SAMPLES, ids=str)
@pytest.mark.parametrize("batch", BATCHES, ids=str)
@pytest.mark.parametrize("middle", [(), (2,)], ids=str)
@pytest.mark.parametrize("rest", [(), (3,)], ids=str)
def test_pairs(rest, middle, batch, samples, kind):
    for nodes in (0, 1, 5):
        x = torch.randn(*batch, *middle, nodes, nodes, *rest).mul(9).to(kind)
        index = permutations((*samples, *batch), nodes)
        compare(gather_pairs, gather_pairs_reference, x, index, len(batch) + len(middle), len(batch))


def test_layouts_of_memory():
    """Transposed, expanded and sliced tensors, and an index that is expanded."""
    index = permutations((3, 1), 6).expand(3, 4, 6)
    dense = torch.randn(4, 6, 6, 2)
    for x in (dense, dense.transpose(1, 2), dense[:1].expand(4, -1, -1, -1), torch.randn(4, 6, 12, 2)[:, :, ::2]):
        assert torch.equal(gather_nodes(x, index, 1, 1), gather_nodes_reference(x, index, 1, 1))
        assert torch.equal(gather_nodes(x, index, 2, 1), gather_nodes_reference(x, index, 2, 1))
        assert torch.equal(gather_pairs(x, index, 1, 1), gather_pairs_reference(x, index, 1, 1))


@pytest.mark.parametrize("learns", [False, True])
def test_wide_and_narrow_numbers_of_pairs(learns, monkeypatch):
    """Numbers of 64 bits where 32 would overflow."""
    x, index = torch.randn(2, 5, 5, requires_grad=learns), permutations((3, 2), 5)
    narrow = gather_pairs(x, index, 1, 1)
    monkeypatch.setattr(gathers, "LARGEST_INT32", 0)
    assert torch.equal(gather_pairs(x, index, 1, 1), narrow)


def test_another_number_of_nodes_is_refused():
    with pytest.raises(ValueError, match=r"expected 4 nodes on axis 1, got a tensor of shape \(2, 5\)"):
        gather_nodes(torch.zeros(2, 5), torch.zeros(2, 4, dtype=torch.long), 1, 1)


@pytest.mark.parametrize("shape", [(0,), (1,), (7,), (2, 3, 7), (2, 0)], ids=str)
def test_inverses(shape):
    index = permutations(shape[:-1], shape[-1])
    inverse = inverse_index(index)
    assert torch.equal(inverse, index.argsort(-1))
    places = torch.arange(shape[-1]).expand(shape)
    assert torch.equal(index.gather(-1, inverse), places)
    shared = index[:1].expand(3, *index.shape[1:]) if index.ndim > 1 else index.expand(3, -1)
    assert torch.equal(inverse_index(shared), shared.argsort(-1))


def test_orders_are_stable():
    x = torch.randint(0, 3, (4, 100))
    expected = (x * 100 + torch.arange(100)).argsort(-1)
    assert torch.equal(stable_order(x), expected)
