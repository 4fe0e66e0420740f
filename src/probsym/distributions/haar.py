"""Group averaging: the uniform distribution, whatever the input."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from probsym.distributions.base import EquivariantDistribution, ProductDistribution, ProjectedDistribution, Support
from probsym.distributions.geometry import centroid
from probsym.groups import E, Group, product
from probsym.groups.permutation import LARGEST_LIST
from probsym.members import register
from probsym.reps import Inputs

LARGEST_SPLIT = 1024


@register
class Haar(ProjectedDistribution):
    """The uniform (Haar) distribution: phi is the group average of the base model.

    Args:
        group: any product of groups.
        origin: "centroid" rotates about the centroid of the points; needed for E and SE, which are not compact.

    Raises:
        ValueError: a group with E(d) or SE(d) and no origin.

    >>> from probsym.groups import O, S
    >>> Haar(S("nodes") * O(3))
    Haar(O(3) * S('nodes'))
    """

    def __init__(self, group: Group, origin: str | None = None) -> None:
        super().__init__(group)
        if origin not in (None, "centroid"):
            raise ValueError(f"origin: expected None or 'centroid', got {origin!r}")
        loose = [f for f in group.factors if isinstance(f, E)]
        if loose and origin is None:
            raise ValueError(
                f"{loose[0]!r} is not compact and has no uniform distribution: "
                f"use Haar({group!r}, origin='centroid'), which rotates uniformly about the centroid of the points"
            )
        self.origin = origin

    @property
    def has_enumerate_support(self) -> bool:  # type: ignore[override]
        return self.group.finite

    def features(self, x: Inputs, noise: Mapping[Group, Tensor]) -> Mapping[Group, Any]:
        return {f: (centroid(x, f), eps) if isinstance(f, E) else eps for f, eps in noise.items()}

    def support(self, x: Inputs, generator: torch.Generator | None = None) -> Support:
        """All elements of a finite group of at most 8! of them: small S_n, C(n), D(n), shifts, signs.

        In padded and ragged batches an input of n nodes has weight on its own n! orders only.

        Raises:
            TypeError: the group is infinite or too large to be listed.
        """
        order = _order(x, self.group.factors)
        if order is not None and order > LARGEST_LIST:
            raise TypeError(
                f"{self.brief} has too large support, {order} elements where {LARGEST_LIST} can be listed: "
                "use MonteCarlo(k) instead of Exact()"
            )
        if order is None:
            return super().support(x)
        if len(self.group.factors) > 1:
            return ProductDistribution(*(Haar(f, self.origin) for f in self.group.factors)).support(x)
        layout = x.layouts.get(self.group)  # type: ignore[call-overload]
        every, orders = self.group.elements(layout, x.device), self.group.orders(layout)

        def spread(t: Tensor, event: int) -> Tensor:
            t = t.to(x.dtype) if t.is_floating_point() else t
            return t if orders is not None else t.unsqueeze(1).expand(-1, x.count, *t.shape[1:])

        exact = torch.ones(x.count, dtype=torch.bool, device=x.device)
        if orders is None:
            weight = torch.full((), 1 / order, dtype=x.dtype, device=x.device).expand(order, x.count)
        else:
            weight = (torch.arange(order, device=x.device)[:, None] < orders) / orders.to(x.dtype)
        return Support(every.map(spread), weight, exact, {}, uniform=orders is None)

    def enumerable_part(self, x: Inputs) -> tuple[EquivariantDistribution | None, EquivariantDistribution | None]:
        """The small finite factors, as many as have no more than 1,024 elements together, and the rest."""
        small: list[Group] = []
        for f in sorted(self.group.factors, key=lambda f: _order(x, [f]) or math.inf):
            if (_order(x, [*small, f]) or math.inf) <= LARGEST_SPLIT:
                small.append(f)
        large = [f for f in self.group.factors if f not in small]
        parts = [Haar(product(factors), self.origin) if factors else None for factors in (small, large)]
        return parts[0], parts[1]

    def __repr__(self) -> str:
        origin = "" if self.origin is None else f", origin={self.origin!r}"
        return f"Haar({self.group!r}{origin})"


def _order(x: Inputs, factors: Iterable[Group]) -> int | None:
    """Number of elements of a product of factors, for the largest input; None if infinite."""
    orders = [f.order(x.layouts.get(f)) for f in factors]  # type: ignore[call-overload]
    return None if None in orders else math.prod(orders)  # type: ignore[arg-type]
