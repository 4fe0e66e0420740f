"""Graph to tokens and back: image patches of the adjacency, or one token per node."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, pad

from probsym.integrations.transformers.checks import counted


def ceil_div(a: int, b: int) -> int:
    """a / b, rounded up."""
    return -(-a // b)


@dataclass(frozen=True)
class ImagePatches:
    """The edge tensor as an image, cut into patches (Kim et al., arXiv 2306.02866, section 4): one token per patch.

        t_rc = Conv2d(edge)_rc + Conv1d(x)_rc               r, c = 1 .. grid

    The image of n <= max_nodes nodes is padded to grid * patch pixels per side. What `max_nodes` leaves over is split
    evenly between both ends. Row r of the grid shows `patch` nodes, and the 1-d convolution deals these out over the
    tokens of the row, ceil(patch / grid) nodes each. Node outputs come back from the same tokens. With 14 x 14 patches
    of 14 that is one node per token. Rows of the grid below the last node are left out.

    Args:
        max_nodes: largest number of nodes.
        patch: pixels (nodes) per side of a patch.
        grid: patches per side; None takes as many as `max_nodes` needs.

    Raises:
        ValueError: a number below 1, or a grid that is too small.

    >>> ImagePatches(max_nodes=444, patch=32)
    ImagePatches(max_nodes=444, patch=32, grid=14)
    """

    max_nodes: int
    patch: int
    grid: int = None  # type: ignore[assignment]  # a number once the object is made

    def __post_init__(self) -> None:
        counted(max_nodes=self.max_nodes, patch=self.patch)
        if self.grid is None:
            object.__setattr__(self, "grid", ceil_div(self.max_nodes, self.patch))
        counted(grid=self.grid)
        if self.grid * self.patch < self.max_nodes:
            raise ValueError(
                f"grid: expected at least {ceil_div(self.max_nodes, self.patch)} patches of {self.patch} for "
                f"{self.max_nodes} nodes, got {self.grid}"
            )

    @property
    def plane(self) -> tuple[int, int]:
        """The grid on which tokens lie, row by row."""
        return (self.grid, self.grid)

    @property
    def length(self) -> int:
        """Largest number of tokens."""
        return self.grid * self.grid

    @property
    def margin(self) -> int:
        """Empty pixels before the first node."""
        return (self.grid * self.patch - self.max_nodes) // 2

    @property
    def share(self) -> int:
        """Nodes per token."""
        return ceil_div(self.patch, self.grid)

    def rows(self, nodes: int) -> int:
        """Rows of the grid that this many nodes reach."""
        return ceil_div(self.margin + nodes, self.patch)

    def embedding(self, width: int, node_channels: int, edge_channels: int) -> nn.Module:
        return PatchEmbedding(self, width, node_channels, edge_channels)

    def node_decoder(self, width: int, channels: int) -> nn.Module:
        return PatchToNodes(self, width, channels)

    def pair_decoder(self, width: int, channels: int) -> nn.Module:
        return PatchToPairs(self, width, channels)


class PatchEmbedding(nn.Module):
    """(x (B, N, Cx), edge (B, N, N, Ce), mask (B, N)) -> tokens (B, R grid, width), which of them count (B, R grid)."""

    def __init__(self, spec: ImagePatches, width: int, node_channels: int, edge_channels: int) -> None:
        super().__init__()
        self.spec = spec
        self.pairs = nn.Conv2d(edge_channels, width, spec.patch, spec.patch)
        self.nodes = nn.Conv1d(node_channels, width, spec.share, spec.share, bias=False)

    def forward(self, x: Tensor, edge: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        spec = self.spec
        n = x.shape[1]
        rows = spec.rows(n)
        # The image has all columns of the grid, and as many rows as the nodes reach.
        right = spec.grid * spec.patch - n - spec.margin
        below = rows * spec.patch - n - spec.margin
        image = pad(edge, (0, 0, spec.margin, right, spec.margin, below))
        dealt = deal(spec, x, rows).unflatten(2, (spec.grid, spec.share))
        tokens = strided(self.pairs, patches(image, spec.patch)) + strided(self.nodes, dealt.mT)
        return tokens.flatten(1, 2), self._counting(n, rows, mask, x.device)

    def _counting(self, n: int, rows: int, mask: Tensor | None, device: torch.device) -> Tensor | None:
        """Tokens that show a pair or hold a node; None if all do."""
        spec = self.spec
        if mask is None:
            if rows == spec.grid and spec.margin < spec.patch:
                return None
            mask = torch.ones(1, n, dtype=torch.bool, device=device)
        dealt = deal(spec, mask.unsqueeze(-1), rows).squeeze(-1)
        holds_node = dealt.unflatten(-1, (spec.grid, spec.share)).any(-1)  # (B, R, grid)
        row = holds_node.any(-1)  # (B, R), rows that show nodes, and in the same order the columns that do
        column = pad(row, (0, spec.grid - rows))
        shows_pair = row.unsqueeze(2) & column.unsqueeze(1)
        return (shows_pair | holds_node).flatten(1)


def patches(image: Tensor, patch: int) -> Tensor:
    """An image (B, H, W, C) in patches (B, H / patch, W / patch, C, patch, patch)."""
    return image.unflatten(2, (-1, patch)).unflatten(1, (-1, patch)).permute(0, 1, 3, 5, 2, 4)


def strided(convolution: nn.Conv1d | nn.Conv2d, seen: Tensor) -> Tensor:
    """A convolution whose stride is its kernel, on patches (B, R, grid, C, *kernel): (B, R, grid, width).

    It is one matrix product. The convolution itself is many times slower in bfloat16 on CPUs.
    """
    return linear(seen.flatten(3), convolution.weight.flatten(1), convolution.bias)


def transposed(convolution: nn.ConvTranspose1d | nn.ConvTranspose2d, tokens: Tensor) -> Tensor:
    """A transposed convolution whose stride is its kernel: tokens (..., width) to patches (..., *kernel, C)."""
    weight = convolution.weight
    # This changes nothing but the memory layout of the gradient, which DDP expects to be that of the weight.
    weight = weight.flatten(1).unflatten(1, weight.shape[1:])
    weight = weight.movedim((0, 1), (-1, -2))
    patch = linear(tokens, weight.flatten(0, -2)).unflatten(-1, weight.shape[:-1])
    return patch + convolution.bias


def deal(spec: ImagePatches, x: Tensor, rows: int) -> Tensor:
    """Node features (B, N, C) by rows of the grid, (B, R, grid * share, C): zero where there is no node."""
    below = rows * spec.patch - x.shape[1] - spec.margin
    lines = pad(x, (0, 0, spec.margin, below)).unflatten(1, (rows, spec.patch))
    return pad(lines, (0, 0, 0, spec.grid * spec.share - spec.patch))


def gridded(spec: ImagePatches, tokens: Tensor) -> Tensor:
    """Tokens (B, R grid, width) by rows of the grid, (B, R, grid, width)."""
    return tokens.unflatten(1, (tokens.shape[1] // spec.grid, spec.grid))  # no -1: a batch may be empty


class PatchToNodes(nn.Module):
    """Tokens (B, R grid, width) -> (B, N, channels): a transposed 1-d convolution along each row of the grid."""

    def __init__(self, spec: ImagePatches, width: int, channels: int) -> None:
        super().__init__()
        self.spec = spec
        self.nodes = nn.ConvTranspose1d(width, channels, spec.share, spec.share)

    def forward(self, tokens: Tensor, n: int) -> Tensor:
        spec = self.spec
        y = transposed(self.nodes, gridded(spec, tokens))  # (B, R, grid, share, C)
        y = y.flatten(2, 3)[:, :, : spec.patch]  # the nodes of each row
        return y.flatten(1, 2)[:, spec.margin : spec.margin + n]


class PatchToPairs(nn.Module):
    """Tokens (B, R grid, width) -> (B, N, N, channels): a transposed 2-d convolution."""

    def __init__(self, spec: ImagePatches, width: int, channels: int) -> None:
        super().__init__()
        self.spec = spec
        self.pairs = nn.ConvTranspose2d(width, channels, spec.patch, spec.patch)

    def forward(self, tokens: Tensor, n: int) -> Tensor:
        nodes = slice(self.spec.margin, self.spec.margin + n)
        y = transposed(self.pairs, gridded(self.spec, tokens))  # (B, R, grid, patch, patch, C)
        image = y.transpose(2, 3).flatten(3, 4).flatten(1, 2)
        return image[:, nodes, nodes]


@dataclass(frozen=True)
class NodeTokens:
    """One token per node: linear in the node's features and in its row of the (permuted) edge tensor.

        t_i = W x_i + b + sum_j W_j edge_ij                 j = 1 .. n <= max_nodes

    Node outputs are linear in the node's token; pair outputs transpose the embedding, y_ij = W'_j h_i + b'_j.

    Args:
        max_nodes: largest number of nodes.

    Raises:
        ValueError: a number below 1.
    """

    max_nodes: int

    def __post_init__(self) -> None:
        counted(max_nodes=self.max_nodes)

    @property
    def plane(self) -> tuple[int, int]:
        """The grid on which tokens lie, row by row: the smallest square that holds them."""
        side = math.isqrt(self.max_nodes - 1) + 1
        return (side, side)

    @property
    def length(self) -> int:
        """Largest number of tokens."""
        return self.max_nodes

    def embedding(self, width: int, node_channels: int, edge_channels: int) -> nn.Module:
        return NodeEmbedding(self, width, node_channels, edge_channels)

    def node_decoder(self, width: int, channels: int) -> nn.Module:
        return TokenToNode(width, channels)

    def pair_decoder(self, width: int, channels: int) -> nn.Module:
        return TokenToRow(self, width, channels)


class NodeEmbedding(nn.Module):
    """(x (B, N, Cx), edge (B, N, N, Ce), mask (B, N)) -> tokens (B, N, width), the mask."""

    def __init__(self, spec: NodeTokens, width: int, node_channels: int, edge_channels: int) -> None:
        super().__init__()
        self.nodes = nn.Linear(node_channels, width)
        self.rows = nn.Linear(spec.max_nodes * edge_channels, width, bias=False)

    def forward(self, x: Tensor, edge: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        row = edge.flatten(2)
        return self.nodes(x) + linear(row, self.rows.weight[:, : row.shape[-1]]), mask


class TokenToNode(nn.Module):
    """Tokens (B, N, width) -> (B, N, channels)."""

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.nodes = nn.Linear(width, channels)

    def forward(self, tokens: Tensor, n: int) -> Tensor:
        return self.nodes(tokens)


class TokenToRow(nn.Module):
    """Tokens (B, N, width) -> (B, N, N, channels): each token gives its row."""

    def __init__(self, spec: NodeTokens, width: int, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.rows = nn.Linear(width, spec.max_nodes * channels)

    def forward(self, tokens: Tensor, n: int) -> Tensor:
        size = n * self.channels
        row = linear(tokens, self.rows.weight[:size], self.rows.bias[:size])
        return row.unflatten(-1, (n, self.channels))


def kept(counting: Tensor, share: float) -> Tensor:
    """The tokens (B, T) that count, without a random share of those of each row, rounded down."""
    # Rank the tokens at random, those that do not count behind all others, and keep the first ones.
    order = torch.rand(counting.shape, device=counting.device).masked_fill(~counting, 2)
    rank = order.argsort(-1).argsort(-1)
    number = counting.sum(-1, keepdim=True)
    dropped = (share * number).floor()
    return counting & (rank < number - dropped)
