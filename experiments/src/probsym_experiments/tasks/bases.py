"""Base networks on graphs, by name: a new one is one line here."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from probsym import Rep, S
from probsym.reps import NodeAxis

from ..errors import UserError
from ..models import IdentifiedGNN, WalkTransformer
from .collate import Channels, Packed, Padded
from .task import Task

if TYPE_CHECKING:
    from .config import Config


@dataclass(frozen=True)
class Layout:
    """How a base is given graphs: what makes a batch of them, and how the arguments move with the nodes."""

    collate: Callable[[Channels], Padded | Packed]
    nodes: NodeAxis
    inputs: Callable[[NodeAxis], dict[str, Any]]


PADDED = Layout(Padded, S("nodes", mask="mask"), lambda nodes: {"x": Rep(nodes), "edge": Rep(nodes, nodes)})
PACKED = Layout(
    Packed,
    S("nodes", batch="batch"),
    lambda nodes: {"x": Rep(nodes), "edge_index": Rep(nodes.labels), "bonds": Rep(nodes.edges), "size": Rep()},
)


@dataclass(frozen=True)
class Base:
    """A network to symmetrize.

    Args:
        settings: Fields of the config that it reads and not every base does.
        kinds: Of outputs that it can give, by the number of axes that move with the nodes.
    """

    build: Callable[[Config, Task, Channels], nn.Module]
    layout: Layout
    settings: tuple[str, ...]
    kinds: tuple[int, ...] = (0, 1, 2)


@dataclass(frozen=True)
class Backbone:
    """A pretrained transformer: a folder of PROBSYM_MODELS that may hold it, and its name on the Hugging Face hub."""

    folder: str
    hub: str

    @property
    def source(self) -> str:
        """The folder, if it is there, else the hub."""
        models = os.environ.get("PROBSYM_MODELS")
        if models:
            folder = Path(models) / self.folder
            if folder.is_dir():
                return str(folder)
        return self.hub

    def __call__(self, config: Config, task: Task, channels: Channels) -> nn.Module:
        from probsym.integrations.transformers import GraphTransformer

        source = config.source or self.source
        try:
            if config.published:
                return published(config, task, channels, source)
            return GraphTransformer.from_pretrained(
                source,
                **parts(config, task, channels),
                pretrained=config.pretrained,
                layers=config.layers,
                frozen=config.frozen,
                lora=config.lora,
                checkpointing=config.checkpointing,
                attention=config.attention,
            )
        except OSError as error:
            advice = ""
            if not config.source:
                advice = f"; set PROBSYM_MODELS to a folder that holds {self.folder}"
            raise UserError(f"base: {config.base}: {error}{advice}") from error
        except (TypeError, ValueError, ImportError) as error:
            raise UserError(f"base: {config.base}: {error}") from error


def published(config: Config, task: Task, channels: Channels, source: str) -> nn.Module:
    """The network of the published code, around the transformer of a source."""
    from probsym.integrations.transformers import ImagePatches
    from probsym.integrations.transformers.families import encoder_of
    from probsym.integrations.transformers.sources import open_source

    from ..models.published_vit import GRID, PublishedViT

    opened = open_source(source, config.pretrained, config.attention)
    grid = ImagePatches(max_nodes=GRID, patch=1)  # as many tokens, whatever the graphs
    encoder, _ = encoder_of(opened.model, grid, config.layers)
    encoder.checkpointing = config.checkpointing
    return PublishedViT(
        encoder,
        task.max_nodes,
        channels.x,
        channels.edge,
        task.goal.outputs,
        pairs=kind(task) > 0,
        hides_nodes=channels.diagonal,
        mode=config.padding,
        centred=config.centred,
        patch_dropout=config.patch_dropout,
        varies=config.patch_dropout_varies,
    )


def scratch(config: Config, task: Task, channels: Channels) -> nn.Module:
    """A small vision transformer with random weights, of the architecture of the pretrained ones."""
    from transformers import ViTConfig, ViTModel

    from probsym.integrations.transformers import GraphTransformer

    width = config.width
    shape = ViTConfig(
        hidden_size=width,
        num_hidden_layers=config.layers or 6,
        num_attention_heads=config.heads,
        intermediate_size=4 * width,
    )
    shape._attn_implementation = config.attention
    return GraphTransformer(
        ViTModel(shape, add_pooling_layer=False), **parts(config, task, channels), checkpointing=config.checkpointing
    )


def parts(config: Config, task: Task, channels: Channels) -> dict[str, Any]:
    """How graphs become tokens, which of them are seen, and how tokens become the output."""
    from probsym.integrations.transformers import GraphHead, ImagePatches, NodeHead, NodeTokens, PairHead

    tokens: ImagePatches | NodeTokens
    if config.tokens == "patches":
        patch = config.patch or math.ceil(task.max_nodes / 14)
        tokens = ImagePatches(max_nodes=task.max_nodes, patch=patch)
    else:
        tokens = NodeTokens(max_nodes=task.max_nodes)
    head = (GraphHead, NodeHead, PairHead)[kind(task)]
    return {
        "tokens": tokens,
        "head": head(task.goal.outputs),
        "node_channels": channels.x,
        "edge_channels": channels.edge,
        "patch_dropout": config.patch_dropout,
    }


def kind(task: Task) -> int:
    """Axes of the output that move with the nodes: 0 for graphs, 1 for nodes, 2 for pairs."""
    return task.goal.rep(S("nodes")).ndim


def walk_transformer(config: Config, task: Task, channels: Channels) -> nn.Module:
    return WalkTransformer(
        task.max_nodes,
        channels.x,
        channels.edge,
        task.goal.outputs,
        config.width,
        config.layers or 4,
        config.heads,
        pooled=kind(task) == 0,
    )


def identified_gnn(config: Config, task: Task, channels: Channels) -> nn.Module:
    return IdentifiedGNN(
        task.max_nodes,
        channels.x,
        channels.edge,
        task.goal.outputs,
        config.width,
        config.layers or 6,
        config.dropout,
    )


TRANSFORMER = ("tokens", "patch", "patch_dropout", "checkpointing", "attention", "backbone_lr")
PRETRAINED = (*TRANSFORMER, "source", "pretrained", "frozen", "lora")
BASES: Mapping[str, Base] = {
    "vit-b16-in21k": Base(
        Backbone("vit-base-patch16-224-in21k", "google/vit-base-patch16-224-in21k"), PADDED, PRETRAINED
    ),
    "dinov2-s": Base(Backbone("dinov2-small", "facebook/dinov2-small"), PADDED, PRETRAINED),
    "minilm": Base(Backbone("all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2"), PADDED, PRETRAINED),
    "scratch": Base(scratch, PADDED, (*TRANSFORMER, "width", "heads")),
    "walk-transformer": Base(walk_transformer, PADDED, ("width", "heads"), (0, 1)),
    "gnn-id": Base(identified_gnn, PACKED, ("width", "dropout"), (0,)),
}


def readers() -> dict[tuple[str, ...], list[str]]:
    """Names of bases -> the settings that they read and the others do not."""
    # 1. The bases that read each setting.
    bases_of_setting: dict[str, list[str]] = {}
    for name, base in BASES.items():
        for setting in base.settings:
            bases_of_setting.setdefault(setting, []).append(name)

    # 2. Settings with the same readers together.
    settings_of_bases: dict[tuple[str, ...], list[str]] = {}
    for setting, names in bases_of_setting.items():
        settings_of_bases.setdefault(tuple(names), []).append(setting)
    return settings_of_bases
