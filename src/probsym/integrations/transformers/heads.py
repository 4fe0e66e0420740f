"""What a graph transformer predicts: one vector per graph, per node or per pair of nodes."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from probsym.integrations.transformers.checks import counted
from probsym.integrations.transformers.tokens import ImagePatches, NodeTokens
from probsym.nets.masking import keep, mean, pairwise
from probsym.reps import NodeAxis, Rep


@dataclass(frozen=True)
class GraphHead:
    """(B, channels), linear in the class token, or in the mean of the tokens if the backbone has no class token."""

    channels: int

    def __post_init__(self) -> None:
        counted(channels=self.channels)

    def rep(self, nodes: NodeAxis) -> Rep:
        return Rep()

    def decoder(self, tokens: ImagePatches | NodeTokens, width: int) -> nn.Module:
        return Pooled(width, self.channels)


@dataclass(frozen=True)
class NodeHead:
    """(B, N, channels)."""

    channels: int

    def __post_init__(self) -> None:
        counted(channels=self.channels)

    def rep(self, nodes: NodeAxis) -> Rep:
        return Rep(nodes)

    def decoder(self, tokens: ImagePatches | NodeTokens, width: int) -> nn.Module:
        return PerNode(tokens.node_decoder(width, self.channels))


@dataclass(frozen=True)
class PairHead:
    """(B, N, N, channels)."""

    channels: int

    def __post_init__(self) -> None:
        counted(channels=self.channels)

    def rep(self, nodes: NodeAxis) -> Rep:
        return Rep(nodes, nodes)

    def decoder(self, tokens: ImagePatches | NodeTokens, width: int) -> nn.Module:
        return PerPair(tokens.pair_decoder(width, self.channels))


class Pooled(nn.Module):
    """One output per graph.

    Every decoder is called with prefix (B, P, W), tokens (B, T, W), which of them count (B, T), mask (B, N), and N.
    """

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.graph = nn.Linear(width, channels)

    def forward(self, prefix: Tensor, tokens: Tensor, counting: Tensor | None, mask: Tensor | None, n: int) -> Tensor:
        if prefix.shape[1]:
            return self.graph(prefix[:, 0])
        if counting is not None:
            counting = counting.expand(tokens.shape[:2])
        return self.graph(mean(tokens, counting))


class PerNode(nn.Module):
    """Node outputs, zero at padded nodes."""

    def __init__(self, decoder: nn.Module) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, prefix: Tensor, tokens: Tensor, counting: Tensor | None, mask: Tensor | None, n: int) -> Tensor:
        return keep(self.decoder(tokens, n), mask)


class PerPair(nn.Module):
    """Pair outputs, zero where a node is padded."""

    def __init__(self, decoder: nn.Module) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, prefix: Tensor, tokens: Tensor, counting: Tensor | None, mask: Tensor | None, n: int) -> Tensor:
        return keep(self.decoder(tokens, n), pairwise(mask))
