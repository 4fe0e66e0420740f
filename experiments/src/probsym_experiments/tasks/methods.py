"""Ways to symmetrize over the order of the nodes, by name: a new one is one line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import nn

import probsym as ps
from probsym.distributions import DefaultNet

from ..batches import Batch
from ..models import NodeScores
from .bases import BASES, PACKED
from .collate import Channels
from .task import Task

if TYPE_CHECKING:
    from .config import Config


@dataclass(frozen=True)
class Method:
    """A distribution over permutations.

    Args:
        distribution: From the config, its group and a maker of the net of p.
        samples: In a training step unless the config says otherwise; None is the library's choice.
        random: Whether its average is an estimate that more samples improve.
        net: Whether a net gives the scores that are sorted. noisy: Whether noise is added to them.
    """

    distribution: Callable[[Config, ps.Group, Callable[[], nn.Module]], ps.EquivariantDistribution]
    samples: int | None = None
    random: bool = True
    net: bool = False
    noisy: bool = False


METHODS: Mapping[str, Method] = {
    "ps": Method(
        lambda config, group, net: ps.Learned(net(), group, config.noise, config.scale, config.relaxation),
        1,
        net=True,
        noisy=True,
    ),
    "ga": Method(lambda config, group, net: ps.Haar(group), 1),
    "fa": Method(lambda config, group, net: ps.Frame(group, config.max_support), 1, random=False),
    "canonical": Method(
        lambda config, group, net: ps.Canonical(net(), group, config.relaxation), random=False, net=True
    ),
}


def build(config: Config, task: Task, channels: Channels, example: Batch) -> ps.Symmetrizer:
    """The base network, symmetrized over the order of the nodes; its weights follow torch's present random state."""
    base, method = BASES[config.base], METHODS[config.symmetrizer]
    model = base.build(config, task, channels)
    nodes = base.layout.nodes
    inputs = base.layout.inputs(nodes)

    def net() -> nn.Module:
        return NodeScores(channels.x, channels.edge) if base.layout is PACKED else DefaultNet(inputs, nodes)

    return ps.symmetrize(
        model,
        inputs,
        task.goal.rep(nodes),
        method.distribution(config, nodes, net),
        train_samples=method.samples if config.train_samples is None else config.train_samples,
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
