"""Independent signs of the entries of a vector: what eigenvectors leave open."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from probsym.groups.base import Element, Slot, check_sign
from probsym.groups.finite import FiniteGroup
from probsym.groups.permutation import LARGEST_LIST
from probsym.groups.whole import positive
from probsym.kernels.orthonormal import extent, tolerance
from probsym.kernels.precision import wide
from probsym.members import register


@dataclass(frozen=True, eq=False)
class SignElement(Element):
    """(g x)_i = signs_i x_i.

    Args:
        signs: integers 1 and -1 (*shape, D).
    """

    signs: Tensor
    trailing_dims: ClassVar[dict[str, int]] = {"signs": 1}


@register
@dataclass(frozen=True, repr=False)
class Signs(FiniteGroup[SignElement]):
    """The 2^d changes of sign of the d entries of one axis: eigenvectors, principal components.

    `Rep(nodes, Signs(d))` is d eigenvectors of a graph Laplacian, each up to its sign (arXiv 2202.13013).

    Args:
        dim: d.
        name: tells this group from others.

    Raises:
        ValueError: d below one.

    >>> from probsym.reps import Rep
    >>> g = Signs(3).project(torch.tensor([[0.3, -1.0, 2.0]]), torch.ones(1, 3))
    >>> Rep(Signs(3)).act(g, torch.tensor([[1.0, 2.0, 3.0]])).tolist()
    [[1.0, -2.0, 3.0]]
    """

    dim: int
    name: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "dim", positive("Signs(d)", self.dim))

    @property
    def defining(self) -> Slot:
        return Signed(self)

    def order(self) -> int:
        return 2**self.dim

    def elements(self, device: torch.device | str | None = None) -> SignElement:
        if self.order() > LARGEST_LIST:
            raise TypeError(f"the elements of {self!r} cannot be listed: more than {LARGEST_LIST}")
        return self.numbered(torch.arange(self.order(), device=device))

    def numbered(self, number: Tensor) -> SignElement:
        """The element whose i-th sign is negative where the i-th bit of the number is set."""
        bits = number.unsqueeze(-1) >> torch.arange(self.dim, device=number.device)
        return SignElement(self, 1 - 2 * (bits % 2))

    def number(self, g: SignElement) -> Tensor:
        weights = 1 << torch.arange(self.dim, device=g.signs.device)
        return ((g.signs < 0) * weights).sum(-1)

    def identity(
        self,
        shape: tuple[int, ...] = (),
        *,
        n: Any = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> SignElement:
        return SignElement(self, torch.ones(*shape, self.dim, dtype=torch.long, device=device))

    def compose(self, g: SignElement, h: SignElement) -> SignElement:
        return SignElement(self, g.signs * h.signs)

    def inverse(self, g: SignElement) -> SignElement:
        return g

    # Of d scores each decides one sign, instead of one score per element.

    @property
    def noise_slots(self) -> tuple[Slot | None, ...]:
        return (self.defining,)

    def project(self, z: Tensor, fallback: Tensor) -> SignElement:
        """The signs of z (*shape, D); `fallback` has them where z vanishes."""
        decided = torch.where(vanishing(z), fallback, z).detach()
        return SignElement(self, torch.where(decided < 0, -1, 1))

    def degenerate(self, z: Tensor) -> Tensor:
        return vanishing(z).any(-1)

    def distance_to_identity(self, g: SignElement) -> Tensor:
        """The share of signs that change."""
        return (g.signs < 0).to(torch.get_default_dtype()).mean(-1)

    def violation(self, g: SignElement) -> Tensor:
        """Zero if the signs are 1 and -1."""
        return (g.signs.abs() - 1).abs()

    def __repr__(self) -> str:
        name = "" if self.name is None else f", {self.name!r}"
        return f"Signs({self.dim}{name})"


def vanishing(z: Tensor) -> Tensor:
    """Entries that are zero up to rounding, relative to the largest."""
    z = wide(z.detach())
    return z.abs() <= tolerance(z.dtype) * extent(z)


@register
@dataclass(frozen=True, repr=False)
class Signed(Slot):
    """One entry per sign."""

    group: Signs
    guards_precision: ClassVar[bool] = True

    @property
    def sizes(self) -> tuple[int | None, ...]:
        return (self.group.dim,)

    def misfit(self, sizes: tuple[int, ...]) -> str | None:
        return None if sizes == self.sizes else f"{self.group.dim} entries"

    @property
    def requires_float(self) -> bool:
        return True  # unsigned integers and booleans have no negative

    def act(self, g: SignElement, x: Tensor, axis: int, shared_dims: int) -> Tensor:
        self.check(x, axis)
        check_sign(x, self)
        shape = (*g.shape, *[1] * (axis - shared_dims), self.group.dim, *[1] * (x.ndim - axis - 1))
        return g.signs.reshape(shape).to(x.dtype) * x
