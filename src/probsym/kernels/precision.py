"""Arithmetic of group elements in at least single precision, whatever autocast and TF32 allow."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from probsym.kernels.values import apply_or, recorded

HALF = (torch.bfloat16, torch.float16)
FEW_TERMS = 4  # coordinates of space

# As `dtype.to_complex()` and `to_real()` have it, which torch.compile cannot follow.
COMPLEX = {
    torch.float16: torch.complex32,
    torch.bfloat16: torch.complex64,
    torch.float32: torch.complex64,
    torch.float64: torch.complex128,
}
REAL = {torch.complex32: torch.float16, torch.complex64: torch.float32, torch.complex128: torch.float64}


def complex_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of complex numbers with parts of a real one; of complex ones the same.

    >>> complex_dtype(torch.float64), complex_dtype(torch.complex64)
    (torch.complex128, torch.complex64)
    """
    return COMPLEX.get(dtype, dtype)


def real_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of the parts of complex numbers; of real ones the same.

    >>> real_dtype(torch.complex128), real_dtype(torch.bfloat16)
    (torch.float64, torch.bfloat16)
    """
    return REAL.get(dtype, dtype)


def wide(x: Tensor) -> Tensor:
    """x in at least float32, or complex64."""
    if x.dtype in HALF:
        return x.float()
    return x.to(torch.complex64) if x.dtype == torch.complex32 else x


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Where autocast narrows no product. For code of others; `matmul` needs no such context."""
    # Torch refuses the question on "meta", where tensors have no values.
    if device.type != "meta" and torch.is_autocast_enabled(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """The matrix product a b (*shape, N, M) of a (*shape, N, D) and b (*shape, D, M), in at least float32.

    A matmul where nothing narrows one. Autocast runs it in half precision, and TF32, which may be on for all of a
    program's matmuls, keeps three digits: a rotation would change distances by 0.1 to 1 %. There the D outer products
    are added up, which both leave alone, in backward as well.

    >>> with torch.autocast("cpu", torch.bfloat16):
    ...     matmul(torch.tensor([[1.001, 2.0]]), torch.eye(2)).tolist()
    [[1.0010000467300415, 2.0]]
    """
    kind = torch.promote_types(wide(a).dtype, wide(b).dtype)
    a, b = a.to(kind), b.to(kind)
    if not _narrowed(a):
        return torch.matmul(a, b)
    if a.shape[-1] <= FEW_TERMS and not recorded():
        return apply_or(_OuterProducts, _outer_products, a, b)
    return _outer_products(a, b)


def _outer_products(a: Tensor, b: Tensor) -> Tensor:
    """The sum of the outer products of columns of a and rows of b, which is a b."""
    if a.shape[-1] <= FEW_TERMS:
        return (a.unsqueeze(-1) * b.unsqueeze(-3)).sum(-2)
    total = a[..., :1] * b[..., :1, :]
    for i in range(1, a.shape[-1]):
        total = torch.addcmul(total, a[..., i : i + 1], b[..., i : i + 1, :])
    return total


class _OuterProducts(torch.autograd.Function):
    """`_outer_products` of few terms: dL/da = G b^T and dL/db = a^T G, each in as few operations."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(a, b)
        return _outer_products(a, b)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:  # type: ignore[override]
        a, b = ctx.saved_tensors
        to_a: Tensor | None = None
        to_b: Tensor | None = None
        if ctx.needs_input_grad[0]:
            to_a = matmul(grad, b.mH).sum_to_size(a.shape)
        if ctx.needs_input_grad[1]:
            to_b = (a.conj().unsqueeze(-1) * grad.unsqueeze(-2)).sum(-3).sum_to_size(b.shape)
        return to_a, to_b


def _narrowed(x: Tensor) -> bool:
    """Whether a matmul of such tensors may run in less than their precision."""
    if x.dtype in (torch.float64, torch.complex128):
        return False
    if not x.is_cpu or recorded():
        return True  # products of small matrices gain nothing by a matmul there, nor where a compiler fuses the sums
    if torch.is_autocast_enabled("cpu"):
        return True
    try:
        return torch.get_float32_matmul_precision() != "highest"
    except RuntimeError:  # set for each backend on its own: torch then has no one answer
        return True
