"""How the arguments of a call are bound to their Reps: guarded, checked, and read for how their nodes are stored.

`bind` is the way through, from top to bottom; every step takes the call and returns it with one thing settled.
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from probsym.reps import containers
from probsym.reps.bookkeeping import graphs_told
from probsym.reps.channels import refuse_channels_first
from probsym.reps.containers import Path
from probsym.reps.layout import Layout
from probsym.reps.nodes import NodeAxis
from probsym.reps.undeclared import guarded
from probsym.reps.values import without_padding

if TYPE_CHECKING:
    from probsym.reps.inputs import Inputs, Leaf


def bind(x: Inputs) -> Inputs:
    """A call whose arguments fit their Reps, with the layout of every node axis and zeros at the padding.

    Raises:
        ValueError, TypeError: an argument is missing, or its rank, size or dtype does not fit its Rep; names it.
    """
    # 1. No undeclared tensor can be read.
    x = _guarded(x)
    # 2. Every argument has the rank, the sizes that the groups know, and a dtype that its Rep takes.
    for leaf in x.leaves.values():
        _check_leaf(leaf)
    # 3. Node numbers of 32 or 64 bits, so that those of all samples fit, and can be an index.
    x = _with_long_labels(x)
    # 4. How every node axis is stored. Inputs that name no axis may have to wait for the number of inputs.
    for axis in x.signature.node_axes:
        x.layouts[axis] = _layout(x, axis)
    # 5. As many inputs and nodes everywhere.
    _check_sizes(x)
    # 6. Whose edges the values on edges belong to, and 7. no value where there is no node and no edge.
    return without_padding(_with_edges_told_apart(x))


# ---------------------------------------------------------------- 1 to 3: each argument alone


def _guarded(x: Inputs) -> Inputs:
    """The same call, in which no undeclared tensor can be read."""
    markers: list[Path] = []
    missing: list[str] = []
    for axis in x.signature.node_axes:
        path = x.path_of_marker(axis)
        if path is not None:
            markers.append(path)
        elif axis.marker is not None:
            missing.append(repr(axis.marker))
    values = guarded(x.values, x.signature.spec, markers, missing)
    return x if values is x.values else replace(x, values=values)


def _check_leaf(leaf: Leaf) -> None:
    rep, value = leaf.rep, leaf.value
    if not isinstance(value, Tensor):
        raise TypeError(f"{leaf.name}: expected a tensor for {rep!r}, got {type(value).__name__}")
    need = rep.batch_dims + rep.ndim
    if value.ndim < need:
        raise ValueError(
            f"{leaf.name}: expected at least {need} axes (batch, then those of {rep!r}), got shape {tuple(value.shape)}"
        )
    # Exchanged axes are told before a size, a mask or a batch vector is blamed for them.
    if rep.is_image:
        refuse_channels_first(leaf.name, rep, tuple(value.shape))
    rep.check_sizes(leaf.name, value, {})
    if rep.is_complex and not value.is_complex():
        raise TypeError(f"{leaf.name}: expected a complex dtype for {rep!r}, got {value.dtype}")
    if rep.requires_float and not value.is_floating_point() and not rep.is_complex:
        raise TypeError(f"{leaf.name}: expected a floating dtype for {rep!r}, got {value.dtype}")
    is_integer = not (value.is_floating_point() or value.is_complex() or value.dtype == torch.bool)
    if rep.labelled is not None and not is_integer:
        raise TypeError(f"{leaf.name}: expected integer node numbers for {rep!r}, got {value.dtype}")


def _with_long_labels(x: Inputs) -> Inputs:
    wide: dict[Path, Tensor] = {}
    for path, leaf in x.leaves.items():
        if leaf.rep.labelled is not None and leaf.value.dtype not in (torch.int32, torch.int64):
            wide[path] = leaf.value.long()
    return replace(x, values=containers.exchange(x.values, wide)) if wide else x


# ---------------------------------------------------------------- 4: layouts of the node axes


def _layout(x: Inputs, axis: NodeAxis) -> Layout:
    """How the nodes of an axis are stored in this call."""
    path = x.path_of_marker(axis)
    marker = None if path is None else containers.lookup(x.values, path, "argument ")
    size = _axis_size(x, axis)

    # ragged: without a batch vector it is one graph
    if axis.batch is not None:
        if marker is None:
            return _layout_of_one_graph(x, axis, size)
        if marker.dtype in (torch.uint8, torch.int8, torch.int16):
            marker = marker.long()  # numbers of all samples must fit, and bytes would be taken for a mask
        if marker.dtype not in (torch.long, torch.int) or marker.shape != (size,):
            raise ValueError(
                f"argument {axis.batch!r}: expected the graph of each of {size} nodes as integers of shape ({size},), "
                f"got {marker.dtype} {tuple(marker.shape)}"
            )
        return Layout(size, None, marker, _number_of_graphs(x, axis), _graphs_of_edges(x, axis, marker))

    # padded or dense
    if axis.mask is not None and marker is None:
        raise ValueError(f"argument {axis.mask!r} is missing: {axis!r} names it as the mask of its nodes")
    if marker is not None and (marker.dtype != torch.bool or marker.ndim != 2 or marker.shape[1] != size):
        raise ValueError(
            f"argument {axis.mask!r}: expected a bool mask of shape (B, {size}), "
            f"got {marker.dtype} {tuple(marker.shape)}"
        )
    return Layout(size, marker)


def _axis_size(x: Inputs, axis: NodeAxis) -> int:
    """Length of the axis in memory, from whatever tells it."""
    # an input with one entry per node
    for leaf in x.leaves.values():
        for slot, place in leaf.rep.axes:
            if slot.role == "nodes" and slot.group == axis:
                return leaf.value.shape[leaf.rep.batch_dims + place]
    # the mask or the batch vector
    path = x.path_of_marker(axis)
    if path is not None:
        return containers.lookup(x.values, path, "argument ").shape[-1]
    # the axis itself
    if axis.size is not None:
        return axis.size
    # a lone graph of PyG knows how many nodes it has
    for path, leaf in x.leaves.items():
        if axis in (leaf.rep.labelled, leaf.rep.ragged):
            counted = containers.read(containers.lookup(x.values, path[:-1], "argument "), "num_nodes")
            if isinstance(counted, int):
                return counted
    raise ValueError(f"{axis!r}: no input has this axis, so its size is unknown; declare one, or give S(n)")


def _layout_of_one_graph(x: Inputs, axis: NodeAxis, size: int) -> Layout:
    """The layout of a ragged axis whose batch vector is missing: all of its nodes are one graph, of one input."""
    count = _number_of_graphs(x, axis)
    if size and count != 1:
        raise ValueError(
            f"argument {axis.batch!r} is missing: {axis!r} names it as the graph of each node, and there are {count} "
            "inputs"
        )
    marker = torch.zeros(size, dtype=torch.long, device=x.device)
    return Layout(size, None, marker, count, _graphs_of_edges(x, axis, marker))


def _number_of_graphs(x: Inputs, axis: NodeAxis) -> int:
    """Number of inputs of a ragged batch.

    Graphs at its end may have no nodes on this axis, so that others are asked first. The batch vectors of all axes
    count together: samples are as many graphs apart, and a model looks for the graph of one axis on another.
    """
    # 1. PyG's objects know it, that of this axis before those of others.
    batches: list[Tensor] = []
    for other in (axis, *x.signature.node_axes):
        path = x.path_of_marker(other) if other.batch is not None else None
        if path is None:
            continue
        holder = containers.lookup(x.values, path[:-1], "argument ")
        told = graphs_told(holder)
        if told is not None:
            return told
        batches.append(containers.lookup(x.values, path, "argument "))

    # 2. So do inputs with a row for each.
    for leaf in x.leaves.values():
        if leaf.rep.batch_dims == 1:
            return leaf.value.shape[0]

    # 3. Without any batch vector it is one. Else it is the largest number; what is no batch vector is refused where
    # its own axis is read.
    if not batches:
        return 1
    largest = -1
    for batch in batches:
        if batch.numel() and not (batch.is_floating_point() or batch.is_complex()):
            largest = max(largest, int(batch.max()))
    return largest + 1


def _graphs_of_edges(x: Inputs, axis: NodeAxis, batch: Tensor) -> dict[Path, Tensor]:
    """The graph of each edge, for every tensor of node numbers (2, E) on a ragged axis."""
    graphs: dict[Path, Tensor] = {}
    for path, leaf in x.leaves.items():
        if leaf.rep.labelled == axis and leaf.value.ndim > 1:
            graphs[path] = graphs_of_labels(leaf.value, batch, 0)
    return graphs


def graphs_of_labels(labels: Tensor, batch: Tensor, count: int) -> Tensor:
    """The graph of each edge of node numbers (2, E), or of each one of a list (E,).

    Negative numbers are padding, which may belong to any graph; in a list of one number per input to that input.
    """
    if labels.ndim == 1 and len(labels) == count:
        every = torch.arange(count, device=labels.device)
        return torch.where(labels < 0, every, batch[labels.clamp_min(0)]) if len(batch) else every
    if not len(batch):
        return torch.zeros(labels.shape[-1], dtype=torch.long, device=labels.device)
    first = labels if labels.ndim == 1 else labels.flatten(0, -2).amax(0)
    return batch[first.clamp(0, len(batch) - 1)]


# ---------------------------------------------------------------- 5: sizes


def _check_sizes(x: Inputs) -> None:
    for axis, layout in x.layouts.items():
        if layout.mask is not None and layout.mask.shape[0] != x.count:  # `len` fixes the size of an export
            raise ValueError(
                f"argument {axis.mask!r}: expected a bool mask of shape ({x.count}, {layout.size}), as long as "
                f"the other inputs, got {tuple(layout.mask.shape)}"
            )
        if layout.ragged and layout.count != x.count:
            raise ValueError(
                f"argument {axis.batch!r}: expected the nodes of {x.count} graphs, as many as the other inputs have, "
                f"got those of {layout.count}"
            )
    for leaf in x.leaves.values():
        if leaf.rep.batch_dims == 1 and leaf.value.shape[0] != x.count:
            raise ValueError(
                f"{leaf.name}: expected batch size {x.count} on axis 0, got shape {tuple(leaf.value.shape)}"
            )
        leaf.rep.check_sizes(leaf.name, leaf.value, x.layouts)


# ---------------------------------------------------------------- 6: sets of edges of a ragged batch


def _with_edges_told_apart(x: Inputs) -> Inputs:
    """The same call, in which every leaf on the edges of a ragged batch names the edges that it belongs to.

    Raises:
        ValueError: a leaf has another length than all edges, or may belong to several sets of edges.
    """
    whose: dict[Path, Path] = {}
    for path, leaf in x.leaves.items():
        if leaf.rep.on_edges and x.layouts[leaf.rep.ragged].edges:  # type: ignore[index]
            whose[path] = _edges_of(x, path, leaf)
    if not any(len(layout.edges) > 1 for layout in x.layouts.values()):
        return x
    carriers = tuple(whose.values())
    layouts = {axis: replace(layout, carriers=carriers) for axis, layout in x.layouts.items()}
    return replace(x, signature=x.signature.naming(whose), layouts=layouts)


def _edges_of(x: Inputs, path: Path, leaf: Leaf) -> Path:
    """Whose edges a leaf holds: those of its length; of several sets that long, the one declared last before it."""
    layout, slot = x.layouts[leaf.rep.ragged], leaf.rep.slots[0]  # type: ignore[index]
    order = list(x.leaves)
    before = [
        edges
        for edges in layout.edges
        if slot.means(edges) and order.index(edges) < order.index(path)  # type: ignore[union-attr]
    ]
    if before and len(layout.edges[before[-1]]) == len(leaf.value):
        return before[-1]
    chosen = _edges_of_length(layout, slot, leaf.name, len(leaf.value))
    if before:
        _warn_of_edges(leaf.name, chosen, before[-1])
    return chosen


def check_edges_of_output(layout: Layout, slot: Any, name: str, rows: int) -> None:
    """Whether an output with `rows` rows fits its Rep on the edges of a ragged batch.

    Raises:
        ValueError: it has another length than all edges, or may belong to several sets of edges; says so of `name`.
    """
    if not layout.edges:
        return
    chosen = _edges_of_length(layout, slot, name, rows)
    if layout.carriers and chosen not in layout.carriers and slot.of is None:
        _warn_of_edges(name, chosen, layout.carriers[-1])


def _edges_of_length(layout: Layout, slot: Any, name: str, rows: int) -> Path:
    try:
        return layout.edges_of(slot, rows)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _warn_of_edges(name: str, chosen: Path, other: Path) -> None:
    warnings.warn(
        f"{name}: taken for values on the edges of {chosen[-1]!r}, which are as many; with equally many edges those of "
        f"{other[-1]!r} would be chosen: declare it .edges_of({chosen[-1]!r})",
        UserWarning,
        stacklevel=4,
    )
