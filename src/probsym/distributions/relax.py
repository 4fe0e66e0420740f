"""Straight-through gradients for permutations: SoftSort and log-Sinkhorn, evaluated in backward only."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import threshold
from torch.special import entr

from probsym.groups import Layout, Permutation
from probsym.groups.peek import applied, differentiated, may_peek, traced, transformed
from probsym.members import register

SMALL = 16  # nodes: smaller matrices run fastest side by side, along the last axis, where sums are vectorised
PAGE = 2**16  # entries of larger matrices worked on at once on a CPU: what is in its caches is not fetched again
LEAST = -60.0  # log-weights below count as zero next to 1, in double precision too
FAR = 1e9  # a distance of scores whose weight is zero, and the log of it finite under repeated normalisation


@register
@dataclass(frozen=True)
class Relaxation:
    """How scores become a soft permutation matrix.

    P P^T x is x for permutations and not for the soft matrix, so that a base must not add its input to its output
    inside the average (docs/theory.md, eq. 8).

    Args:
        temperature: tau of SoftSort (arXiv 2006.16038); smaller is harder.
        sinkhorn: number of row and column normalisations that follow.

    >>> P = Relaxation(0.1)(torch.tensor([2.0, 0.0, 1.0]))
    >>> P.argmax(-1).tolist()                            # node 0 ranks last: row 0 picks pose slot 2
    [2, 0, 1]
    """

    temperature: float = 0.1
    sinkhorn: int = 2

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"temperature: expected a positive number, got {self.temperature}")
        if self.sinkhorn < 0:
            raise ValueError(f"sinkhorn: expected a number of passes >= 0, got {self.sinkhorn}")

    def log_matrix(self, z: Tensor, mask: Tensor | None = None) -> Tensor:
        """log P (*shape, N, N), node by pose slot, for scores z (*shape, N) in float32 or better.

        P = Sinkhorn(softmax_i(-|z_i - sort(z)_r| / tau))^T
        """
        z = _apart(z, mask)
        log_p = self._logits(z.unsqueeze(-1) - z.sort(-1).values.unsqueeze(-2))
        for axis in self._axes:
            log_p = log_p - log_p.logsumexp(axis, keepdim=True)
        return log_p

    @property
    def _axes(self) -> list[int]:
        """What is normalised in turn: the softmax over nodes, then rows and columns."""
        return [-2, *[-1, -2] * self.sinkhorn]

    def _logits(self, away: Tensor) -> Tensor:
        return away.abs() / -self.temperature

    def pull(self, z: Tensor, mask: Tensor | None, grad: Tensor) -> Tensor:
        """The gradient of sum(grad * P) with respect to the scores z, in closed form.

        A normalisation y = x / sum(x) sends the slope y g_y of log y to itself less y times its sum; going back it is
        undone by the sum that was taken out, so that two tensors of its size are held whatever the number of passes.
        Plain sums do not vanish: every row and column has an entry that starts at 1, its own rank.
        """
        n, count = z.shape[-1], math.prod(z.shape[:-1])
        z = _apart(z, mask)
        ordered, order = z.sort(-1)
        if (kernels := _kernels(z)) and not (differentiated(z) or differentiated(grad)):
            node, pose = kernels.slopes(z, ordered, grad, self.temperature, self.sinkhorn, LEAST)
            return (torch.zeros_like(z).scatter(-1, order, pose) - node) / self.temperature
        size = max(1, PAGE // n**2) if n >= SMALL and may_peek(z) else max(1, count)
        flat = [t.reshape(count, *t.shape[z.ndim - 1 :]) for t in (z, ordered, grad)]
        if count <= size:
            by_node, by_pose = self._slopes(*flat)
        else:
            pages = [self._slopes(*page) for page in zip(*(t.split(size) for t in flat), strict=True)]
            by_node, by_pose = (torch.cat(side) for side in zip(*pages, strict=True))
        slope = torch.zeros_like(z).scatter(-1, order, by_pose.reshape(z.shape)) - by_node.reshape(z.shape)
        return slope / self.temperature

    def _slopes(self, z: Tensor, ordered: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
        """The slopes of -|z_i - sort(z)_r| / tau, times tau, for R score vectors (R, N): of each i and of each r."""
        away = z.unsqueeze(-1) - ordered.unsqueeze(-2)
        # at numbers that underflow exp takes a hundred times as long, and products of the results ten times
        p, slant = threshold(self._logits(away).clamp_min(LEAST).exp(), 1.001 * math.exp(LEAST), 0.0), away.sign()
        last = len(z) > 1 and z.shape[-1] < SMALL
        if last:
            p, slant, grad = (t.movedim((-2, -1), (0, 1)).contiguous() for t in (p, slant, grad))
        node, pose = (0, 1) if last else (-2, -1)
        axes, taken = [node if axis == -2 else pose for axis in self._axes], []
        for axis in axes:
            taken.append(p.sum(axis, keepdim=True))
            p = p * taken[-1].reciprocal()
        slope = p * grad  # laid out as p is: the gradient often comes transposed
        for axis in reversed(axes):
            slope = torch.addcmul(slope, p, slope.sum(axis, keepdim=True), value=-1)
            p = p * taken.pop() if len(taken) > 1 else p
        slope = slope * slant
        return tuple(t.mT if last else t for t in (slope.sum(pose), slope.sum(node)))  # type: ignore[return-value]

    def __call__(self, z: Tensor, mask: Tensor | None = None) -> Tensor:
        return _Soft.apply(z, mask, self) if _kernels(z) else self.log_matrix(z, mask).exp()

    def attach(self, g: Permutation, z: Tensor) -> Permutation:
        """g with a straight-through gradient to the scores z (*shape, N) it was sorted by."""
        plain = transformed()
        if not plain and not (z.requires_grad and torch.is_grad_enabled()):
            return g
        z = g.layout.pad(z.expand_as(g.index), g.index.ndim - 1)
        if plain:
            soft = self(z, g.layout.padded_mask())
            return replace(g, relaxed=soft - soft.detach())
        return replace(g, relaxed=applied(_Relaxed, z, g.layout.padded_mask(), self))

    def entropy(self, z: Tensor, layout: Layout) -> Tensor:
        """Mean entropy of the rows and columns of P, in nats: low where the relaxation is nearly a permutation."""
        mask, z = layout.padded_mask(), layout.pad(z, z.ndim - 1)
        if _kernels(z):
            p = self(z, mask).clamp_min(math.exp(LEAST))
            rows, columns = (entr(p).sum(d) - entr(p.sum(d)) for d in (-1, -2))
        else:
            log_p = self.log_matrix(z, mask)
            p = log_p.clamp_min(LEAST).exp()
            rows, columns = (-(p * (log_p - log_p.logsumexp(d, keepdim=True))).sum(d) for d in (-1, -2))
        if mask is None:
            return rows.mean() + columns.mean()
        return ((rows + columns) * mask).sum() / mask.expand_as(rows).sum().clamp_min(1)


def _kernels(z: Tensor) -> ModuleType | None:
    """The kernels for scores (*shape, N) where they run: in float32 on a GPU, N small, while nothing is `traced`."""
    if not (z.is_cuda and z.dtype == torch.float32 and z.numel()) or traced() or transformed():
        return None
    try:
        from probsym.distributions import relax_triton
    except ImportError:  # triton comes with torch for Linux
        return None
    return relax_triton if z.shape[-1] <= relax_triton.LARGEST else None


def _apart(z: Tensor, mask: Tensor | None) -> Tensor:
    """Scores with the padding at the end, so far from nodes and from each other that P is the identity on it."""
    if mask is None or not z.shape[-1]:
        return z
    step = FAR + z.detach().masked_fill(~mask, 0).abs().amax(-1, keepdim=True)
    return torch.where(mask, z, step * torch.arange(1, z.shape[-1] + 1, device=z.device, dtype=z.dtype))


class _Relaxed(torch.autograd.Function):
    """A token of the soft matrix: no values and no memory forward, Sinkhorn's gradient backward, once a step."""

    generate_vmap_rule = True

    @staticmethod
    def forward(z: Tensor, mask: Tensor | None, relaxation: Relaxation) -> Tensor:
        return z.new_zeros(()).expand(*z.shape, z.shape[-1])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        z, mask, ctx.relaxation = inputs
        ctx.save_for_backward(z, mask)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        z, mask = ctx.saved_tensors
        return ctx.relaxation.pull(z, mask, grad.to(z.dtype)), None, None


class _Soft(torch.autograd.Function):
    """The soft matrix by a kernel, with the gradient of `pull`."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, mask: Tensor | None, relaxation: Relaxation) -> Tensor:  # type: ignore[override]
        ctx.relaxation = relaxation
        ctx.save_for_backward(z, mask)
        apart, kernels = _apart(z, mask), _kernels(z)
        return kernels.matrix(  # type: ignore[union-attr]
            apart, apart.sort(-1).values, relaxation.temperature, relaxation.sinkhorn, LEAST
        )

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        z, mask = ctx.saved_tensors
        return ctx.relaxation.pull(z, mask, grad), None, None
