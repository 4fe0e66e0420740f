"""What rounding alone makes of an output: its answer to the last digits of the inputs, and its size in double."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from probsym.distributions.geometry import centred, centroid, is_point, size, spatial
from probsym.reps import Inputs, Leaf

RELATIVE_TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}
COARSE_TOLERANCE = 2e-2  # below single precision
VANISHED = 1e-3  # of what an output is in single precision, in double: less is rounding
JITTER_IN_EPS = 2  # largest change of an entry


def tolerance_of(x: Inputs, outputs: list[Tensor]) -> float:
    """Relative error that counts as rounding, by the coarsest of outputs and inputs whose entries are added up."""
    kinds = [x.dtype]
    for leaf in x.leaves.values():
        if leaf.rep.requires_float:
            kinds.append(_real(leaf.value.dtype))
    for y in outputs:
        kinds.append(_real(y.dtype))
    return max(RELATIVE_TOLERANCE.get(kind, COARSE_TOLERANCE) for kind in kinds if kind.is_floating_point)


def jittered(x: Inputs, generator: torch.Generator) -> Inputs:
    """The inputs changed at random by their rounding; that of a vector is relative to its largest coordinate."""

    def changed(leaf: Leaf) -> Tensor:
        value = leaf.value
        if not (value.is_floating_point() or value.is_complex()):
            return value

        # 1. what the rounding of each entry is relative to
        extent = value.detach().abs()
        for slot, place in leaf.rep.axes:
            turns = slot.role in ("point", "vector") or not slot.group.finite
            if turns and slot.role != "nodes":
                for axis in range(place, place + slot.num_axes):
                    extent = extent.amax(leaf.rep.batch_dims + axis, keepdim=True)

        # 2. a uniform step of a few of its last digits; of complex numbers, one for both parts
        noise = torch.rand(value.shape, generator=generator, device=value.device, dtype=torch.float64)
        step = torch.finfo(_real(value.dtype)).eps * (2 * noise - 1) * extent.double()
        if value.is_complex():
            return (value.to(torch.complex128) + JITTER_IN_EPS * step * (1 + 1j)).to(value.dtype)
        return (value.double() + JITTER_IN_EPS * step).to(value.dtype)

    return x.map(changed)


def reach(x: Inputs) -> float:
    """How far the points are from the origin, relative to their size about the centroid; the largest of the batch."""
    worst = 0.0
    for space in x.group.factors:
        if not space.anchored:
            continue
        for leaf in spatial(x, space):
            if is_point(leaf, space) and not leaf.rep.on_edges:
                center = centroid(x, space)
                extent = size(*centred(x, leaf, space, center))
                worst = max([worst, *(center.norm(dim=-1) / extent).tolist()])
    return worst


def in_precision(f: Any, kind: torch.dtype) -> Any:
    """A copy of a module with its numbers in another precision; functions as they are."""
    if not isinstance(f, nn.Module):
        return f
    return copy.deepcopy(f)._apply(lambda t: _cast(t, kind))


def converted(x: Inputs, kind: torch.dtype) -> Inputs:
    """The inputs in another precision, undeclared tensors included."""
    moved = x.map(lambda leaf: _cast(leaf.value, kind))
    args = tuple([_cast(value, kind) for value in moved.args])
    kwargs = {key: _cast(value, kind) for key, value in moved.kwargs.items()}
    return Inputs({"args": args, "kwargs": kwargs}, x.signature, x.layouts)


def _cast(value: Any, kind: torch.dtype) -> Any:
    """Real and complex numbers in another precision; everything else as it is."""
    if not isinstance(value, Tensor):
        return value
    if value.is_complex():
        return value.to(kind.to_complex())
    if value.is_floating_point():
        return value.to(kind)
    return value


def _real(kind: torch.dtype) -> torch.dtype:
    """The dtype of the parts of complex numbers, and of real ones."""
    if kind.is_complex:
        return kind.to_real()
    return kind
