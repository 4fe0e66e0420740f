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
        if isinstance(index, slice) and index.step in (None, 1):
            first = int(self.starts[index][0]) if len(counts) else 0
            return Ragged(counts, {name: v[first : first + int(counts.sum())] for name, v in self.columns.items()})
        shift = self.starts[index] - (np.cumsum(counts) - counts)
        rows = np.repeat(shift, counts) + np.arange(counts.sum())
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
        return Graphs(
            self.nodes.take(index),
            self.edges.take(index),
            None if self.targets is None else self.targets[index],
            None if self.pairs is None else self.pairs.take(index),
        )

    def by_size(self) -> Graphs:
        """The same graphs, small ones first: neighbours make batches with little padding."""
        return self.take(np.argsort(self.sizes, kind="stable"))


def check(graphs: Graphs, where: str) -> Graphs:
    """The same graphs; raises UserError unless counts, lengths and node numbers fit together."""
    nodes, edges = graphs.nodes, graphs.edges
    for name, found in (("node", nodes), ("edge", edges), ("pair", graphs.pairs)):
        if found is None:
            continue
        if found.counts.dtype.kind not in "iu" or len(found.counts) != len(graphs) or (found.counts < 0).any():
            raise UserError(f"{where}: expected one number of {name}s a graph, {len(graphs)} in all")
        for column, values in found.columns.items():
            if len(values) != found.counts.sum():
                raise UserError(f"{where}: {column}: expected {found.counts.sum()} {name}s; got {len(values)}")
    if not (nodes.counts > 0).all():
        raise UserError(f"{where}: graph {int(np.argmin(nodes.counts))}: expected at least one node")
    for found in (edges, graphs.pairs):
        if found is not None:
            _check_numbers(found, nodes.counts, where)
    if graphs.targets is not None and len(graphs.targets) != len(graphs):
        raise UserError(f"{where}: expected a label for each of {len(graphs)} graphs; got {len(graphs.targets)}")
    return graphs


def _check_numbers(found: Ragged, sizes: NDArray, where: str) -> None:
    """Raises UserError unless the node numbers of each graph are below its size."""
    index = found.columns["index"]
    if index.ndim != 2 or index.shape[1] != 2 or index.dtype.kind not in "iu":
        raise UserError(f"{where}: expected two node numbers an edge; got {index.dtype} of shape {index.shape}")
    some = np.flatnonzero(found.counts)
    if not len(some):
        return
    largest = np.maximum.reduceat(np.maximum(index[:, 0], index[:, 1]), found.starts[some])
    least = np.minimum.reduceat(np.minimum(index[:, 0], index[:, 1]), found.starts[some])
    if (wrong := (largest >= sizes[some]) | (least < 0)).any():
        graph = some[np.argmax(wrong)]
        got = f"{least[np.argmax(wrong)]} to {largest[np.argmax(wrong)]}"
        raise UserError(f"{where}: graph {graph}: expected node numbers from 0 to {sizes[graph] - 1}; got {got}")
