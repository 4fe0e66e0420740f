"""Where each family of transformers keeps its parts, and how to take an `Encoder` out of it."""

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
        blocks: where the list of blocks may lie, the first that is there counts.
        positions: table of positions, (M, W) or (1, M, W); may be None where there are biases.
        patches: number of positions on a square grid; none if the positions are those of a line.
        prefix: tokens before the others, in order. The first ones have positions, those that the table has over.
        start, norm: what comes before the first and after the last block; absent ones are left out.
        shift: an embedding whose row 0 is added to every token (token type 0 of BERT).
        bias: relative position bias of the whole model; `block_bias`: of each block.
        marks: further attributes by which the family is known.
        leaves: parts with weights that an `Encoder` does without: embeddings of words and pixels, poolers. A model with
            any other weights is a look-alike that computes something more, and is refused.
        foreign: attributes of look-alikes that have no weights, or have them inside their blocks.
        antialias: whether positions are low-pass filtered where the new grid is coarser.
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
        """What was looked for and is not there, or is there and must not be."""
        lacking = [] if any(found(model, path) for path in self.blocks) else [" or ".join(self.blocks)]
        for path in filter(None, (self.positions, self.patches, *self.marks)):
            value = read(model, path)
            if value is ABSENT or (value is None and not self.block_bias):
                lacking.append(path)
            elif path == self.positions and not isinstance(value, Tensor | nn.Embedding | None):
                lacking.append(f"{path} as a tensor or an embedding")
        lacking += [f"no {path}" for path in self.foreign if found(model, path)]
        return lacking or [f"no {name}" for name, _ in model.named_parameters() if not within(name, self.known())]

    def known(self) -> tuple[str, ...]:
        """All paths whose weights an encoder takes over, or may leave behind."""
        return (*self.reads(), *self.leaves)

    def reads(self) -> tuple[str, ...]:
        """All paths whose weights an encoder takes over."""
        single = (self.positions, self.shift, self.bias)
        return tuple(path for path in (*self.blocks, *self.prefix, *self.start, *self.norm, *single) if path)

    def encoder(self, model: nn.Module, tokens: ImagePatches | NodeTokens, layers: int | None) -> Encoder:
        """Copies of the family's parts in an Encoder for these tokens; `model` stays as it is."""
        path = next(path for path in self.blocks if found(model, path))
        blocks = first(list(read(model, path)), layers)
        around = ([read(model, path) for path in paths if found(model, path)] for paths in (self.start, self.norm))
        blocks, start, norm = deepcopy((blocks, *around))
        prefix, position = self._positions(model, tokens)
        return Encoder(blocks, position, prefix, start, norm, self._biases(model, blocks, tokens))

    def _positions(self, model: nn.Module, tokens: ImagePatches | NodeTokens) -> tuple[Tensor | None, Tensor | None]:
        """Prefix (P, W) with its positions, and the positions (T, W) of the tokens."""
        parts = [read(model, path).detach() for path in self.prefix if found(model, path)]
        prefix = torch.cat([part.reshape(-1, part.shape[-1]) for part in parts]) if parts else None
        table = read(model, self.positions)
        if table is None:
            return prefix, None
        table, skipped = _table(table)
        if not self.patches:
            table = resized_line(table[skipped:], tokens.length)
            return prefix, table + read(model, self.shift).weight.detach()[0] if found(model, self.shift) else table
        ahead = len(table) - int(read(model, self.patches))
        if prefix is not None:
            prefix = torch.cat([prefix[:ahead] + table[:ahead], prefix[ahead:]])
        return prefix, resized_plane(table[ahead:], tokens.plane, self.antialias)[: tokens.length]

    def _biases(self, model: nn.Module, blocks: list[nn.Module], tokens: ImagePatches | NodeTokens) -> list[nn.Module]:
        given = [read(model, self.bias)] if found(model, self.bias) else []
        inner, _, name = self.block_bias.rpartition(".")
        for owner in (read(block, inner) if inner else block for block in blocks):
            if found(owner, name):
                given.append(getattr(owner, name))
                setattr(owner, name, None)  # the encoder adds it to the mask instead
                setattr(owner, f"has_{name}", False)  # what Data2Vec asks
        return [
            relative_bias(bias.relative_position_bias_table, tuple(bias.window_size), tokens.plane) for bias in given
        ]


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
    """The attribute at a dotted path, `ABSENT` if there is none."""
    for name in path.split("."):
        model = model[int(name)] if name.isdigit() else getattr(model, name, ABSENT)
        if model is ABSENT:
            return ABSENT
    return model


def found(model: Any, path: str) -> bool:
    """Whether there is something other than None."""
    value = read(model, path) if path else None
    return value is not ABSENT and value is not None


def within(name: str, paths: tuple[str, ...]) -> bool:
    """Whether a parameter lies at one of the paths or below it."""
    return any(name == path or name.startswith(f"{path}.") for path in paths)


def trunk(model: nn.Module) -> nn.Module:
    """The model beneath the head of a task, and of two towers that of images."""
    model = getattr(model, "base_model", model)
    return getattr(model, "vision_model", model)


def taken_over(model: nn.Module) -> tuple[str, ...]:
    """Paths of all weights of a model that its encoder takes over."""
    inner = trunk(model)
    ahead = next(name for name, module in model.named_modules() if module is inner)
    return tuple(f"{ahead}.{path}".removeprefix(".") for path in family_of(inner).reads())


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
    lacking = {name: family.lacks(model) for name, family in FAMILIES.items()}
    fitting = [name for name, paths in lacking.items() if not paths]
    if fitting:
        return FAMILIES[fitting[0]]
    looked = "; ".join(f"{name}: {', '.join(shortened(paths))}" for name, paths in lacking.items())
    raise TypeError(
        f"backbone: {type(model).__name__} has the interface of no known family. Looked for, and not found "
        f"('no': found, and an encoder would leave it out): {looked}. "
        "A new family is one more row of probsym.integrations.transformers.FAMILIES; blocks of any other kind come in "
        "an Encoder"
    )


def shortened(names: list[str], most: int = 6) -> list[str]:
    """The first names, and how many more there are."""
    return names if len(names) <= most else [*names[:most], f"and {len(names) - most} more"]


def _table(table: Tensor | nn.Embedding) -> tuple[Tensor, int]:
    """A table (M, W), and its first row in use (RoBERTa counts from behind its padding row)."""
    if isinstance(table, nn.Embedding):
        return table.weight.detach(), 0 if table.padding_idx is None else table.padding_idx + 1
    return table.detach().reshape(-1, table.shape[-1]), 0
