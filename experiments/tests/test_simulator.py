"""The simulator against the benchmark's own data, against a naive loop, and against physics."""

from __future__ import annotations

import numpy as np
import pytest

from places import DATA
from probsym_experiments.nbody import gravity, simulator
from probsym_experiments.nbody.data import DRAWN, SEED
from probsym_experiments.nbody.simulator import BLOCK, BOX, MAX_FORCE, STEP, Coulomb, Start, draw, energy, simulate

REFERENCE = DATA / "nbody_charged5_initvel1small_seed43.npz"


@pytest.fixture(scope="module")
def starts() -> dict[str, Start]:
    rng = np.random.RandomState(SEED)
    return {part: draw(rng, drawn, 2_000) for part, drawn in DRAWN.items()}


@pytest.mark.skipif(not REFERENCE.exists(), reason="no reference data")
def test_reproduces_the_benchmark(starts: dict[str, Start]) -> None:
    with np.load(REFERENCE, allow_pickle=False) as reference:
        for part, start in starts.items():
            np.testing.assert_array_equal(start.charges, reference[f"charges_{part}"][:2_000])
        loc, vel = simulate(starts["test"], [30, 40])
        for name, found in (("loc30", loc[0]), ("vel30", vel[0]), ("loc40", loc[1])):
            apart = np.abs(found - reference[f"{name}_test"]).max((1, 2))
            assert (apart < 1e-3).mean() >= 0.92, name  # the others met closely: chaos


def naive(start: Start, steps: int) -> np.ndarray:
    """One simulation, pair by pair, as the equations say."""
    q, x, v = start.charges, start.loc.copy(), start.vel.copy()
    n = len(q)
    for _ in range(steps):
        force = np.zeros_like(x)
        for i in range(n):
            for j in range(n):
                if i != j:
                    force[i] += q[i] * q[j] * (x[i] - x[j]) / np.linalg.norm(x[i] - x[j]) ** 3
        v += STEP * np.clip(force, -MAX_FORCE, MAX_FORCE)
        x += STEP * v
    return x


@pytest.mark.parametrize(("particles", "dims"), [(2, 1), (3, 2), (5, 3)])
def test_agrees_with_a_naive_loop(particles: int, dims: int) -> None:
    start = draw(np.random.RandomState(0), 4, 4, particles, dims)
    start = Start(np.ones_like(start.charges), start.loc, start.vel)  # equal charges repel: no chaos
    loc, _ = simulate(start, [0, 2])
    for s in range(4):
        one = Start(start.charges[s], start.loc[s], start.vel[s])
        np.testing.assert_allclose(loc[0, s], naive(one, 100), atol=1e-9)
        np.testing.assert_allclose(loc[1, s], naive(one, 300), atol=1e-9)


def test_blocks_do_not_matter() -> None:
    start = draw(np.random.RandomState(0), BLOCK + 3, BLOCK + 3, 3, 2)
    together, _ = simulate(start, [1])
    alone, _ = simulate(start[BLOCK - 1 : BLOCK + 1], [1])
    np.testing.assert_allclose(together[:, BLOCK - 1 : BLOCK + 1], alone, atol=1e-12)


def test_energy_is_kept() -> None:
    start = draw(np.random.RandomState(1), 20, 20)
    repelling = Start(np.ones_like(start.charges), start.loc, start.vel)
    loc, vel = simulate(repelling, [40])
    before, after = energy(repelling.charges, start.loc, start.vel), energy(repelling.charges, loc[0], vel[0])
    assert np.abs(after / before - 1).max() < 5e-3


def test_forces_are_clipped_and_sum_to_zero() -> None:
    close = np.array([[[0.0, 1e-3, 3.0], [0.0, 1e-3, 0.0]]]).transpose(1, 2, 0)  # (D, N, S) = (2, 3, 1)
    assert np.abs(Coulomb(np.ones((1, 3)))(close)).max() == MAX_FORCE
    start = draw(np.random.RandomState(2), 10, 10)
    assert np.abs(Coulomb(start.charges)(start.loc.transpose(2, 1, 0)).sum(1)).max() < 1e-9


def test_a_shorter_stream_is_a_prefix() -> None:
    """Using fewer simulations changes none of those used, nor those that come after."""
    many, few = np.random.RandomState(5), np.random.RandomState(5)
    first, second = draw(many, 8, 8), draw(few, 8, 3)
    np.testing.assert_array_equal(first.loc[:3], second.loc)
    np.testing.assert_array_equal(draw(many, 1, 1).vel, draw(few, 1, 1).vel)


@pytest.mark.parametrize(("particles", "dims"), [(40, 1), (40, 2), (40, 3)])
def test_starts_lie_in_the_box(particles: int, dims: int) -> None:
    start = draw(np.random.RandomState(0), 300, 300, particles, dims)
    assert np.abs(start.loc).max() <= BOX
    np.testing.assert_allclose(np.linalg.norm(start.vel, axis=-1), 0.5)


@pytest.mark.parametrize(
    ("particles", "dims", "spread"), [(5, 1, 1), (5, 2, 1), (5, 3, 1), (10, 1, 2), (20, 2, 2), (40, 3, 2)]
)
def test_density_is_equal(monkeypatch: pytest.MonkeyPatch, particles: int, dims: int, spread: int) -> None:
    """The normals of the stream, times a length whose volume grows with the particles; those of 5 are as they come."""
    monkeypatch.setattr(simulator, "BOX", np.inf)
    stream = np.random.RandomState(0)
    stream.random_sample(particles)
    normals = stream.randn(dims, particles).T
    loc = draw(np.random.RandomState(0), 1, 1, particles, dims).loc[0]
    if spread == 1:
        np.testing.assert_array_equal(loc, normals)
    np.testing.assert_allclose(loc, spread * normals, rtol=1e-12)


def published_gravity(rng: np.random.RandomState, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """One simulation of the published generator, from its formulas: positions and velocities (N, D) at a step."""
    pos, vel = rng.randn(5, 3), rng.randn(5, 3)
    vel -= vel.mean(0)
    for size in 3 * [50 * 5 * 3]:  # its observation noise, of size zero
        rng.randn(size)

    def acceleration(pos: np.ndarray) -> np.ndarray:
        total = np.zeros_like(pos)
        for i in range(5):
            for j in range(5):
                towards = pos[j] - pos[i]
                total[i] += towards * (towards @ towards + 0.1**2) ** -1.5
        return total

    pulled = acceleration(pos)
    for _ in range(steps):
        vel = vel + pulled * 0.001 / 2
        pos = pos + vel * 0.001
        pulled = acceleration(pos)
        vel = vel + pulled * 0.001 / 2
    return pos, vel


def test_gravity_is_that_of_the_published_generator() -> None:
    """The same seed gives the same trajectories, of the first simulation and of what follows in the stream."""
    start = gravity.draw(np.random.RandomState(SEED), 3, 3)
    loc, vel = simulate(start, [0, 4], trajectory=gravity.trajectory)
    np.testing.assert_array_equal(loc[0], start.loc)  # frame 0 is the start
    stream = np.random.RandomState(SEED)
    for s in range(3):
        expected = published_gravity(stream, 400)
        np.testing.assert_allclose((loc[1, s], vel[1, s]), expected, rtol=0, atol=1e-11)

    # What the generator itself says of the fourth simulation's last body, 2,000 steps after the start.
    fourth = gravity.draw(np.random.RandomState(SEED), 4, 4)[3:]
    loc, vel = simulate(fourth, [20], trajectory=gravity.trajectory)
    np.testing.assert_allclose(loc[0, 0, 4], [0.95022164, 2.36995457, -0.63615449], rtol=0, atol=1e-8)
    np.testing.assert_allclose(vel[0, 0, 4], [-0.3417136, 0.50518464, 0.12595219], rtol=0, atol=1e-8)


def test_gravity_keeps_energy_and_the_centre_of_mass() -> None:
    start = gravity.draw(np.random.RandomState(1), 20, 20, particles=4, dims=2)
    loc, vel = simulate(start, [0, 20], trajectory=gravity.trajectory)
    before = gravity.energy(loc[0], vel[0])
    assert np.abs(gravity.energy(loc[1], vel[1]) - before).max() < 2e-2 * np.abs(before).max()
    np.testing.assert_allclose(loc[1].mean(1), loc[0].mean(1), atol=1e-12)
