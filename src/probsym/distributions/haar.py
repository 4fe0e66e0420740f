"""Group averaging: the uniform distribution, whatever the input."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from probsym.distributions.base import (
    EquivariantDistribution,
    ProductDistribution,
    ProjectedDistribution,
    Support,
    has_few_elements,
)
from probsym.distributions.default_net import NETS
from probsym.distributions.geometry import centroid
from probsym.groups import Group, product
from probsym.groups.permutation import LARGEST_LIST
from probsym.kernels.precision import complex_dtype
from probsym.members import register
from probsym.reps import Inputs

LARGEST_SPLIT = 1024  # elements of the small factors that `Hybrid` lists together


@register
class Haar(ProjectedDistribution):
    """The uniform (Haar) distribution: phi is the group average of the base model.

    Its features are its noise. Gaussian noise that turns with the group has a uniform projection.

    Args:
        group: any product of compact groups, and of groups that are anchored at a point of the input (E, SE).
        origin: "centroid" rotates about the centroid of the points; needed for E and SE, which are not compact.

    Raises:
        ValueError: a factor that is not compact without an origin, or one that no origin helps.

    >>> from probsym.groups import O
    >>> from probsym.reps import S
    >>> Haar(S("nodes") * O(3))
    Haar(O(3) * S('nodes'))
    """

    def __init__(self, group: Group, origin: str | None = None) -> None:
        super().__init__(group)
        if origin not in (None, "centroid"):
            raise ValueError(f"origin: expected None or 'centroid', got {origin!r}")
        for f in group.factors:
            if f.compact:
                continue
            if not f.anchored:
                by_name = "take 'canonical' or 'learned', or " if f.feature_kind in NETS else ""
                raise ValueError(
                    f"{f!r} is not compact and has no uniform distribution: {by_name}learn one with a NetDistribution"
                )
            if origin is None:
                raise ValueError(
                    f"{f!r} is not compact and has no uniform distribution: use Haar({group!r}, origin='centroid'), "
                    "which rotates uniformly about the centroid of the points"
                )
        self.origin = origin

    @property
    def has_enumerate_support(self) -> bool:  # type: ignore[override]
        return self.group.finite

    @property
    def default_samples(self) -> tuple[int | None, int | None]:  # type: ignore[override]
        """Exact in evaluation where that costs no more calls than samples would.

        Exact in training too where there is one element only, so that a frame beside an `Axis` stays exact.
        """
        if self.group.trivial:
            return None, None
        if has_few_elements(self.group):
            return 1, None
        return 1, 10

    def features(self, x: Inputs, noise: Mapping[Group, Tensor]) -> Mapping[Group, Any]:
        z: dict[Group, Any] = {}
        for f, eps in noise.items():
            if f.anchored:
                z[f] = (centroid(x, f), eps)
            else:
                z[f] = eps
        return z

    def support(self, x: Inputs, generator: torch.Generator | None = None) -> Support:
        """All elements of a finite group of at most 8! of them: small S_n, C(n), D(n), shifts, signs.

        In padded and ragged batches an input of n nodes has weight on its own n! orders only.

        Raises:
            TypeError: the group is infinite or too large to be listed.
        """
        order = order_of(x, self.group.factors)
        if order is None:
            return super().support(x)
        if order > LARGEST_LIST:
            raise TypeError(
                f"{self.brief} has too large support, {order} elements where {LARGEST_LIST} can be listed: "
                "use MonteCarlo(k) instead of Exact()"
            )
        if len(self.group.factors) > 1:
            return ProductDistribution(*(Haar(f, self.origin) for f in self.group.factors)).support(x)
        exact = torch.ones(x.count, dtype=torch.bool, device=x.device)
        stored = x.stored(self.group)
        elements, orders = stored.elements(x.device), stored.orders()

        # inputs of different sizes: (order, B) elements already, of which an input has its first ones
        if orders is not None:
            own = torch.arange(order, device=x.device)[:, None] < orders
            return Support(elements.map(lambda t, _: _in_precision(t, x)), own / orders.to(x.dtype), exact, {})

        # one list (order,) for all inputs
        def shared(t: Tensor, trailing: int) -> Tensor:
            t = _in_precision(t, x)
            return t.unsqueeze(1).expand(-1, x.count, *t.shape[1:])

        weight = torch.full((), 1 / order, dtype=x.dtype, device=x.device).expand(order, x.count)
        return Support(elements.map(shared), weight, exact, {}, uniform=True)

    def enumerable_part(self, x: Inputs) -> tuple[EquivariantDistribution | None, EquivariantDistribution | None]:
        """The small finite factors, as many as have no more than 1,024 elements together, and the rest."""
        small: list[Group] = []
        for f in sorted(self.group.factors, key=lambda f: order_of(x, [f]) or math.inf):
            together = order_of(x, [*small, f])
            if together is not None and together <= LARGEST_SPLIT:
                small.append(f)
        large = [f for f in self.group.factors if f not in small]
        listed: Haar | None = None
        if small:
            listed = Haar(product(small), self.origin)
        sampled: Haar | None = None
        if large:
            sampled = Haar(product(large), self.origin)
        return listed, sampled

    def __repr__(self) -> str:
        if self.origin is None:
            return f"Haar({self.group!r})"
        return f"Haar({self.group!r}, origin={self.origin!r})"


def _in_precision(tensor: Tensor, x: Inputs) -> Tensor:
    """A tensor of an element in the precision of the inputs; integers stay."""
    if tensor.is_complex():
        return tensor.to(complex_dtype(x.dtype))
    if tensor.is_floating_point():
        return tensor.to(x.dtype)
    return tensor


def order_of(x: Inputs, factors: Iterable[Group]) -> int | None:
    """Number of elements of a product of factors, for the largest input; None if infinite."""
    total = 1
    for f in factors:
        order = x.stored(f).order()
        if order is None:
            return None
        total *= order
    return total
