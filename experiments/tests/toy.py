"""An experiment of a tenth of a second, to kill, to race and to resume: `install` adds it to those of `probsym run`."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

import torch

import probsym as ps
from probsym_experiments import registry
from probsym_experiments.batches import Tensors
from probsym_experiments.outcome import Outcome, Place
from probsym_experiments.recipe import Recipe
from probsym_experiments.training import Problem, fit

NAME = "toy"
PRESET = """\
# a linear model
steps: 8
validate_every: 2
batch_size: 4
trainer: {accelerator: cpu, threads: 1, progress: false, checkpoint_minutes: 0}
"""
TRAINED = "trained.txt"  # in the data folder: a line for each process that trained


PAUSE = 0.0  # seconds before the training


@dataclass(kw_only=True)
class Config(Recipe):
    """A linear model."""

    def uses(self) -> dict:
        return {}


def run(config: Config, place: Place) -> Outcome:
    place.data.mkdir(parents=True, exist_ok=True)
    with (place.data / TRAINED).open("a") as file:
        file.write(f"{os.getpid()}\n")
    time.sleep(PAUSE)
    torch.manual_seed(config.seed)
    phi = ps.symmetrize(torch.nn.Linear(2, 2), ps.Rep(ps.S("nodes")), ps.Rep(ps.S("nodes")), distribution="haar")
    data = Tensors({"x": torch.randn(8, 3, 2)})
    problem = Problem(
        phi,
        lambda model, batch: model(batch["x"]).square().mean(),
        lambda model, batch: model(batch["x"]).square().mean((1, 2)),
        data,
        data,
    )
    progress = fit(problem, config, place.out, place.resume)
    ps.save(phi, place.out / "model", overwrite=True)
    return Outcome(progress.best, 0.0, 1, config.steps, {"base": 6}, (progress.seconds, progress.cpu_seconds))


def install(folder: Path) -> None:
    """Makes the experiment known to this process; its preset is written into the folder."""
    registry.PRESETS = folder
    (folder / NAME).mkdir(parents=True, exist_ok=True)
    (folder / NAME / "plain.yaml").write_text(PRESET, encoding="utf-8")
    registry.EXPERIMENTS[NAME] = registry.Experiment(NAME, "a toy", "test MSE", "toy")
