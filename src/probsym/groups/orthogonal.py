"""The orthogonal groups O(d) and SO(d), and the orthonormalisation that maps vectors to them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from probsym.groups.base import Element, Group, Slot


@dataclass(frozen=True, eq=False)
class Rotation(Element):
    """An orthogonal matrix (*shape, D, D), reflections included."""

    matrix: Tensor = torch.empty(0, 0)
    event: ClassVar[dict[str, int]] = {"matrix": 2}


@dataclass(frozen=True)
class LinearGroup(Group):
    """Shared by O, SO, E and SE: a dimension, a name, and the slots of the linear part."""

    dim: int
    name: str | None = None
    special: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not isinstance(self.dim, int) or isinstance(self.dim, bool) or self.dim < 1:
            raise ValueError(f"{type(self).__name__}(d): d must be an integer of at least 1, got {self.dim!r}")

    @property
    def vector(self) -> Slot:
        """The linear part alone: velocities, forces, differences of points."""
        return Vector(self)

    @property
    def det(self) -> Slot:
        """The sign of the determinant: pseudoscalars, and with `vector` pseudovectors."""
        return Det(self)

    @property
    def ambient(self) -> tuple[Slot | None, ...]:
        return (self.vector, None)

    def ambient_noise(self, shape: tuple[int, ...], layout: Any = None, **kwargs: Any) -> Tensor:
        return torch.randn(*shape, self.dim, self.dim, **kwargs)

    def __repr__(self) -> str:
        name = "" if self.name is None else f", {self.name!r}"
        return f"{type(self).__name__}({self.dim}{name})"


@dataclass(frozen=True, repr=False)
class O(LinearGroup):  # noqa: E742
    """Rotations and reflections of d-space about the origin.

    >>> O(3, "space").vector
    O(3, 'space')
    """

    @property
    def natural(self) -> Slot:
        return Vector(self)

    def identity(self, shape: tuple[int, ...] = (), **kwargs: Any) -> Element:
        kwargs.pop("n", None)
        return Rotation(self, torch.eye(self.dim, **kwargs).expand(*shape, self.dim, self.dim))

    @property
    def finite(self) -> bool:
        return self.dim == 1

    def order(self, layout: Any = None) -> int | None:
        return (1 if self.special else 2) if self.dim == 1 else None

    def elements(self, layout: Any = None, device: Any = None) -> Element:
        if self.dim > 1:
            return super().elements(layout, device)
        return Rotation(self, torch.tensor([1.0, -1.0], device=device)[: self.order(), None, None])

    def compose(self, g: Rotation, h: Rotation) -> Element:
        return Rotation(self, g.matrix @ h.matrix)

    def inverse(self, g: Rotation) -> Element:
        return Rotation(self, g.matrix.mT)

    def project(self, z: Tensor, tie: Tensor, layout: Any = None) -> Element:
        """Orthonormalise the columns of z (*shape, D, M); `tie` (*shape, D, D) fills what is missing."""
        return Rotation(self, orthonormalise(z, tie, self.special))

    def degenerate(self, z: Tensor, layout: Any = None) -> Tensor:
        return rank(z) < self.dim - self.special


@dataclass(frozen=True, repr=False)
class SO(O):
    """Rotations of d-space about the origin, determinant one."""

    special: ClassVar[bool] = True


@dataclass(frozen=True, repr=False)
class Vector(Slot):
    """x -> R x along one axis of length D."""

    group: LinearGroup

    @property
    def suffix(self) -> str:  # type: ignore[override]
        return "" if self == self.group.natural else ".vector"

    def act(self, g: Any, x: Tensor, axis: int, lead: int) -> Tensor:
        return rotate(g.matrix, x, axis, lead)

    def __repr__(self) -> str:
        return f"{self.group!r}{self.suffix}"


@dataclass(frozen=True, repr=False)
class Det(Slot):
    """x -> det(R) x; takes no axis."""

    group: LinearGroup
    width: ClassVar[int] = 0
    suffix: ClassVar[str] = ".det"

    def act(self, g: Any, x: Tensor, axis: int, lead: int) -> Tensor:
        sign = torch.linalg.det(g.matrix.detach()).sign().to(x.dtype)
        return x * sign.reshape(*sign.shape, *[1] * (x.ndim - lead))


def rotate(matrix: Tensor, x: Tensor, axis: int, lead: int) -> Tensor:
    """R x along `axis`; matrix (*L, D, D), and the first `lead` dims of x are a suffix of L. Keeps the dtype of x."""
    shape, dim = matrix.shape[:-2], matrix.shape[-1]
    if x.shape[axis] != dim:
        raise ValueError(f"expected {dim} coordinates on axis {axis}, got a tensor of shape {tuple(x.shape)}")
    rows = x.movedim(axis, -1)
    middle = rows.shape[lead:-1]
    rows = rows.reshape(*x.shape[:lead], math.prod(middle), dim)
    kind = torch.promote_types(x.dtype, matrix.dtype)
    out = (rows.to(kind) @ matrix.mT.to(kind)).to(x.dtype).reshape(*shape, *middle, dim)
    return out.movedim(-1, axis + len(shape) - lead)


def tolerance(dtype: torch.dtype) -> float:
    """Relative length below which a residual counts as rounding."""
    return 100 * torch.finfo(dtype).eps


def orthonormalise(z: Tensor, tie: Tensor, special: bool = False) -> Tensor:
    """Gram-Schmidt with re-orthogonalisation, in at least float32; missing directions come from `tie`.

    Columns of z that lie in the span of those before them are passed over, relative to the size of z, and replaced by
    the columns of tie. The last column is the complement of the others, up to the sign that z or tie gives it; for
    `special` it makes the determinant one. Covariant: orthonormalise(h z, h tie) = h orthonormalise(z, tie).

    Args:
        z: columns (*shape, D, M), of which the first D count; tie: (*shape, D, D).

    Returns: (*shape, D, D) with orthonormal columns; value and gradient are finite at every rank of z.

    >>> z = torch.tensor([[1.0, 1.0], [0.0, 1e-3]])                             # nearly collinear
    >>> Q = orthonormalise(z, torch.eye(2))
    >>> torch.allclose(Q.mT @ Q, torch.eye(2), atol=1e-6)
    True
    """
    z, tie = _scaled(wide(z)), wide(tie)
    z = z if z.shape[-1] else torch.zeros_like(tie[..., :1])
    dim, count = z.shape[-2], min(z.shape[-1], z.shape[-2] - 1)
    floor = z.detach().square().sum(-2).amax(-1, keepdim=True) * tolerance(z.dtype) ** 2
    basis: list[Tensor] = []
    found: list[Tensor] = []
    errors: list[Tensor] = []  # squared angle by which rounding may have turned each basis vector
    for j in range(dim - 1):
        column = _residual(z[..., j], basis) if j < count else torch.zeros_like(z[..., 0])
        square, noise = column.detach().square().sum(-1, keepdim=True), _noise(z, j, basis, errors, floor)
        found.append((square > noise) & (square > 0))
        errors.append(torch.where(found[j], noise / torch.where(found[j], square, 1.0), 0.0))
        basis.append(_unit(column, found[j]))
    for j in range(dim - 1):
        spare = _residual(tie[..., j], basis)
        basis[j] = torch.where(found[j], basis[j], _unit(spare, ~found[j]))
    last = z[..., dim - 1] if z.shape[-1] >= dim else torch.zeros_like(z[..., 0])
    noise = _noise(z, dim - 1, basis, errors, floor)
    return torch.stack([*basis, _completion(basis, last, tie[..., -1], noise, special)], -1)


def _noise(z: Tensor, j: int, basis: list[Tensor], errors: list[Tensor], floor: Tensor) -> Tensor:
    """Squared length that rounding may give the residual of column j: a small basis vector is an inaccurate one."""
    if j >= z.shape[-1]:
        return floor
    column = z[..., j].detach()
    return floor + sum(
        (u.detach() * column).sum(-1, keepdim=True).square() * error for u, error in zip(basis, errors, strict=True)
    )


def _completion(basis: list[Tensor], column: Tensor, tie: Tensor, floor: Tensor, special: bool) -> Tensor:
    """The unit vector orthogonal to d - 1 others: turned towards the column, else the tie, or so that det = 1."""
    normal = _normal(basis, column, tie)
    if special:
        return normal
    height = (normal * column).sum(-1, keepdim=True).detach()
    height = torch.where(height.square() > floor, height, (normal * tie).sum(-1, keepdim=True).detach())
    return torch.where(height < 0, -normal, normal)


def _normal(basis: list[Tensor], column: Tensor, tie: Tensor) -> Tensor:
    """The unit vector that completes d - 1 orthonormal ones to a basis of determinant one."""
    if not basis:
        return torch.ones_like(tie + column)
    if len(basis) == 1:
        return torch.stack([-basis[0][..., 1], basis[0][..., 0]], -1)
    if len(basis) == 2:
        return torch.linalg.cross(*torch.broadcast_tensors(*basis))
    spare = _residual(tie, basis)
    normal = _unit(spare, torch.ones_like(spare[..., :1], dtype=torch.bool))
    sign = torch.linalg.det(torch.stack([*torch.broadcast_tensors(*basis, normal)], -1).detach()).sign()
    return normal * sign.unsqueeze(-1)


def _residual(column: Tensor, basis: list[Tensor]) -> Tensor:
    """Remove the components along the basis, twice: once leaves an error of eps / |residual|."""
    for _ in range(2):
        for u in basis:
            column = column - u * (u * column).sum(-1, keepdim=True)
    return column


def _unit(column: Tensor, keep: Tensor) -> Tensor:
    """column / |column| where `keep`, else zero; the gradient is finite everywhere."""
    square = column.square().sum(-1, keepdim=True)
    return torch.where(keep, column * torch.where(keep, square, 1.0).rsqrt(), 0.0)


def _scaled(z: Tensor) -> Tensor:
    """z divided by its largest entry, so that the squares of tiny and huge clouds stay in range."""
    if not z.shape[-1]:
        return z
    size = z.detach().abs().amax((-2, -1), keepdim=True)
    return z / torch.where(size > 0, size, 1.0)


def wide(x: Tensor) -> Tensor:
    """x in at least float32."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def rank(z: Tensor) -> Tensor:
    """Number of independent columns of z (*shape, D, M), judged relative to its size."""
    singular = torch.linalg.svdvals(_scaled(wide(z.detach())))
    return (singular > tolerance(singular.dtype)).sum(-1)
