"""The charged-particle benchmark as tensors: frames 30 -> 40, drawn from the benchmark's random stream.

EGNN (arXiv 2102.09844) publishes the data as `generate_dataset.py --num-train 10000 --seed 43 --sufix small`: 10,000
training simulations of which 3,000 are used, then 2,000 for validation and 2,000 for testing, all from one stream.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ..batches import Batch
from ..cache import cached
from ..errors import UserError
from ..models.displacements import differences, square
from ..npz import Arrays
from .simulator import draw, simulate

SEED = 43
DRAWN = {"train": 10_000, "valid": 2_000, "test": 2_000}
FRAMES = (20, 30, 40)
SOURCE = 30  # the frame that a model is given
TARGET = 40  # the frame that it predicts


@dataclass(frozen=True)
class System:
    """Which particles, how many simulations of each part are used (the first ones of those drawn), and what is asked.

    Args:
        velocity: Whether velocities at the target frame belong to the data.
    """

    particles: int = 5
    dims: int = 3
    train: int = 3_000
    valid: int = 2_000
    test: int = 2_000
    velocity: bool = False

    def __post_init__(self) -> None:
        ranges = {"particles": (2, math.inf), "dims": (1, math.inf)}
        for part, drawn in DRAWN.items():
            ranges[part] = (1, drawn)
        for name, (low, high) in ranges.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise UserError(f"{name}: expected {low} to {high}; got {value}")

    @property
    def file(self) -> str:
        """Name in the data folder; the benchmark's own name for the benchmark's own system."""
        parts = [f"nbody_charged{self.particles}_initvel1small_seed{SEED}"]
        if (self.particles, self.dims) != (5, 3):
            parts.append("v2")  # earlier versions drew the starts of other systems in another way
        if self.dims != 3:
            parts.append(f"{self.dims}d")
        if (self.train, self.valid, self.test) != (3_000, 2_000, 2_000):
            parts.append(f"{self.train}-{self.valid}-{self.test}")
        if self.velocity:
            parts.append("velocity")
        return "_".join(parts) + ".npz"

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of the arrays in the file: positions and velocities (S, N, D), charges (S, N)."""
        moving = [f"loc{SOURCE}", f"vel{SOURCE}", f"loc{TARGET}"]
        if self.velocity:
            moving.append(f"vel{TARGET}")
        by_name: dict[str, tuple[int, ...]] = {}
        for part in DRAWN:
            count = getattr(self, part)
            for name in moving:
                by_name[f"{name}_{part}"] = (count, self.particles, self.dims)
            by_name[f"charges_{part}"] = (count, self.particles)
        return by_name


def generate(system: System) -> Arrays:
    """Simulates the used samples of all parts; the others only move the random stream on. About 7 seconds."""
    rng = np.random.RandomState(SEED)
    arrays: Arrays = {}
    for part, drawn in DRAWN.items():
        start = draw(rng, drawn, getattr(system, part), system.particles, system.dims)
        loc, vel = simulate(start, FRAMES)
        for number, frame in enumerate(FRAMES):
            arrays[f"loc{frame}_{part}"] = loc[number].astype(np.float32)
            if frame != TARGET or system.velocity:
                arrays[f"vel{frame}_{part}"] = vel[number].astype(np.float32)
        arrays[f"charges_{part}"] = start.charges.astype(np.int8)
    return arrays


def load(system: System, folder: Path) -> dict[str, Batch]:
    """The parts train, valid and test, from the folder if it holds them, else simulated and kept there.

    Raises UserError if the file is damaged or holds something else.
    """
    path = folder / system.file
    arrays = cached(path, lambda: generate(system), system.shapes(), {}, "delete it and it will be simulated again")
    arrays = checked(arrays, system, path)
    return {part: tensors(arrays, part) for part in DRAWN}


def checked(arrays: Arrays, system: System, path: Path) -> Arrays:
    """The arrays of a file in the dtypes of this system.

    Raises UserError, naming the array, if it is not one of this system.
    """
    for name, shape in system.shapes().items():
        if arrays[name].shape != shape:
            raise UserError(f"{path}: {name}: expected shape {shape}; got {arrays[name].shape}")
        if name.startswith("charges"):
            if not np.isin(arrays[name], (-1, 1)).all():
                raise UserError(f"{path}: {name}: expected charges -1 and 1")
        elif arrays[name].dtype.kind != "f":
            raise UserError(f"{path}: {name}: expected real numbers; got {arrays[name].dtype}")
    converted: Arrays = {}
    for name, array in arrays.items():
        if name.startswith("charges"):
            converted[name] = array.astype(np.int8)
        else:
            converted[name] = array.astype(np.float32)
    return converted


def tensors(arrays: Arrays, part: str) -> Batch:
    """What a model gets and should give: pos, vel and target (B, N, D), edge (B, N, N, 1) = q_i q_j.

    If the arrays have velocities at the target frame, also target_vel (B, N, D).
    """
    charges = torch.from_numpy(arrays[f"charges_{part}"]).float()
    batch = {
        "pos": torch.from_numpy(arrays[f"loc{SOURCE}_{part}"]),
        "vel": torch.from_numpy(arrays[f"vel{SOURCE}_{part}"]),
        "edge": (charges[:, :, None] * charges[:, None, :]).unsqueeze(-1),
        "target": torch.from_numpy(arrays[f"loc{TARGET}_{part}"]),
    }
    final = arrays.get(f"vel{TARGET}_{part}")
    if final is not None:
        batch["target_vel"] = torch.from_numpy(final)
    return batch


def published_pairs(batch: Batch) -> Batch:
    """With the pair features of the paper's code, edge (B, N, N, 2): q_i q_j and |x_i - x_j|^2, zero for i = j."""
    distances = square(differences(batch["pos"]))
    edge = torch.cat([batch["edge"], distances], -1)
    others = ~torch.eye(edge.shape[1], dtype=torch.bool, device=edge.device)
    return batch | {"edge": edge * others.unsqueeze(-1)}


def centred(batch: Batch) -> Batch:
    """The centroid of the positions is the origin, of the targets too: what a group without translations needs."""
    origin = batch["pos"].mean(-2, keepdim=True)
    return batch | {"pos": batch["pos"] - origin, "target": batch["target"] - origin}
