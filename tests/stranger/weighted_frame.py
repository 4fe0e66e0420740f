"""A weighted frame of O(2), SO(2) and SO(3): a pose for each pair of points, weighted by the area between them."""

from itertools import permutations

import torch

from probsym.distributions import EquivariantDistribution, Support
from probsym.reps import Rep
from probsym.saving import register


@register(name="reader/PairFrame")
class PairFrame(EquivariantDistribution):
    """The pose with p_i on the first axis and p_j in the first half-plane has weight |p_i ^ p_j|^2.

    It jumps only where p_i and p_j are in line with the origin, and there its weight vanishes. Where all points are in
    line, the poses have equal weights, and what is free of them is drawn.
    """

    has_enumerate_support = True
    default_samples = (None, None)

    def __init__(self, group, nodes):
        super().__init__(group)
        self.nodes = nodes

    def poses(self, pos, fallback):
        """Elements (*shape, B, M) and weights (B, M) of the pairs, and which inputs (B,) are more than a line."""
        i, j = torch.tensor(list(permutations(range(pos.shape[1]), 2)), device=pos.device).T
        z = torch.stack([pos[:, i], pos[:, j]], -1)  # (B, M, D, 2)
        area = torch.linalg.det(z.mT @ z).clamp_min(0)
        plane = area.sum(1) > 1e4 * torch.finfo(pos.dtype).eps * pos.square().sum((1, 2)) ** 2
        weight = torch.where(plane[:, None], area, 1)
        return self.group.project(z, fallback.unsqueeze(-3)), weight / weight.sum(1, keepdim=True), plane

    def support(self, x, generator=None):
        fallback = self.group.draw_noise((x.count,), generator=generator, dtype=x.dtype, device=x.device)
        element, weight, plane = self.poses(x.kwargs["pos"], fallback)
        one_draw = torch.ones_like(plane, dtype=torch.long)
        return Support(element.map(lambda t, _: t.movedim(1, 0)), weight.T, plane, {}, draws=one_draw)

    # For Monte Carlo: argmax(log w + Gumbel noise), one number for each pair of nodes.

    def noise(self, x, shape=(), generator=None):
        options = {"generator": generator, "dtype": x.dtype, "device": x.device}
        n = x.kwargs["pos"].shape[1]
        gumbel = -torch.log(-torch.log(torch.rand(*shape, x.count, n, n, **options)))
        return {"pair": gumbel, "fallback": self.group.draw_noise((*shape, x.count), **options)}

    def noise_rep(self, x):
        return {"pair": Rep(self.nodes, self.nodes), "fallback": Rep(*self.group.noise_slots)}

    def transport(self, x, noise, diagnostics=None):
        element, weight, _ = self.poses(x.kwargs["pos"], noise["fallback"])
        i, j = torch.tensor(list(permutations(range(x.kwargs["pos"].shape[1]), 2)), device=weight.device).T
        chosen = (weight.log() + noise["pair"][..., i, j]).argmax(-1)[..., None, None, None]  # (*shape, B, 1, 1, 1)
        return element.map(lambda matrix, _: matrix.take_along_dim(chosen, -3).squeeze(-3))
