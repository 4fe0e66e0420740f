"""Frames of molecular dynamics with energies and forces, made here, seeded, and kept as npz in the data folder.

Two dynamics of one system (Langevin, friction 0.02 / fs): one at 300 K, whose frames are for training, validation and
testing in the order of time with gaps between, and one at 600 K, from which nothing is learned.

The atoms tumble as they move. Every frame is turned so that it lies as nearly as possible as the relaxed geometry does
(least squares, a proper rotation), and its forces with it. So the data show a network one orientation, as dynamics
without rotation do (those of MD17, for instance), and a test can ask what it knows of others.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from ..batches import Batch, rows
from ..cache import cached
from ..errors import UserError
from ..npz import Arrays
from .systems import SYSTEMS, ready

if TYPE_CHECKING:
    from ase import Atoms
    from ase.md.langevin import Langevin

Array = NDArray[np.float64]

SEED = 17
FRICTION = 0.02  # per fs
APART = 10  # steps of the dynamics between frames
START = 1_000  # steps before the first frame
GAP = 50  # frames between two parts of one dynamics, which nobody uses
TEMPERATURES = {"cool": 300.0, "hot": 600.0}  # K
PARTS = {"cool": ("train", "valid", "test"), "hot": ("hot",)}  # of each dynamics, in the order of time


@dataclass(frozen=True)
class Frames:
    """Which system, and how many frames each part has; of those at 600 K there are as many as for testing."""

    system: str = "ethanol"
    train: int = 2_000
    valid: int = 200
    test: int = 500

    def count(self, part: str) -> int:
        """Number of frames of a part."""
        counts = {"train": self.train, "valid": self.valid, "test": self.test, "hot": self.test}
        return counts[part]

    @property
    def file(self) -> str:
        """Name in the data folder."""
        return f"atoms_{self.system}_{self.train}-{self.valid}-{self.test}_seed{SEED}.npz"

    def shapes(self, atoms: int) -> dict[str, tuple[int, ...]]:
        """Of the arrays in the file, for N atoms: positions and forces (B, N, 3), energies and times (B,)."""
        by_name: dict[str, tuple[int, ...]] = {"numbers": (atoms,), "masses": (atoms,), "relaxed": (atoms, 3)}
        for parts in PARTS.values():
            for part in parts:
                count = self.count(part)
                by_name[f"pos_{part}"] = (count, atoms, 3)
                by_name[f"forces_{part}"] = (count, atoms, 3)
                by_name[f"energy_{part}"] = (count,)
                by_name[f"time_{part}"] = (count,)
        return by_name


# ---------------------------------------------------------------- dynamics


def generate(frames: Frames, start: int = START, gap: int = GAP) -> Arrays:
    """Runs both dynamics: positions in Angstrom, energies in eV, forces in eV/Angstrom, times in fs, masses in u.

    Args:
        start: Steps before the first frame. gap: Frames between two parts.
    """
    atoms = ready(frames.system)
    relaxed = atoms.get_positions()
    relaxed -= relaxed.mean(0)
    arrays: Arrays = {
        "numbers": atoms.get_atomic_numbers().astype(np.int64),
        "masses": atoms.get_masses(),
        "relaxed": relaxed,
    }
    steps = 0
    for parts in PARTS.values():
        steps += start + APART * sum(gap + frames.count(part) for part in parts)
    with one_thread(), tqdm(total=steps, unit="step", desc=f"dynamics of {frames.system}", dynamic_ncols=True) as bar:
        for number, (dynamics, parts) in enumerate(PARTS.items()):
            atoms.set_positions(relaxed)
            atoms.set_momenta(np.zeros_like(relaxed))
            rng = np.random.default_rng([SEED, number])
            mover = langevin(atoms, SYSTEMS[frames.system].timestep, TEMPERATURES[dynamics], rng)
            mover.run(start)
            bar.update(start)
            for part in parts:
                mover.run(APART * gap)
                bar.update(APART * gap)
                arrays |= collect(atoms, mover, relaxed, part, frames.count(part), bar)
    return arrays


def langevin(atoms: Atoms, timestep: float, temperature: float, rng: np.random.Generator) -> Langevin:
    """Langevin dynamics; the time step is in fs."""
    from ase import units
    from ase.md.langevin import Langevin

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of a fixed centre of mass, which is meant here
        return Langevin(atoms, timestep * units.fs, temperature_K=temperature, friction=FRICTION / units.fs, rng=rng)


def collect(atoms: Atoms, mover: Langevin, relaxed: Array, part: str, count: int, bar: tqdm) -> Arrays:
    """The next `count` frames, turned to lie as the relaxed geometry does."""
    from ase import units

    positions = []
    energies = []
    forces = []
    times = []
    for _ in range(count):
        mover.run(APART)
        bar.update(APART)
        here = atoms.get_positions()
        here -= here.mean(0)
        turn = onto(here, relaxed)
        positions.append(here @ turn.T)
        forces.append(atoms.get_forces() @ turn.T)
        energies.append(atoms.get_potential_energy())
        times.append(mover.get_time() / units.fs)
    return {
        f"pos_{part}": np.stack(positions),
        f"energy_{part}": np.array(energies),
        f"forces_{part}": np.stack(forces),
        f"time_{part}": np.array(times),
    }


def onto(points: Array, target: Array) -> Array:
    """The rotation R that brings the points (N, 3) closest to a target: argmin sum |R x_i - y_i|^2, det R = 1."""
    left, _, right = np.linalg.svd(target.T @ points)
    proper = np.diag([1.0, 1.0, np.sign(np.linalg.det(left @ right))])
    turn: Array = left @ proper @ right
    return turn


@contextmanager
def one_thread() -> Iterator[None]:
    """Lets OpenMP, which torch and tblite share, compute with one thread: small molecules need no more."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


# ---------------------------------------------------------------- tensors


@dataclass(frozen=True)
class Molecule:
    """What all frames of a system have in common.

    Args:
        name: Of the system.
        zero: Mean energy of the training frames used, in eV.
        relaxed: The geometry of least energy (N, 3), in Angstrom.
        masses: (N,) in u.
    """

    name: str
    zero: float
    relaxed: torch.Tensor
    masses: torch.Tensor


@dataclass(frozen=True)
class Data:
    """What a run learns from and is tested on.

    Args:
        parts: train, valid, test and hot, each with pos (B, N, 3) in Angstrom about the centroid, kinds (B, N, S), one
            of the S elements each, energy (B,) in eV, counted from the `zero` of the molecule, and forces (B, N, 3) in
            eV/Angstrom. Of several systems one frame of each follows the other, `molecule` (B,) says which it is, and
            smaller ones are padded, where `mask` (B, N) is false.
        molecules: The systems, in the order in which `molecule` numbers them.
    """

    parts: dict[str, Batch]
    molecules: list[Molecule]

    def alone(self, part: str, number: int) -> Batch:
        """The frames of one of the molecules, without padding."""
        frames = self.parts[part]
        if len(self.molecules) == 1:
            return frames
        frames = rows(frames, frames["molecule"] == number)
        atoms = len(self.molecules[number].masses)
        return frames | {name: frames[name][:, :atoms] for name in ("pos", "kinds", "forces", "mask")}


def load(systems: Sequence[Frames], folder: Path, used: dict[str, int] | None = None) -> Data:
    """The parts of one system or of several, from the folder if it holds them, else from dynamics and kept there.

    An energy for each element by least squares, as is usual for potentials, would do what the means of the molecules
    do: there are no more molecules than elements, and least squares then meets every mean.

    Args:
        systems: With as many frames each.
        used: Frames of each part and system that are used, evenly spread over those that there are; None is all.

    Raises UserError if a file is damaged or holds something else.
    """
    # 1. The frames of each system, and the elements of all.
    read = []
    for frames in systems:
        read.append(thinned(frames, folder, used or {}))
    elements = torch.from_numpy(np.unique(np.concatenate([arrays["numbers"] for arrays in read])))

    # 2. Energies are counted from the mean of each molecule.
    molecules = []
    for frames, arrays in zip(systems, read, strict=True):
        zero = float(arrays["energy_train"].mean())
        relaxed = torch.from_numpy(arrays["relaxed"])
        molecules.append(Molecule(frames.system, zero, relaxed, torch.from_numpy(arrays["masses"])))

    # 3. Tensors of each part.
    parts = {}
    for of_dynamics in PARTS.values():
        for part in of_dynamics:
            tables = []
            for molecule, arrays in zip(molecules, read, strict=True):
                tables.append(tensors(arrays, part, molecule.zero, elements))
            parts[part] = tables[0]
            if len(tables) > 1:
                parts[part] = interleaved(tables)
    return Data(parts, molecules)


def thinned(frames: Frames, folder: Path, used: dict[str, int]) -> Arrays:
    """What `generate` gives, of it only the frames that are used."""
    path = folder / frames.file
    names = frames.shapes(0)
    arrays = cached(path, lambda: generate(frames), names, {"numbers": 1}, "delete it and it will be made again")
    check(arrays, frames, path)
    for part, count in used.items():
        there = frames.count(part)
        chosen = np.arange(count) * there // count
        for kind in ("pos", "energy", "forces", "time"):
            arrays[f"{kind}_{part}"] = arrays[f"{kind}_{part}"][chosen]
    return arrays


def check(arrays: Arrays, frames: Frames, path: Path) -> None:
    """Raises UserError, naming the array, if a file is not of this system."""
    for name, shape in frames.shapes(len(arrays["numbers"])).items():
        if arrays[name].shape != shape:
            raise UserError(f"{path}: {name}: expected shape {shape}; got {arrays[name].shape}")
        kind = "f"
        if name == "numbers":
            kind = "i"
        if arrays[name].dtype.kind != kind:
            raise UserError(f"{path}: {name}: expected numbers of kind {kind!r}; got {arrays[name].dtype}")


def tensors(arrays: Arrays, part: str, zero: float, elements: torch.Tensor) -> Batch:
    """A part as a model gets it; energies lose their common part while they are float64."""
    count = len(arrays[f"energy_{part}"])
    numbers = torch.from_numpy(arrays["numbers"])
    kinds = (numbers[:, None] == elements).float()
    return {
        "pos": torch.from_numpy(arrays[f"pos_{part}"]).float(),
        "kinds": kinds.repeat(count, 1, 1),
        "energy": torch.from_numpy(arrays[f"energy_{part}"] - zero).float(),
        "forces": torch.from_numpy(arrays[f"forces_{part}"]).float(),
    }


def interleaved(tables: Sequence[Batch]) -> Batch:
    """Frames of several molecules, equally many: the first of each, then the second of each; padded to the largest.

    So any stretch of frames, such as the first few, holds all molecules alike.
    """
    largest = max(table["pos"].shape[1] for table in tables)
    padded = []
    for number, table in enumerate(tables):
        count, atoms, _ = table["pos"].shape
        batch = {"energy": table["energy"], "molecule": torch.full((count,), number)}
        batch["mask"] = (torch.arange(largest) < atoms).expand(count, -1)
        for name in ("pos", "kinds", "forces"):
            batch[name] = torch.nn.functional.pad(table[name], (0, 0, 0, largest - atoms))
        padded.append(batch)
    return {name: torch.stack([batch[name] for batch in padded], 1).flatten(0, 1) for name in padded[0]}
