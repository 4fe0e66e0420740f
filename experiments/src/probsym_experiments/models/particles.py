"""The n-body models: positions, velocities and pair features in, displacements out.

A displacement is a vector: declare `Rep(nodes, space.vector)`, and add the positions to the average,

    new positions = pos + phi(pos=pos, vel=vel, edge=edge).

The models do not add them themselves, since that sends a wrong gradient to a learned order (docs/theory.md, eq. 8).
With `velocity` they predict the change of the velocities too and return {"pos": ..., "vel": ...}.
"""

import torch
from torch import Tensor, nn

from probsym.nets.masking import channels

from .displacements import differences, square
from .message_passing import MessagePassing
from .node_transformer import NodeTransformer
from .pair_transformer import Block, PairTransformer


class ParticleModel(nn.Module):
    """A network (nodes (R, N, F), pairs (R, N, N, P)) -> (R, N, D or 2D) that tells how far each particle moves.

    `forward(pos (R, N, D), vel (R, N, D), edge (R, N, N[, P])) -> displacement (R, N, D)`, or {"pos": displacement,
    "vel": change of the velocity} where the network has 2D outputs.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, pos: Tensor, vel: Tensor, edge: Tensor) -> Tensor | dict[str, Tensor]:
        change = self.net(*particles(pos, vel, edge))
        dim = pos.shape[-1]
        if change.shape[-1] == dim:
            return change
        return {"pos": change[..., :dim], "vel": change[..., dim:]}


class GivenPairs(nn.Module):
    """A network on particles whose pair features, distances among them, are given and not computed from the positions.

    So a learned order permutes them as it permutes all else, and gets a gradient through them, as in the code of
    arXiv 2306.02866.

    `forward(pos (R, N, D), vel (R, N, D), edge (R, N, N, P)) -> (R, N, out)`.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, pos: Tensor, vel: Tensor, edge: Tensor) -> Tensor:
        return self.net(torch.cat([pos, vel], -1), edge)


def published_transformer(num_nodes: int = 5, dim: int = 3, width: int = 64, layers: int = 8) -> PairTransformer:
    """`PairTransformer` with first weights of the law that the published code draws them from.

    There one linear map reads the features of particles and pairs, and torch's encoder begins with equal layers.

    >>> sum(p.numel() for p in published_transformer().parameters())
    208387
    """
    net = PairTransformer(num_nodes, 2 * dim, 2, dim, width, layers)
    read = nn.Linear(2 * dim + 2, width)
    layer = nn.TransformerEncoderLayer(width, 4, width)
    with torch.no_grad():
        net.nodes.weight.copy_(read.weight[:, : 2 * dim])
        net.pairs.weight.copy_(read.weight[:, 2 * dim :])
        net.pairs.bias.copy_(read.bias)
        for block in net.blocks:
            assert isinstance(block, Block)
            block.qkv.weight.copy_(layer.self_attn.in_proj_weight)
            block.qkv.bias.copy_(layer.self_attn.in_proj_bias)
            block.out.load_state_dict(layer.self_attn.out_proj.state_dict())
            block.mlp[0].load_state_dict(layer.linear1.state_dict())
            block.mlp[-1].load_state_dict(layer.linear2.state_dict())
    return net


class ParticleGNN(ParticleModel):
    """`MessagePassing` on particles: 92,103 parameters in space (arXiv 2102.09844, 2306.02866).

    `forward(pos (R, N, D), vel (R, N, D), edge (R, N, N[, P])) -> displacement (R, N, D)`, any N.

    >>> net = ParticleGNN()
    >>> sum(p.numel() for p in net.parameters())
    92103
    >>> net(torch.randn(2, 7, 3), torch.randn(2, 7, 3), torch.randn(2, 7, 7, 1)).shape
    torch.Size([2, 7, 3])
    """

    def __init__(
        self, dim: int = 3, pair_features: int = 1, hidden: int = 60, layers: int = 4, velocity: bool = False
    ) -> None:
        super().__init__(MessagePassing(2 * dim, pair_features + 1, (1 + velocity) * dim, hidden, layers))


class ParticleTransformer(ParticleModel):
    """`PairTransformer` on a fixed number of particles: 208,387 parameters for 5 in space (arXiv 2306.02866).

    `forward(pos (R, N, D), vel (R, N, D), edge (R, N, N[, P])) -> displacement (R, N, D)`, N = num_nodes.

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
        velocity: bool = False,
    ) -> None:
        out = (1 + velocity) * dim
        super().__init__(PairTransformer(num_nodes, 2 * dim, pair_features + 1, out, width, layers, heads))


class ParticleNodeTransformer(ParticleModel):
    """`NodeTransformer` on a fixed number of particles: tokens are particles, not pairs of them.

    `forward(pos (R, N, D), vel (R, N, D), edge (R, N, N[, P])) -> displacement (R, N, D)`, N = num_nodes.

    >>> sum(p.numel() for p in ParticleNodeTransformer().parameters())
    123123
    """

    def __init__(
        self,
        num_nodes: int = 5,
        dim: int = 3,
        pair_features: int = 1,
        width: int = 64,
        layers: int = 4,
        heads: int = 4,
        velocity: bool = False,
    ) -> None:
        out = (1 + velocity) * dim
        super().__init__(NodeTransformer(num_nodes, 2 * dim, pair_features + 1, out, width, layers, heads))


def particles(pos: Tensor, vel: Tensor, edge: Tensor) -> tuple[Tensor, Tensor]:
    """Nodes `[x_i, v_i]` (R, N, 2D) and pairs `[edge_ij, |x_i - x_j|^2]` (R, N, N, P + 1).

    >>> nodes, pairs = particles(torch.ones(2, 5, 3), torch.ones(2, 5, 3), torch.ones(2, 5, 5))
    >>> nodes.shape, pairs.shape
    (torch.Size([2, 5, 6]), torch.Size([2, 5, 5, 2]))
    """
    nodes = torch.cat([pos, vel], -1)
    pairs = torch.cat([channels(edge), square(differences(pos))], -1)
    return nodes, pairs
