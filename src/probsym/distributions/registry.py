"""Distributions by name, and what a distribution leaves out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from probsym.distributions.base import EquivariantDistribution, ProductDistribution
from probsym.distributions.default_net import DefaultNet
from probsym.distributions.frames import Frame
from probsym.distributions.haar import Haar
from probsym.distributions.learned import Canonical, Learned
from probsym.groups import Group, product


def _learned(spec: Any, group: Group) -> EquivariantDistribution:
    return Learned(DefaultNet(spec, group), group)


def _haar(spec: Any, group: Group) -> EquivariantDistribution:
    if group.compact:
        return Haar(group)
    return Haar(group, origin="centroid")


def _frame(spec: Any, group: Group) -> EquivariantDistribution:
    return Frame(group)


def _canonical(spec: Any, group: Group) -> EquivariantDistribution:
    return Canonical(DefaultNet(spec, group), group)


NAMES: dict[str, Callable[[Any, Group], EquivariantDistribution]] = {
    "learned": _learned,
    "haar": _haar,
    "frame": _frame,
    "canonical": _canonical,
}
"""What `symmetrize(distribution="...")` understands. A distribution needs no entry here to be passed as an object."""


def by_name(name: str, spec: Any, group: Group) -> EquivariantDistribution:
    """The distribution that a name stands for, with a default net for the declared Reps where it needs one.

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
    left = [f for f in group.factors if f.trivial and f not in p.group.factors]
    if not left:
        return p
    return ProductDistribution(p, Haar(product(left)))
