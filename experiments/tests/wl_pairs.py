"""Pairs of graphs that 1-WL cannot tell apart, made on the spot: what tests need where EXP is not at hand."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from probsym_experiments.graphs.dense import Adjacency, Arrays, from_edges, ragged


def csl(nodes: int, skip: int) -> Adjacency:
    """A cycle with skip links (Murphy et al., arXiv 1903.02541): 4-regular, so all of one size look alike to 1-WL."""
    return from_edges(nodes, [(i, (i + step) % nodes) for i in range(nodes) for step in (1, skip)])


def cfi(base: Adjacency) -> tuple[Adjacency, Adjacency]:
    """The pair of Cai, Fuerer and Immerman (1992) over a connected base graph: not isomorphic, equal to 1-WL.

    Node v becomes the even subsets of its edges, edge e two nodes (e, 0) and (e, 1); a subset S of v is joined to
    (e, 1) for e in S and to (e, 0) for its other edges. In the second graph one end of an edge is crossed.
    """
    edges = [(int(i), int(j)) for i, j in np.argwhere(np.triu(base))]
    ends = {(e, bit): 2 * e + bit for e in range(len(edges)) for bit in (0, 1)}
    count, plain, twisted = len(ends), [], []
    for v in range(len(base)):
        mine = [e for e, edge in enumerate(edges) if v in edge]
        for size in range(0, len(mine) + 1, 2):
            for subset in combinations(mine, size):
                for e in mine:
                    bit = int(e in subset)
                    plain.append((count, ends[e, bit]))
                    twisted.append((count, ends[e, bit ^ int(e == 0 and v == edges[0][0])]))
                count += 1
    return from_edges(count, plain), from_edges(count, twisted)


def rings() -> tuple[Adjacency, Adjacency]:
    """Two triangles and a hexagon."""
    edges = [(0, 1), (1, 2), (2, 0), (3, 4), (4, 5), (5, 3)]
    return from_edges(6, edges), from_edges(6, [(i, (i + 1) % 6) for i in range(6)])


def complete(nodes: int) -> Adjacency:
    """Every node joined to every other."""
    return ~np.eye(nodes, dtype=bool)


def dataset(count: int, seed: int = 0, kinds: Sequence[tuple[Adjacency, Adjacency]] = ()) -> Arrays:
    """A stand-in for EXP in its schema: `count` pairs drawn from `kinds` (CFI and CSL), labels 1 and 0 in turn.

    The nodes come in random orders; types are zero.
    """
    rng = np.random.default_rng(seed)
    kinds = kinds or [cfi(complete(4)), (csl(13, 2), csl(13, 3)), (csl(16, 2), csl(16, 3))]
    graphs = []
    for _ in range(count):
        for graph in kinds[int(rng.integers(len(kinds)))]:
            order = rng.permutation(len(graph))
            graphs.append(graph[np.ix_(order, order)])
    arrays = ragged(graphs)
    return arrays | {"x": np.zeros((arrays["num_nodes"].sum(), 1), np.int8), "y": np.arange(2 * count) % 2 == 0}
