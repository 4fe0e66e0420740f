"""Direct products of groups that act on different axes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from probsym.groups.base import Element, Group, Slot
from probsym.members import register


@register
@dataclass(frozen=True)
class Product(Group["ProductElement"]):
    """The direct product of groups that act on different axes, flattened; build it with `G * H`.

    Features, noise and sizes `n` are dicts by factor.
    """

    parts: tuple[Group, ...]
    name: str | None = None

    @property
    def factors(self) -> tuple[Group, ...]:
        return self.parts

    @property
    def defining(self) -> Slot:
        raise TypeError(f"{self!r} is a product: put its factors into the Rep, one an axis")

    @property
    def noise_slots(self) -> tuple[Slot | None, ...]:
        raise TypeError(f"{self!r} is a product: every factor has noise of its own")

    def join(self, *elements: Element) -> Any:
        parts: dict[Group, Element] = {}
        for element in elements:
            for factor in element.group.factors:
                parts[factor] = element[factor]
        joined: Element = ProductElement(self, {factor: parts[factor] for factor in self.parts})
        for element in elements:
            joined = joined.weighted(element.weight)
        return joined

    def identity(self, shape: tuple[int, ...] = (), *, n: Any = None, **options: Any) -> ProductElement:
        return self.join(*(f.identity(shape, **_size_of(n, f), **options) for f in self.parts))

    def compose(self, g: ProductElement, h: ProductElement) -> ProductElement:
        return ProductElement(self, {f: g[f] @ h[f] for f in self.parts})

    def inverse(self, g: ProductElement) -> ProductElement:
        return ProductElement(self, {f: g[f].inverse() for f in self.parts})

    def project(self, z: Mapping[Group, Any], fallback: Mapping[Group, Any]) -> ProductElement:
        return self.join(*(f.project(z[f], fallback[f]) for f in self.parts))

    def degenerate(self, z: Mapping[Group, Any]) -> Tensor:
        flags = [f.degenerate(z[f]) for f in self.parts]
        return torch.stack(torch.broadcast_tensors(*flags)).any(0)

    def draw_noise(self, shape: tuple[int, ...], **options: Any) -> dict[Group, Any]:
        return {f: f.draw_noise(shape, **options) for f in self.parts}

    def haar(self, shape: tuple[int, ...] = (), *, n: Any = None, **options: Any) -> ProductElement:
        return self.join(*(f.haar(shape, **_size_of(n, f), **options) for f in self.parts))

    @property
    def compact(self) -> bool:
        return all(f.compact for f in self.parts)

    @property
    def finite(self) -> bool:
        return all(f.finite for f in self.parts)

    @property
    def trivial(self) -> bool:
        return all(f.trivial for f in self.parts)

    def order(self) -> int | None:
        total = 1
        for factor in self.parts:
            order = factor.order()
            if order is None:
                return None
            total *= order
        return total

    def elements(self, device: torch.device | str | None = None) -> ProductElement:
        """All combinations of the elements of the factors, the last factor running fastest."""
        lists = {f: f.elements(device) for f in self.parts}
        numbers = torch.arange(math.prod(g.shape[0] for g in lists.values()), device=device)
        parts: dict[Group, Element] = {}
        for factor in reversed(self.parts):
            every = lists[factor]
            parts[factor] = every.select(numbers % every.shape[0])
            numbers = numbers // every.shape[0]
        return self.join(*parts.values())

    def distance_to_identity(self, g: ProductElement) -> Tensor:
        """The sum over the factors, those that move nothing left out."""
        parts = [f.distance_to_identity(g[f]) for f in self.parts if not f.trivial]
        if not parts:
            return torch.zeros(g.shape)
        return torch.stack(torch.broadcast_tensors(*parts)).sum(0)

    def __repr__(self) -> str:
        return " * ".join(map(repr, self.parts)) or "Product(())"


@dataclass(frozen=True, eq=False)
class ProductElement(Element):
    """One element per factor; all share the batch shape. `Product.join` makes it."""

    parts: Mapping[Group, Element]

    @property
    def shape(self) -> tuple[int, ...]:
        for part in self.parts.values():
            return part.shape
        return ()

    def map(self, fn: Callable[[Tensor, int], Tensor]) -> Self:
        return dataclasses.replace(self, parts={f: part.map(fn) for f, part in self.parts.items()})

    def select(self, index: Any) -> Self:
        return dataclasses.replace(self, parts={f: part.select(index) for f, part in self.parts.items()})

    def repeat(self, times: int) -> Self:
        return dataclasses.replace(self, parts={f: part.repeat(times) for f, part in self.parts.items()})

    def __getitem__(self, factor: Group) -> Element:
        part = self.parts.get(factor)
        if part is not None:
            return part
        if factor == self.group:
            return self
        raise KeyError(f"{factor!r} is not a factor of {self.group!r}")


def product(factors: Iterable[Group]) -> Group:
    """The product of distinct factors, in a canonical order, so that G * H == H * G.

    >>> from probsym.groups import SO, O, product
    >>> product([SO(2), O(3), SO(2)]) == O(3) * SO(2)
    True
    """
    distinct = {f for group in factors for f in group.factors}
    ordered = tuple(sorted(distinct, key=repr))
    return ordered[0] if len(ordered) == 1 else Product(ordered)


def _size_of(n: Any, factor: Group) -> dict[str, Any]:
    """The keyword `n` for one factor, of a size for all or of a mapping by factor; only node axes take it."""
    if not factor.on_nodes:
        return {}
    return {"n": n.get(factor) if isinstance(n, Mapping) else n}
