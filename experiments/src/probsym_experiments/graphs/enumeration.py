"""All connected graphs on n nodes up to isomorphism: 1, 1, 2, 6, 21, 112, 853, 11117, ... (OEIS A001349)."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import igraph
import networkx
import numpy as np
from numpy.typing import NDArray

from ..cache import once
from ..errors import UserError

Adjacencies = NDArray[np.bool_]
COUNTS = (1, 1, 2, 6, 21, 112, 853, 11_117)  # of connected graphs on 1, 2, ... nodes


def load(folder: Path, nodes: int = 8) -> Adjacencies:
    """One graph of each class (B, N, N): `graph{nodes}c.g6` in the folder, made and kept there if it is not.

    Raises UserError if the file is damaged, or does not hold each class once.
    """
    if not 1 <= nodes <= len(COUNTS):
        raise UserError(f"nodes: expected 1 to {len(COUNTS)}; got {nodes}")
    path = folder / f"graph{nodes}c.g6"
    once(path, lambda: encode(connected(nodes)))
    try:
        graphs = decode(path.read_bytes())
    except ValueError as error:
        raise UserError(f"{path}: {error}; delete it and it will be made again") from error

    # As many classes as there are, each of them once, all connected: then nothing is missing.
    classes = len(set(keys(graphs)))
    joined = 0
    if graphs.shape[1] == nodes:
        for graph in graphs:
            joined += igraph.Graph(nodes, edges(graph)).is_connected()
    if not joined == classes == len(graphs) == COUNTS[nodes - 1]:
        raise UserError(
            f"{path}: expected {COUNTS[nodes - 1]} connected graphs on {nodes} nodes, no two isomorphic; got "
            f"{len(graphs)} on {graphs.shape[1]}, {classes} classes, {joined} connected on {nodes} nodes"
        )
    return graphs


def encode(graphs: Adjacencies) -> bytes:
    """Graphs (B, N, N) in McKay's text format graph6, one a line.

    >>> encode(np.ones((1, 3, 3), bool) ^ np.eye(3, dtype=bool))
    b'Bw\\n'
    """
    lines = []
    for graph in graphs:
        lines.append(networkx.to_graph6_bytes(networkx.from_numpy_array(graph), header=False))
    return b"".join(lines)


def decode(text: bytes) -> Adjacencies:
    """Graphs of one size (B, N, N) from graph6.

    Raises:
        ValueError: a line is damaged, or graphs have different sizes.

    >>> decode(b"Bw").astype(int).tolist()
    [[[0, 1, 1], [1, 0, 1], [1, 1, 0]]]
    """
    graphs: list[Adjacencies] = []
    for number, line in enumerate(text.split(), 1):
        try:
            graph = parse(line)
        except ValueError as error:
            raise ValueError(f"graph6: line {number}: {error}") from error
        if graphs and len(graph) != len(graphs[0]):
            raise ValueError(f"graph6: line {number}: expected {len(graphs[0])} nodes; got {len(graph)}")
        graphs.append(graph)
    if not graphs:
        raise ValueError("graph6: expected at least one graph; got none")
    return np.stack(graphs)


def parse(line: bytes, largest: int = 62) -> Adjacencies:
    """One graph (N, N) of at most `largest` nodes from a line of graph6.

    Raises:
        ValueError: the line is damaged, or the graph is larger.
    """
    if not line or min(line) < 63:  # networkx looks for too large bytes only
        raise ValueError(f"expected characters ? to ~; got {line[:20]!r}")
    # A line of n nodes has n (n - 1) / 2 bits, six a character: a longer one is not made a matrix of.
    if len(line) > 8 + largest * (largest - 1) // 12:
        raise ValueError(f"expected at most {largest} nodes; got {len(line)} characters")
    try:
        graph = networkx.from_graph6_bytes(line)
    except (networkx.NetworkXError, ValueError, IndexError) as error:
        raise ValueError(str(error)) from error
    if not 1 <= len(graph) <= largest:
        raise ValueError(f"expected 1 to {largest} nodes; got {len(graph)}")
    return networkx.to_numpy_array(graph, dtype=bool)


def connected(nodes: int) -> Adjacencies:
    """One graph of each class in canonical labelling, in the order of their keys. 8 nodes take about five seconds.

    A connected graph has a node without which it stays connected (a leaf of a spanning tree), so every class on n
    nodes is a class on n - 1 nodes and one more node with some neighbours.
    """
    if nodes == 1:
        return np.zeros((1, 1, 1), bool)

    # 1. The new node has any of the others as neighbours, at least one.
    new = nodes - 1
    keys_of_classes = set()
    for smaller in connected(nodes - 1):
        old_edges = edges(smaller)
        for degree in range(1, nodes):
            for neighbours in combinations(range(new), degree):
                new_edges = [(neighbour, new) for neighbour in neighbours]
                keys_of_classes.add(key(nodes, old_edges + new_edges))

    # 2. The bits of a key are the entries below the diagonal.
    codes = np.array(sorted(keys_of_classes), np.int64)[:, None]
    adjacency = np.zeros((len(codes), nodes, nodes), bool)
    adjacency[:, *np.tril_indices(nodes, -1)] = codes >> np.arange(nodes * (nodes - 1) // 2) & 1
    return adjacency | adjacency.swapaxes(1, 2)


def key(nodes: int, links: list[tuple[int, int]]) -> int:
    """The edges as bits, in the labelling that BLISS calls canonical: equal exactly for isomorphic graphs.

    >>> key(3, [(0, 1), (1, 2)]) == key(3, [(0, 2), (1, 2)])
    True
    """
    graph = igraph.Graph(nodes, links)
    canonical = graph.permute_vertices(graph.canonical_permutation())
    code = 0
    for edge in canonical.get_edgelist():
        row = max(edge)
        bit = row * (row - 1) // 2 + min(edge)
        code += 1 << bit
    return code


def keys(graphs: Adjacencies) -> list[int]:
    """Of every graph (B, N, N)."""
    return [key(len(graph), edges(graph)) for graph in graphs]


def edges(graph: Adjacencies) -> list[tuple[int, int]]:
    """Of one graph (N, N), each once."""
    return [(i, j) for i, j in np.argwhere(np.triu(graph)).tolist()]
