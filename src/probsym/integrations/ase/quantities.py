"""Properties of ASE: which of them have a known rank, and their tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from ase.stress import full_3x3_to_voigt_6_stress, voigt_6_to_full_3x3_stress

from probsym.groups import Slot
from probsym.integrations.poses import Space
from probsym.reps import Rep


@dataclass(frozen=True)
class Quantity:
    """The rank of a property.

    Args:
        per_atom: whether there is one an atom. rank: number of axes of space, 0 to 2.
        voigt: whether it is symmetric and ASE writes six of its nine components, xx yy zz yz xz xy.
        axial: whether a reflection changes its sign besides, where it is a vector.
    """

    per_atom: bool
    rank: int
    voigt: bool = False
    axial: bool = False

    def rep(self, space: Space) -> Rep:
        """How it turns."""
        slots: list[Slot | None] = []
        if self.axial and space.sign is not None:
            slots.append(space.sign)
        if self.per_atom:
            slots.append(space.atoms)
        return Rep(*slots, *[space.vector] * self.rank)

    def shape(self, atoms: int) -> tuple[int, ...]:
        """Its shape, with all nine components of a tensor."""
        first = (atoms,) if self.per_atom else ()
        return (*first, *[3] * self.rank)


QUANTITIES = {
    "energy": Quantity(False, 0),
    "free_energy": Quantity(False, 0),
    "energies": Quantity(True, 0),
    "charges": Quantity(True, 0),
    "forces": Quantity(True, 1),
    "dipole": Quantity(False, 1),
    "stress": Quantity(False, 2, voigt=True),
    "stresses": Quantity(True, 2, voigt=True),
    "dielectric_tensor": Quantity(False, 2),
    "born_effective_charges": Quantity(True, 2),
    "magmom": Quantity(False, 0),
    "magmoms": Quantity(True, 0),
}
# Magnetic moments are numbers along an axis of their own, or vectors; their shape tells.
MOMENTS = {"magmom": Quantity(False, 1, axial=True), "magmoms": Quantity(True, 1, axial=True)}


def quantity(name: str, shape: tuple[int, ...]) -> Quantity | None:
    """The rank of a property of ASE, from its name and, of magnetic moments, its shape; None if it is not known."""
    found = QUANTITIES.get(name)
    moment = MOMENTS.get(name)
    if moment is not None and shape[-1:] == (3,) and len(shape) == 1 + int(moment.per_atom):
        return moment
    return found


def known(name: str, shape: tuple[int, ...], space: Space) -> Rep | None:
    """How something with the name of a property turns; None if no property has this name and fits this shape."""
    found = quantity(name, shape)
    if found is None or shape != found.shape(shape[0] if shape else 0):
        return None
    return found.rep(space)


def expanded(name: str, value: Any, atoms: int) -> np.ndarray:
    """A property of known rank as a tensor of its full shape.

    Raises:
        ValueError: a wrong shape, or numbers that are not finite; names the property.
    """
    array = np.array(value, dtype=np.float64)
    found = quantity(name, array.shape)
    if found is None:
        return array
    wanted = found.shape(atoms)
    if found.voigt:
        if array.shape == (*wanted[:-2], 6):
            array = voigt_6_to_full_3x3_stress(array)
        elif array.shape == wanted:
            array = (array + array.swapaxes(-1, -2)) / 2
    elif found.rank == 0 and not found.per_atom and array.size == 1:
        array = array.reshape(())
    if array.shape != wanted:
        six = f" or {(*wanted[:-2], 6)}" if found.voigt else ""
        raise ValueError(f"{name}: expected shape {wanted}{six} for {atoms} atoms, got {np.shape(value)}")
    return array


def contracted(name: str, value: np.ndarray) -> Any:
    """A property as ASE writes it: numbers as float, symmetric tensors by six components."""
    found = quantity(name, value.shape)
    if found is not None and found.voigt:
        return full_3x3_to_voigt_6_stress(value)
    return float(value) if value.ndim == 0 else value
