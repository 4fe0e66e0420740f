"""PATTERN (arXiv 2306.02866, section 4.3; data: arXiv 2003.00982): which nodes belong to a planted pattern?"""

from __future__ import annotations

from ..outcome import Outcome, Place
from .block_model import LARGEST, SIGNALS, BlockModel, load
from .config import Config
from .goals import NodeClasses
from .learn import learn
from .task import Task

TASK = Task("pattern", lambda folder: load(BlockModel(), folder), NodeClasses(2), (SIGNALS,), (), LARGEST)


def run(config: Config, place: Place) -> Outcome:
    """Trains and tests one model."""
    return learn(TASK, config, place)


__all__ = ["TASK", "Config", "run"]
