"""The n-body models: positions, velocities and pair features in, new positions out."""

import torch
from torch import Tensor, nn

from .message_passing import MessagePassing
from .pair_transformer import PairTransformer


class ParticleGNN(nn.Module):
    """`MessagePassing` on particles: 92,103 parameters in space (arXiv 2102.09844, 2306.02866).

    `forward(pos (R, N, D), vel (R, N, D), edge (R, N, N[, P])) -> pos + displacement`, any N.

    >>> net = ParticleGNN()
    >>> sum(p.numel() for p in net.parameters())
    92103
    >>> net(torch.randn(2, 7, 3), torch.randn(2, 7, 3), torch.randn(2, 7, 7, 1)).shape
    torch.Size([2, 7, 3])
    """

    def __init__(self, dim: int = 3, pair_features: int = 1, hidden: int = 60, layers: int = 4) -> None:
        super().__init__()
        self.net = MessagePassing(2 * dim, pair_features + 1, dim, hidden, layers)

    def forward(self, pos: Tensor, vel: Tensor, edge: Tensor) -> Tensor:
        return pos + self.net(*particles(pos, vel, edge))


class ParticleTransformer(nn.Module):
    """`PairTransformer` on a fixed number of particles: 208,387 parameters for 5 in space (arXiv 2306.02866).

    `forward(pos (R, N, D), vel (R, N, D), edge (R, N, N[, P])) -> pos + displacement`, N = num_nodes.

    >>> sum(p.numel() for p in ParticleTransformer().parameters())
    208387
    """

    def __init__(
        self,
        num_nodes: int = 5,
        dim: int = 3,
        pair_features: int = 1,
        width: int = 64,
        layers: int = 8,
        heads: int = 4,
    ) -> None:
        super().__init__()
        self.net = PairTransformer(num_nodes, 2 * dim, pair_features + 1, dim, width, layers, heads)

    def forward(self, pos: Tensor, vel: Tensor, edge: Tensor) -> Tensor:
        return pos + self.net(*particles(pos, vel, edge))


def particles(pos: Tensor, vel: Tensor, edge: Tensor) -> tuple[Tensor, Tensor]:
    """Nodes `[x_i, v_i]` (R, N, 2D) and pairs `[edge_ij, |x_i - x_j|^2]` (R, N, N, P + 1).

    >>> nodes, pairs = particles(torch.ones(2, 5, 3), torch.ones(2, 5, 3), torch.ones(2, 5, 5))
    >>> nodes.shape, pairs.shape
    (torch.Size([2, 5, 6]), torch.Size([2, 5, 5, 2]))
    """
    edge = edge.unsqueeze(-1) if edge.ndim == 3 else edge
    distance = (pos.unsqueeze(2) - pos.unsqueeze(1)).square().sum(-1, keepdim=True)
    return torch.cat([pos, vel], -1), torch.cat([edge, distance], -1)
