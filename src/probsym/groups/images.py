"""C(n) and D(n) on images: rotations by multiples of 360/n degrees, without and with reflections.

What turns with an image are its pixels (the group itself), vectors at the pixels such as optical flow (`vector`),
points in it such as keypoints (`point`), and signs that a flip changes (`det`). All of one call turn by one element.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from probsym.groups.base import Element, Slot, check_sign
from probsym.groups.finite import FiniteGroup
from probsym.groups.orthogonal import rotate
from probsym.groups.pixels import check_options, cleared, turned
from probsym.groups.whole import positive
from probsym.kernels.gathers import gather_nodes
from probsym.kernels.precision import matmul, real_dtype, wide
from probsym.kernels.values import may_peek
from probsym.members import register


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
    mask: str | None = None
    mirrored: ClassVar[bool]

    def __post_init__(self) -> None:
        object.__setattr__(self, "n", positive(f"{type(self).__name__}(n)", self.n))
        check_options(self.border, self.mask)

    @property
    def on_grid(self) -> bool:
        """Whether all elements are quarter turns and flips, which move pixels to pixels: n = 1, 2, 4."""
        return 4 % self.n == 0

    @property
    def defining(self) -> Slot:
        return Turned(self)

    @property
    def image(self) -> Slot:
        """Rows and columns, as the group itself: two axes."""
        return self.defining

    @property
    def vector(self) -> Slot:
        """Components (x right, y down), one axis of length 2.

        They turn with the image of the same call. Optical flow (B, 2, H, W) is `Rep(G.vector, G)`.
        """
        return ImageVector(self)

    @property
    def point(self) -> Slot:
        """Coordinates (x right, y down) as fractions of the image, from 0 to 1: one axis of length 2.

        They turn about the centre (1/2, 1/2), and a flip of the columns is x -> 1 - x. Keypoints (B, N, 2) are
        `Rep(None, G.point)`, or `Rep(nodes, G.point)`. Pixels become fractions by (i + 1/2) / W for the centre of
        column i of W, and i / W where a coordinate i counts from the left edge of the image.
        """
        return ImagePoint(self)

    @property
    def det(self) -> Slot:
        """The sign that a flip changes: the curl of a flow, handedness. Takes no axis."""
        return ImageDet(self)

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
        if self.mask is not None:
            shown.append(f"mask={self.mask!r}")
        return f"{type(self).__name__}({', '.join(shown)})"


@register
@dataclass(frozen=True, repr=False)
class C(ImageRotations):
    """Rotations of an image about its centre by multiples of 360/n degrees; takes two axes, rows and columns.

    Quarter turns move pixels by indexing and are exact; they need square images (half turns do not). Other angles
    interpolate linearly, so they are a group action only up to interpolation: exact equivariance holds for n = 1, 2, 4.
    `C(n).regular` is an axis with one entry per element, as in group convolutions. Vectors at the pixels, points in the
    image and pseudoscalars turn with it: `vector`, `point` and `det`. These are exact for every n.

    Elements turn the displayed image counterclockwise, as `torch.rot90` does.

    Args:
        n: order of the rotation.
        name: tells this group from others.
        border: what lies outside the image: "zeros", "border" (the nearest pixel) or "reflection".
        mask: "disc" sets to zero what lies outside of the inscribed disc, before and after every element, the identity
            included. Angles that are no quarter turns carry the corners out of the image: without the mask, the average
            of a model that returns its input has lost half of them for C(8). On images that are zero outside of the
            disc the elements act up to interpolation, and a constant within it stays one.

    Raises:
        ValueError: n below one, an unknown border or an unknown mask.

    >>> from probsym.reps import Rep
    >>> g = C(4).elements().select(slice(1, 2))                          # a quarter turn
    >>> Rep(C(4)).act(g, torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])).tolist()
    [[[2.0, 4.0], [1.0, 3.0]]]
    >>> Rep(C(4).vector).act(g, torch.tensor([[1.0, 0.0]])).tolist()            # right becomes up, which is -y
    [[0.0, -1.0]]
    >>> Rep(C(4).point).act(g, torch.tensor([[1.0, 0.0]])).tolist()             # the upper right corner: upper left
    [[0.0, 0.0]]
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
        return not self.group.on_grid

    @property
    def isometric(self) -> bool:
        return self.group.on_grid and self.group.mask is None  # others interpolate, or leave pixels out

    @property
    def interpolates(self) -> bool:
        return not self.isometric

    def misfit(self, sizes: tuple[int, ...]) -> str | None:
        return None if sizes[0] == sizes[1] or self.group.n <= 2 else "square images"

    def act(self, g: DihedralElement, x: Tensor, axis: int, shared_dims: int) -> Tensor:
        self.check(x, axis)
        n, mask = self.group.n, self.group.mask
        if mask is not None:
            x = cleared(x, axis)  # a disc, which quarter turns and flips leave where it is

        # 1. Quarter turns and flips move pixels.
        pose = _common_pose(g, n)
        if pose is None:
            moved = _each_in_its_pose(x, _pose(g.turns, g.flips, n), axis, shared_dims)
        else:
            moved = _all_in_one_pose(x, pose, g.shape, axis, shared_dims)
        if self.group.on_grid:
            return moved

        # 2. What is left of a quarter turn interpolates between pixels.
        axis += len(g.shape) - shared_dims
        rest = 4 * g.turns % n
        between = turned(moved, _rest_matrix(g, n, _precision(moved)), axis, self.group.border, mask)
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


# ---------------------------------------------------------------- what turns with an image


@register
@dataclass(frozen=True, repr=False)
class ImageVector(Slot):
    """Components (x right, y down) along one axis."""

    group: ImageRotations
    sizes = (2,)
    suffix: ClassVar[str] = ".vector"
    role: ClassVar[str] = "vector"
    guards_precision: ClassVar[bool] = True

    @property
    def requires_float(self) -> bool:
        return True  # unsigned integers have no negative, and integers no parts

    @property
    def isometric(self) -> bool:
        return True

    def act(self, g: DihedralElement, x: Tensor, axis: int, shared_dims: int) -> Tensor:
        self.check(x, axis)
        if not self.group.on_grid:
            return rotate(_matrix(g, self.group, _precision(x)), x, axis, shared_dims)
        check_sign(x, self)
        moved, signs = _exchanged(g, self.group, x, axis, shared_dims)
        return moved * signs.to(x.dtype)


@register
@dataclass(frozen=True, repr=False)
class ImagePoint(Slot):
    """Coordinates (x right, y down) along one axis, as fractions of the image."""

    group: ImageRotations
    sizes = (2,)
    suffix: ClassVar[str] = ".point"
    role: ClassVar[str] = "point"
    guards_precision: ClassVar[bool] = True

    @property
    def differences(self) -> Slot:
        return self.group.vector

    @property
    def requires_float(self) -> bool:
        return True  # fractions

    @property
    def isometric(self) -> bool:
        return False  # points turn about (1/2, 1/2)

    def act(self, g: DihedralElement, x: Tensor, axis: int, shared_dims: int) -> Tensor:
        self.check(x, axis)
        dtype = x.dtype
        x = wide(x)
        if not self.group.on_grid:
            return (rotate(_matrix(g, self.group, _precision(x)), x - 0.5, axis, shared_dims) + 0.5).to(dtype)
        moved, signs = _exchanged(g, self.group, x, axis, shared_dims)
        return torch.where(signs < 0, 1 - moved, moved).to(dtype)


@register
@dataclass(frozen=True, repr=False)
class ImageDet(Slot):
    """-1 for elements with a flip, 1 for others; takes no axis."""

    group: ImageRotations
    num_axes: ClassVar[int] = 0
    suffix: ClassVar[str] = ".det"
    guards_precision: ClassVar[bool] = True

    @property
    def requires_float(self) -> bool:
        return True  # unsigned integers have no negative

    def act(self, g: DihedralElement, x: Tensor, axis: int, shared_dims: int) -> Tensor:
        check_sign(x, self)
        signs = (1 - 2 * g.flips).to(x.dtype)
        return x * signs.reshape((*signs.shape, *[1] * (x.ndim - shared_dims)))


def _precision(x: Tensor) -> torch.dtype:
    """The real dtype in which x is turned: float32 or wider."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    return real_dtype(dtype)


def _pose_matrices() -> np.ndarray:
    """Matrices (8, 2, 2) of the poses, in the order of `_pose`, on (x right, y down)."""
    flip = np.array([[-1.0, 0.0], [0.0, 1.0]])
    quarter = np.array([[0.0, 1.0], [-1.0, 0.0]])
    matrices: list[np.ndarray] = []
    for start in (np.eye(2), flip):
        for quarters in range(4):
            matrices.append(np.linalg.matrix_power(quarter, quarters) @ start)
    return np.stack(matrices)


POSE_MATRICES = _pose_matrices()


def _rest_matrix(g: DihedralElement, n: int, dtype: torch.dtype) -> Tensor:
    """Matrices (*shape, 2, 2) of what is left of the turns beside quarter turns."""
    angle = (4 * g.turns % n).to(dtype) * (math.pi / 2 / n)
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([cos, sin, -sin, cos], -1).unflatten(-1, (2, 2))  # counterclockwise, with y down


def _matrix(g: DihedralElement, group: ImageRotations, dtype: torch.dtype) -> Tensor:
    """Matrices (*shape, 2, 2) of elements, on (x right, y down); those of quarter turns are exact."""
    pose = _pose(g.turns, g.flips, group.n)
    table = torch.from_numpy(POSE_MATRICES).to(dtype).to(pose.device)
    quarters = table.index_select(0, pose.reshape(-1)).reshape(*pose.shape, 2, 2)
    if group.on_grid:
        return quarters
    return matmul(_rest_matrix(g, group.n, dtype), quarters)


def _exchanged(
    g: DihedralElement, group: ImageRotations, x: Tensor, axis: int, shared_dims: int
) -> tuple[Tensor, Tensor]:
    """What quarter turns and flips do to (x, y) on an axis: the components exchanged or not, and their signs."""
    matrix = _matrix(g, group, torch.float32)
    moved = gather_nodes(x, matrix.abs().argmax(-1), axis, shared_dims)
    signs = matrix.sum(-1)
    return moved, signs.reshape(*g.shape, *[1] * (axis - shared_dims), 2, *[1] * (x.ndim - axis - 1))
