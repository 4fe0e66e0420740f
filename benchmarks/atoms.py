"""Interatomic potentials averaged over poses: exactness, energy in dynamics, overhead, error bars."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.md.verlet import VelocityVerlet
from lab_axes import ClusterEnergy, Differentiated, Morse, MorseEnergy, Slow, capped_tetrahedron
from scipy.integrate import lebedev_rule
from timing import alternate, milliseconds, spread, table
from torch import Tensor, nn

import probsym as ps
from probsym.estimators.cosets import MatrixCoset
from probsym.groups import IsometryGroup
from probsym.integrations.ase import SymmetrizedCalculator, turned
from probsym.reps import Inputs

ANISOTROPY = 0.02  # eV, of the part of the moving cluster that knows the axes of space
PAIR = Atoms("H2", positions=[[0.1, 0.2, 0.3], [1.5, 1.4, 2.0]])
INVERTED = {3: "full-octahedral", 5: "full-icosahedral", 7: "full-icosahedral-5", 9: "full-icosahedral-5"}


def atoms(quick: bool) -> None:
    """Calculators of ASE: exactness by degree, energy along dynamics, overhead, honest error bars."""
    degrees(quick)
    dynamics(quick)
    overhead(quick)
    error_bars(quick)


# ---------------------------------------------------------------- exactness


@dataclass(frozen=True)
class ProductQuadrature(MatrixCoset):
    """A rule of Lebedev for the direction of z, 2 t + 1 turns about it, and the inversion: exact to degree t."""

    degree: int

    @property
    def size(self) -> int:
        return 2 * len(self.rule[1]) * (2 * self.degree + 1)

    @property
    def rule(self) -> tuple[np.ndarray, np.ndarray]:
        """Directions (M, 3) and weights (M,)."""
        directions, weights = lebedev_rule(self.degree)
        return directions.T, weights

    def matrices(self, factor: IsometryGroup) -> np.ndarray:
        directions, _ = self.rule
        angles = 2 * np.pi * np.arange(2 * self.degree + 1) / (2 * self.degree + 1)
        found: list[np.ndarray] = []
        for direction in directions:
            # Columns: two directions across, and the direction, right-handed.
            across = np.cross(direction, np.eye(3)[np.abs(direction).argmin()])
            across /= np.linalg.norm(across)
            frame = np.stack([across, np.cross(direction, across), direction], 1)
            for angle in angles:
                cosine, sine = np.cos(angle), np.sin(angle)
                found.append(frame @ np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]]))
        rotations = np.stack(found)
        return np.concatenate([rotations, -rotations])

    def shares(self, factor: Any, x: Inputs) -> Tensor:
        _, weights = self.rule
        of_rotations = np.repeat(weights / weights.mean(), 2 * self.degree + 1)
        return torch.from_numpy(np.concatenate([of_rotations, of_rotations]))[:, None].expand(-1, x.count)


def degrees(quick: bool) -> None:
    """What is left of an anisotropy that has all degrees up to t, over rotations and reflections."""
    columns = ["degree t", "product quadrature, evaluations", "what is left", "design", "evaluations", "what is left"]
    table(
        "Evaluations for exactness to degree t on O(3), and the error that is left (eV, eV/Angstrom)", columns, rows()
    )


def rows() -> Iterator[list[str]]:
    for degree, design in INVERTED.items():
        product = ProductQuadrature(degree)
        size = ps.designs.as_design(design).size
        assert size is not None
        yield [
            str(degree), str(product.size), left(degree, ps.MonteCarlo(product.size, design=product)),
            design, str(size), left(degree, ps.MonteCarlo(size, design=design)),
        ]  # fmt: skip


def left(degree: int, estimator: ps.Estimator) -> str:
    """The largest error of energy and forces of a pair, whose truth is known."""
    base = Morse(degrees=dict.fromkeys(range(1, degree + 1), 0.1))
    calculator = SymmetrizedCalculator(base, ps.O(3), estimator)
    energy = abs(calculator.get_property("energy", PAIR) - Morse().get_property("energy", PAIR))
    forces = np.abs(calculator.get_property("forces", PAIR) - Morse().get_property("forces", PAIR)).max()
    return f"{max(energy, forces):.0e}"


# ---------------------------------------------------------------- dynamics


@dataclass(frozen=True)
class Cluster:
    """Eight atoms that start from a symmetric shape.

    Args:
        name: of the potential. energy: makes it, with a part of the size given (eV) that knows the axes of space.
        step: of the dynamics, fs.
    """

    name: str
    energy: Callable[[float], nn.Module]
    step: float

    def bare(self) -> Differentiated:
        return Differentiated(self.energy(ANISOTROPY))

    def framed(self, distribution: Any) -> Differentiated:
        """Derivatives of the average over frames, which needs the model itself."""
        positions = ps.Rep(ps.Axis("atoms"), ps.SE(3))
        phi = ps.symmetrize(self.energy(ANISOTROPY), positions, ps.Rep(), distribution).eval()
        return Differentiated(phi.frozen(0))


CLUSTERS = (
    Cluster("Morse pairs and a network", MorseEnergy, 1.0),
    Cluster("Lennard-Jones and waves", ClusterEnergy, 2.0),
)
WAYS: dict[str, Callable[[Cluster], Any]] = {
    "as it is": lambda cluster: cluster.bare(),
    "24 octahedral poses, frozen": lambda cluster: SymmetrizedCalculator(cluster.bare()),
    "60 icosahedral poses, frozen": lambda cluster: SymmetrizedCalculator(
        cluster.bare(), estimator=ps.MonteCarlo(60, design="icosahedral")
    ),
    "weighted frames": lambda cluster: cluster.framed(ps.WeightedFrame(ps.SE(3))),
    "frames of principal axes": lambda cluster: cluster.framed("frame"),
    "24 octahedral poses, fresh": lambda cluster: SymmetrizedCalculator(cluster.bare(), seed=None),
}


def dynamics(quick: bool) -> None:
    """NVE from a capped tetrahedron at 10 K."""
    seeds, duration = (1, 20) if quick else (3, 150)

    def measured() -> Iterator[list[str]]:
        for cluster in CLUSTERS:
            bare = 0.0
            for name, make in WAYS.items():
                drift, step = 0.0, 0.0
                for seed in range(seeds):
                    energies = total_energies(cluster, make(cluster), seed, duration)
                    drift = max(drift, float(np.abs(energies - energies[0]).max()))
                    step = max(step, float(np.abs(np.diff(energies)).max()))
                bare = bare or drift
                yield [cluster.name, f"{cluster.step:g} fs", name, f"{drift:.4f}", f"{drift / bare:.1f}", f"{step:.4f}"]

    columns = [
        "potential", "step", "calculator", "largest change of the total energy (meV)", "times as it is",
        "largest step (meV)",
    ]  # fmt: skip
    title = f"NVE of eight atoms from a capped tetrahedron, 10 K, {duration} fs, the worst of {seeds} seeds"
    table(title, columns, measured())


def total_energies(cluster: Cluster, calculator: Any, seed: int, duration: float) -> np.ndarray:
    """In meV, one for each step."""
    torch.manual_seed(seed)
    atoms = capped_tetrahedron(cluster.energy(0.0))
    size = np.sqrt(10 * units.kB * atoms.get_masses())[:, None]
    atoms.set_momenta(np.random.default_rng(seed).normal(size=(8, 3)) * size)
    atoms.calc = calculator
    verlet = VelocityVerlet(atoms, cluster.step * units.fs)
    found = [atoms.get_total_energy()]
    for _ in range(round(duration / cluster.step)):
        verlet.run(1)
        found.append(atoms.get_total_energy())
    return 1e3 * np.array(found)


# ---------------------------------------------------------------- overhead


def overhead(quick: bool) -> None:
    """One calculation with 24 poses beside the calculator itself, 24 times."""
    copper = bulk("Cu", cubic=True) * (2, 2, 2)
    copper.rattle(0.05, seed=0)
    ethanol = molecule("CH3CH2OH")
    # A calculator of its own for both, so that neither finds the neighbours of the other.
    cases: dict[str, tuple[Callable[[], Any], list[Atoms], bool]] = {
        "a loop of 5 ms, ethanol": (lambda: Slow(0.005), poses(ethanol), False),
        "EMT, 32 atoms of copper; bare on the same poses": (EMT, poses(copper), False),
        "EMT, 32 atoms of copper; bare on one pose, whose neighbours it keeps": (EMT, [copper] * 24, False),
        "the same with `copies=True`": (EMT, [copper] * 24, True),
    }

    def measured() -> Iterator[list[str]]:
        for name, (make, structures, copies) in cases.items():
            averaged = SymmetrizedCalculator(make(), copies=copies)
            functions = {"bare": again(make(), structures), "averaged": again(averaged, structures[:1])}
            times = alternate(functions, 3 if quick else 15, 1)
            one = [seconds / 24 for seconds in times["bare"]]
            yield [name, milliseconds(one), spread(times, "averaged", "bare")]

    table(
        "Overhead: 24 poses beside 24 evaluations of the calculator itself",
        ["calculator", "one evaluation", "averaged / bare"],
        measured(),
    )


def poses(structure: Atoms) -> list[Atoms]:
    """A structure in 24 orientations."""
    g = ps.SO(3).haar((24,), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return [turned(structure, g.select(number)) for number in range(24)]


def again(calculator: Any, structures: list[Atoms]) -> Callable[[], object]:
    """Forces of structures that are others at every call, so that no result is kept."""
    moving = [structure.copy() for structure in structures]

    def call() -> None:
        for structure in moving:
            structure.positions[0] += 1e-4 * np.random.default_rng().normal(size=3)
            calculator.get_property("forces", structure)

    return call


# ---------------------------------------------------------------- error bars


def error_bars(quick: bool) -> None:
    """How often the truth lies within the stated errors."""
    count = 30 if quick else 300
    positions = np.random.default_rng(0).normal(size=(count, 3, 3))

    # 1. The truth, exact up to degree 9, for all structures in one batch.
    space = ps.SO(3)
    phi = ps.symmetrize(MorseEnergy(0.3), ps.Rep(None, space), ps.Rep(), "haar").eval().frozen(0)
    with torch.no_grad():
        truth = phi(torch.from_numpy(positions), estimator=ps.MonteCarlo(360, 90, "icosahedral-6")).numpy()

    # 2. What is stated.
    stated: dict[str, ps.Estimator] = {
        "32 independent poses": ps.MonteCarlo(32),
        "8 blocks of octahedral poses": ps.MonteCarlo(8 * 24, design="octahedral"),
        "32 blocks of octahedral poses": ps.MonteCarlo(32 * 24, design="octahedral"),
        "an accuracy of 0.01 eV and eV/Angstrom": ps.Adaptive(0.01),
    }

    def measured() -> Iterator[list[str]]:
        for name, estimator in stated.items():
            deviations: list[float] = []
            errors: list[float] = []
            poses: list[int] = []
            for number in range(count):
                calculator = SymmetrizedCalculator(Morse(0.3), estimator=estimator, seed=number)
                energy = calculator.get_property("energy", Atoms("H3", positions=positions[number]))
                errors.append(calculator.results["energy_stderr"])
                deviations.append((energy - truth[number]) / errors[-1])
                poses.append(calculator.poses)
            within = [f"{np.mean(np.abs(deviations) < limit):.1%}" for limit in (1, 1.96)]
            yield [name, f"{np.mean(poses):.0f}", f"{1e3 * np.median(errors):.1f}", *within]

    columns = ["poses", "evaluations, mean", "stated error, median (meV)", "within 1", "within 1.96"]
    table(f"The truth within the stated errors of the energy, {count} structures", columns, measured())
