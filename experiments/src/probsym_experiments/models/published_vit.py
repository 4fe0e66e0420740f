"""The network that the published code makes of a pretrained vision transformer, on graphs as images."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from probsym.integrations.transformers.encoder import Encoder

GRID = 14  # patches a side


@dataclass(frozen=True)
class Margin:
    """What is added to rows and columns so that patches fill them.

    Args:
        size: Pixels. patch: Pixels a patch. mode: zeros, reflect or circular.
        centred: Whether half of them are in front.
    """

    size: int
    patch: int
    mode: str = "zeros"
    centred: bool = False

    @staticmethod
    def of(length: int, patches: int, mode: str, centred: bool) -> Margin:
        """For `length` pixels in so many patches, of one pixel at least."""
        patch = max(1, -(-length // patches))
        return Margin(patch * patches - length, patch, mode, centred)

    def add(self, image: Tensor, axes: int) -> Tensor:
        """To the last `axes` axes of an image."""
        front = 0
        if self.centred:
            front = self.size // 2
        if not self.size:
            return image
        mode = self.mode
        if mode == "zeros":
            mode = "constant"
        return pad(image, (front, self.size - front) * axes, mode=mode)


class PublishedViT(nn.Module):
    """A vision transformer on graphs as the published code of arXiv 2306.02866 has it (github.com/jw9730/lps).

        tokens = Conv2d(edge) + Conv1d(x)           patches of the N x N image, and of the row of nodes
        output = W (class token), or the pairs of ConvTranspose2d(tokens)

    Graphs are padded to the largest of the task, and tokens of padding are seen as all others. `GraphTransformer` of
    the library hides them, and outputs nodes from their own tokens.

    `forward(x (R, N, Cx), edge (R, N, N, Ce), mask (R, N)) -> (R, out)` or (R, N, N, out).

    Args:
        encoder: Of 14 x 14 tokens.
        max_nodes: Of a graph of the task.
        pairs: Whether the outputs are pairs of nodes.
        hides_nodes: Whether x counts as zeros, since node features are on the diagonal of edge.
        mode, centred: Of the margin of the image.
        patch_dropout: Share of the tokens that each row leaves out, in evaluation as well; graph outputs only.
        varies: Whether the share is drawn anew in each call, up to `patch_dropout`.
    """

    def __init__(
        self,
        encoder: Encoder,
        max_nodes: int,
        node_channels: int,
        edge_channels: int,
        out: int,
        pairs: bool,
        hides_nodes: bool = False,
        mode: str = "zeros",
        centred: bool = False,
        patch_dropout: float = 0.0,
        varies: bool = False,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.max_nodes = max_nodes
        self.hides_nodes = hides_nodes
        self.patch_dropout = patch_dropout
        self.varies = varies
        self.rows = Margin.of(max_nodes, GRID, mode, centred)
        self.line = Margin.of(max_nodes, GRID**2, mode, centred)
        width = encoder.width
        self.of_nodes = nn.Conv1d(node_channels, width, self.line.patch, self.line.patch)
        self.of_edges = nn.Conv2d(edge_channels, width, self.rows.patch, self.rows.patch)
        if pairs:
            self.head: nn.Module = nn.ConvTranspose2d(width, out, self.rows.patch, self.rows.patch)
        else:
            self.head = nn.Linear(width, out)
        self.pairs = pairs

    def forward(self, x: Tensor, edge: Tensor, mask: Tensor | None = None) -> Tensor:
        given = x.shape[1]
        more = self.max_nodes - given

        # 1. Tokens of the padded image and of the padded row of nodes.
        nodes = pad(x, (0, 0, 0, more)).mT
        if self.hides_nodes:
            nodes = torch.zeros_like(nodes)
        image = pad(edge, (0, 0, 0, more, 0, more)).movedim(-1, 1)
        tokens = self.of_nodes(self.line.add(nodes, 1)).mT
        tokens = tokens + self.of_edges(self.rows.add(image, 2)).flatten(2).mT

        # 2. The transformer, on some of them or all.
        counting = None
        if self.patch_dropout:
            counting = self.kept(tokens)
        prefix, tokens = self.encoder(tokens, counting)

        # 3. Outputs.
        if not self.pairs:
            return self.head(prefix[:, 0])
        image = self.head(tokens.mT.unflatten(-1, (GRID, GRID)))
        return image.movedim(1, -1)[:, :given, :given]

    def kept(self, tokens: Tensor) -> Tensor:
        """Which tokens each row keeps, (R, T): as many in each, at random."""
        share = self.patch_dropout
        if self.varies:
            share = share * float(torch.rand(()))
        count = tokens.shape[1]
        keep = max(1, int(count * (1 - share)))
        order = torch.rand(tokens.shape[:2], device=tokens.device).argsort(-1)
        return torch.zeros_like(order, dtype=torch.bool).scatter(1, order[:, :keep], True)
