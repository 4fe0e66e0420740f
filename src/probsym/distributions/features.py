"""What a net may know of the inputs: node scalars, vectors and pairs, extracted by their Reps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from probsym.distributions.geometry import centroid, dense, packed_layout, pieces, place_of, spatial, unit
from probsym.groups import Group, Slot
from probsym.groups.orthogonal import turned_axes
from probsym.kernels.orthonormal import extent, tolerance
from probsym.kernels.precision import complex_dtype
from probsym.nets.masking import EdgeList, Segments, Where
from probsym.nets.rounding import settled, share
from probsym.reps import Inputs, Layout, Leaf, NodeAxis, Rep, Signature

SEEN_ROLES = ("nodes", "point", "vector")  # of the slots that a net of the library understands


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
    origins: Mapping[Group, Tensor]
    edges: EdgeList | None = None
    rounding: Tensor | None = None
    shape: tuple[int, int] = (0, 0)


def node_features(x: Inputs, axis: NodeAxis | None, space: Group | None) -> NodeFeatures:
    """Everything that the inputs tell about the nodes of `axis`, equivariant under the group of x."""
    return Viewpoint(x.signature, axis, space).read(x)


class Viewpoint:
    """The nodes of `axis` and one space, from which `read` sees the inputs of a call.

    Without an axis there is one node per input, and axes that nothing permutes become channels.

    Attributes:
        paired: whether an input holds pairs of the nodes. labelled: whether one is a list of edges between them.
    """

    def __init__(self, signature: Signature, axis: NodeAxis | None, space: Group | None) -> None:
        self.axis = axis
        seats: list[tuple[Any, int, _Seat]] = []  # the path of an input, the number of its piece, and where it sits
        for entry in signature.entries:
            reps = [piece.rep for piece in entry.rep.pieces] or [entry.rep]
            for number, rep in enumerate(reps):
                seat = _seat(rep, axis, space)
                if seat is not None:
                    seats += [(entry.path, number, part) for part in _apart(seat, space)]
        self.seats = tuple(seats)
        pairs = [seat for _, _, seat in self.seats if seat.room == "pairs"]
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

        # 1. every input in its room
        rooms: dict[str, list[Tensor]] = {"scalars": [], "vectors": [], "pairs": []}
        origins: dict[Group, Tensor] = {}
        lists: list[EdgeList] = []
        errors: list[Tensor] = []
        for path, number, seat in self.seats:
            leaf = pieces(x.leaves[path])[number]
            if leaf.rep.labelled is None:
                value = seat.arrange(x, leaf, origins, errors, packed)
                if packed is None:
                    value = _broadcast(value, nodes)
                rooms[seat.room].append(value)
            elif sparse and not self.paired:
                lists.append(edge_list(x, leaf))
            else:
                rooms[seat.room].append(adjacency(x, leaf))

        # 2. which nodes exist, and to which graph they belong
        mask: Where = None if layout is None else layout.padded_mask()
        if packed is not None and packed.batch is not None:
            mask = Segments(packed.batch, packed.sizes)

        # 3. the rounding of the vectors: the coarsest
        rounding: Tensor | None = None
        if len(errors) > 1:
            rounding = torch.stack(errors).amax(0)
        elif errors:
            rounding = errors[0]

        return NodeFeatures(
            scalars=_joined(rooms["scalars"]),
            vectors=_joined(rooms["vectors"]),
            pairs=_joined(rooms["pairs"]),
            mask=mask,
            origins=origins,
            edges=_chained(lists),
            rounding=rounding,
            shape=(x.count, nodes) if packed is None else (1, packed.size),
        )


@dataclass(frozen=True)
class _Seat:
    """How one input becomes scalars (B, N, F), vectors (B, N, D, C) or pairs (B, N, N, P), N = 1 for the whole input.

    Args:
        room: which of the three.
        front: its axes that come first, in this order: batch, own nodes, own space; others become channels.
        directed: spaces of its points (True) and vectors, which are centred and scaled to unit size.
        averaged: places of node axes of others; lengths: places of other spaces, of which lengths remain.
        pooled: whether it has no node axis of its own; directions: whether pairs hold vectors, of which lengths remain.
        raw: whether it holds vectors of a group that does not keep lengths as O(d) does, which are neither centred nor
            scaled.
        coordinates: which of those of its own space it takes; None for all.
    """

    room: str
    front: tuple[int, ...] = ()
    directed: tuple[tuple[Group, bool], ...] = ()
    averaged: tuple[tuple[NodeAxis, int], ...] = ()
    lengths: tuple[int, ...] = ()
    pooled: bool = False
    directions: bool = False
    labels: bool = False
    raw: bool = False
    coordinates: tuple[int, ...] | None = None

    def arrange(
        self, x: Inputs, leaf: Leaf, origins: dict[Group, Tensor], errors: list[Tensor], packed: Layout | None
    ) -> Tensor:
        """The features, (B, N, ...) or packed (1, sum N, ...); adds to the origins and to the rounding of vectors."""
        # Of complex numbers both parts are channels.
        is_complex = leaf.value.is_complex()
        if is_complex:
            leaf = replace(leaf, value=torch.view_as_real(leaf.value.resolve_conj()))
        own = packed is not None and packed_layout(x, leaf) is packed and not self.pooled
        if own:
            layout = packed
            value = leaf.value.to(x.dtype).unsqueeze(0)
        else:
            layout = None
            value = dense(x, leaf)

        # 1. points and vectors are centred and scaled
        for space, points in self.directed:
            if points and space not in origins:
                origins[space] = centroid(x, space)
            origin = origins[space] if points else None
            if self.coordinates is not None:
                taken = torch.tensor(self.coordinates, device=value.device)
                value = value.index_select(1 + place_of(leaf, space), taken)
                origin = None if origin is None else origin.index_select(-1, taken)
            value, rounding = unit(x, leaf, value, space, origin, layout)
            if rounding is not None:
                errors.append(rounding)

        # 2. other node axes are averaged, of other spaces the lengths remain
        for axis, place in self.averaged:
            value = _mean(value, x.layouts[axis].padded_mask(), place)
        for place in self.lengths:
            value = _length(value, place)

        # 3. own axes first, all others are channels
        order = [*self.front, *(i for i in range(value.ndim) if i not in self.front)]
        if order != sorted(order):
            value = value.permute(order)
        value = value.reshape(*value.shape[: len(self.front)], math.prod(value.shape[len(self.front) :]))
        if self.directions:
            value = _length(value, 3).squeeze(3)
        if self.raw and is_complex:
            value = torch.view_as_complex(value.unflatten(-1, (-1, 2)).contiguous())

        # 4. what belongs to the whole input belongs to each of its nodes
        if self.pooled:
            if packed is None:
                return value.unsqueeze(1)
            return packed.spread(value, 0).unsqueeze(0)
        if packed is None or own:
            return value
        return packed.unpad(value, 0).unsqueeze(0)


def _seat(rep: Rep, axis: NodeAxis | None, space: Group | None) -> _Seat | None:
    """How a net at the nodes of `axis`, with an eye for `space`, sees an input; None for what it cannot see."""
    if rep.labelled is not None:
        if rep.labelled != axis:
            return None
        return _Seat("pairs", labels=True)

    # 1. the slots by what they hold, with their places behind the batch
    own_nodes: list[int] = []
    other_nodes: list[tuple[NodeAxis, int]] = []
    directed: list[tuple[Slot, int]] = []
    raw: list[int] = []
    for slot, at in rep.axes:
        place = at + 1
        if slot.role not in SEEN_ROLES:
            if space is None or slot != space.defining:
                return None
            raw.append(place)
            continue
        if slot.role != "nodes":
            directed.append((slot, place))
        elif slot.group == axis:
            own_nodes.append(place)
        else:
            other_nodes.append((slot.group, place))  # type: ignore[arg-type]
    if len(own_nodes) > 2 or len(directed) + len(raw) > 1:
        return None
    if raw and len(own_nodes) > 1:
        return None

    # 2. the room: vectors of the own space only where they belong to single nodes
    own_space = [place for slot, place in directed if slot.group == space] + raw
    if len(own_nodes) == 2:
        room = "pairs"
    elif own_space:
        room = "vectors"
    else:
        room = "scalars"

    return _Seat(
        room=room,
        front=(0, *own_nodes, *own_space),
        directed=tuple((slot.group, slot.role == "point") for slot, _ in directed),
        averaged=tuple(other_nodes),
        lengths=tuple(place for slot, place in directed if slot.group != space),
        pooled=not own_nodes,
        directions=bool(own_space) and room != "vectors",
        raw=bool(raw),
    )


def _apart(seat: _Seat, space: Group | None) -> list[_Seat]:
    """The seat; where the space keeps an axis, vectors in the plane that it turns, and apart from them the heights.

    Along an axis that is kept, coordinates are scalars. Each of both is scaled and judged by its own size: points above
    each other have no direction in the plane, whatever rounding leaves there.
    """
    if space is None or seat.room != "vectors" or not space.kept_axes:
        return [seat]
    heights = replace(seat, room="scalars", front=seat.front[:-1], coordinates=space.kept_axes)
    return [replace(seat, coordinates=turned_axes(space)), heights]


def _length(value: Tensor, axis: int) -> Tensor:
    """Length along an axis, which is kept; the gradient is finite at zero."""
    square = value.square().sum(axis, keepdim=True)
    return torch.where(square > 0, torch.where(square > 0, square, 1.0).sqrt(), 0.0)


def _joined(parts: list[Tensor]) -> Tensor | None:
    """Features of all inputs as channels of one tensor; None where there are none."""
    if not parts:
        return None
    if len(parts) == 1:
        return parts[0]
    return torch.cat(parts, -1)


def _broadcast(value: Tensor, nodes: int) -> Tensor:
    """Features of the whole input, stored for one node, repeated for all."""
    if value.shape[1] != 1 or nodes == 1:
        return value
    return value.expand(value.shape[0], nodes, *value.shape[2:])


def _mean(value: Tensor, mask: Tensor | None, axis: int) -> Tensor:
    """Mean over the nodes of an axis that exist; zero where there are none."""
    if mask is None:
        if not value.shape[axis]:
            return value.sum(axis, keepdim=True)
        return value.mean(axis, keepdim=True)
    view = mask.reshape(mask.shape[0], *[1] * (axis - 1), mask.shape[-1], *[1] * (value.ndim - axis - 1))
    return (value * view).sum(axis, keepdim=True) / view.sum(axis, keepdim=True).clamp_min(1)


def _chained(lists: list[EdgeList]) -> EdgeList | None:
    """One list of all edges; those of each list are a kind of their own."""
    if not lists:
        return None
    if len(lists) == 1:
        return lists[0]
    kinds: list[Tensor] = []
    for place, edges in enumerate(lists):
        kinds.append(torch.nn.functional.pad(edges.kind, (place, len(lists) - 1 - place)))
    starts = [edges.start for edges in lists]
    ends = [edges.end for edges in lists]
    return EdgeList(torch.cat(starts), torch.cat(ends), torch.cat(kinds))


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


def check_features(features: Any, x: Inputs, group: Group) -> dict[Group, Any]:
    """The features of a net by factor, checked; a lone tensor serves a single factor, E(d) gets the centroid.

    Raises:
        TypeError, ValueError: a factor is missing, or the type, dtype or shape of its features does not fit; names the
            factor and what was expected.
    """
    if not isinstance(features, Mapping):
        if len(group.factors) > 1:
            raise TypeError(f"net: expected a dict of features by factor, got {type(features).__name__}")
        features = {group.factors[0]: features}
    checked: dict[Group, Any] = {}
    for f in group.factors:
        slots = f.feature_slots
        if f not in features:
            if slots:
                raise ValueError(f"net: expected features for {f!r}, got only {', '.join(map(repr, features))}")
            checked[f] = torch.zeros(x.count, dtype=x.dtype, device=x.device)  # nothing to choose
            continue
        value = features[f]
        if not f.anchored:
            checked[f] = _checked(value, f, x, slots)
            continue
        if isinstance(value, Tensor):
            value = (centroid(x, f), value)
        if not isinstance(value, tuple) or len(value) != 2:
            raise TypeError(f"net: expected vectors of {f!r}, or (origin, vectors), got {type(value).__name__}")
        origin, vectors = value
        checked[f] = (_checked(origin, f, x, slots[:1]), _checked(vectors, f, x, slots))
    return checked


def _checked(value: Any, factor: Group, x: Inputs, slots: tuple[Slot | None, ...]) -> Tensor:
    """Features along the given slots of a factor, in the dtype of the inputs.

    The slots tell how long each axis is; an axis of None, such as that of columns, may have any length.
    """
    # 1. a tensor of the right kind of numbers
    if not isinstance(value, Tensor):
        raise TypeError(f"net: expected a tensor of features of {factor!r}, got {type(value).__name__}")
    wants_complex = any(slot is not None and slot.is_complex for slot in slots)
    if value.is_complex() != wants_complex:
        wanted = "complex" if wants_complex else "real"
        raise TypeError(f"net: expected {wanted} features of {factor!r}, got {value.dtype}")

    # 2. of the right shape
    layout: Layout | None = x.layouts.get(factor)  # type: ignore[call-overload]
    ragged = layout is not None and layout.ragged
    wanted_sizes: list[int | None] = [] if ragged else [x.count]
    for slot in slots:
        if slot is None:
            wanted_sizes.append(None)
        elif layout is not None and slot.role == "nodes":
            wanted_sizes.append(layout.size)
        else:
            wanted_sizes += slot.sizes
    if not _fits(value, wanted_sizes):
        shown = ", ".join("M" if n is None else str(n) for n in wanted_sizes)
        if len(wanted_sizes) == 1:
            shown += ","
        raise ValueError(f"net: expected features of {factor!r} of shape ({shown}), got {tuple(value.shape)}")

    # 3. in the precision of the inputs
    if value.is_complex():
        return value.to(complex_dtype(x.dtype))
    wide = value.to(x.dtype)
    if not value.is_floating_point() or torch.finfo(value.dtype).eps <= torch.finfo(x.dtype).eps:
        return wide

    # 4. if the net computes in a narrower one: what it cannot tell apart must not be told apart later
    eps = torch.finfo(value.dtype).eps
    if factor.feature_kind == "columns" and len(wanted_sizes) == 3:
        return _settled_columns(wide, eps)
    if layout is not None:
        return _raised_scores(wide, eps, layout)
    return wide


def _fits(value: Tensor, sizes: list[int | None]) -> bool:
    """Whether a tensor has axes of these sizes; None for any size."""
    if len(sizes) != value.ndim:
        return False
    for wanted, size in zip(sizes, value.shape, strict=True):
        if wanted is not None and wanted != size:
            return False
    return True


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
        if mask is None:
            size = extent(padded)
        else:
            size = extent(padded.masked_fill(~mask, 0))
        raised = (size * share(eps) / tolerance(scores.dtype)).expand_as(padded)
    return scores + layout.unpad(raised, 0)


__all__ = ["NodeFeatures", "Viewpoint", "adjacency", "check_features", "node_features", "spatial"]
