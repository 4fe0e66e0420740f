"""Are the forces minus a gradient, and that of the energy? Work along lines, round loops, and of strains.

Integrals instead of differences of tiny steps: their error is that of a quadrature, which is measured, and rounding is
divided by a path of a tenth of an Angstrom.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from ase import Atoms

from probsym.integrations.audit.evaluation import Evaluation, Results
from probsym.integrations.audit.outcome import MILLI, formula

REACH = 0.05  # A, root mean square over the coordinates: half a line, the radius of a loop
STRAIN = 0.01  # half a path of strains, root mean square over the six components
NODES = 8  # intervals of a line
POINTS = 12  # of a loop


@dataclass(frozen=True)
class PathTest:
    """Deviations along random paths.

    Attributes:
        values: (K,) in meV/A (forces) or meV/A^3 (stress).
        quadrature: how far the integral of the coarser rule, with every other point, is from that of the finer one; the
            largest of all paths, in the unit of the values.
        rounding: of a value, in the same unit.
    """

    values: np.ndarray
    quadrature: float
    rounding: float


def lines(evaluate: Evaluation, atoms: Atoms, count: int, rng: np.random.Generator, rounding: float) -> PathTest:
    """The energy along random lines against the work of the forces: F = -dE/dx.

        v = |E(b) - E(a) + int_a^b F dx| / |b - a|

    The direction is uniform among all 3 N coordinates, so that v has the root mean square of the components of
    F + dE/dx, averaged along the line. The integral is Clenshaw-Curtis with nine points.

    Args:
        count: number of lines. rounding: of a difference of two energies, in meV/atom.
    """
    times, fine, coarse = clenshaw_curtis(NODES)
    length = REACH * math.sqrt(3 * len(atoms))
    values: list[float] = []
    quadrature: list[float] = []
    for _ in range(count):
        direction = _unit(rng.standard_normal(atoms.positions.shape))
        results: list[Results] = []
        for time in times:
            results.append(_displaced(evaluate, atoms, time * length * direction, "along a line"))
        power = np.array([np.sum(_forces(found) * direction) for found in results])
        work = length * (fine @ power)
        rough = length * (coarse @ power[::2])
        gained = results[-1].energy - results[0].energy
        values.append(MILLI * abs(gained + work) / (2 * length))
        quadrature.append(MILLI * abs(work - rough) / (2 * length))
    return PathTest(np.array(values), max(quadrature), rounding * len(atoms) / (2 * length))


def loops(evaluate: Evaluation, atoms: Atoms, count: int, rng: np.random.Generator, rounding: float) -> PathTest:
    """The work round random closed loops, which vanishes for every gradient: the curl of the forces.

        W = int F dx = 2 pi rho^2  w^T A u,        A = (J - J^T) / 2,    J = dF/dx        (Stokes)

    on a circle of radius rho in the plane of two orthonormal directions u and w, uniform in n = 3 N coordinates. Then
    (w^T A u)^2 has mean |A|^2 / (n (n - 1)), and

        v = r |W| sqrt(n - 1) / (2 pi rho^2)

    has the root mean square of the components of A d, for a displacement d of r = 0.05 A in each coordinate: the change
    of the forces that no energy explains. The trapezoidal rule on a circle has an error that falls exponentially.

    Args:
        count: number of loops. rounding: of a difference of two forces, in meV/A.
    """
    size = 3 * len(atoms)
    radius = REACH * math.sqrt(size)
    scale = MILLI * REACH * math.sqrt(size - 1) / (2 * math.pi * radius**2)
    angles = 2 * math.pi * np.arange(POINTS) / POINTS
    values: list[float] = []
    quadrature: list[float] = []
    for _ in range(count):
        first = _unit(rng.standard_normal(size))
        second = rng.standard_normal(size)
        second = _unit(second - (second @ first) * first)
        along: list[float] = []
        for angle in angles:
            place = math.cos(angle) * first + math.sin(angle) * second
            tangent = math.cos(angle) * second - math.sin(angle) * first
            found = _displaced(evaluate, atoms, radius * place.reshape(-1, 3), "on a loop")
            along.append(float(_forces(found).ravel() @ tangent))
        work = 2 * math.pi * radius * np.mean(along)
        rough = 2 * math.pi * radius * np.mean(along[::2])
        values.append(float(scale * abs(work)))
        quadrature.append(float(scale * abs(work - rough)))
    # POINTS independent roundings of F t, and those of a difference are sqrt(2) as large as one
    noise = rounding / MILLI / math.sqrt(2) * 2 * math.pi * radius / math.sqrt(POINTS)
    return PathTest(np.array(values), max(quadrature), scale * noise)


def strains(evaluate: Evaluation, atoms: Atoms, count: int, rng: np.random.Generator, rounding: float) -> PathTest:
    """The energy along random strains of cell and positions against the work of the stress: stress = dE/dstrain / V.

        v = sqrt(6) / 3 |E(b) - E(a) - int V stress : D (1 + t D)^-1 dt| / (V (b - a)),    x -> (1 + t D) x,    |D| = 1

    for a uniform symmetric D, so that v has the root mean square of the nine components of stress - dE/dstrain / V.

    Args:
        count: number of strains. rounding: of a difference of two energies, in meV/atom.
    """
    times, fine, coarse = clenshaw_curtis(NODES)
    length = STRAIN * math.sqrt(6)
    volume = atoms.get_volume()
    scale = MILLI * math.sqrt(6) / 3 / (2 * length * volume)
    values: list[float] = []
    quadrature: list[float] = []
    for _ in range(count):
        # A Gaussian symmetric matrix whose law no rotation changes: entries beside the diagonal count twice in |D|.
        square = rng.standard_normal((3, 3))
        direction = _unit(square + square.T)
        results: list[Results] = []
        power: list[float] = []
        for time in times:
            deformation = np.eye(3) + time * length * direction
            moved = atoms.copy()
            moved.set_cell(atoms.cell.array @ deformation.T, scale_atoms=False)
            moved.positions = atoms.positions @ deformation.T
            found = evaluate(moved, f"{formula(atoms)}, strained")
            assert found.stress is not None
            rate = direction @ np.linalg.inv(deformation)
            power.append(moved.get_volume() * np.sum(found.stress * rate))
            results.append(found)
        work = length * (fine @ np.array(power))
        rough = length * (coarse @ np.array(power)[::2])
        gained = results[-1].energy - results[0].energy
        values.append(scale * abs(gained - work))
        quadrature.append(scale * abs(work - rough))
    return PathTest(np.array(values), max(quadrature), scale / MILLI * rounding * len(atoms))


def clenshaw_curtis(intervals: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points on [-1, 1] with both ends, weights, and weights of every other point: a rule of half as many intervals.

    >>> times, fine, coarse = clenshaw_curtis(8)
    >>> round(float(fine @ times**8), 12), round(float(coarse @ times[::2]**4), 12)     # 2/9 and 2/5
    (0.222222222222, 0.4)
    """
    times = -np.cos(np.pi * np.arange(intervals + 1) / intervals)
    return times, _interpolatory(times), _interpolatory(times[::2])


def _interpolatory(times: np.ndarray) -> np.ndarray:
    """Weights that integrate all polynomials of degree below the number of points, over [-1, 1]."""
    degrees = np.arange(len(times))
    moments = np.where(degrees % 2 == 0, 2 / (1 - np.where(degrees % 2 == 0, degrees, 0) ** 2.0), 0.0)
    return np.linalg.solve(np.polynomial.chebyshev.chebvander(times, len(times) - 1).T, moments)


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x)


def _displaced(evaluate: Evaluation, atoms: Atoms, displacement: np.ndarray, where: str) -> Results:
    moved = atoms.copy()
    moved.positions += displacement
    return evaluate(moved, f"{formula(atoms)}, {where}")


def _forces(found: Results) -> np.ndarray:
    assert found.forces is not None
    return found.forces
