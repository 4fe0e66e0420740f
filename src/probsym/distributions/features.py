"""What a net may know of the inputs: node scalars, vectors and pairs, extracted by their Reps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from probsym.distributions.geometry import centred, centroid, dense, is_point, size, spatial
from probsym.groups import E, Group, LinearGroup, NodeAxis
from probsym.groups.axis import Nodes
from probsym.groups.euclidean import Point
from probsym.groups.orthogonal import Vector
from probsym.reps import Inputs, Leaf


@dataclass(frozen=True, eq=False)
class NodeFeatures:
    """The inputs as seen from one node axis and one space; None where there is nothing of the kind.

    Args:
        scalars: (B, N, F), invariant to every space and to every other node axis.
        vectors: (B, N, D, C), centred and scaled to unit size.
        pairs: (B, N, N, P).
        mask: (B, N), None where every node exists.
        origins: centroids (B, D) of the spaces whose points were seen.
    """

    scalars: Tensor | None
    vectors: Tensor | None
    pairs: Tensor | None
    mask: Tensor | None
    origins: Mapping[LinearGroup, Tensor]


def node_features(x: Inputs, axis: NodeAxis | None, space: LinearGroup | None) -> NodeFeatures:
    """Everything that the inputs tell about the nodes of `axis`, equivariant under the group of x.

    Without an axis there is one node an input, and axes that nothing permutes become channels.
    """
    rooms: dict[str, list[Tensor]] = {"scalars": [], "vectors": [], "pairs": []}
    origins: dict[LinearGroup, Tensor] = {}
    for leaf in x.leaves.values():
        if leaf.rep.labelled is not None:
            if leaf.rep.labelled == axis:
                rooms["pairs"].append(adjacency(x, leaf))
            continue
        room, value = _view(x, leaf, axis, space, origins)
        if room:
            rooms[room].append(value)
    nodes = 1 if axis is None else x.layouts[axis].width
    rooms = {key: [_broadcast(t, nodes) for t in found] for key, found in rooms.items()}
    joined = {key: _joined(found) for key, found in rooms.items()}
    mask = None if axis is None else x.layouts[axis].padded_mask()
    return NodeFeatures(mask=mask, origins=origins, **joined)


def _joined(found: list[Tensor]) -> Tensor | None:
    return torch.cat(found, -1) if len(found) > 1 else found[0] if found else None


def _broadcast(value: Tensor, nodes: int) -> Tensor:
    """Features of the whole input, stored for one node, repeated for all."""
    return value.expand(value.shape[0], nodes, *value.shape[2:]) if value.shape[1] == 1 else value


def _view(
    x: Inputs, leaf: Leaf, axis: NodeAxis | None, space: LinearGroup | None, origins: dict[LinearGroup, Tensor]
) -> tuple[str, Tensor]:
    """One input as scalars (B, N, F), vectors (B, N, D, C) or pairs (B, N, N, P), N = 1 for the whole input."""
    slots = [slot for slot, _ in leaf.rep.axes]
    mine = [slot for slot in slots if isinstance(slot, Nodes) and slot.group == axis]
    directed = [slot for slot in slots if isinstance(slot, Point | Vector)]
    strange = any(not isinstance(slot, Nodes | Point | Vector) for slot in slots)
    if strange or len(mine) > 2 or len(directed) > 1:
        return "", leaf.value
    value = _normalised(x, leaf, origins)
    own = bool(directed) and directed[0].group == space
    value = _arranged(x, leaf, value, axis, own)
    if own and len(mine) < 2:
        return "vectors", value.unsqueeze(1) if not mine else value
    if own:
        value = value.square().sum(3).sqrt() if value.numel() else value.sum(3)
    return ("scalars", value.unsqueeze(1)) if not mine else ("scalars" if len(mine) == 1 else "pairs", value)


def _normalised(x: Inputs, leaf: Leaf, origins: dict[LinearGroup, Tensor]) -> Tensor:
    """Points and vectors centred and scaled to unit size, other values as they are, as (B, ...)."""
    value = dense(x, leaf)
    for slot, place in leaf.rep.axes:
        if isinstance(slot, Point | Vector):
            if is_point(leaf, slot.group) and slot.group not in origins:
                origins[slot.group] = centroid(x, slot.group)
            cols, present = centred(x, leaf, slot.group, origins.get(slot.group))
            cols = cols / size(cols, present)[:, None, None]
            value = cols.reshape(value.movedim(place + 1, 1).shape).movedim(1, place + 1)
    return value


def _arranged(x: Inputs, leaf: Leaf, value: Tensor, axis: NodeAxis | None, own: bool) -> Tensor:
    """Axes in the order (B, N?, N?, D?, channels); foreign node axes are averaged, foreign spaces become lengths."""
    ahead: list[int] = []
    last: list[int] = []
    for slot, place in leaf.rep.axes:
        if isinstance(slot, Nodes) and slot.group == axis:
            ahead.append(place + 1)
        elif isinstance(slot, Nodes):
            mask = x.layouts[slot.group].padded_mask()
            value = _mean(value, mask, place + 1)
        elif isinstance(slot, Point | Vector) and own:
            last.append(place + 1)
        elif isinstance(slot, Point | Vector):
            square = value.square().sum(place + 1, keepdim=True)
            value = torch.where(square > 0, torch.where(square > 0, square, 1.0).sqrt(), 0.0)
    front = [0, *ahead, *last]
    rest = [i for i in range(value.ndim) if i not in front]
    value = value.permute(*front, *rest)
    return value.reshape(*value.shape[: len(front)], math.prod(value.shape[len(front) :]))


def _mean(value: Tensor, mask: Tensor | None, axis: int) -> Tensor:
    if mask is None:
        return value.mean(axis, keepdim=True) if value.shape[axis] else value.sum(axis, keepdim=True)
    view = mask.reshape(mask.shape[0], *[1] * (axis - 1), mask.shape[-1], *[1] * (value.ndim - axis - 1))
    return (value * view).sum(axis, keepdim=True) / view.sum(axis, keepdim=True).clamp_min(1)


def adjacency(x: Inputs, leaf: Leaf) -> Tensor:
    """Node numbers (2, E) or (B, 2, E) as counted edges (B, N, N, 1); negative numbers are padding."""
    layout = x.layouts[leaf.rep.labelled]  # type: ignore[index]
    n, labels = layout.width, leaf.value.long()
    if layout.ragged:
        keep = (labels >= 0).all(0)
        start, end = layout.position[labels[0].clamp_min(0)], layout.position[labels[1].clamp_min(0)]
        flat = start * n + end % max(n, 1)
    else:
        keep = (labels >= 0).all(1)
        first = torch.arange(labels.shape[0], device=labels.device)[:, None] * n
        flat = (first + labels[:, 0].clamp_min(0)) * n + labels[:, 1].clamp_min(0)
    counts = torch.zeros(x.count * n * n, dtype=x.dtype, device=x.device)
    counts = counts.index_add(0, flat.reshape(-1), keep.reshape(-1).to(x.dtype))
    return counts.reshape(x.count, n, n, 1)


def check_features(found: Any, x: Inputs, group: Group) -> dict[Group, Any]:
    """The features of a net by factor, checked; a lone tensor serves a single factor, E(d) gets the centroid.

    Raises:
        TypeError, ValueError: a factor is missing or a shape does not fit; names the factor.
    """
    factors = group.factors
    if not isinstance(found, Mapping):
        if len(factors) > 1:
            raise TypeError(f"net: expected a dict of ambient features by factor, got {type(found).__name__}")
        found = {factors[0]: found}
    checked: dict[Group, Any] = {}
    for f in factors:
        if f not in found and not f.ambient:
            checked[f] = torch.zeros(x.count, dtype=x.dtype, device=x.device)
            continue
        if f not in found:
            raise ValueError(f"net: expected ambient features for {f!r}, got only {', '.join(map(repr, found))}")
        value = found[f]
        if isinstance(f, E) and isinstance(value, Tensor):
            value = (centroid(x, f), value)
        want, parts = _ambient_shape(x, f), value if isinstance(value, tuple) else (value,)
        for tensor in parts:
            columns = isinstance(f, LinearGroup) and tensor is parts[-1]
            ranked = not isinstance(f, LinearGroup | NodeAxis) or tensor.ndim == len(want) + columns
            if not ranked or tuple(tensor.shape[: len(want)]) != want:
                shape = f"{want[:-1]} + ({want[-1]}, M)" if columns else f"{want}"
                raise ValueError(f"net: expected features of {f!r} of shape {shape}, got {tuple(tensor.shape)}")
        checked[f] = tuple(t.to(x.dtype) for t in value) if isinstance(value, tuple) else value.to(x.dtype)
    return checked


def _ambient_shape(x: Inputs, factor: Group) -> tuple[int, ...]:
    if isinstance(factor, NodeAxis):
        layout = x.layouts[factor]
        return (layout.size,) if layout.ragged else (x.count, layout.size)
    return (x.count, factor.dim) if isinstance(factor, LinearGroup) else (x.count,)


__all__ = ["NodeFeatures", "adjacency", "check_features", "node_features", "spatial"]
