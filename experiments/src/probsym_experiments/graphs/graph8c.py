"""GRAPH8c: which of the 61,788,286 pairs of connected graphs on 8 nodes does an untrained model tell apart?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from ..checks import at_least
from ..outcome import Outcome, Place
from .enumeration import load
from .separation import Protocol, compare


@dataclass(kw_only=True)
class Config(Protocol):
    __doc__ = f"""{Protocol.__doc__}        nodes: Of the graphs, at most 8.
    """

    nodes: int = 8
    sees_nodes: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 3, "nodes")


def run(config: Config, place: Place) -> Outcome:
    """Counts the pairs never separated, and the isomorphic pairs called different."""
    graphs = torch.from_numpy(load(place.data, config.nodes)).float()
    return compare(config, {"adjacency": graphs}, None, place)
