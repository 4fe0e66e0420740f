"""Bodies that attract each other, every simulation at once.

The system is that of SEGNN (Brandstetter et al., arXiv 2110.02905) with 5 bodies, as used by SEGNO (arXiv 2308.13212):
n bodies of unit mass in d dimensions, G = 1, softened at the length s = 0.1, and

    dx/dt = v,    dv_i/dt = sum_j (x_j - x_i) / (|x_j - x_i|^2 + s^2)^(3/2)

integrated by velocity Verlet (half a kick, drift, half a kick) in steps of 0.001 time units; a frame is 100 steps.
Letters: S simulations, N bodies, D space dimensions, F frames.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .simulator import FRAME, STEP, Array, Pairs, Start

FRAMES = 50  # frames that the benchmark records; they decide how much observation noise it draws
SOFTENING = 0.1  # units of the positions


def draw(rng: np.random.RandomState, draws: int, used: int, particles: int = 5, dims: int = 3) -> Start:
    """The first `used` of `draws` starts of the benchmark's legacy stream; the rest is drawn and dropped.

    One simulation consumes 2 N D normals (positions, velocities) and the normals of an observation noise of size zero
    on positions, velocities and forces, 3 F N D of them. `charges` holds the masses, which are one.
    """
    size = particles * dims
    normals = np.empty((used, 2, particles, dims))
    for s in range(draws):
        normal = rng.randn(size * (2 + 3 * FRAMES))
        if s < used:
            normals[s] = normal[: 2 * size].reshape(2, particles, dims)
    loc, vel = normals.swapaxes(0, 1)
    return Start(np.ones((used, particles)), loc, vel - vel.mean(1, keepdims=True))  # the centre of mass is at rest


def trajectory(start: Start, frames: Sequence[int]) -> tuple[Array, Array]:
    """Positions and velocities (F, S, N, D) of one block. Frame f is recorded before step 100 f: frame 0 is the start.

    Args:
        frames: in rising order.
    """
    # Simulations lie innermost, so that every operation below runs over long contiguous rows.
    loc = np.ascontiguousarray(start.loc.transpose(2, 1, 0))
    vel = np.ascontiguousarray(start.vel.transpose(2, 1, 0))
    force = Attraction(loc.shape[1])
    pull = force(loc)
    recorded_loc = []
    recorded_vel = []
    step = 0
    for frame in frames:
        while step < FRAME * frame:
            vel += STEP / 2 * pull
            loc += STEP * vel
            pull = force(loc)
            vel += STEP / 2 * pull
            step += 1
        recorded_loc.append(loc.transpose(2, 1, 0).copy())
        recorded_vel.append(vel.transpose(2, 1, 0).copy())
    return np.stack(recorded_loc), np.stack(recorded_vel)


class Attraction:
    """The force (D, N, S) on bodies of unit mass at positions (D, N, S). Each pair is computed once."""

    def __init__(self, particles: int):
        self.pairs = Pairs(particles)

    def __call__(self, loc: Array) -> Array:
        apart = self.pairs.apart(loc)
        square = np.einsum("dps,dps->ps", apart, apart) + SOFTENING**2
        return -self.pairs.total(apart / (square * np.sqrt(square)))


def energy(loc: Array, vel: Array) -> Array:
    """Kinetic plus potential energy (...,) of states (..., N, D).

    E = sum_i |v_i|^2 / 2 - sum_{i<j} (|x_i - x_j|^2 + s^2)^(-1/2)
    """
    i, j = np.triu_indices(loc.shape[-2], 1)
    square = np.square(loc[..., i, :] - loc[..., j, :]).sum(-1)
    kinetic = 0.5 * np.square(vel).sum((-2, -1))
    return kinetic - ((square + SOFTENING**2) ** -0.5).sum(-1)
