"""The ways to one frame: a walk through choices that either lists every way or follows one way a sample."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable

import torch
from torch import Tensor


class Paths(ABC):
    """R partial frames, each of one input, built choice by choice.

    Whatever was decided so far is `held` by name, one row a path, and follows the path when it branches.

    Args:
        owner: the input of each path (R,).
        weight: probability of each path among those of its input (R,).
        limit: most paths that an input may have.
    """

    def __init__(self, owner: Tensor, weight: Tensor, limit: int) -> None:
        self.owner = owner
        self.weight = weight
        self.limit = limit
        self.held: dict[Hashable, Tensor] = {}

    @property
    def rounds(self) -> int:
        """After so many choices between two or more, an input has more than `limit` paths."""
        return self.limit.bit_length()

    @abstractmethod
    def choose(self, options: Tensor, noise: Tensor | None = None) -> Tensor:
        """Decide between the marked options (R, M), at least one a path.

        Args:
            noise: preference for each option (R, M): independent and continuous where the choice is to be uniform.

        Returns: the option of every path (R',); what is held has R' rows now.
        """

    def suspect(self, rows: Tensor) -> None:
        """Note the paths (R,) for which the rounding of the inputs made a decision; only a listing claims exactness."""
        return

    def take(self, rows: Tensor) -> None:
        """Keep the given paths, by number or by mask."""
        self.owner, self.weight = self.owner[rows], self.weight[rows]
        self.held = {name: value[rows] for name, value in self.held.items()}


class Sampling(Paths):
    """One path a sample: the option with the greatest noise, so that the choice moves with the noise."""

    def choose(self, options: Tensor, noise: Tensor | None = None) -> Tensor:
        if noise is None:
            return options.to(torch.uint8).argmax(-1)
        return noise.masked_fill(~options, -torch.inf).argmax(-1)


class Listing(Paths):
    """All paths: every option is followed, with equal weight. Inputs with more than `limit` are given up.

    Attributes:
        overflow: inputs that were given up (B,). unsure: inputs with a path for which rounding decided (B,).

    >>> paths = Listing(2, 64)
    >>> paths.choose(torch.tensor([[True, True], [False, True]])).tolist(), paths.owner.tolist()
    ([0, 1, 1], [0, 0, 1])
    >>> paths.weight.tolist()
    [0.5, 0.5, 1.0]
    """

    def __init__(self, count: int, limit: int, device: torch.device | str | None = None) -> None:
        weight = torch.ones(count, dtype=torch.float64, device=device)
        super().__init__(torch.arange(count, device=device), weight, limit)
        self.overflow = torch.zeros(count, dtype=torch.bool, device=device)
        self.unsure = self.overflow

    def choose(self, options: Tensor, noise: Tensor | None = None) -> Tensor:
        parent, option = options.nonzero(as_tuple=True)
        self.weight = self.weight / options.sum(-1)
        self.take(parent)
        counts = torch.bincount(self.owner, minlength=len(self.overflow))
        if bool((counts > self.limit).any()):
            keep = (counts <= self.limit)[self.owner]
            self.give_up(counts > self.limit)
            option = option[keep]
        return option

    def suspect(self, rows: Tensor) -> None:
        inputs = torch.zeros_like(self.overflow).index_put((self.owner[rows],), torch.ones_like(rows[:1]))
        self.unsure = self.unsure | inputs

    def give_up(self, inputs: Tensor) -> None:
        """Drop all paths of the marked inputs (B,)."""
        self.overflow = self.overflow | inputs
        self.take(~inputs[self.owner])


def slots(owner: Tensor, count: int) -> tuple[Tensor, int]:
    """The place of every path among those of its input (R,), and the largest number of paths.

    >>> slots(torch.tensor([0, 2, 0]), 3)
    (tensor([0, 0, 1]), 2)
    """
    counts = torch.bincount(owner, minlength=count)
    order = torch.argsort(owner, stable=True)
    first = counts.cumsum(0) - counts
    slot = torch.empty_like(owner)
    slot[order] = torch.arange(len(owner), device=owner.device) - first[owner[order]]
    return slot, max(1, int(counts.max())) if count else 1
