"""The symmetric group S_n: elements are gather indices, never n x n matrices."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import permutations
from typing import Any, ClassVar

import torch
from torch import Tensor

from probsym.groups.base import Element, Group, Slot
from probsym.groups.whole import whole_number
from probsym.kernels.gathers import gather_nodes, inverse_index, stable_order
from probsym.kernels.orthonormal import extent, tolerance
from probsym.kernels.precision import wide
from probsym.kernels.values import may_peek
from probsym.members import register

LARGEST_LIST = math.factorial(8)


@dataclass(frozen=True, eq=False)
class Permutation(Element):
    """(g x)_i = x_{index_i}, so that point j moves to place reverse_j.

    Args:
        index: gather index (*shape, N).
        reverse: gather index of the inverse (*shape, N), where it is known already.
    """

    index: Tensor
    reverse: Tensor | None = None
    trailing_dims: ClassVar[dict[str, int]] = {"index": 1, "reverse": 1}

    @property
    def places(self) -> Tensor:
        """Where each point moves (*shape, N): the gather index of the inverse."""
        return inverse_index(self.index) if self.reverse is None else self.reverse

    def renumber(self, numbers: Tensor, shared_dims: int) -> Tensor:
        """g(i) for numbers i of points; negative numbers are padding and stay.

        Args:
            numbers: integers, whose first `shared_dims` dims are the last ones of the batch shape.
        """
        places = self.places
        shape, rest = places.shape[:-1], numbers.shape[shared_dims:]
        flat = numbers.reshape(*numbers.shape[:shared_dims], math.prod(rest)).expand(*shape, math.prod(rest))
        if not places.shape[-1]:  # no points, so that all numbers are padding
            return flat.reshape(*shape, *rest)
        moved = places.gather(-1, flat.clamp_min(0).long()).to(numbers.dtype)
        return torch.where(flat < 0, flat, moved).reshape(*shape, *rest)


@register
@dataclass(frozen=True)
class SymmetricGroup(Group):
    """All permutations of n points. As the group of a model it acts on a node axis, which is written `S`.

    Args:
        n: number of points, where the data does not tell it.
        name: tells this group from others.

    Raises:
        ValueError: n is not an integer of at least zero.

    >>> group = SymmetricGroup(3)
    >>> g = group.project(torch.tensor([0.3, -1.0, 2.0]), torch.zeros(3))
    >>> g.index.tolist(), (g @ g.inverse()).index.tolist(), group.order()
    ([1, 0, 2], [0, 1, 2], 6)
    """

    n: int | None = None
    name: str | None = None

    feature_kind: ClassVar[str] = "scores"

    def __post_init__(self) -> None:
        if self.n is not None:
            object.__setattr__(self, "n", whole_number("SymmetricGroup(n)", self.n, 0))

    @property
    def defining(self) -> Slot:
        return Points(self)

    @property
    def finite(self) -> bool:
        return True

    def order(self) -> int | None:
        return None if self.n is None else math.factorial(self.n)

    def elements(self, device: torch.device | str | None = None) -> Permutation:
        """All n! permutations, batch shape (n!,), in such an order that the first m! permute the first m points.

        Raises:
            TypeError: more than 8! of them.
        """
        order, n = self.order(), self.n
        if n is None or order is None or order > LARGEST_LIST:
            raise TypeError(
                f"the elements of {self!r} cannot be listed: more than {LARGEST_LIST}, or inputs of any size"
            )
        # In lexicographic order the first m! permute the last m points, so points and places are counted from the end.
        index = torch.tensor(list(permutations(range(n))), dtype=torch.long, device=device).reshape(order, n)
        return Permutation(self, (n - 1 - index).flip(-1))

    def identity(
        self,
        shape: tuple[int, ...] = (),
        *,
        n: int | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Permutation:
        size = self._size(n)
        return Permutation(self, torch.arange(size, device=device).expand(*shape, size))

    def compose(self, g: Permutation, h: Permutation) -> Permutation:
        first, second = torch.broadcast_tensors(h.index, g.index)
        return Permutation(self, first.gather(-1, second))

    def inverse(self, g: Permutation) -> Permutation:
        return Permutation(self, g.places, g.index)

    def project(self, z: Tensor, fallback: Tensor) -> Permutation:
        """The order of the scores z (*shape, N): g = rank, so that z = g sorted(z). `fallback` orders equal scores."""
        order = sort_order(*torch.broadcast_tensors(z, fallback))
        return Permutation(self, inverse_index(order), order)

    def degenerate(self, z: Tensor) -> Tensor:
        return has_equal(score_ranks(z))

    def violation(self, g: Permutation) -> Tensor:
        """Zero if the indices are a permutation."""
        places = torch.arange(g.index.shape[-1], device=g.index.device)
        return (g.index.sort(-1).values - places).abs()

    def draw_noise(self, shape: tuple[int, ...], **options: Any) -> Tensor:
        return torch.randn(*shape, self._size(None), **options)

    def _size(self, n: int | None) -> int:
        size = self.n if n is None else n
        if size is None:
            raise ValueError(f"{self!r} does not know its size: pass n=, or build it as SymmetricGroup(n)")
        return size


# ---------------------------------------------------------------- sorting


def sort_order(z: Tensor, fallback: Tensor, parts: Tensor | None = None, extents: Tensor | None = None) -> Tensor:
    """Indices (*shape, N) that sort points by (part, score z, fallback), lexicographically.

    Args:
        z: scores (*shape, N); those equal up to rounding count as equal, see `score_ranks`.
        fallback: (*shape, N).
        parts: number of the part of each point (N,) or (*shape, N), where points of different parts stay apart.
        extents: see `score_ranks`.
    """
    z = z.detach()
    # Most scores are clearly different: then one sort does, which needs a look at the values.
    if parts is None and z.shape[-1] and may_peek(z):
        ordered, order = wide(z).sort(-1)
        gap = ordered.diff(dim=-1)
        if not gap.numel():
            return order
        size = torch.linalg.vector_norm(ordered, torch.inf, -1, keepdim=True)
        if float(torch.sub(gap, size, alpha=tolerance(gap.dtype)).min()) > 0:
            return order
    # From the least important key to the most important, by sorts that leave equal entries in their order.
    order = stable_order(fallback.detach())
    ranks = score_ranks(z, parts, extents)
    return order.gather(-1, stable_order(ranks.gather(-1, order)))


def score_ranks(z: Tensor, parts: Tensor | None = None, extents: Tensor | None = None) -> Tensor:
    """Rank (*shape, N) of each score among the distinct ones, by (part, z), in at least float32.

    Neighbours in order share a rank if they differ by rounding only.

    Args:
        z: scores (*shape, N); -inf is allowed.
        parts: number of the part of each point; scores of different parts are never equal.
        extents: what rounding is relative to: the largest |score| of the part of each point, or of all points.
    """
    z = wide(z.detach())
    if extents is None:
        extents = extent(z) if z.shape[-1] else z[..., :0]
    ordered, order = z.sort(-1)
    if parts is not None:
        parts = parts.expand_as(z)
        order = order.gather(-1, stable_order(parts.gather(-1, order)))
        ordered = z.gather(-1, order)
    least_gap = tolerance(z.dtype) * extents
    if extents.shape[-1] > 1:
        least_gap = least_gap.expand_as(z).gather(-1, order)[..., 1:]
    step = ordered.diff(dim=-1) > least_gap
    if parts is not None:
        step = step | (parts.gather(-1, order).diff(dim=-1) > 0)
    rank = torch.nn.functional.pad(step.cumsum(-1, dtype=torch.long), (min(1, z.shape[-1]), 0))
    return torch.empty_like(order).scatter(-1, order, rank)  # vmap has no rule for the one in place


def has_equal(ranks: Tensor) -> Tensor:
    """Whether two of the integers (*shape, N) are equal: (*shape,)."""
    ordered = ranks.sort(-1).values
    return (ordered[..., 1:] == ordered[..., :-1]).any(-1)


# ---------------------------------------------------------------- slots


@register
@dataclass(frozen=True, repr=False)
class Points(Slot):
    """One entry per point: the entries are permuted."""

    group: SymmetricGroup
    guards_precision: ClassVar[bool] = True

    @property
    def sizes(self) -> tuple[int | None, ...]:
        return (self.group.n,)

    def act(self, g: Permutation, x: Tensor, axis: int, shared_dims: int) -> Tensor:
        return gather_nodes(x, g.index, axis, shared_dims)
