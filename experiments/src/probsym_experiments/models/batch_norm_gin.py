"""The paper's net of p on graphs: a graph isomorphism network with BatchNorm and a virtual node."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, relu

from probsym.nets.masking import keep


class Update(nn.Module):
    """What a layer makes of the features of all nodes (R N, F), with what they received: (R N, hidden)."""

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.first = nn.Linear(width, hidden)
        self.inner = nn.BatchNorm1d(hidden)
        self.dropout = nn.Dropout(dropout)
        self.second = nn.Linear(hidden, hidden)
        self.outer = nn.BatchNorm1d(hidden)

    def forward(self, h: Tensor) -> Tensor:
        h = self.dropout(relu(self.inner(self.first(h))))
        return relu(self.outer(self.second(h)))


class BatchNormGIN(nn.Module):
    """Scores of nodes by the net of Kim et al. (arXiv 2306.02866; github.com/jw9730/lps), S_n-equivariant.

        h_i  = x_i;  h_0 = v, learned: a virtual node that is joined to itself and to every node
        h_i <- ReLU BN (W_2 Dropout ReLU BN W_1 ((1 + eps) h_i + sum_j A_ij h_j))          `layers` times, eps learned
        score of node i = w h_i

    `forward(adjacency (R, N, N), nodes (R, N, F), mask (R, N)) -> (R, N)`; the other arguments of a model are not read.
    As there, BatchNorm counts the rows of padding, which begin as zeros and have no edges.

    Args:
        in_features: F.
        spare: A further linear map of the inputs that is never called: one of the two versions has it, and counts its
            parameters.
        padded_to: Nodes that graphs are padded to before BatchNorm counts rows; None is as many as they come with.

    >>> sum(p.numel() for p in BatchNormGIN(2, spare=True).parameters())
    22022
    >>> BatchNormGIN(2)(torch.ones(3, 5, 5), torch.randn(3, 5, 2)).shape
    torch.Size([3, 5])
    """

    reads_only = True  # it writes into none of its arguments

    def __init__(
        self,
        in_features: int,
        hidden: int = 64,
        layers: int = 3,
        dropout: float = 0.0,
        spare: bool = False,
        padded_to: int | None = None,
    ) -> None:
        super().__init__()
        self.padded_to = padded_to
        self.virtual = nn.Parameter(torch.randn(in_features))
        self.eps = nn.Parameter(torch.rand(layers))
        widths = [in_features, *[hidden] * (layers - 1)]
        self.updates = nn.ModuleList(Update(width, hidden, dropout) for width in widths)
        self.head = nn.Linear(hidden, 1)
        if spare:
            self.spare = nn.Linear(in_features, hidden)

    def forward(self, adjacency: Tensor, nodes: Tensor, mask: Tensor | None = None, **others: Tensor) -> Tensor:
        rows, given = adjacency.shape[:2]

        # 1. The virtual node comes first; padding has neither features nor edges.
        nodes = keep(nodes.to(self.virtual.dtype), mask)
        there = torch.ones(rows, given, dtype=nodes.dtype, device=nodes.device)
        if mask is not None:
            there = mask.to(nodes.dtype)
        more = max(0, (self.padded_to or given) - given)
        nodes = pad(nodes, (0, 0, 0, more))
        there = pad(there, (0, more))
        adjacency = pad(adjacency, (0, more, 0, more))
        n = given + more
        virtual = self.virtual.expand(rows, 1, -1)
        h = torch.cat([virtual, nodes], 1)
        joined = torch.cat([torch.ones_like(there[:, :1]), there], 1)  # what the virtual node is joined to
        edges = pad(adjacency.to(h.dtype), (1, 0, 1, 0))
        edges[:, 0] = joined
        edges[:, :, 0] = joined

        # 2. Rounds of messages. BatchNorm takes its statistics over the nodes of all rows.
        for eps, update in zip(self.eps, self.updates, strict=True):
            h = edges.mT @ h + (1 + eps) * h
            h = update(h.flatten(0, 1)).unflatten(0, (rows, n + 1))
        return self.head(h[:, 1 : 1 + given]).squeeze(-1)


class GraphScores(nn.Module):
    """`BatchNormGIN` for models that are called with x (R, N, F), edge (R, N, N, P) and mask.

    The first feature of an edge says that it is there.

    >>> net = GraphScores(BatchNormGIN(3))
    >>> net(torch.randn(2, 5, 3), torch.ones(2, 5, 5, 4), torch.ones(2, 5, dtype=torch.bool)).shape
    torch.Size([2, 5])
    """

    reads_only = True  # it writes into none of its arguments

    def __init__(self, net: BatchNormGIN) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, edge: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.net(edge[..., 0], x, mask)
