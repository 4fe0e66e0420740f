"""The symmetrized calculator: all that turns does, results turn back, and ASE finds the calculator it expects."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch

pytest.importorskip("ase")
from ase.build import bulk, molecule
from ase.calculators.calculator import PropertyNotImplementedError, all_properties
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.constraints import FixAtoms, FixCartesian
from lab_axes import Anisotropic, Differentiated, PairEnergy, PairNetwork
from structures import STRUCTURES, Everything, moved, rotation, transformed, violation

import probsym as ps
from probsym.integrations.ase import SymmetrizedCalculator, turned

SPACE = ps.SO(3)
MILD = {1: 0.02, 2: 0.03, 3: 0.01}  # degrees that 24 octahedral poses remove
POLARIZABILITY = {"polarizability": ps.Rep(SPACE.vector, SPACE.vector)}


def everything(group=SPACE, **options):
    polarizability = {"polarizability": ps.Rep(group.vector, group.vector)}
    return SymmetrizedCalculator(Everything(), group, properties=polarizability, **options)


def with_all_that_turns():
    """A molecule with momenta, magnetic moments that are vectors, charges and a constraint."""
    atoms = molecule("CH3CH2OH")
    random = np.random.default_rng(0)
    atoms.set_momenta(random.normal(size=(len(atoms), 3)))
    atoms.set_initial_magnetic_moments(random.normal(size=(len(atoms), 3)))
    atoms.set_initial_charges(random.normal(size=len(atoms)))
    atoms.set_tags(range(len(atoms)))
    atoms.set_constraint([FixAtoms([0]), FixCartesian(1, (True, False, False))])
    return atoms


# ---------------------------------------------------------------- equivariance


@pytest.mark.parametrize("name", STRUCTURES)
def test_energy_forces_and_stress_turn_with_the_structure(name):
    atoms = STRUCTURES[name]()
    names = ["energy", "energies", "forces"] + (["stress"] if atoms.pbc.all() else [])
    base = LennardJones(epsilon=0.1, rc=4.0) if name in ("slab", "single atom") else EMT()
    R = rotation(1)
    bare = violation(Anisotropic(base, MILD), atoms, names, R)
    found = violation(SymmetrizedCalculator(Anisotropic(base, MILD)), atoms, names, R)
    assert max(found.values()) < 1e-11
    if len(atoms) > 1:  # a single atom has no direction
        assert bare["energy"] > 1e-6  # negative control: the calculator itself does not
        assert bare["forces"] > 1e-6


@pytest.mark.parametrize("improper", [False, True])
def test_every_property_of_known_rank_turns_as_it_should(improper):
    atoms = with_all_that_turns()
    group = ps.O(3) if improper else SPACE
    R = rotation(2, improper)
    names = list(everything(group).implemented_properties)
    assert set(names) == set(Everything.implemented_properties)
    bare = violation(Everything(), atoms, names, R)
    found = violation(everything(group), atoms, names, R)
    assert max(found.values()) < 1e-11
    assert min(bare.values()) > 1e-3

    # The average is the part without axes.
    for name in names:
        truth = Everything(amplitude=0.0).get_property(name, atoms)
        assert np.allclose(everything(group).get_property(name, atoms), truth, atol=1e-11)


def test_vectors_turned_the_wrong_way_fail_the_check():
    """A negative control: forces turned by the inverse, and moments taken for polar vectors, are found."""
    atoms = with_all_that_turns()
    R = rotation(2, improper=True)
    calculator = everything(ps.O(3))
    forces = calculator.get_property("forces", atoms)
    there = calculator.get_property("forces", moved(atoms, R))
    assert not np.allclose(there, transformed("forces", forces, R.T), atol=1e-2)
    moments = calculator.get_property("magmoms", atoms)
    there = calculator.get_property("magmoms", moved(atoms, R))
    assert not np.allclose(there, transformed("forces", moments, R), atol=1e-2)


def test_a_finite_group_is_averaged_over_exactly_and_its_error_is_zero():
    atoms = STRUCTURES["triclinic"]()
    group = ps.Octahedral()
    calculator = SymmetrizedCalculator(Anisotropic(None, {4: 0.02, 6: 0.02}), group)
    R = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    assert max(violation(calculator, atoms, ["energy", "forces", "stress"], R).values()) < 1e-11
    assert violation(calculator, atoms, ["energy"], rotation(0))["energy"] > 1e-4  # degree 4 survives other rotations
    calculator.get_property("energy", atoms)
    assert calculator.results["energy_stderr"] == 0
    assert not calculator.results["forces_stderr"].any()
    assert calculator.results["energy_rot_std"] > 0
    assert calculator.poses == 24


def test_rotations_about_an_axis_leave_the_field_along_it():
    """A part along z is no error where z is meant: turns about z keep it, all rotations remove it."""
    atoms = molecule("CH3CH2OH")
    about = SymmetrizedCalculator(Anisotropic(EMT(), MILD), ps.SO(3, about="z"))
    bare = Anisotropic(EMT(), MILD).get_property("energy", atoms)
    assert about.get_property("energy", atoms) == pytest.approx(bare, abs=1e-11)
    everywhere = SymmetrizedCalculator(Anisotropic(EMT(), MILD)).get_property("energy", atoms)
    assert abs(everywhere - bare) > 1e-4


def test_poses_see_all_that_turns_and_keep_all_that_does_not():
    atoms = with_all_that_turns()
    atoms.info = {"charge": 1, "spin": 2.0, "note": "x", "field": np.array([1.0, 2.0, 3.0])}
    atoms.set_array("kind", np.arange(len(atoms)))
    atoms.set_array("axis", atoms.positions + 1.0)
    before = atoms.copy()
    base = Everything()
    calculator = SymmetrizedCalculator(
        base, ps.O(3), arrays={"axis": ps.Rep(None, ps.O(3))}, info={"field": ps.Rep(ps.O(3))}
    )
    calculator.get_property("energy", atoms)
    assert len(base.seen) == 48
    handed = set()
    for pose in base.seen:
        # The rotation is the one that takes the positions there; everything else follows it.
        R = np.linalg.lstsq(atoms.positions, pose.positions, rcond=None)[0].T
        assert np.allclose(R @ R.T, np.eye(3), atol=1e-9)
        handed.add(round(float(np.linalg.det(R))))
        by_hand = moved(atoms, R)
        for name in ("positions", "momenta", "initial_magmoms"):
            assert np.allclose(pose.arrays[name], by_hand.arrays[name], atol=1e-9)
        assert np.allclose(pose.arrays["axis"], atoms.arrays["axis"] @ R.T, atol=1e-9)
        assert np.allclose(pose.info["field"], R @ atoms.info["field"], atol=1e-9)
        for name in ("numbers", "tags", "initial_charges", "kind"):
            assert np.array_equal(pose.arrays[name], atoms.arrays[name])
        assert [pose.info[name] for name in ("charge", "spin", "note")] == [1, 2.0, "x"]
        assert len(pose.constraints) == 2
    assert handed == {1, -1}
    assert atoms == before  # the structure itself is left alone
    assert np.array_equal(atoms.info["field"], before.info["field"])


def test_periodicity_and_the_cell_turn_together():
    atoms = STRUCTURES["slab"]()
    atoms.set_celldisp([0.1, 0.2, 0.3])
    base = Everything()
    SymmetrizedCalculator(base).get_property("energy", atoms)
    for pose in base.seen:
        assert pose.pbc.tolist() == [True, True, False]
        assert np.allclose(pose.cell.scaled_positions(pose.positions), atoms.cell.scaled_positions(atoms.positions))
        assert np.allclose(pose.cell.lengths(), atoms.cell.lengths())
        R = np.linalg.solve(atoms.cell.array, pose.cell.array).T
        assert np.allclose(pose.get_celldisp().ravel(), R @ [0.1, 0.2, 0.3])


class SignedVolume(Everything):
    """Its stress is divided by the determinant of the cell, as that of CHGNet is."""

    def calculate(self, atoms=None, properties=("energy",), system_changes=()):
        super().calculate(atoms, properties, system_changes)
        self.results["stress"] = self.results["stress"] / np.linalg.det(self.atoms.cell.array)


@pytest.mark.parametrize("pbc", [(True, True, True), (True, True, False), (False, True, False), (False, False, False)])
def test_reflected_poses_keep_the_handedness_of_the_cell(pbc):
    """Else stresses of reflected poses have the wrong sign in such calculators, and the average is zero."""
    for name in ("triclinic", "left-handed"):
        atoms = STRUCTURES[name]()
        atoms.pbc = pbc
        base = SignedVolume(amplitude=0.0)
        stress = SymmetrizedCalculator(base, ps.O(3)).get_property("stress", atoms)
        handed = set()
        for pose in base.seen:
            R = np.linalg.lstsq(atoms.positions, pose.positions, rcond=None)[0].T
            handed.add(round(float(np.linalg.det(R))))
            basis = pose.cell.array @ np.linalg.inv(atoms.cell.array @ R.T)  # in terms of the vectors that were turned
            signs = np.ones(3)
            if np.linalg.det(R) < 0:
                signs = {3: [-1, -1, -1], 2: [-1, 1, 1], 1: [1, -1, 1], 0: [1, 1, 1]}[sum(pbc)]
            assert np.allclose(basis, np.diag(signs), atol=1e-9)
        assert handed == {1, -1}
        if any(pbc):
            assert np.allclose(stress, SignedVolume(amplitude=0.0).get_property("stress", atoms), atol=1e-10)
            assert np.abs(stress).max() > 1e-2


def test_turned_moves_a_structure_as_by_hand():
    atoms = with_all_that_turns()
    g = ps.O(3).haar((), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    by_hand = moved(atoms, g.matrix.numpy())
    found = turned(atoms, g)
    for name in ("positions", "momenta", "initial_magmoms"):
        assert np.allclose(found.arrays[name], by_hand.arrays[name])


# ---------------------------------------------------------------- modes


def test_frozen_poses_are_the_same_for_every_call_and_structure():
    first, second = molecule("CH3CH2OH"), molecule("CO")
    base = Everything()
    calculator = SymmetrizedCalculator(base)
    for atoms in (first, second, first):
        calculator.get_property("energy", atoms)
    frames = []
    for pose, atoms in ((base.seen[5], first), (base.seen[53], first)):
        frames.append(np.linalg.lstsq(atoms.positions, pose.positions, rcond=None)[0])
    assert np.allclose(frames[0], frames[1])
    bond = second.positions[1] - second.positions[0]
    turned_bond = base.seen[29].positions[1] - base.seen[29].positions[0]
    assert np.allclose(bond @ frames[0], turned_bond)


def test_seeds_choose_the_poses_and_none_draws_fresh_ones():
    atoms = molecule("CO")
    other = atoms.copy()
    other.positions[0, 0] += 1e-9  # another structure, so that nothing is kept

    def energies(seed):
        calculator = SymmetrizedCalculator(Anisotropic(None, {4: 0.1}), seed=seed)
        return [calculator.get_property("energy", structure) for structure in (atoms, other, atoms)]

    zero, one, none = energies(0), energies(1), energies(None)
    assert zero == energies(0)
    assert zero[0] == pytest.approx(zero[1], abs=1e-7)
    assert abs(zero[0] - one[0]) > 1e-4
    assert abs(none[0] - none[1]) > 1e-4
    assert abs(none[0] - none[2]) > 1e-4
    torch.manual_seed(3)
    again = energies(None)
    torch.manual_seed(3)
    assert energies(None) == again


def test_fresh_poses_are_kept_until_the_structure_changes():
    atoms = molecule("CO")
    atoms.calc = SymmetrizedCalculator(Anisotropic(None, {4: 0.1}), seed=None)
    energy = atoms.get_potential_energy()
    atoms.get_forces()
    assert atoms.get_potential_energy() == energy
    atoms.positions[0, 0] += 1e-9
    assert abs(atoms.get_potential_energy() - energy) > 1e-4


def test_an_accuracy_takes_as_many_poses_as_it_needs():
    atoms = molecule("H2O")
    poses = []
    for tol in (0.3, 0.01):
        calculator = SymmetrizedCalculator(PairNetwork(), tol=tol)
        calculator.get_property("energy", atoms)
        assert calculator.results["energy_stderr"] < 1.3 * tol  # the pilot's guess, with a margin
        assert calculator.results["forces_stderr"].max() < 1.3 * tol
        poses.append(calculator.poses)
    assert poses[1] > 4 * poses[0] > 0


def test_deviations_and_errors_are_what_they_say():
    atoms = molecule("CH3CH2OH")
    base = Everything()
    calculator = SymmetrizedCalculator(base, estimator=ps.MonteCarlo(40))
    calculator.get_property("energy", atoms)
    singles = np.array([Everything().get_property("energy", pose) for pose in base.seen])
    results = calculator.results
    assert results["energy"] == pytest.approx(singles.mean())
    assert results["energy_rot_std"] == pytest.approx(singles.std())
    assert results["energy_stderr"] == pytest.approx(singles.std(ddof=1) / math.sqrt(40))
    for name, shape in (("forces", (9, 3)), ("stress", (6,)), ("dipole", (3,)), ("energies", (9,))):
        for suffix in ("_rot_std", "_stderr"):
            assert np.shape(results[name + suffix]) == shape
            assert (results[name + suffix] >= 0).all()


def test_one_block_has_no_error_bar_and_one_pose_no_deviation():
    atoms = molecule("CO")
    one_block = SymmetrizedCalculator(Everything())
    one_block.get_property("energy", atoms)
    assert one_block.results["energy_stderr"] == math.inf
    assert np.isinf(one_block.results["stress_stderr"]).all()
    assert math.isfinite(one_block.results["energy_rot_std"])
    one_pose = SymmetrizedCalculator(Everything(), estimator=ps.MonteCarlo(1))
    one_pose.get_property("energy", atoms)
    assert one_pose.results["energy_rot_std"] == math.inf


def test_chunks_and_batches_change_nothing():
    atoms = molecule("CH3CH2OH")
    estimator = ps.MonteCarlo(48, design="octahedral")
    whole = SymmetrizedCalculator(PairNetwork(), estimator=estimator)
    in_chunks = SymmetrizedCalculator(PairNetwork(), estimator=estimator, chunk=5)
    sizes = []
    model = PairNetwork()

    def batch(poses, properties):
        sizes.append(len(poses))
        return model.calculate_batch(poses, properties)

    given = SymmetrizedCalculator(model, estimator=estimator, chunk=10, batch=batch)
    for name in ("energy", "forces"):
        wanted = whole.get_property(name, atoms)
        assert np.allclose(in_chunks.get_property(name, atoms), wanted, atol=1e-12)
        assert np.allclose(given.get_property(name, atoms), wanted, atol=1e-12)
    for name in ("energy_stderr", "forces_rot_std"):
        assert np.allclose(in_chunks.results[name], whole.results[name])
    assert max(sizes) == 10
    assert whole.calculator.calls == 1  # `calculate_batch` got all poses together
    assert in_chunks.calculator.calls > 8


def test_one_after_the_other_is_the_same_as_a_batch():
    atoms = molecule("CH3CH2OH")

    class Single(Differentiated):
        """A calculator without a way to evaluate many."""

        calculate_batch = None

        def calculate(self, atoms=None, properties=("energy",), system_changes=()):
            self.results = Differentiated.calculate_batch(self, [atoms], properties)[0]

    batch = SymmetrizedCalculator(PairNetwork()).get_property("forces", atoms)
    single = SymmetrizedCalculator(Single(PairEnergy())).get_property("forces", atoms)
    assert np.allclose(batch, single, atol=1e-13)


# ---------------------------------------------------------------- what ASE expects


def test_results_are_cached_until_something_changes():
    atoms = STRUCTURES["triclinic"]()
    base = Everything()
    atoms.calc = SymmetrizedCalculator(base)
    atoms.get_potential_energy()
    atoms.get_forces()
    atoms.get_stress()
    assert len(base.seen) == 24
    assert not atoms.calc.calculation_required(atoms, ["energy", "forces"])
    changes = [
        lambda: atoms.positions.__iadd__(0.01),
        lambda: atoms.set_cell(1.01 * atoms.cell.array),
        lambda: atoms.set_pbc([True, True, False]),
        lambda: atoms.set_initial_charges([0, 1, 0, 0]),
        lambda: atoms.set_atomic_numbers([29, 29, 79, 29]),
    ]
    for number, change in enumerate(changes, start=2):
        change()
        assert atoms.calc.calculation_required(atoms, ["energy"])
        assert atoms.calc.get_property("energy", atoms, allow_calculation=False) is None
        atoms.get_potential_energy()
        assert len(base.seen) == 24 * number


def test_declared_entries_are_watched():
    atoms = molecule("CO")
    atoms.info["field"] = np.array([0.0, 0.0, 1.0])
    base = Everything()
    calculator = SymmetrizedCalculator(base, info={"field": ps.Rep(SPACE)})
    calculator.get_property("energy", atoms)
    calculator.get_property("energy", atoms)
    assert len(base.seen) == 24
    atoms.info["field"] = np.array([0.0, 0.0, 2.0])
    assert calculator.check_state(atoms) == ["field"]
    calculator.get_property("energy", atoms)
    assert len(base.seen) == 48


def test_results_are_copies():
    atoms = molecule("CO")
    atoms.calc = SymmetrizedCalculator(Everything())
    forces = atoms.get_forces()
    forces += 1
    assert not np.allclose(atoms.get_forces(), forces)


def test_a_calculator_that_computes_what_it_is_asked_for_is_asked_once():
    class OnDemand(Everything):
        """Brings no more than it is asked for."""

        def calculate(self, atoms=None, properties=("energy",), system_changes=()):
            super().calculate(atoms, properties, system_changes)
            self.results = {name: value for name, value in self.results.items() if name in properties}

    atoms = molecule("CO")
    base = OnDemand()
    calculator = SymmetrizedCalculator(base)
    calculator.calculate(atoms, ["energy", "forces"], [])
    assert len(base.seen) == 24
    assert {"energy", "forces", "forces_stderr"} <= set(calculator.results)
    assert "dipole" not in calculator.results
    calculator.get_property("dipole", atoms)  # the rest stays, for the same structure
    assert {"energy", "forces", "dipole"} <= set(calculator.results)
    # no result of another pose or structure is left over
    other = molecule("N2")
    calculator.get_property("energy", other)
    assert "forces" not in calculator.results


def test_set_reset_and_copies():
    atoms = molecule("CO")
    calculator = SymmetrizedCalculator(Anisotropic(None, {4: 0.1}))
    first = calculator.get_property("energy", atoms)
    twin = copy.deepcopy(calculator)
    assert twin.get_property("energy", atoms) == first
    assert calculator.set(seed=0) == {}
    assert "energy" in calculator.results
    assert calculator.set(seed=5) == {"seed": 5}
    assert calculator.results == {}
    assert abs(calculator.get_property("energy", atoms) - first) > 1e-4
    assert twin.get_property("energy", atoms) == first  # a copy has settings of its own
    calculator.set(estimator=ps.MonteCarlo(60, design="icosahedral"))
    assert abs(calculator.get_property("energy", atoms)) < 1e-12
    assert calculator.poses == 60
    calculator.reset()
    assert calculator.atoms is None
    with pytest.raises(TypeError, match="poses: expected one of group"):
        calculator.set(poses=3)
    with pytest.raises(ValueError, match="seed"):
        calculator.set(seed=-1)
    assert calculator.parameters["seed"] == 5


def test_implemented_properties_are_those_of_known_rank():
    assert SymmetrizedCalculator(EMT()).implemented_properties == EMT().implemented_properties
    assert "polarizability" not in SymmetrizedCalculator(Everything()).implemented_properties
    assert "polarizability" in everything().implemented_properties
    assert set(SymmetrizedCalculator(Everything()).implemented_properties) <= set(all_properties)
    exported = SymmetrizedCalculator(Everything())
    exported.get_property("forces", molecule("CO"))
    assert "forces" in exported.export_properties()


def test_calculators_with_get_property_alone_are_served():
    class Plain:
        """No `calculate`, no cache."""

        implemented_properties = ("energy", "forces")

        def get_property(self, name, atoms=None, allow_calculation=True):
            return Anisotropic(EMT(), MILD).get_property(name, atoms)

    atoms = molecule("CO")
    assert SymmetrizedCalculator(Plain()).get_property("energy", atoms) == pytest.approx(
        EMT().get_property("energy", atoms), abs=1e-11
    )


def test_torch_calculators_differentiate_as_they_would_alone():
    """Poses are evaluated with gradients as the caller has them: on by default, off where he says so."""
    modes = []

    class Recording(Differentiated):
        def calculate_batch(self, structures, properties):
            modes.append(torch.is_grad_enabled())
            return super().calculate_batch(structures, properties)

    atoms = molecule("CO")
    calculator = SymmetrizedCalculator(Recording(PairEnergy()))
    calculator.get_property("forces", atoms)
    calculator.reset()
    with torch.no_grad():
        calculator.get_property("forces", atoms)
    assert modes == [True, False]


def test_unknown_and_missing_properties_are_refused_by_name():
    atoms = molecule("CO")
    with pytest.raises(PropertyNotImplementedError, match="polarizability: everything has it, and nothing says how"):
        SymmetrizedCalculator(Everything()).get_property("polarizability", atoms)
    with pytest.raises(PropertyNotImplementedError, match="dipole: emt does not implement it"):
        SymmetrizedCalculator(EMT()).get_property("dipole", atoms)
    with pytest.raises(PropertyNotImplementedError, match="dipole: emt"):
        SymmetrizedCalculator(EMT()).calculate(atoms, ["dipole"])
    with pytest.raises(PropertyNotImplementedError):
        SymmetrizedCalculator(EMT()).get_property("stress", atoms)  # EMT's own refusal, of molecules

    class Forgetful(EMT):
        """It says that it has forces, and brings none."""

        def calculate(self, atoms=None, properties=("energy",), system_changes=()):
            self.results = {"energy": 1.0}

    with pytest.raises(PropertyNotImplementedError, match="forces: Forgetful has no such result for this structure"):
        SymmetrizedCalculator(Forgetful()).get_property("forces", atoms)


def test_the_average_of_a_symmetric_calculator_is_that_calculator():
    for name in ("dimer", "triclinic"):
        atoms = STRUCTURES[name]()
        calculator = SymmetrizedCalculator(EMT(), ps.O(3))
        assert np.allclose(calculator.get_property("forces", atoms), EMT().get_property("forces", atoms), atol=1e-11)
        assert calculator.results["forces_rot_std"].max() < 1e-11


def test_bulk_stress_is_intensive():
    """The stress of a supercell is that of the cell, where a sum over poses or atoms would grow."""
    cell = bulk("Cu", a=3.5)
    calculator = SymmetrizedCalculator(Anisotropic(EMT(), MILD))
    one = calculator.get_property("stress", cell)
    two = calculator.get_property("stress", cell * (2, 1, 1))
    assert np.allclose(one, two, atol=1e-10)
    assert np.allclose(one, EMT().get_property("stress", cell), atol=1e-10)
