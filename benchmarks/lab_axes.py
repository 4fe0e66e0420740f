"""Calculators of ASE for tests, benchmarks and figures: one that knows the axes of the laboratory; a small network."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.neighborlist import neighbor_list
from ase.optimize import BFGS
from ase.stress import full_3x3_to_voigt_6_stress
from torch import Tensor, nn

CUTOFF = 4.0  # Angstrom


def legendre(degree: int, cosine: Tensor) -> Tensor:
    """P_l of the cosines."""
    before, current = torch.ones_like(cosine), cosine
    if degree == 0:
        return before
    for number in range(1, degree):
        before, current = current, ((2 * number + 1) * cosine * current - number * before) / (number + 1)
    return current


class Anisotropic(Calculator):
    """A calculator with a part that depends on orientation: it knows the z axis of the laboratory.

        E = E_0 + sum_l a_l sum_{i != j} q_i w(r_ij) P_l(z . r_ij / r_ij),    w(r) = (1 - (r / cutoff)^2)^3

    Its average over rotations is E_0. Forces and stress are its derivatives.

    Args:
        calculator: of E_0; None for zero. amplitudes: a_l by degree l, in eV.
    """

    implemented_properties = ["energy", "free_energy", "energies", "forces", "stress"]  # noqa: RUF012

    def __init__(self, calculator: Any, amplitudes: Mapping[int, float]) -> None:
        super().__init__()
        self.calculator = calculator
        self.amplitudes = dict(amplitudes)

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        super().calculate(atoms, list(properties), list(system_changes))
        assert self.atoms is not None
        found = anisotropy(self.atoms, self.amplitudes)
        if self.calculator is not None:
            inner = self.atoms.copy()
            inner.calc = self.calculator
            for name in found:
                if name == "stress" and not inner.pbc.all():
                    continue
                found[name] = found[name] + self.calculator.get_property(name, inner)
        self.results = found


def anisotropy(atoms: Atoms, amplitudes: Mapping[int, float]) -> dict[str, Any]:
    """The part of `Anisotropic` that depends on orientation, with its forces, and the stress of periodic structures."""
    first, second, away = neighbor_list("ijD", atoms, CUTOFF)
    difference = torch.from_numpy(away).requires_grad_()
    distance = difference.norm(dim=1)
    weight = (1 - (distance / CUTOFF) ** 2).clamp_min(0) ** 3
    charge = torch.from_numpy(1 + 0.1 * (atoms.numbers[first] % 7))
    bond = torch.zeros_like(distance)
    for degree, amplitude in amplitudes.items():
        bond = bond + amplitude * legendre(degree, difference[:, 2] / distance)
    parts = torch.zeros(len(atoms), dtype=torch.float64).index_add(0, torch.from_numpy(first), charge * weight * bond)
    slope = torch.autograd.grad(parts.sum(), difference)[0] if len(away) else torch.zeros(0, 3)
    slope = slope.double().numpy()

    forces = np.zeros((len(atoms), 3))
    np.add.at(forces, first, slope)
    np.add.at(forces, second, -slope)
    parts = parts.detach()
    energy = float(parts.sum())
    found: dict[str, Any] = {"energy": energy, "free_energy": energy, "energies": parts.numpy()}
    found["forces"] = forces
    if atoms.cell.rank == 3:
        virial = away.T @ slope
        found["stress"] = full_3x3_to_voigt_6_stress((virial + virial.T) / 2 / atoms.get_volume())
    return found


class PairEnergy(nn.Module):
    """A small untrained network on the vectors between atoms, which knows nothing of rotations: sum_ij net(r_ij).

    Args:
        seed: of its weights. scale: of its energy, in eV.
    """

    def __init__(self, seed: int = 0, scale: float = 0.3) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.net = nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, 1)).double()
        self.scale = scale
        with torch.no_grad():
            for parameter in self.net.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) / 2)

    def forward(self, positions: Tensor) -> Tensor:
        """Energies (B,) in eV of positions (B, N, 3) in Angstrom."""
        between = positions.unsqueeze(2) - positions.unsqueeze(1)
        weight = torch.exp(-between.square().sum(-1, keepdim=True) / CUTOFF)
        return self.scale * (self.net(between) * weight).sum((1, 2, 3))


class Slow(Calculator):
    """A calculator that does nothing for a while: energies and forces of zero.

    Args:
        seconds: that each evaluation takes.
    """

    implemented_properties = ["energy", "forces", "stress"]  # noqa: RUF012

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        super().calculate(atoms, list(properties), list(system_changes))
        assert self.atoms is not None
        end = time.perf_counter() + self.seconds
        while time.perf_counter() < end:
            pass
        self.results = {"energy": 0.0, "forces": np.zeros((len(self.atoms), 3)), "stress": np.zeros(6)}


class MorseEnergy(nn.Module):
    """Pairs that bind at 2.5 Angstrom, and two parts that know the axes of space.

    Args:
        anisotropy: size of a network on the vectors between atoms, in eV; it has parts of all degrees.
        degrees: amplitudes (eV) of P_l(z . r_ij / r_ij), by degree l, for each pair with i < j.
    """

    def __init__(self, anisotropy: float = 0.0, degrees: Mapping[int, float] | None = None) -> None:
        super().__init__()
        self.network = PairEnergy(scale=anisotropy)
        self.degrees = dict(degrees or {})

    def forward(self, positions: Tensor) -> Tensor:
        """Energies (B,) in eV of positions (B, N, 3) in Angstrom."""
        first, second = torch.triu_indices(positions.shape[1], positions.shape[1], 1)
        between = positions[:, first] - positions[:, second]
        distance = between.norm(dim=2)
        pairs = 0.3 * (1 - torch.exp(-1.5 * (distance - 2.5))).square()
        for degree, amplitude in self.degrees.items():
            pairs = pairs + amplitude * torch.exp(-distance / 2.5) * legendre(degree, between[..., 2] / distance)
        return pairs.sum(1) + self.network(positions)


class ClusterEnergy(nn.Module):
    """Eight atoms of a Lennard-Jones cluster, and a part that knows the directions of the laboratory: waves along them.

    Args:
        anisotropy: size of the second, in eV.
    """

    weight: Tensor

    def __init__(self, anisotropy: float = 0.0) -> None:
        super().__init__()
        self.anisotropy = anisotropy
        self.register_buffer("weight", torch.randn(3, 8, generator=torch.Generator().manual_seed(0)).double())

    def forward(self, pos: Tensor) -> Tensor:
        """Energies (B,) in eV of positions (B, N, 3) in Angstrom."""
        first, second = torch.triu_indices(pos.shape[1], pos.shape[1], 1)
        square = (pos[:, first] - pos[:, second]).square().sum(-1)
        ratio = (2.3**2 / square) ** 3
        centred = pos - pos.mean(1, keepdim=True)
        waves = (centred @ self.weight).sin().sum((1, 2))
        return 1.6 * (ratio**2 - ratio).sum(-1) + self.anisotropy * waves


class Differentiated(Calculator):
    """A calculator of an energy in torch: forces are its derivative, and many structures are evaluated at once.

    Args:
        energy: positions (B, N, 3) to energies (B,) or (B, 1).

    Attributes:
        calls: of `calculate_batch` so far.
    """

    implemented_properties = ["energy", "forces"]  # noqa: RUF012

    def __init__(self, energy: nn.Module) -> None:
        super().__init__()
        self.energy = energy
        self.calls = 0

    def calculate_batch(self, structures: Sequence[Atoms], properties: Sequence[str]) -> list[dict[str, Any]]:
        """Results of structures with equally many atoms."""
        self.calls += 1
        positions = torch.from_numpy(np.stack([atoms.positions for atoms in structures])).requires_grad_()
        with torch.enable_grad():
            energy = self.energy(positions).reshape(len(structures))
            forces = -torch.autograd.grad(energy.sum(), positions)[0]
        found: list[dict[str, Any]] = []
        for row in range(len(structures)):
            found.append({"energy": float(energy[row].detach()), "forces": forces[row].numpy()})
        return found

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        super().calculate(atoms, list(properties), list(system_changes))
        self.results = self.calculate_batch([self.atoms], properties)[0]


def Morse(anisotropy: float = 0.0, degrees: Mapping[int, float] | None = None) -> Differentiated:
    """`MorseEnergy` as a calculator."""
    return Differentiated(MorseEnergy(anisotropy, degrees))


def PairNetwork(seed: int = 0, scale: float = 0.3) -> Differentiated:
    """`PairEnergy` as a calculator."""
    return Differentiated(PairEnergy(seed, scale))


def capped_tetrahedron(energy: nn.Module | None = None) -> Atoms:
    """Eight copper atoms, a tetrahedron with a cap on each face.

    Args:
        energy: what it is relaxed by; by default `MorseEnergy` without its network.
    """
    corners = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1.0]])
    atoms = Atoms("Cu8", positions=0.9 * np.concatenate([corners, -1.7 * corners]))
    atoms.calc = Differentiated(energy or MorseEnergy())
    BFGS(atoms, logfile=None).run(fmax=1e-4, steps=200)
    atoms.calc = None
    return atoms
