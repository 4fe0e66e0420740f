"""The orthogonal groups O(d) and SO(d): rotations and reflections about the origin."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from probsym.groups.base import Element, Group, Slot, check_sign
from probsym.groups.whole import positive
from probsym.kernels.orthonormal import lacks_columns, orthonormalise
from probsym.kernels.precision import matmul, wide
from probsym.members import register


@dataclass(frozen=True, eq=False)
class OrthogonalElement(Element):
    """An orthogonal matrix (*shape, D, D), reflections included."""

    matrix: Tensor = torch.empty(0, 0)
    trailing_dims: ClassVar[dict[str, int]] = {"matrix": 2}


@dataclass(frozen=True)
class IsometryGroup(Group):
    """Shared by O, SO, E and SE: a dimension, a name, and the slots of the linear part."""

    dim: int
    name: str | None = None
    special: ClassVar[bool] = False
    feature_kind: ClassVar[str] = "columns"

    def __post_init__(self) -> None:
        object.__setattr__(self, "dim", positive(f"{type(self).__name__}(d)", self.dim))

    @property
    def vector(self) -> Slot:
        """The linear part alone: velocities, forces, differences of points."""
        return Vector(self)

    @property
    def det(self) -> Slot:
        """The sign of the determinant: pseudoscalars, and with `vector` pseudovectors."""
        return Det(self)

    @property
    def noise_slots(self) -> tuple[Slot | None, ...]:
        return (self.vector, None)

    def draw_noise(self, shape: tuple[int, ...], layout: Any = None, **kwargs: Any) -> Tensor:
        return torch.randn(*shape, self.dim, self.dim, **kwargs)

    def violation(self, g: Any) -> Tensor:
        """|R^T R - 1|, and |det R - 1| for rotations: the largest of each matrix."""
        matrix = g.matrix.detach()
        unit = torch.eye(self.dim, dtype=matrix.dtype, device=matrix.device)
        gap = (matrix.mT @ matrix - unit).abs().amax((-2, -1))
        if self.special:
            gap = torch.maximum(gap, (torch.linalg.det(matrix) - 1).abs())
        return gap

    def __repr__(self) -> str:
        name = "" if self.name is None else f", {self.name!r}"
        return f"{type(self).__name__}({self.dim}{name})"


@register
@dataclass(frozen=True, repr=False)
class O(IsometryGroup):  # noqa: E742
    """Rotations and reflections of d-space about the origin.

    >>> O(3, "space").vector
    O(3, 'space')
    """

    @property
    def defining(self) -> Slot:
        return Vector(self)

    def identity(self, shape: tuple[int, ...] = (), **kwargs: Any) -> Element:
        kwargs.pop("n", None)
        return OrthogonalElement(self, torch.eye(self.dim, **kwargs).expand(*shape, self.dim, self.dim))

    @property
    def finite(self) -> bool:
        return self.dim == 1

    def order(self, layout: Any = None) -> int | None:
        return (1 if self.special else 2) if self.dim == 1 else None

    def elements(self, layout: Any = None, device: Any = None) -> Element:
        if self.dim > 1:
            return super().elements(layout, device)
        return OrthogonalElement(self, torch.tensor([1.0, -1.0], device=device)[: self.order(), None, None])

    def compose(self, g: OrthogonalElement, h: OrthogonalElement) -> Element:
        return OrthogonalElement(self, matmul(g.matrix, h.matrix))

    def inverse(self, g: OrthogonalElement) -> Element:
        return OrthogonalElement(self, g.matrix.mT)

    def project(self, z: Tensor, fallback: Tensor, layout: Any = None) -> Element:
        """Orthonormalise the columns of z (*shape, D, M); `fallback` (*shape, D, D) fills what is missing."""
        return OrthogonalElement(self, orthonormalise(z, fallback, self.special))

    def degenerate(self, z: Tensor, layout: Any = None) -> Tensor:
        return lacks_columns(z, self.special)


@register
@dataclass(frozen=True, repr=False)
class SO(O):
    """Rotations of d-space about the origin, determinant one."""

    special: ClassVar[bool] = True


@register
@dataclass(frozen=True, repr=False)
class Vector(Slot):
    """x -> R x along one axis of length D."""

    group: IsometryGroup
    precise: ClassVar[bool] = True
    role: ClassVar[str] = "vector"

    @property
    def suffix(self) -> str:  # type: ignore[override]
        return "" if self == self.group.defining else ".vector"

    @property
    def sizes(self) -> tuple[int | None, ...]:
        return (self.group.dim,)

    @property
    def isometric(self) -> bool:
        return True

    @property
    def requires_float(self) -> bool:
        return True

    def act(self, g: Any, x: Tensor, axis: int, lead: int) -> Tensor:
        return rotate(g.matrix, x, axis, lead)

    def __repr__(self) -> str:
        return f"{self.group!r}{self.suffix}"


@register
@dataclass(frozen=True, repr=False)
class Det(Slot):
    """x -> det(R) x; takes no axis."""

    group: IsometryGroup
    num_axes: ClassVar[int] = 0
    suffix: ClassVar[str] = ".det"
    precise: ClassVar[bool] = True

    def act(self, g: Any, x: Tensor, axis: int, lead: int) -> Tensor:
        check_sign(x, self)
        sign = torch.linalg.det(wide(g.matrix.detach())).sign().to(x.dtype)
        return x * sign.reshape(*sign.shape, *[1] * (x.ndim - lead))


def rotate(matrix: Tensor, x: Tensor, axis: int, lead: int) -> Tensor:
    """R x along `axis`; matrix (*L, D, D), and the first `lead` dims of x are a suffix of L. Keeps the dtype of x."""
    dim, last = matrix.shape[-1], x.ndim - 1
    check_coordinates(x, axis, dim)
    rows = x if axis == last else x.movedim(axis, -1)
    middle = rows.shape[lead:-1]
    if len(middle) != 1:
        rows = rows.reshape(*x.shape[:lead], math.prod(middle), dim)
    out = matmul(rows, matrix.mT).to(x.dtype)
    if len(middle) != 1:
        out = out.reshape(*matrix.shape[:-2], *middle, dim)
    return out if axis == last else out.movedim(-1, axis + matrix.ndim - 2 - lead)


def check_coordinates(x: Tensor, axis: int, dim: int) -> None:
    if x.shape[axis] != dim:
        raise ValueError(f"expected {dim} coordinates on axis {axis}, got a tensor of shape {tuple(x.shape)}")
    if not (x.is_floating_point() or x.is_complex()):
        raise TypeError(f"expected coordinates of a floating dtype on axis {axis}, got {x.dtype}")
