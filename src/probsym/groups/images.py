"""C(n) and D(n) on images: rotations by multiples of 360/n degrees, without and with reflections."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from probsym.groups.base import Element, Slot
from probsym.groups.finite import FiniteGroup
from probsym.groups.whole import positive
from probsym.kernels.gathers import gather_nodes
from probsym.kernels.precision import wide
from probsym.kernels.values import may_peek
from probsym.members import register

BORDERS = ("zeros", "border", "reflection")


@dataclass(frozen=True, eq=False)
class DihedralElement(Element):
    """A flip of the columns if `flips`, then a counterclockwise rotation by `turns` steps of 360/n degrees.

    Args:
        turns: integers from 0 to n - 1, of batch shape. flips: 0 or 1.
    """

    turns: Tensor
    flips: Tensor
    trailing_dims: ClassVar[dict[str, int]] = {"turns": 0, "flips": 0}


@dataclass(frozen=True)
class ImageRotations(FiniteGroup[DihedralElement]):
    """Shared by C and D: rotations of an image about its centre, and where `mirrored` flips of its columns."""

    n: int
    name: str | None = None
    border: str = "zeros"
    mirrored: ClassVar[bool]

    def __post_init__(self) -> None:
        object.__setattr__(self, "n", positive(f"{type(self).__name__}(n)", self.n))
        if self.border not in BORDERS:
            raise ValueError(f"border: expected one of {', '.join(map(repr, BORDERS))}, got {self.border!r}")

    @property
    def defining(self) -> Slot:
        return Turned(self)

    def order(self) -> int:
        return 2 * self.n if self.mirrored else self.n

    def elements(self, device: torch.device | str | None = None) -> DihedralElement:
        return self.numbered(torch.arange(self.order(), device=device))

    def numbered(self, number: Tensor) -> DihedralElement:
        """The elements by number, in the order of `regular`: rotations, then flips followed by rotations."""
        return DihedralElement(self, number % self.n, number // self.n)

    def number(self, g: DihedralElement) -> Tensor:
        return g.turns + self.n * g.flips

    def compose(self, g: DihedralElement, h: DihedralElement) -> DihedralElement:
        # A flip s turns rotations around: s r = r^-1 s.
        sign = 1 - 2 * g.flips
        return DihedralElement(self, (g.turns + sign * h.turns) % self.n, (g.flips + h.flips) % 2)

    def inverse(self, g: DihedralElement) -> DihedralElement:
        back = -g.turns
        if self.mirrored:  # -sign turns, in one operation
            back = back.addcmul(g.turns, g.flips, value=2)
        return DihedralElement(self, back % self.n, g.flips)

    def violation(self, g: DihedralElement) -> Tensor:
        in_range = (g.turns >= 0) & (g.turns < self.n) & (g.flips >= 0) & (g.flips <= int(self.mirrored))
        return (~in_range).to(torch.get_default_dtype())

    def __repr__(self) -> str:
        shown = [repr(self.n)]
        if self.name is not None:
            shown.append(repr(self.name))
        if self.border != "zeros":
            shown.append(f"border={self.border!r}")
        return f"{type(self).__name__}({', '.join(shown)})"


@register
@dataclass(frozen=True, repr=False)
class C(ImageRotations):
    """Rotations of an image about its centre by multiples of 360/n degrees; takes two axes, rows and columns.

    Quarter turns move pixels by indexing and are exact; they need square images (half turns do not). Other angles
    interpolate linearly, so they are a group action only up to interpolation: exact equivariance holds for n = 1, 2, 4.
    `C(n).regular` is an axis with one entry per element, as in group convolutions.

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

    mirrored = False


@register
@dataclass(frozen=True, repr=False)
class D(ImageRotations):
    """Rotations of an image by multiples of 360/n degrees, and the same after a flip of its columns: 2 n elements.

    Exact on square images for n = 1, 2, 4, and on all images for n = 1 and 2; see `C` for other angles and for the
    arguments. D(1) is the left-right flip.

    >>> D(4).order(), D(4, "image").regular
    (8, D(4, 'image').regular)
    """

    mirrored = True


@register
@dataclass(frozen=True, repr=False)
class Turned(Slot):
    """An image: rows and columns."""

    group: ImageRotations
    num_axes: ClassVar[int] = 2
    guards_precision: ClassVar[bool] = True

    @property
    def requires_float(self) -> bool:
        return 4 % self.group.n != 0

    @property
    def isometric(self) -> bool:
        return not self.requires_float  # other angles interpolate

    def misfit(self, sizes: tuple[int, ...]) -> str | None:
        return None if sizes[0] == sizes[1] or self.group.n <= 2 else "square images"

    def act(self, g: DihedralElement, x: Tensor, axis: int, shared_dims: int) -> Tensor:
        self.check(x, axis)
        n = self.group.n

        # 1. Quarter turns and flips move pixels.
        pose = _common_pose(g, n)
        if pose is None:
            moved = _each_in_its_pose(x, _pose(g.turns, g.flips, n), axis, shared_dims)
        else:
            moved = _all_in_one_pose(x, pose, g.shape, axis, shared_dims)
        if not self.requires_float:
            return moved

        # 2. What is left of a quarter turn interpolates between pixels.
        axis += len(g.shape) - shared_dims
        rest = 4 * g.turns % n
        between = _rotated(moved, rest, math.pi / 2 / n, axis, self.group.border)
        has_rest = rest.reshape(*rest.shape, *[1] * (moved.ndim - rest.ndim)) > 0
        return torch.where(has_rest, between, moved)


def _pose(turns: Any, flips: Any, n: int) -> Any:
    """Which of the eight poses of quarter turns and flips an image takes, what is left of a quarter aside."""
    return 4 * flips + 4 * turns // n


def _common_pose(g: DihedralElement, n: int) -> int | None:
    """The pose that all images take; None if they differ, or values must not be looked at."""
    if not g.turns.numel() or not may_peek(g.turns):
        return None
    turns, flips = g.turns.numpy(), g.flips.numpy()  # calls of numpy cost half of torch's
    turn, flip = turns.flat[0], flips.flat[0]
    if not ((turns == turn).all() and (flips == flip).all()):
        return None
    return int(_pose(turn, flip, n))


def _all_in_one_pose(x: Tensor, pose: int, shape: tuple[int, ...], axis: int, shared_dims: int) -> Tensor:
    """All images in one pose, by copies of rows: up to three times as fast as `_each_in_its_pose`."""
    flipped, turns = divmod(pose, 4)
    backwards = []
    if turns >= 2:
        backwards.append(axis)
    if (turns in (1, 2)) != bool(flipped):
        backwards.append(axis + 1)
    moved = x.flip(backwards)
    if turns % 2:
        moved = moved.transpose(axis, axis + 1).contiguous()  # base models may call `view`
    return moved.expand(*shape, *moved.shape[shared_dims:])


def _each_in_its_pose(x: Tensor, pose: Tensor, axis: int, shared_dims: int) -> Tensor:
    """Every image in its pose, by one gather of pixels."""
    rows, columns = x.shape[axis : axis + 2]
    index = torch.from_numpy(_pose_indices(rows, columns)).to(x.device).index_select(0, pose.reshape(-1))
    moved = gather_nodes(x.flatten(axis, axis + 1), index.reshape(*pose.shape, rows * columns), axis, shared_dims)
    return moved.unflatten(axis + pose.ndim - shared_dims, (rows, columns))


@cache
def _pose_indices(rows: int, columns: int) -> np.ndarray:
    """Gather indices (8, rows * columns) of no flip and flip, followed by 0 to 3 quarter turns.

    In numpy: a tensor that a compiler, an exporter or inference mode made must not outlive its call in a cache.
    """
    places = np.arange(rows * columns, dtype=np.int64).reshape(rows, columns)
    poses: list[np.ndarray] = []
    for image in (places, places[:, ::-1]):
        poses.extend(np.rot90(image, quarters).reshape(-1) for quarters in range(4))
    return np.stack(poses)


def _rotated(x: Tensor, steps: Tensor, step: float, axis: int, border: str) -> Tensor:
    """Images on axes (axis, axis + 1) of x rotated counterclockwise by `steps` times `step` radians, bilinear.

    The steps are integers of the leading shape.
    """
    if x.is_complex():
        # The grid is real, and both parts are turned as channels are.
        parts = _rotated(torch.view_as_real(x), steps, step, axis, border)
        return torch.view_as_complex(parts.contiguous())
    shape, (rows, columns) = steps.shape, x.shape[axis : axis + 2]

    # 1. Images (batch, channels, rows, columns), as `grid_sample` takes them. Half precision is widened first: it
    #    cannot number the pixels of a large image.
    images = x.movedim((axis, axis + 1), (-2, -1))
    channels = math.prod(images.shape[len(shape) : -2])
    narrow = images.reshape(math.prod(shape), channels, rows, columns)
    flat = wide(narrow)

    # 2. Where each pixel comes from, in pixels up and right of the centre.
    angle = steps.to(flat.dtype).reshape(-1, 1, 1) * step
    up = (rows - 1) / 2 - torch.arange(rows, device=x.device, dtype=flat.dtype)[:, None]
    right = torch.arange(columns, device=x.device, dtype=flat.dtype) - (columns - 1) / 2
    source_right = angle.cos() * right + angle.sin() * up
    source_down = angle.sin() * right - angle.cos() * up

    # 3. Sample there, in units of half an image.
    grid = torch.stack([source_right * 2 / columns, source_down * 2 / rows], -1)
    turned = torch.nn.functional.grid_sample(flat, grid, padding_mode=border, align_corners=False)
    return turned.to(narrow.dtype).reshape(images.shape).movedim((-2, -1), (axis, axis + 1))
