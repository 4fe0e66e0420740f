"""Transformer with one token a node, whose attention sees pair features: a cheaper `PairTransformer`."""

import torch
from torch import Tensor, nn

from .attention import check_heads, check_sizes, merge_heads, split_heads, token_head, token_mlp


class NodeTransformer(nn.Module):
    """N tokens in place of the N*N of `PairTransformer`; its embeddings tell nodes apart, so a model to symmetrize.

        h_i   = W x_i + position_i
        e_ij  = GELU(W_e a_ij + position_ij)                                   once, `pair_width` channels
        w_ij  = softmax_j(q_i k_j / sqrt(d) + B e_ij)                          B: one row a head and layer
        h_i  <- h_i + W_o [sum_j w_ij v_j, sum_j w_ij e_ij],  h <- h + MLP(LayerNorm(h))          `layers` times
        out_i = W' ReLU(W ReLU(LayerNorm(h_i)))

    q, k, v are linear in LayerNorm(h), one set a head. The bias is Graphormer's (arXiv 2106.05234, eq. 6) for features
    that are not discrete; messages carry e_ij too, so that a force may depend on the pair and not only on its strength.

    `forward(nodes (R, N, F), pairs (R, N, N, P)) -> (R, N, out_features)`.

    >>> net = NodeTransformer(num_nodes=5, node_features=6, pair_features=2, out_features=3)
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
        layers: int = 4,
        heads: int = 4,
        pair_width: int = 16,
    ) -> None:
        super().__init__()
        check_heads(width, heads)
        self.num_nodes = num_nodes
        self.nodes = nn.Linear(node_features, width, bias=False)
        self.pairs = nn.Linear(pair_features, pair_width, bias=False)
        self.position = nn.Parameter(torch.randn(num_nodes, width))
        self.pair_position = nn.Parameter(torch.randn(num_nodes, num_nodes, pair_width))
        self.bias = nn.Linear(pair_width, layers * heads, bias=False)
        self.blocks = nn.ModuleList(BiasedBlock(width, heads, pair_width) for _ in range(layers))
        self.head = token_head(width, out_features)

    def forward(self, nodes: Tensor, pairs: Tensor) -> Tensor:
        check_sizes("NodeTransformer", self.num_nodes, nodes, pairs)
        h = self.nodes(nodes) + self.position
        e = nn.functional.gelu(self.pairs(pairs) + self.pair_position)
        biases = self.bias(e).movedim(-1, 1).chunk(len(self.blocks), 1)
        for block, bias in zip(self.blocks, biases, strict=True):
            h = block(h, e, bias)
        return self.head(h)


class BiasedBlock(nn.Module):
    """Pre-norm block: tokens (R, N, W), pair features (R, N, N, E), biases (R, heads, N, N) to tokens; MLP ratio 1."""

    def __init__(self, width: int, heads: int, pair_width: int) -> None:
        super().__init__()
        self.heads = heads
        self.before_attention = nn.LayerNorm(width)
        self.before_mlp = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width + heads * pair_width, width)
        self.mlp = token_mlp(width)

    def forward(self, h: Tensor, e: Tensor, bias: Tensor) -> Tensor:
        h = h + self.attention(self.before_attention(h), e, bias)
        return h + self.mlp(self.before_mlp(h))

    def attention(self, h: Tensor, e: Tensor, bias: Tensor) -> Tensor:
        q, k, v = split_heads(self.qkv(h), self.heads)
        weights = (q @ k.mT / q.shape[-1] ** 0.5 + bias).softmax(-1)
        of_nodes = merge_heads(weights @ v)
        of_pairs = (weights.transpose(1, 2) @ e).flatten(2)
        return self.out(torch.cat([of_nodes, of_pairs], -1))
