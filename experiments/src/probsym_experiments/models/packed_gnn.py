"""Message passing on ragged batches: sums over neighbours as one pass over sorted edges."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, embedding_bag, relu

from .mlp import MLP


class PackedGNN(nn.Module):
    """Graph convolutions on many graphs at once, with residuals; bonds add to what a node receives.

        S_ij = 1 / sqrt(d_i d_j) for j ~ i and j = i,   d = 1 + degree
        h   <- h + Drop_i ReLU(LayerNorm(W S h + E sum_j S_ij b_ij))                           `layers` times

    Drop_i skips the layer for a node, drawn while training (arXiv 1603.09382): one draw a node, not one a channel.
    GCN (arXiv 1609.02907) with features of edges (arXiv 1905.12265). Messages are linear, so the sums of b_ij are taken
    once for all layers, and no tensor of the size edges x width is ever made.

    `forward(x (sum N, F), edge_index (2, E), bonds (E, C)) -> (sum N, width)`. Both directions of an edge, alike.

    >>> net = PackedGNN(node_features=3, edge_features=2, width=8)
    >>> net(torch.randn(4, 3), torch.tensor([[0, 1, 2, 3], [1, 0, 3, 2]]), torch.ones(4, 2)).shape
    torch.Size([4, 8])
    """

    def __init__(
        self, node_features: int, edge_features: int, width: int = 96, layers: int = 6, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.embed = nn.Linear(node_features, width)
        self.kinds = nn.Linear(edge_features, layers * width, bias=False)
        self.maps = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(layers))
        self.dropout = nn.Dropout1d(dropout)

    def forward(self, x: Tensor, edge_index: Tensor, bonds: Tensor) -> Tensor:
        h = self.embed(x).to(x.dtype)  # sums stay wide under autocast

        # 1. Edges and a loop at each node, sorted by the node that receives: those of node i begin at starts[i].
        loop = torch.arange(len(x), device=x.device)
        source, target = torch.cat([edge_index, loop.expand(2, -1)], 1)
        order = target.argsort(stable=True)
        source = source[order]
        target = target[order]
        degree = torch.bincount(target, minlength=len(x))
        starts = degree.cumsum(0) - degree

        # 2. S_ij of each.
        root = degree.to(h.dtype).rsqrt()
        weight = root[source] * root[target]

        # 3. What bonds add to each node, for all layers at once; loops have no bond.
        no_bonds = bonds.new_zeros(len(x), bonds.shape[-1])
        bonds = torch.cat([bonds, no_bonds]).to(h.dtype)
        received = embedding_bag(order, bonds, starts, mode="sum", per_sample_weights=weight)
        of_bonds = self.kinds(received).chunk(len(self.maps), -1)

        # 4. The layers.
        for layer, (linear, norm) in enumerate(zip(self.maps, self.norms, strict=True)):
            smooth = Smooth.apply(h, source, starts, weight)
            h = h + self.dropout(relu(norm(linear(smooth) + of_bonds[layer])))
        return h


class Smooth(torch.autograd.Function):
    """S h (N, W) for a symmetric sparse matrix S: row i holds `weight` in columns `source`, both from starts[i] on.

    Its gradient is S times the gradient, so nothing is saved but S.
    """

    @staticmethod
    def forward(ctx: Any, h: Tensor, source: Tensor, starts: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(source, starts, weight)
        return embedding_bag(source, h, starts, mode="sum", per_sample_weights=weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:  # type: ignore[override]
        return Smooth.apply(grad.contiguous(), *ctx.saved_tensors), None, None, None


class IdentifiedGNN(nn.Module):
    """A `PackedGNN` whose nodes know their place in the order, so a model to symmetrize; one output a graph.

        out = MLP(mean_i h_i),   h of PackedGNN on [x_i, I_place(i)]                node identifiers: arXiv 2010.01179

    `forward(x (sum N, F), edge_index (2, E), bonds (E, C), batch (sum N,), size (R, 1)) -> (R, out_features)`. Nodes of
    a graph stand together, and `size` says how many they are, at most `max_nodes`. `dropout` is that of the PackedGNN,
    and of the mean.

    >>> net = IdentifiedGNN(max_nodes=5, node_features=3, edge_features=2, out_features=10)
    >>> edges, batch = torch.tensor([[0, 1, 2, 3], [1, 0, 3, 2]]), torch.tensor([0, 0, 1, 1])
    >>> net(torch.randn(4, 3), edges, torch.ones(4, 2), batch, torch.tensor([[2.0], [2.0]])).shape
    torch.Size([2, 10])
    """

    def __init__(
        self,
        max_nodes: int,
        node_features: int,
        edge_features: int,
        out_features: int,
        width: int = 96,
        layers: int = 6,
        dropout: float = 0.0,
        identifier: int = 16,
        head: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.identifiers = nn.Parameter(torch.randn(max_nodes, identifier) / identifier**0.5)
        self.gnn = PackedGNN(node_features + identifier, edge_features, width, layers, dropout)
        if head is None:
            head = (width, width)
        self.head = MLP(width, head, out_features, nn.GELU)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, edge_index: Tensor, bonds: Tensor, batch: Tensor, size: Tensor) -> Tensor:
        # The place of each node in its graph: its number less that of the first node.
        count = size[:, 0].long()
        first = count.cumsum(0) - count
        place = torch.arange(len(x), device=x.device) - first[batch]

        identified = torch.cat([x, embedding(place, self.identifiers)], -1)
        h = self.gnn(identified, edge_index, bonds)
        pooled = h.new_zeros(len(size), h.shape[-1]).index_add_(0, batch, h) / size
        return self.head(self.dropout(pooled))


class NodeScores(nn.Module):
    """One number a node (sum N,) by a `PackedGNN`: a net for `Learned` and `Canonical`, called like `IdentifiedGNN`."""

    def __init__(self, node_features: int, edge_features: int, width: int = 64, layers: int = 3) -> None:
        super().__init__()
        self.gnn = PackedGNN(node_features, edge_features, width, layers)
        self.head = nn.Linear(width, 1)

    def forward(self, x: Tensor, edge_index: Tensor, bonds: Tensor, batch: Tensor, size: Tensor) -> Tensor:
        return self.head(self.gnn(x, edge_index, bonds)).squeeze(-1)
