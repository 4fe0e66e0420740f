"""graph6, McKay's text format: simple undirected graphs, one a line, at most 62 nodes.

A line is the byte 63 + n, then the bits (0,1), (0,2), (1,2), (0,3), ... of the adjacency, six a byte, each plus 63.
Letters: B graphs, N nodes. Source: https://users.cecs.anu.edu.au/~bdm/data/formats.txt
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError

HEADER = b">>graph6<<"
LARGEST = 62


def encode(adjacency: NDArray[np.bool_]) -> bytes:
    """Adjacencies (B, N, N) as lines.

    Raises UserError for self loops, a graph that is not symmetric, or more than 62 nodes.

    >>> encode(np.ones((1, 3, 3), bool) ^ np.eye(3, dtype=bool))
    b'Bw\\n'
    """
    count, n = adjacency.shape[:2]
    if n > LARGEST:
        raise UserError(f"graph6: expected at most {LARGEST} nodes; got {n}")
    if (adjacency != adjacency.swapaxes(1, 2)).any() or adjacency.diagonal(axis1=1, axis2=2).any():
        raise UserError("graph6: expected simple undirected graphs; got a self loop or an edge in one direction")
    bits = adjacency[:, *_places(n)]
    padded = np.pad(bits, ((0, 0), (0, -bits.shape[1] % 6)))
    six = np.packbits(padded.reshape(count, -1, 6), axis=-1)[..., 0] >> 2
    lines = np.concatenate([np.full((count, 1), n), six, np.full((count, 1), ord("\n") - 63)], 1) + 63
    return lines.astype(np.uint8).tobytes()


def decode(text: bytes) -> NDArray[np.bool_]:
    """Lines of equally large graphs as adjacencies (B, N, N).

    Raises UserError for anything that is no graph6, and for graphs of several sizes.

    >>> decode(b"Bw").astype(int).tolist()
    [[[0, 1, 1], [1, 0, 1], [1, 1, 0]]]
    """
    lines = text.removeprefix(HEADER).split()
    if not lines:
        raise UserError("graph6: expected at least one graph; got none")
    n = lines[0][0] - 63
    length = 1 + -(-n * (n - 1) // 12)
    if not 0 <= n <= LARGEST:
        raise UserError(f"graph6: line 1: expected a graph of at most {LARGEST} nodes")
    for number, line in enumerate(lines, 1):
        if len(line) != length or line[0] != lines[0][0]:
            raise UserError(f"graph6: line {number}: expected {length} characters for {n} nodes; got {line[:20]!r}")
    codes = np.frombuffer(b"".join(lines), np.uint8).reshape(len(lines), length)[:, 1:] - 63
    bits = np.unpackbits(codes[..., None], axis=-1)[..., 2:].reshape(len(lines), -1)
    places = _places(n)
    if (codes > 63).any() or bits[:, len(places[0]) :].any():
        wrong = 1 + int(np.flatnonzero((codes > 63).any(1) | bits[:, len(places[0]) :].any(1))[0])
        raise UserError(f"graph6: line {wrong}: expected characters ? to ~ and zeros after the last bit")
    adjacency = np.zeros((len(lines), n, n), bool)
    adjacency[:, *places] = bits[:, : len(places[0])]
    return adjacency | adjacency.swapaxes(1, 2)


def _places(n: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Row and column of each bit: (1, 0), (2, 0), (2, 1), (3, 0), ..."""
    return np.tril_indices(n, -1)
