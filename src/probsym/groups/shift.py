"""Cyclic shifts of images: translations of a torus."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from probsym.groups.base import Element, Group, Slot
from probsym.groups.cyclic import leading, strongest
from probsym.groups.whole import positive
from probsym.kernels.gathers import gather_nodes
from probsym.members import register


@dataclass(frozen=True, eq=False)
class ShiftElement(Element):
    """(g x)_{ij} = x_{i - down, j - right}, round the edges.

    Args:
        down, right: integers of batch shape.
    """

    down: Tensor = torch.empty(0)
    right: Tensor = torch.empty(0)
    trailing_dims: ClassVar[dict[str, int]] = {"down": 0, "right": 0}


@register
@dataclass(frozen=True, repr=False)
class Shift(Group):
    """All shifts of an image round its edges; takes two axes, rows and columns.

    Args:
        size: rows and columns, or one number for both.
        name: tells this group from others.

    Raises:
        ValueError: a size below one.

    >>> from probsym.reps import Rep
    >>> g = ShiftElement(Shift((1, 3)), torch.tensor([0]), torch.tensor([1]))
    >>> Rep(Shift((1, 3))).act(g, torch.tensor([[[1.0, 2.0, 3.0]]])).tolist()
    [[[3.0, 1.0, 2.0]]]
    """

    size: int | tuple[int, int]
    name: str | None = None

    def __post_init__(self) -> None:
        size = self.size if isinstance(self.size, tuple | list) else (self.size, self.size)
        if len(size) != 2:
            raise ValueError(f"Shift: expected rows and columns, integers of at least 1, got {self.size!r}")
        object.__setattr__(self, "size", tuple(positive("Shift, rows and columns", n) for n in size))

    @property
    def rows(self) -> int:
        return self.size[0]  # type: ignore[index]

    @property
    def columns(self) -> int:
        return self.size[1]  # type: ignore[index]

    @property
    def defining(self) -> Slot:
        return Rolled(self)

    @property
    def noise_slots(self) -> tuple[Slot | None, ...]:
        return (self.defining,)

    @property
    def finite(self) -> bool:
        return True

    def order(self, layout: Any = None) -> int:
        return self.rows * self.columns

    def elements(self, layout: Any = None, device: Any = None) -> Element:
        return self.numbered(torch.arange(self.order(), device=device))

    def numbered(self, number: Tensor) -> ShiftElement:
        """The shift that moves the first pixel to the place of that number."""
        return ShiftElement(self, number // self.columns, number % self.columns)

    def identity(self, shape: tuple[int, ...] = (), **kwargs: Any) -> Element:
        return self.numbered(torch.zeros(shape, dtype=torch.long, device=kwargs.get("device")))

    def compose(self, g: ShiftElement, h: ShiftElement) -> Element:
        return ShiftElement(self, (g.down + h.down) % self.rows, (g.right + h.right) % self.columns)

    def inverse(self, g: ShiftElement) -> Element:
        return ShiftElement(self, -g.down % self.rows, -g.right % self.columns)

    def project(self, z: Tensor, fallback: Tensor, layout: Any = None) -> Element:
        """The shift to the largest score of the map z (*shape, rows, columns); `fallback` decides between equals."""
        return self.numbered(strongest(z.flatten(-2), fallback.flatten(-2)))

    def degenerate(self, z: Tensor, layout: Any = None) -> Tensor:
        return leading(z.flatten(-2)).sum(-1) > 1

    def draw_noise(self, shape: tuple[int, ...], layout: Any = None, **kwargs: Any) -> Tensor:
        return torch.randn(*shape, self.rows, self.columns, **kwargs)

    def __repr__(self) -> str:
        size = self.rows if self.rows == self.columns else self.size
        return f"Shift({size}{'' if self.name is None else f', {self.name!r}'})"


@register
@dataclass(frozen=True, repr=False)
class Rolled(Slot):
    """An image: rows and columns."""

    group: Shift
    num_axes: ClassVar[int] = 2
    precise: ClassVar[bool] = True

    @property
    def sizes(self) -> tuple[int | None, ...]:
        return (self.group.rows, self.group.columns)

    def misfit(self, sizes: tuple[int, ...]) -> str | None:
        return None if sizes == self.group.size else f"{self.group.rows} x {self.group.columns} pixels"

    def act(self, g: ShiftElement, x: Tensor, axis: int, lead: int) -> Tensor:
        rows, columns = self.group.rows, self.group.columns
        self.check(x, axis)
        down = (torch.arange(rows, device=x.device) - g.down.unsqueeze(-1)) % rows
        right = (torch.arange(columns, device=x.device) - g.right.unsqueeze(-1)) % columns
        index = (down.unsqueeze(-1) * columns + right.unsqueeze(-2)).flatten(-2)
        moved = gather_nodes(x.flatten(axis, axis + 1), index, axis, lead)
        return moved.unflatten(axis + len(g.shape) - lead, (rows, columns))
