"""The straight-through gradient: a hard permutation forward, its soft matrix P backward.

A gather y = g x has no gradient to the scores that ordered the nodes. Each function here returns y unchanged, and sends
back to P what the products y = P x and y = P x P^T would have sent. x counts as a constant: derivatives with respect to
the inputs (forces) never pass through the relaxation.

    forward                    backward
    y = g x        (nodes)     dL/dP = G x^T                       G = dL/dy
    y = g x g^T    (pairs)     dL/dP = G (x P^T)^T + G^T (P x)     with the hard g for P on the right

`AttachNodes` and `AttachPairs` never build a product forward; `attach_nodes_reference` and `attach_pairs_reference` are
plain operations with the same gradient. The first also serves function transforms and forward mode.
"""

from __future__ import annotations

import math
from typing import Any, Protocol

import torch
from torch import Tensor

from probsym.kernels.gathers import gather_nodes_reference
from probsym.kernels.precision import matmul, wide, without_autocast
from probsym.kernels.values import may_peek


class NodeStorage(Protocol):
    """What is needed to know of how a node axis is stored: dense, padded or ragged."""

    def clear(self, x: Tensor, batch_dims: int, *axes: int) -> Tensor:
        """x with zeros at the padding of these axes; the first `batch_dims` dims of x end with the batch."""

    def pad(self, x: Tensor, batch_dims: int) -> Tensor:
        """Ragged nodes (*K, sum N, ...) -> (*K, B, N, ...); x itself if not ragged."""

    def unpad(self, x: Tensor, batch_dims: int) -> Tensor:
        """The inverse of `pad`."""


class AttachNodes(torch.autograd.Function):
    """y -> y, with the gradient of y = P x to the token of the soft matrix P.

    Args:
        y: moved nodes (*L, N, ...), ragged (*K, sum N, ...); what a gather made, whose memory is passed on.
        x: what was moved, zero on padding; its leading dims are the last ones of those of y, and it gets no gradient.
        token: zeros (*L, N, N), of which only the derivative exists.
        storage: how the node axis is stored.
        batch_dims: number of dims of y before its nodes.
    """

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, y: Tensor, x: Tensor, token: Tensor, storage: NodeStorage, batch_dims: int
    ) -> Tensor:
        ctx.storage = storage
        ctx.batch_dims = batch_dims
        ctx.token_ndim = token.ndim
        ctx.token_dtype = token.dtype
        ctx.save_for_backward(x)
        return y.detach()  # the same memory, but no view, into which a model must not write

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        if not ctx.needs_input_grad[2]:
            return grad, None, None, None, None
        (x,) = ctx.saved_tensors
        # A model may send anything back to its padding, NaN included: P does not receive it.
        clean = ctx.storage.clear(grad, ctx.batch_dims, ctx.batch_dims)
        left = ctx.storage.pad(clean, ctx.batch_dims)
        right = ctx.storage.pad(x.expand_as(clean), ctx.batch_dims)
        to_token = _outer_products(left, right, ctx.token_ndim - 1).to(ctx.token_dtype)
        return clean, None, to_token, None, None


def attach_nodes_reference(y: Tensor, x: Tensor, token: Tensor, storage: NodeStorage, batch_dims: int) -> Tensor:
    """What `AttachNodes` does by plain operations: y + T x, for the token T of value zero.

    Its derivatives are those of P x in forward mode and under function transforms as well, for the price of P x.
    """
    rows = storage.pad(x.expand_as(y), batch_dims)
    channels = math.prod(rows.shape[token.ndim - 1 :])
    moved = matmul(token, rows.reshape(*token.shape[:-1], channels)).to(y.dtype)
    return y + storage.unpad(storage.clear(moved.reshape(rows.shape), batch_dims, batch_dims), batch_dims)


class AttachPairs(torch.autograd.Function):
    """y -> y, with the gradient of y = P x P^T to the token of the soft matrix P.

    Args:
        y: moved pairs (*L, N, N, ...), which were computed by one gather, whose memory is passed on; dense or padded.
        x: what was moved, zero on padding; its leading dims are the last ones of those of y, and it gets no gradient.
        token: zeros (*L, N, N), of which only the derivative exists.
        inverse: the inverse of the gather index (*L, N).
        storage: how the node axis is stored.
    """

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, y: Tensor, x: Tensor, token: Tensor, inverse: Tensor, storage: NodeStorage
    ) -> Tensor:
        ctx.storage, ctx.token_dtype = storage, token.dtype
        ctx.save_for_backward(x, inverse)
        return y.detach()  # the same memory, but no view, into which a model must not write

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        if not ctx.needs_input_grad[2]:
            return grad, None, None, None, None
        x, inverse = ctx.saved_tensors
        batch_dims = inverse.ndim - 1
        clean = ctx.storage.clear(grad, batch_dims, batch_dims, batch_dims + 1)
        return grad, None, _pair_products(clean, x, inverse).to(ctx.token_dtype), None, None


def attach_pairs_reference(y: Tensor, x: Tensor, token: Tensor, index: Tensor, storage: NodeStorage) -> Tensor:
    """What `AttachPairs` does by plain operations: y + T (x P^T) + (P x) T^T, for the token T of value zero.

    The gather `index` (*L, N) is that of the hard permutation P; all else is as in `AttachPairs`.
    """
    batch_dims = index.ndim - 1
    shared_dims = x.ndim - y.ndim + batch_dims
    rows = gather_nodes_reference(x, index, shared_dims, shared_dims)  # P x
    columns = gather_nodes_reference(x, index, shared_dims + 1, shared_dims)  # x P^T
    shape = (*index.shape, index.shape[-1], math.prod(x.shape[shared_dims + 2 :]))
    added = torch.einsum("...im,...mjc->...ijc", token, columns.reshape(shape))
    added = added + torch.einsum("...jm,...imc->...ijc", token, rows.reshape(shape))
    return y + storage.clear(added.reshape(y.shape), batch_dims, batch_dims, batch_dims + 1)


def _pair_products(grad: Tensor, x: Tensor, inverse: Tensor) -> Tensor:
    """The gradient to P of y = P x P^T at the permutation P: (*L, N, N).

        dL/dP_ij = sum_{m, c} G_{i, inv(m), c} x_{j, m, c} + G_{inv(m), i, c} x_{m, j, c}

    Args:
        grad: G = dL/dy (*L, N, N, C...), with L = (K..., B...).
        x: (B..., N, N, C...).
        inverse: (*L, N).
    """
    nodes, batch_dims = inverse.shape[-1], inverse.ndim - 1
    shared_dims = x.ndim - grad.ndim + batch_dims
    samples = math.prod(inverse.shape[: batch_dims - shared_dims])
    inputs = math.prod(x.shape[:shared_dims])
    channels = math.prod(x.shape[shared_dims + 2 :])
    grad = grad.reshape(samples, inputs, nodes, nodes, channels)
    x = x.reshape(inputs, nodes, nodes, channels)

    # Where row inv(m) of each sample lies among the rows of G, in the order (input, m, sample): the samples of an input
    # share x, so that their products are one of (K N) x (N C) by (N C) x N numbers.
    first_row = torch.arange(samples * inputs * nodes, device=inverse.device).view(samples, inputs, nodes)[..., :1]
    rows = (first_row + inverse.reshape(samples, inputs, nodes)).permute(1, 2, 0).reshape(-1)

    # Both as the product wants them, channels before the second node: (samples, inputs, m, c, i), (inputs, m, c, j).
    grad, grad_turned = grad.movedim(-1, 3), grad.transpose(2, 3).movedim(-1, 3)
    x, x_turned = x.movedim(-1, 2), x.transpose(1, 2).movedim(-1, 2)

    # Undirected graphs: both sums run over the same x, so that their G are added. Else they are one sum over the
    # channels of both.
    if may_peek(x) and torch.equal(x, x_turned):
        grad = grad + grad_turned
    else:
        grad = torch.cat([grad, grad_turned], 3)
        x = torch.cat([x, x_turned], 2)
        channels = 2 * channels

    # sum_{m, c} G_{inv(m), i, c} x_{m, j, c}
    moved = grad.reshape(samples * inputs * nodes, channels * nodes).index_select(0, rows)
    left = moved.reshape(inputs, nodes, samples, channels, nodes)
    left = left.transpose(2, 3).flatten(1, 2).flatten(2)  # (inputs, m c, samples i)
    right = x.flatten(1, 2)  # (inputs, m c, j)
    products = _wide_products(left.mT, right).view(inputs, samples, nodes, nodes)
    return products.transpose(0, 1).reshape(*inverse.shape[:-1], nodes, nodes)


def _outer_products(a: Tensor, b: Tensor, axes: int) -> Tensor:
    """sum_c a_ic b_jc over all that follows the first `axes` axes, of which i and j are the last: (*batch, N, N)."""
    batch, nodes = a.shape[: axes - 1], a.shape[axes - 1]
    rows, channels = math.prod(batch), math.prod(a.shape[axes:])
    a = a.reshape(rows, nodes, channels)
    b = b.reshape(rows, nodes, channels)
    return _wide_products(a, b.mT).reshape(*batch, nodes, nodes)


def _wide_products(a: Tensor, b: Tensor) -> Tensor:
    """The matrix products a b in at least float32: sums over many nodes and channels leave the range of float16."""
    with without_autocast(a.device):
        return torch.bmm(wide(a), wide(b))
