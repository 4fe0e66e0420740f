"""Dynamics without a thermostat with a trained model: is its energy conserved, and does it jump?"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from ase import Atoms

TIME_STEP = 0.5  # fs
FS = 0.09822694788464063  # one fs in the unit of time that belongs to eV, Angstrom and u
KELVIN = 8.617333262e-5  # Boltzmann's constant times one kelvin, in eV
Potential = Callable[[Tensor], tuple[Tensor, Tensor]]  # positions (B, N, 3) to energies (B,) and forces (B, N, 3)


def velocities(masses: Tensor, count: int, temperature: float, seed: int) -> Tensor:
    """Of thermal motion without a drift of the centre of mass (count, N, 3), in Angstrom per unit of time."""
    generator = torch.Generator().manual_seed(seed)
    width = (KELVIN * temperature / masses).sqrt()[:, None]
    drawn = width * torch.randn(count, len(masses), 3, generator=generator, dtype=masses.dtype)
    return drawn - (masses[:, None] * drawn).sum(1, keepdim=True) / masses.sum()


def fly(potential: Potential, pos: Tensor, vel: Tensor, masses: Tensor, steps: int) -> Tensor:
    """Total energies (steps + 1, B) along velocity Verlet from positions and velocities (B, N, 3), in eV."""
    mass = masses[:, None]
    time = TIME_STEP * FS
    energy, forces = potential(pos)
    totals = [energy + kinetic(vel, masses)]
    for _ in range(steps):
        vel = vel + time / 2 * forces / mass
        pos = pos + time * vel
        energy, forces = potential(pos)
        vel = vel + time / 2 * forces / mass
        totals.append(energy + kinetic(vel, masses))
    return torch.stack(totals)


def labelled(atoms: Atoms) -> Potential:
    """The potential of the atoms' own calculator, one structure after the other: the control."""

    def potential(pos: Tensor) -> tuple[Tensor, Tensor]:
        energies = []
        forces = []
        for one in pos:
            atoms.set_positions(one.numpy())
            energies.append(atoms.get_potential_energy())
            forces.append(torch.from_numpy(atoms.get_forces()))
        return torch.tensor(energies, dtype=pos.dtype), torch.stack(forces)

    return potential


def kinetic(vel: Tensor, masses: Tensor) -> Tensor:
    """Kinetic energies (B,) in eV."""
    return (masses[:, None] * vel.square()).sum((1, 2)) / 2


def drift(totals: Tensor) -> dict[str, float]:
    """Of total energies (steps + 1, B), in meV for all atoms together, the mean over flights and the worst.

    drift: |E(end) - E(0)|. off: largest |E(t) - E(0)|. step: largest change in one time step.
    """
    milli = 1000 * totals
    away = (milli - milli[0]).abs()
    steps = (milli[1:] - milli[:-1]).abs()
    return {
        "drift": float(away[-1].mean()),
        "drift_worst": float(away[-1].max()),
        "off": float(away.amax(0).mean()),
        "off_worst": float(away.max()),
        "step": float(steps.amax(0).mean()),
        "step_worst": float(steps.max()),
    }
