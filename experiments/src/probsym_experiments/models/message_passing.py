"""Message-passing network on all ordered pairs of nodes: the GNN baseline of the n-body experiment."""

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, silu


class MessagePassing(nn.Module):
    """The GNN baseline of Satorras et al. (arXiv 2102.09844, section 5.1): S_n-equivariant, not in space.

        m_ij = SiLU(W_2 SiLU(W_1 [h_i, h_j, a_ij] + b_1) + b_2)        for all j != i
        h_i <- h_i + W_4 SiLU(W_3 [h_i, sum_j m_ij] + b_3) + b_4       without h_i + if `residual` is false

    `forward(nodes (R, N, F), pairs (R, N, N, P)) -> (R, N, out_features)`; the defaults are those of n-body.

    >>> net = MessagePassing()
    >>> sum(p.numel() for p in net.parameters())
    92103
    >>> net(torch.randn(2, 5, 6), torch.randn(2, 5, 5, 2)).shape
    torch.Size([2, 5, 3])
    """

    def __init__(
        self,
        in_features: int = 6,
        pair_features: int = 2,
        out_features: int = 3,
        hidden: int = 60,
        layers: int = 4,
        residual: bool = True,
    ) -> None:
        super().__init__()
        self.embed = nn.Linear(in_features, hidden)
        self.layers = nn.ModuleList(MessageLayer(hidden, pair_features, residual) for _ in range(layers))
        self.decode = nn.Sequential(nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, out_features))

    def forward(self, nodes: Tensor, pairs: Tensor) -> Tensor:
        h = self.embed(nodes)
        for layer in self.layers:
            h = layer(h, pairs)
        return self.decode(h)


class MessageLayer(nn.Module):
    """One round of messages: nodes (R, N, H), pairs (R, N, N, P) to (R, N, H)."""

    def __init__(self, hidden: int, pair_features: int, residual: bool = True) -> None:
        super().__init__()
        self.residual = residual
        self.edge_in = nn.Linear(2 * hidden + pair_features, hidden)
        self.edge_out = nn.Linear(hidden, hidden)
        self.node = nn.Sequential(nn.Linear(2 * hidden, hidden), nn.SiLU(), nn.Linear(hidden, hidden))

    def forward(self, h: Tensor, pairs: Tensor) -> Tensor:
        width = h.shape[-1]
        # `edge_in` of [h_i, h_j, a_ij], one linear map a part: nodes are mapped once and not once a pair.
        receiver, sender, pair = self.edge_in.weight.split([width, width, pairs.shape[-1]], 1)
        to = linear(h, receiver, self.edge_in.bias).unsqueeze(2)
        by = linear(h, sender).unsqueeze(1)
        inner = off_diagonal(linear(pairs, pair) + to + by)
        messages = silu(self.edge_out(silu(inner)))
        update = self.node(torch.cat([h, messages.sum(2)], -1))
        if not self.residual:
            return update
        return h + update


def off_diagonal(x: Tensor) -> Tensor:
    """The entries i != j of each row: (R, N, N, C) to (R, N, N-1, C).

    Without the first of the N*N entries, each N + 1 that follow end on the diagonal.

    >>> off_diagonal(torch.arange(9).view(1, 3, 3, 1)).squeeze()
    tensor([[1, 2],
            [3, 5],
            [6, 7]])
    """
    rows, n, _, c = x.shape
    others = max(n - 1, 0)
    return x.flatten(1, 2)[:, 1:].unflatten(1, (others, n + 1))[:, :, :n].reshape(rows, n, others, c)
