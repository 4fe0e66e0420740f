"""What is measured of a trained model: errors in four situations, equivariance, dynamics, the cost of a step."""

from __future__ import annotations

import copy
import statistics
import time
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

import probsym as ps

from ..batches import Batch, rows, stream
from ..evaluation import Score, means, score
from .config import Config
from .data import Data
from .dynamics import Potential, drift, fly, velocities
from .forces import atoms, draws, over_components, poses
from .loss import Loss, turned
from .models import METHODS, build, inputs

MOVED = 16  # test frames whose equivariance is measured
TURNS = 4  # rotations of each
REPEATS = 3  # times that the largest number of samples is drawn for the number that is the result
FLIGHTS = 4  # of dynamics, from each kind of start
COLD = 10.0  # K, at which dynamics from the relaxed geometry begin
WARM = 300.0  # K, at which those from test frames begin
TIMED = 12  # pairs of training steps whose times are compared
Errors = dict[str, dict[str, float]]  # by situation, then by name


def drawn(config: Config) -> int | None:
    """Samples of a prediction; None where the average is exact."""
    if METHODS[config.symmetrizer].random:
        return config.samples
    return None


def errors(energy: Tensor, forces: Tensor, data: Batch) -> dict[str, float]:
    """Of energies (B,) in meV/atom and of components of forces (B, N, 3) in meV/Angstrom: mean absolute, and root mean
    square. Means are over frames, so that molecules count alike, whatever their size.
    """
    off_energy = 1000 * (energy - data["energy"]).double() / atoms(data)
    off_forces = 1000 * (forces - data["forces"]).double()
    return {
        "energy_mae": float(off_energy.abs().mean()),
        "energy_rmse": float(off_energy.square().mean().sqrt()),
        "force_mae": float(over_components(off_forces.abs(), data).mean()),
        "force_rmse": float(over_components(off_forces.square(), data).mean().sqrt()),
    }


def situations(phi: ps.Symmetrizer, data: Data, config: Config) -> tuple[list[Score], Errors, dict[str, Errors]]:
    """The force error on turned test frames by the number of samples; all errors at `config.samples`; and these by
    molecule, if there are several.

    Situations: original (as the data lie) and turned (each frame in a random pose); and both at 600 K.
    """
    found: Errors = {}
    of_molecules: dict[str, Errors] = {}
    scores: list[Score] = []
    samples = drawn(config)
    for name, part in {"original": "test", "hot original": "hot", "turned": "test", "hot turned": "hot"}.items():
        batch = data.parts[part]
        if name.endswith("turned"):
            batch = turned(batch, stream(config.seed, "turned"))

        # 1. All draws: one where the average is exact.
        asked = samples
        if samples is not None and name == "turned":
            asked = REPEATS * max(config.eval_samples)
        energies, forces = draws(phi, batch, asked, stream(config.seed, name))

        # 2. What averages of them say.
        used = samples or 1
        energy = means(energies, used)[0]
        force = means(forces, used)[0]
        found[name] = errors(energy, force, batch)
        if len(data.molecules) > 1:
            for number, molecule in enumerate(data.molecules):
                here = batch["molecule"] == number
                by_situation = of_molecules.setdefault(molecule.name, {})
                by_situation[name] = errors(energy[here], force[here], rows(batch, here))
        if name == "turned":
            if samples is None:
                off = 1000 * over_components((forces - batch["forces"]).abs(), batch)
                scores.append(score(off, poses(phi, batch), exact=True))
                continue
            for k in sorted(set(config.eval_samples)):
                off = 1000 * over_components((means(forces, k) - batch["forces"]).abs(), batch)
                scores.append(score(off, k))
    return scores, found, of_molecules


def equivariance(phi: ps.Symmetrizer, data: Batch, config: Config) -> list[dict[str, float]]:
    """At each k, root mean squares of E(h x) - E(x) in meV/atom and of F(h x) - h F(x), one component, in meV/Angstrom.

    h is a uniform rotation; samples on both sides are independent. `error` is that of the forces, `stderr_test` its
    standard error over frames, each with its own h.
    """
    few = rows(data, slice(0, MOVED))
    samples = drawn(config)
    counts = [1]
    if samples is not None:
        counts = sorted(set(config.eval_samples))
    most = None
    if samples is not None:
        most = counts[-1]

    # 1. Squared differences of each frame, at each k and for each h.
    of_energies: dict[int, list[Tensor]] = {k: [] for k in counts}
    of_forces: dict[int, list[Tensor]] = {k: [] for k in counts}
    for number in range(TURNS):
        seed = stream(config.seed, "moved", number)
        energies, forces = draws(phi, few, most, stream(seed, "here"))
        energies_there, forces_there = draws(phi, turned(few, seed), most, stream(seed, "there"))
        for k in counts:
            off_energy = 1000 * (means(energies_there, k)[0] - means(energies, k)[0]) / atoms(few)
            of_energies[k].append(off_energy.square())
            moved = turned({**few, "forces": means(forces, k)[0]}, seed)
            off_forces = 1000 * (means(forces_there, k)[0] - moved["forces"])
            of_forces[k].append(over_components(off_forces.square(), few))

    # 2. Their means over h, then over frames.
    entries = []
    for k in counts:
        squares = torch.stack(of_forces[k]).mean(0).double()
        error = float(squares.mean().sqrt())
        stderr = 0.0
        if error > 0:
            stderr = float(squares.std() / len(squares) ** 0.5) / (2 * error)
        of_energy = float(torch.stack(of_energies[k]).mean().sqrt())
        entries.append({"samples": k, "error": error, "stderr_test": stderr, "energy_error": of_energy})
    return entries


def flights(phi: ps.Symmetrizer, data: Data, config: Config) -> dict[str, Any]:
    """`flown` by a trained model, in float64, with noise that is the same at every step: the first of its molecules."""
    smooth = copy.deepcopy(phi).double()
    frozen = smooth.frozen(config.seed).eval()
    # All flights are of one molecule: whatever frame tells its atoms.
    frames = rows(data.alone("test", 0), torch.zeros(FLIGHTS, dtype=torch.long))
    frames["kinds"] = frames["kinds"].double()

    def potential(pos: Tensor) -> tuple[Tensor, Tensor]:
        given = inputs(phi, frames | {"pos": pos})
        energy, forces = ps.energy_and_forces(frozen, given, samples=drawn(config))
        return energy, forces.reshape(pos.shape)

    return {"samples": drawn(config), **flown(potential, data, config)}


def flown(potential: Potential, data: Data, config: Config) -> dict[str, Any]:
    """Energy along dynamics of the first molecule without a thermostat.

    generic: from test frames with velocities of 300 K. symmetric: from the relaxed geometry with velocities of 10 K,
    where frames meet the symmetry of the molecule.
    """
    molecule = data.molecules[0]
    test = data.alone("test", 0)["pos"]
    spread = torch.arange(FLIGHTS) * len(test) // FLIGHTS
    starts = {"generic": test[spread].double(), "symmetric": molecule.relaxed.expand(FLIGHTS, -1, -1)}
    temperatures = {"generic": WARM, "symmetric": COLD}
    found: dict[str, Any] = {"steps": config.fly}
    for name, start in starts.items():
        motion = velocities(molecule.masses, FLIGHTS, temperatures[name], stream(config.seed, name))
        found[name] = drift(fly(potential, start, motion, molecule.masses, config.fly))
    return found


def step_cost(phi: ps.Symmetrizer, data: Data, config: Config) -> dict[str, float]:
    """Seconds of a training step, forward and backward, beside one of the bare base; medians of alternated steps."""
    bare = build(replace(config, symmetrizer="none", train_samples=None), data.parts["train"]).train()
    symmetrized = copy.deepcopy(phi).train()
    loss = Loss(config.energy_weight, config.force_weight)
    batch = rows(data.parts["train"], slice(0, config.batch_size))
    times: dict[str, list[float]] = {"bare": [], "symmetrized": []}
    for _ in range(TIMED):
        for name, model in {"bare": bare, "symmetrized": symmetrized}.items():
            start = time.perf_counter()
            loss(model, batch).backward()
            model.zero_grad(set_to_none=True)
            times[name].append(time.perf_counter() - start)
    found = {name: statistics.median(measured[2:]) for name, measured in times.items()}
    return {**found, "ratio": found["symmetrized"] / found["bare"]}
