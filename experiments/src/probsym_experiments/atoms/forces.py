"""Many draws of energies and forces, each of one sample, or their exact averages."""

from __future__ import annotations

import torch
from torch import Tensor

import probsym as ps

from ..batches import Batch, Pages, Tensors, reseed, stream
from .models import inputs

ROWS = 2_000  # samples times frames that the base network sees at once


def draws(phi: ps.Symmetrizer, data: Batch, samples: int | None, seed: int) -> tuple[Tensor, Tensor]:
    """Energies (K, B) and forces (K, B, N, 3) of single samples, a page of frames at a time.

    Args:
        samples: K; None is the exact average, K = 1.
    """
    times = samples or 1
    one = None
    if samples is not None:
        one = 1
    energies = []
    forces = []
    for number, page in enumerate(Pages(Tensors(data), max(1, ROWS // times))):
        reseed(stream(seed, "test", number))
        copies = {name: tensor.repeat(times, *[1] * (tensor.ndim - 1)) for name, tensor in page.items()}
        energy, force = ps.energy_and_forces(phi, inputs(copies), samples=one)
        energies.append(energy.unflatten(0, (times, -1)))
        forces.append(force.unflatten(0, (times, -1)))
    return torch.cat(energies, 1), torch.cat(forces, 1)


@torch.no_grad()
def poses(phi: ps.Symmetrizer, data: Batch) -> int:
    """The most poses of a frame that an exact average is over."""
    most = 0
    for page in Pages(Tensors(data), 100):
        most = max(most, int(phi.estimate(**inputs(page)).samples.max()))
    return most
