"""What a net may know of the inputs: node scalars, vectors and pairs, extracted by their Reps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from probsym.distributions.geometry import centroid, dense, packed_layout, spatial, unit
from probsym.groups import E, Group, IsometryGroup, Layout, NodeAxis, Slot
from probsym.groups.axis import Nodes
from probsym.groups.euclidean import Point
from probsym.groups.orthogonal import Vector
from probsym.kernels.orthonormal import extent, tolerance
from probsym.kernels.values import traced, undisturbed
from probsym.nets.masking import EdgeList, Segments, Where
from probsym.nets.rounding import settled, share
from probsym.reps import Inputs, Leaf, Rep, Signature


@dataclass(frozen=True, eq=False)
class NodeFeatures:
    """The inputs as seen from one node axis and one space; None where there is nothing of the kind.

    Args:
        scalars: (B, N, F), invariant to every space and to every other node axis.
        vectors: (B, N, D, C), centred and scaled to unit size.
        pairs: (B, N, N, P).
        edges: edge lists, kept apart from pairs where they cost less.
        mask: (B, N), None where every node exists; of a ragged batch the graph of each node, B is 1 then and N the
            number of all nodes.
        origins: centroids (B, D) of the spaces whose points were seen.
        rounding: of the vectors, relative to their size (B,); None where it is that of their dtype. shape: (B, N).
    """

    scalars: Tensor | None
    vectors: Tensor | None
    pairs: Tensor | None
    mask: Where
    origins: Mapping[IsometryGroup, Tensor]
    edges: EdgeList | None = None
    rounding: Tensor | None = None
    shape: tuple[int, int] = (0, 0)


def node_features(x: Inputs, axis: NodeAxis | None, space: IsometryGroup | None) -> NodeFeatures:
    """Everything that the inputs tell about the nodes of `axis`, equivariant under the group of x."""
    return Viewpoint(x.signature, axis, space).read(x)


class Viewpoint:
    """The nodes of `axis` and one space, from which `read` sees the inputs of a call.

    Without an axis there is one node an input, and axes that nothing permutes become channels.

    Attributes:
        paired: whether an input holds pairs of the nodes. labelled: whether one is a list of edges between them.
    """

    def __init__(self, signature: Signature, axis: NodeAxis | None, space: IsometryGroup | None) -> None:
        self.axis = axis
        self.seats = tuple((entry.path, _seat(entry.rep, axis, space)) for entry in signature.entries)
        pairs = [seat for _, seat in self.seats if seat is not None and seat.room == "pairs"]
        self.labelled = any(seat.labels for seat in pairs)
        self.paired = any(not seat.labels for seat in pairs)

    def read(self, x: Inputs, sparse: bool = False) -> NodeFeatures:
        """The features of a call.

        Args:
            sparse: leave edges as a list and a ragged batch unpadded, (1, sum N, ...); where an input holds pairs all
                are matrices.
        """
        layout = None if self.axis is None else x.layouts[self.axis]
        packed = layout if sparse and layout is not None and layout.ragged else None
        nodes = 1 if layout is None else layout.padded_size
        rooms: dict[str, list[Tensor]] = {"scalars": [], "vectors": [], "pairs": []}
        origins: dict[IsometryGroup, Tensor] = {}
        lists: list[EdgeList] = []
        errors: list[Tensor] = []
        for path, seat in self.seats:
            if seat is None:
                continue
            leaf = x.leaves[path]
            if leaf.rep.labelled is None:
                value = seat.arrange(x, leaf, origins, errors, packed)
                value = _broadcast(value, nodes) if packed is None else value
            elif sparse and not self.paired:
                lists.append(edge_list(x, leaf))
                continue
            else:
                value = adjacency(x, leaf)
            rooms[seat.room].append(value)
        mask: Where = None if layout is None else layout.padded_mask()
        if packed is not None and packed.batch is not None:
            mask = Segments(packed.batch, packed.sizes)
        rounding = torch.stack(errors).amax(0) if len(errors) > 1 else next(iter(errors), None)
        parts = {key: _joined(found) for key, found in rooms.items()}
        shape = (x.count, nodes) if packed is None else (1, packed.size)
        return NodeFeatures(mask=mask, origins=origins, edges=_chained(lists), rounding=rounding, shape=shape, **parts)


@dataclass(frozen=True)
class _Seat:
    """How one input becomes scalars (B, N, F), vectors (B, N, D, C) or pairs (B, N, N, P), N = 1 for the whole input.

    Args:
        room: which of the three.
        front: its axes that come first, in this order: batch, own nodes, own space; others become channels.
        directed: spaces of its points (True) and vectors, which are centred and scaled to unit size.
        averaged: places of node axes of others; lengths: places of other spaces, of which lengths remain.
        pooled: whether it has no node axis of its own; directions: whether pairs hold vectors, of which lengths remain.
    """

    room: str
    front: tuple[int, ...] = ()
    directed: tuple[tuple[IsometryGroup, bool], ...] = ()
    averaged: tuple[tuple[NodeAxis, int], ...] = ()
    lengths: tuple[int, ...] = ()
    pooled: bool = False
    directions: bool = False
    labels: bool = False

    def arrange(
        self, x: Inputs, leaf: Leaf, origins: dict[IsometryGroup, Tensor], errors: list[Tensor], packed: Layout | None
    ) -> Tensor:
        """The features, (B, N, ...) or packed (1, sum N, ...); adds to the origins and to the rounding of vectors."""
        own = packed is not None and packed_layout(x, leaf) is packed and not self.pooled
        layout = packed if own else None
        value = leaf.value.to(x.dtype).unsqueeze(0) if own else dense(x, leaf)
        for space, points in self.directed:
            if points and space not in origins:
                origins[space] = centroid(x, space)
            value, rounding = unit(x, leaf, value, space, origins[space] if points else None, layout)
            if rounding is not None:
                errors.append(rounding)
        for axis, place in self.averaged:
            value = _mean(value, x.layouts[axis].padded_mask(), place)
        for place in self.lengths:
            value = _length(value, place)
        order = [*self.front, *(i for i in range(value.ndim) if i not in self.front)]
        value = value if order == sorted(order) else value.permute(order)
        value = value.reshape(*value.shape[: len(self.front)], math.prod(value.shape[len(self.front) :]))
        if self.directions:
            value = _length(value, 3).squeeze(3)
        if self.pooled and packed is not None:
            return packed.spread(value, 0).unsqueeze(0)
        if self.pooled:
            return value.unsqueeze(1)
        return value if packed is None or own else packed.unpad(value, 0).unsqueeze(0)


def _seat(rep: Rep, axis: NodeAxis | None, space: IsometryGroup | None) -> _Seat | None:
    """None for what cannot be seen from there."""
    if rep.labelled is not None:
        return _Seat("pairs", labels=True) if rep.labelled == axis else None
    slots = [slot for slot, _ in rep.axes]
    mine = [place + 1 for slot, place in rep.axes if isinstance(slot, Nodes) and slot.group == axis]
    directed = [(slot, place + 1) for slot, place in rep.axes if isinstance(slot, Point | Vector)]
    strange = any(not isinstance(slot, Nodes | Point | Vector) for slot in slots)
    if strange or len(mine) > 2 or len(directed) > 1:
        return None
    own = [place for slot, place in directed if slot.group == space]
    vectors = bool(own) and len(mine) < 2
    return _Seat(
        room="vectors" if vectors else "pairs" if len(mine) == 2 else "scalars",
        front=(0, *mine, *own),
        directed=tuple((slot.group, isinstance(slot, Point)) for slot, _ in directed),  # type: ignore[misc]
        averaged=tuple((s.group, p + 1) for s, p in rep.axes if isinstance(s, Nodes) and s.group != axis),
        lengths=tuple(place for slot, place in directed if slot.group != space),
        pooled=not mine,
        directions=bool(own) and not vectors,
    )


def _length(value: Tensor, axis: int) -> Tensor:
    """Length along an axis, which is kept; the gradient is finite at zero."""
    square = value.square().sum(axis, keepdim=True)
    return torch.where(square > 0, torch.where(square > 0, square, 1.0).sqrt(), 0.0)


def _joined(found: list[Tensor]) -> Tensor | None:
    return torch.cat(found, -1) if len(found) > 1 else found[0] if found else None


def _broadcast(value: Tensor, nodes: int) -> Tensor:
    """Features of the whole input, stored for one node, repeated for all."""
    if value.shape[1] != 1 or nodes == 1:
        return value
    return value.expand(value.shape[0], nodes, *value.shape[2:])


def _mean(value: Tensor, mask: Tensor | None, axis: int) -> Tensor:
    if mask is None:
        return value.mean(axis, keepdim=True) if value.shape[axis] else value.sum(axis, keepdim=True)
    view = mask.reshape(mask.shape[0], *[1] * (axis - 1), mask.shape[-1], *[1] * (value.ndim - axis - 1))
    return (value * view).sum(axis, keepdim=True) / view.sum(axis, keepdim=True).clamp_min(1)


def _chained(lists: list[EdgeList]) -> EdgeList | None:
    """One list of all edges; those of each list are a kind of their own."""
    if len(lists) < 2:
        return lists[0] if lists else None
    kinds = [torch.nn.functional.pad(edges.kind, (place, len(lists) - 1 - place)) for place, edges in enumerate(lists)]
    return EdgeList(torch.cat([e.start for e in lists]), torch.cat([e.end for e in lists]), torch.cat(kinds))


def edge_list(x: Inputs, leaf: Leaf) -> EdgeList:
    """Node numbers (2, E) or (B, 2, E) as edges of the whole batch; negative numbers are padding, of kind zero."""
    layout, labels = x.layouts[leaf.rep.labelled], leaf.as_edges()  # type: ignore[index]
    if layout.ragged:
        ends = labels
        numbers = ends.clamp_min(0)
    else:
        ends = labels.movedim(1, 0)
        first = layout.size * torch.arange(labels.shape[0], device=labels.device)
        numbers = ends.clamp_min(0) + first[:, None]
    kind = (ends >= 0).all(0).to(x.dtype).reshape(-1, 1)
    return EdgeList(numbers[0].reshape(-1), numbers[1].reshape(-1), kind)


def adjacency(x: Inputs, leaf: Leaf) -> Tensor:
    """The edges of `edge_list`, counted: (B, N, N, 1)."""
    layout, edges = x.layouts[leaf.rep.labelled], edge_list(x, leaf)  # type: ignore[index]
    n = layout.padded_size
    start, end = edges.start, edges.end
    if layout.ragged:
        start, end = layout.position[start], layout.position[end]
    counts = torch.zeros(x.count * n * n, dtype=x.dtype, device=x.device)
    counts = counts.index_add(0, start * n + end % max(n, 1), edges.kind.squeeze(-1))
    return counts.reshape(x.count, n, n, 1)


def check_features(found: Any, x: Inputs, group: Group) -> dict[Group, Any]:
    """The features of a net by factor, checked; a lone tensor serves a single factor, E(d) gets the centroid.

    Raises:
        TypeError, ValueError: a factor is missing, or the type, dtype or shape of its features does not fit; names the
            factor and what was expected.
    """
    factors = group.factors
    if not isinstance(found, Mapping):
        if len(factors) > 1:
            raise TypeError(f"net: expected a dict of ambient features by factor, got {type(found).__name__}")
        found = {factors[0]: found}
    checked: dict[Group, Any] = {}
    for f in factors:
        if f not in found and not f.noise_slots:
            checked[f] = torch.zeros(x.count, dtype=x.dtype, device=x.device)
            continue
        if f not in found:
            raise ValueError(f"net: expected ambient features for {f!r}, got only {', '.join(map(repr, found))}")
        value = found[f]
        if not isinstance(f, E):
            checked[f] = _checked(value, f, x, f.noise_slots)
            continue
        if isinstance(value, Tensor):
            value = (centroid(x, f), value)
        if not isinstance(value, tuple) or len(value) != 2:
            raise TypeError(f"net: expected vectors of {f!r}, or (origin, vectors), got {type(value).__name__}")
        checked[f] = (_checked(value[0], f, x, f.noise_slots[:1]), _checked(value[1], f, x, f.noise_slots))
    return checked


AMBIENT: dict[Group, tuple[int, ...]] = {}  # numbers alone, of groups that have been asked


def _ambient_sizes(group: Group) -> tuple[int, ...]:
    """Sizes of the axes of the ambient noise of a group whose size is fixed."""
    sizes = AMBIENT.get(group)
    if sizes is None:
        with undisturbed():
            sizes = tuple(group.draw_noise((), device="meta").shape)
        if not traced():
            AMBIENT[group] = sizes
    return sizes


def _checked(value: Any, factor: Group, x: Inputs, axes: tuple[Slot | None, ...]) -> Tensor:
    """Features along the given axes of the ambient space of a factor, in the dtype of the inputs.

    The group's own noise tells how long each axis is. None marks one that may have any length, such as that of columns.
    """
    if not isinstance(value, Tensor):
        raise TypeError(f"net: expected a tensor of features of {factor!r}, got {type(value).__name__}")
    if value.is_complex():
        raise TypeError(f"net: expected real features of {factor!r}, got {value.dtype}")
    layout: Any = x.layouts.get(factor)  # type: ignore[call-overload]
    want: list[int | None] = [] if layout is not None and layout.ragged else [x.count]
    sizes = _ambient_sizes(factor) if layout is None else (layout.size,)
    place = 0
    for slot in axes:
        width = 1 if slot is None else slot.num_axes
        want += [None] if slot is None else sizes[place : place + width]
        place += width
    fits = len(want) == value.ndim and all(n is None or n == m for n, m in zip(want, value.shape, strict=True))
    if not fits:
        shape = ", ".join("M" if n is None else str(n) for n in want) + ("," if len(want) == 1 else "")
        raise ValueError(f"net: expected features of {factor!r} of shape ({shape}), got {tuple(value.shape)}")
    wide = value.to(x.dtype)
    if not value.is_floating_point() or torch.finfo(value.dtype).eps <= torch.finfo(x.dtype).eps:
        return wide
    # The net computes in a narrower dtype than the inputs: what it cannot tell apart must not be told apart later.
    eps = torch.finfo(value.dtype).eps
    if isinstance(factor, IsometryGroup) and len(want) == 3:
        return _settled_columns(wide, eps)
    if layout is not None:
        return _raised_scores(wide, eps, layout)
    return wide


def _settled_columns(columns: Tensor, eps: float) -> Tensor:
    """Columns (B, D, M) of relative rounding eps, without what rounding adds to the span of those before them."""
    if not columns.numel():
        return columns
    longest = torch.linalg.vector_norm(columns.detach(), dim=-2).amax(-1, keepdim=True)
    rounding = longest.new_full(longest.shape[:1], eps)
    return settled(columns, longest.expand(-1, columns.shape[-1]), rounding)


def _raised_scores(scores: Tensor, eps: float, layout: Layout) -> Tensor:
    """Scores of relative rounding eps, raised so far that those equal up to rounding are equal next to their size."""
    with torch.no_grad():
        padded = layout.pad(scores, 0)
        if not padded.shape[-1]:
            return scores
        mask = layout.padded_mask()
        size = extent(padded if mask is None else padded.masked_fill(~mask, 0))
        raised = (size * share(eps) / tolerance(scores.dtype)).expand_as(padded)
    return scores + layout.unpad(raised, 0)


__all__ = ["NodeFeatures", "Viewpoint", "adjacency", "check_features", "node_features", "spatial"]
