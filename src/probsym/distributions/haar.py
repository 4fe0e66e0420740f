"""Group averaging: the uniform distribution, whatever the input."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import permutations
from typing import Any

import torch
from torch import Tensor

from probsym.distributions.base import Projecting, Support
from probsym.distributions.geometry import centroid
from probsym.groups import Axis, E, Group, Permutation, S
from probsym.groups.axis import Still
from probsym.reps import Inputs

LARGEST_LIST = math.factorial(8)


class Haar(Projecting):
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
        return all(isinstance(f, S | Axis) for f in self.group.factors)

    def ambient(self, x: Inputs, z: Mapping[Group, Tensor]) -> Mapping[Group, Any]:
        return {f: (centroid(x, f), noise) if isinstance(f, E) else noise for f, noise in z.items()}

    def support(self, x: Inputs, generator: torch.Generator | None = None) -> Support:
        """All n! permutations, where the group is one S_n with n <= 8 and every input has n nodes.

        Raises:
            TypeError: the group is infinite or too large to be listed.
        """
        real = [f for f in self.group.factors if not isinstance(f, Axis)]
        layouts = [x.layouts[f] for f in real if isinstance(f, S)]
        even = all(layout.mask is None and layout.batch is None for layout in layouts)
        listed = math.prod(math.factorial(layout.size) for layout in layouts) if even else math.inf
        if len(layouts) != len(real) or len(real) > 1 or listed > LARGEST_LIST:
            return super().support(x)
        parts: dict[Group, Any] = {
            f: Still(f, x.layouts[f], (max(1, int(listed)), x.count)) for f in self.group.factors if isinstance(f, Axis)
        }
        for f, layout in zip(real, layouts, strict=True):
            index = torch.tensor(list(permutations(range(layout.size))), device=x.device).reshape(-1, layout.size)
            parts[f] = Permutation(f, layout, index[:, None].expand(-1, x.count, -1))
        weight = torch.full((max(1, int(listed)), x.count), 1 / listed, dtype=x.dtype, device=x.device)
        return Support(self.join(parts), weight, torch.ones(x.count, dtype=torch.bool, device=x.device), {})

    def __repr__(self) -> str:
        origin = "" if self.origin is None else f", origin={self.origin!r}"
        return f"Haar({self.group!r}{origin})"
