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
from .data import SOURCE, TARGET
from .models import BASES, METHODS
from .simulator import Array, Start, energy, simulate

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
    start = {name: data[name][:SYSTEMS] for name in ("pos", "vel", "edge")}
    charges = start["edge"][:, 0, :, 0].double().numpy()  # up to their common sign, which no force feels
    true = truth(start, charges)
    draws = DRAWS if METHODS[config.symmetrizer].random else 1
    found = torch.stack([predict(phi, start, config, draw) for draw in range(draws)])
    loc, vel = found.double().numpy().swapaxes(0, 1)  # (draws, steps + 1, systems, N, D) each
    curves = error_curves(true[0], loc, _drift(charges, *true), _drift(charges, loc, vel))
    draw_figure(true[0], loc, curves, out / "rollout.png")

    by_step = {name: values.tolist() for name, values in curves.items()}
    lines = []
    for step in range(STEPS + 1):
        numbers = {name: values[step] for name, values in by_step.items()}
        lines.append({"time": step, **numbers})
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
    return loc.std(0, ddof=1) if len(loc) > 1 else np.zeros_like(loc[0])


def _bootstrapped(drift: Array) -> Array:
    """Standard errors over systems of the medians of drifts (draws, steps + 1, systems)."""
    systems = drift.shape[2]
    chosen = np.random.default_rng(0).integers(systems, size=(RESAMPLES, systems))
    return np.stack([np.median(step[:, chosen], (0, 2)).std(ddof=1) for step in drift.swapaxes(0, 1)])


def truth(start: Batch, charges: Array) -> tuple[Array, Array]:
    """Positions and velocities (steps + 1, systems, N, D) from the simulator, the start included."""
    loc = start["pos"].double().numpy()
    vel = start["vel"].double().numpy()
    apart = TARGET - SOURCE
    later = simulate(Start(charges, loc, vel), [apart * (i + 1) - 1 for i in range(STEPS)])
    return np.concatenate([loc[None], later[0]]), np.concatenate([vel[None], later[1]])


@torch.no_grad()
def predict(phi: ps.Symmetrizer, start: Batch, config: Config, draw: int) -> Tensor:
    """Positions and velocities (2, steps + 1, systems, N, D): a step is an estimate with `config.samples` samples."""
    reseed(stream(config.seed, "rollout", draw))
    options = {"samples": config.samples} if METHODS[config.symmetrizer].random else {}
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
    found = energy(charges, loc, vel)
    return np.abs(found - found[..., :1, :])


def draw_figure(true: Array, loc: Array, curves: dict[str, Array], path: Path) -> None:
    """Left: one system in its first two coordinates. Middle: error by time. Right: energy drift by time."""
    figure = Figure(figsize=(14, 4.6), layout="constrained")
    plane, error, energies = figure.subplots(1, 3)
    mse = np.square(loc - true).mean((0, 3, 4))
    typical = mse.mean(0).argsort()[true.shape[1] // 2]
    trajectories(plane, true[:, typical], loc[:, :, typical])
    later = np.arange(1, STEPS + 1)
    means = {"marker": "o", "capsize": 3, "label": "mean over systems ± standard error over them"}
    error.errorbar(later, curves["mse"][1:], curves["mse_stderr_test"][1:], **means)  # type: ignore[arg-type]
    error.fill_between(
        later, *np.quantile(mse[1:], (0.25, 0.75), axis=1), alpha=0.2, label="middle half of the systems"
    )
    still = np.square(true - true[:1]).mean((1, 2, 3))
    error.plot(later, still[1:], color="0.5", linestyle="--", label="particles at rest")
    error.set(yscale="log", xlabel="time units ahead", ylabel="MSE (squared units of the positions)")
    medians = means | {"label": "model, median ± standard error over systems"}
    drift = curves["energy_drift"][1:]
    width = curves["energy_drift_stderr_test"][1:]
    energies.errorbar(later, drift, width, **medians)  # type: ignore[arg-type]
    energies.plot(later, curves["energy_drift_true"][1:], color="k", label="simulator, median")
    energies.set(yscale="log", xlabel="time units ahead", ylabel="|E(t) − E(0)| (simulator's units)")
    for axes in (plane, error, energies):
        axes.legend(fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.15))
    save(figure, path)


def trajectories(axes: Axes, true: Array, loc: Array) -> None:
    """True (steps + 1, N, D) in black; predicted (draws, steps + 1, N, D): mean and standard deviation of the draws."""
    several = len(loc) > 1
    name = f"mean of {len(loc)} rollouts" if several else "predicted"
    plane = [0, 1] if true.shape[-1] > 1 else [0, 0]  # particles on a line have one coordinate
    true, mean, width = true[..., plane], loc.mean(0)[..., plane], deviation(loc)[..., plane]
    for i in range(true.shape[1]):
        first = i == 0  # one entry in the legend for all particles
        axes.plot(*true[:, i].T, "k-", linewidth=1, label="true" if first else None)
        (line,) = axes.plot(*mean[:, i].T, "o--", markersize=3, label=name if first else None)
        axes.fill(*tube(mean[:, i], width[:, i]), color=line.get_color(), alpha=0.25)
        axes.plot(*true[0, i], "ks", markersize=4)
    title = "the system of median error"
    if several:
        title += "\ntube: ± one standard deviation of single rollouts\n(Monte Carlo spread only, no error of the model)"
    axes.set_title(title, fontsize="small")
    axes.set(xlabel="x (units of the positions)", ylabel="y (units of the positions)")
    axes.set(aspect="equal", adjustable="datalim")


def tube(path: Array, width: Array) -> tuple[Array, Array]:
    """Outline of a band around a path (T, 2), to either side as wide as `width` (T, 2) across the motion."""
    along = np.gradient(path, axis=0)
    across = np.stack([-along[:, 1], along[:, 0]], 1) / np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-12)
    half = across * np.sqrt(np.square(across * width).sum(1, keepdims=True))
    outline = np.concatenate([path + half, (path - half)[::-1]])
    return outline[:, 0], outline[:, 1]
