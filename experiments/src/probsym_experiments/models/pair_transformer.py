"""Transformer on pair tokens: N*N tokens, nodes on the diagonal, pairs off it."""

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from .attention import check_heads, check_sizes, merge_heads, split_heads, token_head, token_mlp


class PairTransformer(nn.Module):
    """The n-body base of Kim et al. (arXiv 2306.02866): its positional embeddings tell nodes apart.

        t_ij  = W_n x_i [i = j] + W_p a_ij + b + position_ij
        t    <- t + Attention(LayerNorm(t)),  t <- t + MLP(LayerNorm(t))            `layers` times
        out_i = W' ReLU(W ReLU(LayerNorm(t_ii)))

    `forward(nodes (R, N, F), pairs (R, N, N, P)) -> (R, N, out_features)`.

    >>> net = PairTransformer(num_nodes=5, node_features=6, pair_features=2, out_features=3)
    >>> sum(p.numel() for p in net.parameters())
    208387
    >>> net(torch.randn(2, 5, 6), torch.randn(2, 5, 5, 2)).shape
    torch.Size([2, 5, 3])
    """

    def __init__(
        self,
        num_nodes: int,
        node_features: int,
        pair_features: int,
        out_features: int,
        width: int = 64,
        layers: int = 8,
        heads: int = 4,
    ) -> None:
        super().__init__()
        self.num_nodes = num_nodes
        self.nodes = nn.Linear(node_features, width, bias=False)
        self.pairs = nn.Linear(pair_features, width)
        self.position = nn.Parameter(torch.randn(num_nodes, num_nodes, width))
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(layers)))
        self.head = token_head(width, out_features)

    def forward(self, nodes: Tensor, pairs: Tensor) -> Tensor:
        check_sizes("PairTransformer", self.num_nodes, nodes, pairs)
        on_diagonal = torch.diag_embed(self.nodes(nodes).mT).movedim(1, 3)
        tokens = self.pairs(pairs) + on_diagonal + self.position
        tokens = self.blocks(tokens.flatten(1, 2))
        of_nodes = tokens[:, :: self.num_nodes + 1]  # tokens t_ii
        return self.head(of_nodes)


class Block(nn.Module):
    """Pre-norm transformer block, MLP ratio 1: (R, T, width) to itself (arXiv 1706.03762, 2002.04745)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        check_heads(width, heads)
        self.heads = heads
        self.before_attention = nn.LayerNorm(width)
        self.before_mlp = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.mlp = token_mlp(width)

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.attention(self.before_attention(tokens))
        return tokens + self.mlp(self.before_mlp(tokens))

    def attention(self, tokens: Tensor) -> Tensor:
        q, k, v = split_heads(self.qkv(tokens), self.heads)
        read = scaled_dot_product_attention(q, k, v)
        return self.out(merge_heads(read))
