"""Results with the symmetry of the crystal: operations from spglib, as a finite group, at no further evaluation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

pytest.importorskip("ase")
pytest.importorskip("spglib")
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.constraints import FixSymmetry
from ase.spacegroup import crystal
from lab_axes import Anisotropic
from structures import Everything, low_symmetry_crystal, rotation

import probsym as ps
from probsym.integrations.ase import SymmetrizedCalculator, turned
from probsym.integrations.ase.space_group import Operations
from probsym.integrations.ase.structures import Structure

LAB = {2: 0.02, 4: 0.03}  # anisotropy along the axes of the laboratory


def operations(atoms, precision=1e-5):
    return Operations(Structure(atoms, ps.SO(3)), precision)


def rutile():
    """Two formula units, six atoms, sixteen operations; oxygen is free along the diagonal."""
    return crystal(["Ni", "O"], [(0, 0, 0), (0.3, 0.3, 0)], spacegroup=136, cellpar=[4.6, 4.6, 3.0, 90, 90, 90])


CRYSTALS = {
    "fcc": (lambda: bulk("Cu"), 48),
    "fcc, four atoms": (lambda: bulk("Cu", cubic=True), 192),  # 48 times four translations
    "fcc, eight cells": (lambda: bulk("Cu") * 2, 384),
    "hcp": (lambda: bulk("Cu", "hcp", a=2.6, c=4.3), 24),
    "rutile": (rutile, 16),
    "no symmetry": (low_symmetry_crystal, 1),
}


@pytest.mark.parametrize("name", CRYSTALS)
def test_the_operations_are_a_finite_group_of_the_right_order(name):
    make, order = CRYSTALS[name]
    group = operations(make()).group
    assert isinstance(group, ps.Finite)
    assert group.order() == order
    if order <= 48:
        ps.testing.assert_slot(operations(make()).space.vector)


@pytest.mark.parametrize("name", CRYSTALS)
def test_each_operation_takes_the_crystal_to_itself(name):
    """Matrix and exchange of atoms belong together: W x_i lands on the atom to which i goes, up to a shift of all."""
    make, _ = CRYSTALS[name]
    atoms = make()
    found = operations(atoms)
    g = found.group.elements()
    x = ps.Rep(found.space.atoms, found.space.vector)
    scaled = atoms.get_scaled_positions(wrap=False)
    for moved in x.act(g, torch.from_numpy(scaled), 0).numpy():
        away = moved - scaled
        away -= away[0]  # the translation that belongs to the operation
        assert np.abs(away - np.round(away)).max() < 1e-6


@pytest.mark.parametrize("name", ["fcc, four atoms", "hcp", "rutile"])
def test_forces_and_stress_have_the_symmetry_of_the_crystal(name):
    atoms = turned(CRYSTALS[name][0](), _element(1))
    base = Anisotropic(None, LAB)
    alone = SymmetrizedCalculator(base, group=None, space_group=1e-4)
    forces, stress = alone.get_property("forces", atoms), alone.get_property("stress", atoms)
    assert alone.poses == 1
    assert alone.results["energy"] == base.get_property("energy", atoms)  # the structure itself, evaluated once
    assert np.abs(base.get_property("stress", atoms) - stress).max() > 1e-5  # negative control

    # ASE's own symmetrisation of forces and stress gives the same.
    constraint = FixSymmetry(atoms, symprec=1e-4)
    by_ase, stress_by_ase = base.get_property("forces", atoms), base.get_property("stress", atoms)
    constraint.adjust_forces(atoms, by_ase)
    constraint.adjust_stress(atoms, stress_by_ase)
    assert np.allclose(forces, by_ase, atol=1e-9)
    assert np.allclose(stress, stress_by_ase, atol=1e-9)
    if name == "fcc, four atoms":
        assert np.abs(forces).max() < 1e-12
        assert np.allclose(stress, [stress[0]] * 3 + [0] * 3, atol=1e-12)


def test_poses_and_operations_work_together():
    """What few poses leave of an anisotropy is made symmetric as well; the error bar belongs to the result."""
    atoms = bulk("Cu", cubic=True)
    estimator = ps.MonteCarlo(5)
    plain = SymmetrizedCalculator(Anisotropic(EMT(), LAB), estimator=estimator)
    both = SymmetrizedCalculator(Anisotropic(EMT(), LAB), estimator=estimator, space_group=1e-5)
    assert np.ptp(plain.get_property("stress", atoms)[:3]) > 1e-5
    assert np.ptp(both.get_property("stress", atoms)[:3]) < 1e-12
    assert both.get_property("energy", atoms) == pytest.approx(plain.get_property("energy", atoms), abs=1e-12)
    assert both.poses == 5
    assert np.ptp(both.results["stress_stderr"][:3]) < 1e-12
    assert both.results["forces_rot_std"].max() < 1e-12  # forces vanish by symmetry in every pose


def test_energies_of_equivalent_atoms_are_equal():
    atoms = rutile()
    base = Everything()
    energies = SymmetrizedCalculator(base, group=None, space_group=1e-4).get_property("energies", atoms)
    assert np.ptp(base.get_property("energies", atoms)[2:]) > 1e-3
    assert np.ptp(energies[:2]) < 1e-9
    assert np.ptp(energies[2:]) < 1e-9
    assert energies.sum() == pytest.approx(base.get_property("energies", atoms).sum())


def test_magnetic_moments_and_charges_lower_the_symmetry():
    atoms = bulk("Cu", cubic=True)
    atoms.set_initial_magnetic_moments([1, 1, -1, -1])  # layers along one axis
    assert operations(atoms).group.order() == 32  # of the tetragonal lattice, and a translation within the layers
    atoms.set_initial_magnetic_moments(None)
    atoms.set_initial_charges([1, 0, 0, 0])
    assert operations(atoms).group.order() == 48
    atoms = bulk("Cu")
    atoms.set_initial_magnetic_moments([[0, 0, 1.0]])  # an axial vector: turns about it, and reflections across it
    assert operations(atoms).group.order() == 8


def test_symmetry_that_a_displacement_breaks_is_gone():
    atoms = bulk("Cu", cubic=True)
    atoms.positions[0, 0] += 0.1
    assert operations(atoms).group.order() == 8  # of C4v, about the displacement
    calculator = SymmetrizedCalculator(Anisotropic(EMT(), LAB), group=None, space_group=1e-5)
    forces = calculator.get_property("forces", atoms)
    assert np.abs(forces[0, 1:]).max() < 1e-12
    assert forces[0, 0] < -1e-3


def test_what_has_no_space_group_is_refused():
    with pytest.raises(ValueError, match="space_group: expected a structure that is periodic in three directions"):
        SymmetrizedCalculator(EMT(), group=None, space_group=1e-5).get_property("energy", molecule("CO"))
    space = ps.SO(3)
    calculator = SymmetrizedCalculator(
        Everything(), space, space_group=1e-5, properties={"polarizability": ps.Rep(space.vector, space.vector)}
    )
    with pytest.raises(ValueError, match="space_group: 'polarizability' is no property of ASE"):
        calculator.get_property("polarizability", bulk("Cu"))


def _element(seed):
    """An element of SO(3) with a given matrix."""
    return ps.SO(3).project(torch.from_numpy(rotation(seed)), torch.zeros(3, 3, dtype=torch.float64))
