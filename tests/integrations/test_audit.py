"""The audit: sound potentials pass all rows, and each row flags what it is made for, and nothing else."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

pytest.importorskip("ase")

from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.calculators.morse import MorsePotential
from tests.integrations import potentials

from probsym.estimators import finite
from probsym.integrations.ase import SymmetrizedCalculator
from probsym.integrations.audit import SYMMETRIES, AuditError, Moved, Symmetry, Tolerances, audit, draw
from probsym.integrations.audit.moves import LeftHanded, random_rotations
from probsym.integrations.audit.outcome import judge, mean_square_p_value
from probsym.integrations.audit.poses import spectrum

FEW = {"poses": 4, "paths": 2, "spectrum": "never"}
TRICLINIC = Atoms("Cu3", [[0, 0, 0], [1.1, 0.2, 2], [2.5, 1, 0.3]], cell=[[4, 0, 0], [1, 5, 0], [2, 1, 6]], pbc=True)
WIRE = Atoms("Cu2", [[0, 0, 0], [0, 0, 2.4]], cell=[0, 0, 5], pbc=[False, False, True])


def cluster() -> Atoms:
    """Six atoms without symmetry."""
    rng = np.random.default_rng(3)
    corners = np.array([[0, 0, 0], [2, 0, 0], [0, 2, 0], [0, 0, 2], [2, 2, 0], [1, 1, -2]], dtype=float)
    return Atoms("CNOCNO", corners + 0.2 * rng.standard_normal((6, 3)))


def lennard_jones() -> LennardJones:
    return LennardJones(sigma=2.2, epsilon=0.1, rc=6.0, smooth=True)


def violated(report) -> set[str]:
    return {outcome.row for _, outcome in report.violations}


# ---------------------------------------------------------------- sound potentials


@pytest.mark.parametrize(
    ("calculator", "structure"),
    [
        (EMT(), bulk("Cu")),
        (EMT(), bulk("Cu", cubic=True)),
        (EMT(), fcc111("Cu", (1, 1, 2), vacuum=5.0)),
        (EMT(), molecule("CH3CH2OH")),
        (lennard_jones(), bulk("Ti")),
        (lennard_jones(), bulk("NaCl", "rocksalt", a=5.64)),
        (lennard_jones(), TRICLINIC),
        (lennard_jones(), WIRE),
        (lennard_jones(), molecule("CO2")),
        (lennard_jones(), Atoms("Ar")),
        (MorsePotential(r0=2.2, epsilon=0.1), molecule("NH3")),
        (potentials.sound, cluster()),
    ],
    ids=lambda value: "" if not isinstance(value, Atoms) else str(value.get_chemical_formula()),
)  # fmt: skip
def test_sound_potentials_pass(calculator, structure):
    report = audit(calculator, structure, **FEW)
    assert report.passed, str(report)
    for outcome in report.structures[0].outcomes:
        if outcome.row in (
            "rotation",
            "reflection",
            "translation",
            "permutation",
            "images",
            "cell choice",
            "left-handed",
        ):
            assert outcome.verdict == "exact"
    skipped = report.structures[0].skipped
    assert ("images" in skipped) == (not structure.pbc.any())
    assert ("stress=dE/de" in skipped) == (not structure.pbc.all())


def test_single_precision_passes_at_its_rounding():
    """Tolerances below its rounding: none of the rows is flagged, and those of double precision would be.

    Deviations beyond ten times the measured rounding come up with probability below 1e-5 in this test.
    """
    strict = Tolerances(energy=1e-7, forces=1e-7, stress=1e-7)
    report = audit(potentials.single, cluster(), tolerances=strict, **FEW)
    assert report.passed, str(report)
    rounding = report.structures[0].rounding
    assert rounding.energy > 1e-4
    assert report.worst("rotation", "forces")[1].worst > strict.forces


# ---------------------------------------------------------------- one failure each


@pytest.mark.parametrize(
    ("model", "rows"),
    [
        (potentials.lab_axes, {"rotation"}),
        (potentials.global_direction, {"rotation"}),
        (potentials.ordered, {"permutation"}),
        (potentials.anchored, {"translation"}),
        (potentials.handed, {"reflection"}),
        (potentials.no_gradient, {"F = -dE/dx", "curl of F"}),
        (potentials.another_energy, {"F = -dE/dx"}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_row_flags_what_it_is_made_for(model, rows):
    report = audit(model, cluster(), **FEW)
    assert violated(report) == rows, str(report)
    for _, outcome in report.violations:
        assert outcome.worst > 3 * outcome.limit


@pytest.mark.parametrize(
    ("model", "rows"),
    [
        (potentials.unwrapped, {"images", "cell choice"}),
        (potentials.nearest_by_cell, {"cell choice", "supercell"}),
        (potentials.altered("size"), {"supercell"}),
        (potentials.altered("stress"), {"stress=dE/de"}),
        (potentials.altered("signed volume"), {"left-handed"}),
    ],
    ids=["unwrapped", "nearest by cell", "size", "stress", "signed volume"],
)
def test_a_row_of_crystals_flags_what_it_is_made_for(model, rows):
    report = audit(model, bulk("Cu", a=3.4, cubic=True), **FEW)
    assert violated(report) == rows, str(report)


def test_left_handed_cells_may_be_refused_and_not_answered_with_what_is_no_number():
    options = {**FEW, "symmetries": [LeftHanded()]}
    report = audit(potentials.altered("left-handed is refused"), bulk("Cu"), **options)
    assert report.passed
    assert report.structures[0].skipped["left-handed"] == "the calculator refuses such structures"
    with pytest.raises(AuditError, match="left-handed: energy: expected finite numbers"):
        audit(potentials.altered("left-handed is nan"), bulk("Cu"), **options)
    with pytest.raises(AuditError, match="left-handed: energy: expected real numbers; got complex ones"):
        audit(potentials.altered("left-handed is complex"), bulk("Cu"), **options)


class Heavier(Symmetry):
    """A row of one's own: isotopes have one energy."""

    name = "isotopes"

    def moves(self, atoms, count, rng):
        for _ in range(count):
            heavier = atoms.copy()
            heavier.set_masses(2 * atoms.get_masses())
            yield Moved(heavier)


def test_a_row_of_ones_own():
    def weighs(atoms):
        return {"energy": 1e-3 * float(atoms.get_masses().sum())}

    rows = [*SYMMETRIES, Heavier()]
    assert violated(audit(weighs, cluster(), symmetries=rows, **FEW)) == {"isotopes"}
    assert audit(potentials.sound, cluster(), symmetries=rows, **FEW).passed


def test_a_calculator_without_forces_is_audited_on_what_it_has():
    report = audit(potentials.Field(), Atoms("H", [[0.6, -0.7, 0.4]]), **FEW)
    assert violated(report) == {"rotation", "reflection", "translation"}
    assert report.structures[0].skipped["curl of F"] == "the calculator has no forces"


def test_a_random_calculator_is_not_excused_by_its_own_noise():
    report = audit(potentials.Random(), cluster(), **FEW)
    assert {"same again", "rounding", "rotation", "translation"} <= violated(report)


def test_symmetric_positions_hide_a_violation_that_a_rattle_shows():
    square = Atoms("C4", [[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0]])
    assert audit(potentials.handed, square, rattle=0.0, **FEW).passed
    assert violated(audit(potentials.handed, square, rattle=0.2, **FEW)) == {"reflection"}


# ---------------------------------------------------------------- spectrum and averages


def test_spectrum_and_averages_of_polynomials():
    """One atom in a field: x^4 + y^4 + z^4 has degree 4 alone, and 2.5 xyz degree 3, which is odd."""

    atom = Atoms("H", [[0.6, -0.7, 0.4]])
    report = audit(potentials.field, atom, rattle=0.0, poses=4, paths=1).structures[0]
    found = report.spectra["energy"]
    # The variances over the sphere of radius r: 16/525 r^8 and 2.5^2 r^6 / 105.
    square = float((atom.positions**2).sum())
    expected = [0, 0, 2.5**2 * square**3 / 105, 16 / 525 * square**4, 0, 0, 0, 0, 0]
    assert np.allclose(found.power, expected, atol=1e-9)
    assert found.variance == pytest.approx(sum(expected))
    assert abs(found.rest) < 1e-9

    left = {one.size: one.spread for one in report.residuals["energy"]}
    assert left[1] == pytest.approx(math.sqrt(sum(expected)), rel=0.05)
    # Both terms are tetrahedral in the axes of the lab, and so of the design, and the first is octahedral.
    assert left[12] == pytest.approx(left[1], rel=0.1)
    assert left[24] == pytest.approx(math.sqrt(expected[3]), rel=0.2)
    assert max(left[60], left[120], left[300]) < 1e-7

    # What the calculator of the library leaves, over seeds: the relative error of a spread of 60 is 0.1.
    averages = []
    for seed in range(60):
        averaged = SymmetrizedCalculator(potentials.Field(), seed=seed)
        averages.append(1e3 * averaged.get_potential_energy(atom))
    assert np.std(averages) == pytest.approx(left[24], rel=0.5)


def test_the_spectrum_of_a_step_is_unbiased():
    """sign(z) has no largest degree; P_l = (2 l + 1) (int_0^1 P_l)^2 for odd l, so 3/4, 0, 7/64.

    The mean over 40 seeds is within six of its own standard errors, and the stated errors are of the right size.
    """
    design = finite.icosahedral()
    estimates = []
    errors = []
    for seed in range(40):
        rotations = random_rotations(4, np.random.default_rng(seed))[:, None] @ design
        steps = np.sign(rotations[..., 2, 2])[..., None]
        found = spectrum(rotations, steps, np.ones(60), largest=3)
        estimates.append([*found.power, found.variance])
        errors.append([*found.stderr, found.variance_stderr])
    estimates = np.array(estimates)
    expected = np.array([3 / 4, 0, 7 / 64, 1])
    spread = estimates.std(0, ddof=1)
    assert (np.abs(estimates.mean(0) - expected) < 6 * spread / math.sqrt(40) + 1e-12).all()
    stated = np.sqrt(np.square(errors).mean(0))
    assert (stated[:3] > 0.5 * spread[:3]).all()
    assert (stated[:3] < 3 * spread[:3]).all()


def test_the_spectrum_needs_two_cosets():
    with pytest.raises(ValueError, match="two random cosets; got 1"):
        spectrum(np.eye(3)[None, None], np.zeros((1, 1, 1)), np.ones(1))


# ---------------------------------------------------------------- statistics


def test_p_values_are_valid_for_heavy_tails_and_see_rare_jumps():
    """1,000 audits of a law at the limit whose mean square comes from rare draws: p < 0.01 at most 10 times on average.

    More than 35 of 1,000 have probability below 1e-9 for a valid p-value.
    """
    rng = np.random.default_rng(0)
    hits = rng.random((1000, 24)) < 0.05
    values = np.where(hits, math.sqrt(1 / 0.05), 0.0)  # mean square one
    small = sum(mean_square_p_value(row, 1.0) < 0.01 for row in values)
    assert small <= 35
    assert mean_square_p_value(np.full(24, 1.6), 1.0) < 1e-3
    rare = np.zeros(24)
    rare[5] = 1000.0
    assert mean_square_p_value(rare, 1.0) < 1e-3


def test_verdicts():
    far = judge("rotation", "energy", np.array([0.0, 0.0, 0.2]), tolerance=0.1, rounding=1e-9)
    near = judge("rotation", "energy", np.array([0.0, 0.05]), tolerance=0.1, rounding=1e-9)
    rounded = judge("rotation", "energy", np.array([0.0, 0.5]), tolerance=0.1, rounding=0.06)
    assert (far.verdict, near.verdict, rounded.verdict) == ("VIOLATED", "within", "exact")
    assert (far.passed, near.passed, rounded.passed) == (False, True, True)
    assert rounded.limit == pytest.approx(0.6)


# ---------------------------------------------------------------- what it says, and what it refuses


def test_the_report_fits_80_columns_and_is_json():
    report = audit(potentials.lab_axes, [cluster(), Atoms("H")], poses=3, paths=1)
    assert max(len(line) for line in str(report).splitlines()) <= 80
    assert "VIOLATED" in str(report)
    content = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert content["passed"] is False
    assert content["structures"][1]["spectra"] == {}
    assert content["structures"][0]["spectra"]["energy"]["degrees"] == list(range(1, 10))
    assert len(draw(report).axes) == 3
    assert len(draw(audit(potentials.sound, cluster(), **FEW)).axes) == 1


def test_the_legend_of_the_figure_names_what_is_in_it():
    def legend(calculator, structure):
        texts = draw(audit(calculator, structure, **FEW)).axes[0].get_legend().get_texts()
        return [text.get_text() for text in texts]

    assert legend(potentials.sound, cluster()) == ["energy", "forces"]
    assert legend(potentials.lab_axes, cluster()) == ["energy", "violated"]
    assert legend(EMT(), bulk("Cu", cubic=True)) == ["energy", "forces", "stress"]


class Together(Calculator):
    """The sound potential, which evaluates structures of the same atoms together, and says how many at once."""

    implemented_properties = ("energy", "forces")

    def __init__(self):
        super().__init__()
        self.sizes = []

    def calculate_batch(self, structures, properties):
        for atoms in structures:
            assert np.array_equal(atoms.numbers, structures[0].numbers)
        assert list(properties) == ["energy", "forces"]
        self.sizes.append(len(structures))
        return [potentials.sound(atoms) for atoms in structures]

    def calculate(self, atoms=None, properties=("energy",), system_changes=tuple(all_changes)):
        super().calculate(atoms, list(properties), list(system_changes))
        self.results = potentials.sound(self.atoms)


def test_moved_structures_are_evaluated_together_where_the_calculator_can():
    structures = [molecule("H2O"), bulk("Cu", cubic=True)]
    calls = []
    calculator = Together()
    options = {**FEW, "poses": 33, "paths": 1}
    report = audit(calculator, structures, progress=lambda *state: calls.append(state), **options)
    one_by_one = audit(potentials.sound, structures, **options).to_dict()
    together = report.to_dict()
    assert max(calculator.sizes) == 32
    assert len(calls) == sum(structure.evaluations for structure in report.structures)
    for one, other in zip(one_by_one["structures"], together["structures"], strict=True):
        assert one["outcomes"] == other["outcomes"]
        assert one["evaluations"] == other["evaluations"]

    calculator = Together()
    spectrum_too = audit(calculator, molecule("H2"), poses=1, paths=1, spectrum="always")
    assert sum(calculator.sizes) > 4 * 420
    assert spectrum_too.structures[0].spectra["forces"].variance < 1e-12


def test_a_batch_that_is_wrong_is_an_audit_error():
    for returned, named in (
        ([], "expected 4 results; got 0"),
        ([3] * 4, "expected dicts of results; got int"),
        ([{"energy": 0.0}] * 4, "expected energy, forces; got \\['energy'\\]"),
    ):
        calculator = Together()
        calculator.calculate_batch = lambda structures, properties, returned=returned: returned
        with pytest.raises(AuditError, match=f"0 H2, rotation: calculate_batch: {named}"):
            audit(calculator, molecule("H2"), **FEW)


def test_a_batch_that_does_not_turn_is_found():
    """A control: forces of a batch that are those of its first structure."""
    calculator = Together()
    right = calculator.calculate_batch
    calculator.calculate_batch = lambda structures, properties: right(structures[:1], properties) * len(structures)
    atoms = molecule("H2O")
    report = audit(calculator, atoms, **FEW)
    assert ("rotation", "forces") in {(outcome.row, outcome.quantity) for _, outcome in report.violations}


def test_a_kink_in_the_forces_is_no_violation_and_is_told():
    """Forces that jump where a pair leaves the cutoff are a gradient; integrals across the jump are known less well."""
    report = audit(LennardJones(sigma=2.2, epsilon=1.0, rc=5.2), bulk("Ti"), poses=1, paths=3, spectrum="never")
    assert report.passed
    assert report.worst("F = -dE/dx", "forces")[1].limit > 2
    assert "F = -dE/dx, 0 Ti2: limit" in str(report)
    assert max(len(line) for line in str(report).splitlines()) <= 80


def test_the_same_seed_says_the_same_and_nothing_is_changed():
    structure = cluster()
    before = structure.copy()
    calls = []
    first = audit(potentials.sound, structure, seed=3, progress=lambda *state: calls.append(state), **FEW)
    assert first.to_dict() == audit(potentials.sound, structure, seed=3, **FEW).to_dict()
    assert first.to_dict() != audit(potentials.sound, structure, seed=4, **FEW).to_dict()
    assert structure == before
    assert calls[-1][0] == first.structures[0].evaluations
    assert all(done <= planned for done, planned, _ in calls)


@pytest.mark.parametrize(
    ("calculator", "structures", "options", "named"),
    [
        (EMT, bulk("Cu"), {}, "calculator: expected an ASE calculator"),
        (EMT(), [], {}, "structures: expected at least one"),
        (EMT(), ["Cu"], {}, r"structures\[0\]: expected ase.Atoms; got str"),
        (EMT(), Atoms(), {}, r"structures\[0\]: expected at least one atom"),
        (EMT(), Atoms("Cu2", np.zeros((2, 3))), {}, "atoms 0 and 1 are 0 A apart"),
        (EMT(), Atoms("Cu", pbc=True), {}, "expected independent lattice vectors"),
        (EMT(), Atoms("Cu", [[math.nan, 0, 0]]), {}, "expected finite positions"),
        (EMT(), bulk("Na"), {}, "0 Na: the calculator failed: NotImplementedError"),
        (potentials.altered("nan"), bulk("Cu"), {}, "forces: expected finite numbers"),
        (potentials.altered("shape"), bulk("Cu"), {}, r"forces: expected shape \(1, 3\); got \(3,\)"),
        (lambda atoms: {"forces": 0}, bulk("Cu"), {}, "expected an energy; got"),
        (EMT(), bulk("Cu"), {"poses": 0}, "poses: expected an integer of at least 1"),
        (EMT(), bulk("Cu"), {"blocks": 3}, "blocks: expected at least 4"),
        (EMT(), bulk("Cu"), {"rattle": -1}, "rattle: expected a displacement"),
        (EMT(), bulk("Cu"), {"spectrum": "yes"}, "spectrum: expected one of 'auto'"),
        (EMT(), bulk("Cu"), {"seed": -1}, "seed: expected"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_by_name(calculator, structures, options, named):
    with pytest.raises((ValueError, TypeError), match=named):
        audit(calculator, structures, **options)


def test_a_failure_of_the_calculator_is_an_audit_error_with_its_cause():
    with pytest.raises(AuditError) as caught:
        audit(EMT(), bulk("Na"))
    assert isinstance(caught.value.__cause__, NotImplementedError)


@pytest.mark.parametrize("value", [0, -1.0, math.inf, math.nan, True, "1"])
def test_tolerances_are_positive_numbers(value):
    with pytest.raises(ValueError, match="tolerances: forces: expected a positive number of meV/A"):
        Tolerances(forces=value)
