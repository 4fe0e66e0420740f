"""Group elements for the checkers: random ones, where they send probes, and how far they are apart."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from probsym.distributions.geometry import centred, centroid, is_point, size, spatial
from probsym.groups import Element, Group, Slot
from probsym.reps import Inputs, NodeAxis, Rep

# Attributes of groups that are slots.
SLOT_NAMES = ("defining", "vector", "point", "image", "conjugate", "det", "labels", "edges", "regular")
IMAGE_PIXELS = 5  # along the axes of a slot that takes any size


def seeded(generator: torch.Generator | None, device: Any = "cpu") -> torch.Generator:
    """The generator, or a fresh one that always starts the same."""
    if generator is None:
        return torch.Generator(device).manual_seed(0)
    return generator


def bind(reps: Any, inputs: Any) -> Inputs:
    """Inputs as the checkers take them: a dict of keywords, a tuple of positions, or the single argument."""
    if isinstance(inputs, dict) and isinstance(reps, dict):
        return Inputs.bind(reps, (), inputs)
    if isinstance(inputs, tuple):
        return Inputs.bind(reps, inputs, {})
    return Inputs.bind(reps, (inputs,), {})


# ---------------------------------------------------------------- storage


def stored_alone(group: Group, sizes: dict[Group, Any]) -> dict[Group, Any]:
    """The verbs of every factor without a call: node axes are dense and have the given number of nodes."""
    stored: dict[Group, Any] = {}
    for f in group.factors:
        if isinstance(f, NodeAxis):
            stored[f] = f.stored(sizes.get(f))
        else:
            stored[f] = f
    return stored


def stored_factors(group: Group, x: Inputs) -> dict[Group, Any]:
    """The verbs of every factor in a call; node axes that only the output has are dense and know their size."""
    stored: dict[Group, Any] = {}
    for f in group.factors:
        if isinstance(f, NodeAxis) and f not in x.layouts:
            stored[f] = f.stored()
        else:
            stored[f] = x.stored(f)
    return stored


# ---------------------------------------------------------------- elements


def draw_features(factor: Group, stored: Any, shape: tuple[int, ...], **options: Any) -> Tensor:
    """Generic features of one factor: its own, where it has any, or its noise."""
    if type(factor).draw_features is not Group.draw_features:
        return factor.draw_features(shape, **options)
    return stored.draw_noise(shape, **options)


def draw_elements(
    group: Group,
    shape: tuple[int, ...],
    stored: dict[Group, Any],
    generator: torch.Generator,
    length: Tensor | float = 1.0,
) -> Element:
    """Random elements of batch shape `shape`: of Haar's law where the group is compact.

    Args:
        stored: the verbs of every factor.
        length: how far groups with an anchor (E, SE) move points, broadcast on the shape.
    """
    options: dict[str, Any] = {"generator": generator, "dtype": torch.float64, "device": generator.device}
    parts: dict[Group, Element] = {}
    for f in group.factors:
        z: Any = draw_features(f, stored[f], shape, **options)
        fallback = stored[f].draw_noise(shape, **options)
        if f.anchored:
            scale = torch.as_tensor(length, device=generator.device).to(torch.float64).expand(shape)
            origin = torch.randn(*shape, anchor_size(f), **options) * scale.unsqueeze(-1)
            z = (origin, z)
        parts[f] = stored[f].project(z, fallback)
    return group.join(*parts.values())


def anchor_size(factor: Group) -> int:
    """Coordinates of the origin of an anchored group."""
    slot = factor.feature_slots[0]
    if slot is None or slot.sizes[0] is None:
        raise TypeError(f"{factor!r} is anchored: the first of its feature_slots has to tell its sizes")
    return slot.sizes[0]


def random_elements(group: Group, x: Inputs, generator: torch.Generator) -> Element:
    """One random element per input, (B,); translations are of the size of the data."""
    extents: list[Tensor] = []
    for f in group.factors:
        if not (f.anchored and f in x.group.factors):
            continue
        for leaf in spatial(x, f):
            if is_point(leaf, f):
                extents.append(size(*centred(x, leaf, f, centroid(x, f))))
    length: Tensor | float = 1.0
    if extents:
        length = torch.stack(extents).amax(0)
    return draw_elements(group, (x.count,), stored_factors(group, x), generator, length)


def identity_element(group: Group, x: Inputs) -> Element:
    """The identity (B,)."""
    stored = stored_factors(group, x)
    parts: list[Element] = []
    for f in group.factors:
        parts.append(stored[f].identity((x.count,), dtype=torch.float64, device=x.device))
    return group.join(*parts)


def centering_element(group: Group, x: Inputs) -> Element:
    """The identity, except that anchored groups (E, SE) move the centroid of the points to zero; (B,)."""
    stored = stored_factors(group, x)
    options: dict[str, Any] = {"dtype": torch.float64, "device": x.device}
    parts: dict[Group, Element] = {}
    for f in group.factors:
        parts[f] = stored[f].identity((x.count,), **options)
        if not (f.anchored and any(is_point(leaf, f) for leaf in spatial(x, f))):
            continue
        # The element that projects unit vectors at the centroid moves zero there, unturned; this is its inverse.
        center = centroid(x, f).double()
        unit = torch.eye(center.shape[-1], **options).expand(x.count, -1, -1)
        parts[f] = f.inverse(stored[f].project((center, unit), unit))
    return group.join(*parts.values())


def expand_samples(g: Element, k: int) -> Element:
    """g with a leading batch dim of size k."""
    return g.map(lambda tensor, _: tensor.expand(k, *tensor.shape))


# ---------------------------------------------------------------- probes


def slots_of(group: Group) -> tuple[Slot, ...]:
    """The ways in which the factors are known to act, each once; those that interpolate are no exact actions."""
    slots: dict[Slot, None] = {}  # a set in order
    for f in group.factors:
        for name in SLOT_NAMES:
            try:
                slot = getattr(f, name)
            except TypeError:
                continue  # this group does not act so
            if not slot.interpolates:
                slots[slot] = None
    return tuple(slots)


def probes(slots: tuple[Slot, ...], stored: dict[Group, Any], generator: torch.Generator) -> dict[Rep, Tensor]:
    """A random tensor without batch dims for every slot, with two channels."""
    return {Rep(slot): probe(slot, stored[slot.group], generator) for slot in slots}


def probe(slot: Slot, stored: Any, generator: torch.Generator) -> Tensor:
    """A random tensor of the sizes of a slot, with two channels: node numbers for labels, complex where it says so."""
    options: dict[str, Any] = {"generator": generator, "device": generator.device}
    if slot.role == "labels":
        nodes = stored.layout.size
        if not nodes:
            return torch.full((2, 3), -1)
        return torch.randint(-1, nodes, (2, 3), **options)
    if slot.role == "edges":
        return torch.randn(3, 2, dtype=torch.float64, **options)
    kind = torch.complex128 if slot.is_complex else torch.float64
    return torch.randn(*probe_sizes(slot, stored), 2, dtype=kind, **options)


def probe_sizes(slot: Slot, stored: Any) -> tuple[int, ...]:
    """Sizes of the axes of a slot: its own or the number of nodes. A slot that tells none gets a guess."""
    if slot.role == "nodes":
        return (stored.layout.size,)
    known = tuple(length for length in slot.sizes if length is not None)
    if len(known) == len(slot.sizes):
        return known
    # the noise of a group often lies on such axes as the slot takes; images may have any size
    noise = stored.draw_noise((), generator=torch.Generator()).shape
    if len(noise) >= slot.num_axes:
        return tuple(noise[: slot.num_axes])
    return (IMAGE_PIXELS,) * slot.num_axes


# ---------------------------------------------------------------- numbers


def doubled(y: Tensor) -> Tensor:
    """Real and complex numbers in double precision; integers stay."""
    if y.is_complex():
        return y.to(torch.complex128)
    if y.is_floating_point():
        return y.double()
    return y


def precise(y: Tensor) -> Tensor:
    """Any numbers as float64, complex ones as complex128."""
    if y.is_complex():
        return y.to(torch.complex128)
    return y.double()


def as_real(y: Tensor) -> Tensor:
    """Any numbers as float64; of complex ones both parts, along a new last axis."""
    if y.is_complex():
        return torch.view_as_real(precise(y))
    return y.double()


def images(g: Element, seen: dict[Rep, Tensor]) -> list[Tensor]:
    """Where g sends the probes, each flattened to (*shape, F), in a ragged batch (*sample shape, F)."""
    moved: list[Tensor] = []
    for rep, x in seen.items():
        y = rep.act(g, x, 0)
        start = y.ndim - x.ndim
        moved.append(as_real(y).flatten(start))
    return moved


def distance(a: list[Tensor], b: list[Tensor]) -> float:
    """Largest difference of two lists of tensors, relative to sizes above one; NaN counts as infinite."""
    worst = 0.0
    for left, right in zip(a, b, strict=True):
        if left.shape != right.shape:
            return math.inf
        if not left.numel():
            continue
        gap = float((left - right).abs().max() / right.abs().max().clamp_min(1))
        if math.isnan(gap):
            return math.inf
        worst = max(worst, gap)
    return worst
