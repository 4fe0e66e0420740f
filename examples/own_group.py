"""A group of one's own: cyclic shifts of a periodic axis, with everything the library does for its own groups."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

import probsym as ps
from probsym.groups import Element, Group, Slot


@dataclass(frozen=True, eq=False)
class Shift(Element):
    """(g x)_i = x_{i - steps}."""

    steps: Tensor = torch.empty(0)
    trailing_dims: ClassVar[dict[str, int]] = {"steps": 0}


@dataclass(frozen=True)
class Periodic(Slot):
    def act(self, g: Shift, x: Tensor, axis: int, lead: int) -> Tensor:
        shape, n = g.steps.shape, self.group.n
        x = x.expand(*shape, *x.shape[lead:]).movedim(axis + len(shape) - lead, len(shape))
        index = (torch.arange(n) - g.steps[..., None]) % n
        index = index.reshape(*index.shape, *[1] * (x.ndim - len(shape) - 1)).expand_as(x)
        return x.gather(len(shape), index).movedim(len(shape), axis + len(shape) - lead)


@dataclass(frozen=True)
class Shifts(Group):
    """The cyclic group of order n: `project` finds the largest entry; the fallback decides between equals."""

    n: int
    name: str | None = None

    defining = property(lambda self: Periodic(self))
    noise_slots = property(lambda self: (self.defining,))

    def identity(self, shape: tuple[int, ...] = (), **kwargs: Any) -> Shift:
        return Shift(self, torch.zeros(shape, dtype=torch.long))

    def compose(self, g: Shift, h: Shift) -> Shift:
        return Shift(self, (g.steps + h.steps) % self.n)

    def inverse(self, g: Shift) -> Shift:
        return Shift(self, -g.steps % self.n)

    def project(self, z: Tensor, fallback: Tensor, layout: Any = None) -> Shift:
        z, fallback = torch.broadcast_tensors(z, fallback)
        return Shift(self, fallback.masked_fill(~self.best(z), -torch.inf).argmax(-1))

    def degenerate(self, z: Tensor, layout: Any = None) -> Tensor:
        return self.best(z).sum(-1) > 1

    def best(self, z: Tensor) -> Tensor:
        """Entries that are largest up to rounding."""
        slack = 100 * torch.finfo(z.dtype).eps * z.abs().amax(-1, keepdim=True)
        return z >= z.amax(-1, keepdim=True) - slack

    def draw_noise(self, shape: tuple[int, ...], layout: Any = None, **kwargs: Any) -> Tensor:
        return torch.randn(*shape, self.n, **kwargs)


torch.manual_seed(0)
ring = Shifts(12, "ring")
ps.testing.assert_group(ring)

model = nn.Sequential(nn.Linear(12, 32), nn.Tanh(), nn.Linear(32, 12))
signal = torch.randn(4, 12)
for p in (ps.Haar(ring), ps.Canonical(nn.Identity(), ring), ps.Learned(nn.Identity(), ring)):
    phi = ps.symmetrize(model, ps.Rep(ring), ps.Rep(ring), p).eval()
    report = ps.testing.assert_equivariant(phi, signal, generator=torch.Generator().manual_seed(0))
    print(type(p).__name__, report)
