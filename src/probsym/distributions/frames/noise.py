"""The noise of a frame: what is drawn, how the group moves it, and the tables that a search reads.

The noise of a call is {"fallback": {factor: ...}, "preference": {space: {input: ...}}}.

- "fallback": (*K, B, D, m + 1) for a space that turns m of its D axes, whose columns fill axes that no data determines
  and give signs; (*K, B, N) for the nodes, which decides between equal nodes. Both move with the group.
- "preference": one number per column of an input without an order, and axis of the space: which column gives the axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from probsym.distributions.base import Noise, draw_options
from probsym.distributions.frames.columns import is_ordered, oriented
from probsym.distributions.frames.search import FrameNoise, SpaceNoise
from probsym.groups import Group, IsometryGroup
from probsym.groups.orthogonal import turned_axes
from probsym.reps import Inputs, Leaf, NodeAxis, Rep


def draw_noise(
    x: Inputs, group: Group, spaces: Sequence[IsometryGroup], shape: tuple[int, ...], generator: torch.Generator | None
) -> Noise:
    """The noise of sample shape `shape`: standard normal throughout."""
    options = draw_options(x, generator)
    batch = (*shape, x.count)
    fallback: dict[Group, Tensor] = {}
    factors: tuple[Any, ...] = group.factors
    for factor in factors:
        if factor.isometric:
            fallback[factor] = torch.randn(*batch, factor.dim, len(turned_axes(factor)) + 1, **options)
        else:
            fallback[factor] = x.stored(factor).draw_noise(batch, **options)
    preference: dict[Group, dict[str, Tensor]] = {}
    for space in spaces:
        preference[space] = {}
        for leaf in _unordered(x, space):
            preference[space][leaf.name] = torch.randn(*shape, *preference_shape(leaf, space), **options)
    return {"fallback": fallback, "preference": preference}


def noise_reps(x: Inputs, group: Group, spaces: Sequence[IsometryGroup]) -> dict[str, Any]:
    """How the group moves the noise: Reps in the containers of `draw_noise`."""
    fallback = {factor: Rep(*factor.noise_slots) for factor in group.factors}
    preference: dict[Group, dict[str, Rep]] = {}
    for space in spaces:
        preference[space] = {leaf.name: preference_rep(leaf, space) for leaf in _unordered(x, space)}
    return {"fallback": fallback, "preference": preference}


def sample_shape(group: Group, noise: Noise) -> tuple[int, ...]:
    """The sample shape of noise."""
    first = group.factors[0]
    rep = Rep(*first.noise_slots)
    tensor = noise["fallback"][first]
    return tuple(tensor.shape[: tensor.ndim - rep.batch_dims - rep.ndim])


def noise_tables(
    x: Inputs, noise: Noise, times: int, spaces: Sequence[IsometryGroup], nodes: Sequence[NodeAxis]
) -> FrameNoise:
    """The noise in float64 with one row per draw k and input b, at k B + b; K = `times` draws."""
    space_noise = {}
    for space in spaces:
        turned = turned_axes(space)
        dim = len(turned)
        fallback = noise["fallback"][space].double().reshape(times * x.count, space.dim, dim + 1)
        if space.kept_axes:
            fallback = fallback[:, list(turned)]
        preference = _preferences(x, space, noise, times)
        space_noise[space] = SpaceNoise(fallback[..., :dim], fallback[..., dim], preference)
    node_noise = {}
    for axis in nodes:
        layout = x.layouts[axis]
        fallback = noise["fallback"][axis].double()
        # the nodes of a ragged batch come one after the other, without an axis for the batch
        own_axes = 1 if layout.ragged else 2
        fallback = fallback.reshape(times, *fallback.shape[-own_axes:])
        node_noise[axis] = layout.pad(fallback, 1).reshape(times * x.count, layout.padded_size)
    return FrameNoise(space_noise, node_noise)


def _unordered(x: Inputs, space: IsometryGroup) -> list[Leaf]:
    """The inputs whose columns have no order, so that noise may have to prefer one."""
    return [leaf for leaf in oriented(x, space) if not is_ordered(leaf, space)]


def _preferences(x: Inputs, space: IsometryGroup, noise: Noise, times: int) -> Tensor:
    """The preference for each column as each axis (K B, M, D); zero where the order of the columns decides."""
    rows = times * x.count
    dim = len(turned_axes(space))
    parts = [torch.zeros(rows, 0, dim, dtype=torch.float64, device=x.device)]
    for leaf in oriented(x, space):
        if is_ordered(leaf, space):
            columns = leaf.value[0].numel() // space.dim if len(leaf.value) else 0
            parts.append(torch.zeros(rows, columns, dim, dtype=torch.float64, device=x.device))
            continue
        value = noise["preference"][space][leaf.name].double()
        value = value.reshape(times, *preference_shape(leaf, space))
        if leaf.rep.ragged is not None:
            value = x.layouts[leaf.rep.ragged].pad(value, 1)
        if value.numel():
            parts.append(value.reshape(rows, -1, dim))
    joined = torch.cat(parts, 1)
    if not joined.shape[1]:
        # as `read_columns` has it: without any data, one column that does not exist
        return joined.new_zeros(rows, 1, dim)
    return joined


def preference_shape(leaf: Leaf, space: IsometryGroup) -> tuple[int, ...]:
    """The shape of an input with one number per turned axis of the space, last, instead of the coordinates."""
    place = leaf.rep.batch_dims
    place += next(p for slot, p in leaf.rep.axes if slot.group == space)
    shape = leaf.value.shape
    return (*shape[:place], *shape[place + 1 :], len(turned_axes(space)))


def preference_rep(leaf: Leaf, space: IsometryGroup) -> Rep:
    """The Rep of an input without the space, channels spelt out, and one axis more."""
    kept = [slot for slot in leaf.rep.slots if slot is None or slot.group != space]
    channels = [None] * (len(leaf.channels) + 1)
    return Rep(*kept, *channels)
