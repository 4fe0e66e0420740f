"""What a symmetry makes of a structure, and how its results are taken back; and the symmetries that are audited."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from ase import Atoms

from probsym.groups import SO, O
from probsym.integrations.ase.structures import Structure
from probsym.integrations.audit.evaluation import Results

REACH = 5.0  # A, largest shift along a direction that is not periodic
SHEARS = 3  # elementary changes of a lattice basis in one random change
LARGEST_SUPERCELL = 64  # atoms
SPACE = O(3)


@dataclass(frozen=True)
class Moved:
    """A structure moved by g, such that results of it can be moved back by g^-1.

    Attributes:
        atoms: g x.
        matrix: the orthogonal matrix of g, None for the identity.
        order: new atom i is old atom order[i], None for the same order.
        copies: how often the structure is repeated; the energy is divided by it, and forces have shape (copies, N, 3).
        against: what to compare with, instead of the structure itself.
    """

    atoms: Atoms
    matrix: np.ndarray | None = None
    order: np.ndarray | None = None
    copies: int = 1
    against: Moved | None = None

    def back(self, results: Results) -> Results:
        """g^-1 of the results."""
        forces = results.forces
        stress = results.stress
        if self.matrix is not None:
            if forces is not None:
                forces = forces @ self.matrix  # rows: R^T f
            if stress is not None:
                stress = self.matrix.T @ stress @ self.matrix
        if self.order is not None and forces is not None:
            sorted_forces = np.empty_like(forces)
            sorted_forces[self.order] = forces
            forces = sorted_forces
        if self.copies > 1 and forces is not None:
            forces = forces.reshape(self.copies, -1, 3)
        return Results(results.energy / self.copies, forces, stress)


def turned(atoms: Atoms, matrices: np.ndarray) -> Iterator[Moved]:
    """All of a structure turned about the origin by orthogonal matrices (K, 3, 3), one after the other.

    The lattice vectors keep their handedness, as for the calculator: some calculators refuse left-handed ones.
    """
    structure = Structure(atoms, SPACE)
    g = SPACE.identity((len(matrices),), dtype=torch.float64)
    g = replace(g, matrix=torch.from_numpy(np.ascontiguousarray(matrices)))
    rows = structure.inputs.tile(len(matrices)).act(g).kwargs
    for row, matrix in enumerate(matrices):
        yield Moved(structure.pose(rows, row), matrix=matrix)


def random_rotations(count: int, rng: np.random.Generator) -> np.ndarray:
    """Uniform rotations (count, 3, 3) in float64."""
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    return SO(3).haar((count,), generator=generator, dtype=torch.float64).matrix.numpy()


# ---------------------------------------------------------------- the symmetries


class Symmetry(ABC):
    """One row of the table: a set of moves that a potential must not feel.

    A symmetry of one's own has a name, says which structures it is about, and draws moves.

    Attributes:
        name: at most 12 signs.
        random: whether the moves are independent draws, so that p-values mean something.
        refusable: whether a calculator may raise an error instead of a result; the row is then left out, and says so.
    """

    name: ClassVar[str]
    random: ClassVar[bool] = True
    refusable: ClassVar[bool] = False

    def obstacle(self, atoms: Atoms) -> str | None:
        """Why a structure cannot show this symmetry; None if it can."""
        return None

    @abstractmethod
    def moves(self, atoms: Atoms, count: int, rng: np.random.Generator) -> Iterator[Moved]:
        """At most `count` moves of a structure."""


class Rotation(Symmetry):
    """Uniform rotations of everything, the cell included."""

    name = "rotation"

    def moves(self, atoms: Atoms, count: int, rng: np.random.Generator) -> Iterator[Moved]:
        yield from turned(atoms, random_rotations(count, rng))


class Reflection(Symmetry):
    """-R x against R x, for uniform rotations R: handedness alone, whatever rotations do."""

    name = "reflection"

    def moves(self, atoms: Atoms, count: int, rng: np.random.Generator) -> Iterator[Moved]:
        matrices = random_rotations(count, rng)
        for proper, improper in zip(turned(atoms, matrices), turned(atoms, -matrices), strict=True):
            yield replace(improper, against=proper)


class Translation(Symmetry):
    """One shift of all atoms: uniform in the cell along periodic directions, up to 5 A along others."""

    name = "translation"

    def moves(self, atoms: Atoms, count: int, rng: np.random.Generator) -> Iterator[Moved]:
        for _ in range(count):
            shift = rng.uniform(-REACH, REACH, 3)
            if atoms.pbc.any():
                # Along lattice vectors a whole cell; what is left of the cube's shift along the other directions.
                periodic = atoms.cell.array[atoms.pbc]
                shift = shift - shift @ np.linalg.pinv(periodic) @ periodic
                shift = shift + rng.uniform(0, 1, len(periodic)) @ periodic
            new = atoms.copy()
            new.positions += shift
            yield Moved(new)


class Permutation(Symmetry):
    """Uniform orders of the atoms, with all that belongs to them."""

    name = "permutation"

    def obstacle(self, atoms: Atoms) -> str | None:
        return "one atom" if len(atoms) == 1 else None

    def moves(self, atoms: Atoms, count: int, rng: np.random.Generator) -> Iterator[Moved]:
        for _ in range(count):
            order = rng.permutation(len(atoms))
            yield Moved(atoms[order], order=order)


class Images(Symmetry):
    """Atoms replaced by other periodic images, each by its own lattice vector."""

    name = "images"

    def obstacle(self, atoms: Atoms) -> str | None:
        return None if atoms.pbc.any() else "not periodic"

    def moves(self, atoms: Atoms, count: int, rng: np.random.Generator) -> Iterator[Moved]:
        for _ in range(count):
            cells = rng.integers(-2, 3, (len(atoms), 3)) * atoms.pbc
            new = atoms.copy()
            new.positions += cells @ atoms.cell.array
            yield Moved(new)


class CellChoice(Symmetry):
    """Other bases of the same lattice: integer matrices of determinant one on the periodic lattice vectors."""

    name = "cell choice"

    def obstacle(self, atoms: Atoms) -> str | None:
        return None if atoms.pbc.sum() > 1 else "fewer than two periodic directions"

    def moves(self, atoms: Atoms, count: int, rng: np.random.Generator) -> Iterator[Moved]:
        periodic = np.flatnonzero(atoms.pbc)
        for _ in range(count):
            basis = np.eye(3, dtype=int)
            while (basis == np.eye(3, dtype=int)).all():
                for _ in range(SHEARS):
                    one, other = rng.choice(periodic, 2, replace=False)
                    basis[one] += rng.choice([-1, 1]) * basis[other]
            new = atoms.copy()
            new.set_cell(basis @ atoms.cell.array, scale_atoms=False)
            yield Moved(new)


class LeftHanded(Symmetry):
    """One periodic lattice vector negated: the same lattice, in a basis of the other handedness.

    Who divides by the determinant of the cell gets a stress of the wrong sign. Some calculators refuse such cells.
    """

    name = "left-handed"
    random = False
    refusable = True

    def obstacle(self, atoms: Atoms) -> str | None:
        if not atoms.pbc.any():
            return "not periodic"
        return None if np.linalg.det(atoms.cell.array) != 0 else "the cell has no volume"

    def moves(self, atoms: Atoms, count: int, rng: np.random.Generator) -> Iterator[Moved]:
        for axis in np.flatnonzero(atoms.pbc):
            cell = atoms.cell.array.copy()
            cell[axis] *= -1
            new = atoms.copy()
            new.set_cell(cell, scale_atoms=False)
            yield Moved(new)


class Supercell(Symmetry):
    """The cell doubled along each periodic direction, and along all where that is small: energy per cell, forces."""

    name = "supercell"
    random = False

    def obstacle(self, atoms: Atoms) -> str | None:
        return None if atoms.pbc.any() else "not periodic"

    def moves(self, atoms: Atoms, count: int, rng: np.random.Generator) -> Iterator[Moved]:
        for axis in np.flatnonzero(atoms.pbc):
            times = [1, 1, 1]
            times[axis] = 2
            yield Moved(atoms.repeat(times), copies=2)
        times = [2 if periodic else 1 for periodic in atoms.pbc]
        copies = int(np.prod(times))
        if copies > 2 and copies * len(atoms) <= LARGEST_SUPERCELL:
            yield Moved(atoms.repeat(times), copies=copies)


SYMMETRIES: tuple[Symmetry, ...] = (
    Rotation(), Reflection(), Translation(), Permutation(), Images(), CellChoice(), LeftHanded(), Supercell(),
)  # fmt: skip
