"""Distributions by name, and what a distribution leaves out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from probsym.distributions.base import EquivariantDistribution, ProductDistribution
from probsym.distributions.default_net import DefaultNet
from probsym.distributions.frames import Frame
from probsym.distributions.haar import Haar
from probsym.distributions.learned import Canonical, Learned
from probsym.distributions.recursive import PlainNet, Recursive
from probsym.groups import Group, product

Builder: TypeAlias = Callable[[Any, Group], EquivariantDistribution]
"""Makes a distribution over a group from the Reps of the inputs."""


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


def _recursive(spec: Any, group: Group) -> EquivariantDistribution:
    return Recursive(PlainNet(spec, group), group)


NAMES: dict[str, Builder] = {
    "learned": _learned,
    "haar": _haar,
    "frame": _frame,
    "canonical": _canonical,
    "recursive": _recursive,
}
"""What `symmetrize(distribution="...")` understands. A distribution needs no entry here to be passed as an object."""


BY_KIND: dict[tuple[str, str], Builder] = {}
"""What a name stands for on groups of one `feature_kind`, where it is not what `NAMES` says; `stands_for` fills it."""


def stands_for(name: str, kind: str) -> Callable[[Builder], Builder]:
    """Let a name stand for another distribution on the groups of one `feature_kind`; a decorator of its builder.

    The groups say their kind, and are not asked for anything else: those of a user's own as well. The builder gets the
    Reps of the inputs and the product of all factors of this kind. Factors of other kinds get what the name stands for
    there, and the product of all is taken.

    Args:
        name: one of `NAMES`. kind: a `feature_kind`.

    Raises:
        ValueError: unknown name, or the name has a meaning for this kind already.

    >>> from probsym.distributions import BY_KIND, Haar, stands_for
    >>> @stands_for("learned", "docs/switches")
    ... def uniform(spec, group):
    ...     return Haar(group)
    >>> del BY_KIND["learned", "docs/switches"]
    """
    if name not in NAMES:
        raise ValueError(f"name: expected one of {', '.join(map(repr, NAMES))}, got {name!r}")

    def decorate(builder: Builder) -> Builder:
        other = BY_KIND.get((name, kind))
        # A module that is loaded again defines the same builder once more.
        if other is not None and _path(other) != _path(builder):
            raise ValueError(f"kind: {name!r} on groups of kind {kind!r} stands for {_path(other)} already")
        BY_KIND[name, kind] = builder
        return builder

    return decorate


def _path(builder: Builder) -> str:
    return f"{builder.__module__}.{builder.__qualname__}"


def by_name(name: str, spec: Any, group: Group) -> EquivariantDistribution:
    """The distribution that a name stands for, with a default net for the declared Reps where it needs one.

    Where the factors are of kinds for which the name stands for different distributions, their product. Factors of one
    element are then left to `complete`.

    Raises:
        ValueError: unknown name.
    """
    if name not in NAMES:
        raise ValueError(f"distribution: expected one of {', '.join(map(repr, NAMES))}, got {name!r}")

    # 1. Which factors the name means something else for.
    others: dict[Builder, list[Group]] = {}
    rest: list[Group] = []
    for factor in group.factors:
        builder = BY_KIND.get((name, factor.feature_kind))
        if builder is None or factor.trivial:
            rest.append(factor)
        else:
            others.setdefault(builder, []).append(factor)
    if not others:
        return NAMES[name](spec, group)

    # 2. The product of what it means for each kind.
    parts: list[EquivariantDistribution] = []
    for builder, factors in others.items():
        parts.append(builder(spec, product(factors)))
    if any(not factor.trivial for factor in rest):
        parts.append(NAMES[name](spec, product(rest)))
    if len(parts) == 1:
        return parts[0]
    return ProductDistribution(*parts)


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
