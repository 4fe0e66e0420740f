"""Numbers from papers, each with whether we could check it against its source."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parent / "published"


@dataclass(frozen=True)
class Published:
    """One row of somebody's table.

    Args:
        row: Its name there. value: Of the experiment's metric. source: Where it stands.
        verified: Whether somebody here has read it there. stderr: Over runs, where the source gives it.
        preset: Our preset of the same method, if there is one, without -published.
        recipe: Our preset of its recipe to the letter; PRESET-published unless given. flags: What is changed in it.
        figure: Whether it is a line in figures.
        steps: Optimizer steps of its recipe. train_flops: Operations of its matrix products, counted by our preset
            of that recipe, PRESET-published.
        device_minutes: That a GPU needs for that recipe, as the head of the file estimates it.
        setting: Of the experiment's `setting`s the one of this row; "" is the experiment's own task.
    """

    row: str
    value: float
    verified: bool
    source: str
    preset: str | None = None
    recipe: str | None = None
    flags: dict[str, Any] = field(default_factory=dict)
    figure: bool = False
    steps: int | None = None
    train_flops: float | None = None
    stderr: float | None = None
    device_minutes: float | None = None
    setting: str = ""

    @property
    def exact(self) -> str | None:
        """Our preset of its recipe to the letter, but for `flags`."""
        if self.preset is None or self.recipe is not None:
            return self.recipe
        return f"{self.preset}-published"

    def __str__(self) -> str:
        text = f"{self.value:g}"
        if self.stderr is not None:
            text += f" ± {self.stderr:g}"
        if not self.verified:
            text += " (unverified)"
        return text


def published(experiment: str) -> list[Published]:
    """All rows of an experiment, in the order of its file; none if there is no file."""
    path = FOLDER / f"{experiment}.yaml"
    if not path.exists():
        return []
    rows = yaml.safe_load(path.read_text(encoding="utf-8"))
    return [Published(**row) for row in rows]
