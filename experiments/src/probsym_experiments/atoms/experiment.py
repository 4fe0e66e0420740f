"""Energies and forces of molecules: a network that knows no rotation, symmetrized, against the same as it is."""

from __future__ import annotations

from typing import Any

import torch

import probsym as ps

from ..batches import Tensors
from ..cost import training_flops
from ..evaluation import parameters, trained
from ..figures import error_by_samples
from ..outcome import Outcome, Place
from ..registry import EXPERIMENTS
from ..training import Problem, fit
from .analysis import equivariance, flights, situations, step_cost
from .config import Config
from .data import load
from .forces import PAGE
from .loss import Loss
from .models import build


def run(config: Config, place: Place) -> Outcome:
    """Trains on frames at 300 K; the figure shows the force error on turned test frames against the samples."""
    # 1. Data, model and loss.
    data = load(config.frames(), place.data, config.used())
    torch.manual_seed(config.seed)
    phi = build(config, data.parts["train"])
    loss = Loss(config.energy_weight, config.force_weight, augmented=config.symmetrizer == "augmented")

    # 2. Train.
    train = Tensors(data.parts["train"])
    valid = Tensors(data.parts["valid"])
    problem = Problem(phi, loss, loss.errors, train, valid, page=PAGE)
    cost = training_flops(problem, config)
    progress = fit(problem, config, place.out, place.resume)
    ps.save(phi, place.out / "model", overwrite=True)

    # 3. Test.
    phi = phi.cpu()
    scores, found, of_molecules = situations(phi, data, config)
    error_by_samples({place.name: scores}, place.out / "error_by_samples.png", EXPERIMENTS["atoms"].axis)
    details: dict[str, Any] = {
        "original pose": found["original"]["force_mae"],
        "600 K": found["hot turned"]["force_mae"],
        "energy, meV/atom": found["turned"]["energy_mae"],
        "errors": found,
        "equivariance_by_samples": equivariance(phi, data.parts["test"], config),
        "step_seconds": step_cost(phi, data, config),
    }
    if of_molecules:
        details["errors_by_molecule"] = of_molecules
    if config.fly:
        details["flights"] = flights(phi, data, config)
    return trained(scores, config.samples, config, progress, cost, parameters(phi), details)
