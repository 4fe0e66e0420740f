"""The Euclidean groups E(d) and SE(d): rotations about a moving origin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from probsym.groups.base import Element, Slot
from probsym.groups.orthogonal import IsometryGroup, check_coordinates, rotate
from probsym.kernels.orthonormal import lacks_columns, orthonormalise
from probsym.kernels.precision import matmul, wide
from probsym.members import register


@dataclass(frozen=True, eq=False)
class Motion(Element):
    """x -> R (x - source) + target on points, x -> R x on vectors.

    Two origins rather than one translation: the inverse of a far away frame then loses no digits.

    Args:
        matrix: R (*shape, D, D), orthogonal.
        source, target: points (*shape, D); None is zero.
    """

    matrix: Tensor = torch.empty(0, 0)
    source: Tensor | None = None
    target: Tensor | None = None
    trailing_dims: ClassVar[dict[str, int]] = {"matrix": 2, "source": 1, "target": 1}

    @property
    def translation(self) -> Tensor:
        """t in x -> R x + t."""
        moved = _sum(self.target, _turned(self.matrix, None if self.source is None else -self.source))
        return self.matrix.new_zeros(self.matrix.shape[:-1]) if moved is None else moved


@register
@dataclass(frozen=True, repr=False)
class E(IsometryGroup):
    """Rotations, reflections and translations of d-space; `vector` slots feel no translation.

    >>> E(3, "space"), E(3).vector
    (E(3, 'space'), E(3).vector)
    """

    @property
    def defining(self) -> Slot:
        return Point(self)

    @property
    def compact(self) -> bool:
        return False

    @property
    def anchored(self) -> bool:
        return True

    def identity(self, shape: tuple[int, ...] = (), **kwargs: Any) -> Element:
        kwargs.pop("n", None)
        return Motion(self, torch.eye(self.dim, **kwargs).expand(*shape, self.dim, self.dim))

    def compose(self, g: Motion, h: Motion) -> Element:
        matrix = matmul(g.matrix, h.matrix)
        between = _sum(h.target, None if g.source is None else -g.source)
        origins = (h.source, _sum(g.target, _turned(g.matrix, between)))
        return Motion(self, matrix, *(t if t is None else t.expand(matrix.shape[:-1]) for t in origins))

    def inverse(self, g: Motion) -> Element:
        return Motion(self, g.matrix.mT, g.target, g.source)

    def project(self, z: tuple[Tensor, Tensor], fallback: Tensor, layout: Any = None) -> Element:
        """z = (origin (*shape, D), vectors (*shape, D, M)): the frame of the vectors, put at the origin."""
        origin, vectors = z
        matrix = orthonormalise(vectors, fallback, self.special)
        origin = origin.to(matrix.dtype).expand(*matrix.shape[:-1])
        return Motion(self, matrix, target=origin)

    def degenerate(self, z: tuple[Tensor, Tensor], layout: Any = None) -> Tensor:
        return lacks_columns(z[1], self.special)

    def haar(self, shape: tuple[int, ...] = (), **kwargs: Any) -> Element:
        raise ValueError(
            f"{self!r} is not compact and has no uniform distribution: use Haar({self!r}, origin='centroid'), "
            "which rotates uniformly about the centroid of the points"
        )


@register
@dataclass(frozen=True, repr=False)
class SE(E):
    """Rotations and translations of d-space: the motions of a rigid body."""

    special: ClassVar[bool] = True


@register
@dataclass(frozen=True, repr=False)
class Point(Slot):
    """x -> R x + t along one axis of length D."""

    group: E
    precise: ClassVar[bool] = True
    role: ClassVar[str] = "point"

    @property
    def sizes(self) -> tuple[int | None, ...]:
        return (self.group.dim,)

    @property
    def differences(self) -> Slot:
        return self.group.vector

    @property
    def requires_float(self) -> bool:
        return True

    def act(self, g: Motion, x: Tensor, axis: int, lead: int) -> Tensor:
        extra, source, kind = g.matrix.ndim - 2 - lead, g.source, x.dtype
        check_coordinates(x, axis, self.group.dim)
        x = wide(x)  # once for the three steps: an origin rounded to half precision would move the points
        if source is not None and extra and source.numel() and not any(source.stride()[:extra]):
            source = source[(0,) * extra]  # all samples share their origin: it is subtracted once
        elif source is not None:
            x, axis, lead = x.expand(*g.matrix.shape[:extra], *x.shape), axis + extra, lead + extra
        if source is not None:
            x = x - _aligned(source, axis, lead, x.ndim).to(x.dtype)
        y = rotate(g.matrix, x, axis, lead)
        if g.target is None:
            return y.to(kind)
        y = y + _aligned(g.target, axis + y.ndim - x.ndim, g.matrix.ndim - 2, y.ndim).to(x.dtype)
        return y.to(kind)

    def __repr__(self) -> str:
        return repr(self.group)


def _aligned(origin: Tensor, axis: int, lead: int, ndim: int) -> Tensor:
    """An origin (*L, D), shaped to broadcast on a tensor of `ndim` dims, `lead` of them in L, with space at `axis`."""
    return origin.reshape(*origin.shape[:-1], *[1] * (axis - lead), origin.shape[-1], *[1] * (ndim - axis - 1))


def _turned(matrix: Tensor, x: Tensor | None) -> Tensor | None:
    """R x; None is zero."""
    return None if x is None else matmul(matrix, x.unsqueeze(-1)).squeeze(-1)


def _sum(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    """a + b; None is zero."""
    return b if a is None else a if b is None else a + b
