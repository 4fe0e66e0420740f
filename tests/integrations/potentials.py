"""Small potentials that lack one symmetry each, for the audit; all smooth, in float64 unless they say otherwise."""

from __future__ import annotations

from itertools import product

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT


def pairs(atoms: Atoms) -> np.ndarray:
    """x_j - x_i, (N, N, 3), without periodicity."""
    return atoms.positions[None] - atoms.positions[:, None]


def gaussians(atoms: Atoms, width: float = 1.5) -> np.ndarray:
    """exp(-r^2 / width^2) of all pairs, zero on the diagonal."""
    values = np.exp(-(pairs(atoms) ** 2).sum(-1) / width**2)
    np.fill_diagonal(values, 0.0)
    return values


def invariant(atoms: Atoms, width: float = 1.5) -> tuple[float, np.ndarray]:
    """A pair potential: energy and forces."""
    values = gaussians(atoms, width)
    forces = -(4 / width**2) * np.einsum("ij,ijd->id", values, pairs(atoms))
    return float(values.sum()), forces


def sound(atoms: Atoms) -> dict:
    energy, forces = invariant(atoms)
    return {"energy": energy, "forces": forces}


def lab_axes(atoms: Atoms) -> dict:
    """A gradient of the density, by differences of 0.4 A along x, y and z: no rotation of the lab leaves it alone."""
    step = 0.4
    energy = invariant(atoms)[0]
    for axis in np.eye(3):
        for sign in (1, -1):
            shifted = atoms.positions + sign * step * axis
            distances = ((shifted[:, None] - atoms.positions[None]) ** 2).sum(-1)
            density = np.exp(-distances / 1.5**2).sum(1)
            if sign == 1:
                forward = density
        energy += 0.1 * np.sum(((forward - density) / (2 * step)) ** 2)
    return {"energy": energy}


def global_direction(atoms: Atoms) -> dict:
    """Weights that see the components of bonds, as a net that was trained on bonds in the lab's axes does."""
    weights = torch.randn(3, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64).numpy()
    features = np.tanh(0.05 * pairs(atoms) @ weights)
    return {"energy": invariant(atoms)[0] + float((gaussians(atoms)[..., None] * features**2).sum())}


def ordered(atoms: Atoms) -> dict:
    """Counts the atoms."""
    number = np.arange(len(atoms))
    return {"energy": float((gaussians(atoms).sum(1) * (1 + 0.01 * number)).sum())}


def anchored(atoms: Atoms) -> dict:
    """Distances from the origin, which every rotation about it leaves alone."""
    return {"energy": invariant(atoms)[0] + 1e-3 * float((atoms.positions**2).sum())}


def handed(atoms: Atoms) -> dict:
    """Triple products of bonds: left and right differ."""
    bonds = pairs(atoms)
    near = gaussians(atoms)
    other = gaussians(atoms, 2.5)
    third = gaussians(atoms, 0.9)
    sums = [np.einsum("ij,ijd->id", values, bonds) for values in (near, other, third)]
    return {"energy": float((sums[0] * np.cross(sums[1], sums[2])).sum())}


def no_gradient(atoms: Atoms) -> dict:
    """Pair forces times the coordination of the atom that feels them: they turn as they should, and have a curl."""
    energy, forces = invariant(atoms)
    return {"energy": energy, "forces": forces * (1 + gaussians(atoms).sum(1, keepdims=True))}


def another_energy(atoms: Atoms) -> dict:
    """Forces that are a gradient, of 1.1 times the energy."""
    energy, forces = invariant(atoms)
    return {"energy": energy, "forces": 1.1 * forces}


class Random:
    """Another answer at each call."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(0)

    def __call__(self, atoms: Atoms) -> dict:
        return {"energy": invariant(atoms)[0] + 0.01 * self.rng.standard_normal()}


def single(atoms: Atoms) -> dict:
    """The sound potential in single precision, inside and out."""
    x = torch.from_numpy(atoms.positions).float().requires_grad_()
    difference = x[None] - x[:, None]
    values = torch.exp(-difference.square().sum(-1) / 1.5**2)
    energy = (values.sum() - len(atoms)) * 100
    return {"energy": energy.detach(), "forces": -torch.autograd.grad(energy, x)[0]}


def field(atoms: Atoms) -> dict:
    """One atom in a field that the axes of the lab carry: degree 4 and degree 3 of its direction."""
    x, y, z = atoms.positions[0]
    return {"energy": 1e-3 * (x**4 + y**4 + z**4 + 2.5 * x * y * z)}


class Field(Calculator):
    """The same as a calculator."""

    implemented_properties = ("energy",)

    def calculate(self, atoms=None, properties=("energy",), system_changes=tuple(all_changes)):
        super().calculate(atoms, list(properties), list(system_changes))
        self.results = field(self.atoms)


# ---------------------------------------------------------------- crystals


def image_sum(atoms: Atoms, differences: np.ndarray) -> float:
    """A pair potential of range below 4 A, over images within two cells."""
    cells = np.array(list(product((-2, -1, 0, 1, 2), repeat=3))) @ atoms.cell.array
    squares = ((differences[:, :, None] + cells) ** 2).sum(-1)
    return float((np.exp(-squares / 1.2**2) * (squares > 0.01)).sum())


def unwrapped(atoms: Atoms) -> dict:
    """Images about the atom as it is given, not about its nearest image: atoms far outside of the cell are lost."""
    return {"energy": image_sum(atoms, pairs(atoms))}


def nearest_by_cell(atoms: Atoms) -> dict:
    """One image of each atom: the nearest along the cell's axes, which in a skewed cell is not the nearest."""
    fractions = pairs(atoms) @ np.linalg.inv(atoms.cell.array)
    nearest = (fractions - np.round(fractions)) @ atoms.cell.array
    values = np.exp(-(nearest**2).sum(-1) / 2.0**2)
    np.fill_diagonal(values, 0.0)
    return {"energy": float(values.sum())}


class Altered(EMT):
    """EMT with an error in one result."""

    error: str = ""

    def calculate(self, atoms=None, properties=("energy",), system_changes=tuple(all_changes)):
        super().calculate(atoms, list(properties), list(system_changes))
        if self.error == "size":
            self.results["energy"] += 0.05 * np.sqrt(len(self.atoms))
        if self.error == "stress":
            self.results["stress"] = 1.1 * self.results["stress"]
        left_handed = np.linalg.det(self.atoms.cell.array) < 0
        if self.error == "signed volume" and left_handed:
            self.results["stress"] = -self.results["stress"]
        if self.error == "left-handed is nan" and left_handed:
            self.results["energy"] = np.nan
        if self.error == "left-handed is complex" and left_handed:
            self.results["energy"] = float(np.linalg.det(self.atoms.cell.array)) ** (1 / 3)
        if self.error == "left-handed is refused" and left_handed:
            raise ValueError("expected a right-handed cell")
        if self.error == "nan":
            self.results["forces"] = np.full((len(self.atoms), 3), np.nan)
        if self.error == "shape":
            self.results["forces"] = np.zeros(3)


def altered(error: str) -> Calculator:
    """An `Altered`."""
    calculator = Altered()
    calculator.error = error
    return calculator
