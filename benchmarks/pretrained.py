"""CHGNet, a pretrained potential that is invariant by construction, through the calculator of ASE."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from importlib.metadata import PackageNotFoundError, version
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.io import read
from timing import alternate, milliseconds, spread, table

import probsym as ps
from probsym.integrations.ase import SymmetrizedCalculator

CRYSTALS = Path(__file__).parents[1] / "results" / "audit" / "crystals.xyz"
RATTLE = 0.1  # Angstrom
POSES = 48
PROPERTIES = ("energy", "forces", "stress", "magmoms")


def pretrained(quick: bool) -> None:
    """CHGNet through the calculator: averages beside its own results, and times; needs chgnet."""
    try:
        installed = version("chgnet")
    except PackageNotFoundError:
        print("\nchgnet is not installed: pip install chgnet")
        return
    calculator = chgnet()
    structures = crystals()
    averaged = SymmetrizedCalculator(calculator, ps.O(3), ps.MonteCarlo(POSES, design="full-octahedral"))
    title = f"CHGNet (chgnet {installed}, weights {calculator.version}), {POSES} poses over rotations and reflections"

    def differences() -> Iterator[list[str]]:
        for atoms in structures:
            for name in PROPERTIES:
                # The energy per atom, so that crystals can be compared.
                scale = 1e3 / len(atoms) if name == "energy" else 1e3
                unit = {"energy": "meV/atom", "forces": "meV/A", "stress": "meV/A³", "magmoms": "1e-3 mu_B"}[name]
                alone = np.asarray(calculator.get_property(name, atoms), dtype=float)
                found = averaged.get_property(name, atoms)
                numbers = [np.abs(alone).max(), np.abs(found - in_six(alone)).max()]
                numbers.append(np.max(averaged.results[f"{name}_rot_std"]))
                yield [
                    atoms.get_chemical_formula(),
                    f"{name}, {unit}",
                    *[f"{scale * number:.3g}" for number in numbers],
                ]

    columns = ["crystal", "property", "largest value", "largest change by averaging", "largest spread of poses"]
    table(f"{title}: displaced by {RATTLE:g} A", columns, differences())

    def times() -> Iterator[list[str]]:
        for atoms in structures:
            functions = {"bare": again(calculator, atoms, POSES), "averaged": again(averaged, atoms, 1)}
            found = alternate(functions, 3 if quick else 7, 1)
            one = milliseconds([seconds / POSES for seconds in found["bare"]])
            yield [atoms.get_chemical_formula(), str(len(atoms)), one, spread(found, "averaged", "bare")]

    columns = ["crystal", "atoms", "one evaluation", f"averaged / {POSES} times bare"]
    table(f"{title}: time", columns, times())


def chgnet() -> Any:
    """Its calculator on the CPU, without what it prints."""
    warnings.simplefilter("ignore")  # pymatgen's, of deprecations
    from chgnet.model.dynamics import CHGNetCalculator

    with redirect_stdout(StringIO()):
        return CHGNetCalculator(use_device="cpu")


def crystals() -> list[Atoms]:
    """NaCl, Si and monoclinic ZrO2, displaced."""
    structures: list[Atoms] = []
    for number, atoms in enumerate(read(CRYSTALS, index=":")):
        atoms.calc = None
        atoms.rattle(RATTLE, seed=number)
        structures.append(atoms)
    return structures


def in_six(value: np.ndarray) -> np.ndarray:
    """A stress in ASE's six numbers, whatever it came in."""
    return value if value.shape != (3, 3) else value.flat[[0, 4, 8, 5, 2, 1]]


def again(calculator: Any, structure: Atoms, times: int) -> Callable[[], object]:
    """Forces, some times, of a structure that is another each time, so that no result is kept."""
    moving = structure.copy()
    random = np.random.default_rng(0)

    def call() -> None:
        for _ in range(times):
            moving.positions[0] += 1e-4 * random.normal(size=3)
            calculator.get_property("forces", moving)

    return call
