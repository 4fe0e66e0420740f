"""E(n)-equivariant graph network with velocities: the network built for the symmetry of the n-body experiment."""

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, silu

from probsym.nets.masking import channels

from .displacements import differences, inverse, norm, square
from .message_passing import off_diagonal


class EGNN(nn.Module):
    """EGNN of Satorras et al. (arXiv 2102.09844, eq. 3 to 7), equivariant to S_n x E(d) for any n and d.

        h_i   = W |v_i| + b
        m_ij  = SiLU(W_2 SiLU(W_1 [h_i, h_j, |x_i - x_j|^2, a_ij, |x_i - x_j|^2 at the start] + b_1) + b_2)
        x_i  <- x_i + a(h_i) v_i + 1/(n-1) sum_j (x_i - x_j) c(m_ij)           a, c: two-layer networks, one number
        h_i  <- h_i + MLP [h_i, sum_j m_ij]

    `forward(pos (R, N, D), vel (R, N, D), edge (R, N, N[, P])) -> displacement (R, N, D)`, the sum of all moves of x,
    as the other n-body models; v is the given velocity in all layers. With `velocity` one more layer moves v in place
    of x, and the output is {"pos": displacement, "vel": change of the velocity}.
    The authors' code has 12,416 more parameters, an update of h after the last layer that nothing reads.

    Args:
        inverse: tell messages s_ij = (|x_i - x_j|^2 + SOFTENING^2)^(-1/2) and s_ij a_ij too (`ParticleDynamics`).

    >>> net, q = EGNN().double(), torch.linalg.qr(torch.randn(3, 3).double())[0]
    >>> sum(p.numel() for p in net.parameters())
    121604
    >>> pos, vel, edge = torch.randn(2, 5, 3).double(), torch.randn(2, 5, 3).double(), torch.randn(2, 5, 5, 1).double()
    >>> torch.allclose(net(pos @ q + 9, vel @ q, edge), net(pos, vel, edge) @ q)
    True
    """

    def __init__(
        self,
        pair_features: int = 1,
        hidden: int = 64,
        layers: int = 4,
        velocity: bool = False,
        inverse: bool = False,
    ) -> None:
        super().__init__()
        self.embed = nn.Linear(1, hidden)
        count = layers + velocity
        size = 2 + pair_features + inverse * (1 + pair_features)
        self.layers = nn.ModuleList(EGNNLayer(hidden, size, last=i == count - 1) for i in range(count))
        self.velocity = velocity
        self.inverse = inverse

    def forward(self, pos: Tensor, vel: Tensor, edge: Tensor) -> Tensor | dict[str, Tensor]:
        edge = channels(edge)
        start = square(differences(pos))
        h = self.embed(norm(vel))
        moved = torch.zeros_like(pos)
        for layer in self.layers:
            before = moved
            apart = differences(pos + moved)
            h, move = layer(h, apart, vel, self.felt(square(apart), edge, start))
            moved = before + move
        if not self.velocity:
            return moved
        return {"pos": before, "vel": move}  # the last move is that of the velocities

    def felt(self, distance: Tensor, edge: Tensor, start: Tensor) -> Tensor:
        """What messages are told of a pair (R, N, N, A), from squared distances now and at the start."""
        features = [distance, edge, start]
        if self.inverse:
            features += [inverse(distance), inverse(distance) * edge]
        return torch.cat(features, -1)


class EGNNLayer(nn.Module):
    """One layer: h (R, N, H), x_i - x_j (R, N, N, D), v (R, N, D), pairs (R, N, N, A) to new h and the move of x."""

    def __init__(self, hidden: int, pair_features: int, last: bool) -> None:
        super().__init__()
        self.edge_in = nn.Linear(2 * hidden + pair_features, hidden)
        self.edge_out = nn.Linear(hidden, hidden)
        self.along_pairs = nn.Sequential(nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, 1, bias=False))
        self.along_velocity = nn.Sequential(nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, 1))
        last_linear = self.along_pairs[-1]
        assert isinstance(last_linear, nn.Linear)
        nn.init.xavier_uniform_(last_linear.weight, gain=0.001)
        self.node: nn.Sequential | None = None  # nothing reads h after the last layer
        if not last:
            self.node = nn.Sequential(nn.Linear(2 * hidden, hidden), nn.SiLU(), nn.Linear(hidden, hidden))

    def forward(self, h: Tensor, apart: Tensor, v: Tensor, pairs: Tensor) -> tuple[Tensor, Tensor]:
        width = h.shape[-1]
        # 1. Messages, with one linear map for each part of [h_i, h_j, pair], as in `MessageLayer`.
        receiver, sender, rest = self.edge_in.weight.split([width, width, pairs.shape[-1]], 1)
        to = linear(h, receiver, self.edge_in.bias).unsqueeze(2)
        by = linear(h, sender).unsqueeze(1)
        inner = silu(off_diagonal(linear(pairs, rest) + to + by))
        messages = silu(self.edge_out(inner))

        # 2. The move of x, from the old h.
        push = (off_diagonal(apart) * self.along_pairs(messages)).sum(2) / max(v.shape[1] - 1, 1)
        move = push + self.along_velocity(h) * v

        # 3. The new h.
        if self.node is not None:
            h = h + self.node(torch.cat([h, messages.sum(2)], -1))
        return h, move
