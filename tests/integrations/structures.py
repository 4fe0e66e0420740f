"""Structures, calculators and checks for the tests of the ASE integration; they skip without ASE."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("ase")
from ase.build import bulk, fcc111, molecule
from ase.calculators.calculator import Calculator, all_changes
from ase.stress import full_3x3_to_voigt_6_stress, voigt_6_to_full_3x3_stress


def rotation(seed, improper=False):
    """A random rotation (3, 3), times -1 if asked for."""
    q, r = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    q = q * np.linalg.det(q)
    return -q if improper else q


def moved(atoms, R):
    """A structure turned by a matrix, by hand: what `turned` of the library is compared with."""
    other = atoms.copy()
    other.positions = atoms.positions @ R.T
    other.set_cell(atoms.cell.array @ R.T)
    for name in ("momenta", "initial_magmoms"):
        value = atoms.arrays.get(name)
        if value is not None and value.ndim == 2:
            sign = np.linalg.det(R) if name == "initial_magmoms" else 1
            other.arrays[name] = sign * value @ R.T
    return other


def transformed(name, value, R):
    """A property turned by a matrix, by hand."""
    value = np.asarray(value)
    if name in ("energy", "free_energy", "energies", "charges") or (name == "magmom" and value.ndim == 0):
        return value
    if name in ("forces", "dipole"):
        return value @ R.T
    if name in ("magmom", "magmoms"):
        return np.linalg.det(R) * value @ R.T
    if name in ("stress", "stresses"):
        return full_3x3_to_voigt_6_stress(R @ voigt_6_to_full_3x3_stress(value) @ R.T)
    assert name in ("dielectric_tensor", "born_effective_charges", "polarizability")
    return R @ value @ R.T


def violation(calculator, atoms, names, R):
    """The largest difference between the results of a turned structure and turned results, by property."""
    here, there = {}, {}
    for found, structure in ((here, atoms), (there, moved(atoms, R))):
        for name in names:
            found[name] = calculator.get_property(name, structure)
    worst = {}
    for name in names:
        difference = np.abs(there[name] - transformed(name, here[name], R)).max()
        worst[name] = difference / max(1.0, float(np.abs(here[name]).max()))
    return worst


def low_symmetry_crystal():
    """A triclinic cell of copper and gold whose atoms are off their places."""
    atoms = bulk("Cu", cubic=True)
    atoms.numbers[0] = 79
    strain = np.eye(3) + 0.08 * np.random.default_rng(3).normal(size=(3, 3))
    atoms.set_cell(atoms.cell.array @ strain, scale_atoms=True)
    atoms.rattle(0.1, seed=4)
    return atoms


def slab():
    """Two layers of copper, periodic in the plane alone, with a rattled surface."""
    atoms = fcc111("Cu", (2, 2, 2), vacuum=5.0)
    atoms.rattle(0.05, seed=1)
    assert atoms.pbc.tolist() == [True, True, False]
    return atoms


def left_handed():
    """A cell whose vectors are a left-handed triple."""
    atoms = low_symmetry_crystal()
    atoms.set_cell(atoms.cell.array[[1, 0, 2]], scale_atoms=False)
    assert np.linalg.det(atoms.cell.array) < 0
    return atoms


def rattled(atoms):
    atoms.rattle(0.05, seed=2)
    return atoms


STRUCTURES = {
    "ethanol": lambda: molecule("CH3CH2OH"),
    "linear": lambda: molecule("CO2"),
    "dimer": lambda: molecule("CO"),
    "single atom": lambda: molecule("O"),
    "hcp": lambda: rattled(bulk("Cu", "hcp", a=2.6, c=4.3) * (2, 1, 1)),
    "fcc": lambda: rattled(bulk("Cu") * (2, 1, 1)),
    "triclinic": low_symmetry_crystal,
    "left-handed": left_handed,
    "slab": slab,
}


class Everything(Calculator):
    """Every property of known rank: a covariant part, and a part along the z axis of the laboratory.

    The latter is of degree one (vectors) or two (tensors) in the rotation, of zero mean.

    Args:
        amplitude: of that part.
    """

    implemented_properties = (
        "energy", "free_energy", "energies", "charges", "forces", "dipole", "stress", "stresses",
        "dielectric_tensor", "born_effective_charges", "magmom", "magmoms", "polarizability",
    )  # fmt: skip

    def __init__(self, amplitude=0.3):
        super().__init__()
        self.amplitude = amplitude
        self.seen = []

    def calculate(self, atoms=None, properties=("energy",), system_changes=tuple(all_changes)):
        super().calculate(atoms, properties, system_changes)
        self.seen.append(self.atoms)
        x = self.atoms.positions - self.atoms.positions.mean(0)
        p = self.atoms.get_momenta()
        weight = 1 + 0.1 * self.atoms.numbers[:, None]
        dipole = (weight * x).sum(0)
        along = self.amplitude * np.array([0, 0, 1.0])
        across = self.amplitude * np.diag([1.0, -2.0, 1.0])
        tensors = weight[:, :, None] * x[:, :, None] * x[:, None, :]
        moments = self.atoms.get_initial_magnetic_moments()
        squares = (x**2).sum(1) + dipole @ along + x @ along
        self.results = {
            "energy": (x**2).sum() + dipole @ along,
            "free_energy": (x**2).sum() - dipole @ along,
            "energies": squares,
            "charges": squares - squares.mean(),
            "forces": weight * x + along,
            "dipole": dipole + along,
            "stress": full_3x3_to_voigt_6_stress(tensors.sum(0) + across),
            "stresses": full_3x3_to_voigt_6_stress(tensors + across),
            "dielectric_tensor": np.outer(dipole, tensors.sum(0) @ dipole) + across,
            "born_effective_charges": tensors + x[:, :, None] * dipole + across,
            "polarizability": tensors.sum(0) + across,
            "magmom": np.cross(x, p).sum(0) + moments.sum(0) + along if moments.ndim == 2 else moments.sum(),
            "magmoms": np.cross(x, p) + moments + along if moments.ndim == 2 else moments + x @ along,
        }
