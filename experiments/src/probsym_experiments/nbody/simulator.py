"""Charged particles in a vacuum, every simulation at once.

The system is that of NRI (Kipf et al., arXiv 1802.04687) in d dimensions as used by EGNN (Satorras et al.,
arXiv 2102.09844): n particles of charge q = ±1 and unit mass, no box after the start, and

    dx/dt = v,    dv_i/dt = sum_j q_i q_j (x_i - x_j) / |x_i - x_j|^3,    each component clipped to ±100

integrated by symplectic Euler (kick, then drift) in steps of 0.001 time units; a frame is 100 steps.
Letters: S simulations, N particles, D space dimensions, F frames.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

STEP = 0.001  # time units
FRAME = 100  # steps between two recorded frames
FRAMES = 49  # frames that the benchmark records; they decide how much observation noise it draws
MAX_FORCE = 0.1 / STEP
BOX = 5.0  # half a side: starting points beyond it are reflected, later ones are free
SPEED = 0.5  # of every particle at the start ("initvel 1")
BLOCK = 256  # simulations that go together, so that all pairs of a block stay in the processor's cache


@dataclass(frozen=True)
class Start:
    """Charges (S, N) in {-1, 1} or masses, positions and velocities (S, N, D) at time 0."""

    charges: Array
    loc: Array
    vel: Array

    def __getitem__(self, index: slice) -> Start:
        return Start(self.charges[index], self.loc[index], self.vel[index])

    def __len__(self) -> int:
        return len(self.charges)


def draw(rng: np.random.RandomState, draws: int, used: int, particles: int = 5, dims: int = 3) -> Start:
    """The first `used` of `draws` starts of the benchmark's legacy stream; the rest is drawn and dropped.

    One simulation consumes N uniforms (charges), 2 N D normals (positions, velocities) and the normals of an
    observation noise of size zero, 2 F N D of them, which nobody sees but which move the stream on.
    """
    # 1. The random numbers, in the benchmark's order.
    size = particles * dims
    charges = np.empty((used, particles))
    normals = np.empty((used, 2, dims, particles))
    for s in range(draws):
        uniform = rng.random_sample(particles)
        normal = rng.randn(2 * size * (1 + FRAMES))
        if s < used:
            charges[s] = np.where(uniform < 0.5, -1.0, 1.0)
            normals[s] = normal[: 2 * size].reshape(2, dims, particles)

    # 2. Positions and velocities: equal density for every number of particles, equal speed of all.
    loc, vel = normals.swapaxes(2, 3).swapaxes(0, 1)
    loc = loc * (particles / 5) ** (1 / dims)
    vel = SPEED * vel / np.linalg.norm(vel, axis=-1, keepdims=True)

    # 3. Starting points outside the box are mirrored at its walls until they are in it, and fly inwards.
    while (np.abs(loc) > BOX).any():
        over = loc > BOX
        under = loc < -BOX
        vel = np.where(over, -np.abs(vel), np.where(under, np.abs(vel), vel))
        loc = np.where(over, 2 * BOX - loc, np.where(under, -2 * BOX - loc, loc))
    return Start(charges, loc, vel)


Trajectory = Callable[[Start, Sequence[int]], tuple[Array, Array]]


def trajectory(start: Start, frames: Sequence[int]) -> tuple[Array, Array]:
    """Positions and velocities (F, S, N, D) of one block of charged particles.

    Frame f is recorded after step 100 (f + 1), so frame 0 lies 0.1 time units after the start.
    """
    # Simulations lie innermost, so that every operation below runs over long contiguous rows.
    loc = np.ascontiguousarray(start.loc.transpose(2, 1, 0))
    vel = np.ascontiguousarray(start.vel.transpose(2, 1, 0))
    force = Coulomb(start.charges)
    recorded_loc = []
    recorded_vel = []
    step = 0
    for frame in frames:
        while step < FRAME * (frame + 1):
            vel += STEP * force(loc)
            loc += STEP * vel
            step += 1
        recorded_loc.append(loc.transpose(2, 1, 0).copy())
        recorded_vel.append(vel.transpose(2, 1, 0).copy())
    return np.stack(recorded_loc), np.stack(recorded_vel)


def simulate(
    start: Start, frames: Sequence[int], workers: int = 2, trajectory: Trajectory = trajectory
) -> tuple[Array, Array]:
    """Positions and velocities (F, S, N, D) at the given frames in rising order; nothing is simulated beyond the last.

    Args:
        trajectory: integrates one block: of charged particles unless given.
    """
    blocks = [start[s : s + BLOCK] for s in range(0, len(start), BLOCK)]
    with ThreadPoolExecutor(workers) as pool:  # NumPy lets go of the interpreter's lock inside its loops
        of_blocks = list(pool.map(lambda block: trajectory(block, frames), blocks))
    loc = np.concatenate([block_loc for block_loc, _ in of_blocks], axis=1)
    vel = np.concatenate([block_vel for _, block_vel in of_blocks], axis=1)
    return loc, vel


class Pairs:
    """The pairs (P) of N particles, and Newton's third law as a matrix."""

    def __init__(self, particles: int):
        self.i, self.j = np.triu_indices(particles, 1)
        # +1 where a pair pushes its first particle, -1 for the second (N, P).
        particle = np.arange(particles)[:, None]
        self.incidence = (particle == self.i) * 1.0 - (particle == self.j)

    def apart(self, loc: Array) -> Array:
        """x_i - x_j of positions (D, N, S): (D, P, S)."""
        return loc[:, self.i] - loc[:, self.j]

    def total(self, force: Array) -> Array:
        """The force (D, N, S) on each particle of forces (D, P, S) on the first of each pair."""
        return self.incidence @ force


class Coulomb:
    """The clipped force (D, N, S) at positions (D, N, S), for charges (S, N). Each pair is computed once."""

    def __init__(self, charges: Array):
        self.pairs = Pairs(charges.shape[1])
        self.strength = np.ascontiguousarray((charges[:, self.pairs.i] * charges[:, self.pairs.j]).T)  # (P, S)

    def __call__(self, loc: Array) -> Array:
        apart = self.pairs.apart(loc)
        square = np.einsum("dps,dps->ps", apart, apart)
        apart *= self.strength / (square * np.sqrt(square))
        force = self.pairs.total(apart)
        return np.clip(force, -MAX_FORCE, MAX_FORCE, out=force)


def energy(charges: Array, loc: Array, vel: Array) -> Array:
    """Kinetic plus potential energy (...,) of states (..., N, D): sum v^2 / 2 + sum_{i<j} q_i q_j / |x_i - x_j|."""
    i, j = np.triu_indices(charges.shape[-1], 1)
    distance = np.linalg.norm(loc[..., i, :] - loc[..., j, :], axis=-1)
    kinetic = 0.5 * (vel**2).sum((-2, -1))
    potential = (charges[..., i] * charges[..., j] / distance).sum(-1)
    return kinetic + potential
