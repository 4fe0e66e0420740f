"""Products in at least single precision, whatever autocast, TF32 and its like allow: values and gradients."""

import contextlib

import pytest
import torch

from narrow_settings import SETTINGS
from probsym.kernels.precision import matmul, wide


@pytest.mark.parametrize("setting", [*SETTINGS, None])
@pytest.mark.parametrize("shapes", [((2, 1, 4, 3), (5, 3, 6)), ((4, 3), (3, 6)), ((2, 4, 1), (1, 6))], ids=str)
def test_it_is_a_matmul(shapes, setting):
    """Values and gradients in float32 are those of torch.matmul in float64, in every setting."""
    a, b = (torch.randn(shape, requires_grad=True) for shape in shapes)
    exact = a.double() @ b.double()
    weight = torch.randn(exact.shape)
    with SETTINGS[setting]() if setting else contextlib.nullcontext():
        product = matmul(a, b)
        found = torch.autograd.grad((product * weight).sum(), (a, b))
    expected = torch.autograd.grad((exact * weight).sum(), (a, b))
    assert product.dtype == torch.float32
    for ours, theirs in zip((product, *found), (exact, *expected), strict=True):
        assert torch.allclose(ours.double(), theirs.double(), atol=1e-5)


@pytest.mark.parametrize("setting", SETTINGS)
def test_dtypes(setting):
    a, b = torch.randn(2, 1, 4, 3), torch.randn(5, 3, 6)
    with SETTINGS[setting]():
        assert matmul(a.half(), b.half()).dtype == torch.float32
        assert matmul(a.double(), b).dtype == torch.float64
        z = torch.complex(a, a)
        assert torch.allclose(matmul(z, b), torch.complex(matmul(a, b), matmul(a, b)), atol=1e-5)


def test_wide_numbers():
    kinds = {torch.float16: torch.float32, torch.bfloat16: torch.float32, torch.float32: torch.float32}
    kinds |= {torch.float64: torch.float64, torch.complex64: torch.complex64}
    for kind, expected in kinds.items():
        assert wide(torch.zeros(2, dtype=kind)).dtype == expected
