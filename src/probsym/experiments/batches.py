"""Data in memory and batches of it by index; randomness as a function of where one is in a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from zlib import crc32

import numpy as np
import torch
from torch import Tensor

Batch = dict[str, Tensor]


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
    """All samples in order, `length` at a time."""

    data: Batch
    length: int

    def __len__(self) -> int:
        return -(-size(self.data) // self.length)

    def __iter__(self) -> Iterator[Batch]:
        for start in range(0, size(self.data), self.length):
            yield rows(self.data, slice(start, start + self.length))


class Shuffled:
    """Batches addressed by step: every pass over the data has its own order, a short rest of a pass is dropped.

    >>> batches = Shuffled({"x": torch.arange(10)}, length=4, seed=0)
    >>> torch.equal(batches[7]["x"], batches[7]["x"])
    True
    """

    def __init__(self, data: Batch, length: int, seed: int, rank: int = 0, world: int = 1):
        self.data, self.seed, self.rank, self.world = data, seed, rank, world
        self.length = min(length, size(data))
        self.per_pass = size(data) // self.length
        self.order = lru_cache(maxsize=1)(self._order)

    def _order(self, turn: int) -> Tensor:
        generator = torch.Generator().manual_seed(stream(self.seed, "order", turn))
        return torch.randperm(size(self.data), generator=generator)

    def __getitem__(self, step: int) -> Batch:
        turn, place = divmod(step, self.per_pass)
        batch = self.order(turn)[place * self.length : (place + 1) * self.length]
        return rows(self.data, batch[self.rank :: self.world])


@dataclass(frozen=True)
class Steps:
    """The batches of steps `span()` = (first, last + 1), asked anew at each pass: one epoch to Lightning."""

    batches: Shuffled
    span: Callable[[], tuple[int, int]]

    def __iter__(self) -> Iterator[Batch]:
        for step in range(*self.span()):
            yield self.batches[step]
