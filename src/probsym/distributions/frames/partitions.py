"""Ordered partitions of the nodes: nodes that are still equal share a class, and a value splits the classes."""

from __future__ import annotations

import torch
from torch import Tensor


def split(classes: Tensor, value: Tensor, tolerance: Tensor) -> Tensor:
    """Split every class of nodes (R, N) by a value, at gaps above the tolerance (R,); numbers ascend with the value.

    >>> split(torch.tensor([[0, 1, 0, 0]]), torch.tensor([[2.0, 0.0, 1.0, 2.0]]), torch.tensor([0.1])).tolist()
    [[1, 2, 0, 1]]
    """
    return split_and_check(classes, value, tolerance, torch.zeros_like(tolerance))[0]


def split_and_check(classes: Tensor, value: Tensor, tolerance: Tensor, slack: Tensor) -> tuple[Tensor, Tensor]:
    """`split`, and the rows of which a gap is within `slack` (R,) of the tolerance, so that rounding decides (R,)."""
    # 1. in the order of the classes, within each in the order of the value
    order = torch.argsort(value, dim=-1, stable=True)
    by_class = torch.argsort(classes.gather(-1, order), dim=-1, stable=True)
    order = order.gather(-1, by_class)
    value = value.gather(-1, order)
    former = classes.gather(-1, order)

    # 2. a new class begins where the former one ends and at every gap
    gap = value.diff(dim=-1)
    ends = former.diff(dim=-1) != 0
    begins = ends | (gap > tolerance[:, None])
    near_tolerance = ~ends & ((gap - tolerance[:, None]).abs() < slack[:, None])
    number = former
    if former.shape[-1]:
        number = torch.nn.functional.pad(begins.long().cumsum(-1), (1, 0))
    return torch.empty_like(classes).scatter_(-1, order, number), near_tolerance.any(-1)


def tied(classes: Tensor) -> Tensor:
    """Rows of which some class has two nodes (R,).

    >>> tied(torch.tensor([[0, 1, 2], [0, 1, 0]])).tolist()
    [False, True]
    """
    return (classes.sort(-1).values.diff(dim=-1) == 0).any(-1)
