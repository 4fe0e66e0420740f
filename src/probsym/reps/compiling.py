"""Parts of a call that `torch.compile` compiles, once for batches of any size.

A compiler takes the sizes that it sees for constants, and learns by a second compilation which of them change. Here the
sizes of the batch are told apart beforehand: `marked`.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from probsym.groups import Element
from probsym.reps import containers
from probsym.reps.inputs import Inputs


def replays(options: dict[str, Any]) -> bool:
    """Whether compiled functions are CUDA graphs, which write each result where they wrote the last one."""
    return options.get("mode") in ("reduce-overhead", "max-autotune") and torch.cuda.is_available()


def marked(tensor: Tensor, axis: int) -> Tensor:
    """A view of the tensor in which the size along an axis is one of many; the tensor itself stays as it is."""
    view = tensor.view_as(tensor)
    torch._dynamo.maybe_mark_dynamic(view, axis)
    return view


def marked_inputs(x: Inputs) -> Inputs:
    """The same call with the batch axes of its tensors and masks marked, and with nothing that was computed of it."""
    # 1. Masks, as arguments and in the layouts.
    values: Any = x.values
    layouts = dict(x.layouts)
    for axis, layout in x.layouts.items():
        path = x.path_of_marker(axis)
        if layout.mask is None or path is None:
            continue
        mask = marked(layout.mask, 0)
        layouts[axis] = dataclasses.replace(layout, mask=mask)
        values = containers.exchange(values, {path: mask})

    # 2. Declared tensors.
    changes = {path: marked(leaf.value, 0) for path, leaf in x.leaves.items()}
    return Inputs(containers.exchange(values, changes), x.signature, layouts)


def marked_element(g: Element) -> Element:
    """The same elements with the last axis of their batch marked."""

    def mark(tensor: Tensor, trailing: int) -> Tensor:
        axis = tensor.ndim - trailing - 1
        return tensor if axis < 0 else marked(tensor, axis)

    return g.map(mark)
