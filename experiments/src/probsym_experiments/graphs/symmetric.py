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
    turns = [2 * pi * i / count for i in range(count)]
    return [(radius * sin(t), radius * cos(t)) for t in turns]


def _rigid() -> Example:
    """The smallest tree without symmetries: arms of length 1, 2 and 3."""
    edges = [(0, 1), (0, 2), (2, 3), (0, 4), (4, 5), (5, 6)]
    places = [(0.0, 0.3), (0.0, 1.0), (-0.5, -0.1), (-1.0, -0.5), (0.4, 0.0), (0.8, -0.35), (1.2, -0.7)]
    return Example("no symmetry", 1, from_edges(7, edges), [[i] for i in range(7)], places)


def _star() -> Example:
    edges = [(0, i) for i in range(1, 7)]
    return Example("star, S6", 720, from_edges(7, edges), [[0], list(range(1, 7))], [(0.0, 0.0), *ring(6)])


def _tree() -> Example:
    """Two hubs, one with three leaves, the other with two."""
    edges = [(0, 1), (0, 2), (0, 3), (0, 4), (1, 5), (1, 6)]
    places = [(-0.4, 0.0), (0.4, 0.0), (-1.0, 0.8), (-1.2, 0.0), (-1.0, -0.8), (1.0, 0.7), (1.0, -0.7)]
    return Example("tree, S3 x S2", 12, from_edges(7, edges), [[0], [1], [2, 3, 4], [5, 6]], places)


def _cycle() -> Example:
    """Every node is like every other, so a node function must be constant on it."""
    edges = [(i, (i + 1) % 7) for i in range(7)]
    return Example("7-cycle, D7", 14, from_edges(7, edges), [list(range(7))], ring(7))


def _grid(side: int = 5) -> Example:
    edges = [(side * i + j, side * i + j + 1) for i in range(side) for j in range(side - 1)]
    edges += [(side * i + j, side * (i + 1) + j) for i in range(side - 1) for j in range(side)]
    half = side // 2
    classes: dict[tuple[int, ...], list[int]] = {}
    for i in range(side):
        for j in range(side):
            classes.setdefault(tuple(sorted((abs(i - half), abs(j - half)))), []).append(side * i + j)
    places = [((j - half) / half, (half - i) / half) for i in range(side) for j in range(side)]
    return Example("5 x 5 grid, D4", 8, from_edges(side * side, edges), list(classes.values()), places)


GRAPHS = (_rigid(), _star(), _tree(), _cycle(), _grid())
