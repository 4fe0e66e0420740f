"""Our results, seed by seed made one row, and where they lie. `layout` prints them."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import UserError
from .registry import method_name
from .results import RESULT, read_result

# Variants of a preset that are the same method: the recipe of the published code, what we first took for it, and
# recipes of ours that do without walk probabilities, as the paper does.
RECIPES = ("-published", "-first-reading", "-noise-no-walks", "-score-no-walks", "-no-walks")


@dataclass(frozen=True)
class Row:
    """All seeds of one preset with the same overrides."""

    preset: str
    results: list[dict[str, Any]]

    @property
    def name(self) -> str:
        """The preset and what was changed in it."""
        return recipe_name(self.preset, self.overrides)

    @property
    def overrides(self) -> dict[str, Any]:
        """What was changed in the preset."""
        changed: dict[str, Any] = self.results[0]["overrides"]
        return changed

    @property
    def family(self) -> str:
        """The method, to stand beside published rows of the same: the preset without its recipe, or what flags made."""
        return family(method_name(self.preset, self.config, self.overrides))

    @property
    def config(self) -> dict[str, Any]:
        """The configuration of its first result, which holds the fields that there were at the time."""
        config: dict[str, Any] = self.results[0].get("config", {})
        return config

    def mean(self, field: str) -> float:
        """NaN where a result is no number, since a training diverged."""
        mean, _ = mean_and_error([result[field] for result in self.results])
        return mean

    def known_mean(self, field: str) -> float | None:
        """Mean of a field over the results that have it: those of earlier versions may not."""
        known = [result[field] for result in self.results if result.get(field) is not None]
        if not known:
            return None
        return statistics.fmean(known)

    def stderr(self) -> float | None:
        """Standard error over seeds."""
        _, error = mean_and_error([result["value"] for result in self.results])
        return error

    def each(self, field: str, style: str = "") -> str:
        """What the results have there, one after the other if they differ."""
        texts = []
        for value in dict.fromkeys(result.get(field) for result in self.results):
            if value is None:
                texts.append("unknown")
            else:
                texts.append(format(value, style))
        return " / ".join(texts)


def recipe_name(preset: str, overrides: Mapping[str, Any]) -> str:
    """A preset and what was changed in it.

    >>> recipe_name("mlp-ps", {"steps": 5})
    'mlp-ps steps=5'
    """
    words = [preset]
    for field, value in overrides.items():
        words.append(f"{field}={value}")
    return " ".join(words)


def family(preset: str) -> str:
    """A preset without its recipe.

    >>> family("mlp-ps-published"), family("mlp-ps-score-no-walks")
    ('mlp-ps', 'mlp-ps')
    """
    for variant in RECIPES:
        preset = preset.removesuffix(variant)
    return preset


def mean_and_error(values: Sequence[float | None]) -> tuple[float, float | None]:
    """Mean and standard error, which one value does not have; NaN if a value is none.

    >>> mean_and_error([1.0, 3.0]), mean_and_error([None])
    ((2.0, 1.0), (nan, None))
    """
    known = [value for value in values if value is not None]
    several = len(values) > 1
    if len(known) < len(values):
        if several:
            return math.nan, math.nan
        return math.nan, None
    mean = statistics.fmean(known)
    if not several:
        return mean, None
    return mean, statistics.stdev(known) / len(known) ** 0.5


def collect(results: Path, runs: Path) -> dict[str, list[Row]]:
    """Rows by experiment, from `results`/EXPERIMENT/PRESET/*.json and every result.json under `runs`.

    Of two results with the same recipe and seed the one in `results` counts.
    """
    # 1. By experiment, by recipe (as text, which sorts) and by seed.
    by_experiment: dict[str, dict[str, dict[int, dict[str, Any]]]] = {}
    for path in [*sorted(results.glob("*/*/*.json")), *sorted(runs.rglob(RESULT))]:
        result = read_result(path)
        recipe = json.dumps([result["preset"], result["overrides"]], sort_keys=True)
        by_recipe = by_experiment.setdefault(result["experiment"], {})
        by_seed = by_recipe.setdefault(recipe, {})
        by_seed.setdefault(result["seed"], result)

    # 2. A row per recipe.
    rows: dict[str, list[Row]] = {}
    for name, by_recipe in by_experiment.items():
        rows[name] = []
        for recipe in sorted(by_recipe):
            of_all_seeds = list(by_recipe[recipe].values())
            rows[name].append(Row(of_all_seeds[0]["preset"], of_all_seeds))
    return rows


def place(results: Path | None = None) -> Path:
    """Where published results lie: the folder that is given, else `results` in the working directory.

    Raises UserError for a given one that is no folder.
    """
    if results is None:
        return Path("results")
    if not results.is_dir():
        raise UserError(f"--results {results}: expected a folder; there is none")
    return results


def ours(runs: Path, results: Path | None = None) -> dict[str, list[Row]]:
    """`collect` from `place` and `runs`."""
    return collect(place(results), runs)
