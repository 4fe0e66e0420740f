"""Graph isomorphism network with a virtual node: S_n-equivariant node features of a dense weighted graph."""

import torch
from torch import Tensor, nn

from .masking import channels, keep, lifted, mean, pairwise


class GIN(nn.Module):
    """Node features from node and pair features (arXiv 1810.00826) with a virtual node (arXiv 1704.01212).

        h_i   = W [x_i, A_ii, sum_j A_ij]
        g    <- g + MLP(mean_i h_i + g)                               the virtual node
        h_i  <- LayerNorm(h_i + MLP(W_0 h_i + sum_p W_p sum_j A_ijp h_j)),   h_i here with g added

    `forward(nodes (B, N, F) or None, pairs (B, N, N[, P]) or None, mask (B, N)) -> (B, N, out_features)`;
    F and P are fixed by the first call. Without nodes x_i = 1; without pairs nodes meet in g alone.

    >>> net, A = GIN(hidden=8), torch.rand(2, 5, 5)
    >>> torch.allclose(net(None, A.flip(1, 2)), net(None, A).flip(1), atol=1e-5)
    True
    """

    def __init__(self, hidden: int = 64, layers: int = 3, out_features: int = 1) -> None:
        super().__init__()
        self.embed = nn.LazyLinear(hidden)
        self.layers = nn.ModuleList(GINLayer(hidden) for _ in range(layers))
        self.head = nn.Linear(hidden, out_features)

    def forward(self, nodes: Tensor | None, pairs: Tensor | None, mask: Tensor | None = None) -> Tensor:
        features, adjacency = [], None
        if nodes is not None:
            features = [keep(nodes, mask)]
        elif pairs is None:
            raise ValueError("GIN: expected nodes (B, N, F) or pairs (B, N, N[, P]), got None for both")
        if pairs is not None:
            pairs = keep(channels(pairs), pairwise(mask))
            features += [pairs.diagonal(dim1=1, dim2=2).mT, pairs.sum(2)]
            adjacency = pairs.transpose(2, 3).contiguous()
        if nodes is None:
            features.append(torch.ones_like(features[0][..., :1]))
        h = self.embed(torch.cat(features, -1))
        g = torch.zeros_like(mean(h, mask))
        for layer in self.layers:
            h, g = layer(h, g, adjacency, mask)
        return keep(lifted(self.head, h, mask), mask)


class GINLayer(nn.Module):
    """One round: nodes (B, N, H) and the virtual node (B, H), adjacency (B, N, P, N) or None."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.virtual = nn.Sequential(nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, hidden))
        self.update = nn.Sequential(nn.LazyLinear(hidden), nn.SiLU(), nn.Linear(hidden, hidden))
        self.norm = nn.LayerNorm(hidden)

    def forward(self, h: Tensor, g: Tensor, adjacency: Tensor | None, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        g = g + self.virtual(mean(h, mask) + g)
        h = h + g.unsqueeze(1)
        messages = h
        if adjacency is not None:
            summed = (adjacency.flatten(1, 2) @ h).unflatten(1, adjacency.shape[1:3]).flatten(2)
            messages = torch.cat([h, summed], -1)
        return self.norm(h + self.update(messages)), g
