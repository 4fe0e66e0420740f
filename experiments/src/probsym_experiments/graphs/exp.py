"""EXP: which of 600 pairs of graphs that 1-WL cannot tell apart does an untrained model tell apart?"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from ..batches import size
from ..outcome import Outcome, Place
from .exp_data import load
from .separation import Protocol, compare


@dataclass(kw_only=True)
class Config(Protocol):
    __doc__ = Protocol.__doc__

    hidden: list[int] = field(default_factory=lambda: [2048, 4096, 2048])


def run(config: Config, place: Place) -> Outcome:
    """Counts the pairs never separated, and the isomorphic pairs called different."""
    graphs = load(place.data)
    del graphs["target"]
    return compare(config, graphs, torch.arange(size(graphs)).view(-1, 2).T, place)
