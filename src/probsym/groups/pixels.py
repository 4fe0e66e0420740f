"""Images turned about their centre by a matrix, with values interpolated between pixels; and SO(2), O(2) on images."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from probsym.groups.base import Group, Slot
from probsym.kernels.precision import wide
from probsym.members import register

BORDERS = ("zeros", "border", "reflection")
MASKS = (None, "disc")


def check_options(border: str, mask: str | None) -> None:
    """Refuse a border or a mask that is not known.

    Raises:
        ValueError: names the argument, what was expected and what came.
    """
    if border not in BORDERS:
        raise ValueError(f"border: expected one of {', '.join(map(repr, BORDERS))}, got {border!r}")
    if mask not in MASKS:
        raise ValueError(f"mask: expected None or 'disc', got {mask!r}")


@register
@dataclass(frozen=True, repr=False)
class PlaneImage(Slot):
    """Rows and columns of an image that elements with a 2 x 2 `matrix` turn about its centre.

        (g x)(p) = x(R^-1 p)         for p = (x right, y down), from the centre of the image

    So R turns the image as it turns vectors with components (x right, y down): optical flow is
    `Rep(space.vector, space.image)`. Values between pixels are interpolated linearly, so that the action is one up to
    interpolation.

    Args:
        group: SO(2) or O(2).
        border, mask: as in `C`.

    >>> from probsym.groups import SO
    >>> from probsym.reps import Rep
    >>> quarter = SO(2).project(torch.tensor([[[0.0, -1.0], [1.0, 0.0]]]), torch.eye(2))  # x right to y down: clockwise
    >>> Rep(SO(2).image).act(quarter, torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])).round(decimals=4).tolist()
    [[[3.0, 1.0], [4.0, 2.0]]]
    """

    group: Group
    border: str = "zeros"
    mask: str | None = None
    num_axes: ClassVar[int] = 2
    guards_precision: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_options(self.border, self.mask)
        if getattr(self.group, "dim", None) != 2:
            raise TypeError(f"{self.group!r} turns no image: expected SO(2) or O(2), which have two axes")

    @property
    def requires_float(self) -> bool:
        return True

    @property
    def isometric(self) -> bool:
        return False  # interpolation smooths, and what leaves the image is lost

    @property
    def interpolates(self) -> bool:
        return True

    def act(self, g: Any, x: Tensor, axis: int, shared_dims: int) -> Tensor:
        if self.mask is not None:
            x = cleared(x, axis)
        images = x.expand(*g.shape, *x.shape[shared_dims:])
        return turned(images, g.matrix, axis + len(g.shape) - shared_dims, self.border, self.mask)

    def __repr__(self) -> str:
        options = []
        if self.border != "zeros":
            options.append(f"border={self.border!r}")
        if self.mask is not None:
            options.append(f"mask={self.mask!r}")
        if options:
            return f"{self.group!r}.image_with({', '.join(options)})"
        return f"{self.group!r}.image"


def in_disc(rows: int, columns: int, device: torch.device) -> Tensor:
    """Which pixels (rows, columns) have their centre in the inscribed disc.

    >>> in_disc(4, 4, torch.device("cpu")).int().tolist()
    [[0, 1, 1, 0], [1, 1, 1, 1], [1, 1, 1, 1], [0, 1, 1, 0]]
    """
    # In halves of a pixel all numbers are whole, so that no rounding decides.
    down = 2 * torch.arange(rows, device=device)[:, None] - (rows - 1)
    right = 2 * torch.arange(columns, device=device) - (columns - 1)
    return down.square() + right.square() <= min(rows, columns) ** 2


def cleared(x: Tensor, axis: int) -> Tensor:
    """Images on axes (axis, axis + 1) of x with zero outside of the inscribed disc, whatever stood there."""
    rows, columns = x.shape[axis : axis + 2]
    inside = in_disc(rows, columns, x.device)
    return x.masked_fill(~inside.reshape(rows, columns, *[1] * (x.ndim - axis - 2)), 0)


def turned(x: Tensor, matrix: Tensor, axis: int, border: str, mask: str | None) -> Tensor:
    """Images on axes (axis, axis + 1) of x (*shape, ...) turned about their centre, bilinear.

    Args:
        matrix: (*shape, 2, 2), orthogonal, on (x right, y down). border: what lies outside of the image.
        mask: "disc" for images that are `cleared`. They stay so, and at the rim only pixels in the disc are
            interpolated, so that a constant stays one.
    """
    if x.is_complex():
        # The grid is real, and both parts are turned as channels are.
        parts = turned(torch.view_as_real(x), matrix, axis, border, mask)
        return torch.view_as_complex(parts.contiguous())
    shape, (rows, columns) = matrix.shape[:-2], x.shape[axis : axis + 2]

    # 1. Images (batch, channels, rows, columns), as `grid_sample` takes them. Half precision is widened first: it
    #    cannot number the pixels of a large image.
    images = x.movedim((axis, axis + 1), (-2, -1))
    channels = math.prod(images.shape[len(shape) : -2])
    narrow = images.reshape(math.prod(shape), channels, rows, columns)
    flat = wide(narrow)

    # 2. Where each pixel comes from, in pixels right and down of the centre: R^-1 = R^T takes it there.
    right = torch.arange(columns, device=x.device, dtype=flat.dtype) - (columns - 1) / 2
    down = torch.arange(rows, device=x.device, dtype=flat.dtype)[:, None] - (rows - 1) / 2
    entries = matrix.to(flat.dtype).reshape(-1, 4, 1, 1)
    source_right = entries[:, 0] * right + entries[:, 2] * down
    source_down = entries[:, 1] * right + entries[:, 3] * down

    # 3. Sample there, in units of half an image.
    grid = torch.stack([source_right * 2 / columns, source_down * 2 / rows], -1)
    sampled = torch.nn.functional.grid_sample(flat, grid, padding_mode=border, align_corners=False)

    # 4. In a disc, divide by how much of each value came from within it.
    if mask is not None:
        inside = in_disc(rows, columns, x.device)
        images_of_disc = inside.to(flat.dtype).expand(len(flat), 1, rows, columns)
        share = torch.nn.functional.grid_sample(images_of_disc, grid, padding_mode=border, align_corners=False)
        sampled = (sampled / torch.where(share > 0, share, 1)).masked_fill(~inside, 0)
    return sampled.to(narrow.dtype).reshape(images.shape).movedim((-2, -1), (axis, axis + 1))
