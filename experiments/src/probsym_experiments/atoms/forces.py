"""Energies and forces of a model of energies, from one draw of its noise."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import probsym as ps

from ..batches import Batch, Pages, Tensors, reseed, stream
from .models import inputs

ROWS = 2_000  # samples times frames that the base network sees at once


def energy_and_forces(phi: nn.Module, batch: Batch, trains: bool = False, **options: Any) -> tuple[Tensor, Tensor]:
    """Energies (B,) and forces F = -dE/dx (B, N, 3), with the noise held.

    Args:
        trains: Whether the forces are differentiated in their turn.
        options: Further arguments of phi.
    """
    pos = batch["pos"].detach().requires_grad_()
    energy = phi(**inputs(batch) | {"pos": pos}, **options).squeeze(-1)
    (gradient,) = torch.autograd.grad(energy.sum(), pos, create_graph=trains)
    if not trains:
        energy = energy.detach()
    return energy, -gradient


def draws(phi: ps.Symmetrizer, data: Batch, samples: int | None, seed: int) -> tuple[Tensor, Tensor]:
    """Energies (K, B) and forces (K, B, N, 3) of single samples, a page of frames at a time.

    Args:
        samples: K; None is the exact average, K = 1.
    """
    times = samples or 1
    options = {}
    if samples is not None:
        options["samples"] = 1
    energies = []
    forces = []
    for number, page in enumerate(Pages(Tensors(data), max(1, ROWS // times))):
        reseed(stream(seed, "test", number))
        copies = {name: tensor.repeat(times, *[1] * (tensor.ndim - 1)) for name, tensor in page.items()}
        energy, force = energy_and_forces(phi, copies, **options)
        energies.append(energy.unflatten(0, (times, -1)))
        forces.append(force.unflatten(0, (times, -1)))
    return torch.cat(energies, 1), torch.cat(forces, 1)
