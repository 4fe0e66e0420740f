"""A group of your own: cyclic shifts of a periodic axis, with everything the library does for its own groups."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

import probsym as ps
from probsym.groups import Element, FiniteGroup, Slot


@dataclass(frozen=True, eq=False)
class Shift(Element):
    """(g x)_i = x_{i - steps}."""

    steps: Tensor
    trailing_dims: ClassVar[dict[str, int]] = {"steps": 0}


@dataclass(frozen=True)
class Periodic(Slot):
    """One axis with n entries that wraps around."""

    @property
    def sizes(self) -> tuple[int]:
        return (self.group.n,)

    def act(self, g: Shift, x: Tensor, axis: int, shared_dims: int) -> Tensor:
        n = self.group.n
        batch_dims = g.steps.shape
        # 1. The batch dims of g in front, the axis right behind them.
        front = len(batch_dims)
        axis = axis + front - shared_dims
        x = x.expand(*batch_dims, *x.shape[shared_dims:]).movedim(axis, front)
        # 2. Entry i comes from i - steps.
        index = (torch.arange(n) - g.steps[..., None]) % n
        other_axes = x.ndim - index.ndim
        index = index.reshape(*index.shape, *[1] * other_axes).expand_as(x)
        return x.gather(front, index).movedim(front, axis)


@dataclass(frozen=True)
class Shifts(FiniteGroup[Shift]):
    """The cyclic group of order n. The elements and their product are all that it needs."""

    n: int
    name: str | None = None

    @property
    def defining(self) -> Slot:
        return Periodic(self)

    def elements(self, device: torch.device | str | None = None) -> Shift:
        return Shift(self, torch.arange(self.n, device=device))

    def compose(self, g: Shift, h: Shift) -> Shift:
        return Shift(self, (g.steps + h.steps) % self.n)


torch.manual_seed(0)
ring = Shifts(12, "ring")
ps.testing.assert_group(ring)

model = nn.Sequential(nn.Linear(12, 32), nn.Tanh(), nn.Linear(32, 12))
signal = torch.randn(4, 12)
for p in (ps.Haar(ring), ps.Canonical(nn.Identity(), ring), ps.Learned(nn.Identity(), ring)):
    phi = ps.symmetrize(model, ps.Rep(ring), ps.Rep(ring), p).eval()
    report = ps.testing.assert_equivariant(phi, signal, generator=torch.Generator().manual_seed(0))
    print(type(p).__name__, report)

# The elements of a finite group are listed, so its average can be computed exactly.
phi = ps.symmetrize(model, ps.Rep(ring), ps.Rep(ring), "haar").eval()
mean = phi(signal, estimator=ps.Exact())
mean_of_shifted = phi(signal.roll(1, -1), estimator=ps.Exact())
print("Exact", torch.allclose(mean_of_shifted, mean.roll(1, -1), atol=1e-6))
