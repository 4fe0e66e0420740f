"""A transformer without its embeddings: tokens in, tokens out, with the positions that it was trained on."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable, Sequence
from copy import deepcopy
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torch.utils.checkpoint import checkpoint

from probsym.integrations.transformers.checks import counted, whole

MASKED = -1e4  # its exponential is 0 in every precision, and a row of nothing else gives no NaN
MASK_NAMES = ("attention_mask", "attn_mask", "relative_position_bias")


class Encoder(nn.Module):
    """The part of a transformer that maps tokens to tokens.

        h = start([prefix, tokens + position]),  h <- block(h, mask + bias) for each block,  h <- norm(h)

    An Encoder of your own blocks can be the backbone of a `GraphTransformer` too.

    Args:
        blocks: called as block(h, attention_mask=...), or with attn_mask=... or relative_position_bias=..., and an
            additive mask that broadcasts with (B, heads, P + T, P + T). Blocks that take no mask see padded tokens too.
        position: (T, W); a call with fewer tokens takes the first ones. None if the blocks need no positions.
        prefix: (P, W), class and register tokens with their positions, or None.
        start, norm: modules before the first and after the last block.
        biases: relative position biases, called as bias(P + T) -> (1, heads, P + T, P + T); one for all blocks, or one
            per block.
        width: size W of a token; needed only without position and prefix.

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
        self.width = _token_width(width, position, prefix)
        self.position = _parameter(position)
        self.prefix = _parameter(prefix)
        self.start = nn.Sequential(*start)
        self.norm = nn.Sequential(*norm)
        self.biases = nn.ModuleList(biases)
        self.checkpointing = False
        self.mask_name = _mask_name(self.blocks[0])

    def shortened(self, length: int, layers: int | None) -> Encoder:
        """A copy with the first `layers` blocks (None: all), for at most `length` tokens."""
        if self.position is not None and len(self.position) < length:
            raise ValueError(f"backbone: expected positions of {length} tokens, got {len(self.position)}")
        encoder = deepcopy(self)
        encoder.blocks = nn.ModuleList(first(list(encoder.blocks), layers))
        if len(encoder.biases) > 1:
            encoder.biases = encoder.biases[: len(encoder.blocks)]
        return encoder

    def forward(self, tokens: Tensor, counting: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Tokens (B, T, W), hidden from each other where `counting` (B or 1, T) is False.

        Returns the prefix (B, P, W) and the tokens (B, T, W).
        """
        # 1. Positions, and the prefix in front.
        h = tokens
        if self.position is not None:
            h = h + self.position[: tokens.shape[1]]
        if self.prefix is not None:
            h = torch.cat([self.prefix.expand(len(h), -1, -1), h], 1)
        prefix_length = h.shape[1] - tokens.shape[1]
        h = self.start(h)

        # 2. The blocks, with what is added to their attention scores.
        mask = None
        if counting is not None:
            mask = self._additive_mask(counting, prefix_length, h)
        bias = None
        if len(self.biases) == 1:
            bias = self.biases[0](h.shape[1])
        blocks = list(self.blocks)
        if len(h) == 0:  # attention cannot reshape an empty batch
            blocks = []
        for i, block in enumerate(blocks):
            if len(self.biases) > 1:
                bias = self.biases[i](h.shape[1])
            h = self._call(block, h, _sum_of_given(mask, bias))

        h = self.norm(h)
        return h[:, :prefix_length], h[:, prefix_length:]

    def _call(self, block: nn.Module, h: Tensor, mask: Tensor | None) -> Tensor:
        options: dict[str, Tensor | None] = {}
        if self.mask_name is not None:
            options[self.mask_name] = mask
        if self.checkpointing and torch.is_grad_enabled():
            output = checkpoint(partial(block, **options), h, use_reentrant=False)
        else:
            output = block(h, **options)
        if isinstance(output, tuple):  # (tokens, attention weights, ...)
            return output[0]
        return output

    @torch.no_grad()
    def reads_masks(self, most: int) -> bool:
        """Whether masked tokens leave the others alone, and a mask that hides nothing changes nothing.

        Tried in evaluation mode on at most `most` tokens.
        """
        weight = next(self.blocks.parameters())
        count = min(most, 4)
        if count < 2 or weight.is_meta:
            return True

        # 1. Two inputs that differ in their last token alone.
        tokens = torch.randn(1, count, self.width, generator=torch.Generator().manual_seed(0)).repeat(2, 1, 1)
        tokens[1, -1] = -tokens[1, -1]
        tokens = tokens.to(weight)
        all_tokens = torch.ones(1, count, dtype=torch.bool, device=weight.device)
        but_the_last = all_tokens.clone()
        but_the_last[:, -1] = False

        # 2. With the last token masked the others have to agree; with nothing masked the mask must not matter.
        was_training = self.training
        self.eval()
        first_input, second_input = torch.cat(self(tokens, but_the_last), 1)[:, :-1]
        masked = torch.cat(self(tokens, all_tokens), 1)
        plain = torch.cat(self(tokens), 1)
        self.train(was_training)
        error = torch.maximum((first_input - second_input).abs().max(), (masked - plain).abs().max())
        return bool(error <= torch.finfo(weight.dtype).eps ** (2 / 3) * plain.abs().max())

    @staticmethod
    def _additive_mask(counting: Tensor, prefix_length: int, h: Tensor) -> Tensor:
        """0 where tokens count, a large negative number elsewhere: (B, 1, P + T, P + T). The prefix always counts."""
        counting = nn.functional.pad(counting, (prefix_length, 0), value=True)
        mask = torch.zeros(counting.shape, dtype=h.dtype, device=h.device).masked_fill(~counting, MASKED)
        return mask[:, None, None].expand(len(h), 1, h.shape[1], h.shape[1])


def _sum_of_given(mask: Tensor | None, bias: Tensor | None) -> Tensor | None:
    if mask is None:
        return bias
    if bias is None:
        return mask
    return mask + bias


def _parameter(table: Tensor | None) -> nn.Parameter | None:
    """A copy of a table that can be trained."""
    if table is None:
        return None
    return nn.Parameter(table.detach().clone())


def _mask_name(block: nn.Module) -> str | None:
    """What a block calls its mask; None if it takes none."""
    accepted = inspect.signature(block.forward).parameters
    for name in MASK_NAMES:
        if name in accepted:
            return name
    return None


def _token_width(width: int | None, position: Tensor | None, prefix: Tensor | None) -> int:
    """The size of a token, on which all that is given agrees."""
    sizes = set()
    if width is not None:
        sizes.add(width)
    for table in (position, prefix):
        if table is not None:
            sizes.add(table.shape[-1])
    if len(sizes) != 1:
        raise ValueError(f"width: expected one size, of position and prefix or given as width; got {sorted(sizes)}")
    (size,) = sizes
    counted(width=size)
    return size


def first(blocks: list[nn.Module], layers: int | None) -> list[nn.Module]:
    """The first `layers` blocks; all of them for None."""
    if layers is not None and not (whole(layers) and 1 <= layers <= len(blocks)):
        raise ValueError(
            f"layers: expected a whole number from 1 to {len(blocks)}, the layers of the backbone; got {layers!r}"
        )
    return blocks[:layers]


class RelativeBias(nn.Module):
    """A learned bias for each difference of two places on the grid, with entries of its own for the class token.

    Args:
        table: (entries, heads).
        index: (1 + T, 1 + T), the entry of each pair of tokens.
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
    side = math.isqrt(len(table))
    is_square = side * side == len(table)
    wanted = plane[0] * plane[1]
    if is_square and plane == (side, side):
        return table
    if not is_square:
        if wanted <= len(table):
            return table[:wanted]
        raise ValueError(
            f"tokens: expected at most {len(table)} tokens, since a table of {len(table)} positions is no square grid "
            f"and cannot be interpolated to {plane[0]} x {plane[1]}; got {wanted}"
        )
    image = table.detach().mT.unflatten(1, (side, side)).unsqueeze(0).float()
    resized = interpolate(image, plane, mode="bicubic", align_corners=False, antialias=antialias)[0]
    return resized.flatten(1).mT.to(table.dtype)


def resized_line(table: Tensor, length: int) -> Tensor:
    """The first entries of a table (M, W). A table that is too short is stretched over `length` places."""
    if length <= len(table):
        return table[:length]
    line = table.detach().mT.unsqueeze(0).float()
    return interpolate(line, length, mode="linear", align_corners=False)[0].mT.to(table.dtype)


def relative_bias(table: Tensor, old: tuple[int, int], new: tuple[int, int]) -> RelativeBias:
    """BEiT's bias (arXiv 2106.08254): a table ((2 rows - 1) (2 columns - 1) + 3, heads) moved to another grid.

    The last three entries are class token to token, token to class token, class token to itself.
    """
    differences = table.detach()[:-3]
    special = table.detach()[-3:]
    rows, columns = new

    # 1. The table on the new grid: as an image, one pixel for each difference of two places.
    if old != new:
        image = differences.mT.unflatten(1, (2 * old[0] - 1, 2 * old[1] - 1)).unsqueeze(0).float()
        resized = interpolate(image, (2 * rows - 1, 2 * columns - 1), mode="bilinear", align_corners=False)[0]
        differences = resized.flatten(1).mT.to(table.dtype)

    # 2. The entry of each pair of places, numbered row by row of that image.
    row = torch.arange(rows).repeat_interleave(columns)
    column = torch.arange(columns).repeat(rows)
    down = row[:, None] - row + rows - 1
    right = column[:, None] - column + columns - 1
    index = nn.functional.pad(down * (2 * columns - 1) + right, (1, 0, 1, 0))

    # 3. The class token, in front of the others, has the special entries behind them.
    index[0] = len(differences)
    index[:, 0] = len(differences) + 1
    index[0, 0] = len(differences) + 2
    return RelativeBias(torch.cat([differences, special]), index)
