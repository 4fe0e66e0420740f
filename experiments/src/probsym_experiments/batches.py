"""Data and batches of it by index; randomness as a function of where one is in a run."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol
from zlib import crc32

import numpy as np
import torch
from torch import Tensor

Batch = dict[str, Tensor]
POOL = 20  # batches among which samples are sorted by size


class Source(Protocol):
    """Samples that become a batch when they are asked for.

    `sizes` (samples,) tells how big each is, so that batches may hold samples of like size; None if all are alike.
    """

    @property
    def sizes(self) -> Tensor | None: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: Tensor | slice) -> Batch: ...


@dataclass(frozen=True)
class Tensors:
    """The plainest source: tensors that lead with the sample."""

    data: Batch
    sizes: Tensor | None = None

    def __len__(self) -> int:
        return size(self.data)

    def __getitem__(self, index: Tensor | slice) -> Batch:
        return rows(self.data, index)


def stream(seed: int, purpose: str, *index: int) -> int:
    """A seed that is a hash of its arguments. Nothing random need be saved: step 7 draws the same whenever it runs."""
    return int(np.random.SeedSequence([seed, crc32(purpose.encode()), *index]).generate_state(1)[0])


def reseed(seed: int) -> None:
    """Seeds torch's generators; `torch.manual_seed` would queue a call and a stack trace for devices not yet in use."""
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)


def rows(data: Batch, index: Tensor | slice) -> Batch:
    """Some samples of a table of tensors that lead with the sample."""
    return {name: values[index] for name, values in data.items()}


def to(data: Batch, device: torch.device) -> Batch:
    """The same on another device."""
    return {name: values.to(device) for name, values in data.items()}


def size(data: Batch) -> int:
    """How many samples it holds."""
    return len(next(iter(data.values())))


@dataclass(frozen=True)
class Pages:
    """All samples in order, `length` at a time; of several processes each gets every `world`-th sample."""

    data: Source
    length: int
    rank: int = 0
    world: int = 1

    def __len__(self) -> int:
        samples = len(range(self.rank, len(self.data), self.world))
        return math.ceil(samples / self.length)

    def __iter__(self) -> Iterator[Batch]:
        for start in range(self.rank, len(self.data), self.length * self.world):
            yield self.data[slice(start, start + self.length * self.world, self.world)]


def in_order(gathered: Tensor, world: int) -> Tensor:
    """Rows of samples, those of the first process first, in the order of the samples that `Pages` dealt out."""
    numbers = []
    for rank in range(world):
        numbers.append(torch.arange(rank, len(gathered), world))
    return gathered[torch.cat(numbers).argsort().to(gathered.device)]


class Shuffled:
    """Batches addressed by step: every pass over the data has its own order.

    Args:
        keep_rest: Whether what fills no batch is a short one at the end of its pass, and not dropped.

    Samples of different sizes are sorted by size within stretches of `POOL` batches, then the batches are shuffled.

    >>> batches = Shuffled(Tensors({"x": torch.arange(10)}), length=4, seed=0)
    >>> torch.equal(batches[7]["x"], batches[7]["x"])
    True
    """

    def __init__(self, data: Source, length: int, seed: int, rank: int = 0, world: int = 1, keep_rest: bool = False):
        self.data = data
        self.seed = seed
        self.rank = rank
        self.world = world
        self.length = min(length, len(data))
        self.whole = len(data) // self.length  # batches that are full
        self.per_pass = self.whole
        if keep_rest and len(data) % self.length:
            self.per_pass += 1
        self.order = lru_cache(maxsize=1)(self._order)

    def _order(self, turn: int) -> Tensor:
        """All samples in the order of one pass."""
        generator = torch.Generator().manual_seed(stream(self.seed, "order", turn))
        order = torch.randperm(len(self.data), generator=generator)
        sizes = self.data.sizes
        if sizes is None:
            return order

        # 1. Within each stretch, by size.
        in_batches = self.whole * self.length
        sorted_pools = []
        for pool in order[:in_batches].split(POOL * self.length):
            by_size = sizes[pool].argsort(stable=True)
            sorted_pools.append(pool[by_size])

        # 2. The batches at random; what fills no batch stays at the end.
        batches = torch.cat(sorted_pools).reshape(self.whole, self.length)
        shuffled = batches[torch.randperm(self.whole, generator=generator)]
        return torch.cat([shuffled.reshape(-1), order[in_batches:]])

    def __getitem__(self, step: int) -> Batch:
        turn, place = divmod(step, self.per_pass)
        start = place * self.length
        batch = self.order(turn)[start : start + self.length]
        return self.data[batch[self.rank :: self.world]]


@dataclass(frozen=True)
class Steps:
    """The batches of steps `span()` = (first, last + 1), asked anew at each pass: one epoch to Lightning."""

    batches: Shuffled
    span: Callable[[], tuple[int, int]]

    def __iter__(self) -> Iterator[Batch]:
        for step in range(*self.span()):
            yield self.batches[step]
