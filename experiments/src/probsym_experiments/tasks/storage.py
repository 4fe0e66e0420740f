"""Graphs of different sizes in one array a column, and as one npz file: no padding until a batch is asked for.

Letters: B graphs, N nodes, E edges, L labelled pairs of nodes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError
from ..npz import Arrays

Index = NDArray | slice


@dataclass(frozen=True, eq=False)
class Ragged:
    """Columns whose rows belong to graphs, those of one graph after those of the other.

    >>> nodes = Ragged(np.array([2, 1, 3]), {"x": np.arange(6)})
    >>> nodes.take(np.array([2, 0])).columns["x"].tolist()
    [3, 4, 5, 0, 1]
    """

    counts: NDArray  # rows of each graph (B,)
    columns: Arrays

    @cached_property
    def starts(self) -> NDArray:
        """The first row of each graph."""
        return np.cumsum(self.counts) - self.counts

    @property
    def graph(self) -> NDArray:
        """The graph of each row."""
        return np.repeat(np.arange(len(self.counts)), self.counts)

    def take(self, index: Index) -> Ragged:
        """Some graphs, in the order of `index`; neighbours are not copied."""
        counts = self.counts[index]
        total = int(counts.sum())
        rows: Index
        if isinstance(index, slice) and index.step in (None, 1):
            # Neighbours: one slice of each column.
            first = 0
            if len(counts):
                first = int(self.starts[index][0])
            rows = slice(first, first + total)
        else:
            # Row r of the result lies r - (start there) + (start here) in the columns.
            shift = self.starts[index] - (np.cumsum(counts) - counts)
            rows = np.repeat(shift, counts) + np.arange(total)
        return Ragged(counts, {name: column[rows] for name, column in self.columns.items()})


@dataclass(frozen=True, eq=False)
class Graphs:
    """Some graphs with their features and labels.

    Args:
        nodes: Column x (sum N, F) of categories, and perhaps further columns.
        edges: Column index (sum E, 2) of node numbers local to each graph, each edge once, and perhaps attr (sum E, A)
            of categories.
        targets: One row a graph (B, T), if graphs are labelled.
        pairs: Column index (sum L, 2) and label (sum L,) of labelled pairs, if pairs are.
    """

    nodes: Ragged
    edges: Ragged
    targets: NDArray | None = None
    pairs: Ragged | None = None

    def __len__(self) -> int:
        return len(self.nodes.counts)

    @property
    def sizes(self) -> NDArray:
        """Nodes of each graph."""
        return self.nodes.counts

    def take(self, index: Index) -> Graphs:
        """Some graphs, in the order of `index`."""
        targets = self.targets
        if targets is not None:
            targets = targets[index]
        pairs = self.pairs
        if pairs is not None:
            pairs = pairs.take(index)
        return Graphs(self.nodes.take(index), self.edges.take(index), targets, pairs)

    def by_size(self) -> Graphs:
        """The same graphs, small ones first: neighbours make batches with little padding."""
        return self.take(np.argsort(self.sizes, kind="stable"))


def check(graphs: Graphs, where: str) -> Graphs:
    """The same graphs; raises UserError unless counts, lengths and node numbers fit together."""
    # 1. A number of rows for each graph, and as many rows as they say.
    parts = {"node": graphs.nodes, "edge": graphs.edges}
    if graphs.pairs is not None:
        parts["pair"] = graphs.pairs
    for name, part in parts.items():
        if part.counts.dtype.kind not in "iu" or len(part.counts) != len(graphs) or (part.counts < 0).any():
            raise UserError(f"{where}: expected one number of {name}s a graph, {len(graphs)} in all")
        for column, values in part.columns.items():
            if len(values) != part.counts.sum():
                raise UserError(f"{where}: {column}: expected {part.counts.sum()} {name}s; got {len(values)}")
    if not (graphs.sizes > 0).all():
        raise UserError(f"{where}: graph {int(np.argmin(graphs.sizes))}: expected at least one node")

    # 2. Edges and pairs name nodes of their graph.
    _check_numbers(graphs.edges, graphs.sizes, where)
    if graphs.pairs is not None:
        _check_numbers(graphs.pairs, graphs.sizes, where)

    # 3. Every graph has its label.
    if graphs.targets is not None and len(graphs.targets) != len(graphs):
        raise UserError(f"{where}: expected a label for each of {len(graphs)} graphs; got {len(graphs.targets)}")
    return graphs


def _check_numbers(edges: Ragged, sizes: NDArray, where: str) -> None:
    """Raises UserError unless the node numbers of each graph are below its size."""
    index = edges.columns["index"]
    if index.ndim != 2 or index.shape[1] != 2 or index.dtype.kind not in "iu":
        raise UserError(f"{where}: expected two node numbers an edge; got {index.dtype} of shape {index.shape}")
    having = np.flatnonzero(edges.counts)  # graphs without edges have nothing to check
    if not len(having):
        return
    starts = edges.starts[having]
    largest = np.maximum.reduceat(index.max(1), starts)
    least = np.minimum.reduceat(index.min(1), starts)
    wrong = (largest >= sizes[having]) | (least < 0)
    if wrong.any():
        first = np.argmax(wrong)
        graph = having[first]
        got = f"{least[first]} to {largest[first]}"
        raise UserError(f"{where}: graph {graph}: expected node numbers from 0 to {sizes[graph] - 1}; got {got}")
