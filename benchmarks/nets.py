"""Plain base models whose calls are timed: of the sizes of the n-body experiment (arXiv 2306.02866), no more."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, linear, scaled_dot_product_attention, silu

from probsym.nets import GIN


class MLP(nn.Module):
    """A perceptron with tanh on its flattened argument: (R, ...) to (R, *out)."""

    def __init__(self, in_features: int, hidden: Sequence[int], *out: int) -> None:
        super().__init__()
        self.out = out
        layers: list[nn.Module] = []
        for before, after in pairwise((in_features, *hidden)):
            layers += [nn.Linear(before, after), nn.Tanh()]
        total = 1
        for length in out:
            total *= length
        self.net = nn.Sequential(*layers, nn.Linear(hidden[-1], total))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x.flatten(1)).unflatten(-1, self.out)


def pair_features(pos: Tensor, edge: Tensor) -> Tensor:
    """The edge and the squared distance of each pair: (R, N, D) and (R, N, N, 1) to (R, N, N, 2)."""
    gaps = pos.unsqueeze(2) - pos.unsqueeze(1)
    return torch.cat([edge, gaps.square().sum(-1, keepdim=True)], -1)


class ParticleGNN(nn.Module):
    """Messages between all pairs of particles, 92,103 parameters: positions, velocities and edges to displacements."""

    def __init__(self, dim: int = 3, hidden: int = 60, layers: int = 4) -> None:
        super().__init__()
        self.embed = nn.Linear(2 * dim, hidden)
        self.layers = nn.ModuleList(MessageLayer(hidden, 2) for _ in range(layers))
        self.decode = nn.Sequential(nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, dim))

    def forward(self, pos: Tensor, vel: Tensor, edge: Tensor) -> Tensor:
        pairs = pair_features(pos, edge)
        h = self.embed(torch.cat([pos, vel], -1))
        for layer in self.layers:
            h = layer(h, pairs)
        return self.decode(h)


class MessageLayer(nn.Module):
    """One round of messages: nodes (R, N, H) and pairs (R, N, N, P) to (R, N, H)."""

    def __init__(self, hidden: int, pair_width: int) -> None:
        super().__init__()
        self.edge_in = nn.Linear(2 * hidden + pair_width, hidden)
        self.edge_out = nn.Linear(hidden, hidden)
        self.node = nn.Sequential(nn.Linear(2 * hidden, hidden), nn.SiLU(), nn.Linear(hidden, hidden))

    def forward(self, h: Tensor, pairs: Tensor) -> Tensor:
        width = h.shape[-1]
        receiver, sender, pair = self.edge_in.weight.split([width, width, pairs.shape[-1]], 1)
        inner = linear(pairs, pair)
        inner = inner + linear(h, receiver, self.edge_in.bias).unsqueeze(2)
        inner = inner + linear(h, sender).unsqueeze(1)
        messages = silu(self.edge_out(silu(off_diagonal(inner))))
        return h + self.node(torch.cat([h, messages.sum(2)], -1))


def off_diagonal(x: Tensor) -> Tensor:
    """The entries i != j: (R, N, N, C) to (R, N, N-1, C). After the first entry, every (N+1)-th is on the diagonal."""
    rows, n, _, c = x.shape
    return x.flatten(1, 2)[:, 1:].unflatten(1, (n - 1, n + 1))[:, :, :n].reshape(rows, n, n - 1, c)


class ParticleTransformer(nn.Module):
    """Attention among all N * N pairs of particles, 208,387 parameters for five; it tells them apart by position."""

    def __init__(self, num_nodes: int = 5, dim: int = 3, width: int = 64, layers: int = 8, heads: int = 4) -> None:
        super().__init__()
        self.nodes = nn.Linear(2 * dim, width, bias=False)
        self.pairs = nn.Linear(2, width)
        self.position = nn.Parameter(torch.randn(num_nodes, num_nodes, width))
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(layers)))
        self.head = head(width, dim)

    def forward(self, pos: Tensor, vel: Tensor, edge: Tensor) -> Tensor:
        nodes = self.nodes(torch.cat([pos, vel], -1))
        diagonal = torch.diag_embed(nodes.mT).movedim(1, 3)
        tokens = self.pairs(pair_features(pos, edge)) + diagonal + self.position
        tokens = self.blocks(tokens.flatten(1, 2))
        return self.head(tokens[:, :: pos.shape[1] + 1])


class Block(nn.Module):
    """A pre-norm transformer block with an MLP of its own width: (R, T, width) to itself."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before_attention = nn.LayerNorm(width)
        self.before_mlp = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))

    def forward(self, tokens: Tensor) -> Tensor:
        q, k, v = split_heads(self.qkv(self.before_attention(tokens)), self.heads)
        read = scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        tokens = tokens + self.out(read)
        return tokens + self.mlp(self.before_mlp(tokens))


def split_heads(qkv: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values (R, heads, T, width / heads) from what one linear map gives (R, T, 3 width)."""
    q, k, v = qkv.unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
    return q, k, v


class AtomTransformer(nn.Module):
    """Attention among N atoms whose weights see their distances: (R, N, 3) to (R, 1)."""

    def __init__(self, num_atoms: int, width: int = 64, layers: int = 4, heads: int = 4, pair_width: int = 16) -> None:
        super().__init__()
        self.nodes = nn.Linear(3, width, bias=False)
        self.pairs = nn.Linear(1, pair_width, bias=False)
        self.position = nn.Parameter(torch.randn(num_atoms, width))
        self.pair_position = nn.Parameter(torch.randn(num_atoms, num_atoms, pair_width))
        self.bias = nn.Linear(pair_width, layers * heads, bias=False)
        self.blocks = nn.ModuleList(BiasedBlock(width, heads, pair_width) for _ in range(layers))
        self.head = head(width, 1)

    def forward(self, pos: Tensor) -> Tensor:
        distances = torch.cdist(pos, pos).unsqueeze(-1)
        h = self.nodes(pos) + self.position
        e = gelu(self.pairs(distances) + self.pair_position)
        biases = self.bias(e).movedim(-1, 1).chunk(len(self.blocks), 1)
        for block, bias in zip(self.blocks, biases, strict=True):
            h = block(h, e, bias)
        return self.head(h).mean(1)


class BiasedBlock(nn.Module):
    """A pre-norm block: tokens (R, N, W), pair features (R, N, N, E) and biases (R, heads, N, N) to tokens."""

    def __init__(self, width: int, heads: int, pair_width: int) -> None:
        super().__init__()
        self.heads = heads
        self.before_attention = nn.LayerNorm(width)
        self.before_mlp = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width + heads * pair_width, width)
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))

    def forward(self, h: Tensor, e: Tensor, bias: Tensor) -> Tensor:
        q, k, v = split_heads(self.qkv(self.before_attention(h)), self.heads)
        weights = (q @ k.mT / q.shape[-1] ** 0.5 + bias).softmax(-1)
        read = (weights @ v).transpose(1, 2).flatten(2)
        seen = (weights.transpose(1, 2) @ e).flatten(2)
        h = h + self.out(torch.cat([read, seen], -1))
        return h + self.mlp(self.before_mlp(h))


def head(width: int, out_features: int) -> nn.Sequential:
    """What reads the result from a token."""
    return nn.Sequential(
        nn.LayerNorm(width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, out_features)
    )


class GraphMLP(nn.Module):
    """A perceptron on a padded adjacency and the features of its nodes: (R, N, N) and (R, N, F) to (R, 1)."""

    def __init__(self, num_nodes: int, features: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.net = MLP(num_nodes * (num_nodes + features), hidden, 1)

    def forward(self, adjacency: Tensor, nodes: Tensor, mask: Tensor) -> Tensor:
        return self.net(torch.cat([adjacency.flatten(1), nodes.flatten(1)], 1))


class WalkScores(nn.Module):
    """A net of p on graphs: scores (B, N) by a GIN on the features and on `walks` return probabilities of walks."""

    def __init__(self, walks: int) -> None:
        super().__init__()
        self.walks = walks
        self.gin = GIN(64, 3)

    def forward(self, adjacency: Tensor, nodes: Tensor, mask: Tensor) -> Tensor:
        features = torch.cat([nodes, return_probabilities(adjacency, self.walks)], -1) * mask.unsqueeze(-1)
        return self.gin(features, adjacency, mask).squeeze(-1)


def return_probabilities(adjacency: Tensor, steps: int) -> Tensor:
    """Probability that a walk is back where it began after t = 1, ..., `steps` steps: (B, N, N) to (B, N, T).

    They are diag(S^t) with S = D^-1/2 A D^-1/2. Since (S^{a+b})_ii = sum_j (S^a)_ij (S^b)_ij, half of the powers do.
    """
    degree = adjacency.sum(-1)
    root = torch.where(degree > 0, degree.clamp_min(1e-12).rsqrt(), 0.0)
    powers = [root[..., None] * adjacency * root[..., None, :]]
    while 2 * len(powers) < steps:
        powers.append(powers[-1] @ powers[0])
    probabilities = [powers[0].diagonal(dim1=-2, dim2=-1)]
    for t in range(2, steps + 1):
        larger_half = powers[(t + 1) // 2 - 1]
        smaller_half = powers[t // 2 - 1]
        probabilities.append((larger_half * smaller_half).sum(-1))
    return torch.stack(probabilities, -1)
