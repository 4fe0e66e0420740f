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
    """Classes of the categories of nodes and edges, and steps of the random walks that nodes know."""

    nodes: tuple[int, ...]
    edges: tuple[int, ...] = ()
    walks: int = 0

    @property
    def x(self) -> int:
        """Channels of a node."""
        return width(self.nodes) + self.walks

    @property
    def edge(self) -> int:
        """Channels of an edge: its kind, or that it is there."""
        return max(1, width(self.edges))

    def of_nodes(self, graphs: Graphs) -> Tensor:
        """(sum N, Cx)."""
        columns = graphs.nodes.columns
        found = indicators(columns["x"], self.nodes)
        return torch.cat([found, torch.from_numpy(columns["walks"])], 1) if self.walks else found

    def of_edges(self, graphs: Graphs) -> Tensor:
        """(sum E, Ce), each edge once."""
        if not self.edges:
            return torch.ones(int(graphs.edges.counts.sum()), 1)
        return indicators(graphs.edges.columns["attr"], self.edges)


@dataclass(frozen=True)
class Collated:
    """Graphs that `collate` makes a batch of when asked; see `batches.Source`. Those that are padded have `sizes`."""

    graphs: Graphs
    collate: Padded | Packed

    @property
    def sizes(self) -> Tensor | None:
        return torch.from_numpy(self.graphs.sizes) if isinstance(self.collate, Padded) else None

    def __len__(self) -> int:
        return len(self.graphs)

    def __getitem__(self, index: Tensor | slice) -> Batch:
        return self.collate(self.graphs.take(index if isinstance(index, slice) else index.numpy()))


@dataclass(frozen=True)
class Padded:
    """x (B, N, Cx), edge (B, N, N, Ce), mask (B, N), and labels."""

    channels: Channels

    def __call__(self, graphs: Graphs) -> Batch:
        sizes = torch.from_numpy(graphs.sizes)
        count, largest = len(sizes), int(sizes.max())
        mask = torch.arange(largest) < sizes[:, None]
        x = torch.zeros(count, largest, self.channels.x)
        x[mask] = self.channels.of_nodes(graphs)
        edge = torch.zeros(count, largest, largest, self.channels.edge)
        graph = torch.from_numpy(graphs.edges.graph)
        i, j = torch.from_numpy(graphs.edges.columns["index"].astype(np.int64)).unbind(1)
        edge[graph, i, j] = edge[graph, j, i] = self.channels.of_edges(graphs)
        return {"x": x, "edge": edge, "mask": mask} | labels(graphs, mask)


@dataclass(frozen=True)
class Packed:
    """x (sum N, Cx), batch (sum N,), size (B, 1), labels; both directions of edges: edge_index (2, E), bonds (E, C)."""

    channels: Channels

    def __call__(self, graphs: Graphs) -> Batch:
        sizes = torch.from_numpy(graphs.sizes)
        bonds = self.channels.of_edges(graphs)
        index = graphs.edges.columns["index"]
        bonds = torch.cat([bonds, bonds[torch.from_numpy(index[:, 0] != index[:, 1])]])
        return {
            "x": self.channels.of_nodes(graphs),
            "edge_index": torch.from_numpy(both_directions(graphs)),
            "bonds": bonds,
            "batch": torch.from_numpy(graphs.nodes.graph),
            "size": sizes[:, None].float(),
        } | labels(graphs, None)


def labels(graphs: Graphs, mask: Tensor | None) -> Batch:
    """What is to be found: target (B, T) of graphs; label (B, N) or (sum N,) of nodes; of pairs, pair and label.

    pair (sum L, 3) holds graph, first and second node.
    """
    found: Batch = {}
    if graphs.targets is not None:
        found["target"] = torch.from_numpy(graphs.targets.astype(np.float32))
    if "label" in graphs.nodes.columns:
        label = torch.from_numpy(graphs.nodes.columns["label"].astype(np.int64))
        found["label"] = (
            label if mask is None else torch.zeros(mask.shape, dtype=torch.long).masked_scatter(mask, label)
        )
    if graphs.pairs is not None:
        index = graphs.pairs.columns["index"].astype(np.int64)
        found["pair"] = torch.from_numpy(np.concatenate([graphs.pairs.graph[:, None], index], 1))
        found["label"] = torch.from_numpy(graphs.pairs.columns["label"].astype(np.int64))
    return found
