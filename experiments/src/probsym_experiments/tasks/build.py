"""A base network of a config, symmetrized over the order of the nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

import probsym as ps
from probsym.distributions import DefaultNet

from ..batches import Batch
from ..methods import PAPER, Settings
from ..models import NodeScores
from .bases import BASES, PACKED
from .collate import Channels
from .task import Task

if TYPE_CHECKING:
    from .config import Config


def build(config: Config, task: Task, channels: Channels, example: Batch) -> ps.Symmetrizer:
    """The base network, symmetrized over the order of the nodes; its weights follow torch's present random state."""
    base, method = BASES[config.base], PAPER[config.symmetrizer]
    assert method.distribution is not None
    model = base.build(config, task, channels)
    nodes = base.layout.nodes
    inputs = base.layout.inputs(nodes)

    def net() -> nn.Module:
        return NodeScores(channels.x, channels.edge) if base.layout is PACKED else DefaultNet(inputs, nodes)

    settings = Settings(net, config.noise, config.scale, config.relaxation, config.max_support)
    one_sample = 1 if method.several else None  # of several, unless the config says otherwise
    return ps.symmetrize(
        model,
        inputs,
        task.goal.rep(nodes),
        method.distribution(nodes, settings),
        train_samples=one_sample if config.train_samples is None else config.train_samples,
        eval_samples=config.valid_samples if method.random else None,
        example=arguments(example),
    )


def arguments(batch: Batch) -> dict[str, Any]:
    """What a model is called with: the graphs, without their labels."""
    names = ("x", "edge", "mask", "edge_index", "bonds", "batch", "size")
    return {name: batch[name] for name in names if name in batch}


def parameters(phi: ps.Symmetrizer) -> dict[str, int]:
    """How many numbers are trained, by part."""
    parts: dict[str, nn.Module] = {"base": phi.model, "distribution": phi.distribution}
    return {name: sum(p.numel() for p in part.parameters() if p.requires_grad) for name, part in parts.items()}


def groups(config: Config, phi: ps.Symmetrizer) -> list[dict[str, Any]]:
    """Parameters by learning rate: a pretrained backbone may learn more slowly than what is new."""
    if config.backbone_lr is None:
        return [{"params": [p for p in phi.parameters() if p.requires_grad], "lr": config.lr}]
    from probsym.integrations.transformers import parameter_groups

    return parameter_groups(phi, config.lr, config.backbone_lr)
