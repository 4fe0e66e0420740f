"""What of an `Atoms` turns with a rotation, and how: its tensors with their Reps, and structures made of these."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from ase import Atoms
from torch import Tensor

from probsym.groups import Element, Group
from probsym.integrations.ase.quantities import known
from probsym.integrations.poses import Space
from probsym.reps import Inputs, Rep

Declared = Mapping[str, Rep | None]  # None: passed as it is

FLAT = ("numbers", "tags", "masses", "initial_charges", "charges", "energies")  # one number an atom, whatever turns


class Structure:
    """An `Atoms` taken apart.

    Positions, cell, momenta and magnetic moments turn; so do arrays and entries of `info` under the names of properties
    (forces, dipole, ...), and those that are declared. One number an atom, numbers and words in `info`, periodicity,
    constraints and tags stay. Periodicity is about lattice vectors, which turn with the rest, so that it stays valid.

    Args:
        atoms: is copied. group: what acts.
        arrays, info: Reps of further entries of `atoms.arrays` and `atoms.info`; None for one that is to stay.

    Attributes:
        inputs: what turns, one input (B = 1), in float64.
        handedness: the determinant of the lattice vectors, whose sign says it.

    Raises:
        ValueError: an array with several numbers an atom, or an array in `info`, of which nothing says how it turns;
            one that is declared with another shape than it has; a periodic direction without a cell vector of its own;
            numbers that are not finite. Names it.
    """

    def __init__(
        self, atoms: Atoms, group: Group, arrays: Declared | None = None, info: Declared | None = None
    ) -> None:
        _refuse_degenerate_cell(atoms)
        self.atoms = atoms.copy()
        self.handedness = np.linalg.det(atoms.cell.array)
        space = Space.of(group)
        reps: dict[str, Any] = {"arrays": {}, "cell": Rep(None, space.vector)}
        values: dict[str, Any] = {"arrays": {}, "cell": _tensor("cell", atoms.cell.array)}

        # 1. One entry an atom.
        for name, value in atoms.arrays.items():
            rep = _rep_of(name, value, dict(arrays or {}), space, per_atom=True)
            if rep is not None:
                reps["arrays"][name] = rep
                values["arrays"][name] = _tensor(f"arrays[{name!r}]", value)

        # 2. One entry a structure.
        turning: dict[str, Rep] = {}
        for name, value in atoms.info.items():
            rep = _rep_of(name, value, dict(info or {}), space, per_atom=False)
            if rep is not None:
                turning[name] = rep
        if turning:
            reps["info"] = turning
            values["info"] = {name: _tensor(f"info[{name!r}]", atoms.info[name]) for name in turning}

        # 3. The displacement of the cell, where there is one.
        if np.any(atoms.get_celldisp()):
            reps["celldisp"] = Rep(space.vector)
            values["celldisp"] = _tensor("celldisp", atoms.get_celldisp().reshape(3))

        self.inputs = Inputs.bind(reps, (), values)
        self.inputs.check_values()

    def pose(self, rows: Mapping[str, Any], row: int) -> Atoms:
        """The structure with what turns taken from one row of tensors (rows, ...), in containers as in `inputs`.

        The lattice vectors keep their handedness: where a reflection changed it, some of them are negated, which is
        another basis of the same lattice. There are calculators that divide by a volume with a sign.
        """
        atoms = self.atoms.copy()
        for name, value in rows["arrays"].items():
            atoms.arrays[name] = _array(value[row])
        atoms.cell[:] = self._of_the_same_handedness(_array(rows["cell"][row]))
        for name, value in rows.get("info", {}).items():
            atoms.info[name] = _array(value[row])
        if "celldisp" in rows:
            atoms.set_celldisp(_array(rows["celldisp"][row]))
        return atoms

    def _of_the_same_handedness(self, cell: np.ndarray) -> np.ndarray:
        """Lattice vectors (3, 3) as those of the structure are: the same lattice, left-handed or right-handed."""
        periodic = np.flatnonzero(self.atoms.pbc)
        if len(periodic) == 0 or self.handedness * np.linalg.det(cell) >= 0:
            return cell  # a box without periodicity has no other vectors
        # All three, or one: an odd number. A box along other directions stays around its atoms.
        negated = periodic if len(periodic) == 3 else periodic[:1]
        cell[negated] *= -1
        return cell


def turned(atoms: Atoms, g: Element, arrays: Declared | None = None, info: Declared | None = None) -> Atoms:
    """A copy of a structure, moved by one element of a group: positions, cell and all that turns with them.

    After a reflection periodic lattice vectors are negated, so that the cell has the handedness that it had.

    Args:
        g: of batch shape (), of a group such as SO(3) or O(3).
        arrays, info: as for `Structure`.

    >>> import probsym as ps
    >>> from ase.build import molecule
    >>> water = molecule("H2O")
    >>> g = ps.SO(3).haar(dtype=torch.float64)
    >>> bool(np.allclose(turned(water, g).get_all_distances(), water.get_all_distances()))
    True
    """
    structure = Structure(atoms, g.group, arrays, info)
    moved = structure.inputs.act(g.map(lambda tensor, _: tensor[None]))
    return structure.pose(moved.kwargs, 0)


def _rep_of(name: str, value: Any, declared: dict[str, Rep | None], space: Space, per_atom: bool) -> Rep | None:
    """How an entry of `arrays` or `info` turns; None for one that stays.

    Raises:
        ValueError: nothing says how.
    """
    where = "arrays" if per_atom else "info"
    if name in declared:
        return declared[name]
    try:
        array = np.asarray(value)
    except ValueError:
        return None  # lists of lists of different lengths
    if array.dtype.kind not in "fciu" or array.ndim <= int(per_atom):
        return None  # words and truth values, and one number an atom or a structure
    if name in ("positions", "momenta"):
        return Rep(None, space.vector)
    if name == "initial_magmoms":
        return known("magmoms", array.shape, space)
    if name in FLAT:
        return None
    rep = known(name, array.shape, space)
    # A field of [0, 0, 1] is a vector, whole numbers or not; lists of other lengths count or number something.
    if rep is None and array.dtype.kind in "iu" and 3 not in array.shape[int(per_atom) :]:
        return None
    if rep is None:
        count = " an atom" if per_atom else ""
        raise ValueError(
            f"atoms.{where}[{name!r}]: has shape {array.shape}, several numbers{count}, and nothing says how they "
            f"turn: declare {where}={{{name!r}: ps.Rep(...)}} with slots of the group, or {{{name!r}: None}} if they "
            "stay"
        )
    return rep


def _tensor(name: str, value: Any) -> Tensor:
    """One input (1, ...) in float64."""
    try:
        array = np.array(value).astype(np.float64, casting="same_kind")
    except (TypeError, ValueError):
        raise TypeError(f"atoms.{name}: expected real numbers, got {value!r}") from None
    return torch.from_numpy(array)[None]


def _array(value: Tensor) -> np.ndarray:
    return value.numpy().copy()


def _refuse_degenerate_cell(atoms: Atoms) -> None:
    """Refuse periodic directions whose lattice vectors are missing, dependent, or not finite."""
    lattice = atoms.cell.array[atoms.pbc]
    if not np.isfinite(lattice).all():
        raise ValueError(f"atoms.cell: expected finite numbers, got {atoms.cell.array.tolist()}")
    if len(lattice) and np.linalg.matrix_rank(lattice) < len(lattice):
        raise ValueError(
            f"atoms.cell: expected independent vectors along the periodic directions, pbc {atoms.pbc.tolist()}, got "
            f"{atoms.cell.array.tolist()}"
        )
