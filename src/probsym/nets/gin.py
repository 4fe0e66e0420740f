"""Graph isomorphism network: S_n-equivariant node features of a weighted graph or of edges."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from probsym.kernels.values import recorded
from probsym.members import register

from .masking import EdgeList, Segments, Where, channels, keep, lifted, mean, pairwise, size, spread

POOLINGS = ("mean", "virtual node")


@register
class GIN(nn.Module):
    """Node features from node and pair features (arXiv 1810.00826), and from what all nodes have in common.

        h_i   = W [x_i, A_ii, sum_j A_ij]
        h_i  <- LayerNorm(h_i + MLP(W_0 h_i + sum_p W_p sum_j A_ijp h_j + W' mean_j h_j))          pooling="mean"

    A virtual node (arXiv 1704.01212) has features of its own in place of the mean, at more operations:

        g    <- g + MLP(mean_i h_i + g)                                                            "virtual node"
        h_i  <- LayerNorm(h_i + MLP(W_0 h_i + sum_p W_p sum_j A_ijp h_j)),   h_i here with g added

    `forward(nodes (B, N, F) or None, pairs (B, N, N[, P]) or an EdgeList or None, mask (B, N) or Segments)` returns
    (B, N, out_features); F and P are fixed by the first call. Without nodes there is no x; without pairs nodes meet in
    their mean alone. An edge list stands for the matrix A that counts its edges, at the cost of the edges.

    Raises:
        ValueError: an unknown pooling; neither nodes nor pairs; a matrix of pairs in a ragged batch.

    >>> net, A = GIN(hidden=8), torch.rand(2, 5, 5)
    >>> torch.allclose(net(None, A.flip(1, 2)), net(None, A).flip(1), atol=1e-5)
    True
    """

    def __init__(self, hidden: int = 64, layers: int = 3, out_features: int = 1, pooling: str = "virtual node") -> None:
        super().__init__()
        if pooling not in POOLINGS:
            raise ValueError(f"pooling: expected one of {', '.join(POOLINGS)}, got {pooling!r}")
        self.arguments: dict[str, int | str] = {
            "hidden": hidden,
            "layers": layers,
            "out_features": out_features,
            "pooling": pooling,
        }
        self.pooling = pooling
        self.embed = nn.LazyLinear(hidden)
        self.layers = nn.ModuleList([GINLayer(hidden, pooling == "virtual node") for _ in range(layers)])
        self.head = nn.Linear(hidden, out_features)

    def describe(self) -> dict[str, int | str]:
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

        # 2. Features of each node: its own, its loop and its degree.
        features: list[Tensor] = []
        if nodes is not None:
            features.append(keep(nodes, mask))
        if adjacency is not None:
            features.append(adjacency.loops())
            features.append(adjacency.degrees())
        if nodes is None and self.pooling == "virtual node":
            # A constant tells no more than the bias of `embed`; models were saved with it.
            features.append(torch.ones_like(features[0][..., :1]))
        h = self.embed(torch.cat(features, -1))

        # 3. What a node hears of in a round. A virtual node starts at zero.
        heard: list[Messages] = []
        if adjacency is not None:
            heard.append(adjacency)
        if self.pooling == "mean":
            heard = with_mean(adjacency, mask)
        g: Tensor | None = None

        # 4. Rounds of messages.
        for layer in self.layers:
            h, g = layer(h, g, heard, mask)
        return keep(lifted(self.head, h, mask), mask)


class DenseAdjacency:
    """A graph as a matrix of pair features (B, N, N, P), zero on padding."""

    def __init__(self, pairs: Tensor) -> None:
        self.pairs = pairs
        self.matrix = pairs.transpose(2, 3).contiguous()  # (B, N, P, N)

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


class Everybody:
    """The mean over all nodes of a graph, told to each of them."""

    def __init__(self, where: Where) -> None:
        self.where = where

    def messages(self, h: Tensor) -> Tensor:
        """`mean_j h_j`: (B, N, H) to (B, N, H)."""
        return spread(mean(h, self.where), self.where).expand_as(h)


Adjacency = DenseAdjacency | SparseAdjacency
Messages = Adjacency | Everybody


def with_mean(adjacency: Adjacency | None, where: Where) -> list[Messages]:
    """What a node hears of where all nodes of a graph tell their mean, beside the messages of the graph.

    In a matrix the mean is one more kind of edges, of weight 1/N between any two nodes, so that both take one product.
    """
    everybody = Everybody(where)
    if adjacency is None:
        return [everybody]
    if isinstance(adjacency, SparseAdjacency):
        return [adjacency, everybody]
    pairs = adjacency.pairs
    if where is None and not recorded():
        # In one operation. What is recorded should hold for any number of nodes.
        return [DenseAdjacency(pad(pairs, (0, 1), value=1 / max(1, pairs.shape[1])))]
    share = torch.ones_like(pairs[..., :1])
    if where is None:
        share = share / pairs.shape[1]
    else:
        assert isinstance(where, Tensor)  # a matrix has no ragged batches
        of_nodes = where.to(pairs.dtype) / size(where).unsqueeze(1)
        share = share * of_nodes[:, None, :, None]
    return [DenseAdjacency(torch.cat([pairs, share], -1))]


class GINLayer(nn.Module):
    """One round: nodes (B, N, H), the virtual node (B, H) if there is one, and what the nodes hear of."""

    def __init__(self, hidden: int, virtual_node: bool) -> None:
        super().__init__()
        self.virtual: nn.Module | None = None
        if virtual_node:
            self.virtual = nn.Sequential(nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, hidden))
        self.update = nn.Sequential(nn.LazyLinear(hidden), nn.SiLU(), nn.Linear(hidden, hidden))
        self.norm = nn.LayerNorm(hidden)

    def forward(
        self, h: Tensor, g: Tensor | None, heard: Sequence[Messages], mask: Where
    ) -> tuple[Tensor, Tensor | None]:
        """`g` is None where it is zero."""
        if self.virtual is not None:
            if g is None:
                g = self.virtual(mean(h, mask))
            else:
                g = g + self.virtual(mean(h, mask) + g)
            h = h + spread(g, mask)
        received = h
        if heard:
            received = torch.cat([h, *[source.messages(h) for source in heard]], -1)
        return self.norm(h + self.update(received)), g
