"""Groups as structure, elements as data, slots as the ways in which a group acts on a tensor axis."""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from probsym.members import register


class Group(ABC):
    """What a group is: a frozen, hashable description without tensors, equal by value.

    A family implements the five verbs of the design: `identity`, `compose`, `inverse`, its slots (`act`) and
    `project`, the covariant map from features to the group,

        project(h z, h fallback) = h project(z, fallback)                                  (docs/theory.md, eq. 4)

    The product of groups is written `G * H`.
    """

    name: str | None
    feature_kind: ClassVar[str] = "plain"
    """What `project` reads from its features, which decides how nets and noise treat them.

    "scores" (*shape, N): only their order matters (S). "columns" (*shape, D, M): only their span and orientation matter
    (O, SO, and the second part of E and SE). "plain": taken as they are.
    """

    @property
    def factors(self) -> tuple[Group, ...]:
        """The irreducible factors; a single group is its own only factor."""
        return (self,)

    @property
    @abstractmethod
    def defining(self) -> Slot:
        """The slot that the group itself stands for inside a `Rep`."""

    @property
    @abstractmethod
    def noise_slots(self) -> tuple[Slot | None, ...]:
        """The axes of the noise from which `project` makes a Haar element, after the batch."""

    @property
    def feature_slots(self) -> tuple[Slot | None, ...]:
        """The axes of the features z of `project`, after the batch; those of the noise unless a group says otherwise.

        They differ where no Gaussian noise moves with the group, as for a group that is not compact: its noise has
        `noise_slots` of None (the group leaves it alone), and its features are vectors that move.
        """
        return self.noise_slots

    @property
    def compact(self) -> bool:
        """Whether the group has a uniform (Haar) distribution. Translations and boosts, which go on forever, have none.

        A group that is not compact says so.
        """
        return True

    @property
    def anchored(self) -> bool:
        """Whether `project` takes (origin (*shape, D), features) and puts the element at the origin (E, SE)."""
        return False

    @property
    def trivial(self) -> bool:
        """Whether the group has one element only, whatever the data."""
        return False

    def violation(self, g: Any) -> Tensor | None:
        """How far g is from being an element of the group: a tensor that is zero up to rounding, for the checkers.

        An orthogonal group returns |R^T R - 1|, for instance. None, the default: there is nothing to check.
        """
        return None

    @abstractmethod
    def identity(self, shape: tuple[int, ...] = (), **kwargs: Any) -> Element:
        """The neutral element, repeated over the batch `shape`."""

    @abstractmethod
    def compose(self, g: Any, h: Any) -> Element:
        """g h: first h acts, then g."""

    @abstractmethod
    def inverse(self, g: Any) -> Element:
        """The element that undoes g."""

    @abstractmethod
    def project(self, z: Any, fallback: Any, layout: Any = None) -> Element:
        """Map features z equivariantly to a group element; the noise `fallback` decides wherever z is degenerate."""

    @abstractmethod
    def degenerate(self, z: Any, layout: Any = None) -> Tensor:
        """True where `project` has to consult its fallback noise; the batch shape of z."""

    @abstractmethod
    def draw_noise(self, shape: tuple[int, ...], layout: Any = None, **kwargs: Any) -> Tensor:
        """Standard normal noise of shape `shape` and the axes `noise_slots`.

        `dtype` is the real precision; a complex group returns complex noise of that precision.
        """

    def draw_features(self, shape: tuple[int, ...], layout: Any = None, **kwargs: Any) -> Tensor:
        """Generic features z for the checkers; Gaussian noise unless a group has `feature_slots` of its own."""
        return self.draw_noise(shape, layout, **kwargs)

    def haar(
        self,
        shape: tuple[int, ...] = (),
        *,
        n: int | Mapping[Group, int] | None = None,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Element:
        """Uniformly distributed elements, `project` of two Gaussian draws.

        Args:
            shape: batch shape of the elements.
            n: number of points of S_n where neither its size nor data tell it; for products a mapping by factor.

        Raises:
            ValueError: S_n of unknown size, or a group without a uniform distribution.

        >>> from probsym.groups import O
        >>> O(3).haar((2,), generator=torch.Generator().manual_seed(0)).matrix.shape
        torch.Size([2, 3, 3])
        """
        layout = self.layout(n)
        draw = {"generator": generator, "dtype": dtype, "device": device}
        z, fallback = (self.draw_noise(tuple(shape), layout, **draw) for _ in range(2))
        return self.project(z, fallback, layout)

    def join(self, *elements: Element) -> Element:
        """One element of this group from elements of its factors, or of products of them; later ones count.

        >>> from probsym.groups import O, S
        >>> g = O(2).identity((3,))
        >>> (O(2) * S(4)).join(g, S(4).identity((3,)))[O(2)] is g
        True
        """
        return elements[-1]

    def layout(self, n: Any = None) -> Any:
        """How the axes of the group are stored; None for groups whose size is fixed."""
        return None

    @property
    def finite(self) -> bool:
        """Whether the group has finitely many elements."""
        return False

    def order(self, layout: Any = None) -> int | None:
        """Number of elements, for the largest input of a batch where they differ; None if infinite or unknown."""
        return None

    def orders(self, layout: Any = None) -> Tensor | None:
        """Number of elements for each input (B,) of a batch in which they differ; None where they do not."""
        return None

    def elements(self, layout: Any = None, device: torch.device | str | None = None) -> Element:
        """All elements of a finite group, batch shape (order,), the identity first.

        Where `orders` differ the batch shape is (order, B): the first are those of an input, identities follow.

        Raises:
            TypeError: infinitely many, or more than can be listed.
        """
        raise TypeError(f"the elements of {self!r} cannot be listed")

    @property
    def vector(self) -> Slot:
        raise TypeError(f"{self!r} has no linear part: .vector is a slot of O, SO, E and SE")

    @property
    def det(self) -> Slot:
        raise TypeError(f"{self!r} has no determinant: .det is a slot of O, SO, E and SE")

    @property
    def labels(self) -> Slot:
        raise TypeError(f"{self!r} has no points to number: .labels is a slot of S and Axis")

    @property
    def edges(self) -> Slot:
        raise TypeError(f"{self!r} has no edges: .edges is a slot of S and Axis")

    @property
    def regular(self) -> Slot:
        raise TypeError(f"{self!r} has no finite list of elements: .regular is a slot of C and D")

    def __mul__(self, other: Group) -> Group:
        if not isinstance(other, Group):
            return NotImplemented
        twice = set(self.factors) & set(other.factors)
        if twice:
            names = ", ".join(map(repr, twice))
            raise ValueError(f"{names} occurs twice in a product: give the two factors different names")
        return product((*self.factors, *other.factors))


@dataclass(frozen=True)
class Slot(ABC):
    """One way in which a group acts on a tensor: `num_axes` axes are consumed (1, or 0 for scalars such as det).

    A slot of one's own gives `act`. It may also tell the sizes that it needs (`sizes`, or `misfit` where they depend on
    each other), so that wrong inputs are refused by name and checkers know what to send; whether it adds entries up
    (`requires_float`); and whether it acts on complex numbers (`is_complex`).

    `act` gets tensors and elements in one dtype, float32 or wider, outside of autocast, and its result goes back to
    that of the tensor. `probsym.kernels.precision.matmul` is a product of matrices that TF32 does not narrow either.

    >>> class Pair(Slot):                            # two vectors, one after the other: 2 d entries
    ...     def act(self, g, x, axis, lead):
    ...         x = x.expand(*g.shape, *x.shape[lead:])
    ...         return (x.unflatten(-1, (2, self.group.dim)) @ g.matrix.mT).flatten(-2)
    ...     @property
    ...     def sizes(self):
    ...         return (2 * self.group.dim,)
    >>> from probsym.groups import SO
    >>> from probsym.reps import Rep
    >>> Rep(Pair(SO(3))).act(SO(3).haar((4,)), torch.randn(4, 6, dtype=torch.bfloat16)).dtype
    torch.bfloat16
    """

    group: Group
    num_axes: ClassVar[int] = 1
    suffix: ClassVar[str] = ""
    precise: ClassVar[bool] = False  # whether `act` itself sees to it that neither half precision nor autocast narrows
    is_complex: ClassVar[bool] = False  # whether its tensors are complex numbers
    role: ClassVar[str | None] = None  # what its entries are to nets: "nodes", "labels", "edges", "point" or "vector"

    @abstractmethod
    def act(self, g: Any, x: Tensor, axis: int, lead: int) -> Tensor:
        """g x along `axis`, for g of batch shape L; the first `lead` dims of x are a suffix of L, the rest is added."""

    @property
    def requires_float(self) -> bool:
        """Whether new values come from several old ones, so that integers will not do; a default of infinite groups."""
        return not self.group.finite

    @property
    def sizes(self) -> tuple[int | None, ...]:
        """Sizes of its `num_axes` axes; None for one of any size."""
        return (None,) * self.num_axes

    @property
    def isometric(self) -> bool:
        """Whether |g x| = |x|, so that Gaussian noise along its axes keeps its law; a default of compact groups."""
        return self.group.compact

    @property
    def differences(self) -> Slot:
        """How the difference of two such tensors moves: as they do, except that points become vectors."""
        return self

    def misfit(self, sizes: tuple[int, ...]) -> str | None:
        """The sizes expected on its `num_axes` axes, such as "size 3", if these do not fit; None if they do."""
        fits = all(wanted is None or wanted == found for wanted, found in zip(self.sizes, sizes, strict=True))
        return None if fits else "size " + " x ".join("any" if n is None else str(n) for n in self.sizes)

    def check(self, x: Tensor, axis: int, name: str = "", of: str = "") -> None:
        """Refuse a tensor, called `name`, whose axes from `axis` on have the wrong sizes; `of` says where the slot is.

        Raises:
            ValueError: names the axes, what was expected and what came.
        """
        wanted = self.misfit(tuple(x.shape[axis : axis + self.num_axes]))
        if wanted is not None:
            start = f"{name}: " if name else ""
            where = f"axis {axis}" if self.num_axes == 1 else f"axes {axis} to {axis + self.num_axes - 1}"
            raise ValueError(f"{start}expected {wanted} on {where} for {self!r}{of}, got shape {tuple(x.shape)}")

    def __repr__(self) -> str:
        return f"{self.group!r}{self.suffix}"


UNSIGNED = (torch.bool, torch.uint8, torch.uint16, torch.uint32, torch.uint64)


def check_sign(x: Tensor, slot: Slot) -> None:
    """Refuse numbers whose sign cannot change."""
    if x.dtype in UNSIGNED:
        raise TypeError(f"expected numbers with a sign for {slot!r}, got {x.dtype}")


@dataclass(frozen=True, eq=False)
class Element(ABC):
    """Group elements as data: tensors with the leading batch dims `shape`.

    `g @ h` composes, `g.inverse()` inverts, `g[factor]` is the part of one factor.
    """

    group: Group
    trailing_dims: ClassVar[Mapping[str, int]] = {}

    @property
    def shape(self) -> tuple[int, ...]:
        name, trailing = next(iter(self.trailing_dims.items()))
        tensor = getattr(self, name)
        return tuple(tensor.shape[: tensor.ndim - trailing])

    def map(self, fn: Callable[[Tensor, int], Tensor]) -> Element:
        """Apply fn(tensor, number of trailing dims) to every tensor: reshape, index or move the batch dims."""
        present = {name: getattr(self, name) for name in self.trailing_dims if getattr(self, name) is not None}
        changed = {name: fn(tensor, self.trailing_dims[name]) for name, tensor in present.items()}
        return dataclasses.replace(self, **changed)  # type: ignore[arg-type]

    def select(self, index: Any) -> Element:
        """Index the first batch dim."""
        return self.map(lambda tensor, _: tensor[index])

    def inverse(self) -> Element:
        return self.group.inverse(self)

    def __matmul__(self, other: Element) -> Element:
        if not isinstance(other, Element):
            return NotImplemented
        if other.group != self.group:
            raise ValueError(f"cannot compose elements of {self.group!r} and {other.group!r}")
        return self.group.compose(self, other)

    def __getitem__(self, factor: Group) -> Element:
        if factor is not self.group and factor != self.group:
            raise KeyError(f"{factor!r} is not a factor of {self.group!r}")
        return self


@register
@dataclass(frozen=True)
class Product(Group):
    """The direct product of groups that act on different axes, flattened; build it with `G * H`."""

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

    def identity(self, shape: tuple[int, ...] = (), **kwargs: Any) -> Element:
        n = kwargs.pop("n", None)
        parts = {f: f.identity(shape, n=_size_of(n, f), **kwargs) for f in self.parts}
        return ProductElement(self, parts)

    def compose(self, g: ProductElement, h: ProductElement) -> Element:
        return ProductElement(self, {f: g[f] @ h[f] for f in self.parts})

    def inverse(self, g: ProductElement) -> Element:
        return ProductElement(self, {f: g[f].inverse() for f in self.parts})

    def project(self, z: Mapping[Group, Any], fallback: Mapping[Group, Any], layout: Any = None) -> Element:
        layout = layout or {}
        return ProductElement(self, {f: f.project(z[f], fallback[f], layout.get(f)) for f in self.parts})

    def join(self, *elements: Element) -> Element:
        parts = {}
        for element in elements:
            for factor in element.group.factors:
                parts[factor] = element[factor]
        return ProductElement(self, {factor: parts[factor] for factor in self.parts})

    def haar(self, shape: tuple[int, ...] = (), *, n: Any = None, **kwargs: Any) -> Element:
        return ProductElement(self, {f: f.haar(shape, n=_size_of(n, f), **kwargs) for f in self.parts})

    def degenerate(self, z: Mapping[Group, Any], layout: Any = None) -> Tensor:
        layout = layout or {}
        flags = [f.degenerate(z[f], layout.get(f)) for f in self.parts]
        return torch.stack(torch.broadcast_tensors(*flags)).any(0)

    def draw_noise(self, shape: tuple[int, ...], layout: Any = None, **kwargs: Any) -> Any:
        layout = layout or {}
        return {f: f.draw_noise(shape, layout.get(f), **kwargs) for f in self.parts}

    @property
    def finite(self) -> bool:
        return all(f.finite for f in self.parts)

    @property
    def compact(self) -> bool:
        return all(f.compact for f in self.parts)

    @property
    def trivial(self) -> bool:
        return all(f.trivial for f in self.parts)

    def order(self, layout: Any = None) -> int | None:
        orders = [f.order((layout or {}).get(f)) for f in self.parts]
        return None if None in orders else math.prod(orders)  # type: ignore[arg-type]

    def elements(self, layout: Any = None, device: torch.device | str | None = None) -> Element:
        """All combinations of the elements of the factors, the last factor running fastest."""
        lists = [f.elements((layout or {}).get(f), device) for f in self.parts]
        numbers = torch.arange(math.prod(g.shape[0] for g in lists), device=device)
        parts = {}
        for f, g in reversed(list(zip(self.parts, lists, strict=True))):
            parts[f] = g.select(numbers % g.shape[0])
            numbers = numbers // g.shape[0]
        return ProductElement(self, parts)

    def layout(self, n: Any = None) -> dict[Group, Any]:
        return {f: f.layout(_size_of(n, f)) for f in self.parts}

    def __repr__(self) -> str:
        return " * ".join(map(repr, self.parts)) or "Product(())"


@dataclass(frozen=True, eq=False)
class ProductElement(Element):
    """One element a factor; all share the batch shape."""

    parts: dict[Group, Element] = dataclasses.field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, ...]:
        return next((part.shape for part in self.parts.values()), ())

    def map(self, fn: Callable[[Tensor, int], Tensor]) -> Element:
        return ProductElement(self.group, {f: part.map(fn) for f, part in self.parts.items()})

    def __getitem__(self, factor: Group) -> Element:
        part = self.parts.get(factor)
        if part is not None:
            return part
        if factor == self.group:
            return self
        raise KeyError(f"{factor!r} is not a factor of {self.group!r}")


def product(factors: Iterable[Group]) -> Group:
    """The product of distinct factors, in a canonical order, so that G * H == H * G.

    >>> from probsym.groups import O, S, product
    >>> product([S("nodes"), O(3), S("nodes")]) == O(3) * S("nodes")
    True
    """
    distinct = {f for group in factors for f in group.factors}
    ordered = tuple(sorted(distinct, key=repr))
    return ordered[0] if len(ordered) == 1 else Product(ordered)


def _size_of(n: Any, factor: Group) -> Any:
    return n.get(factor) if isinstance(n, Mapping) else n
