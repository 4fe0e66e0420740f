"""A base network of a config, symmetrized over the order of the nodes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch import nn

import probsym as ps
from probsym.distributions import DefaultNet
from probsym.reps import NodeAxis

from ..batches import Batch
from ..methods import PAPER, PublishedNoise, Settings
from ..models import BatchNormGIN, GraphScores, NodeScores
from .bases import BASES, PACKED
from .collate import Channels
from .task import Task

if TYPE_CHECKING:
    from .config import Config


def build(config: Config, task: Task, channels: Channels, example: Batch) -> ps.Symmetrizer:
    """The base network, symmetrized over the order of the nodes; its weights follow torch's present random state."""
    base = BASES[config.base]
    method = PAPER[config.symmetrizer]
    assert method.distribution is not None
    model = base.build(config, task, channels)
    nodes = base.layout.nodes
    inputs = base.layout.inputs(nodes)

    def net() -> nn.Module:
        if config.published:
            gin = BatchNormGIN(channels.x, dropout=config.order_dropout, padded_to=task.max_nodes)
            return GraphScores(gin)
        if base.layout is PACKED:
            return NodeScores(channels.x, channels.edge)
        return DefaultNet(inputs, nodes)

    settings = Settings(net, config.noise, config.scale, config.relaxation, config.max_support)
    if config.published:
        settings = replace(settings, published=PublishedNoise("uniform", ("x",)))
    train_samples = config.train_samples
    if train_samples is None and method.several:
        train_samples = 1
    valid_samples = None
    if method.random:
        valid_samples = config.valid_samples
    if config.published and not method.random and method.several:
        valid_samples = 1  # frames: one of them, in testing too
    few: dict[str, Any] | None = arguments(example)
    if config.published and method.net:
        few = None  # nothing is lazy, and statistics of the net should see training batches alone
    return ps.symmetrize(
        model,
        inputs,
        output_rep(config, task, nodes),
        method.distribution(nodes, settings),
        train_samples=train_samples,
        eval_samples=valid_samples,
        example=few,
    )


def output_rep(config: Config, task: Task, nodes: NodeAxis) -> ps.Rep:
    """How the output moves with the nodes."""
    if config.published:
        return task.goal.of_batches().rep(nodes)
    return task.goal.rep(nodes)


def arguments(batch: Batch) -> dict[str, Any]:
    """What a model is called with: the graphs, without their labels."""
    names = ("x", "edge", "mask", "edge_index", "bonds", "batch", "size")
    return {name: batch[name] for name in names if name in batch}


def groups(config: Config, phi: ps.Symmetrizer) -> list[dict[str, Any]]:
    """Parameters by learning rate: a pretrained backbone may learn more slowly than what is new."""
    if config.backbone_lr is None:
        trained = [parameter for parameter in phi.parameters() if parameter.requires_grad]
        return [{"params": trained, "lr": config.lr}]
    from probsym.integrations.transformers import parameter_groups

    return parameter_groups(phi, config.lr, config.backbone_lr)
