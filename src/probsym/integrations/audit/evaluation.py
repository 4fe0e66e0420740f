"""A calculator as a function of structures: energy, forces and stress as plain arrays, checked at every call."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError
from ase.stress import voigt_6_to_full_3x3_stress

BATCH = 32  # structures that are evaluated together at most

Model: TypeAlias = Callable[[Atoms], Mapping[str, Any]]  # structure to {"energy": ..., "forces": ..., "stress": ...}


class AuditError(ValueError):
    """The calculator failed, or returned something that is no energy, no forces, no stress; names the structure."""


@dataclass(frozen=True)
class Results:
    """What a calculator says of one structure of N atoms.

    Attributes:
        energy: eV. forces: (N, 3), eV/A, or None. stress: (3, 3), eV/A^3, or None.
    """

    energy: float
    forces: np.ndarray | None = None
    stress: np.ndarray | None = None


class Evaluation:
    """Calls a calculator, or a model, and counts.

    Args:
        calculator: an ASE calculator, or a function of `Atoms` that returns a mapping with "energy" (eV) and, where the
            model has them, "forces" (N, 3) (eV/A) and "stress" (3, 3) or (6,) in Voigt's order (eV/A^3). A calculator
            with a method `calculate_batch(structures, properties)` is given structures together.
        on_call: called after each evaluation of a structure.

    Raises:
        TypeError: neither of both.
    """

    def __init__(self, calculator: Any, on_call: Callable[[], None] | None = None) -> None:
        self.is_calculator = hasattr(calculator, "get_property") or hasattr(calculator, "get_potential_energy")
        if isinstance(calculator, type) or not (self.is_calculator or callable(calculator)):
            raise TypeError(
                "calculator: expected an ASE calculator, or a function of ase.Atoms that returns a dict with 'energy', "
                f"'forces' and 'stress'; got {calculator!r}"
            )
        self.calculator = calculator
        self.on_call = on_call
        self.count = 0
        self._missing: set[str] = set()  # properties that the calculator does not implement
        declared = getattr(calculator, "implemented_properties", None)
        if declared is not None:
            self._missing = {"forces", "stress"} - set(declared)

    def __call__(self, atoms: Atoms, what: str) -> Results:
        """The results for a structure; `what` names it in errors.

        Raises:
            AuditError: the calculator failed, or its results are not finite numbers of the right shape.
        """
        try:
            found = self._from_calculator(atoms) if self.is_calculator else dict(self.calculator(atoms))
        except Exception as error:  # whatever a foreign calculator raises
            raise AuditError(f"{what}: the calculator failed: {type(error).__name__}: {error}") from error
        self._counted()
        return _checked(found, len(atoms), what)

    def many(self, structures: Sequence[Atoms], what: str) -> list[Results]:
        """The results for each of several structures, in batches if the calculator evaluates batches.

        A batch has structures of the same elements in the same order, as poses of one have.

        Raises:
            AuditError: as for one structure.
        """
        batch = getattr(self.calculator, "calculate_batch", None)
        if batch is None:
            return [self(atoms, what) for atoms in structures]
        results: list[Results] = []
        for alike in _alike(structures):
            found = self._from_batch(batch, alike, what)
            for atoms, one in zip(alike, found, strict=True):
                self._counted()
                results.append(_checked(dict(one), len(atoms), what))
        return results

    def _counted(self) -> None:
        self.count += 1
        if self.on_call is not None:
            self.on_call()

    def _from_batch(self, batch: Callable[..., Any], structures: list[Atoms], what: str) -> list[Mapping[str, Any]]:
        properties = ["energy"]
        if "forces" not in self._missing:
            properties.append("forces")
        if "stress" not in self._missing and has_stress(structures[0]):
            properties.append("stress")
        try:
            found = list(batch([atoms.copy() for atoms in structures], properties))
        except Exception as error:  # whatever a foreign calculator raises
            raise AuditError(f"{what}: the calculator failed: {type(error).__name__}: {error}") from error
        if len(found) != len(structures):
            raise AuditError(f"{what}: calculate_batch: expected {len(structures)} results; got {len(found)}")
        kept: list[Mapping[str, Any]] = []
        for one in found:
            if not isinstance(one, Mapping):
                raise AuditError(f"{what}: calculate_batch: expected dicts of results; got {type(one).__name__}")
            for name in properties:
                if one.get(name) is None:
                    raise AuditError(f"{what}: calculate_batch: expected {', '.join(properties)}; got {sorted(one)}")
            # A batch may bring a stress where none is asked for.
            kept.append({name: one[name] for name in properties})
        return kept

    def _from_calculator(self, atoms: Atoms) -> dict[str, Any]:
        # A calculator keeps its last results, and would give them again for a structure that it has seen.
        if hasattr(self.calculator, "reset"):
            self.calculator.reset()
        atoms = atoms.copy()
        atoms.calc = self.calculator
        found = {"energy": atoms.get_potential_energy(apply_constraint=False)}
        if "forces" not in self._missing:
            try:
                found["forces"] = atoms.get_forces(apply_constraint=False)
            except PropertyNotImplementedError:
                self._missing.add("forces")
        if "stress" not in self._missing and has_stress(atoms):
            try:
                found["stress"] = atoms.get_stress(voigt=False, apply_constraint=False)
            except PropertyNotImplementedError:
                self._missing.add("stress")
        return found


def _alike(structures: Sequence[Atoms]) -> Iterator[list[Atoms]]:
    """Structures in their order, in parts of equal elements and periodicity."""
    part: list[Atoms] = []
    for atoms in structures:
        if part:
            same = np.array_equal(atoms.numbers, part[0].numbers) and np.array_equal(atoms.pbc, part[0].pbc)
            if not same or len(part) == BATCH:
                yield part
                part = []
        part.append(atoms)
    if part:
        yield part


def has_stress(atoms: Atoms) -> bool:
    """Whether the stress of a structure means something: it is periodic in three directions."""
    return bool(atoms.pbc.all())


def _checked(found: dict[str, Any], count: int, what: str) -> Results:
    if found.get("energy") is None:
        raise AuditError(f"{what}: expected an energy; got {sorted(found)}")
    energy = _array(found["energy"], what, "energy", [(), (1,)])
    forces = None
    if found.get("forces") is not None:
        forces = _array(found["forces"], what, "forces", [(count, 3)])
    stress = None
    if found.get("stress") is not None:
        stress = _array(found["stress"], what, "stress", [(3, 3), (6,)])
        if stress.shape == (6,):
            stress = voigt_6_to_full_3x3_stress(stress)
    return Results(float(energy.reshape(())), forces, stress)


def _array(value: Any, what: str, name: str, shapes: list[tuple[int, ...]]) -> np.ndarray:
    """A finite array in float64 of one of the shapes."""
    if hasattr(value, "detach"):
        value = value.detach().cpu().numpy()
    # These errors have no cause: a calculator that answers with what is no number has not refused to answer.
    try:
        given = np.array(value)
        is_complex = np.iscomplexobj(given)
        array = given.real.astype(np.float64)
    except (TypeError, ValueError):
        raise AuditError(f"{what}: {name}: expected numbers; got {type(value).__name__}") from None
    if is_complex:
        raise AuditError(f"{what}: {name}: expected real numbers; got complex ones")
    if array.shape not in shapes:
        expected = " or ".join(str(shape) for shape in shapes)
        raise AuditError(f"{what}: {name}: expected shape {expected}; got {array.shape}")
    if not np.isfinite(array).all():
        raise AuditError(f"{what}: {name}: expected finite numbers; got NaN or infinity")
    return array
