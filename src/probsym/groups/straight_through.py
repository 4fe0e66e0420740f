"""Gradients of gathers to the soft matrix P whose hard values they are, as those of y = P x and y = P x P^T."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from probsym.groups.axis import Layout
from probsym.groups.peek import may_peek
from probsym.groups.precision import matmul, wide, without_autocast


class StraightThrough(torch.autograd.Function):
    """y -> y in forward; in backward the soft matrix P (*shape, N, N) receives grad_y x^T.

    x is detached: derivatives with respect to the inputs (forces) never pass through the relaxation. Its leading dims
    are the last ones of those of y. What a base model sends back to its padding, NaN it may be, P does not receive.
    """

    @staticmethod
    def forward(y: Tensor, x: Tensor, relaxed: Tensor, layout: Layout, lead: int) -> Tensor:
        return y.clone()  # no view, into which a model could not write

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, x, relaxed, ctx.layout, ctx.lead = inputs
        ctx.shape, ctx.kind = relaxed.shape, relaxed.dtype
        ctx.save_for_backward(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        if not ctx.needs_input_grad[2]:
            return grad, None, None, None, None
        (x,) = ctx.saved_tensors
        grad = ctx.layout.clear(grad, ctx.lead, ctx.lead)
        rows = [ctx.layout.pad(t, ctx.lead) for t in (grad, x.expand_as(grad))]
        return grad, None, _products(rows[0], rows[1], len(ctx.shape) - 1).to(ctx.kind), None, None


def attached(y: Tensor, x: Tensor, relaxed: Tensor, layout: Layout, lead: int) -> Tensor:
    """What `StraightThrough` does, by plain operations: y + T x, for a token T = P - P of value zero.

    Its derivatives are those of P x in forward mode and under function transforms as well, for the price of P.
    """
    rows = layout.clear(layout.pad(x.expand_as(y), lead), lead, lead)
    flat = rows.reshape(*relaxed.shape[:-1], math.prod(rows.shape[relaxed.ndim - 1 :]))
    moved = matmul(relaxed, flat).to(y.dtype).reshape(rows.shape)
    return y + layout.unpad(moved, lead)


class PairsThrough(torch.autograd.Function):
    """The same for y = P x P^T, x (*suffix, N, N, ...), of which y is computed by one gather; `place` (*shape, N) is
    the inverse of its index.

    P receives grad_y (x P^T)^T over the pairs (i, .) and grad_y^T (P x)^T over (., j).
    """

    @staticmethod
    def forward(y: Tensor, x: Tensor, relaxed: Tensor, place: Tensor, layout: Layout) -> Tensor:
        return y.clone()  # no view, into which a model could not write

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, x, relaxed, place, ctx.layout = inputs
        ctx.kind = relaxed.dtype
        ctx.save_for_backward(x, place)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        if not ctx.needs_input_grad[2]:
            return grad, None, None, None, None
        x, place = ctx.saved_tensors
        return grad, None, _pair_products(grad, x, place, ctx.layout).to(ctx.kind), None, None


def _pair_products(grad: Tensor, x: Tensor, place: Tensor, layout: Layout) -> Tensor:
    """sum_m G_{i place_m} x_{j m} + G_{place_m i} x_{m j} over m and channels, for G = grad_y: (*shape, N, N).

    The samples of an input share x, so that their products are one; and both sums are where x is symmetric.
    """
    shape, lead, own = place.shape[:-1], place.ndim - 1, x.ndim - grad.ndim + place.ndim - 1
    k, b, n = math.prod(shape[: lead - own]), math.prod(x.shape[:own]), place.shape[-1]
    c = math.prod(x.shape[own + 2 :])
    grad = layout.clear(grad, lead, lead, lead + 1)
    grad, x = grad.reshape(k, b, n, n, c), x.reshape(b, n, n, c)
    rows = n * torch.arange(k * b, device=place.device).view(k, b, 1) + place.reshape(k, b, n)
    rows = rows.permute(1, 2, 0).reshape(-1)

    def product(g: Tensor, x: Tensor) -> Tensor:
        """sum_m G_{place_m i} x_{m j}."""
        moved = g.reshape(k * b * n, n * c).index_select(0, rows).reshape(b, n, k, n, c)
        left, right = (t.movedim(-1, 2).flatten(1, 2).flatten(2) for t in (moved, x))
        return _summed(left.mT, right).view(b, k, n, n)

    turned, mirrored = grad.transpose(2, 3), x.transpose(1, 2)
    if may_peek(x) and torch.equal(x, mirrored):
        both = product(grad + turned, x)
    else:
        both = product(grad, x) + product(turned, mirrored)
    return both.transpose(0, 1).reshape(*shape, n, n)


def _products(a: Tensor, b: Tensor, lead: int) -> Tensor:
    """sum a_i b_j over all that follows the first `lead` axes, of which i and j are the last: (*lead, N, N)."""
    batch, (n, m) = a.shape[: lead - 1], (math.prod(a.shape[: lead - 1]), math.prod(a.shape[lead:]))
    a, b = (t.reshape(n, t.shape[lead - 1], m) for t in (a, b))
    return _summed(a, b.mT).reshape(*batch, a.shape[1], a.shape[1])


def _summed(a: Tensor, b: Tensor) -> Tensor:
    """The matrix products a b in at least float32: sums over many nodes and channels leave the range of float16."""
    with without_autocast(a.device):
        return torch.bmm(wide(a), wide(b))
