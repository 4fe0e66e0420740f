"""Networks that move the particles as they go: learned integrators in coordinates, which know no rotation."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from probsym.nets.masking import channels

from .displacements import differences, inverse, square
from .message_passing import MessageLayer
from .node_transformer import BiasedBlock


class Integrator(nn.Module):
    """Rounds of messages, after each of which the particles move.

        a_ij = [e_ij, |r_ij|^2, r_ij, s_ij, s_ij e_ij],     r_ij = x_i - x_j,  s_ij = (|r_ij|^2 + SOFTENING^2)^(-1/2)
        h    <- round(h, a)
        v_i  <- v_i + force(h_i),      x_i <- x_i + t v_i,      h_i = W [x_i, v_i] + b at the start

    The times t are learned and begin at `time` / steps. r_ij and v_i are read by components, so nothing here is
    equivariant to rotations, and absolute positions make it depend on the origin: networks to symmetrize over E(d).

    `forward(pos (R, N, D), vel (R, N, D), edge (R, N, N[, P])) -> x - (pos + time vel) (R, N, D)`: how far the forces
    carry the particles from where they would fly without any, in `time` units, one unless given. That is a vector:
    declare `Rep(nodes, space.vector)`, and add free flight to the average,

        new positions = pos + time vel + phi(pos=pos, vel=vel, edge=edge).

    Added inside, it would send a wrong gradient to a learned order (docs/theory.md, eq. 8). With `velocity` it
    returns {"pos": x - (pos + time vel), "vel": v - vel}.

    Args:
        rounds: modules (h (R, N, H), a (R, N, N, A)) -> h, taken in turn over `steps` steps. forces: H to D, likewise.
    """

    def __init__(
        self,
        dim: int,
        hidden: int,
        rounds: Sequence[nn.Module],
        forces: Sequence[nn.Module],
        steps: int,
        velocity: bool,
        time: float,
    ) -> None:
        super().__init__()
        self.velocity = velocity
        self.time = time
        self.embed = nn.Linear(2 * dim, hidden)
        self.rounds = nn.ModuleList(rounds)
        self.forces = nn.ModuleList(forces)
        self.times = nn.Parameter(torch.full((steps,), time / steps))

    def start(self, pos: Tensor, vel: Tensor) -> Tensor:
        """The first h."""
        return self.embed(torch.cat([pos, vel], -1))

    def forward(self, pos: Tensor, vel: Tensor, edge: Tensor) -> Tensor | dict[str, Tensor]:
        edge = channels(edge)
        h = self.start(pos, vel)
        # What the forces have added to the velocities, and to the positions.
        gained = torch.zeros_like(vel)
        bent = torch.zeros_like(vel)
        clock = self.times.new_zeros(())
        for i, time in enumerate(self.times):
            x = pos + clock * vel + bent
            h = self.rounds[i % len(self.rounds)](h, interactions(x, edge))
            gained = gained + self.forces[i % len(self.forces)](h)
            bent = bent + time * gained
            clock = clock + time
        off = bent + (clock - self.time) * vel  # free flight takes `time`, the learned clock about that
        if self.velocity:
            return {"pos": off, "vel": gained}
        return off


class ParticleDynamics(Integrator):
    """`Integrator` whose rounds are one and the same round of messages: equivariant to S_n, for any N.

        h_i <- h_i + MLP [h_i, sum_j MLP [h_i, h_j, a_ij]],     force(h_i) = W h_i + b             (`MessageLayer`)

    >>> net = ParticleDynamics()
    >>> sum(p.numel() for p in net.parameters())
    25931
    >>> net(torch.randn(2, 7, 3), torch.randn(2, 7, 3), torch.randn(2, 7, 7, 1)).shape
    torch.Size([2, 7, 3])
    """

    def __init__(
        self,
        dim: int = 3,
        pair_features: int = 1,
        hidden: int = 64,
        layers: int = 8,
        velocity: bool = False,
        time: float = 1.0,
    ) -> None:
        messages = MessageLayer(hidden, interacting(dim, pair_features))
        super().__init__(dim, hidden, [messages], [weak(nn.Linear(hidden, dim))], layers, velocity, time)


class ParticleDynamicsTransformer(Integrator):
    """`Integrator` whose rounds are attention, a token a particle: its embeddings tell particles apart, N = num_nodes.

        h       <- h + position                                                        at the start
        e_ij    = GELU(W' GELU(W a_ij + b + position_ij) + b')                         `pair_width` channels, each round
        h       <- BiasedBlock(h, e, B e),     force(h_i) = W LayerNorm(h_i) + b       (`NodeTransformer`)

    >>> net = ParticleDynamicsTransformer()
    >>> sum(p.numel() for p in net.parameters())
    216600
    >>> net(torch.randn(2, 5, 3), torch.randn(2, 5, 3), torch.randn(2, 5, 5, 1)).shape
    torch.Size([2, 5, 3])
    """

    def __init__(
        self,
        num_nodes: int = 5,
        dim: int = 3,
        pair_features: int = 1,
        width: int = 64,
        layers: int = 6,
        heads: int = 4,
        pair_width: int = 32,
        velocity: bool = False,
        time: float = 1.0,
    ) -> None:
        size = interacting(dim, pair_features)
        rounds = []
        for _ in range(layers):
            rounds.append(AttentionRound(num_nodes, size, width, heads, pair_width))
        forces = []
        for _ in range(layers):
            forces.append(nn.Sequential(nn.LayerNorm(width), weak(nn.Linear(width, dim))))
        super().__init__(dim, width, rounds, forces, layers, velocity, time)
        self.position = nn.Parameter(torch.randn(num_nodes, width))

    def start(self, pos: Tensor, vel: Tensor) -> Tensor:
        if pos.shape[1] != len(self.position):
            raise ValueError(f"pos: expected shape (R, {len(self.position)}, D), got {tuple(pos.shape)}")
        return super().start(pos, vel) + self.position


class AttentionRound(nn.Module):
    """Tokens (R, N, W) and what pairs feel (R, N, N, A) to tokens."""

    def __init__(self, num_nodes: int, features: int, width: int, heads: int, pair_width: int) -> None:
        super().__init__()
        self.pairs = nn.Linear(features, pair_width)
        self.mix = nn.Linear(pair_width, pair_width)
        self.position = nn.Parameter(torch.randn(num_nodes, num_nodes, pair_width))
        self.bias = nn.Linear(pair_width, heads, bias=False)
        self.block = BiasedBlock(width, heads, pair_width)

    def forward(self, h: Tensor, felt: Tensor) -> Tensor:
        gelu = nn.functional.gelu
        inner = gelu(self.pairs(felt) + self.position)
        e = gelu(self.mix(inner))
        return self.block(h, e, self.bias(e).movedim(-1, 1))


def interacting(dim: int, pair_features: int) -> int:
    """Size of the last axis of `interactions`."""
    return 2 * pair_features + dim + 2


def interactions(pos: Tensor, edge: Tensor) -> Tensor:
    """What a pair feels of each other: positions (R, N, D) and edge (R, N, N, P) to (R, N, N, 2 P + D + 2)."""
    apart = differences(pos)
    distance = square(apart)
    return torch.cat([edge, distance, apart, inverse(distance), inverse(distance) * edge], -1)


def weak(linear: nn.Linear) -> nn.Linear:
    """The layer with small weights and no bias: at the start particles fly on almost freely."""
    nn.init.normal_(linear.weight, std=0.01)
    nn.init.zeros_(linear.bias)
    return linear
