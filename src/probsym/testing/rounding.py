"""What rounding alone makes of an output: its answer to the last digits of the inputs, and its size in double."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from probsym.distributions.geometry import centred, centroid, is_point, size, spatial
from probsym.reps import Inputs, Leaf

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}
COARSE = 2e-2  # below single precision
VANISHED = 1e-3  # of what an output is in single precision, in double: less is rounding


def tolerance_of(x: Inputs, outputs: list[Tensor]) -> float:
    """Relative error that counts as rounding, by the coarsest of outputs and inputs whose entries are added up."""
    kinds = [x.dtype, *(leaf.value.dtype for leaf in x.leaves.values() if leaf.rep.requires_float)]
    kinds += [y.dtype.to_real() if y.is_complex() else y.dtype for y in outputs]
    return max(TOLERANCE.get(kind, COARSE) for kind in kinds if kind.is_floating_point)


def jittered(x: Inputs, generator: torch.Generator) -> Inputs:
    """The inputs changed at random by their rounding; that of a vector is relative to its largest coordinate."""

    def changed(leaf: Leaf) -> Tensor:
        value = leaf.value
        if not value.is_floating_point():
            return value
        extent = value.detach().abs()
        for slot, place in leaf.rep.axes:
            if slot.role in ("point", "vector"):
                extent = extent.amax(leaf.rep.batch_dims() + place, keepdim=True)
        noise = torch.rand(value.shape, generator=generator, device=value.device, dtype=torch.float64)
        step = torch.finfo(value.dtype).eps * (2 * noise - 1) * extent.double()
        return (value.double() + 2 * step).to(value.dtype)

    return x.map(changed)


def reach(x: Inputs) -> float:
    """How far the points are from the origin, relative to their size about the centroid; the largest of the batch."""
    worst = 0.0
    for space in (f for f in x.group.factors if f.anchored):
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

    def cast(t: Tensor) -> Tensor:
        if t.is_complex():
            return t.to(kind.to_complex())
        return t.to(kind) if t.is_floating_point() else t

    return copy.deepcopy(f)._apply(cast)


def converted(x: Inputs, kind: torch.dtype) -> Inputs:
    """The inputs in another precision, undeclared tensors included."""

    def cast(value: Any) -> Any:
        return value.to(kind) if isinstance(value, Tensor) and value.is_floating_point() else value

    moved = x.map(lambda leaf: cast(leaf.value))
    args = tuple(cast(value) for value in moved.args)
    kwargs = {key: cast(value) for key, value in moved.kwargs.items()}
    return Inputs({"args": args, "kwargs": kwargs}, x.signature, x.layouts)
