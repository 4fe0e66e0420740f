"""The experiments by name. A new one is a module with `Config` and `run`, a folder of presets, and one line here.

This file imports nothing heavy: `probsym list` reads names and the first comment of each preset, no more.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import settings
from .errors import choose

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from .outcome import Outcome, Place

PRESETS = Path(__file__).parent / "presets"


@dataclass(frozen=True)
class Experiment:
    """A section of the paper: what `probsym run` does under one name."""

    name: str
    help: str
    metric: str
    module: str  # imported on first use; it holds Config, a dataclass, and run(config, place)
    beside: tuple[str, ...] = ()  # entries of result.json without which the value says little: columns of the table
    unit: str = ""  # of the metric
    outputs: str = "units of the positions"  # that of which equivariance_by_samples measures one coordinate
    setting: Callable[[Mapping[str, Any]], str] = settings.one  # of a run's configuration: its heading in the table

    @property
    def axis(self) -> str:
        """The metric with its unit."""
        if not self.unit:
            return self.metric
        return f"{self.metric} ({self.unit})"

    @property
    def config(self) -> type[Any]:
        """The dataclass of its fields."""
        return import_module(self.module).Config

    @property
    def run(self) -> Callable[[Any, Place], Outcome]:
        """Trains and measures; writes into `place.out` and returns the numbers."""
        return import_module(self.module).run

    @property
    def presets(self) -> dict[str, Path]:
        """Name to YAML file."""
        files = {file.stem: file for file in (PRESETS / self.name).glob("*.yaml")}
        return dict(sorted(files.items()))


EXPERIMENTS = {
    e.name: e
    for e in (
        Experiment(
            "nbody",
            "five charged particles: where are they one time unit later?",
            "test MSE",
            "probsym_experiments.nbody",
            ("concentration of poses", "concentration of orders"),
            unit="squared units of the positions",
            setting=settings.nbody,
        ),
        Experiment(
            "atoms",
            "which energy and which forces has a molecule, in any pose?",
            "test force MAE, random poses",
            "probsym_experiments.atoms",
            ("original pose", "600 K", "energy, meV/atom"),
            unit="meV/Å",
            outputs="a force, meV/Å",
            setting=settings.atoms,
        ),
        Experiment(
            "graph8c",
            "which pairs of the 11,117 connected graphs on 8 nodes does an untrained model tell apart?",
            "pairs never separated",
            "probsym_experiments.graphs.graph8c",
            ("isomorphic called different", "isomorphic_largest"),
        ),
        Experiment(
            "exp",
            "which of 600 pairs of 1-WL-equivalent graphs does an untrained model tell apart?",
            "pairs never separated",
            "probsym_experiments.graphs.exp",
            ("isomorphic called different", "isomorphic_largest"),
        ),
        Experiment(
            "brec",
            "which of 400 pairs of graphs does a model tell apart that was trained on the pair?",
            "pairs told apart",
            "probsym_experiments.graphs.brec",
            ("pairs", "isomorphic called different", "published rule", "isomorphic by the published rule"),
        ),
        Experiment(
            "exp-classify",
            "which graph of a 1-WL-equivalent pair is satisfiable?",
            "test accuracy",
            "probsym_experiments.graphs.exp_classify",
            setting=settings.exp_classify,
        ),
        Experiment(
            "automorphism",
            "do nodes that a symmetry exchanges get equal outputs?",
            "spread within orbits over that of one sample",
            "probsym_experiments.graphs.automorphism",
        ),
        Experiment(
            "sample-size",
            "how much does an average over k samples vary before training?",
            "output variance, PS over GA",
            "probsym_experiments.graphs.sample_size",
        ),
        Experiment(
            "pattern",
            "which nodes of a random graph belong to a planted pattern?",
            "test accuracy, classes alike",
            "probsym_experiments.tasks.pattern",
        ),
        Experiment(
            "peptides-func",
            "which of ten functions does a peptide have?",
            "test average precision",
            "probsym_experiments.tasks.peptides_func",
        ),
        Experiment(
            "peptides-struct",
            "what shape does a peptide have in space?",
            "test MAE",
            "probsym_experiments.tasks.peptides_struct",
        ),
        Experiment(
            "pcqm-contact",
            "which distant atoms of a molecule touch in space?",
            "test MRR",
            "probsym_experiments.tasks.pcqm_contact",
        ),
    )
}


def experiment(name: str) -> Experiment:
    """The experiment of that name."""
    return choose("experiment", EXPERIMENTS, name)


# Flags that make another method of a preset, so that its results go by another name.
METHOD_FLAGS = ("base", "symmetrizer", "tokens", "pretrained")


def method_name(preset: str, config: Mapping[str, Any], changed: Collection[str]) -> str:
    """What a run is called: its preset, or BASE-SYMMETRIZER[-nodes][-scratch] if flags made another method of it.

    Args:
        config: All fields of the run.
        changed: Names of those that are not the preset's.

    >>> method_name("gnn-ps", {"base": "gnn", "symmetrizer": "ps"}, ["lr"])
    'gnn-ps'
    >>> method_name("gnn-ps", {"base": "gnn", "symmetrizer": "none"}, ["symmetrizer"])
    'gnn-none'
    """
    flags = [flag for flag in METHOD_FLAGS if flag in changed]
    if not flags or "base" not in config or "symmetrizer" not in config:
        return preset
    parts = [config["base"], config["symmetrizer"]]
    if config.get("tokens") == "nodes":
        parts.append("nodes")
    if config.get("pretrained") is False:
        parts.append("scratch")
    return "-".join(parts)


def summary(preset: Path) -> str:
    """The first comment of a preset file."""
    return preset.read_text(encoding="utf-8").partition("\n")[0].removeprefix("#").strip()
