"""Bad input to the symmetrized calculator: one clear error, or a right answer."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("ase")
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from structures import Everything, low_symmetry_crystal

import probsym as ps
from probsym.integrations.ase import SymmetrizedCalculator


class Wrong(Everything):
    """Everything, with some results replaced."""

    def __init__(self, **results):
        super().__init__()
        self.wrong = results

    def calculate(self, atoms=None, properties=("energy",), system_changes=()):
        super().calculate(atoms, properties, system_changes)
        self.results.update(self.wrong)


# ---------------------------------------------------------------- arguments


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"group": ps.SE(3)}, r"group: expected .*got SE\(3\).*without translations"),
        ({"group": ps.SO(2)}, r"group: .*SO\(2\).*2 components"),
        ({"group": ps.S(5)}, r"group: expected .*got S\(5\)"),
        ({"group": ps.SO(3) * ps.S("nodes")}, "group: expected"),
        ({"group": None}, "group: expected a group, or None together with space_group"),
        ({"seed": -1}, "seed"),
        ({"tol": -0.1}, "tol"),
        ({"chunk": 0}, "chunk"),
        ({"tol": 0.1, "estimator": ps.MonteCarlo(4)}, "tol, estimator: expected one of them"),
        ({"space_group": 0.0}, "space_group: expected a positive length"),
        ({"estimator": ps.MonteCarlo(8, design="cyclic")}, "design: .*fits no factor"),
        ({"properties": {"x": ps.Rep(ps.SO(3, "other"))}}, r"properties\['x'\]: expected slots of SO\(3\)"),
    ],
)
def test_arguments_of_the_wrong_value_are_refused_by_name(options, message):
    with pytest.raises(ValueError, match=message):
        SymmetrizedCalculator(EMT(), **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"group": "SO(3)"}, "group: expected a group"),
        ({"estimator": 24}, "estimator: expected one such as"),
        ({"space_group": "Fm-3m"}, "space_group: expected a length"),
        ({"properties": {"x": 3}}, r"properties\['x'\]: expected a Rep"),
        ({"properties": {"x": None}}, r"properties\['x'\]: expected a Rep"),
        ({"rotations": 24}, "rotations"),
    ],
)
def test_arguments_of_the_wrong_type_are_refused_by_name(options, message):
    with pytest.raises(TypeError, match=message):
        SymmetrizedCalculator(EMT(), **options)


def test_what_is_no_calculator_is_refused():
    with pytest.raises(TypeError, match="calculator: expected a calculator of ASE, got ABCMeta"):
        SymmetrizedCalculator(EMT)
    with pytest.raises(TypeError, match="calculator: expected a calculator of ASE, got NoneType"):
        SymmetrizedCalculator(None)


@pytest.mark.parametrize("design", ["tetrahedral", "octahedral", "icosahedral", "icosahedral-5"])
def test_reflections_need_a_design_with_the_inversion(design):
    size = ps.designs.as_design(design).size
    with pytest.raises(ValueError, match="lacks the inversion"):
        SymmetrizedCalculator(EMT(), ps.O(3), ps.MonteCarlo(2 * size, design=design))
    assert SymmetrizedCalculator(EMT(), ps.SO(3), ps.MonteCarlo(2 * size, design=design))


@pytest.mark.parametrize("design", ["pyritohedral", "full-octahedral", "full-icosahedral", "antithetic", "signs", None])
def test_designs_with_the_inversion_are_taken_for_reflections(design):
    size = ps.designs.as_design(design).size or 8
    assert SymmetrizedCalculator(EMT(), ps.O(3), ps.MonteCarlo(size, design=design))
    if design in ("pyritohedral", "full-octahedral", "full-icosahedral"):
        with pytest.raises(ValueError, match="fits no factor"):
            SymmetrizedCalculator(EMT(), ps.SO(3), ps.MonteCarlo(size, design=design))


# ---------------------------------------------------------------- structures


def test_arrays_that_nothing_is_known_of_are_refused_by_name():
    atoms = molecule("CO")
    atoms.set_array("easy_axis", np.ones((2, 3)))
    with pytest.raises(ValueError, match=r"atoms.arrays\['easy_axis'\]: has shape \(2, 3\), several numbers an atom"):
        SymmetrizedCalculator(EMT()).get_property("energy", atoms)
    for rep in (None, ps.Rep(None, ps.SO(3))):
        SymmetrizedCalculator(EMT(), arrays={"easy_axis": rep}).get_property("energy", atoms)


def test_entries_of_info_that_nothing_is_known_of_are_refused_by_name():
    atoms = molecule("CO")
    atoms.info["electric_field"] = np.array([0.0, 0.0, 1.0])
    with pytest.raises(ValueError, match=r"atoms.info\['electric_field'\].*declare info="):
        SymmetrizedCalculator(EMT()).get_property("energy", atoms)
    SymmetrizedCalculator(EMT(), info={"electric_field": None}).get_property("energy", atoms)


def test_entries_of_info_that_are_no_numbers_stay():
    atoms = molecule("CO")
    atoms.info = {"names": ["a", "b"], "lists": [[1.0], [2.0, 3.0]], "set": {"x": np.ones(3)}, "cells": [1, 2]}
    base = Everything()
    SymmetrizedCalculator(base).get_property("energy", atoms)
    assert all(set(pose.info) == set(atoms.info) for pose in base.seen)


def test_a_declared_entry_that_is_not_real_is_refused():
    atoms = molecule("CO")
    for value in (np.array([1.0, 1j, 0.0]), "up"):
        atoms.info["field"] = value
        with pytest.raises((TypeError, ValueError), match=r"info\['field'\]"):
            SymmetrizedCalculator(EMT(), info={"field": ps.Rep(ps.SO(3))}).get_property("energy", atoms)


def test_a_declared_array_of_another_shape_is_refused():
    atoms = molecule("CO")
    atoms.set_array("easy_axis", np.ones((2, 4)))
    calculator = SymmetrizedCalculator(EMT(), arrays={"easy_axis": ps.Rep(None, ps.SO(3))})
    with pytest.raises(ValueError, match=r"arrays\['easy_axis'\]"):
        calculator.get_property("energy", atoms)


def test_labels_under_the_names_of_properties_are_known():
    """Forces that a file has stored beside the positions turn; nobody has to declare them."""
    atoms = molecule("CO")
    atoms.set_array("forces", np.array([[0.0, 0, 1], [0, 0, -1]]))
    base = Everything()
    SymmetrizedCalculator(base).get_property("energy", atoms)
    bond = atoms.positions[1] - atoms.positions[0]
    for pose in base.seen:
        turned_bond = pose.positions[1] - pose.positions[0]
        assert pose.arrays["forces"][0] @ turned_bond == pytest.approx(atoms.arrays["forces"][0] @ bond)


@pytest.mark.parametrize("cell", [[[3.0, 0, 0], [0, 3, 0], [3, 3, 0]], [[3.0, 0, 0], [0, 3, 0], [0, 0, 0]]])
def test_degenerate_cells_are_refused(cell):
    atoms = Atoms("Cu", cell=cell, pbc=True)
    with pytest.raises(ValueError, match=r"atoms.cell: expected independent vectors along the periodic directions"):
        SymmetrizedCalculator(EMT()).get_property("energy", atoms)
    atoms.pbc = [True, True, False]  # two independent ones are enough for a plane
    SymmetrizedCalculator(Everything()).get_property("energy", atoms)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_coordinates_that_are_not_finite_are_refused(bad):
    atoms = molecule("CO")
    atoms.positions[0, 0] = bad
    with pytest.raises(ValueError, match=r"arrays\['positions'\]"):
        SymmetrizedCalculator(EMT()).get_property("energy", atoms)
    crystal = bulk("Cu")
    crystal.cell[0, 0] = bad
    with pytest.raises(ValueError, match="cell"):
        SymmetrizedCalculator(EMT()).get_property("energy", crystal)


def test_a_failure_leaves_no_results_of_another_structure():
    calculator = SymmetrizedCalculator(Everything())
    atoms = molecule("CO")
    calculator.get_property("energy", atoms)
    atoms.positions[0, 0] = np.nan
    with pytest.raises(ValueError, match="positions"):
        calculator.calculate(atoms, ["energy"])
    assert calculator.results == {}


def test_collinear_moments_stay_and_vectors_turn():
    base = Everything(amplitude=0.0)
    for moments in ([1.0, 1.0], np.eye(3)[:2]):
        atoms = Atoms("O2", positions=[[0, 0, 0], [0, 0, 1.2]])
        atoms.set_initial_magnetic_moments(moments)
        found = SymmetrizedCalculator(base, ps.O(3)).get_property("magmoms", atoms)
        assert np.allclose(found, moments, atol=1e-12)


# ---------------------------------------------------------------- results


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("forces", np.zeros((2, 2)), r"forces: expected shape \(2, 3\) for 2 atoms, got \(2, 2\)"),
        ("forces", np.zeros((3, 3)), r"forces: expected shape \(2, 3\) for 2 atoms, got \(3, 3\)"),
        ("forces", np.zeros(6), r"forces: expected shape \(2, 3\)"),
        ("energy", np.zeros(2), r"energy: expected shape \(\) for 2 atoms"),
        ("stress", np.zeros(9), r"stress: expected shape \(3, 3\) or \(6,\)"),
        ("energies", np.zeros(3), r"energies: expected shape \(2,\)"),
        ("energy", np.nan, "energy of a pose is not finite"),
        ("forces", np.full((2, 3), np.inf), "forces of a pose is not finite"),
        ("dipole", np.zeros(2), r"dipole: expected shape \(3,\)"),
    ],
)
def test_results_of_the_wrong_shape_or_not_finite_are_refused_by_name(name, value, message):
    calculator = SymmetrizedCalculator(Wrong(**{name: value}))
    with pytest.raises(ValueError, match=message):
        calculator.get_property(name, molecule("CO"))
    assert calculator.results == {}


def test_a_property_that_nobody_asked_for_and_that_is_not_finite_is_left_out():
    """A stress of a molecule that is NaN does not spoil its energy."""
    calculator = SymmetrizedCalculator(Wrong(stress=np.full(6, np.nan)))
    calculator.get_property("energy", molecule("CO"))
    assert "stress" not in calculator.results


def test_energies_in_an_array_of_one_are_numbers():
    calculator = SymmetrizedCalculator(Wrong(energy=np.array([2.0])))
    energy = calculator.get_property("energy", molecule("CO"))
    assert isinstance(energy, float)
    assert energy == pytest.approx(2.0)


def test_a_stress_of_nine_components_is_written_in_six():
    full = np.array([[1.0, 0.3, 0.2], [0.1, 2.0, 0.5], [0.2, 0.5, 3.0]])
    atoms = low_symmetry_crystal()
    one = SymmetrizedCalculator(Wrong(stress=full), ps.Octahedral()).get_property("stress", atoms)
    six = np.array([1.0, 2.0, 3.0, 0.5, 0.2, 0.2])
    other = SymmetrizedCalculator(Wrong(stress=six), ps.Octahedral()).get_property("stress", atoms)
    assert one.shape == (6,)
    assert np.allclose(one, other, atol=1e-12)
    assert np.allclose(one, [2, 2, 2, 0, 0, 0], atol=1e-12)  # what rotations of the cube leave of any stress


@pytest.mark.parametrize("field", [[0, 0, 1], np.array([0, 0, 1]), (0.0, 0.0, 1.0)], ids=["list", "integers", "tuple"])
def test_a_vector_of_whole_numbers_is_a_vector(field):
    atoms = molecule("CO")
    atoms.info.update(field=field, grid=[2, 2], label="x")  # only the first could be a vector
    with pytest.raises(ValueError, match=r"atoms.info\['field'\]: has shape \(3,\), several numbers"):
        SymmetrizedCalculator(EMT()).get_property("energy", atoms)
    stays = SymmetrizedCalculator(EMT(), info={"field": None})
    assert stays.get_property("energy", atoms) == pytest.approx(EMT().get_property("energy", molecule("CO")))


@pytest.mark.parametrize(
    ("returned", "error", "says"),
    [
        ([], ValueError, "batch: expected a list of 24 dicts of results, one for each structure, got 0"),
        (None, TypeError, "batch: expected a list of 24 dicts .* got NoneType"),
        ([None] * 24, TypeError, "batch: expected a list of 24 dicts .* got a NoneType among them"),
    ],
    ids=["short", "nothing", "no dicts"],
)
def test_a_batch_of_the_wrong_length_or_kind_is_refused(returned, error, says):
    calculator = SymmetrizedCalculator(EMT(), batch=lambda poses, properties: returned)
    with pytest.raises(error, match=says):
        calculator.get_property("energy", molecule("CO"))


def test_results_that_come_for_some_poses_only_are_refused():
    def batch(poses, properties):
        found = [{"energy": 0.0, "forces": np.zeros((2, 3))} for _ in poses]
        if len(seen) == 1:
            del found[0]["forces"]
        seen.append(len(poses))
        return found

    seen = []
    calculator = SymmetrizedCalculator(EMT(), batch=batch, chunk=12)
    with pytest.raises(ValueError, match="forces came for some poses of a structure and not for others"):
        calculator.get_property("energy", molecule("CO"))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of the mean of nothing, in the calculator
def test_an_empty_structure_is_no_trouble():
    calculator = SymmetrizedCalculator(Wrong(energy=0.0))
    assert calculator.get_property("forces", Atoms(cell=[3, 3, 3], pbc=True)).shape == (0, 3)
