"""Energies and forces of frames: of one call, of many draws of one sample each, or exact averages."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import probsym as ps

from ..batches import Batch, Pages, Tensors, reseed, stream
from .models import inputs, padded

ROWS = 2_000  # samples times frames that the base network sees at once
PAGE = 50  # frames whose exact averages are computed at once


def predicted(phi: nn.Module, batch: Batch, samples: int | None = None) -> tuple[Tensor, Tensor]:
    """Energies (B,) and forces (B, N, 3) of one draw; zero at padding."""
    energy, forces = ps.energy_and_forces(phi, inputs(phi, batch), samples=samples)
    return energy, padded(forces, batch)


def atoms(batch: Batch) -> Tensor | int:
    """Number of atoms of each frame: one number, or (B,) of padded frames."""
    if "mask" in batch:
        return batch["mask"].sum(1)
    return batch["pos"].shape[1]


def over_components(values: Tensor, batch: Batch) -> Tensor:
    """Means over the components of the forces of each frame: (..., B, N, 3), zero at padding, to (..., B)."""
    return values.sum((-2, -1)) / (3 * atoms(batch))


def draws(phi: ps.Symmetrizer, data: Batch, samples: int | None, seed: int) -> tuple[Tensor, Tensor]:
    """Energies (K, B) and forces (K, B, N, 3) of single samples, a page of frames at a time.

    Args:
        samples: K; None is the exact average, K = 1.
    """
    times = samples or 1
    one = None
    if samples is not None:
        one = 1
    length = PAGE
    if samples is not None:
        length = max(1, ROWS // times)
    energies = []
    forces = []
    for number, page in enumerate(Pages(Tensors(data), length)):
        reseed(stream(seed, "test", number))
        copies = {name: tensor.repeat(times, *[1] * (tensor.ndim - 1)) for name, tensor in page.items()}
        energy, force = predicted(phi, copies, samples=one)
        energies.append(energy.unflatten(0, (times, -1)))
        forces.append(force.unflatten(0, (times, -1)))
    return torch.cat(energies, 1), torch.cat(forces, 1)


@torch.no_grad()
def poses(phi: ps.Symmetrizer, data: Batch) -> int:
    """The most poses of a frame that an exact average is over."""
    most = 0
    for page in Pages(Tensors(data), PAGE):
        most = max(most, int(phi.estimate(**inputs(phi, page)).samples.max()))
    return most
