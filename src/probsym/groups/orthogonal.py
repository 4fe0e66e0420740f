"""The orthogonal groups O(d) and SO(d): rotations and reflections about the origin."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from probsym.groups.base import Element, ElementT, Group, Slot, check_sign
from probsym.groups.pixels import PlaneImage
from probsym.groups.whole import positive
from probsym.kernels.orthonormal import lacks_columns, orthonormalise
from probsym.kernels.precision import matmul, wide
from probsym.members import register

AXES = ("x", "y", "z")


@dataclass(frozen=True, eq=False)
class OrthogonalElement(Element):
    """An orthogonal matrix, reflections included.

    Args:
        matrix: (*shape, D, D).
    """

    matrix: Tensor
    trailing_dims: ClassVar[dict[str, int]] = {"matrix": 2}


@dataclass(frozen=True)
class IsometryGroup(Group[ElementT]):
    """Shared by O, SO, E and SE: elements with an orthogonal `matrix`, and the slots of the linear part.

    Args:
        dim: dimension d of the space, at least one.
        name: tells this group from others.
        about: "x", "y" or "z" in three dimensions: only rotations about this axis, as where gravity tells up from down.
            Of O and E these are also the reflections in planes through the axis, which all keep its direction.
            Translations stay as they are, along the axis too. None for all rotations.

    Raises:
        ValueError: a dimension below one, an unknown axis, or an axis in another dimension than three.
    """

    dim: int
    name: str | None = None
    about: str | None = field(default=None, kw_only=True)

    feature_kind: ClassVar[str] = "columns"
    isometric = True

    def __post_init__(self) -> None:
        of = type(self).__name__
        object.__setattr__(self, "dim", positive(f"{of}(d)", self.dim))
        if self.about is None:
            return
        if self.about not in AXES:
            raise ValueError(f"{of}(about=...): expected 'x', 'y', 'z' or None, got {self.about!r}")
        if self.dim != 3:
            raise ValueError(f"{of}(about={self.about!r}): expected three dimensions, got {self.dim}")

    @property
    def kept_axes(self) -> tuple[int, ...]:
        if self.about is None:
            return ()
        return (AXES.index(self.about),)

    @property
    def turned_axes(self) -> tuple[int, ...]:
        """The axes of space that are turned: all, or the two that are perpendicular to the axis `about`."""
        return turned_axes(self)

    @property
    def vector(self) -> Slot:
        """The linear part alone: velocities, forces, differences of points."""
        return Vector(self)

    @property
    def det(self) -> Slot:
        """The sign of the determinant: pseudoscalars, and with `vector` pseudovectors."""
        return Det(self)

    def irrep(self, l: int, parity: str | None = None) -> Slot:  # noqa: E741
        """The irreducible representation of degree l, in e3nn's order and basis: 2l + 1 entries for d = 3, 2 for d = 2.

        Args:
            l: degree, or angular frequency for d = 2.
            parity: of O(3) and E(3) "even" or "odd"; None is the natural (-1)^l. See `Irrep`.
        """
        from probsym.groups.representations import Irrep  # slots of this group

        return Irrep(self, l, parity)

    @property
    def rotation6d(self) -> Slot:
        """A rotation as the first two columns of its matrix, 6 entries (d = 3)."""
        from probsym.groups.representations import Rotation6d

        return Rotation6d(self)

    @property
    def quaternion(self) -> Slot:
        """A rotation as a quaternion (w, x, y, z), of either sign (d = 3, without reflections)."""
        from probsym.groups.representations import Quaternion

        return Quaternion(self)

    def linear(self, dim: int, matrix_of: Callable[[Tensor], Tensor]) -> Slot:
        """`dim` entries that are multiplied by matrix_of(R): (*shape, D, D) to (*shape, dim, dim). See `Linear`."""
        from probsym.groups.representations import Linear

        return Linear(self, dim, matrix_of)

    @property
    def noise_slots(self) -> tuple[Slot | None, ...]:
        return (self.vector, None)

    def draw_noise(self, shape: tuple[int, ...], **options: Any) -> Tensor:
        """D vectors (*shape, D, D), one per column."""
        return torch.randn(*shape, self.dim, self.dim, **options)

    def distance_to_identity(self, g: ElementT) -> Tensor:
        """|R - 1|^2 / (4 m) for m axes that are turned: d, or two about an axis. A translation does not count."""
        matrix = _matrix(g)
        trace = matrix.diagonal(dim1=-2, dim2=-1).sum(-1)
        return (self.dim - trace) / (2 * len(self.turned_axes))

    def violation(self, g: ElementT) -> Tensor:
        """|R^T R - 1|, |det R - 1| for rotations, |R u - u| about an axis u: the largest of each matrix."""
        matrix = _matrix(g).detach()
        one = torch.eye(self.dim, dtype=matrix.dtype, device=matrix.device)
        away = (matmul(matrix.mT, matrix) - one).abs().amax((-2, -1))
        if self.special:
            away = torch.maximum(away, (torch.linalg.det(wide(matrix)) - 1).abs())
        for axis in self.kept_axes:
            tilt = (matrix[..., axis] - one[axis]).abs().amax(-1)
            away = torch.maximum(away, tilt)
        return away

    def oriented(self, columns: Tensor, fallback: Tensor) -> Tensor:
        """The orthogonal matrix (*shape, D, D) of the columns (*shape, D, M); `fallback` fills what is missing."""
        if self.about is None:
            return orthonormalise(columns, fallback, self.special)
        # The axis is the first direction, so that the second and the third lie in the plane that is turned.
        whole = orthonormalise(self._axis_first(columns), fallback, self.special)
        return embedded(whole[..., list(self.turned_axes), 1:], self)

    def lacks_direction(self, columns: Tensor) -> Tensor:
        """Where `oriented` needs its fallback (*shape)."""
        if self.about is None:
            return lacks_columns(columns, self.special)
        return lacks_columns(self._axis_first(columns), self.special)

    def _axis_first(self, columns: Tensor) -> Tensor:
        """The axis `about`, and then the columns.

        It is as long as the largest coordinate of the columns, next to which rounding is judged.
        """
        columns = wide(columns)
        length = columns.new_ones(columns.shape[:-2])
        if columns.shape[-1]:
            largest = columns.detach().abs().amax((-2, -1))
            length = torch.where(largest > 0, largest, 1.0)
        axis = torch.eye(self.dim, dtype=columns.dtype, device=columns.device)[self.kept_axes[0]]
        return torch.cat([(axis * length.unsqueeze(-1)).unsqueeze(-1), columns], -1)

    def __repr__(self) -> str:
        name = "" if self.name is None else f", {self.name!r}"
        about = "" if self.about is None else f", about={self.about!r}"
        return f"{type(self).__name__}({self.dim}{name}{about})"


def _matrix(g: Any) -> Tensor:
    return g.matrix


@dataclass(frozen=True, repr=False)
class OrthogonalGroup(IsometryGroup[OrthogonalElement]):
    """Shared by O and SO: orthogonal matrices, of determinant one where `special`."""

    @property
    def defining(self) -> Slot:
        return Vector(self)

    @property
    def image(self) -> Slot:
        """Of SO(2) and O(2): rows and columns of an image, which turns about its centre. See `image_with`."""
        return self.image_with()

    def image_with(self, *, border: str = "zeros", mask: str | None = None) -> Slot:
        """Of SO(2) and O(2): rows and columns of an image, which turns about its centre.

        An element turns the image as it turns vectors with components (x right, y down). So optical flow (B, 2, H, W)
        is `Rep(space.vector, space.image)`, as it is `Rep(G.vector, G)` for C(n) and D(n). Pixels are interpolated.

        Args:
            border: what lies outside of the image: "zeros", "border" (the nearest pixel) or "reflection".
            mask: "disc" sets to zero what lies outside of the inscribed disc, before and after. Without it the corners
                leave the image, and what comes back from an average over angles has lost them. See `C`.

        Raises:
            TypeError: another dimension than 2. ValueError: an unknown border or mask.

        >>> SO(2, "plane").image, O(2).image_with(mask="disc")
        (SO(2, 'plane').image, O(2).image_with(mask='disc'))
        """
        return PlaneImage(self, border, mask)

    def identity(
        self,
        shape: tuple[int, ...] = (),
        *,
        n: Any = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> OrthogonalElement:
        one = torch.eye(self.dim, dtype=dtype, device=device)
        return OrthogonalElement(self, one.expand(*shape, self.dim, self.dim))

    def compose(self, g: OrthogonalElement, h: OrthogonalElement) -> OrthogonalElement:
        return OrthogonalElement(self, matmul(g.matrix, h.matrix))

    def inverse(self, g: OrthogonalElement) -> OrthogonalElement:
        return OrthogonalElement(self, g.matrix.mT)

    def project(self, z: Tensor, fallback: Tensor) -> OrthogonalElement:
        """Orthonormalise the columns of z (*shape, D, M); `fallback` (*shape, D, D) fills what is missing."""
        return OrthogonalElement(self, self.oriented(z, fallback))

    def degenerate(self, z: Tensor) -> Tensor:
        return self.lacks_direction(z)

    # On a line only signs are left: O(1) has two elements and SO(1) one.

    @property
    def finite(self) -> bool:
        return self.dim == 1

    @property
    def trivial(self) -> bool:
        return self.dim == 1 and self.special

    def order(self) -> int | None:
        if self.dim > 1:
            return None
        return 1 if self.special else 2

    def elements(self, device: torch.device | str | None = None) -> OrthogonalElement:
        if self.dim > 1:
            return super().elements(device)
        signs = torch.tensor([1.0, -1.0], device=device)
        return OrthogonalElement(self, signs[: self.order(), None, None])


@register
@dataclass(frozen=True, repr=False)
class O(OrthogonalGroup):  # noqa: E742
    """Rotations and reflections of d-space about the origin.

    >>> O(3, "space").vector
    O(3, 'space')
    """


@register
@dataclass(frozen=True, repr=False)
class SO(OrthogonalGroup):
    """Rotations of d-space about the origin, determinant one."""

    special = True


# ---------------------------------------------------------------- slots


@register
@dataclass(frozen=True, repr=False)
class Vector(Slot):
    """x -> R x along one axis of length D."""

    group: IsometryGroup
    role: ClassVar[str] = "vector"
    guards_precision: ClassVar[bool] = True

    @property
    def sizes(self) -> tuple[int | None, ...]:
        return (self.group.dim,)

    @property
    def isometric(self) -> bool:
        return True

    @property
    def requires_float(self) -> bool:
        return True

    def act(self, g: Any, x: Tensor, axis: int, shared_dims: int) -> Tensor:
        return rotate(g.matrix, x, axis, shared_dims)

    def __repr__(self) -> str:
        return repr(self.group) if self == self.group.defining else f"{self.group!r}.vector"


@register
@dataclass(frozen=True, repr=False)
class Det(Slot):
    """x -> det(R) x; takes no axis."""

    group: IsometryGroup
    num_axes: ClassVar[int] = 0
    suffix: ClassVar[str] = ".det"
    guards_precision: ClassVar[bool] = True

    def act(self, g: Any, x: Tensor, axis: int, shared_dims: int) -> Tensor:
        check_sign(x, self)
        sign = torch.linalg.det(wide(g.matrix.detach())).sign().to(x.dtype)
        return x * sign.reshape((*sign.shape, *[1] * (x.ndim - shared_dims)))


def turned_axes(space: Group) -> tuple[int, ...]:
    """The axes of space on which an isometric group acts, in an order that is right-handed with the one it keeps.

    >>> turned_axes(SO(3, about="y")), turned_axes(SO(2))
    ((2, 0), (0, 1))
    """
    dim: int = space.dim  # type: ignore[attr-defined]  # an isometric group has one
    kept = space.kept_axes
    if dim == 3 and len(kept) == 1:
        return ((kept[0] + 1) % 3, (kept[0] + 2) % 3)
    return tuple(axis for axis in range(dim) if axis not in kept)


def in_space(block: Tensor, space: Group) -> Tensor:
    """Columns (*shape, m, M) along the axes that an isometric group turns as columns of space (*shape, D, M)."""
    if not space.kept_axes:
        return block
    turned = turned_axes(space)
    zero = torch.zeros_like(block[..., :1, :])
    rows = [zero] * (len(turned) + len(space.kept_axes))
    for place, axis in enumerate(turned):
        rows[axis] = block[..., place : place + 1, :]
    return torch.cat(rows, -2)


def embedded(block: Tensor, space: Group) -> Tensor:
    """Matrices (*shape, D, D) that act by the block (*shape, m, m) on the axes that a group turns and keep the others.

    >>> embedded(torch.tensor([[0.0, -1.0], [1.0, 0.0]]), SO(3, about="z")).tolist()
    [[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
    """
    if not space.kept_axes:
        return block
    one = torch.eye(block.shape[-1] + len(space.kept_axes), dtype=block.dtype, device=block.device)
    columns = in_space(block, space)
    parts = [one[:, axis : axis + 1].expand(*columns.shape[:-1], 1) for axis in range(len(one))]
    for place, axis in enumerate(turned_axes(space)):
        parts[axis] = columns[..., place : place + 1]
    return torch.cat(parts, -1)


def rotate(matrix: Tensor, x: Tensor, axis: int, shared_dims: int) -> Tensor:
    """R x along `axis`, in the dtype of x.

    The matrix is (*L, D, D); the first `shared_dims` dims of x are a suffix of L.
    """

    dim, last = matrix.shape[-1], x.ndim - 1
    check_coordinates(x, axis, dim)
    # Rows of coordinates (*shared, M, D), for one product of matrices per batch entry.
    rows = x if axis == last else x.movedim(axis, -1)
    middle = rows.shape[shared_dims:-1]
    if len(middle) != 1:
        rows = rows.reshape(*x.shape[:shared_dims], math.prod(middle), dim)
    out = matmul(rows, matrix.mT).to(x.dtype)
    if len(middle) != 1:
        out = out.reshape(*matrix.shape[:-2], *middle, dim)
    return out if axis == last else out.movedim(-1, axis + matrix.ndim - 2 - shared_dims)


def check_coordinates(x: Tensor, axis: int, dim: int) -> None:
    """Refuse a tensor that has not `dim` coordinates of a floating dtype on an axis."""
    if x.shape[axis] != dim:
        raise ValueError(f"expected {dim} coordinates on axis {axis}, got a tensor of shape {tuple(x.shape)}")
    if not (x.is_floating_point() or x.is_complex()):
        raise TypeError(f"expected coordinates of a floating dtype on axis {axis}, got {x.dtype}")
