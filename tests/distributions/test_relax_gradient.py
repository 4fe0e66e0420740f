"""The gradient of the soft permutation in closed form, against autograd through the logarithms."""

import pytest
import torch

from probsym.distributions import Relaxation

MASK = torch.tensor([[True, True, True, True, False, False], [True] * 6, [True] + [False] * 5, [False] * 6])


@pytest.mark.parametrize("relaxation", [Relaxation(), Relaxation(1.0, 0), Relaxation(0.02, 30)], ids=repr)
@pytest.mark.parametrize("mask", [None, MASK], ids=["dense", "padded"])
@pytest.mark.parametrize("kind", ["generic", "tied", "constant", "wide"])
def test_closed_form_is_autograd(relaxation, mask, kind):
    z = torch.randn(3, 4, 6, dtype=torch.float64)
    if kind == "tied":
        z[..., 1] = z[..., 0]
    z = {"constant": 0 * z, "wide": 30 * z}.get(kind, z).requires_grad_()
    grad = torch.randn(3, 4, 6, 6, dtype=torch.float64)
    grad = grad if mask is None else grad * (mask[..., None] & mask[..., None, :])
    (expected,) = torch.autograd.grad(relaxation(z, mask), z, grad)
    assert torch.allclose(relaxation.pull(z.detach(), mask, grad), expected, atol=1e-9)


@pytest.mark.parametrize("n", [0, 1, 2, 500])
def test_float32_is_finite_and_near(n):
    z, grad = 5 * torch.randn(2, n), torch.randn(2, n, n)
    found, wide = Relaxation().pull(z, None, grad), Relaxation().pull(z.double(), None, grad.double())
    assert found.isfinite().all()
    assert n == 0 or (found - wide).abs().max() <= 1e-3 * wide.abs().max()
