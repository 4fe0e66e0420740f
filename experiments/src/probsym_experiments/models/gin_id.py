"""Graph isomorphism network with node identifiers: universal, but not invariant, so a model to symmetrize."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from probsym.nets.masking import keep, pairwise

from .mlp import MLP


class GINID(nn.Module):
    """GIN-ID of Kim et al. (arXiv 2306.02866, graph separation) on dense graphs; GIN: arXiv 1810.00826.

        h_i  = [x_i, onehot(i)]
        h_i <- act(W ((1 + eps) h_i + sum_j A_ij h_j) + b)          `layers` times, eps learned
        out  = MLP(sum_i h_i)

    `forward(adjacency (R, N, N), nodes (R, N, F) or None, mask (R, N)) -> (R, out_features)`; `identifiers`
    (R, N, num_nodes_max) take the place of onehot(i). N <= num_nodes_max.
    As in the paper's separation experiments there is no normalisation layer.

    >>> net = GINID(num_nodes_max=8)
    >>> net(torch.ones(2, 8, 8)).shape
    torch.Size([2, 10])
    """

    def __init__(
        self,
        num_nodes_max: int,
        node_features: int = 0,
        out_features: int = 10,
        hidden: int = 64,
        layers: int = 3,
        head: Sequence[int] = (),
        activation: type[nn.Module] = nn.Tanh,
        out_activation: type[nn.Module] = nn.Identity,
    ) -> None:
        super().__init__()
        self.num_nodes_max = num_nodes_max
        widths = [num_nodes_max + node_features] + [hidden] * (layers - 1)
        self.layers = nn.ModuleList(nn.Linear(width, hidden) for width in widths)
        self.eps = nn.Parameter(torch.rand(layers))
        self.activation = activation()
        self.head = MLP(hidden, head, out_features, activation, out_activation)

    def forward(
        self,
        adjacency: Tensor,
        nodes: Tensor | None = None,
        mask: Tensor | None = None,
        identifiers: Tensor | None = None,
        **others: Tensor,
    ) -> Tensor:
        rows, n = adjacency.shape[:2]
        if n > self.num_nodes_max:
            raise ValueError(f"adjacency: expected at most num_nodes_max = {self.num_nodes_max} nodes, got {n}")
        if identifiers is None:
            identifiers = torch.eye(n, self.num_nodes_max, dtype=self.eps.dtype, device=self.eps.device)
        h = identifiers.expand(rows, -1, -1)
        if nodes is not None:
            h = torch.cat([nodes, h], -1)
        h = keep(h, mask)
        adjacency = keep(adjacency.to(h.dtype), pairwise(mask))
        for linear, eps in zip(self.layers, self.eps, strict=True):
            h = keep(self.activation(linear((1 + eps) * h + adjacency @ h)), mask)
        return self.head(h.sum(1))
