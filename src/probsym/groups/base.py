"""Groups as structure, elements as data, slots as the ways in which a group acts on a tensor axis."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, NamedTuple, Self, TypeVar

import torch
from torch import Tensor

ElementT = TypeVar("ElementT", bound="Element")


class Group(ABC, Generic[ElementT]):
    """What a group is: a frozen, hashable description without tensors, equal by value.

    A group of one's own gives four members: `defining` (how it acts on an axis), `identity`, `compose` and `inverse`.
    With `project` it also has Haar, canonical and learned distributions. It is the covariant map from features to the
    group, and `degenerate` tells where it consults its noise `fallback`:

        project(h z, h fallback) = h project(z, fallback)                                  (docs/theory.md, eq. 4)

    A finite group is better a `FiniteGroup`, which has the rest from the list of its elements. What callers need to
    know of a group is a property with a default: `compact`, `finite`, `trivial`, `anchored`, `isometric`, `special`,
    `on_nodes`. The product of groups is written `G * H`. `probsym.testing.assert_group` checks all that is said here.

    Positive scalings x -> e^s x of a vector, which are not compact (an element, a slot, and the group):

    >>> @dataclass(frozen=True, eq=False)
    ... class Scale(Element):
    ...     log: Tensor                                             # s, of batch shape
    ...     trailing_dims = {"log": 0}
    >>> @dataclass(frozen=True)
    ... class Scaled(Slot):
    ...     def act(self, g, x, axis, shared_dims):
    ...         x = x.expand(*g.shape, *x.shape[shared_dims:])
    ...         return g.log.exp().reshape(*g.shape, *[1] * (x.ndim - len(g.shape))) * x
    >>> @dataclass(frozen=True)
    ... class Scalings(Group[Scale]):
    ...     name: str | None = None
    ...     compact = False
    ...     @property
    ...     def defining(self):
    ...         return Scaled(self)
    ...     def identity(self, shape=(), *, n=None, dtype=None, device=None):
    ...         return Scale(self, torch.zeros(shape, dtype=dtype, device=device))
    ...     def compose(self, g, h):
    ...         return Scale(self, g.log + h.log)
    ...     def inverse(self, g):
    ...         return Scale(self, -g.log)
    ...     def project(self, z, fallback):                         # the size of a vector z (*shape, D), never zero
    ...         return Scale(self, z.square().sum(-1).log() / 2)
    >>> from probsym.reps import Rep
    >>> g = Scalings().project(torch.tensor([3.0, 4.0]), torch.zeros(2))
    >>> Rep(Scalings()).act(g.inverse(), torch.tensor([3.0, 4.0]))
    tensor([0.6000, 0.8000])
    """

    name: str | None
    feature_kind: ClassVar[str] = "plain"
    """What `project` reads from its features, which decides how nets and noise treat them.

    "scores" (*shape, N): only their order matters (S). "columns" (*shape, D, M): only their span and orientation matter
    (O, SO, and the second part of E and SE). "elements" (*shape, order): one number an element, or fewer, of which the
    largest decides (finite groups). "plain": taken as they are.
    """

    # ------------------------------------------------------------ what it does

    @property
    @abstractmethod
    def defining(self) -> Slot:
        """The slot that the group itself stands for inside a `Rep`: its defining representation."""

    @abstractmethod
    def identity(
        self,
        shape: tuple[int, ...] = (),
        *,
        n: Any = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> ElementT:
        """The neutral element, repeated over the batch `shape`; `n` as in `haar`, which only node axes read."""

    @abstractmethod
    def compose(self, g: ElementT, h: ElementT) -> ElementT:
        """g h: first h acts, then g."""

    @abstractmethod
    def inverse(self, g: ElementT) -> ElementT:
        """The element that undoes g."""

    def project(self, z: Any, fallback: Any) -> ElementT:
        """Map features z equivariantly to a group element; the noise `fallback` decides wherever z is degenerate.

        Args:
            z: (*shape, and the axes of `noise_slots`); where the group is `anchored` a pair (origin, such features).
            fallback: (*shape, and the axes of `noise_slots`).
        """
        raise TypeError(f"{self!r} has no project(z, fallback): it cannot be drawn from features or from noise")

    def degenerate(self, z: Any) -> Tensor:
        """Where `project` consults its fallback; the batch shape of z. Nowhere, unless a group says otherwise."""
        axes = 0
        for slot in self.feature_slots:
            axes += 1 if slot is None else slot.num_axes
        features = z[1] if self.anchored else z
        return torch.zeros(features.shape[: features.ndim - axes], dtype=torch.bool, device=features.device)

    # ------------------------------------------------------------ what it is drawn from

    @property
    def noise_slots(self) -> tuple[Slot | None, ...]:
        """How the group acts on the axes of its noise, after the batch: standard normal noise is invariant under it."""
        return (self.defining,)

    @property
    def feature_slots(self) -> tuple[Slot | None, ...]:
        """The axes of the features z of `project`, after the batch; those of the noise unless a group says otherwise.

        They differ where no Gaussian noise moves with the group, as for a group that is not compact: its noise has
        `noise_slots` of None (the group leaves it alone), and its features are vectors that move.
        """
        return self.noise_slots

    def draw_noise(
        self,
        shape: tuple[int, ...],
        *,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Any:
        """Standard normal noise of batch shape `shape`, and the axes of `noise_slots`.

        `dtype` is the real precision; a complex group returns complex noise of that precision, of which, as
        `torch.randn` has it, the mean of |eps|^2 is one.
        """
        sizes = self._noise_sizes()
        # None is left out: with the keyword torch.compile cannot follow draws whose size is symbolic.
        options: dict[str, Any] = {} if generator is None else {"generator": generator}
        return torch.randn((*shape, *sizes), dtype=dtype, device=device, **options)

    def draw_features(self, shape: tuple[int, ...], **options: Any) -> Any:
        """Generic features z for the checkers; Gaussian noise unless a group has `feature_slots` of its own."""
        return self.draw_noise(shape, **options)

    @property
    def takes_noise(self) -> bool:
        """Whether `add_noise` makes features whose law moves with z: noise that moves as they do can be added."""
        return self.feature_slots == self.noise_slots

    def add_noise(self, z: Any, eps: Any, scale: float) -> Any:
        """Random features z + scale eps, for noise eps (*sample shape, *shape, ...) of `draw_noise`.

        `Learned` projects them. A group whose noise does not move as its features do may add it in another way, and
        then says `takes_noise`.
        """
        return torch.add(z, eps, alpha=scale)

    @property
    def moves_noise_with_features(self) -> bool:
        """Whether `move_noise` says how its noise moves, instead of `noise_slots` alone."""
        return False

    def move_noise(self, h: ElementT, z: Any, eps: Any) -> Any:
        """How h moves the noise eps (*sample shape, *shape, ...) beside features z (*shape, ...).

        For a group whose noise turns with a frame that the features determine, so that `noise_slots` cannot say it. It
        keeps the law of the noise, whatever z is, and project(h z, move_noise(h, z, eps)) = h project(z, eps).
        """
        raise TypeError(f"the noise of {self!r} moves as its noise_slots say")

    def _noise_sizes(self) -> tuple[int, ...]:
        """Sizes of the axes of the noise, as its slots tell them."""
        sizes: list[int] = []
        for slot in self.noise_slots:
            for size in (None,) if slot is None else slot.sizes:
                if size is None:
                    raise TypeError(f"{self!r}: the slots of its noise have no known `sizes`: give it a draw_noise")
                sizes.append(size)
        return tuple(sizes)

    def haar(
        self,
        shape: tuple[int, ...] = (),
        *,
        n: Any = None,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> ElementT:
        """Uniformly distributed elements, `project` of two draws of noise.

        Args:
            shape: batch shape of the elements.
            n: number of nodes of an axis that does not know its own, by factor for products; no other group reads it.

        Raises:
            ValueError: S_n of unknown size, or a group that is not compact and has no uniform distribution.

        >>> from probsym.groups import O
        >>> O(3).haar((2,), generator=torch.Generator().manual_seed(0)).matrix.shape
        torch.Size([2, 3, 3])
        """
        if not self.compact:
            raise ValueError(f"{self!r} is not compact and has no uniform distribution")
        z = self.draw_noise(tuple(shape), generator=generator, dtype=dtype, device=device)
        fallback = self.draw_noise(tuple(shape), generator=generator, dtype=dtype, device=device)
        return self.project(z, fallback)

    # ------------------------------------------------------------ what callers ask

    @property
    def factors(self) -> tuple[Group, ...]:
        """The groups of which it is the product; a single group is its own only factor."""
        return (self,)

    @property
    def compact(self) -> bool:
        """Whether it has a uniform (Haar) distribution. Translations and boosts, which go on forever, have none.

        A group that is not compact says so.
        """
        return True

    @property
    def finite(self) -> bool:
        """Whether it has finitely many elements."""
        return False

    @property
    def trivial(self) -> bool:
        """Whether it has one element only, whatever the data: there is nothing to average."""
        return False

    @property
    def anchored(self) -> bool:
        """Whether `project` takes (origin (*shape, D), features) and puts the element at the origin (E, SE)."""
        return False

    @property
    def isometric(self) -> bool:
        """Whether elements have an orthogonal `matrix`, which acts on the `vector` slot of a space of `dim` axes."""
        return False

    @property
    def special(self) -> bool:
        """Of an isometric group: whether the determinant of every matrix is one."""
        return False

    @property
    def kept_axes(self) -> tuple[int, ...]:
        """Of an isometric group: the axes of space along which no element moves a vector, such as the vertical."""
        return ()

    @property
    def on_nodes(self) -> bool:
        """Whether it acts on a node axis, whose layout (dense, padded, ragged) belongs to a call."""
        return False

    def order(self) -> int | None:
        """Number of elements; None if infinite, or if only data tells it."""
        return None

    def orders(self) -> Tensor | None:
        """Number of elements for each input (B,) of a batch in which they differ; None where they do not."""
        return None

    def elements(self, device: torch.device | str | None = None) -> ElementT:
        """All elements of a finite group, batch shape (order,), the identity first.

        Raises:
            TypeError: infinitely many, or more than can be listed.
        """
        raise TypeError(f"the elements of {self!r} cannot be listed")

    def distance_to_identity(self, g: ElementT) -> Tensor:
        """How far g is from the identity, in [0, 1]; batch shape of g.

        Raises:
            TypeError: the group has no distance.
        """
        raise TypeError(f"no distance is known for {self!r}")

    def violation(self, g: ElementT) -> Tensor | None:
        """How far g is from being an element of the group: a tensor that is zero up to rounding, for the checkers.

        An orthogonal group returns |R^T R - 1|, for instance. None, the default: there is nothing to check.
        """
        return None

    def join(self, *elements: Element) -> Element:
        """One element of this group from elements of its factors, or of products of them; later ones count.

        Their weights, where they have any, are multiplied.

        >>> from probsym.groups import O, SO
        >>> g = O(2).identity((3,))
        >>> (O(2) * SO(3)).join(g, SO(3).identity((3,)))[O(2)] is g
        True
        """
        joined = elements[-1]
        for element in elements[:-1]:
            joined = joined.weighted(element.weight)
        return joined

    # ------------------------------------------------------------ other slots, of the families that have them

    @property
    def vector(self) -> Slot:
        raise TypeError(f"{self!r} has no linear part: .vector is a slot of O, SO, E and SE, and of C and D")

    @property
    def det(self) -> Slot:
        raise TypeError(f"{self!r} has no determinant: .det is a slot of O, SO, E and SE, and of C and D")

    @property
    def point(self) -> Slot:
        raise TypeError(
            f"{self!r} has no points of an image: .point is a slot of C and D; E and SE themselves move points"
        )

    @property
    def image(self) -> Slot:
        raise TypeError(f"{self!r} turns no image: .image is a slot of C, D, SO(2) and O(2)")

    @property
    def conjugate(self) -> Slot:
        raise TypeError(f"{self!r} has no complex conjugate: .conjugate is a slot of U and SU")

    @property
    def labels(self) -> Slot:
        raise TypeError(f"{self!r} has no points to number: .labels is a slot of S and Axis")

    @property
    def edges(self) -> Slot:
        raise TypeError(f"{self!r} has no edges: .edges is a slot of S and Axis")

    @property
    def regular(self) -> Slot:
        raise TypeError(f"{self!r} has no finite list of elements: .regular is a slot of finite groups")

    def __mul__(self, other: Group) -> Group:
        if not isinstance(other, Group):
            return NotImplemented
        twice = set(self.factors) & set(other.factors)
        if twice:
            names = ", ".join(map(repr, twice))
            raise ValueError(f"{names} occurs twice in a product: give the two factors different names")
        from probsym.groups.product import product  # a product is itself a group

        return product((*self.factors, *other.factors))


def _refuse_former_names(cls: type, renamed: dict[str, str]) -> None:
    """Refuse a class that was written for the first edition: its attributes would be ignored without a word.

    Raises:
        TypeError: names the attribute and what it is called now.
    """
    for former, name in renamed.items():
        if former in vars(cls):
            raise TypeError(f"{cls.__name__}.{former}: this is called {name} now (see CHANGELOG.md, second edition)")


class Piece(NamedTuple):
    """A part of the axis of a slot, as axes of its own: what acts on each (None for nothing), and how long each is."""

    slots: tuple[Slot | None, ...]
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Slot(ABC):
    """One way in which a group acts on a tensor: on `num_axes` neighbouring axes (1, or 0 for scalars such as det).

    A slot of one's own gives `act`. It may also tell the sizes that it needs (`sizes`, or `misfit` where they depend on
    each other), so that wrong inputs are refused by name and checkers know what to send; whether it adds entries up
    (`requires_float`); and whether it acts on complex numbers (`is_complex`). It gets tensors and elements in one
    precision, float32 or wider, outside of autocast, and its result goes back to that of the tensor.
    `probsym.kernels.precision.matmul` is a product of matrices that TF32 does not narrow either.

    >>> class Pair(Slot):                            # two vectors, one after the other: 2 d entries
    ...     @property
    ...     def sizes(self):
    ...         return (2 * self.group.dim,)
    ...     def act(self, g, x, axis, shared_dims):
    ...         x = x.expand(*g.shape, *x.shape[shared_dims:])
    ...         return (x.unflatten(-1, (2, self.group.dim)) @ g.matrix.mT).flatten(-2)
    >>> from probsym.groups import SO
    >>> from probsym.reps import Rep
    >>> Rep(Pair(SO(3))).act(SO(3).haar((4,)), torch.randn(4, 6, dtype=torch.bfloat16)).dtype
    torch.bfloat16
    """

    group: Group
    num_axes: ClassVar[int] = 1
    suffix: ClassVar[str] = ""
    guards_precision: ClassVar[bool] = False  # whether `act` computes in at least float32 by itself, under autocast too

    is_complex: ClassVar[bool] = False  # whether its tensors are complex numbers
    role: ClassVar[str | None] = None  # what its entries are to nets: "nodes", "labels", "edges", "point" or "vector"

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        _refuse_former_names(cls, {"width": "num_axes", "mixes": "requires_float", "precise": "guards_precision"})

    @abstractmethod
    def act(self, g: Any, x: Tensor, axis: int, shared_dims: int) -> Tensor:
        """g x along `axis`, for g of batch shape L.

        The first `shared_dims` dims of x are a suffix of L. The result has all dims of L in front: samples that share x
        get one copy each.
        """

    @property
    def sizes(self) -> tuple[int | None, ...]:
        """Sizes of its `num_axes` axes; None for one of any size."""
        return (None,) * self.num_axes

    @property
    def requires_float(self) -> bool:
        """Whether new values come from several old ones, so that integers will not do; a default of infinite groups."""
        return not self.group.finite

    @property
    def isometric(self) -> bool:
        """Whether |g x| = |x|, so that Gaussian noise along its axes keeps its law; a default of compact groups."""
        return self.group.compact

    @property
    def interpolates(self) -> bool:
        """Whether (gh) x = g (h x) and e x = x hold only nearly, as where pixels are interpolated: no by default.

        Checkers of exact laws leave such a slot out.
        """
        return False

    @property
    def degree(self) -> int | None:
        """Degree of the action as a polynomial in the `matrix` of an isometric group; None where it is not known."""
        return 1 if self.role in ("point", "vector") else None

    @property
    def pieces(self) -> tuple[Piece, ...]:
        """What it consists of, one after the other on its axis, so that nets and frames see points and vectors in it.

        Empty, the default, where it is one thing.
        """
        return ()

    @property
    def no_average(self) -> str | None:
        """Why tensors of it have no average, with the way out, where sums of them do not move as they do; else None."""
        return None

    def representative(self, x: Tensor, axis: int) -> Tensor:
        """The tensor that the action returns for what x stands for; x itself unless several tensors stand for the same,
        as quaternions of both signs do. The first of its axes is `axis`."""
        return x

    @property
    def differences(self) -> Slot:
        """How the difference of two such tensors moves: as they do, except that points become vectors."""
        return self

    def misfit(self, sizes: tuple[int, ...]) -> str | None:
        """What is expected of the sizes of its axes, such as "size 3", if these do not fit; None: they do."""
        wanted = self.sizes
        if sizes == wanted:
            return None
        fits = len(sizes) == len(wanted)
        for size, known in zip(sizes, wanted, strict=False):
            if known is not None and size != known:
                fits = False
        if fits:
            return None
        return "size " + " x ".join("any" if size is None else str(size) for size in wanted)

    def check(self, x: Tensor, axis: int, name: str = "", of: str = "") -> None:
        """Refuse a tensor, called `name`, whose axes from `axis` on have the wrong sizes; `of` says where the slot is.

        Raises:
            ValueError: names the axes, what was expected and what came.
        """
        wanted = self.misfit(tuple(x.shape[axis : axis + self.num_axes]))
        if wanted is None:
            return
        start = f"{name}: " if name else ""
        where = f"axis {axis}" if self.num_axes == 1 else f"axes {axis} to {axis + self.num_axes - 1}"
        raise ValueError(f"{start}expected {wanted} on {where} for {self!r}{of}, got shape {tuple(x.shape)}")

    def __mul__(self, other: Slot | Group) -> Slot:
        """The tensor product on one axis: `space.vector * space.vector` has 9 entries in three dimensions."""
        if not isinstance(other, Slot | Group):
            return NotImplemented
        from probsym.groups.representations import TensorProduct  # products are slots themselves

        return TensorProduct(self.group, (self, other))  # type: ignore[arg-type]  # a group is its defining slot

    def __rmul__(self, other: Group) -> Slot:
        if not isinstance(other, Group):
            return NotImplemented
        from probsym.groups.representations import TensorProduct

        return TensorProduct(self.group, (other, self))  # type: ignore[arg-type]  # a group is its defining slot

    def __add__(self, other: Slot | Group | int) -> Slot:
        """The direct sum on one axis; a whole number stands for as many invariant entries."""
        if not isinstance(other, Slot | Group | int):
            return NotImplemented
        from probsym.groups.representations import DirectSum  # sums are slots themselves

        return DirectSum(self.group, (self, other))

    def __radd__(self, other: Group | int) -> Slot:
        if not isinstance(other, Group | int):
            return NotImplemented
        from probsym.groups.representations import DirectSum

        return DirectSum(self.group, (other, self))

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

    `g @ h` composes, `g.inverse()` inverts, `g[factor]` is the part of one factor. An element of one's own is a frozen
    dataclass with tensors as fields, and says in `trailing_dims` how many dims each has after the batch.
    """

    group: Group
    trailing_dims: ClassVar[Mapping[str, int]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        _refuse_former_names(cls, {"event": "trailing_dims"})

    @property
    def shape(self) -> tuple[int, ...]:
        """The batch dims."""
        name, trailing = next(iter(self.trailing_dims.items()))
        tensor = getattr(self, name)
        return tuple(tensor.shape[: tensor.ndim - trailing])

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The tensors that it consists of, by name."""
        present = {}
        for name in self.trailing_dims:
            tensor = getattr(self, name)
            if tensor is not None:
                present[name] = tensor
        return present

    def map(self, fn: Callable[[Tensor, int], Tensor]) -> Self:
        """Apply fn(tensor, number of trailing dims) to every tensor: reshape, index or move the batch dims."""
        changed: dict[str, Any] = {}
        for name, tensor in self.tensors.items():
            changed[name] = fn(tensor, self.trailing_dims[name])
        return dataclasses.replace(self, **changed)

    def select(self, index: Any) -> Self:
        """Index the first batch dim."""
        return self.map(lambda tensor, _: tensor[index])

    def repeat(self, times: int) -> Self:
        """The one element along the first batch dim, `times` times."""
        return self.map(lambda tensor, _: tensor.expand(times, *tensor.shape[1:]))

    @property
    def weight(self) -> Tensor | None:
        """What the samples g f(g^-1 x) are multiplied by, of batch shape; None for one."""
        return None

    def weighted(self, weight: Tensor | None) -> Element:
        """These elements with weights (*shape), beside those that they have: see `WeightedElement`."""
        if weight is None:
            return self
        from probsym.groups.weighted import WeightedElement  # which is itself an element

        return WeightedElement(self.group, self, weight)

    def inverse(self) -> Self:
        return self.group.inverse(self)

    def __matmul__(self, other: Element) -> Any:
        if not isinstance(other, Element):
            return NotImplemented
        if other.group != self.group:
            raise ValueError(f"cannot compose elements of {self.group!r} and {other.group!r}")
        product = self.group.compose(self[self.group], other[self.group])
        return product.weighted(self.weight).weighted(other.weight)

    def __getitem__(self, factor: Group) -> Element:
        if factor is not self.group and factor != self.group:
            raise KeyError(f"{factor!r} is not a factor of {self.group!r}")
        return self
