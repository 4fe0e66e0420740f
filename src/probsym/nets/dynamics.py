"""Message passing that moves the particles as it goes: a learned integrator in coordinates, equivariant to S_n only."""

import torch
from torch import Tensor, nn

from .egnn import differences, square
from .message_passing import MessageLayer

SOFTENING = 0.1  # length below which inverse distances level off, in units of the positions


class ParticleDynamics(nn.Module):
    """One round of messages, applied `layers` times with the same weights; each time the particles move.

        a_ij = [e_ij, |r_ij|^2, r_ij, s_ij, s_ij e_ij],     r_ij = x_i - x_j,  s_ij = (|r_ij|^2 + SOFTENING^2)^(-1/2)
        h_i <- h_i + MLP [h_i, sum_j MLP [h_i, h_j, a_ij]]                              (`MessageLayer`)
        v_i <- v_i + W h_i + b,      x_i <- x_i + t_layer v_i,      h_i = W' [x_i, v_i] + b' at the start

    The times t are learned and begin at 1 / layers. r_ij and v_i are read by components, so nothing here is equivariant
    to rotations, and absolute positions make it depend on the origin: a network to symmetrize over E(d).

    `forward(pos (R, N, D), vel (R, N, D), edge (R, N, N[, P])) -> new positions (R, N, D)`, any N. With `velocity` it
    returns {"pos": ..., "vel": ...}.

    >>> net = ParticleDynamics()
    >>> sum(p.numel() for p in net.parameters())
    25931
    >>> net(torch.randn(2, 7, 3), torch.randn(2, 7, 3), torch.randn(2, 7, 7, 1)).shape
    torch.Size([2, 7, 3])
    """

    def __init__(
        self, dim: int = 3, pair_features: int = 1, hidden: int = 64, layers: int = 8, velocity: bool = False
    ) -> None:
        super().__init__()
        self.velocity = velocity
        self.embed = nn.Linear(2 * dim, hidden)
        self.messages = MessageLayer(hidden, 2 * pair_features + dim + 2)
        self.force = nn.Linear(hidden, dim)
        nn.init.normal_(self.force.weight, std=0.01)
        nn.init.zeros_(self.force.bias)
        self.times = nn.Parameter(torch.full((layers,), 1 / layers))

    def forward(self, pos: Tensor, vel: Tensor, edge: Tensor) -> Tensor | dict[str, Tensor]:
        edge = edge.unsqueeze(-1) if edge.ndim == 3 else edge
        h, x, v = self.embed(torch.cat([pos, vel], -1)), pos, vel
        for time in self.times:
            h = self.messages(h, interactions(x, edge))
            v = v + self.force(h)
            x = x + time * v
        return {"pos": x, "vel": v} if self.velocity else x


def interactions(pos: Tensor, edge: Tensor) -> Tensor:
    """What a pair feels of each other: positions (R, N, D) and edge (R, N, N, P) to (R, N, N, 2 P + D + 2)."""
    apart = differences(pos)
    distance = square(apart)
    inverse = (distance + SOFTENING**2).rsqrt()
    return torch.cat([edge, distance, apart, inverse, inverse * edge], -1)
