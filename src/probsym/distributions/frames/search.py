"""The search for frames: a walk through choices that either lists every way or follows one way per sample.

A path is a frame under construction that belongs to one input. Each rule for a degenerate input marks the options that
a path has and calls `choose`: a `Listing` follows all of them, a `Sampling` the one that the noise prefers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from probsym.groups import IsometryGroup
from probsym.reps import NodeAxis


@dataclass(frozen=True, eq=False)
class SpaceNoise:
    """Noise for the axes of one space, one row per draw of an input (K samples, B batch, D space, M columns).

    Args:
        basis: (K B, D, D), fills axes that no data determines.
        signs: (K B, D), a vector whose side of each axis decides its sign.
        preference: (K B, M, D), how much each column is preferred as axis j; zero where their order decides.
    """

    basis: Tensor
    signs: Tensor
    preference: Tensor


@dataclass(frozen=True, eq=False)
class FrameNoise:
    """All noise of a search by factor: that of `nodes` is (K B, N), and decides between equal nodes."""

    spaces: dict[IsometryGroup, SpaceNoise]
    nodes: dict[NodeAxis, Tensor]


@dataclass(frozen=True, eq=False)
class SpaceState:
    """The axes of one space that the paths have chosen so far.

    Args:
        matrix: (R, D, D), the axes as columns; orthonormal.
        free: (R, D), whether the sign of an axis is still to be chosen.
        error: (R,), the angle in radians by which rounding may have turned an axis.
    """

    matrix: Tensor
    free: Tensor
    error: Tensor

    def select(self, rows: Tensor) -> SpaceState:
        """The states of the given paths, by number or by mask."""
        return SpaceState(self.matrix[rows], self.free[rows], self.error[rows])


@dataclass(frozen=True, eq=False)
class Choice:
    """What the paths chose.

    Args:
        option: (R',), the option of every path that there is now.
        parent: (R',), which of the former paths each one continues; None if every path continues itself.
    """

    option: Tensor
    parent: Tensor | None = None

    def follow(self, rows: Tensor) -> Tensor:
        """Values of the former paths (R, ...), handed on to those that continue them (R', ...)."""
        if self.parent is None:
            return rows
        return rows[self.parent]


class Paths(ABC):
    """R partial frames, each of one input, built choice by choice.

    Args:
        owner: the input of each path (R,).
        weight: probability of each path among those of its input (R,).
        limit: most paths that an input may have.
        noise: what decides between options, and fills axes without data; None if nothing will ask for it.
        draw: the row of the noise that belongs to each path (R,).

    Attributes:
        spaces: the axes chosen so far; orders: the place of every node (R, N), equal for nodes that are still equal.
    """

    def __init__(self, owner: Tensor, weight: Tensor, limit: int, noise: FrameNoise | None, draw: Tensor) -> None:
        self.owner = owner
        self.weight = weight
        self.limit = limit
        self.noise = noise
        self.draw = draw
        self.spaces: dict[IsometryGroup, SpaceState] = {}
        self.orders: dict[NodeAxis, Tensor] = {}

    @property
    def rounds(self) -> int:
        """After so many choices between two or more, an input has more than `limit` paths."""
        return self.limit.bit_length()

    @abstractmethod
    def choose(self, options: Tensor, preference: Tensor | None = None) -> Choice:
        """Decide between the marked options (R, M), at least one per path.

        Args:
            preference: noise for each option (R, M): independent and continuous where the choice is to be uniform. None
                if a sample may take the first option.
        """

    def suspect(self, rows: Tensor) -> None:
        """Note the paths (R,) for which the rounding of the inputs made a decision; only a listing claims exactness."""
        return

    def take(self, rows: Tensor) -> None:
        """Keep the given paths, by number or by mask."""
        self.owner = self.owner[rows]
        self.weight = self.weight[rows]
        self.draw = self.draw[rows]
        self.spaces = {space: state.select(rows) for space, state in self.spaces.items()}
        self.orders = {axis: order[rows] for axis, order in self.orders.items()}

    def noise_of(self, space: IsometryGroup) -> SpaceNoise:
        """The noise for the axes of a space; the rows of the paths are `draw`."""
        if self.noise is None:
            raise RuntimeError("a search without noise met an input without data")
        return self.noise.spaces[space]

    def found(self) -> FoundFrames:
        """The frames, once every rule has been applied."""
        matrices = {space: state.matrix for space, state in self.spaces.items()}
        return FoundFrames(self.owner, self.weight, matrices, dict(self.orders))


class Sampling(Paths):
    """One path per sample: the option with the greatest noise, so that the choice moves with the noise."""

    def __init__(self, owner: Tensor, weight: Tensor, limit: int, noise: FrameNoise, draw: Tensor) -> None:
        super().__init__(owner, weight, limit, noise, draw)

    def choose(self, options: Tensor, preference: Tensor | None = None) -> Choice:
        if preference is None:
            return Choice(options.to(torch.uint8).argmax(-1))
        return Choice(preference.masked_fill(~options, -torch.inf).argmax(-1))


class Listing(Paths):
    """All paths: every option is followed, with equal weight. Inputs with more than `limit` are given up.

    Attributes:
        overflow: inputs that were given up (B,). unsure: inputs with a path for which rounding decided (B,).

    >>> paths = Listing(2, 64)
    >>> choice = paths.choose(torch.tensor([[True, True], [False, True]]))
    >>> choice.option.tolist(), choice.parent.tolist(), paths.owner.tolist()
    ([0, 1, 1], [0, 0, 1], [0, 0, 1])
    >>> paths.weight.tolist()
    [0.5, 0.5, 1.0]
    """

    def __init__(
        self, count: int, limit: int, noise: FrameNoise | None = None, device: torch.device | str | None = None
    ) -> None:
        every = torch.arange(count, device=device)
        weight = torch.ones(count, dtype=torch.float64, device=device)
        super().__init__(every, weight, limit, noise, every)
        self.overflow = torch.zeros(count, dtype=torch.bool, device=device)
        self.unsure = self.overflow

    def choose(self, options: Tensor, preference: Tensor | None = None) -> Choice:
        # 1. one path per marked option
        parent, option = options.nonzero(as_tuple=True)
        self.weight = self.weight / options.sum(-1)
        self.take(parent)

        # 2. inputs that have too many now are given up, with all their paths
        counts = torch.bincount(self.owner, minlength=len(self.overflow))
        if bool((counts > self.limit).any()):
            kept = self.give_up(counts > self.limit)
            parent = parent[kept]
            option = option[kept]
        return Choice(option, parent)

    def suspect(self, rows: Tensor) -> None:
        inputs = torch.zeros_like(self.overflow).index_put((self.owner[rows],), torch.ones_like(rows[:1]))
        self.unsure = self.unsure | inputs

    def give_up(self, inputs: Tensor) -> Tensor:
        """Drop all paths of the marked inputs (B,); returns which paths were kept (R,)."""
        self.overflow = self.overflow | inputs
        kept = ~inputs[self.owner]
        self.take(kept)
        return kept


@dataclass(frozen=True, eq=False)
class FoundFrames:
    """R complete frames, in any order.

    Args:
        owner: the input of each (R,).
        weight: its probability among those of its input (R,).
        matrices: the axes by space (R, D, D).
        orders: the place of every node by node axis (R, N).
    """

    owner: Tensor
    weight: Tensor
    matrices: dict[IsometryGroup, Tensor]
    orders: dict[NodeAxis, Tensor]

    def __add__(self, other: FoundFrames) -> FoundFrames:
        """The frames of both, which belong to different inputs."""
        return FoundFrames(
            torch.cat([self.owner, other.owner]),
            torch.cat([self.weight, other.weight]),
            {space: torch.cat([matrix, other.matrices[space]]) for space, matrix in self.matrices.items()},
            {axis: torch.cat([order, other.orders[axis]]) for axis, order in self.orders.items()},
        )

    def as_samples(self, shape: tuple[int, ...]) -> FrameTable:
        """The frames as they are, which are one per sample and input: `shape` is (*K, B)."""
        return FrameTable(
            self.weight.reshape(shape),
            {space: matrix.reshape(*shape, *matrix.shape[1:]) for space, matrix in self.matrices.items()},
            {axis: order.reshape(*shape, *order.shape[1:]) for axis, order in self.orders.items()},
        )

    def as_table(self, count: int) -> FrameTable:
        """The frames of each of B = `count` inputs below each other; what an input does not fill has weight zero.

        >>> weight = torch.tensor([0.5, 1.0, 0.5])
        >>> FoundFrames(torch.tensor([0, 2, 0]), weight, {}, {}).as_table(3).weight.tolist()
        [[0.5, 0.0, 1.0], [0.5, 0.0, 0.0]]
        """
        row, height = self._rows(count)

        def table(value: Tensor, blank: Tensor) -> Tensor:
            empty = blank.to(value).expand(height, count, *value.shape[1:])
            return empty.index_put((row, self.owner), value)

        device = self.owner.device
        matrices = {}
        for space, matrix in self.matrices.items():
            matrices[space] = table(matrix, torch.eye(matrix.shape[-1], dtype=torch.float64, device=device))
        orders = {}
        for axis, order in self.orders.items():
            orders[axis] = table(order, torch.arange(order.shape[-1], device=device))
        return FrameTable(table(self.weight, torch.zeros(())), matrices, orders)

    def _rows(self, count: int) -> tuple[Tensor, int]:
        """The place of every frame among those of its input (R,), and the largest number of frames of an input."""
        if not count:
            return torch.empty_like(self.owner), 1
        counts = torch.bincount(self.owner, minlength=count)
        order = torch.argsort(self.owner, stable=True)
        first = counts.cumsum(0) - counts
        row = torch.empty_like(self.owner)
        row[order] = torch.arange(len(self.owner), device=self.owner.device) - first[self.owner[order]]
        return row, max(1, int(counts.max()))


@dataclass(frozen=True, eq=False)
class FrameTable:
    """Frames with a batch shape (..., B).

    Args:
        weight: (..., B), probability of each frame among those of its input.
        matrices: the axes by space (..., B, D, D).
        orders: the place of every node by node axis (..., B, N).
    """

    weight: Tensor
    matrices: dict[IsometryGroup, Tensor]
    orders: dict[NodeAxis, Tensor]
