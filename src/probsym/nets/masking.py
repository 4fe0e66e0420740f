"""Batches of graphs of unlike size, padded or ragged: all that the nets know of how nodes are stored.

`where` says which nodes exist: None if all do, a mask (B, N) for a padded batch, or `Segments` for a ragged one, whose
nodes lie one after the other as if they were one input: (1, sum N, ...).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn


@dataclass(frozen=True, eq=False)
class Segments:
    """The graph of each node of a ragged batch.

    Args:
        index: number of the graph of each node (sum N,). sizes: nodes of each graph (B,).
    """

    index: Tensor
    sizes: Tensor

    def sum(self, x: Tensor) -> Tensor:
        """Sums over the nodes of each graph: (1, sum N, ...) to (B, ...)."""
        return x.new_zeros(self.sizes.shape[0], *x.shape[2:]).index_add(0, self.index, x[0])


Where: TypeAlias = Tensor | Segments | None


@dataclass(frozen=True, eq=False)
class EdgeList:
    """Edges of all graphs of a batch, as flat node numbers: b N + i, in a ragged batch i.

    Args:
        start, end: (E,). kind: how much of each kind an edge is (E, P); zero for padding.
    """

    start: Tensor
    end: Tensor
    kind: Tensor


def keep(x: Tensor, where: Where) -> Tensor:
    """`x` with zeros (never NaN) where a mask is false; the mask covers the leading axes of `x`.

    >>> import torch
    >>> keep(torch.tensor([[1.0, float("nan")]]), torch.tensor([[True, False]]))
    tensor([[1., 0.]])
    """
    if not isinstance(where, Tensor):
        return x
    return x.masked_fill(~where[(...,) + (None,) * (x.ndim - where.ndim)], 0)


def pairwise(mask: Tensor | None) -> Tensor | None:
    """The mask of pairs: (B, N) to (B, N, N), `m_ij = m_i and m_j`."""
    return None if mask is None else mask.unsqueeze(2) & mask.unsqueeze(1)


def mean(x: Tensor, where: Where) -> Tensor:
    """`sum_j m_j x_j / max(1, sum_j m_j)`: (B, N, ...) to (B, ...), 0 where nothing is left.

    >>> import torch
    >>> mean(torch.tensor([[1.0, 3.0, 9.0]]), torch.tensor([[True, True, False]]))
    tensor([2.])
    """
    if where is None:
        return x.sum(1) / max(x.shape[1], 1)
    total = where.sum(x) if isinstance(where, Segments) else keep(x, where).sum(1)
    return total / size(where)[(...,) + (None,) * (x.ndim - 2)]


def spread(x: Tensor, where: Where) -> Tensor:
    """Values of each graph (B, ...), laid out to be added to those of its nodes: (B, 1, ...) or (1, sum N, ...)."""
    if isinstance(where, Segments):
        return x.index_select(0, where.index).unsqueeze(0)
    return x.unsqueeze(1)


def mean_product(x: Tensor, y: Tensor, where: Where) -> Tensor:
    """`mean_i x_i y_i^T` for x that is zero on padding: (B, N, P) and (B, N, Q) to (B, P, Q)."""
    if isinstance(where, Segments):
        # one row of the products at a time: all of them are P times as many numbers as y
        return torch.stack([mean(part.unsqueeze(-1) * y, where) for part in x.unbind(-1)], 1)
    count = max(x.shape[1], 1) if where is None else size(where)[:, None, None]
    return torch.bmm(x.mT, y) / count


def by_graph(x: Tensor, matrix: Tensor, where: Where, plus: Tensor | None = None) -> Tensor:
    """`x_i W + plus_i` with a matrix of its own for each graph: (B, N, ..., P) and (B, P, Q) to (B, N, ..., Q)."""
    if isinstance(where, Segments):
        rows = x[0].flatten(1, -2) if x.ndim > 3 else x[0].unsqueeze(1)
        found = torch.bmm(rows, matrix.index_select(0, where.index)).reshape(*x.shape[:-1], matrix.shape[-1])
        return found if plus is None else plus + found
    rows = x.flatten(1, -2)
    if plus is None:
        return torch.bmm(rows, matrix).reshape(*x.shape[:-1], matrix.shape[-1])
    return torch.baddbmm(plus, rows, matrix)


def lifted(head: nn.Linear, h: Tensor, where: Where) -> Tensor:
    """`W h_i + b + 2 mean_j |W| |h_j|`: scores to sort by, which a common shift leaves alone.

    The shift is the size of what was added up. Whoever asks whether two scores are equal up to rounding, relative to
    their size, then asks for the right size also where the sum cancels: (B, N, F) to (B, N, outputs).
    """
    return head(h) + spread(2 * mean(h.abs(), where) @ head.weight.abs().mT, where)


def size(where: Tensor | Segments) -> Tensor:
    """Nodes per graph, at least 1: (B,)."""
    return (where.sizes if isinstance(where, Segments) else where.sum(1)).clamp(min=1)


def channels(pairs: Tensor) -> Tensor:
    """Pair features with a channel axis: (B, N, N) to (B, N, N, 1), (B, N, N, P) as it is."""
    return pairs.unsqueeze(-1) if pairs.ndim == 3 else pairs
