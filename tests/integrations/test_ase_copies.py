"""One calculator for each frozen pose: the same results, and what a calculator keeps from step to step is kept."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

pytest.importorskip("ase")
from ase import units
from ase.build import bulk, molecule
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.md.verlet import VelocityVerlet
from ase.neighborlist import PrimitiveNeighborList
from lab_axes import Anisotropic, PairNetwork
from structures import Everything, low_symmetry_crystal

import probsym as ps
from probsym.integrations.ase import SymmetrizedCalculator

STEPS = 2


@pytest.fixture
def builds(monkeypatch):
    """Counts how often a list of neighbours is made."""
    made = []
    build = PrimitiveNeighborList.build

    def counted(self, *args, **kwargs):
        made.append(self)
        return build(self, *args, **kwargs)

    monkeypatch.setattr(PrimitiveNeighborList, "build", counted)
    return made


def walk(calculator):
    """Energies, forces and stresses along a few small steps of a crystal."""
    atoms = low_symmetry_crystal()
    atoms.calc = calculator
    random = np.random.default_rng(0)
    found = []
    for _ in range(STEPS):
        atoms.positions += 0.01 * random.normal(size=atoms.positions.shape)
        found.append((atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress()))
    return found


MODES = {
    "rotations": (24, {}),
    "reflections too": (48, {"group": ps.O(3)}),
    "a finite group": (24, {"group": ps.Octahedral(), "seed": None}),
    "in chunks, with the space group": (24, {"chunk": 5, "space_group": 1e-5}),
    "the space group alone": (1, {"group": None, "space_group": 1e-5}),
    "an accuracy": (None, {"tol": 1.0}),
}


@pytest.mark.parametrize("mode", MODES)
def test_copies_change_no_result_and_make_one_list_of_neighbours_each(mode, builds):
    poses, options = MODES[mode]
    group = options.get("group", ps.SO(3))
    wanted = walk(SymmetrizedCalculator(LennardJones(sigma=2.3, epsilon=0.1, rc=4.0), **options))
    without = len(builds)
    builds.clear()
    calculator = SymmetrizedCalculator(LennardJones(sigma=2.3, epsilon=0.1, rc=4.0), **options, copies=True)
    found = walk(calculator)
    for one, other in zip(wanted, found, strict=True):
        for value, reference in zip(other, one, strict=True):
            assert np.allclose(value, reference, rtol=1e-11, atol=1e-11)
    if poses is None:
        poses = calculator.poses
        assert len(builds) <= without / STEPS
        return
    assert len(builds) == poses
    if group is not None:
        assert without == STEPS * poses  # the control: one calculator makes a new one for each pose of each step


def test_deviations_and_errors_are_the_same_with_copies():
    atoms = molecule("H2O")
    found = []
    for copies in (False, True):
        estimator = ps.MonteCarlo(48, design="octahedral")
        calculator = SymmetrizedCalculator(Anisotropic(EMT(), {2: 0.02, 4: 0.02}), estimator=estimator, copies=copies)
        calculator.get_property("forces", atoms)
        found.append(calculator.results)
    assert found[0].keys() == found[1].keys()
    for name, value in found[0].items():
        assert np.allclose(value, found[1][name], atol=1e-12), name


def test_dynamics_keeps_the_neighbours_of_every_pose(builds):
    energies = []
    for copies in (False, True):
        atoms = bulk("Cu", cubic=True)
        atoms.rattle(0.05, seed=0)
        atoms.calc = SymmetrizedCalculator(EMT(), copies=copies)
        builds.clear()
        VelocityVerlet(atoms, 1 * units.fs).run(2)
        energies.append(atoms.get_total_energy())
        assert len(builds) == (24 if copies else 24 * 3)
    assert energies[0] == pytest.approx(energies[1], abs=1e-11)


def test_a_change_of_elements_reaches_every_copy():
    atoms = molecule("CO")
    calculator = SymmetrizedCalculator(EMT(), copies=True)
    calculator.get_property("energy", atoms)
    atoms.numbers[1] = 7
    assert calculator.get_property("energy", atoms) == pytest.approx(EMT().get_property("energy", atoms), abs=1e-10)
    other = molecule("CH3CH2OH")
    assert calculator.get_property("energy", other) == pytest.approx(EMT().get_property("energy", other), abs=1e-10)


class Shared(Calculator):
    """An energy from a network that instances share; it refuses to be copied."""

    implemented_properties = ("energy",)

    def __init__(self, network):
        super().__init__()
        self.network = network

    def __deepcopy__(self, memo):
        raise TypeError("a handle of a library in C")

    def calculate(self, atoms=None, properties=("energy",), system_changes=tuple(all_changes)):
        super().calculate(atoms, properties, system_changes)
        self.results = {"energy": self.network.get_property("energy", atoms)}


def test_a_function_makes_calculators_that_share_what_is_large():
    atoms = molecule("H2O")
    network = PairNetwork()
    made = []

    def another():
        made.append(Shared(network))
        return made[-1]

    calculator = SymmetrizedCalculator(Shared(network), copies=another)
    wanted = SymmetrizedCalculator(Shared(network)).get_property("energy", atoms)
    assert calculator.get_property("energy", atoms) == pytest.approx(wanted, abs=1e-12)
    assert len(made) == 24
    atoms.positions[0, 0] += 0.01
    calculator.get_property("energy", atoms)
    assert len(made) == 24
    with pytest.raises(TypeError, match=r"copies: shared cannot be copied \(TypeError: a handle .*copies=lambda"):
        SymmetrizedCalculator(Shared(network), copies=True).get_property("energy", atoms)


def test_settings_of_the_calculator_are_seen_at_the_next_calculation():
    """So are another calculator, and with `reset` what no settings tell; copies are made again each time."""
    atoms = low_symmetry_crystal()
    for copies in (False, True):
        base = LennardJones(sigma=2.3, epsilon=0.1, rc=4.0)
        calculator = SymmetrizedCalculator(base, copies=copies)
        before = calculator.get_property("energy", atoms)
        assert calculator.check_state(atoms) == []
        base.set(epsilon=0.2)
        assert calculator.check_state(atoms) == ["calculator"]
        assert calculator.calculation_required(atoms, ["energy"])
        assert calculator.get_property("energy", atoms) == pytest.approx(2 * before, rel=1e-12)
        base.set(epsilon=0.2)
        assert calculator.check_state(atoms) == []
        calculator.calculator = LennardJones(sigma=2.3, epsilon=0.3, rc=4.0)
        assert calculator.get_property("energy", atoms) == pytest.approx(3 * before, rel=1e-12)

    base = Everything(amplitude=0.0)
    calculator = SymmetrizedCalculator(base, ps.SO(3, about="z"), copies=True)
    before = calculator.get_property("forces", atoms)
    base.amplitude = 1.0
    calculator.reset()
    assert np.abs(calculator.get_property("forces", atoms) - before - [0, 0, 1]).max() < 1e-12


def test_copies_and_pickles_of_the_whole_make_copies_of_their_own():
    atoms = molecule("CH3CH2OH")
    calculator = SymmetrizedCalculator(EMT(), copies=True)
    energy = calculator.get_property("energy", atoms)
    bare = len(pickle.dumps(SymmetrizedCalculator(EMT())))
    assert len(pickle.dumps(calculator)) < 5 * bare  # and not 24 times as long
    for twin in (copy.deepcopy(calculator), pickle.loads(pickle.dumps(calculator))):
        assert twin.results["energy"] == energy
        assert twin.check_state(atoms) == []
        atoms.positions[0, 0] += 0.01
        other = twin.get_property("energy", atoms)
        assert other == pytest.approx(EMT().get_property("energy", atoms), abs=1e-10)
        atoms.positions[0, 0] -= 0.01
    assert calculator.get_property("energy", atoms, allow_calculation=False) == energy


def test_records_tell_of_copies():
    assert SymmetrizedCalculator(EMT(), copies=True).todict()["copies"] is True
    assert "copies" not in SymmetrizedCalculator(EMT()).todict()
    assert "EMT" in SymmetrizedCalculator(EMT(), copies=EMT).todict()["copies"]
    calculator = SymmetrizedCalculator(EMT())
    assert calculator.set(copies=True) == {"copies": True}
    assert calculator.set(copies=True) == {}


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: SymmetrizedCalculator(EMT(), copies=24), TypeError, "copies: expected True, False or a function"),
        (lambda: SymmetrizedCalculator(EMT(), copies=None), TypeError, "copies: expected True, False or a function"),
        (
            lambda: SymmetrizedCalculator(EMT(), seed=None, copies=True),
            ValueError,
            "copies: expected frozen poses, .* got seed=None",
        ),
        (
            lambda: SymmetrizedCalculator(PairNetwork(), copies=True),
            ValueError,
            "copies: expected False, since differentiated evaluates poses together, got True",
        ),
        (
            lambda: SymmetrizedCalculator(EMT(), copies=True, batch=lambda poses, properties: []),
            ValueError,
            "copies: expected False, since emt evaluates poses together",
        ),
        (lambda: SymmetrizedCalculator(EMT(), copies=True).set(seed=None), ValueError, "copies: expected frozen poses"),
    ],
)
def test_copies_that_could_not_help_are_refused_by_name(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_functions_that_make_no_other_calculator_are_refused_by_name():
    atoms = molecule("CO")
    one = EMT()
    for copies, error, message in (
        (lambda: 3, TypeError, "copies: expected a calculator of ASE, got int 3"),
        (lambda: EMT, TypeError, "copies: expected a calculator of ASE, got ABCMeta"),
        (lambda: one, ValueError, "copies: expected a function that makes another calculator at each call"),
    ):
        calculator = SymmetrizedCalculator(EMT(), copies=copies)
        with pytest.raises(error, match=message):
            calculator.get_property("energy", atoms)
        assert calculator.results == {}
