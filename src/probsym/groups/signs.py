"""Independent signs of the entries of a vector: what eigenvectors leave open."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from probsym.groups.base import Element, Group, Slot, check_sign
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

    signs: Tensor = torch.empty(0)
    trailing_dims: ClassVar[dict[str, int]] = {"signs": 1}


@register
@dataclass(frozen=True, repr=False)
class Signs(Group):
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

    @property
    def noise_slots(self) -> tuple[Slot | None, ...]:
        return (self.defining,)

    @property
    def finite(self) -> bool:
        return True

    def order(self, layout: Any = None) -> int:
        return 2**self.dim

    def elements(self, layout: Any = None, device: Any = None) -> Element:
        if self.order() > LARGEST_LIST:
            raise TypeError(f"the elements of {self!r} cannot be listed: more than {LARGEST_LIST}")
        bits = torch.arange(self.order(), device=device)[:, None] >> torch.arange(self.dim, device=device)
        return SignElement(self, 1 - 2 * (bits % 2))

    def identity(self, shape: tuple[int, ...] = (), **kwargs: Any) -> Element:
        return SignElement(self, torch.ones(*shape, self.dim, dtype=torch.long, device=kwargs.get("device")))

    def violation(self, g: Any) -> Tensor:
        """Zero if the signs are 1 and -1."""
        return (g.signs.abs() - 1).abs()

    def compose(self, g: SignElement, h: SignElement) -> Element:
        return SignElement(self, g.signs * h.signs)

    def inverse(self, g: SignElement) -> Element:
        return g

    def project(self, z: Tensor, fallback: Tensor, layout: Any = None) -> Element:
        """The signs of z (*shape, D); `fallback` has them where z vanishes."""
        return SignElement(self, torch.where(torch.where(vanishing(z), fallback, z).detach() < 0, -1, 1))

    def degenerate(self, z: Tensor, layout: Any = None) -> Tensor:
        return vanishing(z).any(-1)

    def draw_noise(self, shape: tuple[int, ...], layout: Any = None, **kwargs: Any) -> Tensor:
        return torch.randn(*shape, self.dim, **kwargs)

    def __repr__(self) -> str:
        return f"Signs({self.dim}{'' if self.name is None else f', {self.name!r}'})"


def vanishing(z: Tensor) -> Tensor:
    """Entries that are zero up to rounding, relative to the largest."""
    z = wide(z.detach())
    return z.abs() <= tolerance(z.dtype) * extent(z)


@register
@dataclass(frozen=True, repr=False)
class Signed(Slot):
    """One entry a sign."""

    group: Signs
    precise: ClassVar[bool] = True

    @property
    def sizes(self) -> tuple[int | None, ...]:
        return (self.group.dim,)

    def misfit(self, sizes: tuple[int, ...]) -> str | None:
        return None if sizes == self.sizes else f"{self.group.dim} entries"

    @property
    def requires_float(self) -> bool:
        return True  # unsigned integers and booleans have no negative

    def act(self, g: SignElement, x: Tensor, axis: int, lead: int) -> Tensor:
        self.check(x, axis)
        check_sign(x, self)
        shape = (*g.shape, *[1] * (axis - lead), self.group.dim, *[1] * (x.ndim - axis - 1))
        return g.signs.reshape(shape).to(x.dtype) * x
