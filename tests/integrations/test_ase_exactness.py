"""How many poses remove an anisotropy of which degree, and whether the error bars are honest."""

from __future__ import annotations

import numpy as np
import pytest
import torch

pytest.importorskip("ase")
from ase import Atoms
from ase.build import molecule
from ase.calculators.calculator import Calculator, all_changes
from lab_axes import Morse, PairNetwork
from structures import violation

import probsym as ps
from probsym.integrations.ase import SymmetrizedCalculator

PAIR = Atoms("H2", positions=[[0.1, 0.2, 0.3], [1.5, 1.4, 2.0]])
BOUND = Morse().get_property("energy", PAIR), Morse().get_property("forces", PAIR)  # without axes
DESIGNS = {  # poses, highest degree that is removed, lowest even one that is not
    "octahedral": (24, 3, 4),
    "icosahedral": (60, 5, 6),
    "icosahedral-5": (300, 9, 10),
    "icosahedral-6": (360, 9, 10),
    "full-octahedral": (48, 3, 4),
    "full-icosahedral": (120, 5, 6),
    "full-icosahedral-5": (600, 9, 10),
    "full-icosahedral-6": (720, 9, 10),
}


def averaged(degrees, design):
    poses, _, _ = DESIGNS[design]
    group = ps.O(3) if design.startswith("full") else ps.SO(3)
    base = Morse(degrees=dict.fromkeys(degrees, 0.1))
    return SymmetrizedCalculator(base, group, ps.MonteCarlo(poses, design=design), seed=1)


@pytest.mark.parametrize("design", DESIGNS)
def test_a_design_removes_all_degrees_up_to_its_own_and_no_more(design):
    poses, highest, left = DESIGNS[design]
    calculator = averaged(range(1, highest + 1), design)
    energy, forces = BOUND
    assert abs(calculator.get_property("energy", PAIR) - energy) < 1e-14
    assert np.abs(calculator.get_property("forces", PAIR) - forces).max() < 1e-13  # a derivative: of the same degrees
    assert calculator.poses == poses
    calculator = averaged([left], design)
    assert abs(calculator.get_property("energy", PAIR) - energy) > 1e-5  # negative control


class DirectForces(Calculator):
    """Forces of one degree in the direction of the bond, along the z axis of the laboratory; no energy has them."""

    implemented_properties = ("energy", "forces")

    def __init__(self, degree):
        super().__init__()
        self.degree = degree

    def calculate(self, atoms=None, properties=("energy",), system_changes=tuple(all_changes)):
        super().calculate(atoms, properties, system_changes)
        bond = self.atoms.positions[1] - self.atoms.positions[0]
        cosine = bond[2] / np.linalg.norm(bond)
        size = np.polynomial.legendre.Legendre.basis(self.degree)(cosine)
        self.results = {"energy": 0.0, "forces": size * np.array([[0, 0, 1.0], [0, 0, -1.0]])}


def test_of_direct_forces_one_degree_less_is_removed():
    """R F(R^T x) is of one degree more in R than F: octahedral poses remove degrees 0 and 2 of F, and not 3."""
    found = {}
    for degree in (0, 2, 3):
        forces = SymmetrizedCalculator(DirectForces(degree), seed=3).get_property("forces", PAIR)
        bond = PAIR.positions[1] - PAIR.positions[0]
        across = forces[0] - (forces[0] @ bond) / (bond @ bond) * bond
        found[degree] = np.abs(across).max()  # what an average over all rotations leaves is along the bond
    assert found[0] < 1e-15
    assert found[2] < 1e-15
    assert found[3] > 1e-4


def test_averages_over_two_sets_of_frozen_poses_differ_by_what_is_left():
    """Invariance of frozen poses is that of their design: exact for mild anisotropy, and an error for a rough one."""
    atoms = molecule("H2O")
    R = np.array([[0.36, 0.48, -0.8], [-0.8, 0.6, 0], [0.48, 0.64, 0.6]])
    few = violation(SymmetrizedCalculator(PairNetwork()), atoms, ["energy"], R)["energy"]
    estimator = ps.MonteCarlo(360, design="icosahedral-6")
    many = violation(SymmetrizedCalculator(PairNetwork(), estimator=estimator), atoms, ["energy"], R)["energy"]
    bare = violation(PairNetwork(), atoms, ["energy"], R)["energy"]
    assert bare > 10 * few > 100 * many > 0


# ---------------------------------------------------------------- error bars

COVERED = 300  # structures


@pytest.mark.parametrize(
    ("estimator", "within_one", "within_two"),
    [
        # Student's t of 31 and of 15 degrees of freedom; with infinitely many 0.683 and 0.950
        (ps.MonteCarlo(32), 0.675, 0.941),
        pytest.param(ps.MonteCarlo(16 * 24, design="octahedral"), 0.667, 0.931, marks=pytest.mark.slow),
    ],
)
def test_the_truth_is_within_the_stated_errors_as_often_as_it_should(estimator, within_one, within_two):
    """300 random structures; five standard deviations of the counts, so that it fails in one of a million cases."""
    positions = np.random.default_rng(0).normal(size=(COVERED, 3, 3))

    # The truth, for all structures in one batch: exact up to degree 9, and beyond that nothing is left but rounding.
    model = Morse(anisotropy=0.3).energy
    phi = ps.symmetrize(model, ps.Rep(None, ps.SO(3)), ps.Rep(), "haar").eval()
    with torch.no_grad():
        truth = phi.frozen(0)(torch.from_numpy(positions), estimator=ps.MonteCarlo(360, design="icosahedral-6"))

    deviations = []
    for number in range(COVERED):
        stated = SymmetrizedCalculator(Morse(anisotropy=0.3), estimator=estimator, seed=number)
        energy = stated.get_property("energy", Atoms("H3", positions=positions[number]))
        deviations.append((energy - float(truth[number])) / stated.results["energy_stderr"])
    for limit, share in ((1, within_one), (1.96, within_two)):
        counted = int((np.abs(deviations) < limit).sum())
        spread = np.sqrt(COVERED * share * (1 - share))
        assert abs(counted - COVERED * share) < 5 * spread
