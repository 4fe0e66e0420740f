"""Graph isomorphism network with a virtual node: S_n-equivariant node features of a weighted graph or of edges."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from probsym.members import register

from .masking import EdgeList, Segments, Where, channels, keep, lifted, mean, pairwise, spread


@register
class GIN(nn.Module):
    """Node features from node and pair features (arXiv 1810.00826) with a virtual node (arXiv 1704.01212).

        h_i   = W [x_i, A_ii, sum_j A_ij]
        g    <- g + MLP(mean_i h_i + g)                               the virtual node
        h_i  <- LayerNorm(h_i + MLP(W_0 h_i + sum_p W_p sum_j A_ijp h_j)),   h_i here with g added

    `forward(nodes (B, N, F) or None, pairs (B, N, N[, P]) or an EdgeList or None, mask (B, N) or Segments)` returns
    (B, N, out_features); F and P are fixed by the first call. Without nodes x_i = 1; without pairs nodes meet in g
    alone. An edge list stands for the matrix A that counts its edges, at the cost of the edges.

    Raises:
        ValueError: neither nodes nor pairs; a matrix of pairs in a ragged batch.

    >>> net, A = GIN(hidden=8), torch.rand(2, 5, 5)
    >>> torch.allclose(net(None, A.flip(1, 2)), net(None, A).flip(1), atol=1e-5)
    True
    """

    def __init__(self, hidden: int = 64, layers: int = 3, out_features: int = 1) -> None:
        super().__init__()
        self.arguments = {"hidden": hidden, "layers": layers, "out_features": out_features}
        self.embed = nn.LazyLinear(hidden)
        self.layers = nn.ModuleList([GINLayer(hidden) for _ in range(layers)])
        self.head = nn.Linear(hidden, out_features)

    def describe(self) -> dict[str, int]:
        """The arguments of the constructor, for `probsym.save`."""
        return self.arguments

    def forward(
        self, nodes: Tensor | None, pairs: Tensor | EdgeList | None, mask: Where = None, shape: tuple[int, int] = (0, 0)
    ) -> Tensor:
        """`shape` (B, N) is needed only for an edge list without nodes."""
        if nodes is None and pairs is None:
            raise ValueError("GIN: expected nodes (B, N, F) or pairs (B, N, N[, P]), got None for both")

        # 1. The graph, as a matrix or as a list of edges.
        adjacency: Adjacency | None = None
        if isinstance(pairs, EdgeList):
            if nodes is not None:
                shape = (nodes.shape[0], nodes.shape[1])
            adjacency = SparseAdjacency(pairs, shape)
        elif pairs is not None:
            if isinstance(mask, Segments):
                raise ValueError("GIN: expected an EdgeList in a ragged batch, got a matrix of pairs")
            adjacency = DenseAdjacency(keep(channels(pairs), pairwise(mask)))

        # 2. Features of each node: its own, its loop and its degree; a constant where it has none of its own.
        features: list[Tensor] = []
        if nodes is not None:
            features.append(keep(nodes, mask))
        if adjacency is not None:
            features.append(adjacency.loops())
            features.append(adjacency.degrees())
        if nodes is None:
            features.append(torch.ones_like(features[0][..., :1]))
        h = self.embed(torch.cat(features, -1))

        # 3. Rounds of messages. The virtual node starts at zero.
        g: Tensor | None = None
        for layer in self.layers:
            h, g = layer(h, g, adjacency, mask)
        return keep(lifted(self.head, h, mask), mask)


class DenseAdjacency:
    """A graph as a matrix of pair features (B, N, N, P), zero on padding."""

    def __init__(self, pairs: Tensor) -> None:
        self.pairs = pairs
        self.matrix = pairs.transpose(2, 3).contiguous()

    def loops(self) -> Tensor:
        """`A_ii`, (B, N, P)."""
        return self.pairs.diagonal(dim1=1, dim2=2).mT

    def degrees(self) -> Tensor:
        """`sum_j A_ij`, (B, N, P)."""
        return self.pairs.sum(2)

    def messages(self, h: Tensor) -> Tensor:
        """`sum_j A_ijp h_j`: (B, N, H) to (B, N, P H)."""
        return (self.matrix.flatten(1, 2) @ h).unflatten(1, self.matrix.shape[1:3]).flatten(2)


class SparseAdjacency:
    """The same graph as edges: the matrix that counts them, without its zeros.

    Args:
        edges: flat node numbers. shape: (B, N) of the nodes.
    """

    def __init__(self, edges: EdgeList, shape: tuple[int, int]) -> None:
        self.edges = edges
        self.shape = shape

    def loops(self) -> Tensor:
        """`A_ii`, (B, N, P)."""
        is_loop = self.edges.start == self.edges.end
        return self._sum(self.edges.kind * is_loop.unsqueeze(-1))

    def degrees(self) -> Tensor:
        """`sum_j A_ij`, (B, N, P)."""
        return self._sum(self.edges.kind)

    def messages(self, h: Tensor) -> Tensor:
        """`sum_j A_ijp h_j`: (B, N, H) to (B, N, P H)."""
        sent = h.flatten(0, 1).index_select(0, self.edges.end)  # (E, H)
        weights = self.edges.kind.to(h.dtype)  # (E, P)
        return self._sum((weights.unsqueeze(-1) * sent.unsqueeze(1)).flatten(1))

    def _sum(self, values: Tensor) -> Tensor:
        """Values of the edges (E, F), added up where they start: (B, N, F)."""
        batch, nodes = self.shape
        features = values.shape[-1]
        if batch * nodes == 0:  # `unflatten` refuses an empty axis
            return values.new_zeros(batch, nodes, features)
        total = values.new_zeros(batch * nodes, features).index_add(0, self.edges.start, values)
        return total.unflatten(0, self.shape)


Adjacency = DenseAdjacency | SparseAdjacency


class GINLayer(nn.Module):
    """One round: nodes (B, N, H) and the virtual node (B, H), with the messages of a graph or without."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.virtual = nn.Sequential(nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, hidden))
        self.update = nn.Sequential(nn.LazyLinear(hidden), nn.SiLU(), nn.Linear(hidden, hidden))
        self.norm = nn.LayerNorm(hidden)

    def forward(self, h: Tensor, g: Tensor | None, adjacency: Adjacency | None, mask: Where) -> tuple[Tensor, Tensor]:
        """`g` is None where it is zero."""
        if g is None:
            g = self.virtual(mean(h, mask))
        else:
            g = g + self.virtual(mean(h, mask) + g)
        h = h + spread(g, mask)
        received = h
        if adjacency is not None:
            received = torch.cat([h, adjacency.messages(h)], -1)
        return self.norm(h + self.update(received)), g
