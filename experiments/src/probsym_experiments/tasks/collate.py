"""Batches of graphs: padded tensors for models that see pairs of nodes, ragged ones for message passing.

Letters: B graphs, N nodes of the largest, Cx node and Ce edge channels; sum N, sum E, sum L over the batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..batches import Batch
from .features import both_directions, indicators, width
from .storage import Graphs


@dataclass(frozen=True)
class Channels:
    """Classes of the categories of nodes and edges, and steps of the random walks that nodes know.

    Args:
        full: Whether every class has an indicator, and edges one more that says that they are there, as in the
            published code. Otherwise two classes have one, and edges say that they are there if they have no kinds.
        diagonal: Whether the features of nodes are on the diagonal of further features of edges.
    """

    nodes: tuple[int, ...]
    edges: tuple[int, ...] = ()
    walks: int = 0
    full: bool = False
    diagonal: bool = False

    @property
    def x(self) -> int:
        """Channels of a node."""
        if self.full:
            return sum(self.nodes) + self.walks
        return width(self.nodes) + self.walks

    @property
    def edge(self) -> int:
        """Channels of an edge: its kind, or that it is there."""
        channels = max(1, width(self.edges))
        if self.full:
            channels = 1 + sum(self.edges)
        if self.diagonal:
            channels += self.x
        return channels

    def of_nodes(self, graphs: Graphs) -> Tensor:
        """(sum N, Cx)."""
        columns = graphs.nodes.columns
        categories = indicators(columns["x"], self.nodes, self.full)
        if not self.walks:
            return categories
        return torch.cat([categories, torch.from_numpy(columns["walks"])], 1)

    def of_edges(self, graphs: Graphs) -> Tensor:
        """(sum E, Ce), each edge once."""
        there = torch.ones(int(graphs.edges.counts.sum()), 1)
        if not self.edges:
            return there
        kinds = indicators(graphs.edges.columns["attr"], self.edges, self.full)
        if self.full:
            return torch.cat([there, kinds], 1)
        return kinds


@dataclass(frozen=True)
class Collated:
    """Graphs that `collate` makes a batch of when asked; see `batches.Source`.

    Those that are padded have `sizes`, so that batches hold graphs of like size; not in the published code.
    """

    graphs: Graphs
    collate: Padded | Packed

    @property
    def sizes(self) -> Tensor | None:
        if isinstance(self.collate, Padded) and not self.collate.channels.full:
            return torch.from_numpy(self.graphs.sizes)
        return None

    def __len__(self) -> int:
        return len(self.graphs)

    def __getitem__(self, index: Tensor | slice) -> Batch:
        if isinstance(index, Tensor):
            return self.collate(self.graphs.take(index.numpy()))
        return self.collate(self.graphs.take(index))


@dataclass(frozen=True)
class Padded:
    """x (B, N, Cx), edge (B, N, N, Ce), mask (B, N), and labels."""

    channels: Channels

    def __call__(self, graphs: Graphs) -> Batch:
        sizes = torch.from_numpy(graphs.sizes)
        count = len(sizes)
        largest = int(sizes.max())
        mask = torch.arange(largest) < sizes[:, None]
        x = torch.zeros(count, largest, self.channels.x)
        x[mask] = self.channels.of_nodes(graphs)
        of_edges = self.channels.of_edges(graphs)
        edge = torch.zeros(count, largest, largest, of_edges.shape[1])
        graph = torch.from_numpy(graphs.edges.graph)
        i, j = torch.from_numpy(graphs.edges.columns["index"].astype(np.int64)).unbind(1)
        edge[graph, i, j] = of_edges
        edge[graph, j, i] = of_edges
        if self.channels.diagonal:
            on_diagonal = torch.diag_embed(x.mT).movedim(1, 3)
            edge = torch.cat([edge, on_diagonal], -1)
        return {"x": x, "edge": edge, "mask": mask} | labels(graphs, mask)


@dataclass(frozen=True)
class Packed:
    """x (sum N, Cx), batch (sum N,), size (B, 1), labels; both directions of edges: edge_index (2, E), bonds (E, C)."""

    channels: Channels

    def __call__(self, graphs: Graphs) -> Batch:
        sizes = torch.from_numpy(graphs.sizes)
        # The way back of each edge follows after all edges; a self-loop has none (`both_directions`).
        bonds = self.channels.of_edges(graphs)
        index = graphs.edges.columns["index"]
        has_back = torch.from_numpy(index[:, 0] != index[:, 1])
        bonds = torch.cat([bonds, bonds[has_back]])
        return {
            "x": self.channels.of_nodes(graphs),
            "edge_index": torch.from_numpy(both_directions(graphs)),
            "bonds": bonds,
            "batch": torch.from_numpy(graphs.nodes.graph),
            "size": sizes[:, None].float(),
        } | labels(graphs, None)


def labels(graphs: Graphs, mask: Tensor | None) -> Batch:
    """What is to be predicted: target (B, T) of graphs; label (B, N) or (sum N,) of nodes; of pairs, pair and label.

    pair (sum L, 3) holds graph, first and second node.
    """
    batch: Batch = {}
    if graphs.targets is not None:
        batch["target"] = torch.from_numpy(graphs.targets.astype(np.float32))
    if "label" in graphs.nodes.columns:
        label = torch.from_numpy(graphs.nodes.columns["label"].astype(np.int64))
        if mask is not None:
            label = torch.zeros(mask.shape, dtype=torch.long).masked_scatter(mask, label)
        batch["label"] = label
    if graphs.pairs is not None:
        index = graphs.pairs.columns["index"].astype(np.int64)
        batch["pair"] = torch.from_numpy(np.concatenate([graphs.pairs.graph[:, None], index], 1))
        batch["label"] = torch.from_numpy(graphs.pairs.columns["label"].astype(np.int64))
    return batch
