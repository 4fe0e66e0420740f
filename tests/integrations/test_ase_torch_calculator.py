"""`TorchCalculator`: models of the library in ASE's dynamics, relaxation and finite differences."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import probsym as ps

ase = pytest.importorskip("ase")

from ase import Atoms, units  # noqa: E402
from ase.build import bulk, molecule  # noqa: E402
from ase.calculators.calculator import PropertyNotImplementedError  # noqa: E402
from ase.calculators.fd import calculate_numerical_forces, calculate_numerical_stress  # noqa: E402
from ase.md.verlet import VelocityVerlet  # noqa: E402
from lab_axes import ClusterEnergy, capped_tetrahedron  # noqa: E402

from probsym.integrations.ase import TorchCalculator  # noqa: E402

SPACE = ps.SE(3, "space")
POINTS = ps.Rep(None, SPACE)


def positions(atoms: Atoms) -> dict[str, Tensor]:
    return {"pos": torch.from_numpy(atoms.positions.copy())[None]}


def bare(part: float) -> TorchCalculator:
    return TorchCalculator(ClusterEnergy(part).eval(), positions, reps={"pos": POINTS}, output=ps.Rep())


@pytest.fixture(scope="module")
def cluster() -> Atoms:
    """Four atoms and one above each face, relaxed without the directional part; velocities of 10 K."""
    atoms = capped_tetrahedron(ClusterEnergy())
    generator = np.random.default_rng(0)
    spread = np.sqrt(10 * units.kB * atoms.get_masses())
    atoms.set_momenta(spread[:, None] * generator.standard_normal((8, 3)))
    return atoms


def energies(atoms: Atoms, calculator: TorchCalculator) -> np.ndarray:
    """Total energies, in meV, along 150 fs without a thermostat."""
    atoms = atoms.copy()
    atoms.calc = calculator
    dynamics = VelocityVerlet(atoms, 2 * units.fs)
    found = [atoms.get_total_energy()]
    for _ in range(75):
        dynamics.run(1)
        found.append(atoms.get_total_energy())
    return 1000 * np.array(found)


def test_dynamics_from_a_symmetric_shape_keeps_its_energy(cluster: Atoms) -> None:
    """Within ten times the drift of the model alone, and no step above 1 meV; frames, a control, jump."""
    directional = ClusterEnergy(0.02)
    phis = {
        "weighted": ps.symmetrize(directional, {"pos": POINTS}, ps.Rep(), ps.WeightedFrame(SPACE)),
        "frozen": ps.symmetrize(
            directional, {"pos": POINTS}, ps.Rep(), "haar", eval_samples=ps.MonteCarlo(24, design="octahedral")
        ),
        "frame": ps.symmetrize(directional, {"pos": POINTS}, ps.Rep(), "frame"),
    }
    reference = energies(cluster, bare(0.02))
    allowed = 10 * np.abs(reference - reference[0]).max()
    assert allowed < 1
    for name in ("weighted", "frozen"):
        phi = phis[name].eval()
        found = energies(cluster, TorchCalculator(phi.frozen(0) if name == "frozen" else phi, positions))
        assert np.abs(found - found[0]).max() < allowed
        assert np.abs(np.diff(found)).max() < 1
    found = energies(cluster, TorchCalculator(phis["frame"].eval(), positions))
    assert np.abs(np.diff(found)).max() > 10


# ---------------------------------------------------------------- derivatives, padding, errors


class Periodic(nn.Module):
    """Plane waves in an arbitrary cell: an energy of fractional coordinates and of the cell."""

    def forward(self, pos: Tensor, cell: Tensor, mask: Tensor) -> Tensor:
        fractions = torch.linalg.solve(cell.mT, pos.mT).mT
        waves = (6.283185307179586 * fractions * torch.tensor([1.0, 2.0, 3.0]).double()).cos().sum(-1)
        turned = (cell @ torch.tensor([1.0, 0.5, 0.2]).double()).sin().sum(-1)
        return (waves * mask).sum(1) + turned + torch.linalg.det(cell) / 50


def test_derivatives_are_those_that_ase_measures() -> None:
    """Forces, and stresses with ASE's sign and order, of a padded model with a skewed cell; under frozen poses."""
    atoms_axis = ps.Axis("atoms", mask="mask")
    inputs = {"pos": ps.Rep(atoms_axis, SPACE), "cell": ps.Rep(None, SPACE.vector)}
    phi = ps.symmetrize(Periodic(), inputs, ps.Rep(), "haar", eval_samples=3).eval().frozen(2)

    def padded(atoms: Atoms) -> dict[str, Tensor]:
        pos = torch.zeros(1, 5, 3).double()
        pos[0, : len(atoms)] = torch.from_numpy(atoms.positions)
        cell = torch.from_numpy(atoms.cell.array.copy())[None]
        return {"pos": pos, "cell": cell, "mask": torch.arange(5)[None] < len(atoms)}

    atoms = bulk("NaCl", "rocksalt", a=5.0)
    atoms.set_cell(atoms.cell.array + np.array([[0.1, 0, 0.3], [0, 0.2, 0], [0, 0.1, 0]]), scale_atoms=True)
    atoms.rattle(0.2, seed=0)
    atoms.calc = TorchCalculator(phi, padded, stress=True, cell="cell")
    assert atoms.get_forces().shape == (2, 3)
    assert np.allclose(atoms.get_forces(), calculate_numerical_forces(atoms, eps=1e-5), atol=1e-6)
    assert np.allclose(atoms.get_stress(), calculate_numerical_stress(atoms, eps=1e-5), atol=1e-6)
    assert np.allclose(atoms.get_stress(voigt=False), atoms.get_stress(voigt=False).T)


def test_errors_are_in_the_results() -> None:
    phi = ps.symmetrize(ClusterEnergy(0.02), {"pos": POINTS}, ps.Rep(), "haar", eval_samples=6).eval()
    atoms = molecule("CH4")
    atoms.calc = TorchCalculator(phi.frozen(0), positions, errors=True)
    energy, forces = atoms.get_potential_energy(), atoms.get_forces()
    expected = ps.energy_and_forces(phi.frozen(0), positions(atoms), return_estimate=True)
    assert energy == float(expected.mean.energy)
    assert np.allclose(forces, expected.mean.forces[0].numpy())
    assert atoms.calc.results["energy_stderr"] == float(expected.stderr.energy)
    assert np.allclose(atoms.calc.results["forces_stderr"], expected.stderr.forces[0].numpy())
    assert 0 < atoms.calc.results["energy_stderr"] < 0.1


def test_results_are_kept_until_the_structure_changes() -> None:
    calls = []

    def counted(atoms: Atoms) -> dict[str, Tensor]:
        calls.append(1)
        return positions(atoms)

    atoms = molecule("CH4")
    atoms.calc = TorchCalculator(ClusterEnergy(0.1), counted, reps={"pos": POINTS}, output=ps.Rep())
    atoms.get_potential_energy()
    atoms.get_forces()
    assert len(calls) == 1
    atoms.positions[0, 0] += 0.1
    atoms.get_forces()
    assert len(calls) == 2


def test_what_is_wrong_is_named() -> None:
    atoms = molecule("CH4")
    with pytest.raises(TypeError, match="phi: expected a module, got str"):
        TorchCalculator("phi", positions)
    with pytest.raises(TypeError, match="inputs: expected a function of a structure, got dict"):
        TorchCalculator(ClusterEnergy(0.1), positions(atoms))
    atoms.calc = bare(0.1)
    with pytest.raises(PropertyNotImplementedError):
        atoms.get_stress()
    options = {"reps": {"pos": POINTS}, "output": ps.Rep()}
    atoms.calc = TorchCalculator(ClusterEnergy(0.1), lambda atoms: {"pos": torch.randn(2, 5, 3).double()}, **options)
    with pytest.raises(ValueError, match=r"inputs: expected one structure, got energies of shape \(2,\)"):
        atoms.get_forces()
    atoms.calc = TorchCalculator(ClusterEnergy(0.1), lambda atoms: {"pos": torch.randn(1, 4, 3).double()}, **options)
    with pytest.raises(ValueError, match="inputs: expected 5 atoms in three dimensions"):
        atoms.get_forces()


def test_a_calculation_by_hand_leaves_nothing_of_another_structure():
    """Energy and forces of a second structure do not stand beside the stress of the first."""
    calculator = TorchCalculator(
        ClusterEnergy(0.0).eval(), positions, stress=True, reps={"pos": POINTS}, output=ps.Rep()
    )
    first = Atoms("Cu2", positions=[[0, 0, 0], [2.4, 0, 0]], cell=[9, 9, 9], pbc=True)
    second = Atoms("Cu2", positions=[[0, 0, 0], [2.7, 0, 0]], cell=[9, 9, 9], pbc=True)
    calculator.calculate(first, ["energy", "stress"])
    calculator.calculate(first, ["energy"])
    assert "stress" in calculator.results  # of the same structure it is kept
    calculator.calculate(second, ["energy"])
    assert "stress" not in calculator.results
    assert calculator.get_property("stress", second) is not None
