"""Values of the inputs: padding that never matters, and what is refused at every call."""

from __future__ import annotations

import cmath
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from probsym.kernels.values import may_peek
from probsym.reps import containers
from probsym.reps.containers import Path
from probsym.reps.layout import Layout
from probsym.reps.nodes import NodeAxis

if TYPE_CHECKING:
    from probsym.reps.inputs import Inputs, Leaf


# ---------------------------------------------------------------- padding


def without_padding(x: Inputs) -> Inputs:
    """The same call with zeros where there is no node and no edge, whatever stood there: NaN times zero is NaN."""
    changes: dict[Path, Tensor] = {}
    for path, leaf in x.leaves.items():
        value = leaf.value
        batch_dims = leaf.rep.batch_dims
        for axis, places in leaf.rep.nodes:
            value = x.layouts[axis].clear(value, batch_dims, *(batch_dims + place for place in places))
        for slot, place in leaf.rep.axes:
            if slot.role != "edges":
                continue
            absent = _absent_edges(x, leaf, slot, batch_dims + place)
            if absent is None:
                continue
            # (B, E) or (E,) with axes of length one for all others
            shape = [*absent.shape[:batch_dims], *[1] * (value.ndim - batch_dims)]
            shape[batch_dims + place] = absent.shape[-1]
            value = value.masked_fill(absent.reshape(shape), 0)
        if value is not leaf.value:
            changes[path] = value
    if not changes:
        return x
    return type(x)(containers.exchange(x.values, changes), x.signature, x.layouts)


def _absent_edges(x: Inputs, leaf: Leaf, slot: Any, axis: int) -> Tensor | None:
    """Which edges (E,) or (B, E) are padding, by negative node numbers; None where none is known to be."""
    layout: Layout = x.layouts[slot.group]
    rows = leaf.value.shape[axis]
    if layout.ragged:
        paths = [layout.edges_of(slot, rows)] if layout.edges else []
    else:
        paths = []
        for path, other in x.leaves.items():
            if other.rep.labelled == slot.group and slot.means(path) and other.value.shape[2:] == (rows,):
                paths.append(path)
    if len(paths) != 1:
        return None
    absent = (x.leaves[paths[0]].value < 0).any(-2)
    if may_peek(absent) and not bool(absent.any()):
        return None
    return absent


# ---------------------------------------------------------------- checks


def check_values(x: Inputs) -> None:
    """Refuse NaN and infinity, node numbers out of range, edges between inputs, masks with holes, unknown graphs.

    A first look costs one sum of each tensor, and on a GPU one wait for all of them; what it leaves in doubt is looked
    at closely.

    Raises:
        ValueError: names the argument.
    """
    fine: list[Tensor | bool] = []
    for leaf in x.leaves.values():
        value = leaf.value.detach()
        if value.is_floating_point() or value.is_complex():
            fine.append(_finite_sum(value))
        elif leaf.rep.labelled is not None and value.numel():
            fine.append(_labels_fit(value, x.layouts[leaf.rep.labelled]))
    for layout in x.layouts.values():
        if layout.mask is not None:
            fine.append(~_holes(layout.mask))
        if layout.batch is not None and layout.size:
            fine.append((layout.batch >= 0).all() & (layout.batch < layout.count).all())
    if not _all(fine):
        _find_fault(x)


def _finite_sum(value: Tensor) -> Tensor | bool:
    """Whether the sum is finite: then all values are; where it overflows they may be."""
    if value.dtype in (torch.float16, torch.bfloat16):
        total = value.sum(dtype=torch.float32)
    else:
        total = value.sum()
    if total.is_cpu:
        return cmath.isfinite(total.item())
    return torch.isfinite(total)


def _all(flags: list[Tensor | bool]) -> bool:
    """Whether all are true; those on a GPU are waited for once."""
    on_gpu: list[Tensor] = []
    for flag in flags:
        if isinstance(flag, Tensor) and not flag.is_cpu:
            on_gpu.append(flag)
        elif not flag:
            return False
    return not on_gpu or bool(torch.stack(on_gpu).all())


def _find_fault(x: Inputs) -> None:
    """The closer look, argument by argument."""
    for axis, layout in x.layouts.items():
        if layout.mask is not None and bool(_holes(layout.mask)):
            raise ValueError(f"argument {axis.mask!r}: expected the nodes first and the padding last in every row")
        if layout.batch is not None and layout.size:
            _check_graphs(axis, layout)
    for leaf in x.leaves.values():
        value = leaf.value
        if (value.is_floating_point() or value.is_complex()) and not bool(torch.isfinite(value).all()):
            bad = "NaN" if bool(value.isnan().any()) else "infinite values"
            raise ValueError(f"{leaf.name}: expected finite values, got {bad}{_first_bad(x, leaf)}")
        if leaf.rep.labelled is not None and value.numel():
            _check_labels(leaf, x.layouts[leaf.rep.labelled])


def _first_bad(x: Inputs, leaf: Leaf) -> str:
    """Which input of the batch holds the first of them."""
    if x.count < 2:
        return ""
    bad = ~torch.isfinite(leaf.value)
    row = int(bad.nonzero()[0, 0])
    if leaf.rep.batch_dims == 0:
        row = int(x.owner(leaf)[row])
    return f" in input {row} of {x.count}"


def _holes(mask: Tensor) -> Tensor:
    """Whether padding comes before a node (scalar)."""
    return (mask[:, 1:] > mask[:, :-1]).any()


def _check_graphs(axis: NodeAxis, layout: Layout) -> None:
    batch: Any = layout.batch
    low, high = int(batch.min()), int(batch.max())
    if low < 0 or high >= layout.count:
        raise ValueError(
            f"argument {axis.batch!r}: expected the graph of each node as a number from 0 to {layout.count - 1}, "
            f"got numbers from {low} to {high}"
        )


def _labels_fit(labels: Tensor, layout: Layout) -> Tensor:
    """Whether node numbers are in range and the nodes of every edge in one graph (scalar)."""
    fit = labels.max() < layout.size
    if layout.batch is None or labels.ndim < 2:
        return fit
    return fit & ~_apart(labels, layout).any()


def _apart(labels: Tensor, layout: Layout) -> Tensor:
    """Node numbers (2, E) of another graph than that of the first node of their edge; negative ones are padding."""
    batch: Any = layout.batch
    owner = batch[labels.long().clamp(0, max(layout.size - 1, 0))]
    return (owner != owner[:1]) & (labels >= 0) & (labels[:1] >= 0)


def _check_labels(leaf: Leaf, layout: Layout) -> None:
    labels = leaf.value
    most = int(labels.max())
    if most >= layout.size:
        raise ValueError(f"{leaf.name}: expected node numbers below {layout.size}, got {most}")
    if layout.batch is None or labels.ndim < 2:
        return
    apart = _apart(labels, layout)
    if bool(apart.any()):
        edge = labels[:, apart.any(0)][:, 0].tolist()
        raise ValueError(f"{leaf.name}: expected the nodes of an edge in one graph, got {edge} of two graphs")
