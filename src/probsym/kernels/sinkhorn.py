"""Soft permutations: SoftSort and Sinkhorn, their gradient in closed form, and their entropy.

    P = Sinkhorn(softmax_i(-|z_i - sort(z)_r| / tau)),    node i by rank r

SoftSort: arXiv 2006.16038. Sinkhorn normalises rows and columns in turn, `passes` times each. Without the softmax
(`softmax=False`) it begins with the rows of exp(-|z_i - sort(z)_r| / tau), as in the code of arXiv 2306.02866.
`log_soft_permutation` is the reference, in logarithms and by plain operations; the rest is fast, and tests compare it
with the derivatives of the reference.
"""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import threshold
from torch.special import entr

from probsym.kernels.values import apply_or, differentiated, may_peek, readable

SMALL_NODES = 16  # smaller matrices run fastest side by side, along the last axis, where sums are vectorised
PAGE_ENTRIES = 2**16  # entries of larger matrices that a CPU works on at once: they stay in its caches
LEAST_LOG_WEIGHT = -60.0  # log-weights below count as zero next to 1, in double precision too
FAR = 1e9  # a distance of scores whose weight is zero, and the log of it finite under repeated normalisation


def log_soft_permutation(
    z: Tensor, mask: Tensor | None, temperature: float, passes: int, softmax: bool = True
) -> Tensor:
    """log P (*shape, N, N), node by rank: the reference.

    Args:
        z: scores (*shape, N), in float32 or better.
        mask: nodes of a padded batch (B, N) bool; B is the last dim of `shape`. On padding P is the identity.
        temperature: tau > 0; smaller is harder.
        passes: number of row and column normalisations after the softmax.
        softmax: whether a softmax over the nodes comes first.

    >>> z = torch.tensor([2.0, 0.0, 1.0])
    >>> log_soft_permutation(z, None, temperature=0.1, passes=2).argmax(-1).tolist()    # node 0 has the largest score
    [2, 0, 1]
    """
    z = _separate_padding(z, mask)
    ordered = z.sort(-1).values
    log_p = (z.unsqueeze(-1) - ordered.unsqueeze(-2)).abs() / -temperature
    for axis in _normalised_axes(passes, softmax):
        log_p = log_p - log_p.logsumexp(axis, keepdim=True)
    return log_p


def soft_permutation(z: Tensor, mask: Tensor | None, temperature: float, passes: int, softmax: bool = True) -> Tensor:
    """P (*shape, N, N) of `log_soft_permutation`; by a Triton kernel on a GPU, where there is one for its size."""
    if _triton_kernels(z, softmax) is None:
        return _plain_soft_permutation(z, mask, temperature, passes, softmax)
    return apply_or(_TritonSoftPermutation, _plain_soft_permutation, z, mask, temperature, passes)


def _plain_soft_permutation(
    z: Tensor, mask: Tensor | None, temperature: float, passes: int, softmax: bool = True
) -> Tensor:
    return log_soft_permutation(z, mask, temperature, passes, softmax).exp()


def soft_permutation_token(
    z: Tensor, mask: Tensor | None, temperature: float, passes: int, softmax: bool = True
) -> Tensor:
    """Zeros (*shape, N, N) with the gradient of P: no memory forward, and one Sinkhorn per step, backward.

    `soft_permutation_token_reference` has the same value and gradient by plain operations, for function transforms.
    """
    return apply_or(_Token, soft_permutation_token_reference, z, mask, temperature, passes, softmax)


def soft_permutation_token_reference(
    z: Tensor, mask: Tensor | None, temperature: float, passes: int, softmax: bool = True
) -> Tensor:
    """What `soft_permutation_token` computes, for function transforms and forward mode: P - P."""
    soft = _plain_soft_permutation(z, mask, temperature, passes, softmax)
    return soft - soft.detach()


def soft_permutation_entropy(
    z: Tensor, mask: Tensor | None, temperature: float, passes: int, softmax: bool = True
) -> Tensor:
    """Mean over the nodes of all inputs of the entropy of a row of P plus that of a column, in nats.

    H = mean_i [-sum_r P_ir log P_ir] + mean_r [-sum_i P_ir log P_ir],    rows and columns as they are normalised

    It is zero for permutations.
    """
    entropy = _node_entropies(z, mask, temperature, passes, softmax, divided=False)
    if mask is None:
        return entropy.mean()
    nodes = mask.expand_as(entropy).sum().clamp_min(1)
    return (entropy * mask).sum() / nodes


def soft_permutation_entropies(
    z: Tensor, mask: Tensor | None, temperature: float, passes: int, softmax: bool = True
) -> Tensor:
    """Mean over the nodes of each input, (*shape,), of the entropy of a row and of a column, in nats.

    Each is divided by its sum first: rows of P add up to one only after many passes. Inputs count alike in the mean of
    these numbers, whatever their number of nodes. Both are as in the code of arXiv 2306.02866.
    """
    entropy = _node_entropies(z, mask, temperature, passes, softmax, divided=True)
    if mask is None:
        return entropy.mean(-1)
    return (entropy * mask).sum(-1) / mask.sum(-1).clamp_min(1)


def _node_entropies(
    z: Tensor, mask: Tensor | None, temperature: float, passes: int, softmax: bool, divided: bool
) -> Tensor:
    """-sum p log(p / s) of row i of P plus that of column i, (*shape, N), for their sums s.

    Numbers on padding mean nothing.

    Args:
        divided: whether each is divided by s, which makes an entropy of it where s is not one.
    """
    if _triton_kernels(z, softmax) is not None:
        # The kernel gives P and no logarithms. With s = sum p, -sum p log(p / s) = sum entr(p) - entr(s).
        p = soft_permutation(z, mask, temperature, passes).clamp_min(math.exp(LEAST_LOG_WEIGHT))
        rows = entr(p).sum(-1) - entr(p.sum(-1))
        columns = entr(p).sum(-2) - entr(p.sum(-2))
    else:
        log_p = log_soft_permutation(z, mask, temperature, passes, softmax)
        p = log_p.clamp_min(LEAST_LOG_WEIGHT).exp()
        rows = -(p * (log_p - log_p.logsumexp(-1, keepdim=True))).sum(-1)
        columns = -(p * (log_p - log_p.logsumexp(-2, keepdim=True))).sum(-2)
    if divided:
        rows = rows / p.sum(-1)
        columns = columns / p.sum(-2)
    return rows + columns


def soft_permutation_gradient(
    z: Tensor, mask: Tensor | None, grad: Tensor, temperature: float, passes: int, softmax: bool = True
) -> Tensor:
    """The gradient of sum(grad * P) with respect to the scores z (*shape, N), in closed form.

    The gradients are those of autograd through `log_soft_permutation(...).exp()`. Three ways lead to them: a Triton
    kernel, `_by_softmax` for small matrices and wherever launches take the time, and `_by_sums` for larger ones on a
    CPU, with the memory of two tensors of the size of P, whatever the number of passes.

    Args:
        grad: (*shape, N, N); the others are as in `log_soft_permutation`.
    """
    z = _separate_padding(z, mask)
    kernels = _triton_kernels(z, softmax)
    if kernels is not None and not (differentiated(z) or differentiated(grad)):
        ordered, order = z.sort(-1)
        by_node, by_rank = kernels.slopes(z, ordered, grad, temperature, passes, LEAST_LOG_WEIGHT)
        return (torch.zeros_like(z).scatter(-1, order, by_rank) - by_node) / temperature
    shape = z.shape
    nodes, count = shape[-1], math.prod(shape[:-1])
    z, grad = z.reshape(count, nodes), grad.reshape(count, nodes, nodes)
    axes = _normalised_axes(passes, softmax)
    if not axes or (nodes >= SMALL_NODES and may_peek(z)):
        return _by_sums_in_pages(z, grad, temperature, axes).reshape(shape)
    return _by_softmax(z, grad, temperature, axes).reshape(shape)


def _by_softmax(z: Tensor, grad: Tensor, temperature: float, axes: list[int]) -> Tensor:
    """`soft_permutation_gradient` in the fewest operations, one for each normalisation and one for its derivative.

    In logarithms a normalisation is `log_softmax`. Holds a tensor of the size of P for each of them.

    Args:
        z: R score vectors (R, N). grad: (R, N, N), the gradient to P. axes: what is normalised in turn, one at least.
    """
    # 1. Many matrices are small: (N, N, R), so that the batch runs along the last axis.
    nodes, ranks, scores = -2, -1, -1
    batch_last = len(z) > 1 and z.shape[-1] < SMALL_NODES and z.is_cpu
    if batch_last:
        nodes, ranks, scores = 0, 1, 0
        z = z.mT.contiguous()
        grad = grad.movedim((-2, -1), (0, 1)).contiguous()
    ordered, order = z.sort(scores)

    # 2. Log-weights -|z_i - sort(z)_r| / tau, and their derivative with respect to z_i; that to the score of rank r has
    #    the other sign. Numbers that underflow would make exp and all products slow.
    away = z.unsqueeze(ranks) - ordered.unsqueeze(nodes)
    derivative = away.sign() / -temperature
    log_p = (away * derivative).clamp_min(LEAST_LOG_WEIGHT)

    # 3. Forward: all normalisations but the last give logarithms, the last one P.
    axes = [nodes if axis == -2 else ranks for axis in axes]
    logs = []
    for axis in axes[:-1]:
        log_p = log_p.log_softmax(axis)
        logs.append(log_p)
    p = log_p.softmax(axes[-1])

    # 4. Backward through them, and from log-weights to scores.
    slope = torch._softmax_backward_data(grad, p, axes[-1], p.dtype)
    for axis, log_p in zip(reversed(axes[:-1]), reversed(logs), strict=True):
        slope = torch._log_softmax_backward_data(slope, log_p, axis, p.dtype)
    slope = slope * derivative
    gradient = slope.sum(ranks).scatter_add(scores, order, -slope.sum(nodes))
    return gradient.mT if batch_last else gradient


def _by_sums_in_pages(z: Tensor, grad: Tensor, temperature: float, axes: list[int]) -> Tensor:
    """`_by_sums`, so many matrices at a time as stay in the caches of a CPU."""
    page = max(1, PAGE_ENTRIES // max(1, z.shape[-1] ** 2))
    if len(z) <= page:
        return _by_sums(z, grad, temperature, axes)
    gradients = []
    for start in range(0, len(z), page):
        part = slice(start, start + page)
        gradients.append(_by_sums(z[part], grad[part], temperature, axes))
    return torch.cat(gradients)


def _by_sums(z: Tensor, grad: Tensor, temperature: float, axes: list[int]) -> Tensor:
    """`_by_softmax` with the least work for each entry of P, and two tensors of its size held at a time.

    Plain sums take the place of logarithms, one exponential is all. A normalisation y = x / sum(x) sends the slope
    s = y g of log y to s - y sum(s). Going back, x = y sum(x) is formed again from the sum that was divided out. Sums
    do not vanish: every row and column has an entry that starts at 1, where a node meets its own rank.
    """
    ordered, order = z.sort(-1)

    # 1. the weights before the first normalisation; numbers that underflow would make exp and all products slow
    away = z.unsqueeze(-1) - ordered.unsqueeze(-2)
    log_p = (away.abs() / -temperature).clamp_min(LEAST_LOG_WEIGHT)
    p = threshold(log_p.exp(), 1.001 * math.exp(LEAST_LOG_WEIGHT), 0.0)
    derivative = away.sign() / -temperature

    # 2. forward: normalise, and keep the sums
    sums = []
    for axis in axes:
        total = p.sum(axis, keepdim=True)
        p = p * total.reciprocal()
        sums.append(total)

    # 3. backward: the slope of each log-weight, and the weights before each normalisation
    slope = p * grad  # laid out as p is: the gradient often comes transposed
    for step in reversed(range(len(axes))):
        slope = torch.addcmul(slope, p, slope.sum(axes[step], keepdim=True), value=-1)
        if step > 0:
            p = p * sums[step]

    # 4. from log-weights to scores
    slope = slope * derivative
    return slope.sum(-1).scatter_add(-1, order, -slope.sum(-2))


def _normalised_axes(passes: int, softmax: bool) -> list[int]:
    """What is normalised in turn: the softmax over nodes (-2), unless left out, then ranks (-1) and nodes again."""
    axes = [-1, -2] * passes
    if softmax:
        axes = [-2, *axes]
    return axes


def _separate_padding(z: Tensor, mask: Tensor | None) -> Tensor:
    """Scores with the padding at the end, so far from nodes and from each other that P is the identity on it."""
    if mask is None or not z.shape[-1]:
        return z
    step = FAR + z.detach().masked_fill(~mask, 0).abs().amax(-1, keepdim=True)
    places = torch.arange(1, z.shape[-1] + 1, device=z.device, dtype=z.dtype)
    return torch.where(mask, z, step * places)


def _triton_kernels(z: Tensor, softmax: bool) -> ModuleType | None:
    """The kernels for scores z (*shape, N) where they run: float32 on a GPU, N small, values that are readable.

    They begin with the softmax.
    """
    if not softmax or not z.is_cuda or z.dtype != torch.float32 or not z.numel() or not readable(z):
        return None
    try:
        from probsym.kernels import sinkhorn_triton
    except ImportError:  # triton comes with torch for Linux
        return None
    return sinkhorn_triton if z.shape[-1] <= sinkhorn_triton.LARGEST_NODES else None


class _Token(torch.autograd.Function):
    """`soft_permutation_token`: z (*shape, N) -> zeros (*shape, N, N)."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, z: Tensor, mask: Tensor | None, temperature: float, passes: int, softmax: bool
    ) -> Tensor:
        ctx.setting = temperature, passes, softmax
        ctx.save_for_backward(z, mask)
        return z.new_zeros(()).expand(*z.shape, z.shape[-1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        z, mask = ctx.saved_tensors
        return soft_permutation_gradient(z, mask, grad.to(z.dtype), *ctx.setting), None, None, None, None


class _TritonSoftPermutation(torch.autograd.Function):
    """`soft_permutation` by a kernel: z (*shape, N) -> P (*shape, N, N)."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, z: Tensor, mask: Tensor | None, temperature: float, passes: int
    ) -> Tensor:
        from probsym.kernels import sinkhorn_triton

        ctx.temperature, ctx.passes = temperature, passes
        ctx.save_for_backward(z, mask)
        separate = _separate_padding(z, mask)
        return sinkhorn_triton.matrix(separate, separate.sort(-1).values, temperature, passes, LEAST_LOG_WEIGHT)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        z, mask = ctx.saved_tensors
        return soft_permutation_gradient(z, mask, grad, ctx.temperature, ctx.passes), None, None, None
