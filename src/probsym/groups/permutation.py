"""The symmetric group S_n: elements are gather indices, never n x n matrices."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import permutations
from typing import Any, ClassVar

import torch
from torch import Tensor

from probsym.groups.axis import Axis, Layout, NodeAxis, NodeElement
from probsym.groups.base import Element, Slot
from probsym.groups.whole import whole_number
from probsym.kernels.gathers import gather_nodes, gather_pairs, inverse_index, stable_order
from probsym.kernels.orthonormal import extent, tolerance
from probsym.kernels.precision import wide
from probsym.kernels.straight_through import AttachNodes, AttachPairs, attach_nodes_reference
from probsym.kernels.values import apply_or, differentiated, may_peek
from probsym.members import register

LARGEST_LIST = math.factorial(8)


@dataclass(frozen=True, eq=False)
class Permutation(NodeElement):
    """(g x)_i = x_{index_i}; each graph of a ragged batch is permuted within itself.

    Args:
        index: gather index (*shape, N), in a ragged batch (*sample shape, sum N).
        relaxed: straight-through token (*shape, N, N) of the soft matrix P with (g x)_i = sum_j P_ij x_j. It is zero;
            only its derivatives exist. In a ragged batch N is the width of the padded graphs.
        reverse: the index of the inverse, where it is known already.
    """

    index: Tensor = torch.empty(0)
    relaxed: Tensor | None = None
    reverse: Tensor | None = None
    trailing_dims: ClassVar[dict[str, int]] = {"index": 1, "relaxed": 2, "reverse": 1}

    @property
    def shape(self) -> tuple[int, ...]:
        shape = tuple(self.index.shape[:-1])
        return (*shape, self.layout.count) if self.layout.ragged else shape

    def permute(self, x: Tensor, axis: int, lead: int) -> Tensor:
        moved = gather_nodes(x, self.index, axis, lead)
        return _attach(moved, x.detach(), self, axis, lead) if self._learns(x) else moved

    def permute_pairs(self, x: Tensor, axis: int, lead: int) -> Tensor:
        n, learns = self.index.shape[-1], self._learns(x)
        if x.shape[axis : axis + 2] != (n, n) or (learns and (axis > lead or self.layout.ragged)):
            return super().permute_pairs(x, axis, lead)
        moved = gather_pairs(x, self.index, axis, lead)
        if not learns:
            return moved
        place = inverse_index(self.index) if self.reverse is None else self.reverse
        one_by_one = super().permute_pairs
        return apply_or(
            AttachPairs, lambda *_: one_by_one(x, axis, lead), moved, x.detach(), self.relaxed, place, self.layout
        )

    def _learns(self, x: Tensor) -> bool:
        return self.relaxed is not None and x.is_floating_point() and differentiated(self.relaxed)

    def relabel(self, labels: Tensor, lead: int) -> Tensor:
        place = inverse_index(self.index) if self.reverse is None else self.reverse
        shape, rest = place.shape[:-1], labels.shape[lead:]
        flat = labels.reshape(*labels.shape[:lead], math.prod(rest)).expand(*shape, math.prod(rest))
        moved = place.gather(-1, flat.clamp_min(0).long()).to(labels.dtype) if place.shape[-1] else flat
        return torch.where(flat < 0, flat, moved).reshape(*shape, *rest)


@register
@dataclass(frozen=True, repr=False)
class S(NodeAxis):
    """The symmetric group on a node axis; its size is read from the data unless given.

    Args:
        name: name of the axis, or the number of nodes.

    >>> S("nodes", mask="mask")
    S('nodes', mask='mask')
    >>> g = S(3).project(torch.tensor([0.3, -1.0, 2.0]), torch.zeros(3))   # the pose g 0 of scores is sorted
    >>> g.index.tolist(), g.inverse().index.tolist()
    ([1, 0, 2], [1, 0, 2])
    """

    feature_kind: ClassVar[str] = "scores"

    def __post_init__(self) -> None:
        if self.name is not None and not isinstance(self.name, str):
            object.__setattr__(self, "size", whole_number("S(n)", self.name, 0))
            object.__setattr__(self, "name", None)
        super().__post_init__()

    @property
    def noise_slots(self) -> tuple[Slot | None, ...]:
        return (self.defining,)

    @property
    def finite(self) -> bool:
        return True

    def violation(self, g: Any) -> Tensor:
        """Zero if the indices are a permutation."""
        places = torch.arange(g.index.shape[-1], device=g.index.device)
        return (g.index.sort(-1).values - places).abs()

    def order(self, layout: Any = None) -> int | None:
        if layout is None and self.size is None:
            return None
        return math.factorial(self.layout(layout).largest)

    def orders(self, layout: Any = None) -> Tensor | None:
        layout = self.layout(layout)
        if not layout.uneven:
            return None
        sizes = layout.sizes
        return torch.tensor([math.factorial(n) for n in range(layout.largest + 1)], device=sizes.device)[sizes]

    def elements(self, layout: Any = None, device: Any = None) -> Element:
        order = self.order(layout)
        if order is None or order > LARGEST_LIST:
            raise TypeError(
                f"the elements of {self!r} cannot be listed: more than {LARGEST_LIST}, or inputs of any size"
            )
        layout = self.layout(layout)
        n, orders = layout.largest, self.orders(layout)
        index = torch.tensor(list(permutations(range(n))), dtype=torch.long, device=device).reshape(order, n)
        index = (n - 1 - index).flip(-1)  # the first m! permute the first m nodes
        index = torch.cat([index, torch.arange(n, layout.padded_size, device=device).expand(order, -1)], -1)
        if orders is None:
            return Permutation(self, layout, index)
        own = torch.arange(order, device=device)[:, None, None] < orders[:, None]
        index = torch.where(own, index[:, None], torch.arange(layout.padded_size, device=device))
        if not layout.ragged:
            return Permutation(self, layout, index)
        rank = layout.unpad(index, 1).double()
        return self.project(rank, torch.zeros_like(rank), layout)

    def identity(self, shape: tuple[int, ...] = (), **kwargs: Any) -> Element:
        layout = self.layout(kwargs.get("n"))
        shape = shape[:-1] if layout.ragged else shape
        index = torch.arange(layout.size, device=kwargs.get("device"))
        return Permutation(self, layout, index.expand(*shape, layout.size))

    def compose(self, g: Permutation, h: Permutation) -> Element:
        first, second = torch.broadcast_tensors(h.index, g.index)
        relaxed = g.relaxed if g.relaxed is None or h.relaxed is not None else _moved_token(g, h, first.shape)
        return Permutation(self, g.layout, first.gather(-1, second), relaxed)

    def inverse(self, g: Permutation) -> Element:
        relaxed = None if g.relaxed is None else g.relaxed.mT
        return Permutation(self, g.layout, inverse_index(g.index) if g.reverse is None else g.reverse, relaxed, g.index)

    def project(self, z: Tensor, fallback: Tensor, layout: Any = None) -> Element:
        """Rank the scores z (*shape, N); equal scores are ordered by `fallback`: g = rank, z = g sorted(z)."""
        layout = self.layout(z.shape[-1] if layout is None else layout)
        z, fallback = torch.broadcast_tensors(z, fallback)
        order = sort_order(z, fallback, layout)
        return Permutation(self, layout, inverse_index(order), reverse=order)

    def degenerate(self, z: Tensor, layout: Any = None) -> Tensor:
        layout = self.layout(z.shape[-1] if layout is None else layout)
        mask = layout.padded_mask()
        ties = layout.pad(tied(z, layout), z.ndim - 1)
        if mask is not None:
            ties = torch.where(mask, ties, -1 - torch.arange(ties.shape[-1], device=z.device))
        ordered = ties.sort(-1).values
        return (ordered[..., 1:] == ordered[..., :-1]).any(-1)

    def draw_noise(self, shape: tuple[int, ...], layout: Any = None, **kwargs: Any) -> Tensor:
        shape = shape[:-1] if layout.ragged else shape
        return torch.randn(*shape, layout.size, **kwargs)


def tied(z: Tensor, layout: Layout) -> Tensor:
    """Rank (*shape, N) of each score among the distinct ones, by (graph, padding last, z), in at least float32.

    Neighbours in order that differ by rounding only, relative to the largest score of their graph, share a rank.
    """
    z = wide(z.detach())
    if layout.mask is not None:
        z = z.masked_fill(~layout.mask, 0)
    size, part = _extent(z, layout)
    order = torch.argsort(z, dim=-1)
    if part is not None:
        order = order.gather(-1, stable_order(part.expand_as(z).gather(-1, order)))
    ranked = z.gather(-1, order)
    step = ranked.diff(dim=-1) > tolerance(z.dtype) * size.expand_as(z).gather(-1, order)[..., 1:]
    if part is not None:
        step = step | (part.expand_as(z).gather(-1, order).diff(dim=-1) > 0)
    rank = torch.nn.functional.pad(step.long().cumsum(-1), (min(1, z.shape[-1]), 0))
    return torch.zeros_like(order).scatter(-1, order, rank)


def _extent(z: Tensor, layout: Layout) -> tuple[Tensor, Tensor | None]:
    """Largest |score| of the graph of each node, and what separates nodes: graph number, or padding."""
    if layout.batch is not None:
        batch = layout.batch.expand_as(z)
        size = z.abs().masked_fill(z.isinf(), 0)
        largest = z.new_zeros(*z.shape[:-1], layout.count).scatter_reduce(-1, batch, size, "amax")
        return largest.gather(-1, batch), layout.batch
    largest = extent(z) if z.shape[-1] else z[..., :0]
    return largest, None if layout.mask is None else (~layout.mask).long()


def sort_order(z: Tensor, fallback: Tensor, layout: Layout) -> Tensor:
    """Indices that sort by (graph, padding last, z, fallback) in this order; see `tied`. Padding stays in place."""
    if z.shape[-1] and layout.mask is None and layout.batch is None and may_peek(z):
        ranked, order = wide(z.detach()).sort(-1)
        if bool((ranked.diff(dim=-1) > tolerance(ranked.dtype) * ranked.abs().amax(-1, keepdim=True)).all()):
            return order
    if layout.mask is not None:
        fallback = fallback.masked_fill(~layout.mask, 0)
    order = stable_order(fallback.detach())
    order = order.gather(-1, stable_order(tied(z, layout).gather(-1, order)))
    if layout.batch is not None:
        first = stable_order(layout.batch)
        place = torch.empty_like(order)
        place[..., first] = order
        return place
    return order


def _moved_token(g: Permutation, h: Permutation, shape: tuple[int, ...]) -> Tensor:
    """The token of P_g P_h for a hard h: the columns of P_g in another order."""
    token: Tensor = g.relaxed  # type: ignore[assignment]
    place = inverse_index(h.index).expand(shape)
    if g.layout.ragged:
        local = (g.layout.position % max(g.layout.padded_size, 1))[place]
        place = g.layout.pad(local, local.ndim - 1)
    return token.expand(*place.shape[:-1], *token.shape[-2:]).gather(-1, place.unsqueeze(-2).expand_as(token))


def _attach(moved: Tensor, x: Tensor, g: Permutation, axis: int, lead: int) -> Tensor:
    """`moved` itself, with the gradient that P x would have sent to the soft matrix P of g."""
    front, extra = g.index.ndim - 1, g.index.ndim - 1 - lead

    def attach(y: Tensor, x: Tensor) -> Tensor:
        return apply_or(AttachNodes, attach_nodes_reference, y, x, g.relaxed, g.layout, front)

    if axis == lead:
        return attach(moved, x)
    x = x.expand(*g.index.shape[:-1], *x.shape[lead:]).movedim(axis + extra, front)
    y = attach(moved.movedim(axis + extra, front), x)
    return y.movedim(front, axis + extra)


__all__ = ["Axis", "Permutation", "S", "sort_order", "tied"]
