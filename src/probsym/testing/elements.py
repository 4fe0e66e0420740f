"""Group elements for the checkers: random ones, where they send probes, and how far they are apart."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from probsym.distributions.geometry import centred, centroid, is_point, size, spatial
from probsym.groups import E, Element, Group, Motion, NodeAxis, Slot
from probsym.groups.axis import Edges, Labels
from probsym.groups.base import ProductElement
from probsym.reps import Inputs, Rep

SLOTS = ("defining", "vector", "det", "labels", "edges", "regular")


def seeded(generator: torch.Generator | None, device: Any = "cpu") -> torch.Generator:
    """The generator, or a fresh one that always starts the same."""
    return torch.Generator(device).manual_seed(0) if generator is None else generator


def bind(reps: Any, inputs: Any) -> Inputs:
    """Inputs as the checkers take them: a dict of keywords, a tuple of positions, or the single argument."""
    if isinstance(inputs, dict) and isinstance(reps, dict):
        return Inputs.bind(reps, (), inputs)
    return Inputs.bind(reps, inputs if isinstance(inputs, tuple) else (inputs,), {})


def join(group: Group, parts: dict[Group, Element]) -> Element:
    """One element of `group` from those of its factors."""
    return parts[group] if group in parts else ProductElement(group, parts)


def random_element(
    group: Group, shape: tuple[int, ...], layouts: Any, generator: torch.Generator, length: Any = 1.0
) -> Element:
    """A random element, Haar where the group is compact; E and SE also move by about `length` (broadcast on shape)."""
    options: dict[str, Any] = {"generator": generator, "dtype": torch.float64, "device": generator.device}
    parts = {}
    for f in group.factors:
        layout = layouts.get(f)
        z: Any
        z, fallback = (f.draw_noise(shape, layout, **options) for _ in range(2))
        if isinstance(f, E):
            scale = torch.as_tensor(length, device=generator.device).to(torch.float64).expand(shape)
            z = (torch.randn(*shape, f.dim, **options) * scale.unsqueeze(-1), z)
        parts[f] = f.project(z, fallback, layout)
    return join(group, parts)


def layouts_of(group: Group, x: Inputs) -> dict[Group, Any]:
    """The storage of every node axis, those that only the output has included."""
    return {f: x.layouts[f] if f in x.layouts else f.layout() for f in group.factors if isinstance(f, NodeAxis)}


def moving(group: Group, x: Inputs, generator: torch.Generator) -> Element:
    """One random element an input, (B,); translations are of the size of the data."""
    sizes = [
        size(*centred(x, leaf, f, centroid(x, f)))
        for f in group.factors if isinstance(f, E) and f in x.group.factors
        for leaf in spatial(x, f) if is_point(leaf, f)
    ]  # fmt: skip
    length = torch.stack(sizes).amax(0) if sizes else 1.0
    return random_element(group, (x.count,), layouts_of(group, x), generator, length)


def still(group: Group, x: Inputs) -> Element:
    """The identity (B,)."""
    layouts, options = layouts_of(group, x), {"dtype": torch.float64, "device": x.device}
    return join(group, {f: f.identity((x.count,), n=layouts.get(f), **options) for f in group.factors})


def homing(group: Group, x: Inputs) -> Element:
    """The identity, except that E and SE move the centroid of the points to zero; (B,)."""
    parts = {f: still(f, x) for f in group.factors}
    for f in group.factors:
        if isinstance(f, E) and any(is_point(leaf, f) for leaf in spatial(x, f)):
            source = centroid(x, f).double()
            parts[f] = Motion(f, parts[f].matrix, source)  # type: ignore[attr-defined]
    return join(group, parts)


def repeated(g: Element, k: int) -> Element:
    """g with a leading batch dim of size k."""
    return g.map(lambda tensor, _: tensor.expand(k, *tensor.shape))


def slots_of(group: Group) -> tuple[Slot, ...]:
    """Every way in which the factors act."""
    found: dict[Slot, None] = {}
    for f in group.factors:
        for name in SLOTS:
            try:
                found[getattr(f, name)] = None
            except TypeError:
                continue
    return tuple(found)


def probes(group: Group, layouts: Any, generator: torch.Generator) -> dict[Rep, Tensor]:
    """A random tensor without batch dims for every slot, with two channels."""
    return {Rep(slot): _probe(slot, layouts.get(slot.group), generator) for slot in slots_of(group)}


def _probe(slot: Slot, layout: Any, generator: torch.Generator) -> Tensor:
    options: dict[str, Any] = {"generator": generator, "device": generator.device}
    if isinstance(slot, Labels):
        return torch.randint(-1, max(layout.size, 1), (2, 3), **options) if layout.size else torch.full((2, 3), -1)
    if isinstance(slot, Edges):
        return torch.randn(3, 2, dtype=torch.float64, **options)
    axes = () if not slot.num_axes else (layout.size,) if layout else ambient_shape(slot.group, layout)[: slot.num_axes]
    axes = axes if len(axes) >= slot.num_axes else (5,) * slot.num_axes  # images of any size
    return torch.randn(*axes, 2, dtype=torch.float64, **options)


def ambient_shape(group: Group, layout: Any) -> tuple[int, ...]:
    """Sizes of the axes of the group's ambient noise."""
    return tuple(group.draw_noise((), layout, generator=torch.Generator()).shape)


def doubled(y: Tensor) -> Tensor:
    """Real and complex numbers in double precision; integers stay."""
    if y.is_complex():
        return y.to(torch.complex128)
    return y.double() if y.is_floating_point() else y


def precise(y: Tensor) -> Tensor:
    """Any numbers as float64, complex ones as complex128."""
    return y.to(torch.complex128) if y.is_complex() else y.double()


def as_real(y: Tensor) -> Tensor:
    """Any numbers as float64; of complex ones both parts, along a new last axis."""
    return torch.view_as_real(precise(y)) if y.is_complex() else y.double()


def images(g: Element, seen: dict[Rep, Tensor]) -> list[Tensor]:
    """Where g sends the probes, each flattened to (*shape, F), in a ragged batch (*sample shape, F)."""
    moved = []
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
            return float("inf")
        if left.numel():
            gap = float((left - right).abs().max() / right.abs().max().clamp_min(1))
            worst = max(worst, gap if gap == gap else float("inf"))
    return worst
