"""The audit of a potential that sees the axes of the laboratory in two ways. Writes the figure."""

from __future__ import annotations

from pathlib import Path

import torch
from ase import Atoms
from ase.build import molecule
from torch import Tensor

from probsym.integrations.audit import audit, draw

STEP = 0.3  # A
WIDTH = 1.5  # A


def energy(x: Tensor) -> Tensor:
    """eV, of positions (N, 3) in float64: a pair potential, and two terms that see the axes of the laboratory."""
    bonds = x[None] - x[:, None]
    near = torch.exp(-bonds.square().sum(-1) / WIDTH**2)
    total = near.sum()

    # 1. The gradient of a density, by differences along x, y and z.
    for axis in torch.eye(3, dtype=x.dtype):
        ahead = _density(x + STEP * axis, x)
        behind = _density(x - STEP * axis, x)
        total = total + 0.1 * ((ahead - behind) / (2 * STEP)).square().sum()

    # 2. Weights that see the components of a bond.
    weights = torch.tensor([0.06, -0.03, 0.05], dtype=x.dtype)
    return total + (near * torch.tanh(bonds @ weights).square()).sum()


def _density(points: Tensor, x: Tensor) -> Tensor:
    return torch.exp(-(points[:, None] - x[None]).square().sum(-1) / WIDTH**2).sum(1)


def potential(atoms: Atoms) -> dict[str, Tensor]:
    """Energy and exact forces, as `audit` asks for them."""
    x = torch.from_numpy(atoms.positions).requires_grad_()
    total = energy(x)
    return {"energy": total.detach(), "forces": -torch.autograd.grad(total, x)[0]}


def main() -> None:
    torch.set_num_threads(1)
    report = audit(potential, molecule("CH3CH2OH"))
    print(report)
    draw(report).savefig(Path(__file__).with_suffix(".png"), dpi=130)


if __name__ == "__main__":
    main()
