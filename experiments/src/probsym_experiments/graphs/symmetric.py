"""Five graphs with their automorphism orbits and a place for every node in a drawing."""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, pi, sin

from .dense import Adjacency, from_edges

Places = list[tuple[float, float]]


@dataclass(frozen=True, eq=False)
class Example:
    """A graph, the order of its automorphism group, its orbits, and where its nodes are drawn."""

    name: str
    order: int
    adjacency: Adjacency
    orbits: list[list[int]]
    places: Places


def ring(count: int, radius: float = 1.0) -> Places:
    """Places on a circle, from the top."""
    places = []
    for i in range(count):
        angle = 2 * pi * i / count
        places.append((radius * sin(angle), radius * cos(angle)))
    return places


def _rigid() -> Example:
    """The smallest tree without symmetries: arms of length 1, 2 and 3."""
    edges = [(0, 1), (0, 2), (2, 3), (0, 4), (4, 5), (5, 6)]
    orbits = [[0], [1], [2], [3], [4], [5], [6]]
    places = [(0.0, 0.3), (0.0, 1.0), (-0.5, -0.1), (-1.0, -0.5), (0.4, 0.0), (0.8, -0.35), (1.2, -0.7)]
    return Example("no symmetry", 1, from_edges(7, edges), orbits, places)


def _star() -> Example:
    """A hub and six leaves."""
    edges = [(0, 1), (0, 2), (0, 3), (0, 4), (0, 5), (0, 6)]
    orbits = [[0], [1, 2, 3, 4, 5, 6]]
    return Example("star, S6", 720, from_edges(7, edges), orbits, [(0.0, 0.0), *ring(6)])


def _tree() -> Example:
    """Two hubs, one with three leaves, the other with two."""
    edges = [(0, 1), (0, 2), (0, 3), (0, 4), (1, 5), (1, 6)]
    orbits = [[0], [1], [2, 3, 4], [5, 6]]
    places = [(-0.4, 0.0), (0.4, 0.0), (-1.0, 0.8), (-1.2, 0.0), (-1.0, -0.8), (1.0, 0.7), (1.0, -0.7)]
    return Example("tree, S3 x S2", 12, from_edges(7, edges), orbits, places)


def _cycle() -> Example:
    """Every node is like every other, so a node function must be constant on it."""
    edges = [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 6), (6, 0)]
    return Example("7-cycle, D7", 14, from_edges(7, edges), [[0, 1, 2, 3, 4, 5, 6]], ring(7))


def _grid(side: int = 5) -> Example:
    """Nodes are alike if they are equally far from the centre along rows and columns, in either order."""
    half = side // 2
    edges = []
    places = []
    orbits: dict[tuple[int, int], list[int]] = {}
    for i in range(side):
        for j in range(side):
            node = side * i + j
            if j + 1 < side:
                edges.append((node, node + 1))
            if i + 1 < side:
                edges.append((node, node + side))
            places.append(((j - half) / half, (half - i) / half))
            distances = (abs(i - half), abs(j - half))
            orbits.setdefault((min(distances), max(distances)), []).append(node)
    return Example("5 x 5 grid, D4", 8, from_edges(side * side, edges), list(orbits.values()), places)


GRAPHS = (_rigid(), _star(), _tree(), _cycle(), _grid())
