"""The Euclidean groups E(d) and SE(d): rotations about a moving origin."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from probsym.groups.base import Element, Group, Slot
from probsym.groups.orthogonal import IsometryGroup, check_coordinates, rotate
from probsym.kernels.precision import matmul, wide
from probsym.members import register


@dataclass(frozen=True, eq=False)
class Motion(Element):
    """x -> R (x - source) + target on points, x -> R x on vectors.

    Two origins rather than one translation: the inverse of a far away frame then loses no digits.

    Args:
        matrix: R (*shape, D, D), orthogonal.
        source, target: points (*shape, D); None is zero.
        shared: number of leading dims of `shape` along which neither origin varies, as among the samples of one input.
            Points that all samples share are then moved to it once.
    """

    matrix: Tensor
    source: Tensor | None = None
    target: Tensor | None = None
    shared: int = 0
    trailing_dims: ClassVar[dict[str, int]] = {"matrix": 2, "source": 1, "target": 1}

    @property
    def translation(self) -> Tensor:
        """t in x -> R x + t."""
        moved = _sum(self.target, _turned(self.matrix, _negative(self.source)))
        return self.matrix.new_zeros(self.matrix.shape[:-1]) if moved is None else moved

    @classmethod
    def to_origin(cls, group: Group, matrix: Tensor, origin: Tensor) -> Self:
        """x -> R x + origin for R (*shape, D, D); the dims of `shape` that the origin (B..., D) lacks share it."""
        shared = matrix.ndim - 1 - origin.ndim
        return cls(group, matrix, target=origin.to(matrix.dtype).expand(matrix.shape[:-1]), shared=shared)

    def map(self, fn: Callable[[Tensor, int], Tensor]) -> Self:
        # Nobody knows what fn does to the batch dims.
        return replace(super().map(fn), shared=0)

    def select(self, index: Any) -> Self:
        chosen = super().select(index)
        return replace(chosen, shared=self.shared) if isinstance(index, slice) else chosen

    def repeat(self, times: int) -> Self:
        return replace(super().repeat(times), shared=max(self.shared, 1))


@dataclass(frozen=True, repr=False)
class EuclideanGroup(IsometryGroup[Motion]):
    """Shared by E and SE: motions of d-space about an origin that moves with the points.

    They are `anchored`: features are pairs (origin (*shape, D), vectors (*shape, D, M)).
    """

    compact = False
    anchored = True

    @property
    def defining(self) -> Slot:
        return Point(self)

    def identity(
        self,
        shape: tuple[int, ...] = (),
        *,
        n: Any = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Motion:
        one = torch.eye(self.dim, dtype=dtype, device=device)
        return Motion(self, one.expand(*shape, self.dim, self.dim))

    def compose(self, g: Motion, h: Motion) -> Motion:
        # g h x = R_g (R_h (x - source_h) + target_h - source_g) + target_g
        matrix = matmul(g.matrix, h.matrix)
        between = _sum(h.target, _negative(g.source))
        target = _sum(g.target, _turned(g.matrix, between))
        shape = matrix.shape[:-1]
        # h without origins leaves those of g.
        kept = g.source is None and h.source is None and h.target is None and g.matrix.shape == matrix.shape
        shared = g.shared if kept else 0
        return Motion(self, matrix, _expanded(h.source, shape), _expanded(target, shape), shared)

    def inverse(self, g: Motion) -> Motion:
        return Motion(self, g.matrix.mT, g.target, g.source, g.shared)

    def project(self, z: tuple[Tensor, Tensor], fallback: Tensor) -> Motion:
        """z = (origin (*shape, D), vectors (*shape, D, M)): the frame of the vectors, put at the origin."""
        origin, vectors = z
        return Motion.to_origin(self, self.oriented(vectors, fallback), origin)

    def degenerate(self, z: tuple[Tensor, Tensor]) -> Tensor:
        _, vectors = z
        return self.lacks_direction(vectors)

    def haar(self, shape: tuple[int, ...] = (), **options: Any) -> Motion:
        raise ValueError(
            f"{self!r} is not compact and has no uniform distribution: use Haar({self!r}, origin='centroid'), "
            "which rotates uniformly about the centroid of the points"
        )


@register
@dataclass(frozen=True, repr=False)
class E(EuclideanGroup):
    """Rotations, reflections and translations of d-space; `vector` slots feel no translation.

    >>> E(3, "space"), E(3).vector
    (E(3, 'space'), E(3).vector)
    """


@register
@dataclass(frozen=True, repr=False)
class SE(EuclideanGroup):
    """Rotations and translations of d-space: the motions of a rigid body.

    Where gravity tells up from down, rotations about the vertical are left, and all translations:

    >>> SE(3, about="z"), SE(3, about="z").turned_axes
    (SE(3, about='z'), (0, 1))
    """

    special = True


# ---------------------------------------------------------------- slots


@register
@dataclass(frozen=True, repr=False)
class Point(Slot):
    """x -> R (x - source) + target along one axis of length D."""

    group: EuclideanGroup
    role: ClassVar[str] = "point"
    guards_precision: ClassVar[bool] = True

    @property
    def sizes(self) -> tuple[int | None, ...]:
        return (self.group.dim,)

    @property
    def differences(self) -> Slot:
        return self.group.vector

    @property
    def requires_float(self) -> bool:
        return True

    def act(self, g: Motion, x: Tensor, axis: int, shared_dims: int) -> Tensor:
        check_coordinates(x, axis, self.group.dim)
        dtype = x.dtype
        x = wide(x)  # once for the three steps: an origin rounded to half precision would move the points
        samples = g.matrix.ndim - 2 - shared_dims  # batch dims of g that x has not

        # 1. From the source. Where all samples share it, it is subtracted once.
        source = g.source
        if source is not None:
            if 0 < samples <= g.shared and source.numel():
                source = source[(0,) * samples]
            else:
                x = x.expand(*g.matrix.shape[:samples], *x.shape)
                axis, shared_dims = axis + samples, shared_dims + samples
            x = x - _aligned(source, axis, shared_dims, x.ndim).to(x.dtype)

        # 2. The rotation, and 3. to the target.
        y = rotate(g.matrix, x, axis, shared_dims)
        if g.target is not None:
            y = y + _aligned(g.target, axis + y.ndim - x.ndim, g.matrix.ndim - 2, y.ndim).to(x.dtype)
        return y.to(dtype)

    def __repr__(self) -> str:
        return repr(self.group)


def _aligned(origin: Tensor, axis: int, shared_dims: int, ndim: int) -> Tensor:
    """An origin (*L, D) as it broadcasts on a tensor of `ndim` dims: `shared_dims` of them in L, space at `axis`."""
    return origin.reshape(*origin.shape[:-1], *[1] * (axis - shared_dims), origin.shape[-1], *[1] * (ndim - axis - 1))


def _turned(matrix: Tensor, x: Tensor | None) -> Tensor | None:
    """R x; None is zero."""
    return None if x is None else matmul(matrix, x.unsqueeze(-1)).squeeze(-1)


def _sum(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    """a + b; None is zero."""
    if a is None:
        return b
    if b is None:
        return a
    return a + b


def _negative(x: Tensor | None) -> Tensor | None:
    """-x; None is zero."""
    return None if x is None else -x


def _expanded(x: Tensor | None, shape: tuple[int, ...]) -> Tensor | None:
    """x of a larger batch shape; None is zero."""
    return None if x is None else x.expand(shape)
