"""What is minimised, and what is measured while training."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

import probsym as ps

from ..batches import Batch
from .models import inputs


@dataclass
class Loss:
    """energy_weight mean (E - E')^2 / N + force_weight mean |F - F'|^2 / 3, of the N atoms of a frame; eV and Angstrom.

    Args:
        augmented: Whether each frame is turned at random first, and its forces with it.
    """

    energy_weight: float = 1.0
    force_weight: float = 1.0
    augmented: bool = False

    def __call__(self, phi: nn.Module, batch: Batch) -> Tensor:
        if self.augmented:
            batch = turned(batch)
        energy, forces = ps.energy_and_forces(phi, inputs(batch))
        atoms = forces.shape[1]
        off_energy = (energy - batch["energy"]).square().mean() / atoms
        off_forces = (forces - batch["forces"]).square().mean()
        return self.energy_weight * off_energy + self.force_weight * off_forces

    def errors(self, phi: nn.Module, batch: Batch) -> Tensor:
        """Mean absolute error of the components of the forces of each frame (B,), in meV/Angstrom."""
        _, forces = ps.energy_and_forces(phi, inputs(batch))
        return 1000 * (forces - batch["forces"]).abs().mean((1, 2))


def turned(batch: Batch, seed: int | None = None) -> Batch:
    """Each frame in a pose of its own, uniform: its positions about their origin, and its forces.

    Args:
        seed: Of the poses; None goes on with torch's random state.
    """
    generator = torch.default_generator
    if seed is not None:
        generator = torch.Generator().manual_seed(seed)
    pos = batch["pos"]
    turns = ps.SO(3).haar((len(pos),), generator=generator).matrix.to(pos)
    return batch | {"pos": pos @ turns.mT, "forces": batch["forces"] @ turns.mT}
