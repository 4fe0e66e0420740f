"""p(g|x) over SO+(1,3): a learned rest frame, turned at random and boosted a little."""

import torch
from tests.stranger.lorentz import dot
from torch import nn

from probsym.distributions import NetDistribution
from probsym.saving import register


@register(name="reader/Sums")
class Sums(nn.Module):
    """Three sums of the momenta (B, N, 4), weighted by invariants; the weights of the first are positive."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 16), nn.SiLU(), nn.Linear(16, 3))

    def forward(self, momenta):
        invariants = torch.stack([dot(momenta, momenta.sum(1, keepdim=True)), dot(momenta, momenta)], -1)
        weights = self.net(invariants.clamp_min(0).log1p())
        return momenta.mT @ torch.cat([nn.functional.softplus(weights[..., :1]), weights[..., 1:]], -1)


@register(name="reader/NearRest")
class NearRest(NetDistribution):
    """project(net(x)) k(eps), where k is a velocity of size `scale`, then any turn."""

    def __init__(self, net, group, scale):
        super().__init__(net, group)
        self.scale = scale

    def features(self, x, noise):
        return self.net_features(x)

    def transport(self, x, noise, diagnostics=None):
        eps = noise["features"][self.group]
        eps = torch.cat([self.scale * eps[..., :1, :], eps[..., 1:, :]], -2)
        return super().transport(x, noise, diagnostics) @ self.group.project(torch.zeros_like(eps), eps)
