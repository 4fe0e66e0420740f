"""From a backbone to a permutation equivariant graph model in one call; saving and loading it."""

from __future__ import annotations

import os
from typing import Any

import torch

import probsym as ps
from probsym.distributions import EquivariantDistribution
from probsym.integrations.transformers import saving
from probsym.integrations.transformers.model import GraphTransformer, Head, Tokens
from probsym.integrations.transformers.sources import Source
from probsym.reps import NodeAxis, S
from probsym.symmetrizer import Samples, Symmetrizer, symmetrize

NODES = S("nodes", mask="mask")


def symmetrize_transformer(
    source: Source,
    tokens: Tokens,
    head: Head,
    node_channels: int,
    edge_channels: int,
    distribution: str | EquivariantDistribution = "learned",
    train_samples: Samples = None,
    eval_samples: Samples = None,
    **options: Any,
) -> Symmetrizer:
    """A pretrained transformer as a permutation equivariant graph model, phi(x=x, edge=edge, mask=mask).

    Args:
        source, tokens, head, node_channels, edge_channels, options: as for `GraphTransformer.from_pretrained`.
        distribution, train_samples, eval_samples: as for `probsym.symmetrize`.
    """
    model = GraphTransformer.from_pretrained(source, tokens, head, node_channels, edge_channels, **options)
    return symmetrized(model, distribution, NODES, train_samples, eval_samples)


def symmetrized(
    model: GraphTransformer,
    distribution: str | EquivariantDistribution = "learned",
    nodes: NodeAxis = NODES,
    train_samples: Samples = None,
    eval_samples: Samples = None,
) -> Symmetrizer:
    """The Symmetrizer of a GraphTransformer; the net of p has its channels already.

    Args:
        distribution, train_samples, eval_samples: as for `probsym.symmetrize`.
        nodes: the node axis, padded with `mask` if not given.
    """
    n = min(2, model.tokens.max_nodes)
    example = {
        "x": torch.zeros(1, n, model.channels["x"]),
        "edge": torch.zeros(1, n, n, model.channels["edge"]),
        "mask": torch.ones(1, n, dtype=torch.bool),
    }
    return symmetrize(
        model, model.inputs(nodes), model.output(nodes), distribution, train_samples, eval_samples, example=example
    )


def save_pretrained(model: Symmetrizer, folder: str | os.PathLike[str], overwrite: bool = False) -> None:
    """Write a symmetrized GraphTransformer: config.json beside the files of `probsym.save`.

    Raises:
        FileExistsError: a model lies there, and `overwrite` is false.
        TypeError: not the Symmetrizer of a GraphTransformer.
    """
    if not isinstance(model, Symmetrizer) or not isinstance(model.model, GraphTransformer):
        raise TypeError(f"model: expected a Symmetrizer of a GraphTransformer, got {type(model).__name__}")
    description = model.model.description()
    folder = saving.refuse(folder, overwrite)
    ps.save(model, folder, overwrite)
    saving.save_config({**description, "architectures": ["Symmetrizer"]}, folder)


def load_pretrained(source: Source, distribution: EquivariantDistribution | None = None) -> Symmetrizer:
    """The Symmetrizer that `save_pretrained` wrote, bit-equal for the same generator seed; in training mode.

    Args:
        source: folder or hub name.
        distribution: needed only where the saved one was made with a net of the user's own.

    Raises:
        FileNotFoundError: neither a folder nor a name on the hub; files are missing.
        ValueError: a model of another kind, or its weights do not fit.
    """
    folder, description = saving.opened(source, "Symmetrizer")
    model = saving.built(GraphTransformer.from_description, description, folder)
    return ps.load(folder, model, distribution)
