"""The cyclic group C(n): rotations of images by multiples of 360/n degrees."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from probsym.groups.base import Element, Group, Slot
from probsym.groups.whole import positive
from probsym.kernels.gathers import gather_nodes
from probsym.kernels.orthonormal import extent, tolerance
from probsym.kernels.precision import wide
from probsym.kernels.values import may_peek
from probsym.members import register

BORDERS = ("zeros", "border", "reflection")


@dataclass(frozen=True, eq=False)
class DihedralElement(Element):
    """A flip of the columns if `flips`, then a counterclockwise rotation by `turns` steps of 360/n degrees.

    Args:
        turns: integers below n, of batch shape. flips: 0 or 1.
    """

    turns: Tensor = torch.empty(0)
    flips: Tensor = torch.empty(0)
    trailing_dims: ClassVar[dict[str, int]] = {"turns": 0, "flips": 0}


@register
@dataclass(frozen=True, repr=False)
class C(Group):
    """Rotations of an image about its centre by multiples of 360/n degrees; takes two axes, rows and columns.

    Quarter turns move pixels by indexing and are exact; they need square images (half turns do not). Other angles
    interpolate linearly, so they are a group action only up to interpolation: exact equivariance holds for n = 1, 2, 4.
    `C(n).regular` is an axis with one entry an element, as in group convolutions.

    Args:
        n: order of the rotation.
        name: tells this group from others.
        border: what lies outside the image: "zeros", "border" (the nearest pixel) or "reflection".

    Raises:
        ValueError: n below one, or an unknown border.

    >>> from probsym.reps import Rep
    >>> g = C(4).elements().select(slice(1, 2))                          # a quarter turn
    >>> Rep(C(4)).act(g, torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])).tolist()
    [[[2.0, 4.0], [1.0, 3.0]]]
    """

    n: int
    name: str | None = None
    border: str = "zeros"
    mirrored: ClassVar[bool] = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "n", positive(f"{type(self).__name__}(n)", self.n))
        if self.border not in BORDERS:
            raise ValueError(f"border: expected one of {', '.join(map(repr, BORDERS))}, got {self.border!r}")

    @property
    def defining(self) -> Slot:
        return Turned(self)

    @property
    def regular(self) -> Slot:
        """An axis with one entry an element: the entries are permuted as the elements are by multiplication."""
        return Regular(self)

    @property
    def noise_slots(self) -> tuple[Slot | None, ...]:
        return (self.regular,)

    @property
    def finite(self) -> bool:
        return True

    def order(self, layout: Any = None) -> int:
        return self.n * (1 + self.mirrored)

    def elements(self, layout: Any = None, device: Any = None) -> Element:
        return self.numbered(torch.arange(self.order(), device=device))

    def numbered(self, number: Tensor) -> DihedralElement:
        """The elements by number, in the order of `regular`: rotations, then flips followed by rotations."""
        return DihedralElement(self, number % self.n, number // self.n)

    def identity(self, shape: tuple[int, ...] = (), **kwargs: Any) -> Element:
        return self.numbered(torch.zeros(shape, dtype=torch.long, device=kwargs.get("device")))

    def compose(self, g: DihedralElement, h: DihedralElement) -> Element:
        return DihedralElement(self, (g.turns + _sign(g) * h.turns) % self.n, (g.flips + h.flips) % 2)

    def inverse(self, g: DihedralElement) -> Element:
        back = -g.turns
        if self.mirrored:
            back = back.addcmul(g.turns, g.flips, value=2)  # -sign turns, in one operation
        return DihedralElement(self, back % self.n, g.flips)

    def project(self, z: Tensor, fallback: Tensor, layout: Any = None) -> Element:
        """The element with the largest score z (*shape, order); `fallback` decides between equals."""
        return self.numbered(strongest(z, fallback))

    def degenerate(self, z: Tensor, layout: Any = None) -> Tensor:
        return leading(z).sum(-1) > 1

    def draw_noise(self, shape: tuple[int, ...], layout: Any = None, **kwargs: Any) -> Tensor:
        return torch.randn(*shape, self.order(), **kwargs)

    def __repr__(self) -> str:
        shown = [repr(self.n), *([] if self.name is None else [repr(self.name)])]
        shown += [] if self.border == "zeros" else [f"border={self.border!r}"]
        return f"{type(self).__name__}({', '.join(shown)})"


def _sign(g: DihedralElement) -> Tensor:
    """A flip turns rotations around: s r = r^-1 s."""
    return 1 - 2 * g.flips


def leading(z: Tensor) -> Tensor:
    """Entries that are largest along the last axis, up to rounding."""
    z = wide(z.detach())
    return z >= z.amax(-1, keepdim=True) - tolerance(z.dtype) * extent(z)


def strongest(z: Tensor, fallback: Tensor) -> Tensor:
    """Place of the largest entry along the last axis; of equal ones that with the largest fallback."""
    z, fallback = torch.broadcast_tensors(z, fallback)
    return fallback.detach().masked_fill(~leading(z), -math.inf).argmax(-1)


@register
@dataclass(frozen=True, repr=False)
class Regular(Slot):
    """One entry an element e: (g x)_e = x_{g^-1 e}."""

    group: C
    suffix: ClassVar[str] = ".regular"
    precise: ClassVar[bool] = True

    @property
    def sizes(self) -> tuple[int | None, ...]:
        return (self.group.order(),)

    def misfit(self, sizes: tuple[int, ...]) -> str | None:
        return None if sizes == (self.group.order(),) else f"{self.group.order()} entries, one an element,"

    def act(self, g: DihedralElement, x: Tensor, axis: int, lead: int) -> Tensor:
        self.check(x, axis)
        every = self.group.elements(device=x.device)
        back = self.group.inverse(g).map(lambda t, _: t.unsqueeze(-1))
        moved: Any = self.group.compose(back, every)  # type: ignore[arg-type]
        return gather_nodes(x, moved.turns + self.group.n * moved.flips, axis, lead)


@register
@dataclass(frozen=True, repr=False)
class Turned(Slot):
    """An image: rows and columns."""

    group: C
    num_axes: ClassVar[int] = 2
    precise: ClassVar[bool] = True

    @property
    def requires_float(self) -> bool:
        return 4 % self.group.n != 0

    def misfit(self, sizes: tuple[int, ...]) -> str | None:
        return None if sizes[0] == sizes[1] or self.group.n <= 2 else "square images"

    def act(self, g: DihedralElement, x: Tensor, axis: int, lead: int) -> Tensor:
        self.check(x, axis)
        n = self.group.n
        pose = _common(g, n)
        moved = (
            _each(x, _number(g.turns, g.flips, n), axis, lead)
            if pose is None
            else _together(x, pose, g.shape, axis, lead)
        )
        if not self.requires_float:
            return moved
        axis += len(g.shape) - lead
        rest = 4 * g.turns % n
        between = _rotated(moved, rest, math.pi / 2 / n, axis, self.group.border)
        return torch.where(rest.reshape(*rest.shape, *[1] * (moved.ndim - rest.ndim)) > 0, between, moved)


def _number(turns: Any, flips: Any, n: int) -> Any:
    """Which of the eight poses of quarter turns and flips an image takes, what is left of a quarter aside."""
    return 4 * flips + 4 * turns // n


def _common(g: DihedralElement, n: int) -> int | None:
    """The pose that all images are known to take; by numpy, whose calls cost half of torch's."""
    if not g.turns.numel() or not may_peek(g.turns):
        return None
    turns, flips = g.turns.numpy(), g.flips.numpy()
    turn, flip = turns.flat[0], flips.flat[0]
    return int(_number(turn, flip, n)) if (turns == turn).all() and (flips == flip).all() else None


def _together(x: Tensor, pose: int, shape: tuple[int, ...], axis: int, lead: int) -> Tensor:
    """All images in one pose, by copies of rows: up to three times as fast as `_each`."""
    flipped, turns = divmod(pose, 4)
    backwards = [turns >= 2, (turns in (1, 2)) != bool(flipped)]
    moved = x.flip([axis + i for i, reverse in enumerate(backwards) if reverse])
    if turns % 2:
        moved = moved.transpose(axis, axis + 1).contiguous()  # base models may call `view`
    return moved.expand(*shape, *moved.shape[lead:])


def _each(x: Tensor, number: Tensor, axis: int, lead: int) -> Tensor:
    """Every image in its pose, by one gather of pixels."""
    rows, columns = x.shape[axis : axis + 2]
    index = torch.from_numpy(_quarters(rows, columns)).to(x.device).index_select(0, number.reshape(-1))
    moved = gather_nodes(x.flatten(axis, axis + 1), index.reshape(*number.shape, rows * columns), axis, lead)
    return moved.unflatten(axis + number.ndim - lead, (rows, columns))


@cache
def _quarters(rows: int, columns: int) -> np.ndarray:
    """Gather indices (8, rows * columns) of no flip and flip, followed by 0 to 3 quarter turns.

    In numpy: a tensor that a compiler, an exporter or inference mode made must not outlive its call in a cache.
    """
    places = np.arange(rows * columns, dtype=np.int64).reshape(rows, columns)
    return np.stack([np.rot90(image, q).reshape(-1) for image in (places, places[:, ::-1]) for q in range(4)])


def _rotated(x: Tensor, steps: Tensor, step: float, axis: int, border: str) -> Tensor:
    """Images on axes (axis, axis + 1) of x rotated counterclockwise by `steps` times `step` radians, bilinear.

    The steps are integers of the leading shape.
    """
    if x.is_complex():  # the grid is real, and both parts are turned as channels are
        return torch.view_as_complex(_rotated(torch.view_as_real(x), steps, step, axis, border).contiguous())
    shape, (rows, columns) = steps.shape, x.shape[axis : axis + 2]
    images = x.movedim((axis, axis + 1), (-2, -1))
    flat = images.reshape(math.prod(shape), math.prod(images.shape[len(shape) : -2]), rows, columns)
    kind, flat = flat.dtype, wide(flat)  # the places of the pixels of a large image are no numbers of half precision
    angle = steps.to(flat.dtype).reshape(-1, 1, 1) * step
    up = (rows - 1) / 2 - torch.arange(rows, device=x.device, dtype=flat.dtype)[:, None]
    right = torch.arange(columns, device=x.device, dtype=flat.dtype) - (columns - 1) / 2
    source = [angle.cos() * right + angle.sin() * up, angle.sin() * right - angle.cos() * up]
    grid = torch.stack([source[0] * 2 / columns, source[1] * 2 / rows], -1)
    turned = torch.nn.functional.grid_sample(flat, grid, padding_mode=border, align_corners=False)
    return turned.to(kind).reshape(images.shape).movedim((-2, -1), (axis, axis + 1))
