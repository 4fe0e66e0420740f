"""Deep Sets: the S_n-equivariant network on node features alone."""

from torch import Tensor, nn
from torch.nn.functional import silu

from probsym.members import register

from .masking import Where, keep, lifted, mean, spread


@register
class DeepSets(nn.Module):
    """Layers `h_i <- LayerNorm(SiLU(W h_i + V mean_j h_j + b))`, then a linear map (arXiv 1703.06114).

    `forward(nodes (B, N, F), mask (B, N)) -> (B, N, out_features)`; F is fixed by the first call.

    >>> import torch
    >>> net, x = DeepSets(hidden=8), torch.randn(2, 5, 3)
    >>> torch.allclose(net(x.flip(1)), net(x).flip(1), atol=1e-5)
    True
    """

    def __init__(self, hidden: int = 64, layers: int = 2, out_features: int = 1) -> None:
        super().__init__()
        self.arguments = {"hidden": hidden, "layers": layers, "out_features": out_features}
        self.layers = nn.ModuleList([DeepSetsLayer(hidden) for _ in range(layers)])
        self.head = nn.Linear(hidden, out_features)

    def describe(self) -> dict[str, int]:
        """The arguments of the constructor, for `probsym.save`."""
        return self.arguments

    def forward(self, nodes: Tensor, mask: Where = None) -> Tensor:
        h = keep(nodes, mask)
        for layer in self.layers:
            h = layer(h, mask)
        return keep(lifted(self.head, h, mask), mask)


class DeepSetsLayer(nn.Module):
    """`h_i <- LayerNorm(SiLU(W h_i + V mean_j h_j + b))`: (B, N, F) to (B, N, hidden)."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.own = nn.LazyLinear(hidden)
        self.others = nn.LazyLinear(hidden, bias=False)
        self.norm = nn.LayerNorm(hidden)

    def forward(self, h: Tensor, mask: Where) -> Tensor:
        shared = spread(self.others(mean(h, mask)), mask)
        return self.norm(silu(self.own(h) + shared))
