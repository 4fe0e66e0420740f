"""Where an experiment works, and what it reports."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Place:
    """Where an experiment finds data and leaves what it makes.

    Args:
        name: What the run is called in figures: `registry.method_name`.
    """

    name: str
    data: Path
    out: Path
    resume: bool


@dataclass(frozen=True)
class Outcome:
    """What an experiment reports: the headline number and whatever else belongs into result.json.

    Args:
        value: Of the experiment's metric. stderr: Its Monte Carlo standard error.
        samples: Samples a prediction. steps: Optimizer steps. params: Trained numbers by part.
        earlier: Seconds that interrupted runs before this one took, and processor seconds of all their threads.
        train_flops: Operations of the training's matrix products; None if nothing is trained.
        details: More entries.
    """

    value: float
    stderr: float
    samples: int
    steps: int
    params: dict[str, int]
    earlier: tuple[float, float] = (0.0, 0.0)
    train_flops: int | None = None
    details: dict[str, Any] = field(default_factory=dict)
