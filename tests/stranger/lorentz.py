"""SO+(1,3) on four-vectors (t, x, y, z)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

import probsym as ps
from probsym.groups import Element, Group, Slot
from probsym.groups.orthogonal import rotate
from probsym.saving import register


def dot(p, q):
    return p[..., 0] * q[..., 0] - (p[..., 1:] * q[..., 1:]).sum(-1)


def velocity(v):
    """The unit four-velocity (*shape, 4) whose space part is v (*shape, 3)."""
    return torch.cat([(1 + v.square().sum(-1, keepdim=True)).sqrt(), v], -1)


@dataclass(frozen=True, eq=False)
class LorentzMatrix(Element):
    matrix: Tensor
    trailing_dims: ClassVar[dict[str, int]] = {"matrix": 2}


@register(name="reader/FourVector")
@dataclass(frozen=True)
class FourVector(Slot):
    sizes = (4,)

    def act(self, g, x, axis, shared_dims):
        return rotate(g.matrix, x, axis, shared_dims)


@register(name="reader/Lorentz")
@dataclass(frozen=True)
class Lorentz(Group[LorentzMatrix]):
    """Features are columns (*shape, 4, 3), the first one timelike; noise (*shape, 4, 3) is a velocity and a matrix."""

    name: str | None = None
    compact = False
    noise_slots = (None, None)
    defining = property(FourVector)
    feature_slots = property(lambda self: (self.defining, None))

    def identity(self, shape=(), *, n=None, dtype=None, device=None):
        return LorentzMatrix(self, torch.eye(4, dtype=dtype, device=device).expand(*shape, 4, 4))

    def compose(self, g, h):
        return LorentzMatrix(self, g.matrix @ h.matrix)

    def inverse(self, g):
        eta = torch.tensor([1.0, -1, -1, -1]).to(g.matrix)
        return LorentzMatrix(self, eta[:, None] * g.matrix.mT * eta)

    def violation(self, g):
        return (g.inverse().matrix @ g.matrix - torch.eye(4).to(g.matrix)).abs()

    def at_rest(self, z, fallback):
        """The boost to the first column, or to a random velocity, and the other columns seen from there (.., 3, 2)."""
        timelike = (dot(z[..., 0], z[..., 0]) > 0) & (z[..., 0, 0] > 0)
        p = torch.where(timelike[..., None], z[..., 0], velocity(fallback[..., 0, :]))
        t, v = (p / dot(p, p).sqrt()[..., None])[..., None].split([1, 3], -2)
        space = torch.eye(3).to(v) + v @ v.mT / (1 + t)
        boost = torch.cat([torch.cat([t, v.mT], -1), torch.cat([v, space], -1)], -2)
        others = torch.where(timelike[..., None, None], space @ z[..., 1:, 1:] - v * z[..., :1, 1:], 0)
        return timelike, boost, others

    def degenerate(self, z):
        timelike, _, others = self.at_rest(z, torch.zeros_like(z))
        return ~timelike | ps.SO(3).degenerate(others)

    def project(self, z, fallback):
        _, boost, others = self.at_rest(z, fallback)
        turned = boost[..., 1:] @ ps.SO(3).project(others, fallback[..., 1:, :]).matrix
        return LorentzMatrix(self, torch.cat([boost[..., :1].expand_as(turned[..., :1]), turned], -1))

    def draw_noise(self, shape, *, n=None, **options):
        return torch.randn(*shape, 4, 3, **options)

    def draw_features(self, shape, **options):
        z = self.draw_noise(shape, **options)
        return torch.cat([velocity(z[..., 0, :])[..., None], z[..., :2]], -1)
