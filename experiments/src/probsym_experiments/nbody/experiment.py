"""n-body dynamics (arXiv 2306.02866, section 4.2): positions of particles one time unit ahead, or up to two."""

from __future__ import annotations

from typing import Any

import torch

import probsym as ps

from ..batches import Batch, Tensors, rows, stream
from ..concentration import concentration
from ..cost import counter, training_flops
from ..evaluation import Score, equivariance, errors_by_samples, exact_errors, parameters, trained
from ..figures import error_by_samples
from ..outcome import Outcome, Place
from ..published import published
from ..registry import EXPERIMENTS
from ..training import Problem, fit
from .analysis import equivariance_by_samples, samples_for_tolerance
from .config import Config
from .data import HORIZONS, load
from .loss import Loss
from .models import METHODS, build, claimed, haar, inputs, motion, prepared
from .rollout import rollout

CONCENTRATED = 256  # test inputs for which it is measured how concentrated p is


def run(config: Config, place: Place) -> Outcome:
    """Trains and tests; the figure shows test error against the number of samples."""
    # 1. Data, model and loss.
    data = load(config.simulated(), place.data)
    data = {part: prepared(config, batch) for part, batch in data.items()}
    torch.manual_seed(config.seed)
    phi = build(config, data["train"])
    loss = Loss(
        motion=motion(config),
        entropy_weight=config.entropy,
        velocity_weight=config.velocity_weight,
        input_noise=config.input_noise,
        haar_share=config.haar_share,
        samples=config.train_samples_at,
    )
    if config.haar_share:
        loss.haar = haar(phi)
    if config.penalised:
        loss.penalties = config

    # 2. Train.
    problem = Problem(phi, loss, loss.errors, Tensors(data["train"]), Tensors(data["valid"]), loss.begin)
    cost = training_flops(problem, config)
    progress = fit(problem, config, place.out, place.resume)
    ps.save(phi, place.out / "model", overwrite=True)

    # 3. Test.
    scores = test(phi, data["test"], config)
    lines = []
    if (config.system, config.horizon) == ("charged", HORIZONS[0]):
        lines = [row for row in published("nbody") if row.figure]
    error_by_samples({place.name: scores}, place.out / "error_by_samples.png", EXPERIMENTS["nbody"].axis, lines)
    details = analysis(phi.cpu(), data["test"], config)
    if config.velocity_weight:
        details["rollout"] = rollout(phi, data["test"], config, place.out)
    return trained(scores, config.samples, config, progress, cost, parameters(phi), details)


def analysis(phi: ps.Symmetrizer, data: Batch, config: Config) -> dict[str, Any]:
    """What is measured of the trained model beside its test error: cost, symmetry, how broad p is, samples needed."""
    few = inputs(rows(data, slice(0, 8)))
    measured: dict[str, Any] = {
        "flops_by_part": flops(phi, few),
        "equivariance": equivariance(phi, few, 128, config.seed, *claimed(config)),
        "equivariance_by_samples": equivariance_by_samples(phi, data, config),
    }
    if METHODS[config.symmetrizer].random:
        some = inputs(rows(data, slice(0, CONCENTRATED)))
        measured |= concentration(phi, some, stream(config.seed, "concentration"))
    if METHODS[config.symmetrizer].random and config.tolerances:
        measured["samples_for_tolerance"] = samples_for_tolerance(phi, data, config)
    return measured


def test(phi: ps.Symmetrizer, data: Batch, config: Config) -> list[Score]:
    """Test errors at each number of samples; a single one where the average is exact."""
    mse = motion(config).mse
    if METHODS[config.symmetrizer].random:
        return errors_by_samples(phi, data, inputs, mse, config.eval_samples, config.repeats, config.seed)
    return [exact_errors(phi, data, inputs, mse)]


@torch.no_grad()
def flops(phi: ps.Symmetrizer, x: Batch) -> dict[str, int]:
    """Floating-point operations of matrix products for one input: the base once, the distribution for one sample."""
    one: dict[str, Any] = rows(x, slice(0, 1))
    with counter() as base:
        phi.model(**one)
    with counter() as whole:
        phi.sample(**one)
    of_base = base.get_total_flops()
    return {"base": of_base, "distribution": whole.get_total_flops() - of_base}
