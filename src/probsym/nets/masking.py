"""Batches of graphs of different sizes, padded or ragged: all that the nets know of how nodes are stored.

`where` says which nodes exist: None if all do, a mask (B, N) for a padded batch, or `Segments` for a ragged one, whose
nodes lie one after the other as if they were one input: (1, sum N, ...).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn

from probsym.kernels.precision import wide
from probsym.kernels.values import recorded


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
    return x.masked_fill(~add_axes(where, x.ndim - where.ndim), 0)


def add_axes(x: Tensor, count: int) -> Tensor:
    """`x` with that many axes of length one behind the others."""
    return x[(...,) + (None,) * count]


def pairwise(mask: Tensor | None) -> Tensor | None:
    """The mask of pairs: (B, N) to (B, N, N), `m_ij = m_i and m_j`."""
    if mask is None:
        return None
    return mask.unsqueeze(2) & mask.unsqueeze(1)


def mean(x: Tensor, where: Where) -> Tensor:
    """`sum_j m_j x_j / max(1, sum_j m_j)`: (B, N, ...) to (B, ...), 0 where nothing is left.

    >>> import torch
    >>> mean(torch.tensor([[1.0, 3.0, 9.0]]), torch.tensor([[True, True, False]]))
    tensor([2.])
    """
    if where is None:
        return x.mean(1) if x.shape[1] else x.sum(1)
    if isinstance(where, Segments):
        total = where.sum(x)
    else:
        total = keep(x, where).sum(1)
    return total / add_axes(size(where), x.ndim - 2)


def spread(x: Tensor, where: Where) -> Tensor:
    """Values of each graph (B, ...), laid out to be added to those of its nodes: (B, 1, ...) or (1, sum N, ...)."""
    if isinstance(where, Segments):
        return x.index_select(0, where.index).unsqueeze(0)
    return x.unsqueeze(1)


def mean_product(x: Tensor, y: Tensor, where: Where) -> Tensor:
    """`mean_i x_i y_i^T` for x that is zero on padding: (B, N, P) and (B, N, Q) to (B, P, Q)."""
    if isinstance(where, Segments):
        # One row of the products at a time: all of them at once take P times the memory of y.
        rows = [mean(column.unsqueeze(-1) * y, where) for column in x.unbind(-1)]
        return torch.stack(rows, 1)
    total = torch.bmm(x.mT, y)
    if where is None:
        return total / max(x.shape[1], 1)
    return total / size(where)[:, None, None]


def by_graph(x: Tensor, matrix: Tensor, where: Where, plus: Tensor | None = None) -> Tensor:
    """`x_i W + plus_i` with a matrix of its own for each graph: (B, N, ..., P) and (B, P, Q) to (B, N, ..., Q)."""
    shape = (*x.shape[:-1], matrix.shape[-1])
    if isinstance(where, Segments):
        # The matrix of each node is that of its graph.
        nodes = x[0]
        if nodes.ndim == 2:
            rows = nodes.unsqueeze(1)
        else:
            rows = nodes.flatten(1, -2)
        product = torch.bmm(rows, matrix.index_select(0, where.index)).reshape(shape)
        if plus is None:
            return product
        return plus + product
    rows = x.flatten(1, -2)
    if plus is None:
        return torch.bmm(rows, matrix).reshape(shape)
    return torch.baddbmm(plus, rows, matrix)


def lifted(head: nn.Linear, h: Tensor, where: Where) -> Tensor:
    """`W h_i + b + 2 mean_j |W| |h_j|`, scores to sort by: (B, N, F) to (B, N, outputs).

    The shift is the same for all nodes of a graph, so the order stays. It is the size of what was added up. Scores are
    equal where they differ by rounding relative to their size, and with the shift that size is right where the sum
    cancels too. It has no derivative: what reads such scores, a sort or what stands for it in backward, sees only their
    differences.
    """
    nodes = 1
    with torch.no_grad():
        if where is None and not recorded() and wide(h) is h:
            # The sum of sizes in one operation, which float16 has no room for. What is recorded should hold for any
            # number of nodes.
            nodes = max(1, h.shape[1])
            total = torch.linalg.vector_norm(h, 1, 1)
        else:
            total = mean(h.abs(), where)
        shift = total @ head.weight.abs().mT
    return torch.add(head(h), spread(shift, where), alpha=2 / nodes)


def size(where: Tensor | Segments) -> Tensor:
    """Nodes per graph, at least 1: (B,)."""
    if isinstance(where, Segments):
        return where.sizes.clamp(min=1)
    return where.sum(1).clamp(min=1)


def channels(pairs: Tensor) -> Tensor:
    """Pair features with a channel axis: (B, N, N) to (B, N, N, 1), (B, N, N, P) as it is."""
    if pairs.ndim == 3:
        return pairs.unsqueeze(-1)
    return pairs
