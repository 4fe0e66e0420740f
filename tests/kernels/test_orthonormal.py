"""Orthonormalisation against a plain loop, and its closed form against the general way, with derivatives."""

import pytest
import torch

import probsym as ps
from probsym.kernels import orthonormal
from probsym.kernels.orthonormal import orthonormalise, orthonormalise_reference

torch.manual_seed(0)


def derivatives(z, fallback, special):
    z = z.detach().requires_grad_()
    q = orthonormalise(z, fallback, special)
    weight = torch.linspace(-1, 1, q.numel(), dtype=q.dtype).view_as(q)
    (first,) = torch.autograd.grad((q * weight + q**3).sum(), z, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), z)
    return q, first, second


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("special", [False, True])
@pytest.mark.parametrize("surplus", [0, 2])
def test_closed_form_is_the_general_one(dim, special, surplus, monkeypatch):
    z = torch.randn(3, 4, dim, dim + surplus, dtype=torch.float64)
    fallback = torch.randn(3, 4, dim, dim, dtype=torch.float64)
    closed = derivatives(z, fallback, special)
    monkeypatch.setattr(orthonormal, "may_peek", lambda x: False)
    for a, b in zip(closed, derivatives(z, fallback, special), strict=True):
        assert torch.allclose(a, b, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("special", [False, True])
@pytest.mark.parametrize("size", [1e-30, 1.0, 1e30])
def test_one_dependent_row_takes_all_the_general_way(dim, special, size):
    """Whatever the batch holds and its size in float32, the result is orthogonal and moves with z and fallback."""
    z, fallback = torch.randn(5, dim, dim), torch.randn(5, dim, dim)
    z[2, :, 1] = z[2, :, 0]
    z, h = z * size, ps.O(dim).haar((5,)).matrix
    q = orthonormalise(z, fallback, special)
    assert torch.allclose(q.mT @ q, torch.eye(dim).expand(5, dim, dim), atol=1e-5)
    if not special:
        rows = [0, 1, 3, 4]
        assert torch.allclose(orthonormalise(h @ z, h @ fallback)[rows], (h @ q)[rows], atol=2e-4)
    alone = orthonormalise(z[:2], fallback[:2], special)
    assert torch.allclose(alone, q[:2], atol=1e-4)


def deficient(shape, dim, columns, rank, kind):
    """Columns of a rank, the first of which is repeated or zero where there is room."""
    z = torch.randn(*shape, dim, rank, dtype=kind) @ torch.randn(*shape, rank, columns, dtype=kind)
    if columns > rank > 0:
        z[..., 1] = z[..., 0]
    return z


@pytest.mark.parametrize("kind", [torch.float32, torch.float64, torch.complex128], ids=str)
@pytest.mark.parametrize("special", [False, True])
@pytest.mark.parametrize("dim", [1, 2, 3, 4])
def test_it_is_the_plain_loop(dim, special, kind):
    """Every number of columns and every rank: values, and gradients to the columns and to the fallback."""
    for columns in range(dim + 3):
        for rank in range(min(dim, columns) + 1):
            z = deficient((2, 3), dim, columns, rank, kind).requires_grad_()
            fallback = torch.randn(2, 3, dim, dim, dtype=kind, requires_grad=True)
            q = orthonormalise(z, fallback, special)
            rows = zip(z.reshape(6, dim, columns), fallback.reshape(6, dim, dim), strict=True)
            plain = torch.stack([orthonormalise_reference(*row, special) for row in rows]).reshape(2, 3, dim, dim)
            tolerance = 1e-3 if kind == torch.float32 else 1e-9
            assert torch.allclose(q, plain, atol=tolerance)
            if dim == 1:
                continue
            weight = torch.randn(2, 3, dim, dim, dtype=kind)
            options = {"allow_unused": True, "materialize_grads": True}
            found = torch.autograd.grad((q * weight).sum().real, (z, fallback), **options)
            expected = torch.autograd.grad((plain * weight).sum().real, (z, fallback), **options)
            for a, b in zip(found, expected, strict=True):
                size = float(b.abs().max()) if b.numel() else 0.0
                assert torch.allclose(a, b, atol=10 * tolerance * (1 + size))
