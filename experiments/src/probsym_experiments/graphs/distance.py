"""L1 distances of many outputs, without looking at all pairs. Letters: B outputs of C numbers, P pairs."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

CHUNK = 1 << 19  # pairs held at a time


def apart(y: Tensor, pairs: Tensor) -> Tensor:
    """L1 distance of the rows of y (B, C) that each pair (2, P) names: (P,)."""
    distances = [y.new_zeros(0)]
    for i, j in pairs.split(CHUNK, dim=1):
        distances.append((y[i] - y[j]).abs().sum(-1))
    return torch.cat(distances)


def close_pairs(y: Tensor, threshold: float) -> Tensor:
    """All pairs i < j of rows (B, C) whose L1 distance is at most the threshold: (2, P), exactly.

    For signs s in {-1, 1}^C, |<s, y_i> - <s, y_j>| is at most the distance. So rows are sorted by <s, y>, with the
    signs of the direction of largest spread, and each is compared only with those that follow within the threshold.

    >>> close_pairs(torch.tensor([[0.0, 0.0], [5.0, 0.0], [0.1, 0.1]]), 0.3).tolist()
    [[0], [2]]
    """
    if len(y) < 2:
        return torch.zeros(2, 0, dtype=torch.long)

    # 1. Sort by <s, y>.
    y = y.double()
    centred = y - y.mean(0)
    axis = torch.linalg.eigh(centred.T @ centred).eigenvectors[:, -1]
    signs = torch.where(axis < 0, -1.0, 1.0).double()
    along, order = (y @ signs).sort()

    # 2. How many rows after each one are within the threshold along s; the slack allows for rounding.
    slack = threshold + 1e-12 * along.abs().max()
    last = torch.searchsorted(along, along + slack, right=True)
    followers = last - torch.arange(len(y)) - 1

    # 3. Compare each with those, a stretch of rows at a time.
    close = []
    for start, stop in _stretches(followers):
        count = followers[start:stop]
        first = torch.repeat_interleave(torch.arange(start, stop), count)
        begin = torch.repeat_interleave(count.cumsum(0) - count, count)  # of the pairs of `first`
        second = first + 1 + torch.arange(len(first)) - begin
        pairs = torch.stack([order[first], order[second]])
        close.append(pairs[:, apart(y, pairs) <= threshold])
    return torch.cat(close, 1).sort(0).values


def _stretches(followers: Tensor) -> list[tuple[int, int]]:
    """Ranges of rows with about CHUNK pairs each."""
    block = followers.cumsum(0) // CHUNK
    starts = (torch.nonzero(block.diff()).flatten() + 1).tolist()
    ranges = []
    for start, stop in pairwise([0, *starts, len(followers)]):
        if stop > start:
            ranges.append((start, stop))
    return ranges


def nearest(y: Tensor, block: int = 512) -> float:
    """The smallest L1 distance of two rows (B, C); inf for less than two."""
    smallest = torch.inf
    for start in range(0, len(y), block):
        distances = torch.cdist(y[start : start + block], y[start:], p=1)
        distances.diagonal().fill_(torch.inf)  # of a row to itself
        smallest = min(smallest, distances.min().item())
    return smallest
