"""`probsym demo`: one small network trained twice, bare and symmetrized, on particles simulated on the spot."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from torch import nn

import probsym as ps

from .batches import Batch, Tensors, rows
from .evaluation import Score, errors_by_samples, score
from .figures import sample_axis, save
from .models import ParticleGNN
from .nbody.data import DRAWN, System, generate, tensors
from .nbody.loss import Loss
from .nbody.models import inputs
from .recipe import Recipe, TrainerOptions
from .training import Problem, fit

SYSTEM = System(train=500, valid=300, test=500)
RECIPE = Recipe(steps=1_200, validate_every=120, lr=2e-3, trainer=TrainerOptions(accelerator="cpu", progress=False))
SAMPLES = (1, 3, 10, 30)

particles = ps.Axis("particles")
space = ps.E(3, "space")
REPS = {
    "pos": ps.Rep(particles, space),
    "vel": ps.Rep(particles, space.vector),
    "edge": ps.Rep(particles, particles),
}
OUTPUT = ps.Rep(particles, space.vector)  # how far they move
LOSS = Loss()  # adds the positions


@dataclass(frozen=True)
class Trained:
    """A trained model, its test errors against k, its validation errors by step, and the checker's report."""

    name: str
    scores: list[Score]
    history: list[dict[str, float]]
    report: Any


def demo(console: Console, out: Path) -> Path:
    """Trains, checks, prints a table, and returns the path of the figure it saved into `out`."""
    console.print("Five charged particles: where are they one time unit later? Simulating 1,300 systems ...")
    arrays = generate(SYSTEM)
    data = {part: tensors(arrays, part) for part in DRAWN}
    models = []
    for name, wrap in WRAPPERS.items():
        console.print(f"Training the {name} network for {RECIPE.steps:,} steps ...")
        models.append(train(name, wrap, data))
    console.print(report(models))
    path = free(out, "probsym-demo", ".png")
    save(draw(models), path)
    console.print(f"Figure: {path}")
    return path


def bare(net: nn.Module, example: Batch) -> nn.Module:
    """The network as it is."""
    return net


def symmetrized(net: nn.Module, example: Batch) -> nn.Module:
    """The library's whole use: declare how the group acts, and wrap."""
    return ps.symmetrize(net, REPS, OUTPUT, distribution="learned", example=inputs(example))


WRAPPERS: dict[str, Callable[[nn.Module, Batch], nn.Module]] = {"bare": bare, "symmetrized": symmetrized}


def train(name: str, wrap: Callable[[nn.Module, Batch], nn.Module], data: dict[str, Batch]) -> Trained:
    """Trains one model and measures its test error and its equivariance."""
    torch.manual_seed(0)
    model = wrap(ParticleGNN(hidden=32, layers=3), rows(data["train"], slice(0, 2)))
    with tempfile.TemporaryDirectory() as folder:
        problem = Problem(model, LOSS, LOSS.errors, Tensors(data["train"]), Tensors(data["valid"]))
        history = fit(problem, RECIPE, Path(folder)).history
    few = inputs(rows(data["test"], slice(0, 16)))
    generator = torch.Generator().manual_seed(0)
    checked = ps.testing.equivariance_error(model, few, reps=REPS, output=OUTPUT, generator=generator)
    return Trained(name, measure(model, data["test"]), history, checked)


@torch.no_grad()
def measure(model: nn.Module, test: Batch) -> list[Score]:
    """Test errors: at each k, or one for a bare model."""
    if isinstance(model, ps.Symmetrizer):
        return errors_by_samples(model, test, inputs, LOSS.motion.mse, SAMPLES, repeats=3, seed=0)
    return [score(LOSS.errors(model, test)[None], 1, exact=True)]


def report(models: list[Trained]) -> Table:
    """Error and equivariance of all models."""
    table = Table(title="The same network, bare and symmetrized over E(3)", title_justify="left")
    table.add_column("model", justify="left", no_wrap=True)
    for heading in ("k", "test MSE", "equivariance error", "p-value", "passed"):
        table.add_column(heading, justify="right", no_wrap=True)
    for model in models:
        check = model.report
        passed = "no"
        if check.passed:
            passed = "yes"
        for at_k in model.scores:
            cells = [model.name, str(at_k.samples), f"{at_k.value:.4f} ± {at_k.stderr_test:.4f}"]
            if at_k is model.scores[-1]:
                cells += [f"{check.error:.2g}", f"{check.p_value:.2g}", passed]
            table.add_row(*cells)
    return table


def draw(models: list[Trained]) -> Figure:
    """Left: validation error while training. Right: test error against the number of samples."""
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    training, testing = figure.subplots(1, 2)
    for i, model in enumerate(models):
        colour = f"C{i}"
        steps = [row["step"] for row in model.history]
        valid = [row["valid"] for row in model.history]
        training.plot(steps, valid, colour, label=model.name)

        counts = [at_k.samples for at_k in model.scores]
        errors = [at_k.value for at_k in model.scores]
        bars = [at_k.stderr for at_k in model.scores]
        if len(counts) == 1:
            testing.axhline(errors[0], color=colour, linestyle="--", label=model.name)
        else:
            testing.errorbar(counts, errors, yerr=bars, color=colour, marker="o", label=model.name)
    training.set(yscale="log", xlabel="step", ylabel="validation MSE")
    sample_axis(testing, SAMPLES)
    testing.set(yscale="log", ylabel="test MSE")
    for axes in (training, testing):
        axes.legend()
    return figure


def free(folder: Path, name: str, ending: str) -> Path:
    """A path that nothing lies at yet: name.png, name-2.png, ..."""
    path = folder / f"{name}{ending}"
    number = 1
    while path.exists():
        number += 1
        path = folder / f"{name}-{number}{ending}"
    return path
