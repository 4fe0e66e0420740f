"""Padded batches of graphs: adjacency (B, N, N), nodes (B, N, F), mask (B, N); what is not a graph is an error.

Letters: B graphs, N nodes of the largest, F features.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..batches import Batch
from ..errors import UserError

Arrays = dict[str, NDArray]
Adjacency = NDArray[np.bool_]


def check(graphs: Arrays, largest: int) -> None:
    """Raises UserError unless the arrays are undirected graphs of 1 to `largest` nodes; the schema is that of `pad`."""
    # 1. Whole numbers.
    for name in ("num_nodes", "num_edges", "edge_index"):
        if graphs[name].dtype.kind not in "iu":
            raise UserError(f"{name}: expected integers; got {graphs[name].dtype}")
    nodes = graphs["num_nodes"].astype(np.int64)
    links = graphs["num_edges"].astype(np.int64)
    index = graphs["edge_index"].astype(np.int64)

    # 2. Sizes of the graphs, and of the arrays.
    if nodes.ndim != 1 or not len(nodes) or links.shape != nodes.shape:
        raise UserError(f"num_nodes, num_edges: expected one number a graph; got shapes {nodes.shape}, {links.shape}")
    wrong = np.flatnonzero((nodes < 1) | (nodes > largest))
    if wrong.size:
        raise UserError(f"graph {wrong[0]}: expected 1 to {largest} nodes; got {nodes[wrong[0]]}")
    if (links < 0).any() or index.shape != (2, links.sum()):
        raise UserError(f"edge_index: expected shape (2, {links.sum()}), the sum of num_edges; got {index.shape}")

    # 3. Every end of an edge is a node of its graph.
    graph = np.repeat(np.arange(len(nodes)), links)
    wrong = np.flatnonzero(((index < 0) | (index >= nodes[graph])).any(0))
    if wrong.size:
        edge = index[:, wrong[0]].tolist()
        owner = graph[wrong[0]]
        raise UserError(f"graph {owner}: expected node numbers below {nodes[owner]}; got edge {edge}")

    # 4. Every edge stands there in both directions. A number names graph, first and second node.
    first, second = index
    there = (graph * largest + first) * largest + second
    back = (graph * largest + second) * largest + first
    wrong = np.flatnonzero(~np.isin(there, back))
    if wrong.size:
        edge = index[:, wrong[0]].tolist()
        owner = graph[wrong[0]]
        raise UserError(f"graph {owner}: expected each edge in both directions; got only {edge}")


def pad(graphs: Arrays, width: int) -> Batch:
    """Checked graphs as tensors: a self loop is a 1 on the diagonal, an edge that is given twice counts once.

    Args:
        graphs: num_nodes (B,), num_edges (B,), edge_index (2, sum of edges) with node numbers local to each graph, and
            perhaps x (sum of nodes, F).
        width: N.
    """
    check(graphs, width)
    nodes = torch.from_numpy(graphs["num_nodes"].astype(np.int64))
    links = torch.from_numpy(graphs["num_edges"].astype(np.int64))
    first, second = torch.from_numpy(graphs["edge_index"].astype(np.int64))

    graph = torch.repeat_interleave(torch.arange(len(nodes)), links)
    adjacency = torch.zeros(len(nodes), width, width)
    adjacency[graph, first, second] = 1
    mask = torch.arange(width) < nodes[:, None]
    batch = {"adjacency": adjacency, "mask": mask}
    if "x" in graphs:
        if graphs["x"].ndim != 2 or len(graphs["x"]) != nodes.sum():
            raise UserError(f"x: expected shape ({nodes.sum()}, F), the sum of num_nodes; got {graphs['x'].shape}")
        batch["nodes"] = torch.zeros(len(nodes), width, graphs["x"].shape[1])
        batch["nodes"][mask] = torch.from_numpy(graphs["x"].astype(np.float32))
    return batch


def from_edges(count: int, edges: list[tuple[int, int]]) -> Adjacency:
    """The adjacency (N, N) of undirected edges."""
    adjacency = np.zeros((count, count), bool)
    if edges:
        i, j = np.array(edges).T
        adjacency[i, j] = adjacency[j, i] = True
    return adjacency


def ragged(adjacencies: list[NDArray]) -> Arrays:
    """The schema of `pad` from adjacencies (n, n) of any sizes.

    >>> ragged([np.ones((2, 2)) - np.eye(2)])["edge_index"].tolist()
    [[0, 1], [1, 0]]
    """
    sizes = []
    links = []
    indices = []
    for adjacency in adjacencies:
        index = np.argwhere(adjacency).T
        sizes.append(len(adjacency))
        links.append(index.shape[1])
        indices.append(index)
    return {
        "num_nodes": np.array(sizes),
        "num_edges": np.array(links),
        "edge_index": np.concatenate(indices, 1),
    }


def relabelled(batch: Batch, generator: torch.Generator) -> Batch:
    """Every graph with its nodes in a random order; padding stays at the tail."""
    count, width = batch["adjacency"].shape[:2]
    key = torch.rand(count, width, generator=generator)
    if "mask" in batch:
        key = key.masked_fill(~batch["mask"], 2.0)  # above all random keys
    order = key.argsort(dim=1, stable=True)
    graph = torch.arange(count)[:, None]
    moved = {"adjacency": batch["adjacency"][graph[..., None], order[:, :, None], order[:, None, :]]}
    if "nodes" in batch:
        moved["nodes"] = batch["nodes"][graph, order]
    return batch | moved


def published_features(batch: Batch) -> Batch:
    """The graphs with the node features of the paper's code, (B, N, 2): a type and the degree.

    The type is 0 or 1, the second of the two indicators that EXP comes with; where nodes have no features it is 1.

    >>> published_features({"adjacency": torch.tensor([[[0.0, 1.0], [1.0, 0.0]]])})["nodes"].tolist()
    [[[1.0, 1.0], [1.0, 1.0]]]
    """
    degree = batch["adjacency"].sum(-1)
    kind = torch.ones_like(degree)
    if "nodes" in batch:
        kind = batch["nodes"][..., 1]
    return batch | {"nodes": torch.stack([kind, degree], -1)}


def return_probabilities(adjacency: Tensor, steps: int) -> Tensor:
    """Probability that a random walk from each node is back after t = 1, ..., `steps` steps: (B, N, N) to (B, N, T).

    diag((D^-1 A)^t) = diag(S^t) with the symmetric S = D^-1/2 A D^-1/2, so that half of the powers tell all:
    (S^{a+b})_ii = sum_j (S^a)_ij (S^b)_ij. A node without edges never returns. Symmetric adjacencies only.

    >>> return_probabilities(torch.tensor([[[0.0, 1.0], [1.0, 0.0]]]), 4)[0, 0].tolist()
    [0.0, 1.0, 0.0, 1.0]
    """
    # 1. S, ..., S^(T/2).
    degree = adjacency.sum(-1)
    root = torch.where(degree > 0, degree.clamp_min(1e-12).rsqrt(), 0.0)
    powers = [root[..., None] * adjacency * root[..., None, :]]
    while 2 * len(powers) < steps:
        powers.append(powers[-1] @ powers[0])

    # 2. The diagonals of S^t from the two halves of t.
    probabilities = [powers[0].diagonal(dim1=-2, dim2=-1)]
    for t in range(2, steps + 1):
        larger_half = powers[(t + 1) // 2 - 1]
        smaller_half = powers[t // 2 - 1]
        probabilities.append((larger_half * smaller_half).sum(-1))
    return torch.stack(probabilities, -1)
