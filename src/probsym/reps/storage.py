"""How a factor of the group is stored in one call: the verbs of the group, for the sizes and padding of a batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from probsym.groups import Element, Group


@dataclass(frozen=True, eq=False)
class Stored:
    """A factor of the group as one call stores it; `Inputs.stored(factor)` makes it.

    Args:
        group: the factor.
        layout: how its node axis lies in memory; None for groups without one.

    >>> from probsym.groups import S
    >>> from probsym.reps import Inputs, Rep
    >>> nodes = S("nodes", mask="mask")
    >>> mask = torch.tensor([[True, True, False]])
    >>> x = Inputs.bind({"a": Rep(nodes)}, (), {"a": torch.zeros(1, 3), "mask": mask})
    >>> x.stored(nodes).order()                                     # two nodes, and one place that is padding
    2
    """

    group: Group
    layout: Any = None

    def project(self, z: Any, fallback: Any) -> Element:
        """The group element of the features z; see `Group.project`."""
        return self.group.project(z, fallback, self.layout)

    def degenerate(self, z: Any) -> Tensor:
        """True where `project` has to consult its fallback noise; the batch shape of z."""
        return self.group.degenerate(z, self.layout)

    def identity(self, shape: tuple[int, ...] = (), **options: Any) -> Element:
        """The neutral element, repeated over the batch `shape`."""
        return self.group.identity(shape, n=self.layout, **options)

    def draw_noise(self, shape: tuple[int, ...], **options: Any) -> Tensor:
        """Standard normal noise of shape `shape` and the noise axes of the group."""
        return self.group.draw_noise(shape, self.layout, **options)

    def order(self) -> int | None:
        """Number of elements, for the largest input where they differ; None if infinite or unknown."""
        return self.group.order(self.layout)

    def orders(self) -> Tensor | None:
        """Number of elements for each input (B,) of a batch in which they differ; None where they do not."""
        return self.group.orders(self.layout)

    def elements(self, device: torch.device | str | None = None) -> Element:
        """All elements of a finite group, the identity first; see `Group.elements`."""
        return self.group.elements(self.layout, device)
