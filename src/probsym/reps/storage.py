"""Node axes as one call stores them: the verbs of the group, and elements that know about padding and graphs.

`Inputs.stored(factor)` makes these objects. The mathematics is that of `SymmetricGroup`; what is added here is that
padded nodes stay in their place, that the nodes of a ragged batch stay in their graph, and that inputs differ in size.
"""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor

from probsym.groups.base import Element
from probsym.groups.permutation import (
    LARGEST_LIST,
    Permutation,
    SymmetricGroup,
    has_equal,
    score_ranks,
    sort_order,
)  # fmt: skip
from probsym.kernels.gathers import gather_nodes, gather_pairs, inverse_index, stable_order
from probsym.kernels.precision import wide
from probsym.kernels.straight_through import AttachNodes, AttachPairs, attach_nodes_reference
from probsym.kernels.values import apply_or, differentiated
from probsym.reps.layout import Layout

if TYPE_CHECKING:
    from probsym.reps.nodes import NodeAxis


PERMUTATIONS = SymmetricGroup()  # of the places in memory; padding and graphs leave a part of them

# ---------------------------------------------------------------- elements


@dataclass(frozen=True, eq=False)
class NodeElement(Element):
    """An element that acts on a node axis and knows how the axis is stored.

    Args:
        group: the axis. layout: how its nodes lie in memory.
    """

    group: NodeAxis
    layout: Layout

    @abstractmethod
    def permute(self, x: Tensor, axis: int, shared_dims: int) -> Tensor:
        """(g x)_i = x_{g^-1(i)} along `axis`; the first `shared_dims` dims of x are the last of the batch shape."""

    def permute_pairs(self, x: Tensor, axis: int, shared_dims: int) -> Tensor:
        """`permute` along `axis` and the next: one gather where it can be."""
        moved = self.permute(x, axis, shared_dims)
        added = moved.ndim - x.ndim
        return self.permute(moved, axis + added + 1, shared_dims + added)

    @abstractmethod
    def relabel(self, labels: Tensor, shared_dims: int) -> Tensor:
        """Node number i becomes g(i); negative numbers mark padding and stay."""


@dataclass(frozen=True, eq=False)
class NodePermutation(NodeElement):
    """A permutation of nodes; padding stays, and each graph of a ragged batch is permuted within itself.

    Args:
        moves: the permutation (*shape, N) of the axis as it lies in memory; in a ragged batch (*sample shape, sum N).
        relaxed: straight-through token (*shape, N, N) of the soft matrix P with (g x)_i = sum_j P_ij x_j. It is zero;
            only its derivatives exist. In a ragged batch N is the size of the padded graphs.
    """

    moves: Permutation
    relaxed: Tensor | None = None

    @property
    def index(self) -> Tensor:
        """Gather index (*shape, N): (g x)_i = x_{index_i}."""
        return self.moves.index

    @property
    def shape(self) -> tuple[int, ...]:
        return (*self.moves.shape, self.layout.count) if self.layout.ragged else self.moves.shape

    @property
    def tensors(self) -> dict[str, Tensor]:
        return self.moves.tensors if self.relaxed is None else {**self.moves.tensors, "relaxed": self.relaxed}

    def map(self, fn: Callable[[Tensor, int], Tensor]) -> Self:
        relaxed = None if self.relaxed is None else fn(self.relaxed, 2)
        return dataclasses.replace(self, moves=self.moves.map(fn), relaxed=relaxed)

    def permute(self, x: Tensor, axis: int, shared_dims: int) -> Tensor:
        index = self.moves.index
        moved = gather_nodes(x, index, axis, shared_dims)
        if not self._learns(x):
            return moved
        # `moved` itself, with the gradient that P x would have sent to P. The kernel has the nodes after the batch.
        x, front = x.detach(), index.ndim - 1
        if axis == shared_dims:
            return self._attach(moved, x, front)
        place = axis + front - shared_dims
        x = x.expand(*index.shape[:-1], *x.shape[shared_dims:]).movedim(place, front)
        return self._attach(moved.movedim(place, front), x, front).movedim(front, place)

    def _attach(self, y: Tensor, x: Tensor, front: int) -> Tensor:
        return apply_or(AttachNodes, attach_nodes_reference, y, x, self.relaxed, self.layout, front)

    def permute_pairs(self, x: Tensor, axis: int, shared_dims: int) -> Tensor:
        n, learns = self.index.shape[-1], self._learns(x)
        one_by_one = super().permute_pairs
        if x.shape[axis : axis + 2] != (n, n) or (learns and (axis > shared_dims or self.layout.ragged)):
            return one_by_one(x, axis, shared_dims)
        moved = gather_pairs(x, self.index, axis, shared_dims)
        if not learns:
            return moved
        return apply_or(
            AttachPairs,
            lambda *_: one_by_one(x, axis, shared_dims),
            moved,
            x.detach(),
            self.relaxed,
            self.moves.places,
            self.layout,
        )

    def relabel(self, labels: Tensor, shared_dims: int) -> Tensor:
        return self.moves.renumber(labels, shared_dims)

    def moved_share(self) -> Tensor:
        """1 - (number of fixed nodes) / n, from the trace of P, whose soft matrix receives the gradient."""
        layout = self.layout
        batch_dims = self.index.ndim - 1
        # 1. A one-hot label on every node: its place in its graph.
        if layout.ragged:
            places = max(layout.padded_size, 1)
            label = torch.nn.functional.one_hot(layout.position % places, places)
        else:
            label = torch.eye(layout.size, device=self.index.device)
        dtype = torch.get_default_dtype() if self.relaxed is None else self.relaxed.dtype
        label = label.to(dtype).expand(*self.index.shape, label.shape[-1])
        # 2. Nodes that keep their label stay. Padding counts as none.
        label = layout.clear(label, batch_dims, batch_dims)
        moved = layout.clear(self.permute(label, batch_dims, batch_dims), batch_dims, batch_dims)
        stays = (moved * label).sum(-1)
        # 3. Their share.
        if layout.ragged:
            return 1 - layout.pad(stays, batch_dims).sum(-1) / layout.sizes.clamp_min(1)
        if layout.mask is None:
            return 1 - stays.sum(-1) / layout.size
        return 1 - stays.sum(-1) / layout.sizes.clamp_min(1)

    def _learns(self, x: Tensor) -> bool:
        """Whether a gradient goes from what becomes of x to the soft matrix."""
        return self.relaxed is not None and x.is_floating_point() and differentiated(self.relaxed)


@dataclass(frozen=True, eq=False)
class TrivialElement(NodeElement):
    """The identity on a node axis; it holds no tensor, only the batch shape."""

    batch_shape: tuple[int, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        return self.batch_shape

    def map(self, fn: Callable[[Tensor, int], Tensor]) -> Self:
        shape = fn(torch.empty(self.batch_shape), 0).shape
        return dataclasses.replace(self, batch_shape=tuple(shape))

    def select(self, index: Any) -> Self:
        """Index the first batch dim."""
        # On the device of the index: torch refuses an index on a GPU for a tensor on the CPU.
        device = index.device if isinstance(index, Tensor) else None
        shape = torch.empty(self.batch_shape, device=device)[index].shape
        return dataclasses.replace(self, batch_shape=tuple(shape))

    def permute(self, x: Tensor, axis: int, shared_dims: int) -> Tensor:
        return x

    def relabel(self, labels: Tensor, shared_dims: int) -> Tensor:
        return labels


# ---------------------------------------------------------------- verbs


@dataclass(frozen=True, eq=False)
class StoredNodes(ABC):
    """The group of a node axis, with the verbs that `Group` has, for one layout of the nodes.

    Args:
        axis: the factor of the group. layout: how its nodes lie in memory.

    >>> from probsym.reps import Inputs, Rep, S
    >>> nodes = S("nodes", mask="mask")
    >>> mask = torch.tensor([[True, True, False]])
    >>> x = Inputs.bind({"a": Rep(nodes)}, (), {"a": torch.zeros(1, 3), "mask": mask})
    >>> x.stored(nodes).order()                                     # two nodes, and one place that is padding
    2
    """

    axis: NodeAxis
    layout: Layout

    @abstractmethod
    def project(self, z: Tensor, fallback: Tensor) -> NodeElement:
        """Map the features z equivariantly to a group element; `fallback` decides where z is degenerate."""

    @abstractmethod
    def degenerate(self, z: Tensor) -> Tensor:
        """Where `project` consults its fallback; the batch shape of the elements."""

    @abstractmethod
    def compose(self, g: Any, h: Any) -> NodeElement:
        """g h: first h acts, then g."""

    @abstractmethod
    def inverse(self, g: Any) -> NodeElement:
        """The element that undoes g."""

    @abstractmethod
    def identity(self, shape: tuple[int, ...] = (), *, device: Any = None, **options: Any) -> NodeElement:
        """The neutral element, repeated over the batch `shape`; (*sample shape, B) in a ragged batch."""

    @abstractmethod
    def draw_noise(self, shape: tuple[int, ...], **options: Any) -> Tensor:
        """Noise from which `project` makes a uniformly distributed element of batch shape `shape`."""

    def permutation(self, index: Tensor, reverse: Tensor | None = None) -> NodeElement:
        """The element with a gather index (*shape, N), where the group permutes nodes."""
        raise TypeError(f"{self.axis!r} does not permute nodes")

    def draw_features(self, shape: tuple[int, ...], **options: Any) -> Tensor:
        """Generic features for the checkers: Gaussian noise."""
        return self.draw_noise(shape, **options)

    @abstractmethod
    def order(self) -> int:
        """Number of elements, for the largest input where they differ."""

    def orders(self) -> Tensor | None:
        """Number of elements for each input (B,) of a batch in which they differ; None where they do not."""
        return None

    @abstractmethod
    def elements(self, device: torch.device | str | None = None) -> NodeElement:
        """All elements, the identity first: batch shape (order,), or (order, B) where `orders` differ.

        In the latter case the first ones are those of an input, and identities follow.
        """

    def haar(self, shape: tuple[int, ...] = (), **options: Any) -> NodeElement:
        """Uniformly distributed elements, `project` of two draws of noise."""
        z = self.draw_noise(tuple(shape), **options)
        fallback = self.draw_noise(tuple(shape), **options)
        return self.project(z, fallback)


@dataclass(frozen=True, eq=False)
class StoredSymmetric(StoredNodes):
    """S_n on stored nodes: padding stays in its place, and the nodes of a graph in the graph."""

    def permutation(self, index: Tensor, reverse: Tensor | None = None) -> NodePermutation:
        """The element with this gather index (*shape, N), which moves no padding and no node to another graph."""
        return NodePermutation(self.axis, self.layout, Permutation(PERMUTATIONS, index, reverse))

    def project(self, z: Tensor, fallback: Tensor) -> NodePermutation:
        """Rank the scores z (*shape, N); equal scores are ordered by `fallback`: g = rank, z = g sorted(z)."""
        z, fallback = torch.broadcast_tensors(z, fallback)
        parts, extents, z = self._parts(z)
        if self.layout.mask is not None:
            fallback = fallback.masked_fill(~self.layout.mask, 0)
        order = sort_order(z, fallback, parts, extents)
        if self.layout.batch is not None:
            # Sorted by graph: the nodes of a graph go to the places of this graph, which may lie anywhere.
            places = torch.empty_like(order)
            places[..., stable_order(self.layout.batch)] = order
            order = places
        return self.permutation(inverse_index(order), order)

    def degenerate(self, z: Tensor) -> Tensor:
        parts, extents, scores = self._parts(z)
        ranks = self.layout.pad(score_ranks(scores, parts, extents), z.ndim - 1)
        mask = self.layout.padded_mask()
        if mask is not None:  # padding is equal to nothing
            ranks = torch.where(mask, ranks, -1 - torch.arange(ranks.shape[-1], device=z.device))
        return has_equal(ranks)

    def _parts(self, z: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor]:
        """What keeps nodes apart, what rounding is relative to, and the scores; see `score_ranks`."""
        z, layout = z.detach(), self.layout
        if layout.mask is not None:
            # Padding is a part behind the nodes. Its scores are all zero, so that it stays in order.
            return (~layout.mask).long(), None, z.masked_fill(~layout.mask, 0)
        if layout.batch is not None:
            z = wide(z)
            graph = layout.batch.expand_as(z)
            size = z.abs().masked_fill(z.isinf(), 0)
            largest = z.new_zeros(*z.shape[:-1], layout.count).scatter_reduce(-1, graph, size, "amax")
            return layout.batch, largest.gather(-1, graph), z
        return None, None, z

    def compose(self, g: NodePermutation, h: NodePermutation) -> NodePermutation:
        moves = PERMUTATIONS.compose(g.moves, h.moves)
        relaxed = g.relaxed
        if relaxed is not None and h.relaxed is None:
            # The token of P_g P_h for a hard h: the columns of P_g in another order.
            places = inverse_index(h.index).expand(moves.index.shape)
            if self.layout.ragged:
                within = (self.layout.position % max(self.layout.padded_size, 1))[places]
                places = self.layout.pad(within, within.ndim - 1)
            relaxed = relaxed.expand(*places.shape[:-1], *relaxed.shape[-2:])
            relaxed = relaxed.gather(-1, places.unsqueeze(-2).expand_as(relaxed))
        return NodePermutation(self.axis, self.layout, moves, relaxed)

    def inverse(self, g: NodePermutation) -> NodePermutation:
        relaxed = None if g.relaxed is None else g.relaxed.mT
        return NodePermutation(self.axis, self.layout, g.moves.inverse(), relaxed)

    def identity(self, shape: tuple[int, ...] = (), *, device: Any = None, **options: Any) -> NodePermutation:
        moves = PERMUTATIONS.identity(self._shape_in_memory(shape), n=self.layout.size, device=device)
        return NodePermutation(self.axis, self.layout, moves)

    def draw_noise(self, shape: tuple[int, ...], **options: Any) -> Tensor:
        return torch.randn(*self._shape_in_memory(shape), self.layout.size, **options)

    def _shape_in_memory(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The batch dims of tensors on the axis: that of a ragged batch stands for the inputs as well."""
        return shape[:-1] if self.layout.ragged else shape

    def order(self) -> int:
        return math.factorial(self.layout.largest)

    def orders(self) -> Tensor | None:
        if not self.layout.uneven:
            return None
        sizes = self.layout.sizes
        factorials = [math.factorial(n) for n in range(self.layout.largest + 1)]
        return torch.tensor(factorials, device=sizes.device)[sizes]

    def elements(self, device: torch.device | str | None = None) -> NodePermutation:
        if self.order() > LARGEST_LIST:
            raise TypeError(f"the elements of {self.axis!r} cannot be listed: more than {LARGEST_LIST}")
        layout, orders = self.layout, self.orders()
        # 1. All permutations of the nodes of the largest input, on the padded axis.
        nodes = SymmetricGroup(layout.largest).elements(device).index
        padding = torch.arange(layout.largest, layout.padded_size, device=device)
        index = torch.cat([nodes, padding.expand(len(nodes), -1)], -1)
        if orders is None:
            return self.permutation(index)
        # 2. The first m! permute the first m nodes: they are those of an input of m nodes, and identities follow.
        is_own = torch.arange(len(index), device=device)[:, None, None] < orders[:, None]
        index = torch.where(is_own, index[:, None], torch.arange(layout.padded_size, device=device))
        if not layout.ragged:
            return self.permutation(index)
        # 3. A ragged batch takes them as ranks within each graph.
        ranks = layout.unpad(index, 1).double()
        return self.project(ranks, torch.zeros_like(ranks))


@dataclass(frozen=True, eq=False)
class StoredTrivial(StoredNodes):
    """The trivial group on stored nodes."""

    def project(self, z: Tensor, fallback: Tensor) -> TrivialElement:
        return TrivialElement(self.axis, self.layout, tuple(torch.broadcast_shapes(z.shape, fallback.shape)))

    def degenerate(self, z: Tensor) -> Tensor:
        return torch.zeros_like(z, dtype=torch.bool)

    def compose(self, g: TrivialElement, h: TrivialElement) -> TrivialElement:
        return g

    def inverse(self, g: TrivialElement) -> TrivialElement:
        return g

    def identity(self, shape: tuple[int, ...] = (), *, device: Any = None, **options: Any) -> TrivialElement:
        return TrivialElement(self.axis, self.layout, tuple(shape))

    def draw_noise(self, shape: tuple[int, ...], *, generator: Any = None, **options: Any) -> Tensor:
        """Zeros: no randomness is drawn where there is nothing to choose."""
        return torch.zeros(shape, **options)

    def order(self) -> int:
        return 1

    def elements(self, device: torch.device | str | None = None) -> TrivialElement:
        return TrivialElement(self.axis, self.layout, (1,))
