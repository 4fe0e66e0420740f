"""L1 distances of many outputs, without looking at all pairs. Letters: B outputs of C numbers, P pairs."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

CHUNK = 1 << 19  # pairs held at a time


def apart(y: Tensor, pairs: Tensor) -> Tensor:
    """L1 distance of the rows of y (B, C) that each pair (2, P) names: (P,)."""
    parts = pairs.split(CHUNK, dim=1)
    return torch.cat([(y[i] - y[j]).abs().sum(-1) for i, j in parts]) if parts else y.new_zeros(0)


def close_pairs(y: Tensor, threshold: float) -> Tensor:
    """All pairs i < j of rows (B, C) whose L1 distance is at most the threshold: (2, P), exactly.

    For signs s in {-1, 1}^C, |<s, y_i> - <s, y_j>| is at most the distance. So rows are sorted by <s, y>, with the
    signs of the direction of largest spread, and each is compared only with those that follow within the threshold.

    >>> close_pairs(torch.tensor([[0.0, 0.0], [5.0, 0.0], [0.1, 0.1]]), 0.3).tolist()
    [[0], [2]]
    """
    if len(y) < 2:
        return torch.zeros(2, 0, dtype=torch.long)
    y = y.double()
    axis = torch.linalg.eigh((y - y.mean(0)).T @ (y - y.mean(0))).eigenvectors[:, -1]
    along, order = (y @ torch.where(axis < 0, -1.0, 1.0).double()).sort()
    slack = threshold + 1e-12 * along.abs().max()
    last = torch.searchsorted(along, along + slack, right=True)
    many = last - torch.arange(len(y)) - 1
    found = []
    for start, stop in _stretches(many):
        first = torch.repeat_interleave(torch.arange(start, stop), many[start:stop])
        begin = torch.repeat_interleave(many[start:stop].cumsum(0) - many[start:stop], many[start:stop])
        second = first + 1 + torch.arange(len(first)) - begin
        pairs = torch.stack([order[first], order[second]])
        found.append(pairs[:, apart(y, pairs) <= threshold])
    return torch.cat(found, 1).sort(0).values


def _stretches(many: Tensor) -> list[tuple[int, int]]:
    """Ranges of rows with about CHUNK pairs each."""
    block = many.cumsum(0) // CHUNK
    edges = [0, *(torch.nonzero(block.diff()).flatten() + 1).tolist(), len(many)]
    return [(a, b) for a, b in pairwise(edges) if b > a]


def nearest(y: Tensor, block: int = 512) -> float:
    """The smallest L1 distance of two rows (B, C); inf for less than two."""
    best = torch.inf
    for start in range(0, len(y), block):
        found = torch.cdist(y[start : start + block], y[start:], p=1)
        found.diagonal().fill_(torch.inf)
        best = min(best, found.min().item())
    return best
