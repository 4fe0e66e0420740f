"""Ranks of true ends among all nodes of a graph, without a loop over pairs."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor


def ranks(scores: Tensor, mask: Tensor, pair: Tensor) -> Iterator[Tensor]:
    """Ranks (L,) of y_ij among y_ik for true pairs (i, j): raw, filtered, self-filtered.

    Raw: k is every node but j. Filtered: k is no true end of i. Self-filtered: nor i itself. Ties count half, the mean
    over all orders, so that a constant score gains nothing.

    Args:
        scores: y (B, N, N). mask: (B, N), which nodes exist. pair: graph, i and j of the true pairs (L, 3), each once.

    >>> y, every = torch.zeros(1, 3, 3), torch.ones(1, 3, dtype=torch.bool)
    >>> y[0, 0] = torch.tensor([5.0, 1.0, 2.0])
    >>> [rank.tolist() for rank in ranks(y, every, torch.tensor([[0, 0, 1], [0, 0, 2]]))]
    [[3.0, 2.0], [2.0, 2.0], [1.0, 1.0]]
    """
    graph, i, j = pair.unbind(-1)
    own = scores[graph, i, j][:, None]
    row = scores[graph, i]
    place = torch.arange(scores.shape[-1], device=scores.device)
    true = torch.zeros(scores.shape, dtype=torch.bool, device=scores.device)
    true[graph, i, j] = True
    raw = mask[graph] & (place != j[:, None])
    filtered = mask[graph] & ~true[graph, i]
    self_filtered = filtered & (place != i[:, None])
    for rivals in (raw, filtered, self_filtered):
        better = ((row > own) & rivals).sum(1)
        equal = ((row == own) & rivals).sum(1)
        yield 1 + better + equal / 2
