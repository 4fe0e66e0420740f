"""The operations that leave a crystal as it is, and the average of results over them."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from ase import Atoms
from torch import Tensor

from probsym.groups import Finite
from probsym.groups.generated import determinants
from probsym.integrations.ase.quantities import quantity
from probsym.integrations.ase.structures import Structure
from probsym.integrations.poses import Space

LARGEST_COPIES = 2**22  # numbers of moved results that are held at once


class Operations:
    """The space group of a structure, without the translations of the lattice, as a `Finite`.

    An operation turns the crystal, shifts it, and thereby exchanges atoms of one kind. It leaves the structure alone,
    so that no further evaluation is needed: the average of its results over the group costs none.

    Attributes:
        group: its order is that of the point group, times the number of primitive cells in the cell.
        space: what it does to the order of the atoms, and to vectors by their components along the lattice vectors,
            for which all matrices are whole numbers.

    Args:
        structure: periodic in three directions. Atoms differ if their numbers or charges do; magnetic moments and other
            arrays that turn have to be kept as well.
        precision: how far an operation may move an atom from its place, in Angstrom; `symprec` of spglib.

    Raises:
        ValueError: not periodic in three directions; no symmetry found; operations that make no group.
        ImportError: no spglib.
    """

    def __init__(self, structure: Structure, precision: float) -> None:
        atoms = structure.atoms
        if not atoms.pbc.all():
            raise ValueError(
                f"space_group: expected a structure that is periodic in three directions, got pbc {atoms.pbc.tolist()}"
            )
        turns, places = _operations(atoms, precision)
        kept = _kept(structure, turns, places)
        self.lattice = torch.from_numpy(atoms.cell.array.T.copy())  # its columns are the lattice vectors
        self.group, self.space = _finite(_nested(turns[kept]), _nested(places[kept]))

    def averaged(self, name: str, samples: Tensor) -> Tensor:
        """The mean of a property (K, 1, ...) over the operations.

        Raises:
            ValueError: a property that was declared, of which nothing says on which axis the atoms are.
        """
        found = quantity(name, tuple(samples.shape[2:]))
        if found is None:
            raise ValueError(f"space_group: {name!r} is no property of ASE, and nothing says where its atoms stand")
        rep = found.rep(self.space)
        if not rep.axes:
            return samples

        # 1. Components along the lattice vectors.
        inside = _along(torch.linalg.inv(self.lattice), samples[:, 0], found.rank)

        # 2. The mean over all operations, some at a time.
        order = self.group.order()
        every = self.group.elements()
        total = torch.zeros_like(inside)
        step = max(1, LARGEST_COPIES // max(samples.numel(), 1))
        for start in range(0, order, step):
            some = every.select(slice(start, start + step))
            g = some.map(lambda tensor, _: tensor[:, None].expand(-1, len(samples)))
            total += rep.act(g, inside, 1).sum(0)

        # 3. Back.
        return _along(self.lattice, total / order, found.rank)[:, None]


def _along(matrix: Tensor, value: Tensor, rank: int) -> Tensor:
    """A matrix (3, 3) on each of the last `rank` axes."""
    for axis in range(value.ndim - rank, value.ndim):
        value = (value.movedim(axis, -1) @ matrix.T).movedim(-1, axis)
    return value


@lru_cache(maxsize=16)
def _finite(turns: Any, places: Any) -> tuple[Finite, Space]:
    """The group of operations, and what it does; the same as long as dynamics or a relaxation keeps the symmetry.

    Args:
        turns: whole numbers (M, 3, 3) on components along the lattice vectors, as nested tuples.
        places: where each atom goes (M, N).

    Raises:
        ValueError: they make no group.
    """
    matrices = np.array(turns)
    moves = np.array(places, dtype=np.int64).reshape(len(matrices), -1)
    codes = _codes(matrices, moves)
    chosen = _generating(codes)
    group = Finite([codes[number].tolist() for number in chosen])
    if group.order() != len(codes):
        raise ValueError(
            f"space_group: {len(codes)} operations were found, and they make no group; the structure is nearly "
            "symmetric: take a smaller or a larger precision"
        )
    # Gather indices: atom i goes to places[i], so that entry j comes from its inverse.
    of_generators = _nested(matrices[chosen].astype(np.float64))
    images = [np.argsort(moves[number]).tolist() for number in chosen]
    return group, Space(group.linear(of_generators), determinants(group, of_generators), group.permutation(images))


def _nested(array: np.ndarray) -> Any:
    """An array as nested tuples."""
    if array.ndim == 1:
        return tuple(array.tolist())
    return tuple(_nested(part) for part in array)


def _operations(atoms: Atoms, precision: float) -> tuple[np.ndarray, np.ndarray]:
    """Matrices (M, 3, 3) on components along the lattice vectors, and where each atom goes (M, N)."""
    from ase.spacegroup.symmetrize import spglib_get_symmetry_dataset

    # 1. Atoms of one kind have the same number and the same charge.
    kinds = np.stack([atoms.numbers, np.round(atoms.get_initial_charges(), 6)], 1)
    _, kind = np.unique(kinds, axis=0, return_inverse=True)
    scaled = atoms.get_scaled_positions(wrap=False)
    dataset = spglib_get_symmetry_dataset((atoms.cell.array, scaled, kind.reshape(-1) + 1), symprec=precision)
    if dataset is None:
        raise ValueError(f"space_group: spglib finds no symmetry up to {precision} Angstrom")

    # 2. Where each atom goes: to the nearest place, which has to be within reach and taken once.
    places: list[np.ndarray] = []
    for turn, shift in zip(dataset.rotations, dataset.translations, strict=True):
        away = scaled[None] - (scaled @ turn.T + shift)[:, None]  # (from, to, 3)
        away -= np.round(away)
        distance = np.linalg.norm(away @ atoms.cell.array, axis=-1)
        distance[kind.reshape(-1)[:, None] != kind.reshape(-1)] = np.inf
        place = distance.argmin(1)
        reach = distance.min(1, initial=np.inf)
        if len(set(place.tolist())) < len(place) or reach.max(initial=0) > 10 * precision + 1e-8:
            raise ValueError(
                f"space_group: an operation that spglib finds up to {precision} Angstrom misses atoms by "
                f"{reach.max(initial=0):.1e}: take another precision"
            )
        places.append(place)
    turns = np.array(dataset.rotations, dtype=np.int64)
    return turns, np.array(places, dtype=np.int64).reshape(len(turns), len(atoms))


def _kept(structure: Structure, turns: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Which operations leave magnetic moments, and other arrays that turn, alone (M,)."""
    atoms = structure.atoms
    lattice = atoms.cell.array.T
    matrices = lattice @ turns @ np.linalg.inv(lattice)
    kept = np.ones(len(matrices), dtype=bool)
    signs = np.sign(np.linalg.det(matrices))
    for name in structure.inputs.kwargs["arrays"]:
        if name in ("positions", "momenta"):
            continue  # momenta are no part of an energy
        value = atoms.arrays[name]
        if value.ndim != 2 or value.shape[1] != 3:
            raise ValueError(f"space_group: nothing says what its operations do to atoms.arrays[{name!r}]")
        moved = np.einsum("mij,nj->mni", matrices, value)
        if name == "initial_magmoms":
            moved = moved * signs[:, None, None]
        target = value[places]
        kept &= np.abs(moved - target).max((1, 2), initial=0) <= 1e-6 * max(1.0, float(np.abs(value).max(initial=0)))
    collinear = atoms.arrays.get("initial_magmoms")
    if collinear is not None and collinear.ndim == 1:
        kept &= np.abs(collinear[places] - collinear).max(1, initial=0) <= 1e-6
    return kept


def _codes(turns: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Each operation as one permutation: of the atoms, and beside them of the turns, so that no two are the same."""
    every, number = np.unique(turns.reshape(len(turns), 9), axis=0, return_inverse=True)
    number = number.reshape(-1)
    place_of = {row.tobytes(): place for place, row in enumerate(every)}

    # 1. What each turn makes of the others, as gather indices.
    matrices = every.reshape(-1, 3, 3)
    images = np.empty((len(every), len(every)), dtype=np.int64)
    for place, matrix in enumerate(matrices):
        products = (matrix @ matrices).reshape(-1, 9)
        moved = [place_of[product.tobytes()] for product in products]
        images[place] = np.argsort(moved)

    # 2. Both permutations side by side.
    atoms = places.shape[1]
    return np.concatenate([np.argsort(places, 1), atoms + images[number]], 1)


def _generating(codes: np.ndarray) -> list[int]:
    """The numbers of permutations that generate all of them; at least one."""
    reached = {np.arange(codes.shape[1]).tobytes()}
    chosen: list[int] = []
    for number, code in enumerate(codes):
        if code.tobytes() in reached:
            continue
        chosen.append(number)
        reached = _closure(codes[chosen], len(codes))
    return chosen or [0]


def _closure(generators: np.ndarray, most: int) -> set[bytes]:
    """What permutations generate, as bytes; it ends when there are more than `most`."""
    first = np.arange(generators.shape[1])
    found = [first]
    known = {first.tobytes()}
    for element in found:  # it grows
        if len(found) > most:
            break
        for generator in generators:
            product = element[generator]
            if product.tobytes() not in known:
                known.add(product.tobytes())
                found.append(product)
    return known
