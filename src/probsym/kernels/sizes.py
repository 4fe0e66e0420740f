"""Vectors divided by their size, with the derivative in closed form."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from probsym.kernels.values import apply_or


def of_unit_size(x: Tensor, axes: tuple[int, ...], count: int) -> tuple[Tensor, Tensor]:
    """x over its size s = (sum of squares over `axes` / count)^(1/2), and s; zeros stay, and count as of size one.

    Axes are kept in s, which has no derivative here.

    Squares stay in the range of the dtype. `of_unit_size_reference` is the same by plain operations.

    >>> y, size = of_unit_size(torch.tensor([[3e30, 4e30], [0.0, 0.0]]), (-1,), 1)
    >>> y, size.squeeze(-1)
    (tensor([[0.6000, 0.8000],
            [0.0000, 0.0000]]), tensor([5.0000e+30, 1.0000e+00]))
    """
    return apply_or(UnitSize, of_unit_size_reference, x, axes, count)


def of_unit_size_reference(x: Tensor, axes: tuple[int, ...], count: int) -> tuple[Tensor, Tensor]:
    """What `of_unit_size` computes. Its derivatives of any order are finite, at zero too."""
    largest = largest_entry(x, axes)
    x = x / largest
    square = x.square().sum(axes, keepdim=True) / count
    size = torch.where(square > 0, torch.where(square > 0, square, 1.0).sqrt(), 1.0)
    return x / size, (size * largest).detach()


def largest_entry(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """The largest size of an entry along the axes, which are kept; one where all are zero. A constant to autograd."""
    largest = torch.linalg.vector_norm(x.detach(), torch.inf, axes, keepdim=True)
    return largest.masked_fill(largest == 0, 1.0)


class UnitSize(torch.autograd.Function):
    """`of_unit_size`: y = x / s, and with G = dL/dy

    dL/dx = (G - y sum(y G) / count) / s
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, axes: tuple[int, ...], count: int) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        largest = torch.linalg.vector_norm(x, torch.inf, axes, keepdim=True)
        nothing = largest == 0
        largest = largest.masked_fill(nothing, 1.0)
        y = x / largest
        # No masked root is needed: the sum of squares is one at least, or all are zero.
        size = (torch.linalg.vector_norm(y, 2, axes, keepdim=True) * count**-0.5).masked_fill(nothing, 1.0)
        y = y / size
        size = size * largest
        ctx.save_for_backward(x, y, size)
        ctx.mark_non_differentiable(size)
        ctx.set_materialize_grads(False)  # no zeros for it
        ctx.axes = axes
        ctx.count = count
        return y, size

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, _: None) -> tuple[Tensor | None, None, None]:  # type: ignore[override]
        if grad is None:
            return None, None, None
        x, y, size = ctx.saved_tensors
        if torch.is_grad_enabled():
            # A derivative of this one is wanted: its graph goes through plain operations.
            plain = of_unit_size_reference(x, ctx.axes, ctx.count)[0]
            (found,) = torch.autograd.grad(plain, x, grad, create_graph=True, materialize_grads=True)
            return found, None, None
        along = (y * grad).sum(ctx.axes, keepdim=True)
        return torch.addcmul(grad, y, along, value=-1 / ctx.count) / size, None, None
