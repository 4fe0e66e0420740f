"""A transformer without its embeddings: tokens in, tokens out, with the positions that it was trained on."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable, Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torch.utils.checkpoint import checkpoint

from probsym.integrations.transformers.checks import counted, whole

MASKED = -1e4  # its exponential is 0 in every precision, and a row of nothing else gives no NaN
MASKS = ("attention_mask", "attn_mask", "relative_position_bias")


class Encoder(nn.Module):
    """The part of a transformer between tokens and tokens, and nothing that it does not use.

        h = start([prefix, tokens + position]),  h <- block(h, mask + bias) for each block,  h <- norm(h)

    One of a user's own blocks is a backbone of `GraphTransformer` too.

    Args:
        blocks: called as block(h, attention_mask=...), or attn_mask=..., relative_position_bias=..., with an additive
            mask that broadcasts on (B, heads, P + T, P + T); blocks that take none see padded tokens too.
        position: (T, W), tokens of a call take the first ones; None where blocks know places, or need not.
        prefix: (P, W), class and register tokens with their positions, or None.
        start, norm: modules before the first and after the last block.
        biases: relative position biases, called as bias(P + T) -> (1, heads, P + T, P + T); one, or one a block.
        width: size W of a token; needed where neither position nor prefix says.

    Raises:
        ValueError: no blocks; no width, or several.
    """

    def __init__(
        self,
        blocks: Iterable[nn.Module],
        position: Tensor | None,
        prefix: Tensor | None = None,
        start: Sequence[nn.Module] = (),
        norm: Sequence[nn.Module] = (),
        biases: Sequence[nn.Module] = (),
        width: int | None = None,
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        if not len(self.blocks):
            raise ValueError("blocks: expected at least one")
        self.width = _agreed(width, *(table.shape[-1] for table in (position, prefix) if table is not None))
        self.position = None if position is None else nn.Parameter(position.detach().clone())
        self.prefix = None if prefix is None else nn.Parameter(prefix.detach().clone())
        self.start, self.norm = nn.Sequential(*start), nn.Sequential(*norm)
        self.biases = nn.ModuleList(biases)
        self.checkpointing = False
        accepted = inspect.signature(self.blocks[0].forward).parameters
        self.mask_name = next((name for name in MASKS if name in accepted), None)

    def shortened(self, length: int, layers: int | None) -> Encoder:
        """A copy with the first blocks, for up to `length` tokens."""
        if self.position is not None and len(self.position) < length:
            raise ValueError(f"backbone: expected positions of {length} tokens, got {len(self.position)}")
        encoder = deepcopy(self)
        encoder.blocks = nn.ModuleList(first(list(encoder.blocks), layers))
        if len(encoder.biases) > 1:
            encoder.biases = encoder.biases[: len(encoder.blocks)]
        return encoder

    def forward(self, tokens: Tensor, counting: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Tokens (B, T, W), masked where they are not `counting` (B or 1, T) -> prefix (B, P, W), tokens (B, T, W)."""
        h = tokens if self.position is None else tokens + self.position[: tokens.shape[1]]
        if self.prefix is not None:
            h = torch.cat([self.prefix.expand(len(h), -1, -1), h], 1)
        length = h.shape[1] - tokens.shape[1]
        h = self.start(h)
        mask = None if counting is None else self._additive(counting, length, h)
        shared = self.biases[0](h.shape[1]) if len(self.biases) == 1 else None
        for i, block in enumerate(self.blocks if len(h) else ()):  # attention cannot reshape an empty batch
            bias = self.biases[i](h.shape[1]) if len(self.biases) > 1 else shared
            h = self._call(block, h, bias if mask is None else mask if bias is None else mask + bias)
        h = self.norm(h)
        return h[:, :length], h[:, length:]

    def _call(self, block: nn.Module, h: Tensor, mask: Tensor | None) -> Tensor:
        options: dict[str, Any] = {} if self.mask_name is None else {self.mask_name: mask}
        if self.checkpointing and torch.is_grad_enabled():
            h = checkpoint(block, h, use_reentrant=False, **options)
        else:
            h = block(h, **options)
        return h[0] if isinstance(h, tuple) else h

    @torch.no_grad()
    def reads_masks(self, most: int) -> bool:
        """Whether masked tokens leave the others alone, and a mask that hides nothing changes nothing.

        Tried in evaluation mode on a few tokens, at most `most`.
        """
        weight, count = next(self.blocks.parameters()), min(most, 4)
        if count < 2 or weight.is_meta:
            return True
        tokens = torch.randn(1, count, self.width, generator=torch.Generator().manual_seed(0)).repeat(2, 1, 1)
        tokens[1, -1] = -tokens[1, -1]
        tokens, every = tokens.to(weight), torch.ones(1, count, dtype=torch.bool, device=weight.device)
        most_of_them, was = torch.arange(count, device=weight.device) < count - 1, self.training
        self.eval()
        one, other = torch.cat(self(tokens, most_of_them & every), 1)[:, :-1]
        masked, plain = torch.cat(self(tokens, every), 1), torch.cat(self(tokens), 1)
        self.train(was)
        error = torch.maximum((one - other).abs().max(), (masked - plain).abs().max())
        return bool(error <= torch.finfo(weight.dtype).eps ** (2 / 3) * plain.abs().max())

    @staticmethod
    def _additive(counting: Tensor, prefix: int, h: Tensor) -> Tensor:
        counting = nn.functional.pad(counting, (prefix, 0), value=True)
        mask = torch.zeros(counting.shape, dtype=h.dtype, device=h.device).masked_fill(~counting, MASKED)
        return mask[:, None, None].expand(len(h), 1, h.shape[1], h.shape[1])


def _agreed(*sizes: int | None) -> int:
    """The one size of tokens that is given, and that of all tables."""
    found = {size for size in sizes if size is not None}
    if len(found) != 1:
        raise ValueError(f"width: expected one size, of position and prefix or given as width; got {sorted(found)}")
    (size,) = found
    counted(width=size)
    return size


def first(blocks: list[nn.Module], layers: int | None) -> list[nn.Module]:
    """The first blocks; None is all of them."""
    if layers is not None and not (whole(layers) and 1 <= layers <= len(blocks)):
        raise ValueError(
            f"layers: expected a whole number from 1 to {len(blocks)}, the layers of the backbone; got {layers!r}"
        )
    return blocks[:layers]


class RelativeBias(nn.Module):
    """A learned bias by the difference of two places on the grid, with its own entries for the class token.

    Args:
        table: (entries, heads). index: (1 + T, 1 + T), which entry.
    """

    index: Tensor

    def __init__(self, table: Tensor, index: Tensor) -> None:
        super().__init__()
        self.table = nn.Parameter(table.detach().clone())
        self.register_buffer("index", index, persistent=False)

    def forward(self, length: int) -> Tensor:
        index = self.index[:length, :length]
        return self.table[index.flatten()].unflatten(0, index.shape).permute(2, 0, 1).unsqueeze(0)


def resized_plane(table: Tensor, plane: tuple[int, int], antialias: bool = False) -> Tensor:
    """A table (side * side, W) of a square grid on another grid, (rows * columns, W).

    Raises:
        ValueError: the table has fewer entries than asked for and is no square, so that it cannot be interpolated.
    """
    side, wanted = math.isqrt(len(table)), plane[0] * plane[1]
    if plane == (side, side) and side * side == len(table):
        return table
    if side * side != len(table):
        if wanted <= len(table):
            return table[:wanted]
        raise ValueError(
            f"tokens: expected at most {len(table)} tokens, since a table of {len(table)} positions is no square grid "
            f"and cannot be interpolated to {plane[0]} x {plane[1]}; got {wanted}"
        )
    image = table.detach().mT.unflatten(1, (side, side)).unsqueeze(0).float()
    return (
        interpolate(image, plane, mode="bicubic", align_corners=False, antialias=antialias)[0]
        .flatten(1)
        .mT.to(table.dtype)
    )


def resized_line(table: Tensor, length: int) -> Tensor:
    """The first entries of a table (M, W), or, where it is too short, all of them stretched over `length` places."""
    if length <= len(table):
        return table[:length]
    line = table.detach().mT.unsqueeze(0).float()
    return interpolate(line, length, mode="linear", align_corners=False)[0].mT.to(table.dtype)


def relative_bias(table: Tensor, old: tuple[int, int], new: tuple[int, int]) -> RelativeBias:
    """BEiT's bias (arXiv 2106.08254): a table ((2 rows - 1) (2 columns - 1) + 3, heads) moved to another grid.

    The last three entries are class token to token, token to class token, class token to itself.
    """
    places, special = table.detach()[:-3], table.detach()[-3:]
    if old != new:
        image = places.mT.unflatten(1, (2 * old[0] - 1, 2 * old[1] - 1)).unsqueeze(0).float()
        size = (2 * new[0] - 1, 2 * new[1] - 1)
        places = interpolate(image, size, mode="bilinear", align_corners=False)[0].flatten(1).mT.to(table.dtype)
    row, column = (place.flatten() for place in torch.meshgrid(*map(torch.arange, new), indexing="ij"))
    difference = (row[:, None] - row + new[0] - 1) * (2 * new[1] - 1) + column[:, None] - column + new[1] - 1
    index = nn.functional.pad(difference, (1, 0, 1, 0))
    index[0], index[:, 0], index[0, 0] = len(places), len(places) + 1, len(places) + 2
    return RelativeBias(torch.cat([places, special]), index)
