"""What moves: molecules and a cluster, with the calculator that labels them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..errors import UserError, choose

if TYPE_CHECKING:
    from ase import Atoms
    from ase.calculators.calculator import Calculator

TO_INSTALL = 'pip install -e "./experiments[atoms]" at the root of the repository, or pip install ase tblite'

# The hydrogen-bonded enol, planar, of standard bond lengths.
MALONALDEHYDE = """
C  0.00  0.00 0.00
C  1.24 -0.70 0.00
O  1.28 -1.94 0.00
C -1.18 -0.68 0.00
O -1.27 -2.00 0.00
H -0.35 -2.35 0.00
H  0.00  1.08 0.00
H  2.18 -0.13 0.00
H -2.13 -0.14 0.00
"""

# SMILES CC(=O)Nc1ccc(O)cc1, embedded by RDKit 2026.9.1 (ETKDG, seed 1) and relaxed there with MMFF94.
PARACETAMOL = """
C -3.704  0.165 -0.395
C -2.378 -0.428  0.014
O -2.329 -1.500  0.606
N -1.311  0.358 -0.383
C  0.062  0.111 -0.173
C  0.562 -1.003  0.504
C  1.941 -1.172  0.669
C  2.821 -0.228  0.158
O  4.155 -0.434  0.343
C  2.345  0.889 -0.518
C  0.966  1.055 -0.682
H -3.694  1.254 -0.291
H -4.493 -0.230  0.251
H -3.916 -0.104 -1.433
H -1.535  1.205 -0.888
H -0.093 -1.764  0.918
H  2.321 -2.042  1.197
H  4.644  0.299 -0.063
H  3.023  1.634 -0.921
H  0.611  1.934 -1.213
"""


@dataclass(frozen=True)
class System:
    """Atoms as they start, before they are relaxed, and what labels them.

    Args:
        start: The atoms; needs ase.
        calculator: Energies in eV and forces in eV/Angstrom.
        timestep: Of the dynamics, in fs.
    """

    start: Callable[[], Atoms]
    calculator: Callable[[], Calculator]
    timestep: float


def gfn2() -> Calculator:
    """GFN2-xTB (10.1021/acs.jctc.8b01176): a semi-empirical quantum chemistry, milliseconds for small molecules.

    Raises UserError if tblite is not installed.
    """
    try:
        from tblite.ase import TBLite
    except ImportError as error:
        raise UserError(f"system: expected tblite, which labels molecules ({error}); {TO_INSTALL}") from error
    calculator: Calculator = TBLite(method="GFN2-xTB", verbosity=0)
    return calculator


def emt() -> Calculator:
    """ase's effective-medium potential of copper (10.1016/0039-6028(96)00816-3): an empirical one, and fast."""
    from ase.calculators.emt import EMT

    calculator: Calculator = EMT()
    return calculator


def read(xyz: str) -> Atoms:
    """Atoms from lines of a symbol and three coordinates in Angstrom."""
    from ase import Atoms

    symbols = []
    positions = []
    for line in xyz.strip().splitlines():
        symbol, *coordinates = line.split()
        symbols.append(symbol)
        positions.append([float(value) for value in coordinates])
    return Atoms(symbols, positions)


def ethanol() -> Atoms:
    from ase.build import molecule

    atoms: Atoms = molecule("CH3CH2OH")
    return atoms


def cluster() -> Atoms:
    """Eight copper atoms at the corners of a cube, a little off them, so that they relax to a compact cluster."""
    from ase import Atoms

    corners = np.stack(np.meshgrid([0, 1], [0, 1], [0, 1]), -1).reshape(8, 3)
    off = np.random.default_rng(0).normal(scale=0.1, size=(8, 3))
    return Atoms("Cu8", 2.4 * corners + off)


SYSTEMS = {
    "cu8": System(cluster, emt, timestep=2.0),
    "ethanol": System(ethanol, gfn2, timestep=1.0),
    "malonaldehyde": System(lambda: read(MALONALDEHYDE), gfn2, timestep=1.0),
    "paracetamol": System(lambda: read(PARACETAMOL), gfn2, timestep=1.0),
}

# Trained on together. Frames of all of them are alike in number.
MIXTURES = {"molecules": ("ethanol", "malonaldehyde", "paracetamol")}


def members(name: str) -> tuple[str, ...]:
    """The systems that a name stands for: those of a mixture, or the one.

    Raises UserError for a name that is neither.
    """
    choose("system", dict.fromkeys((*SYSTEMS, *MIXTURES)), name)
    return MIXTURES.get(name, (name,))


def elements(name: str) -> list[int]:
    """Atomic numbers of the elements of a system or mixture, ascending: the kinds that a network tells apart."""
    numbers: set[int] = set()
    for member in members(name):
        numbers.update(SYSTEMS[member].start().get_atomic_numbers().tolist())
    return sorted(numbers)


def ready(name: str) -> Atoms:
    """The atoms of a system at rest where their energy is least, with their calculator.

    Raises UserError if a package is missing.
    """
    system = choose("system", SYSTEMS, name)
    try:
        import ase  # noqa: F401
    except ImportError as error:
        raise UserError(f"system: expected ase, which moves the atoms ({error}); {TO_INSTALL}") from error
    from ase.optimize import BFGS

    atoms = system.start()
    atoms.calc = system.calculator()
    BFGS(atoms, logfile=None).run(fmax=0.01, steps=1000)
    return atoms
