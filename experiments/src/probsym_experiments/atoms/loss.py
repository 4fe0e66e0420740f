"""What is minimised, and what is measured while training."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

import probsym as ps

from ..batches import Batch
from .forces import atoms, over_components, predicted


@dataclass
class Loss:
    """energy_weight mean (E - E')^2 / N + force_weight mean |F - F'|^2 / 3, of the N atoms of a frame; eV and Angstrom.

    Means are over frames, and of forces over the atoms of a frame first: a molecule counts alike, whatever its size.

    Args:
        augmented: Whether each frame is turned at random first, and its forces with it.
    """

    energy_weight: float = 1.0
    force_weight: float = 1.0
    augmented: bool = False

    def __call__(self, phi: nn.Module, batch: Batch) -> Tensor:
        if self.augmented:
            batch = turned(batch)
        energy, forces = predicted(phi, batch)
        off_energy = (energy - batch["energy"]).square() / atoms(batch)
        off_forces = over_components((forces - batch["forces"]).square(), batch)
        return self.energy_weight * off_energy.mean() + self.force_weight * off_forces.mean()

    def errors(self, phi: nn.Module, batch: Batch) -> Tensor:
        """Mean absolute error of the components of the forces of each frame (B,), in meV/Angstrom."""
        _, forces = predicted(phi, batch)
        return 1000 * over_components((forces - batch["forces"]).abs(), batch)


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
