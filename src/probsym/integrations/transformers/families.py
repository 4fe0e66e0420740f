"""Where each family of transformers keeps its parts, and how to make an `Encoder` of them."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from probsym.integrations.transformers.encoder import Encoder, first, relative_bias, resized_line, resized_plane
from probsym.integrations.transformers.tokens import ImagePatches, NodeTokens

ABSENT = object()


@dataclass(frozen=True)
class Family:
    """Dotted attribute paths of a family's parts.

    Args:
        blocks: where the list of blocks may be; the first path that exists counts.
        positions: table of positions, (M, W) or (1, M, W); may be None if there are biases.
        patches: number of positions on a square grid; empty if the positions form a line.
        prefix: tokens before the others, in order. If the table has more entries than patches, the first tokens of the
            prefix have those positions.
        start, norm: what comes before the first and after the last block; absent ones are left out.
        shift: an embedding whose row 0 is added to every token (token type 0 of BERT).
        bias: relative position bias of the whole model. block_bias: that of each block, a path inside the block.
        marks: further attributes by which the family is recognized.
        leaves: parts with weights that an `Encoder` does not need: embeddings of words and pixels, poolers. A model
            with any other weights is a look-alike that computes something more, and is refused.
        foreign: attributes by which look-alikes are recognized that have no further weights, or have them in blocks.
        antialias: whether positions are low-pass filtered if the new grid is coarser.
        lora: names of the linear maps that LoRA adapts by default.
    """

    blocks: tuple[str, ...]
    positions: str
    patches: str = ""
    prefix: tuple[str, ...] = ()
    start: tuple[str, ...] = ()
    norm: tuple[str, ...] = ()
    shift: str = ""
    bias: str = ""
    block_bias: str = ""
    marks: tuple[str, ...] = ()
    leaves: tuple[str, ...] = ("pooler",)
    foreign: tuple[str, ...] = ()
    antialias: bool = False
    lora: tuple[str, ...] = ()

    def lacks(self, model: nn.Module) -> list[str]:
        """Paths that the family needs and the model lacks; "no PATH" for what the model has and the family must not."""
        lacking = []

        # 1. What the encoder is made of, and what else the family is recognized by.
        if not existing(model, self.blocks):
            lacking.append(" or ".join(self.blocks))
        for path in (self.positions, self.patches, *self.marks):
            if not path:
                continue
            value = read(model, path)
            if value is ABSENT or (value is None and not self.block_bias):
                lacking.append(path)
            elif path == self.positions and not isinstance(value, Tensor | nn.Embedding | None):
                lacking.append(f"{path} as a tensor or an embedding")

        # 2. What look-alikes have.
        for path in existing(model, self.foreign):
            lacking.append(f"no {path}")
        if lacking:
            return lacking

        # 3. Weights that neither go into the encoder nor can be left behind.
        known = (*self.reads(), *self.leaves)
        for name, _ in model.named_parameters():
            if not within(name, known):
                lacking.append(f"no {name}")
        return lacking

    def reads(self) -> tuple[str, ...]:
        """All paths whose weights go into an encoder."""
        paths = (*self.blocks, *self.prefix, *self.start, *self.norm, self.positions, self.shift, self.bias)
        return tuple(path for path in paths if path)

    def encoder(self, model: nn.Module, tokens: ImagePatches | NodeTokens, layers: int | None) -> Encoder:
        """An Encoder for these tokens with copies of the family's parts; `model` stays as it is."""
        blocks = first(list(read(model, existing(model, self.blocks)[0])), layers)
        start = [read(model, path) for path in existing(model, self.start)]
        norm = [read(model, path) for path in existing(model, self.norm)]
        blocks, start, norm = deepcopy((blocks, start, norm))
        prefix, position = self._positions(model, tokens)
        return Encoder(blocks, position, prefix, start, norm, self._biases(model, blocks, tokens))

    def _positions(self, model: nn.Module, tokens: ImagePatches | NodeTokens) -> tuple[Tensor | None, Tensor | None]:
        """The prefix (P, W) with its positions, and the positions (T, W) of the tokens."""
        prefix = None
        parts = []
        for path in existing(model, self.prefix):
            part = read(model, path).detach()
            parts.append(part.reshape(-1, part.shape[-1]))
        if parts:
            prefix = torch.cat(parts)

        table = read(model, self.positions)
        if table is None:
            return prefix, None
        table, first_used = _table(table)

        # Positions of a line (text).
        if not self.patches:
            position = resized_line(table[first_used:], tokens.length)
            if self.shift and exists(model, self.shift):
                position = position + read(model, self.shift).weight.detach()[0]
            return prefix, position

        # Positions of a square (images), after those of the prefix.
        ahead = len(table) - int(read(model, self.patches))
        if prefix is not None:
            prefix = torch.cat([prefix[:ahead] + table[:ahead], prefix[ahead:]])
        position = resized_plane(table[ahead:], tokens.plane, self.antialias)
        return prefix, position[: tokens.length]

    def _biases(self, model: nn.Module, blocks: list[nn.Module], tokens: ImagePatches | NodeTokens) -> list[nn.Module]:
        """Relative position biases on the grid of the tokens. Those of blocks are taken out of the (copied) blocks."""
        biases = []
        if self.bias and exists(model, self.bias):
            biases.append(read(model, self.bias))
        if self.block_bias:
            inner, _, name = self.block_bias.rpartition(".")
            for block in blocks:
                owner = block
                if inner:
                    owner = read(block, inner)
                if exists(owner, name):
                    biases.append(getattr(owner, name))
                    setattr(owner, name, None)  # the encoder adds it to the mask instead
                    setattr(owner, f"has_{name}", False)  # Data2Vec asks for this attribute

        resized: list[nn.Module] = []
        for bias in biases:
            resized.append(relative_bias(bias.relative_position_bias_table, tuple(bias.window_size), tokens.plane))
        return resized


VISION: dict[str, Any] = {
    "blocks": ("layers", "encoder.layer", "encoder.layers"),
    "positions": "embeddings.position_embeddings",
    "patches": "embeddings.patch_embeddings.num_patches",
    "prefix": ("embeddings.cls_token", "embeddings.distillation_token", "embeddings.register_tokens"),
    "start": ("embeddings.dropout",),
    "leaves": ("embeddings.patch_embeddings", "embeddings.mask_token", "pooler"),
    "lora": ("q_proj", "v_proj", "query", "value"),
}
FAMILIES: dict[str, Family] = {
    "BEiT": Family(
        **VISION,
        norm=("layernorm", "pooler.layernorm"),
        bias="shared_position_bias",
        block_bias="relative_position_bias",
        marks=("shared_position_bias",),
    ),
    "Data2Vec": Family(
        **VISION,
        norm=("layernorm",),
        bias="encoder.relative_position_bias",
        block_bias="attention.attention.relative_position_bias",
        marks=("encoder.has_relative_position_bias",),
    ),
    "DINOv2 with registers": Family(
        **VISION, norm=("layernorm",), marks=("embeddings.register_tokens",), antialias=True
    ),
    "ViT, DeiT, DINOv2": Family(**VISION, norm=("layernorm",)),
    "CLIP, SigLIP": Family(
        blocks=("encoder.layers",),
        positions="embeddings.position_embedding",
        patches="embeddings.num_patches",
        prefix=("embeddings.class_embedding",),
        start=("pre_layrnorm",),
        norm=("post_layernorm",),
        leaves=("embeddings.patch_embedding", "head"),
        foreign=("embeddings.position_embedding_size",),
        lora=("q_proj", "v_proj", "qkv"),
    ),
    "BERT": Family(
        blocks=("encoder.layer", "transformer.layer"),
        positions="embeddings.position_embeddings",
        start=("embeddings.LayerNorm", "embeddings.dropout"),
        norm=("LayerNorm",),
        shift="embeddings.token_type_embeddings",
        marks=("embeddings.word_embeddings", "embeddings.LayerNorm"),
        leaves=("embeddings.word_embeddings", "pooler"),
        lora=("query", "value", "q_proj", "v_proj", "q_lin", "v_lin"),
    ),
    "timm ViT": Family(
        blocks=("blocks",),
        positions="pos_embed",
        patches="patch_embed.num_patches",
        prefix=("cls_token", "dist_token", "reg_token"),
        start=("pos_drop", "norm_pre"),
        norm=("norm", "fc_norm"),
        antialias=True,
        leaves=("patch_embed", "attn_pool", "head", "head_dist"),
        foreign=("rope", "blocks.0.attn.relative_position_bias_table"),
        lora=("qkv",),
    ),
}


def read(model: Any, path: str) -> Any:
    """The attribute at a dotted path, in which a number is an index; `ABSENT` if there is none."""
    value = model
    for name in path.split("."):
        if name.isdigit():
            value = value[int(name)]
        else:
            value = getattr(value, name, ABSENT)
        if value is ABSENT:
            return ABSENT
    return value


def exists(model: Any, path: str) -> bool:
    """Whether there is something other than None at a dotted path."""
    value = read(model, path)
    return value is not ABSENT and value is not None


def existing(model: Any, paths: tuple[str, ...]) -> list[str]:
    """The paths at which there is something."""
    return [path for path in paths if exists(model, path)]


def within(name: str, paths: tuple[str, ...]) -> bool:
    """Whether a parameter lies at one of the paths or below it."""
    return any(name == path or name.startswith(f"{path}.") for path in paths)


def trunk(model: nn.Module) -> nn.Module:
    """The model without the head of a task. Of two towers (CLIP), the one of images."""
    model = getattr(model, "base_model", model)
    return getattr(model, "vision_model", model)


def taken_over(model: nn.Module) -> tuple[str, ...]:
    """Paths of all weights of a model that go into its encoder."""
    inner = trunk(model)
    paths = family_of(inner).reads()
    for name, module in model.named_modules():
        if module is inner and name:
            return tuple(f"{name}.{path}" for path in paths)
    return paths


def encoder_of(
    backbone: nn.Module, tokens: ImagePatches | NodeTokens, layers: int | None
) -> tuple[Encoder, tuple[str, ...]]:
    """A copy of a backbone's encoder, and the linear maps in it that LoRA adapts by default."""
    if isinstance(backbone, Encoder):
        return backbone.shortened(tokens.length, layers), ()
    inner = trunk(backbone)
    family = family_of(inner)
    return family.encoder(inner, tokens, layers), family.lora


def family_of(model: nn.Module) -> Family:
    """The family whose attributes a model has.

    Raises:
        TypeError: no family fits; lists the attributes that were looked for.
    """
    reasons = []
    for name, family in FAMILIES.items():
        lacking = family.lacks(model)
        if not lacking:
            return family
        reasons.append(f"{name}: {', '.join(shortened(lacking))}")
    raise TypeError(
        f"backbone: {type(model).__name__} has the interface of no known family. Looked for, and not found "
        f"('no': found, and an encoder would leave it out): {'; '.join(reasons)}. "
        "A new family is one more row of probsym.integrations.transformers.FAMILIES; blocks of any other kind come in "
        "an Encoder"
    )


def shortened(names: list[str], most: int = 6) -> list[str]:
    """The first names, and how many more there are."""
    if len(names) <= most:
        return names
    return [*names[:most], f"and {len(names) - most} more"]


def _table(table: Tensor | nn.Embedding) -> tuple[Tensor, int]:
    """A table (M, W), and its first row in use: RoBERTa starts after its padding row."""
    if isinstance(table, nn.Embedding):
        first_used = 0
        if table.padding_idx is not None:
            first_used = table.padding_idx + 1
        return table.weight.detach(), first_used
    return table.detach().reshape(-1, table.shape[-1]), 0
