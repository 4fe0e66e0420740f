"""U(2) on complex vectors, and an equivariant net whose output `project` reads."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from probsym.groups import Element, Group, Slot
from probsym.groups.orthogonal import rotate
from probsym.saving import register


@dataclass(frozen=True, eq=False)
class UnitaryMatrix(Element):
    matrix: Tensor
    trailing_dims: ClassVar[dict[str, int]] = {"matrix": 2}


@register(name="reader/Spinor")
@dataclass(frozen=True)
class Spinor(Slot):
    """Two complex numbers."""

    is_complex = True
    sizes = (2,)

    def act(self, g, x, axis, shared_dims):
        return rotate(g.matrix, x, axis, shared_dims)


@register(name="reader/U2")
@dataclass(frozen=True)
class U2(Group[UnitaryMatrix]):
    """U(2). Features and noise are two complex columns (*shape, 2, 2)."""

    name: str | None = None

    @property
    def defining(self):
        return Spinor(self)

    @property
    def noise_slots(self):
        return (self.defining, None)

    def identity(self, shape=(), *, n=None, dtype=None, device=None):
        dtype = (dtype or torch.get_default_dtype()).to_complex()
        return UnitaryMatrix(self, torch.eye(2, dtype=dtype, device=device).expand(*shape, 2, 2))

    def compose(self, g, h):
        return UnitaryMatrix(self, g.matrix @ h.matrix)

    def inverse(self, g):
        return UnitaryMatrix(self, g.matrix.mH)

    def violation(self, g):
        return (g.matrix @ g.matrix.mH - torch.eye(2).to(g.matrix)).abs()

    def draw_noise(self, shape, *, n=None, **options):
        return torch.complex(*torch.randn(2, *shape, 2, 2, **options))

    def degenerate(self, z):
        first, second = z.unbind(-1)  # |det z| is the area between the columns
        area = (first[..., 0] * second[..., 1] - first[..., 1] * second[..., 0]).abs()
        return area <= 100 * torch.finfo(z.dtype).eps * z.abs().square().sum((-1, -2))

    def project(self, z, fallback):
        """Gram-Schmidt of the columns; of the fallback, all of it, where they are dependent."""
        z = torch.where(self.degenerate(z)[..., None, None], fallback, z)
        first = nn.functional.normalize(z[..., 0], dim=-1)
        rest = z[..., 1] - first * (first.conj() * z[..., 1]).sum(-1, keepdim=True)
        return UnitaryMatrix(self, torch.stack([first, nn.functional.normalize(rest, dim=-1)], -1))


@register(name="reader/TwoSums")
class TwoSums(nn.Module):
    """Two sums of spinors (B, N, 2), weighted by their lengths and by their products with the whole."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 16), nn.SiLU(), nn.Linear(16, 4))

    def forward(self, spinors):
        total = (spinors * spinors.sum(1, keepdim=True).conj()).sum(-1)
        invariants = torch.stack([spinors.abs().square().sum(-1), total.real, total.imag], -1)
        weights = self.net(invariants).unflatten(-1, (2, 2))
        return spinors.mT @ torch.view_as_complex(weights)
