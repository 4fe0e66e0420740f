"""Cyclic shifts of images and of signals: translations of a torus and of a ring."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from probsym.groups.base import Element, Slot
from probsym.groups.finite import FiniteGroup, leading, strongest
from probsym.groups.whole import positive
from probsym.kernels.gathers import gather_nodes
from probsym.members import register


@dataclass(frozen=True, eq=False)
class ShiftElement(Element):
    """(g x)_{ij} = x_{i - down, j - right}, round the edges.

    Args:
        down, right: integers of batch shape. Along one axis all shifts are to the right, and `down` is zero.
    """

    down: Tensor
    right: Tensor
    trailing_dims: ClassVar[dict[str, int]] = {"down": 0, "right": 0}


@register
@dataclass(frozen=True, repr=False)
class Shift(FiniteGroup[ShiftElement]):
    """All shifts of an image round its edges; takes two axes, rows and columns. Or of a signal, along one axis.

    Shifts are cyclic: what leaves at one end comes back at the other. Periodic data (panoramas, flows in a periodic
    box, cycles of a machine) are shifted exactly. Audio and time series that do not close into a ring get a jump where
    their ends meet.

    `Shift((N,))` shifts along one axis of length N: (B, C, N) is `Rep(None, Shift((N,)))`. A panorama (B, C, H, W) that
    turns about the vertical is `Rep(None, None, Shift((W,)))`.

    Args:
        size: rows and columns, or one number for both. A tuple of one number, (N,), for one axis of that length.
        name: tells this group from others.

    Raises:
        ValueError: a size below one.

    >>> from probsym.reps import Rep
    >>> g = ShiftElement(Shift((1, 3)), torch.tensor([0]), torch.tensor([1]))
    >>> Rep(Shift((1, 3))).act(g, torch.tensor([[[1.0, 2.0, 3.0]]])).tolist()
    [[[3.0, 1.0, 2.0]]]
    >>> ring = Shift((4,))
    >>> Rep(ring).act(ring.elements().select(slice(1, 2)), torch.tensor([[1.0, 2.0, 3.0, 4.0]])).tolist()
    [[4.0, 1.0, 2.0, 3.0]]
    """

    size: int | tuple[int, ...]
    name: str | None = None

    def __post_init__(self) -> None:
        size = self.size if isinstance(self.size, tuple | list) else (self.size, self.size)
        if len(size) not in (1, 2):
            raise ValueError(
                f"Shift: expected rows and columns, or (N,) for one axis, integers of at least 1, got {self.size!r}"
            )
        object.__setattr__(self, "size", tuple(positive("Shift, length of an axis", n) for n in size))

    @property
    def sizes(self) -> tuple[int, ...]:
        """Rows and columns, or the length of the one axis."""
        return self.size  # type: ignore[return-value]  # __post_init__ makes it a tuple

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns; one axis is a single row."""
        if len(self.sizes) == 1:
            return 1, self.sizes[0]
        return self.sizes[0], self.sizes[1]

    @property
    def defining(self) -> Slot:
        if len(self.sizes) == 1:
            return RolledLine(self)
        return Rolled(self)

    def order(self) -> int:
        rows, columns = self.shape
        return rows * columns

    def elements(self, device: torch.device | str | None = None) -> ShiftElement:
        return self.numbered(torch.arange(self.order(), device=device))

    def numbered(self, number: Tensor) -> ShiftElement:
        """The shift that moves the first pixel to the place of that number."""
        columns = self.shape[1]
        return ShiftElement(self, number // columns, number % columns)

    def number(self, g: ShiftElement) -> Tensor:
        return g.down * self.shape[1] + g.right

    def compose(self, g: ShiftElement, h: ShiftElement) -> ShiftElement:
        rows, columns = self.shape
        return ShiftElement(self, (g.down + h.down) % rows, (g.right + h.right) % columns)

    def inverse(self, g: ShiftElement) -> ShiftElement:
        rows, columns = self.shape
        return ShiftElement(self, -g.down % rows, -g.right % columns)

    # A map of scores is an image, and shifts act on it as on any.

    @property
    def noise_slots(self) -> tuple[Slot | None, ...]:
        return (self.defining,)

    def project(self, z: Tensor, fallback: Tensor) -> ShiftElement:
        """The shift to the largest score of the map z (*shape, rows, columns) or (*shape, N).

        `fallback` decides between equals.
        """
        first = -len(self.sizes)
        return self.numbered(strongest(z.flatten(first), fallback.flatten(first)))

    def degenerate(self, z: Tensor) -> Tensor:
        return leading(z.flatten(-len(self.sizes))).sum(-1) > 1

    def violation(self, g: ShiftElement) -> Tensor:
        rows, columns = self.shape
        in_range = (g.down >= 0) & (g.down < rows) & (g.right >= 0) & (g.right < columns)
        return (~in_range).to(torch.get_default_dtype())

    def __repr__(self) -> str:
        size: int | tuple[int, ...] = self.sizes
        if len(self.sizes) == 2 and self.sizes[0] == self.sizes[1]:
            size = self.sizes[0]
        name = "" if self.name is None else f", {self.name!r}"
        return f"Shift({size}{name})"


@register
@dataclass(frozen=True, repr=False)
class Rolled(Slot):
    """An image: rows and columns."""

    group: Shift
    num_axes: ClassVar[int] = 2
    guards_precision: ClassVar[bool] = True

    @property
    def sizes(self) -> tuple[int | None, ...]:
        return self.group.shape

    def misfit(self, sizes: tuple[int, ...]) -> str | None:
        rows, columns = self.group.shape
        return None if sizes == self.sizes else f"{rows} x {columns} pixels"

    def act(self, g: ShiftElement, x: Tensor, axis: int, shared_dims: int) -> Tensor:
        self.check(x, axis)
        rows, columns = self.group.shape
        down = (torch.arange(rows, device=x.device) - g.down.unsqueeze(-1)) % rows
        right = (torch.arange(columns, device=x.device) - g.right.unsqueeze(-1)) % columns
        index = (down.unsqueeze(-1) * columns + right.unsqueeze(-2)).flatten(-2)
        moved = gather_nodes(x.flatten(axis, axis + 1), index, axis, shared_dims)
        return moved.unflatten(axis + len(g.shape) - shared_dims, (rows, columns))


@register
@dataclass(frozen=True, repr=False)
class RolledLine(Slot):
    """One axis that closes into a ring."""

    group: Shift
    guards_precision: ClassVar[bool] = True

    @property
    def sizes(self) -> tuple[int | None, ...]:
        return self.group.sizes

    def act(self, g: ShiftElement, x: Tensor, axis: int, shared_dims: int) -> Tensor:
        self.check(x, axis)
        (length,) = self.group.sizes
        index = (torch.arange(length, device=x.device) - g.right.unsqueeze(-1)) % length
        return gather_nodes(x, index, axis, shared_dims)
