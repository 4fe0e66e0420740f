"""Transformer with one token a node, whose attention sees random walks: a base model for graphs of any size."""

import torch
from torch import Tensor, nn

from probsym.nets.masking import keep, pairwise

from .attention import check_heads, merge_heads, split_heads, token_mlp

FAR = -1e4  # logit of a padded node: its exponential is 0 in every precision


class WalkTransformer(nn.Module):
    """Attention among nodes, biased by how random walks connect them; a place in the order is what breaks symmetry.

        h_i   = W x_i + U [1 / d_i, d_i / N] + sum_j R_j A_ij + position_i
        P     = D^-1 A,   b_ij = B [A_ij, N P_ij, N P^2_ij, ..., N P^T_ij]                one bias a head and layer
        h    <- h + Attention(LayerNorm(h), b),   h <- h + MLP(LayerNorm(h))              `layers` times
        out_i = W' GELU(W'' LayerNorm(h_i))

    Walks in attention: arXiv 2305.17589. Without the rows R and positions it is equivariant by itself.

    `forward(x (R, N, F), edge (R, N, N, C), mask (R, N)) -> (R, N, out_features)`, or (R, out_features), the mean over
    nodes, with `pooled`. Of the C channels any sum that is not 0 is a link for walks. N <= max_nodes.

    >>> net = WalkTransformer(max_nodes=7, node_features=3, edge_features=1, out_features=2, width=16, heads=2)
    >>> net(torch.randn(2, 5, 3), torch.ones(2, 5, 5, 1), torch.ones(2, 5, dtype=torch.bool)).shape
    torch.Size([2, 5, 2])
    """

    def __init__(
        self,
        max_nodes: int,
        node_features: int,
        edge_features: int,
        out_features: int,
        width: int = 96,
        layers: int = 4,
        heads: int = 8,
        walks: int = 4,
        ratio: int = 2,
        pooled: bool = False,
    ) -> None:
        super().__init__()
        check_heads(width, heads)
        self.max_nodes = max_nodes
        self.walks = walks
        self.pooled = pooled
        self.nodes = nn.Linear(node_features + 2, width)
        self.rows = nn.Parameter(0.02 * torch.randn(max_nodes, width))
        self.position = nn.Parameter(0.02 * torch.randn(max_nodes, width))
        self.blocks = nn.ModuleList(WalkBlock(width, heads, ratio, edge_features + walks) for _ in range(layers))
        self.head = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, out_features)
        )

    def forward(self, x: Tensor, edge: Tensor, mask: Tensor | None = None) -> Tensor:
        n = x.shape[1]
        if n > self.max_nodes:
            raise ValueError(f"x: expected at most max_nodes = {self.max_nodes} nodes, got {n}")

        # 1. The graph: links A, degrees d, and the number of nodes of each graph (R, 1, 1).
        edge = keep(edge, pairwise(mask)).movedim(-1, 1)
        link = (edge != 0).any(1).to(x.dtype)
        degree = link.sum(-1, keepdim=True)
        if mask is None:
            size = degree.new_full((len(x), 1, 1), n)
        else:
            size = mask.sum(1)[:, None, None].to(degree)

        # 2. What attention is biased by, and the tokens.
        pairs = self._pairs(edge, link / degree.clamp_min(1), size, mask)
        structure = torch.cat([x, 1 / degree.clamp_min(1), degree / size], -1)
        h = self.nodes(structure) + link @ self.rows[:n] + self.position[:n]

        # 3. The blocks and the head.
        for block in self.blocks:
            h = block(h, pairs)
        if self.pooled:
            mean = keep(h, mask).sum(1) / size[:, 0]
            return self.head(mean)
        return keep(self.head(h), mask)

    def _pairs(self, edge: Tensor, step: Tensor, size: Tensor, mask: Tensor | None) -> Tensor:
        """Channels of pairs (R, 1 + C + T, N N): padding, links, walks of 1 to T steps, of size 1 on average."""
        powers = [step]
        while len(powers) < self.walks:
            powers.append(powers[-1] @ step)
        walks = size[:, None] * torch.stack(powers[: self.walks], 1)
        if mask is None:
            padding = torch.zeros_like(step)
        else:
            padding = (~mask[:, None]).to(step).expand_as(step)
        return torch.cat([padding[:, None], edge, walks], 1).flatten(2)


class WalkBlock(nn.Module):
    """Pre-norm block: tokens (R, N, W) and channels of pairs (R, 1 + P, N N), the first of them padding, to tokens."""

    def __init__(self, width: int, heads: int, ratio: int, pairs: int) -> None:
        super().__init__()
        self.heads = heads
        self.before_attention = nn.LayerNorm(width)
        self.before_mlp = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.bias = nn.Parameter(torch.randn(heads, pairs) / pairs**0.5)
        self.mlp = token_mlp(width, ratio)

    def forward(self, h: Tensor, pairs: Tensor) -> Tensor:
        n = h.shape[1]
        q, k, v = split_heads(self.qkv(self.before_attention(h)), self.heads)

        # 1. Biases (R heads, N, N). `bmm` reads the pairs as they lie; @ would copy them, transposed.
        of_channels = torch.cat([self.bias.new_full((self.heads, 1), FAR), self.bias], 1)
        bias = torch.bmm(of_channels.expand(len(pairs), -1, -1), pairs).view(-1, n, n)

        # 2. Attention, with rows and heads as one axis so that the biases are added in the same operation.
        logits = torch.baddbmm(bias, q.flatten(0, 1), k.flatten(0, 1).mT, alpha=q.shape[-1] ** -0.5)
        read = (logits.softmax(-1) @ v.flatten(0, 1)).unflatten(0, (-1, self.heads))
        h = h + self.out(merge_heads(read))
        return h + self.mlp(self.before_mlp(h))
