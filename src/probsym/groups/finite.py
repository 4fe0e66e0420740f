"""Finite groups: what follows from the list of the elements."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from probsym.groups.base import Element, ElementT, Group, Slot
from probsym.kernels.gathers import gather_nodes
from probsym.kernels.orthonormal import extent, tolerance
from probsym.kernels.precision import wide
from probsym.members import register


class FiniteGroup(Group[ElementT]):
    """A group whose elements can be listed: `elements`, `compose` and a slot (`defining`) are all that it needs.

    Everything else has a default: the order, identity and inverse, the `regular` slot with one entry per element, and
    `project`, which takes the element of the largest score. Groups with a formula for `inverse` or `number` give it:
    the defaults compare with all elements.

    >>> from probsym.groups.permutation import Permutation
    >>> from probsym.kernels.gathers import gather_nodes
    >>> @dataclass(frozen=True)
    ... class Mirrored(Slot):
    ...     sizes = (3,)
    ...     def act(self, g, x, axis, shared_dims):
    ...         return gather_nodes(x, g.index, axis, shared_dims)
    >>> @dataclass(frozen=True)
    ... class Mirror(FiniteGroup[Permutation]):                       # three entries, read forwards or backwards
    ...     name: str | None = None
    ...     @property
    ...     def defining(self):
    ...         return Mirrored(self)
    ...     def elements(self, device=None):
    ...         return Permutation(self, torch.tensor([[0, 1, 2], [2, 1, 0]], device=device))
    ...     def compose(self, g, h):
    ...         first, second = torch.broadcast_tensors(h.index, g.index)
    ...         return Permutation(self, first.gather(-1, second))
    >>> mirror = Mirror()
    >>> mirror.order(), mirror.elements().inverse().index.tolist()
    (2, [[0, 1, 2], [2, 1, 0]])
    >>> mirror.project(torch.tensor([0.1, 0.7]), torch.zeros(2)).index.tolist()
    [2, 1, 0]
    """

    feature_kind: ClassVar[str] = "elements"

    # ------------------------------------------------------------ the list

    @abstractmethod
    def elements(self, device: torch.device | str | None = None) -> ElementT:
        """All elements, batch shape (order,), the identity first."""

    @property
    def finite(self) -> bool:
        return True

    @property
    def trivial(self) -> bool:
        return self.order() == 1

    def order(self) -> int:
        return self.elements().shape[0]

    def numbered(self, number: Tensor) -> Any:
        """The elements with these places in the list (*shape)."""
        return self.elements(number.device).map(lambda tensor, _: tensor[number])

    def number(self, g: ElementT) -> Tensor:
        """The place of each element in the list (*shape); of floating tensors the nearest counts."""
        difference: Any = 0
        every = self.elements(next(iter(g.tensors.values())).device).tensors
        for name, tensor in g.tensors.items():
            if name not in every:
                continue
            trailing = g.trailing_dims[name]
            own = tensor.unsqueeze(tensor.ndim - trailing)
            away = (own.to(torch.float64) - every[name].to(torch.float64)).abs()
            difference = difference + away.flatten(away.ndim - trailing).sum(-1) if trailing else difference + away
        return difference.argmin(-1)

    # ------------------------------------------------------------ what follows from it

    def identity(
        self,
        shape: tuple[int, ...] = (),
        *,
        n: Any = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> ElementT:
        return self.numbered(torch.zeros(shape, dtype=torch.long, device=device))

    def inverse(self, g: ElementT) -> ElementT:
        every = self.elements(next(iter(g.tensors.values())).device)
        with_all = self.compose(g.map(lambda tensor, trailing: tensor.unsqueeze(tensor.ndim - trailing)), every)
        is_identity = self.number(with_all) == 0
        return self.numbered(is_identity.to(torch.uint8).argmax(-1))

    @property
    def regular(self) -> Slot:
        """An axis with one entry per element: the entries are permuted as the elements are by multiplication."""
        return Regular(self)

    @property
    def noise_slots(self) -> tuple[Slot | None, ...]:
        return (self.regular,)

    def project(self, z: Tensor, fallback: Tensor) -> ElementT:
        """The element with the largest score z (*shape, order); `fallback` decides between equals."""
        return self.numbered(strongest(z, fallback))

    def degenerate(self, z: Tensor) -> Tensor:
        return leading(z).sum(-1) > 1

    def distance_to_identity(self, g: ElementT) -> Tensor:
        """0 for the identity and 1 for all others."""
        return (self.number(g) != 0).to(torch.get_default_dtype())


def leading(z: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Entries that are largest along the last axis, up to rounding: that of z, or of a narrower dtype it comes from."""
    z = wide(z.detach())
    return z >= z.amax(-1, keepdim=True) - tolerance(dtype or z.dtype) * extent(z)


def strongest(z: Tensor, fallback: Tensor) -> Tensor:
    """Place of the largest entry along the last axis; of equal ones that with the largest fallback."""
    z, fallback = torch.broadcast_tensors(z, fallback)
    return fallback.detach().masked_fill(~leading(z), -math.inf).argmax(-1)


@register
@dataclass(frozen=True, repr=False)
class Regular(Slot):
    """One entry per element e: (g x)_e = x_{g^-1 e}."""

    group: FiniteGroup
    suffix: ClassVar[str] = ".regular"
    guards_precision: ClassVar[bool] = True

    @property
    def sizes(self) -> tuple[int | None, ...]:
        return (self.group.order(),)

    def misfit(self, sizes: tuple[int, ...]) -> str | None:
        return None if sizes == self.sizes else f"{self.group.order()} entries, one an element,"

    def act(self, g: Element, x: Tensor, axis: int, shared_dims: int) -> Tensor:
        self.check(x, axis)
        group = self.group
        every = group.elements(x.device)
        # An axis for e behind the batch dims of g.
        back = group.inverse(g).map(lambda tensor, trailing: tensor.unsqueeze(tensor.ndim - trailing))
        return gather_nodes(x, group.number(group.compose(back, every)), axis, shared_dims)
