"""A pretrained potential, CHGNet, through the calculator: it is invariant by construction, in single precision."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("ase")
pytest.importorskip("chgnet")
from ase import Atoms
from ase.build import bulk

import probsym as ps
from probsym.integrations.ase import SymmetrizedCalculator

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # pymatgen's own warnings

PROPERTIES = ("energy", "forces", "stress", "magmoms")
# What single precision makes of sums of some thousand terms: eV, eV/Angstrom, eV/Angstrom^3, Bohr magnetons.
ROUNDING = {"energy": 2e-5, "forces": 1e-4, "stress": 1e-5, "magmoms": 1e-4}


@pytest.fixture(scope="module")
def chgnet():
    from chgnet.model.dynamics import CHGNetCalculator

    return CHGNetCalculator(use_device="cpu")


@pytest.fixture(scope="module")
def salt() -> Atoms:
    atoms = bulk("NaCl", "rocksalt", a=5.64)
    atoms.rattle(0.1, seed=0)
    return atoms


def results(calculator, atoms: Atoms) -> dict[str, np.ndarray]:
    return {name: np.asarray(calculator.get_property(name, atoms)) for name in PROPERTIES}


def test_averages_are_what_it_says_itself(chgnet, salt):
    atoms = salt.copy()
    atoms.calc = chgnet
    alone = {
        "energy": atoms.get_potential_energy(), "forces": atoms.get_forces(), "stress": atoms.get_stress(),
        "magmoms": atoms.get_magnetic_moments(),
    }  # fmt: skip
    calculator = SymmetrizedCalculator(chgnet, ps.O(3), ps.MonteCarlo(8))
    found = results(calculator, salt)
    assert np.abs(alone["forces"]).max() > 0.1  # far from equilibrium: there is something to turn back wrongly
    assert np.abs(alone["stress"]).max() > 1e-3
    for name, allowed in ROUNDING.items():
        assert found[name].shape == np.shape(alone[name])
        assert np.abs(found[name] - alone[name]).max() < allowed, name
        assert np.max(calculator.results[f"{name}_rot_std"]) < allowed, name
        assert np.max(calculator.results[f"{name}_stderr"]) < allowed, name


def test_what_turns_is_found_wrong_where_it_does_not_turn(chgnet, salt):
    """A control: forces of poses that were not turned back lie apart by as much as they are long."""

    def batch(poses, properties):
        """Forces as of the structure itself, in whatever pose."""
        forces = chgnet.get_property("forces", salt)
        return [{"energy": 0.0, "forces": forces} for _ in poses]

    calculator = SymmetrizedCalculator(chgnet, ps.O(3), ps.MonteCarlo(8), batch=batch)
    forces = calculator.get_property("forces", salt)
    assert calculator.results["forces_rot_std"].max() > 0.1
    assert np.abs(forces - chgnet.get_property("forces", salt)).max() > 0.1


def test_the_space_group_makes_the_stress_of_a_perfect_crystal_exact(chgnet):
    """Single precision leaves shear stress on rocksalt; its operations remove it, at no further evaluation."""
    atoms = bulk("NaCl", "rocksalt", a=5.4)
    calculator = SymmetrizedCalculator(chgnet, group=None, space_group=1e-5)
    stress = calculator.get_property("stress", atoms)
    assert calculator.poses == 1
    assert np.abs(stress[3:]).max() < 1e-15
    assert np.ptp(stress[:3]) < 1e-15
    assert abs(stress[0]) > 1e-3
    assert np.abs(calculator.get_property("forces", atoms)).max() < 1e-15
