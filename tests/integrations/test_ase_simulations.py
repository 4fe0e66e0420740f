"""Relaxations, dynamics, barriers, phonons and files of ASE with a symmetrized calculator."""

from __future__ import annotations

import numpy as np
import pytest
import torch

pytest.importorskip("ase")
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.fd import calculate_numerical_forces, calculate_numerical_stress
from ase.db import connect
from ase.filters import FrechetCellFilter
from ase.io import read, write
from ase.io.trajectory import Trajectory
from ase.md.verlet import VelocityVerlet
from ase.mep import NEB
from ase.optimize import BFGS
from ase.phonons import Phonons
from lab_axes import Anisotropic, Morse, PairNetwork, capped_tetrahedron
from structures import low_symmetry_crystal

import probsym as ps
from probsym.integrations.ase import SymmetrizedCalculator

MILD = {1: 0.01, 2: 0.02, 3: 0.01}  # what octahedral poses remove
ROUGH = {2: 0.02, 4: 0.02, 6: 0.01}  # what they do not


def strained_hcp():
    """Two atoms in a sheared cell."""
    atoms = bulk("Cu", "hcp", a=2.6, c=4.3)
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + 0.04 * np.arange(9).reshape(3, 3) / 9), scale_atoms=True)
    return atoms


@pytest.mark.parametrize("make", [lambda: molecule("H2O"), strained_hcp], ids=["molecule", "crystal"])
def test_forces_and_stress_are_derivatives_of_the_frozen_energy(make):
    """The average of an anisotropy that survives is not invariant, but conservative all the same."""
    atoms = make()
    atoms.calc = SymmetrizedCalculator(Anisotropic(None, ROUGH))
    forces = atoms.get_forces()
    assert atoms.calc.results["forces_rot_std"].max() > 1e-3
    numerical = calculate_numerical_forces(atoms, eps=1e-4, iatoms=[0])
    assert np.allclose(forces[0], numerical[0], atol=1e-6)
    if atoms.pbc.all():
        stress = atoms.get_stress()
        assert np.abs(stress).max() > 1e-4
        assert np.allclose(stress, calculate_numerical_stress(atoms, eps=1e-5), atol=1e-7)


def test_fresh_poses_are_no_derivative():
    """A negative control of the test above: with another draw at each call differences are noise."""
    atoms = molecule("H2O")
    atoms.calc = SymmetrizedCalculator(Anisotropic(None, ROUGH), seed=None)
    forces = atoms.get_forces()
    assert not np.allclose(forces[0], calculate_numerical_forces(atoms, eps=1e-4, iatoms=[0])[0], atol=1e-2)


def test_a_relaxation_ends_where_the_isotropic_one_does():
    start = molecule("H2O")
    start.rattle(0.05, seed=1)
    found = []
    for calculator in (EMT(), SymmetrizedCalculator(Anisotropic(EMT(), MILD)), Anisotropic(EMT(), MILD)):
        atoms = start.copy()
        atoms.calc = calculator
        assert BFGS(atoms, logfile=None).run(fmax=0.01, steps=60)
        found.append(np.sort(atoms.get_all_distances()[np.triu_indices(3, 1)]))
    assert np.allclose(found[0], found[1], atol=1e-5)
    assert not np.allclose(found[0], found[2], atol=1e-3)  # negative control: the axes bend the molecule


@pytest.mark.slow
def test_a_cell_relaxes_to_its_symmetry():
    atoms = bulk("Cu", a=3.4)
    atoms.calc = SymmetrizedCalculator(Anisotropic(EMT(), MILD))
    assert BFGS(FrechetCellFilter(atoms), logfile=None).run(fmax=0.01, steps=30)
    reference = bulk("Cu", a=3.4)
    reference.calc = EMT()
    BFGS(FrechetCellFilter(reference), logfile=None).run(fmax=0.01, steps=30)
    assert np.allclose(atoms.cell.cellpar(), reference.cell.cellpar(), atol=1e-6)


def cluster(calculator):
    """A capped tetrahedron, with velocities of 10 K."""
    atoms = capped_tetrahedron()
    random = np.random.default_rng(0)
    atoms.set_momenta(random.normal(size=(8, 3)) * np.sqrt(10 * units.kB * atoms.get_masses())[:, None])
    atoms.calc = calculator
    return atoms


def energies_of(atoms, steps):
    """Total energies (meV) of NVE dynamics with steps of 1 fs."""
    dynamics = VelocityVerlet(atoms, 1 * units.fs)
    found = [1e3 * atoms.get_total_energy()]
    for _ in range(steps):
        dynamics.run(1)
        found.append(1e3 * atoms.get_total_energy())
    return np.array(found)


def test_dynamics_with_frozen_poses_conserves_energy():
    def drift(calculator):
        found = energies_of(cluster(calculator), 40)
        return np.abs(found - found[0]).max(), np.abs(np.diff(found)).max()

    base = Morse(anisotropy=0.02)
    bare, _ = drift(base)
    frozen, step = drift(SymmetrizedCalculator(base))
    assert frozen < 10 * bare
    assert step < 1
    fresh, step = drift(SymmetrizedCalculator(base, seed=None))
    assert fresh > 100 * bare  # negative control


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("parallel", [False, True])
def test_a_barrier_with_one_calculator_or_one_per_image(shared, parallel):
    """An adatom hops over a small cluster: the path is that of the isotropic calculator."""
    if shared and parallel:
        pytest.skip("ASE evaluates images of a shared calculator one after the other")

    def barrier(make):
        first, last = _hop(0), _hop(1)
        images = [first, *[first.copy() for _ in range(3)], last]
        one = make()
        for image in images:
            image.calc = one if shared else make()
        band = NEB(images, allow_shared_calculator=shared, parallel=parallel, method="improvedtangent")
        band.interpolate()
        BFGS(band, logfile=None).run(fmax=0.1, steps=5)
        return [image.get_potential_energy() for image in images]

    found = barrier(lambda: SymmetrizedCalculator(Morse(degrees=MILD)))
    assert np.allclose(found, barrier(Morse), atol=1e-6)
    assert np.ptp(found) > 0.05
    assert not np.allclose(found, barrier(lambda: Morse(degrees=MILD)), atol=1e-3)  # negative control


def _hop(place):
    """Four atoms in a plane, and one above one or the other three of them."""
    triangle = np.array([[0, 0, 0], [2.58, 0, 0], [1.29, 2.23, 0], [3.87, 2.23, 0]])
    above = [triangle[[0, 1, 2]].mean(0), triangle[[1, 2, 3]].mean(0)][place] + [0, 0, 2.1]
    return Atoms("Cu5", positions=[*triangle, above])


@pytest.mark.slow
def test_phonons_have_no_direction(tmp_path):
    """Displacements along x, y and z of fcc are equivalent; an anisotropic calculator does not know it."""

    def asymmetry(calculator, name):
        phonons = Phonons(bulk("Cu", a=3.6), calculator, supercell=(2, 2, 2), delta=0.02, name=tmp_path / name)
        phonons.run()
        phonons.read()
        constants = phonons.get_force_constant()[0][:3, :3]  # of an atom on itself
        return np.abs(constants - np.eye(3) * np.trace(constants) / 3).max() / np.trace(constants)

    assert asymmetry(Anisotropic(EMT(), MILD), "bare") > 1e-3
    assert asymmetry(SymmetrizedCalculator(Anisotropic(EMT(), MILD)), "averaged") < 1e-5


def test_results_are_written_and_read(tmp_path):
    atoms = low_symmetry_crystal()
    atoms.calc = SymmetrizedCalculator(Anisotropic(EMT(), MILD), estimator=ps.MonteCarlo(24, design="octahedral"))
    energy, forces, stress = atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress()

    for name in ("a.extxyz", "a.traj", "a.json"):
        write(tmp_path / name, atoms)
        again = read(tmp_path / name)
        assert again.get_potential_energy() == pytest.approx(energy)
        assert np.allclose(again.get_forces(), forces, atol=1e-7)
        assert np.allclose(again.get_stress(), stress, atol=1e-7)

    with Trajectory(str(tmp_path / "b.traj"), "w", atoms) as trajectory:
        trajectory.write()
    assert read(tmp_path / "b.traj").get_potential_energy() == pytest.approx(energy)

    with connect(tmp_path / "c.db") as database:
        database.write(atoms)
    row = connect(tmp_path / "c.db").get(1)
    assert row.calculator == "symmetrizedcalculator"
    assert row.energy == pytest.approx(energy)
    assert row.calculator_parameters["estimator"] == "MonteCarlo(k=24, chunk=None, design='octahedral')"
    assert row.calculator_parameters["seed"] == 0
    assert row.calculator_parameters["group"] == "SO(3)"


def test_a_trained_symmetrizer_and_a_calculator_agree():
    """phi.frozen of the library, and the same network as a calculator with the same poses, give the same energy."""
    base = PairNetwork()

    class Energy(torch.nn.Module):
        def forward(self, positions):
            return base.energy(positions)

    space = ps.SO(3)
    design = ps.MonteCarlo(24, design="octahedral")
    phi = ps.symmetrize(Energy(), ps.Rep(None, space), ps.Rep(), "haar", eval_samples=design).eval()
    atoms = molecule("H2O")
    positions = torch.from_numpy(atoms.positions)[None].requires_grad_()
    energy = phi.frozen(7)(positions)
    forces = -torch.autograd.grad(energy.sum(), positions)[0][0]
    calculator = SymmetrizedCalculator(base, estimator=design, seed=7)
    assert calculator.get_property("energy", atoms) == pytest.approx(energy.item(), abs=1e-12)
    assert np.allclose(calculator.get_property("forces", atoms), forces.numpy(), atol=1e-12)
