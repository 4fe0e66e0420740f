"""Columns, centroids and sizes of the points and vectors among the inputs."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from probsym.groups import Group, Slot
from probsym.kernels.sizes import of_unit_size
from probsym.kernels.values import may_peek
from probsym.nets.rounding import NOISE
from probsym.reps import Inputs, Layout, Leaf, NodeAxis


def spatial(x: Inputs, space: Group) -> list[Leaf]:
    """The inputs with one axis of `space` that holds points or vectors, and no other slot of it.

    Of inputs that consist of several things on one axis, such as a pose, each of these is one.
    """
    seen: list[Leaf] = []
    for leaf in x.leaves.values():
        for piece in pieces(leaf):
            if _roles(piece, space) in (["point"], ["vector"]):
                seen.append(piece)
    return seen


def pieces(leaf: Leaf) -> list[Leaf]:
    """What an input consists of, each with a name and a Rep of its own; most inputs are one thing."""
    if not leaf.rep.pieces:
        return [leaf]
    axis = leaf.rep.batch_dims + leaf.rep.pieces[0].place
    values = leaf.value.split([piece.length for piece in leaf.rep.pieces], axis)
    parts: list[Leaf] = []
    for number, piece in enumerate(leaf.rep.pieces):
        parts.append(Leaf(f"{leaf.name}[{number}]", piece.rep, values[number].unflatten(axis, piece.shape)))
    return parts


def put_together(leaf: Leaf, values: list[Tensor]) -> Tensor:
    """The inverse of `pieces`: their values on the one axis of an input."""
    if not leaf.rep.pieces:
        return values[0]
    axis = leaf.rep.batch_dims + leaf.rep.pieces[0].place
    flat: list[Tensor] = []
    for value, piece in zip(values, leaf.rep.pieces, strict=True):
        flat.append(value.flatten(axis, axis + len(piece.shape) - 1))
    return torch.cat(flat, axis)


def is_point(leaf: Leaf, space: Group) -> bool:
    """Whether an input holds points of `space`."""
    return _roles(leaf, space) == ["point"]


def _roles(leaf: Leaf, space: Group) -> list[str | None]:
    """What the slots of a space hold on the axes of an input."""
    return [slot.role for slot, _ in leaf.rep.axes if slot.group == space]


def space_slot(leaf: Leaf) -> Slot | None:
    """The first slot along which points or vectors lie."""
    for slot, _ in leaf.rep.axes:
        if slot.role in ("point", "vector"):
            return slot
    return None


def place_of(leaf: Leaf, space: Group) -> int:
    """The place of the first axis of a space, after the batch."""
    for slot, place in leaf.rep.axes:
        if slot.group == space:
            return place
    raise ValueError(f"{leaf.name}: expected an axis of {space!r}, got {leaf.rep!r}")


def dense(x: Inputs, leaf: Leaf) -> Tensor:
    """The value with ragged node axes padded: (B, ...) always, in at least float32."""
    value = leaf.value.to(x.dtype)
    axis = leaf.rep.ragged
    if axis is None:
        return value
    return x.layouts[axis].pad(value, 0)


def columns(x: Inputs, leaf: Leaf, space: Group) -> tuple[Tensor, Tensor | None]:
    """Points or vectors of one input as columns (B, D, M), and which of them exist (B, M), None for all."""
    # 1. the space comes first, everything else makes columns
    value = dense(x, leaf)
    place = 1 + place_of(leaf, space)
    value = value.movedim(place, 1)
    rest = value.shape[2:]
    count = math.prod(rest)

    # 2. a column exists if all of its nodes do
    present: Tensor | None = None
    for nodes, axis in node_axes(leaf):
        mask = x.layouts[nodes].padded_mask()
        if mask is None:
            continue
        # its place in (B, ...) without the axis of the space
        axis = axis + 1 if axis + 1 < place else axis
        mask = mask.reshape(mask.shape[0], *[1] * (axis - 1), mask.shape[-1], *[1] * (len(rest) - axis))
        present = mask if present is None else present & mask
    if present is not None:
        present = present.expand(value.shape[0], *rest).reshape(value.shape[0], count)
    return value.reshape(*value.shape[:2], count), present


def centroid(x: Inputs, space: Group) -> Tensor:
    """Mean of all points (B, D); zero where an input has none.

    Raises:
        ValueError: no input holds points of `space`.
    """
    # 1. the points of nodes; those on edges do not count
    clouds: list[Leaf] = []
    for leaf in spatial(x, space):
        if is_point(leaf, space) and not leaf.rep.on_edges:
            clouds.append(leaf)
    if not clouds:
        raise ValueError(
            f"{space!r} moves points, but no input is declared as points: expected one such as Rep(nodes, "
            f"{space.name or 'space'}); vectors alone need a group without translations, such as O(3) or SO(3)"
        )

    # 2. their sum over their number
    total, number = _sum(x, clouds[0], space)
    for leaf in clouds[1:]:
        more, points = _sum(x, leaf, space)
        total = total + more
        number = number + points
    if isinstance(number, int):
        return total / max(number, 1)
    return total / number.clamp_min(1).unsqueeze(-1)


def _sum(x: Inputs, leaf: Leaf, space: Group) -> tuple[Tensor, Tensor | int]:
    """Sum (B, D) of the points or vectors of each input, and their number: (B,), or the same for all."""
    axis = 1 + place_of(leaf, space)
    layout = packed_layout(x, leaf)

    # 1. nodes of a ragged batch: what each holds, (sum N, D), is added up by graph
    if layout is not None:
        value = leaf.value.to(x.dtype)
        others = [i for i in range(1, value.ndim) if i != axis - 1]
        each = value
        if others:
            each = value.sum(others)
        total = each.new_zeros(x.count, each.shape[-1]).index_add(0, x.owner(leaf), each)
        return total, layout.sizes * math.prod(value.shape[i] for i in others)

    # 2. any other: along the rows of each input, without padding
    value = dense(x, leaf)
    present = presence(x, leaf)
    others = [i for i in range(1, value.ndim) if i != axis]
    total = value
    if present is not None:
        total = value.masked_fill(~present, 0)
    if others:
        total = total.sum(others)
    return total, _number(value, axis, present)


def packed_layout(x: Inputs, leaf: Leaf) -> Layout | None:
    """The layout of a ragged input whose rows are nodes and that has no other node axis; None for any other."""
    axis = leaf.rep.ragged
    if axis is None or leaf.rep.on_edges or len(leaf.rep.nodes) != 1:
        return None
    return x.layouts[axis]


def _number(value: Tensor, axis: int, present: Tensor | None) -> Tensor | int:
    """How many points or vectors along `axis` each input holds."""
    shape = value.shape[1:axis] + value.shape[axis + 1 :]
    if present is None:
        return math.prod(shape)
    copies = math.prod(shape) // max(math.prod(present.shape[1:]), 1)
    return present.flatten(1).sum(1) * copies


def presence(x: Inputs, leaf: Leaf) -> Tensor | None:
    """Which entries of `dense` exist, shaped to broadcast on it; None for all."""
    ndim = 1 + leaf.rep.ndim + len(leaf.channels)
    present: Tensor | None = None
    for axis, places in leaf.rep.nodes:
        mask = x.layouts[axis].padded_mask()
        if mask is None:
            continue
        for place in places:
            view = mask.reshape(mask.shape[0], *[1] * place, mask.shape[1], *[1] * (ndim - place - 2))
            present = view if present is None else present & view
    return present


def unit(
    x: Inputs, leaf: Leaf, value: Tensor, space: Group, origin: Tensor | None, layout: Layout | None = None
) -> tuple[Tensor, Tensor | None]:
    """Points and vectors about the origins (B, D), scaled to root mean square length one, and their rounding (B,).

    Points that lie closer to their origin than the rounding of their coordinates tells become zero, and so does
    padding. The rounding is relative to the size after scaling; where the origin is far, little else may be left. It is
    None where it is that of the dtype of the inputs.

    Args:
        value: (B, ...), or with the `layout` of a ragged batch (1, sum N, ...).
    """
    axis = 1 + place_of(leaf, space)
    present = presence(x, leaf) if layout is None else None

    # 1. centred; padding is zero
    if origin is not None:
        value = value - _laid_out(origin, value, layout, axis)
    if present is not None:
        value = value.masked_fill(~present, 0)

    # 2. of root mean square length one
    if layout is None:
        number = _number(value, axis, present)
    else:
        number = layout.sizes * (value[:1, :1].numel() // value.shape[axis])
    value, extent, scale = _scaled(x, value, number, layout)

    # 3. zero where that is rounding of the coordinates
    with torch.no_grad():
        eps = torch.finfo(x.dtype).eps
        if leaf.value.is_floating_point():
            eps = torch.finfo(leaf.value.dtype).eps
        if origin is None and eps > torch.finfo(x.dtype).eps:
            return value, torch.full_like(extent, eps)
        if origin is None:
            return value, None
        # coordinates of the size of the origin have lost as much, next to the size of the cloud
        away = torch.linalg.vector_norm(origin, torch.inf, -1) / extent
        if scale is not None:
            away = away / scale
        rounding = away * eps + eps
        if may_peek(value) and rounding.numel() and NOISE * float(rounding.max()) < 1:
            return value, rounding
        real = rounding < 1 / NOISE
    value = value * _laid_out(real, value, layout)
    return value, torch.where(real, rounding, eps)


def _scaled(
    x: Inputs, value: Tensor, number: Tensor | int, layout: Layout | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """A value divided by its root mean square length, which is `extent` (B,), times `scale` if there is one."""
    count: Tensor | int
    if isinstance(number, Tensor):
        count = number.clamp_min(1).to(value.dtype)  # its root would have the default dtype
    else:
        count = max(number, 1)

    # 1. by its root mean square at once, where no square leaves the range of its dtype
    if may_peek(value) and value.numel():
        if layout is None:
            length = torch.linalg.vector_norm(value.flatten(1), dim=1)
        else:
            length = _over_inputs(value.square(), layout, x.count).sqrt()
        extent = length / count**0.5
        least, largest = torch.aminmax(extent.detach())
        if float(least) > torch.finfo(extent.dtype).tiny ** 0.25 and float(largest) < math.inf:
            return value / _laid_out(extent, value, layout), extent, None

    # 2. otherwise first by its largest entry
    if layout is None and isinstance(count, int) and value.numel():
        value, extent = of_unit_size(value, tuple(range(1, value.ndim)), count)
        return value, extent.flatten(), None
    scale = _over_inputs(value.detach().abs(), layout, x.count, largest=True)
    scale = torch.where(scale > 0, scale, 1.0)
    value = value / _laid_out(scale, value, layout)
    extent = root(_over_inputs(value.square(), layout, x.count) / count)
    return value / _laid_out(extent, value, layout), extent, scale


def _laid_out(each: Tensor, value: Tensor, layout: Layout | None, axis: int = 0) -> Tensor:
    """Numbers (B,) of each input, or vectors (B, D) that lie along an axis, to be broadcast on the value."""
    shape = [1] * value.ndim
    if each.ndim == 2:
        shape[axis] = each.shape[1]
    if layout is None:
        shape[0] = -1
        return each.reshape(shape)
    # a ragged batch (1, sum N, ...): every node has the numbers of its graph
    shape[1] = -1
    return each.index_select(0, _graph_of(layout)).reshape(shape)


def _graph_of(layout: Layout) -> Tensor:
    """The graph of every node of a ragged batch."""
    if layout.batch is None:
        raise ValueError("expected a ragged batch, got nodes without a batch vector")
    return layout.batch


def _over_inputs(value: Tensor, layout: Layout | None, count: int, largest: bool = False) -> Tensor:
    """Sum or largest of all entries of each input: (B, ...), or in a ragged batch (1, sum N, ...), to (B,)."""
    # 1. over the entries of each row: an input, or a node of a ragged batch
    rows = value if layout is None else value[0]
    rows = rows.flatten(1)
    if largest and rows.shape[1]:
        each = rows.amax(1)
    else:
        each = rows.sum(1)
    if layout is None:
        return each

    # 2. over the nodes of each graph
    over_graphs = each.new_zeros(count)
    if largest:
        return over_graphs.scatter_reduce(0, _graph_of(layout), each, "amax")
    return over_graphs.index_add(0, _graph_of(layout), each)


def exists(value: Tensor, present: Tensor | None) -> Tensor:
    """Which of the columns (B, D, M) exist, as a tensor (B, M)."""
    if present is not None:
        return present
    return torch.ones(value.shape[0], value.shape[-1], dtype=torch.bool, device=value.device)


def size(value: Tensor, present: Tensor | None) -> Tensor:
    """Root mean square length (B,) of the columns (B, D, M) that exist; one where all are zero."""
    if not value.shape[-1]:
        return torch.ones_like(value[:, 0].sum(-1))
    number: Tensor | int = value.shape[-1]
    if present is not None:
        value = value.masked_fill(~present[:, None], 0)
        number = present.sum(-1).clamp_min(1)
    # relative to the largest entry, whose square may be out of range
    largest = value.detach().abs().amax((1, 2))
    largest = torch.where(largest > 0, largest, 1.0)
    square = (value / largest[:, None, None]).square().sum((1, 2))
    return root(square / number) * largest


def root(square: Tensor) -> Tensor:
    """The root of a mean square, one where it is zero; finite gradient."""
    if may_peek(square) and bool((square > 0).all()):
        return square.sqrt()
    return torch.where(square > 0, torch.where(square > 0, square, 1.0).sqrt(), 1.0)


def centred(x: Inputs, leaf: Leaf, space: Group, origin: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """`columns` with the origin (B, D) subtracted from points and padding set to zero."""
    value, present = columns(x, leaf, space)
    if origin is not None and is_point(leaf, space):
        value = value - origin[..., None]
    if present is not None:
        value = value * present[:, None]
    return value, present


def node_axes(leaf: Leaf) -> list[tuple[NodeAxis, int]]:
    """The node axes of one input with their places after the batch, in order."""
    return [(slot.group, place) for slot, place in leaf.rep.axes if slot.role == "nodes"]  # type: ignore[misc]
