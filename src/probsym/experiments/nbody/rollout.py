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

from ..batches import Batch, reseed, stream
from ..figures import save
from .config import Config
from .data import SOURCE, TARGET
from .models import METHODS
from .simulator import Array, Start, energy, simulate

STEPS = 10
SYSTEMS, DRAWS = 50, 8  # test simulations that are rolled out, and how many times


def rollout(phi: ps.Symmetrizer, data: Batch, config: Config, out: Path) -> dict[str, Any]:
    """MSE, Monte Carlo standard error and energy drift by step; draws `out`/rollout.png.

    mse: mean over systems and draws of the squared error of positions, one coordinate. stderr: root mean square over
    systems of the standard deviation between draws, of one coordinate: the standard error of one rollout. energy_drift:
    median over systems and draws of |E(t) - E(0)|; energy_drift_true: of the simulator.
    """
    start = {name: data[name][:SYSTEMS] for name in ("pos", "vel", "edge")}
    charges = start["edge"][:, 0, :, 0].double().numpy()  # up to their common sign, which no force feels
    true = truth(start, charges)
    draws = DRAWS if METHODS[config.symmetrizer].random else 1
    found = torch.stack([predict(phi, start, config, draw) for draw in range(draws)])
    loc, vel = found.double().numpy().swapaxes(0, 1)  # (draws, steps + 1, systems, N, D) each
    draw_figure(true[0], loc, _drift(charges, *true), _drift(charges, loc, vel), out / "rollout.png")
    spread = loc.std(0, ddof=1) if draws > 1 else np.zeros_like(loc[0])
    return {
        "steps": STEPS,
        "mse": np.square(loc - true[0]).mean((0, 2, 3, 4)).tolist(),
        "stderr": np.sqrt(np.square(spread).mean((1, 2, 3))).tolist(),
        "energy_drift": np.median(_drift(charges, loc, vel), (0, 2)).tolist(),
        "energy_drift_true": np.median(_drift(charges, *true), 1).tolist(),
    }


def truth(start: Batch, charges: Array) -> tuple[Array, Array]:
    """Positions and velocities (steps + 1, systems, N, D) from the simulator, the start included."""
    loc, vel = start["pos"].double().numpy(), start["vel"].double().numpy()
    apart = TARGET - SOURCE
    later = simulate(Start(charges, loc, vel), [apart * (i + 1) - 1 for i in range(STEPS)])
    return np.concatenate([loc[None], later[0]]), np.concatenate([vel[None], later[1]])


@torch.no_grad()
def predict(phi: ps.Symmetrizer, start: Batch, config: Config, draw: int) -> Tensor:
    """Positions and velocities (2, steps + 1, systems, N, D): a step is an estimate with `config.samples` samples."""
    reseed(stream(config.seed, "rollout", draw))
    options = {"samples": config.samples} if METHODS[config.symmetrizer].random else {}
    state, path = dict(start), [torch.stack([start["pos"], start["vel"]])]
    for _ in range(STEPS):
        origin = state["pos"].mean(1, keepdim=True)  # nothing for E(d), and all that O(d) lacks
        y = phi(**state | {"pos": state["pos"] - origin}, **options)
        state |= {"pos": y["pos"] + origin, "vel": y["vel"]}
        path.append(torch.stack([state["pos"], state["vel"]]))
    return torch.stack(path, 1)


def _drift(charges: Array, loc: Array, vel: Array) -> Array:
    """|E(t) - E(0)| of states (..., steps + 1, systems, N, D)."""
    found = energy(charges, loc, vel)
    return np.abs(found - found[..., :1, :])


def draw_figure(true: Array, loc: Array, true_drift: Array, drift: Array, path: Path) -> None:
    """Left: one system in its first two coordinates. Middle: error by time. Right: energy drift by time."""
    figure = Figure(figsize=(13, 4.2), layout="constrained")
    plane, error, energies = figure.subplots(1, 3)
    typical = np.square(loc - true).mean((0, 1, 3, 4)).argsort()[true.shape[1] // 2]
    trajectories(plane, true[:, typical], loc[:, :, typical])
    times = np.arange(STEPS + 1)
    mse = np.square(loc - true).mean((0, 3, 4))
    error.plot(times[1:], mse.mean(1)[1:], marker="o", label="mean over systems")
    error.fill_between(times[1:], *np.quantile(mse[1:], (0.25, 0.75), axis=1), alpha=0.2, label="middle half of them")
    still = np.square(true - true[:1]).mean((1, 2, 3))
    error.plot(times[1:], still[1:], color="0.5", linestyle="--", label="particles at rest")
    error.set(yscale="log", xlabel="time units ahead", ylabel="position MSE")
    median = np.median(drift, (0, 2))
    energies.plot(times[1:], median[1:], marker="o", label="model, median")
    energies.plot(times[1:], np.median(true_drift, 1)[1:], color="k", label="simulator, median")
    energies.set(yscale="log", xlabel="time units ahead", ylabel="|E(t) − E(0)|")
    for axes in (error, energies):
        axes.legend(fontsize="small")
    save(figure, path)


def trajectories(axes: Axes, true: Array, loc: Array) -> None:
    """True (steps + 1, N, D) in black; predicted (draws, steps + 1, N, D): mean and one standard error."""
    mean, width = loc.mean(0), loc.std(0, ddof=1) if len(loc) > 1 else np.zeros_like(loc[0])
    one = 1 if true.shape[-1] > 1 else 0
    for i in range(true.shape[1]):
        axes.plot(true[:, i, 0], true[:, i, one], "k-", linewidth=1, label="true" if not i else None)
        (line,) = axes.plot(mean[:, i, 0], mean[:, i, one], "o--", markersize=3, label="predicted" if not i else None)
        axes.fill(*tube(mean[:, i][:, [0, one]], width[:, i][:, [0, one]]), color=line.get_color(), alpha=0.25)
        axes.plot(*true[0, i, [0, one]], "ks", markersize=4)
    axes.set(
        xlabel="x", ylabel="y", title="median system; tube: one standard error", aspect="equal", adjustable="datalim"
    )
    axes.legend(fontsize="small")


def tube(path: Array, stderr: Array) -> tuple[Array, Array]:
    """Outline of a band around a path (T, 2), as wide as the standard error (T, 2) across the direction of motion."""
    along = np.gradient(path, axis=0)
    across = np.stack([-along[:, 1], along[:, 0]], 1) / np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-12)
    half = across * np.sqrt(np.square(across * stderr).sum(1, keepdims=True))
    outline = np.concatenate([path + half, (path - half)[::-1]])
    return outline[:, 0], outline[:, 1]
