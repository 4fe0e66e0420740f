"""Ten time units ahead, one at a time, by a model that predicts positions and velocities.

Finite differences cannot stand in for a velocity head: over one time unit the mean velocity of the true trajectories is
off by 0.32 a component where velocities are 0.58 (root mean square), and extrapolations are worse.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

import probsym as ps
from probsym.files import write

from ..batches import Batch, reseed, stream
from ..figures import save
from ..training import table
from .config import Config
from .data import HORIZONS
from .models import BASES, METHODS
from .simulator import FRAME, Array, Start, energy, simulate

STEPS = 10
SYSTEMS = 50  # test simulations that are rolled out
DRAWS = 8  # times that each is, where predictions are random
RESAMPLES = 1000  # of the systems, for the standard error of a median


def rollout(phi: ps.Symmetrizer, data: Batch, config: Config, out: Path) -> dict[str, Any]:
    """MSE, Monte Carlo spread and energy drift by step; draws `out`/rollout.png, with rollout.csv beside it.

    mse: mean over systems and draws of the squared error of positions, one coordinate. spread: root mean square over
    systems of the standard deviation between draws, of one coordinate: how far single rollouts scatter. energy_drift:
    median over systems and draws of |E(t) - E(0)|; energy_drift_true: of the simulator. What ends in stderr_test is a
    standard error over systems.
    """
    # 1. What is true: the simulator goes on from the same states.
    start = {name: data[name][:SYSTEMS] for name in ("pos", "vel", "edge")}
    charges = start["edge"][:, 0, :, 0].double().numpy()  # up to their common sign, which no force feels
    true_loc, true_vel = truth(start, charges)

    # 2. What is predicted, (draws, steps + 1, systems, N, D) each.
    draws = 1
    if METHODS[config.symmetrizer].random:
        draws = DRAWS
    paths = torch.stack([predict(phi, start, config, draw) for draw in range(draws)])
    loc, vel = paths.double().numpy().swapaxes(0, 1)

    # 3. How far the two are apart.
    curves = error_curves(true_loc, loc, _drift(charges, true_loc, true_vel), _drift(charges, loc, vel))
    draw_figure(true_loc, loc, curves, out / "rollout.png")
    by_step = {name: values.tolist() for name, values in curves.items()}
    lines = []
    for step in range(STEPS + 1):
        line: dict[str, float] = {"time": step}
        for name, values in by_step.items():
            line[name] = values[step]
        lines.append(line)
    write(out / "rollout.csv", table(lines))
    return {"steps": STEPS, **by_step}


def error_curves(true: Array, loc: Array, true_drift: Array, drift: Array) -> dict[str, Array]:
    """What `rollout` reports (steps + 1,), from positions (draws, steps + 1, systems, N, D) and drifts without N, D."""
    mse = np.square(loc - true).mean((0, 3, 4))
    return {
        "mse": mse.mean(1),
        "mse_stderr_test": mse.std(1, ddof=1) / mse.shape[1] ** 0.5,
        "spread": np.sqrt(np.square(deviation(loc)).mean((1, 2, 3))),
        "energy_drift": np.median(drift, (0, 2)),
        "energy_drift_stderr_test": _bootstrapped(drift),
        "energy_drift_true": np.median(true_drift, 1),
    }


def deviation(loc: Array) -> Array:
    """Standard deviation between draws (draws, ...), 0 for a single one."""
    if len(loc) == 1:
        return np.zeros_like(loc[0])
    return loc.std(0, ddof=1)


def _bootstrapped(drift: Array) -> Array:
    """Standard errors over systems of the medians of drifts (draws, steps + 1, systems)."""
    steps, systems = drift.shape[1:]
    chosen = np.random.default_rng(0).integers(systems, size=(RESAMPLES, systems))
    errors = []
    for step in range(steps):
        resampled = drift[:, step][:, chosen]  # (draws, resamples, systems)
        errors.append(np.median(resampled, (0, 2)).std(ddof=1))
    return np.stack(errors)


def truth(start: Batch, charges: Array) -> tuple[Array, Array]:
    """Positions and velocities (steps + 1, systems, N, D) from the simulator, the start included."""
    loc = start["pos"].double().numpy()
    vel = start["vel"].double().numpy()
    frames_of_step = HORIZONS[0] // FRAME
    frames = [frames_of_step * step - 1 for step in range(1, STEPS + 1)]  # frame 0 is one frame after the start
    later_loc, later_vel = simulate(Start(charges, loc, vel), frames)
    return np.concatenate([loc[None], later_loc]), np.concatenate([vel[None], later_vel])


@torch.no_grad()
def predict(phi: ps.Symmetrizer, start: Batch, config: Config, draw: int) -> Tensor:
    """Positions and velocities (2, steps + 1, systems, N, D): a step is an estimate with `config.samples` samples."""
    reseed(stream(config.seed, "rollout", draw))
    options = {}
    if METHODS[config.symmetrizer].random:
        options["samples"] = config.samples
    motion = BASES[config.base].motion
    state = dict(start)
    path = [torch.stack([start["pos"], start["vel"]])]
    for _ in range(STEPS):
        # It changes nothing for E(d), and is what a model of O(d) needs.
        centred = state["pos"] - state["pos"].mean(1, keepdim=True)
        change = phi(**state | {"pos": centred}, **options)
        state |= {"pos": motion.positions(change, state), "vel": motion.velocities(change, state)}
        path.append(torch.stack([state["pos"], state["vel"]]))
    return torch.stack(path, 1)


def _drift(charges: Array, loc: Array, vel: Array) -> Array:
    """|E(t) - E(0)| of states (..., steps + 1, systems, N, D)."""
    energies = energy(charges, loc, vel)
    return np.abs(energies - energies[..., :1, :])


def draw_figure(true: Array, loc: Array, curves: dict[str, Array], path: Path) -> None:
    """Left: one system in its first two coordinates. Middle: error by time. Right: energy drift by time."""
    figure = Figure(figsize=(14, 4.6), layout="constrained")
    plane, error, energies = figure.subplots(1, 3)
    later = np.arange(1, STEPS + 1)

    # 1. The system of median error.
    mse = np.square(loc - true).mean((0, 3, 4))
    typical = mse.mean(0).argsort()[true.shape[1] // 2]
    trajectories(plane, true[:, typical], loc[:, :, typical])

    # 2. Errors, beside those of particles that stay where they are.
    style = {"marker": "o", "capsize": 3}
    error.errorbar(
        later,
        curves["mse"][1:],
        curves["mse_stderr_test"][1:],
        label="mean over systems ± standard error over them",
        **style,  # type: ignore[arg-type]
    )
    low, high = np.quantile(mse[1:], (0.25, 0.75), axis=1)
    error.fill_between(later, low, high, alpha=0.2, label="middle half of the systems")
    at_rest = np.square(true - true[:1]).mean((1, 2, 3))
    error.plot(later, at_rest[1:], color="0.5", linestyle="--", label="particles at rest")
    error.set(yscale="log", xlabel="time units ahead", ylabel="MSE (squared units of the positions)")

    # 3. Energies, beside those of the simulator.
    energies.errorbar(
        later,
        curves["energy_drift"][1:],
        curves["energy_drift_stderr_test"][1:],
        label="model, median ± standard error over systems",
        **style,  # type: ignore[arg-type]
    )
    energies.plot(later, curves["energy_drift_true"][1:], color="k", label="simulator, median")
    energies.set(yscale="log", xlabel="time units ahead", ylabel="|E(t) − E(0)| (simulator's units)")
    for axes in (plane, error, energies):
        axes.legend(fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.15))
    save(figure, path)


def trajectories(axes: Axes, true: Array, loc: Array) -> None:
    """True (steps + 1, N, D) in black; predicted (draws, steps + 1, N, D): mean and standard deviation of the draws."""
    # 1. Two coordinates of each; particles on a line have one.
    plane = [0, 0]
    if true.shape[-1] > 1:
        plane = [0, 1]
    true = true[..., plane]
    mean = loc.mean(0)[..., plane]
    width = deviation(loc)[..., plane]

    # 2. What the lines are called: one entry in the legend for all particles.
    title = "the system of median error"
    true_label: str | None = "true"
    label: str | None = "predicted"
    if len(loc) > 1:
        title += "\ntube: ± one standard deviation of single rollouts\n(Monte Carlo spread only, no error of the model)"
        label = f"mean of {len(loc)} rollouts"

    # 3. Particle by particle.
    for i in range(true.shape[1]):
        axes.plot(true[:, i, 0], true[:, i, 1], "k-", linewidth=1, label=true_label)
        (line,) = axes.plot(mean[:, i, 0], mean[:, i, 1], "o--", markersize=3, label=label)
        across, up = tube(mean[:, i], width[:, i])
        axes.fill(across, up, color=line.get_color(), alpha=0.25)
        axes.plot(true[0, i, 0], true[0, i, 1], "ks", markersize=4)
        true_label = None
        label = None
    axes.set_title(title, fontsize="small")
    axes.set(xlabel="x (units of the positions)", ylabel="y (units of the positions)")
    axes.set(aspect="equal", adjustable="datalim")


def tube(path: Array, width: Array) -> tuple[Array, Array]:
    """Outline of a band around a path (T, 2), to either side as wide as `width` (T, 2) across the motion."""
    along = np.gradient(path, axis=0)
    speed = np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-12)
    across = np.stack([-along[:, 1], along[:, 0]], 1) / speed
    half = across * np.sqrt(np.square(across * width).sum(1, keepdims=True))
    outline = np.concatenate([path + half, (path - half)[::-1]])
    return outline[:, 0], outline[:, 1]
