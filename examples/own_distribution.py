"""Distributions of your own: two hand-made ways to choose a pose, multiplied, checked, and used."""

import torch
from torch import nn

import probsym as ps
from probsym.distributions.base import ProjectedDistribution
from probsym.distributions.geometry import centroid

torch.manual_seed(0)


class ByDistance(ProjectedDistribution):
    """Number the points by their distance from the centroid. Noise of size `spread` makes it a distribution."""

    def __init__(self, nodes: ps.S, space: ps.E, spread: float) -> None:
        super().__init__(nodes)
        self.space = space
        self.spread = spread

    def features(self, x, noise):
        (nodes,) = self.group.factors
        offset = x.kwargs["pos"] - centroid(x, self.space)[:, None]
        scores = offset.square().sum(-1) + self.spread * noise[nodes]
        return {nodes: scores}


class ByMoments(ProjectedDistribution):
    """Axes from vector-valued moments of the cloud: sums of v |v|^(2m), which permutations leave alone."""

    def features(self, x, noise):
        (space,) = self.group.factors
        origin = centroid(x, space)
        offset = x.kwargs["pos"] - origin[:, None]
        size = offset.square().sum(-1, keepdim=True)
        size = size / size.mean(1, keepdim=True)
        moments = []
        for m in (1, 2, 3):
            moments.append((offset * size**m).mean(1))
        axes = torch.stack(moments, -1) + 0.1 * noise[space]
        return {space: (origin, axes)}


nodes, space = ps.S("nodes"), ps.E(3, "space")
inputs = {"pos": ps.Rep(nodes, space)}
output = ps.Rep(nodes, space.vector)
p = ByDistance(nodes, space, spread=0.3) * ByMoments(space)
x = {"pos": torch.randn(4, 6, 3, dtype=torch.float64)}
ps.testing.assert_distribution(p, x, inputs)
print("p moves with its input, exactly, noise and all")


class Model(nn.Module):
    """How far each point moves; the new positions are pos + phi(pos=pos)."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(18, 32), nn.Tanh(), nn.Linear(32, 18))

    def forward(self, pos: torch.Tensor) -> torch.Tensor:
        return self.net(pos.flatten(1)).view_as(pos)


phi = ps.symmetrize(Model().double(), inputs, output, p).eval()
print(ps.testing.assert_equivariant(phi, x, generator=torch.Generator().manual_seed(0)))
