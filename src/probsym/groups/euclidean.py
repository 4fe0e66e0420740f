"""The Euclidean groups E(d) and SE(d): rotations about a moving origin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from probsym.groups.base import Element, Slot
from probsym.groups.orthogonal import LinearGroup, rotate
from probsym.groups.orthonormal import orthonormalise, rank


@dataclass(frozen=True, eq=False)
class Motion(Element):
    """x -> R (x - source) + target on points, x -> R x on vectors.

    Two origins rather than one translation: the inverse of a far away frame then loses no digits.

    Args:
        matrix: R (*shape, D, D), orthogonal.
        source, target: points (*shape, D).
    """

    matrix: Tensor = torch.empty(0, 0)
    source: Tensor = torch.empty(0)
    target: Tensor = torch.empty(0)
    event: ClassVar[dict[str, int]] = {"matrix": 2, "source": 1, "target": 1}

    @property
    def translation(self) -> Tensor:
        """t in x -> R x + t."""
        return self.target - (self.matrix @ self.source.unsqueeze(-1)).squeeze(-1)


@dataclass(frozen=True, repr=False)
class E(LinearGroup):
    """Rotations, reflections and translations of d-space; `vector` slots feel no translation.

    >>> E(3, "space"), E(3).vector
    (E(3, 'space'), E(3).vector)
    """

    @property
    def natural(self) -> Slot:
        return Point(self)

    def identity(self, shape: tuple[int, ...] = (), **kwargs: Any) -> Element:
        kwargs.pop("n", None)
        origin = torch.zeros(*shape, self.dim, **kwargs)
        return Motion(self, torch.eye(self.dim, **kwargs).expand(*shape, self.dim, self.dim), origin, origin)

    def compose(self, g: Motion, h: Motion) -> Element:
        shift = (g.matrix @ (h.target - g.source).unsqueeze(-1)).squeeze(-1)
        return Motion(self, g.matrix @ h.matrix, h.source.expand_as(shift), g.target + shift)

    def inverse(self, g: Motion) -> Element:
        return Motion(self, g.matrix.mT, g.target, g.source)

    def project(self, z: tuple[Tensor, Tensor], tie: Tensor, layout: Any = None) -> Element:
        """z = (origin (*shape, D), vectors (*shape, D, M)): the frame of the vectors, put at the origin."""
        origin, vectors = z
        matrix = orthonormalise(vectors, tie, self.special)
        origin = origin.to(matrix.dtype).expand(*matrix.shape[:-1])
        return Motion(self, matrix, torch.zeros_like(origin), origin)

    def degenerate(self, z: tuple[Tensor, Tensor], layout: Any = None) -> Tensor:
        return rank(z[1]) < self.dim - self.special

    def haar(self, shape: tuple[int, ...] = (), **kwargs: Any) -> Element:
        raise ValueError(
            f"{self!r} is not compact and has no uniform distribution: use Haar({self!r}, origin='centroid'), "
            "which rotates uniformly about the centroid of the points"
        )


@dataclass(frozen=True, repr=False)
class SE(E):
    """Rotations and translations of d-space: the motions of a rigid body."""

    special: ClassVar[bool] = True


@dataclass(frozen=True, repr=False)
class Point(Slot):
    """x -> R x + t along one axis of length D."""

    group: E

    def act(self, g: Motion, x: Tensor, axis: int, lead: int) -> Tensor:
        shape, source = g.matrix.shape[:-2], g.source

        def align(origin: Tensor, ndim: int, at: int) -> Tensor:
            *batch, dim = origin.shape
            return origin.reshape(*batch, *[1] * (at - len(batch)), dim, *[1] * (ndim - at - 1))

        extra = len(shape) - lead
        if x.shape[axis] != self.group.dim:
            raise ValueError(
                f"expected {self.group.dim} coordinates on axis {axis}, got a tensor of shape {tuple(x.shape)}"
            )
        if extra and source.numel() and not any(source.stride()[:extra]):
            source = source[(0,) * extra]  # all samples share their origin: it is subtracted once
        else:
            x, axis, lead = x.reshape(*[1] * extra, *x.shape), axis + extra, len(shape)
        turned = rotate(g.matrix, x - align(source, x.ndim, axis).to(x.dtype), axis, lead)
        return turned + align(g.target, turned.ndim, axis + len(shape) - lead).to(x.dtype)

    def __repr__(self) -> str:
        return repr(self.group)
