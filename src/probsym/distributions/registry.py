"""Distributions by name, and what a distribution leaves out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from probsym.distributions.base import EquivariantDistribution, ProductDistribution
from probsym.distributions.default_net import DefaultNet
from probsym.distributions.frames import Frame
from probsym.distributions.haar import Haar
from probsym.distributions.learned import Canonical, Learned
from probsym.groups import Axis, E, Group, product


def _haar(spec: Any, group: Group) -> EquivariantDistribution:
    loose = any(isinstance(f, E) for f in group.factors)
    return Haar(group, origin="centroid" if loose else None)


NAMES: dict[str, Callable[[Any, Group], EquivariantDistribution]] = {
    "learned": lambda spec, group: Learned(DefaultNet(spec, group), group),
    "haar": _haar,
    "frame": lambda spec, group: Frame(group),
    "canonical": lambda spec, group: Canonical(DefaultNet(spec, group), group),
}


def by_name(name: str, spec: Any, group: Group) -> EquivariantDistribution:
    """The distribution a name stands for, with a default net for the declared Reps where it needs one.

    Raises:
        ValueError: unknown name.
    """
    if name not in NAMES:
        raise ValueError(f"distribution: expected one of {', '.join(map(repr, NAMES))}, got {name!r}")
    return NAMES[name](spec, group)


def complete(p: EquivariantDistribution, group: Group) -> EquivariantDistribution:
    """p with the only possible distribution on every trivial axis that it does not mention.

    Raises:
        TypeError: p is no distribution.
    """
    if not isinstance(p, EquivariantDistribution):
        raise TypeError(
            f"distribution: expected one of {', '.join(map(repr, NAMES))} or a distribution, got {type(p).__name__}"
        )
    left = [f for f in group.factors if isinstance(f, Axis) and f not in p.group.factors]
    return ProductDistribution(p, Haar(product(left))) if left else p
