"""What a graph transformer predicts: one vector a graph, a node or a pair of nodes."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from probsym.integrations.transformers.checks import counted
from probsym.integrations.transformers.tokens import ImagePatches, NodeTokens
from probsym.nets.masking import keep, mean, pairwise
from probsym.reps import NodeAxis, Rep


@dataclass(frozen=True)
class GraphHead:
    """(B, channels), linear in the pooled token: the class token where the backbone has one, else the mean."""

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
    """Called, as all decoders, with prefix (B, P, W), tokens (B, T, W), which of them count (B, T), mask (B, N), N."""

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.graph = nn.Linear(width, channels)

    def forward(self, prefix: Tensor, tokens: Tensor, counting: Tensor | None, mask: Tensor | None, n: int) -> Tensor:
        if prefix.shape[1]:
            return self.graph(prefix[:, 0])
        return self.graph(mean(tokens, None if counting is None else counting.expand(tokens.shape[:2])))


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
