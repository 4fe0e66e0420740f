"""The n-body benchmarks as tensors, drawn from the benchmarks' random streams.

EGNN (arXiv 2102.09844) publishes the data as `generate_dataset.py --num-train 10000 --seed 43 --sufix small`: 10,000
training simulations of which 3,000 are used, then 2,000 for validation and 2,000 for testing, all from one stream.
Frame 30 is given and frame 40 predicted, 1,000 steps later. SEGNO (arXiv 2308.13212; N-body/main.py in
github.com/yliukj/SEGNO) adds frames 45 and 50, and 5 bodies under gravity, of which frame 0 is given and frames 10, 15
and 20 are predicted. Of its longer charged simulations the length is not told, on which their stream depends: ours are
those of the first benchmark, carried on.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ..batches import Batch
from ..cache import cached
from ..errors import UserError, choose
from ..models.displacements import differences, square
from ..npz import Arrays
from . import gravity, simulator
from .simulator import FRAME, Start, Trajectory, simulate

SEED = 43
DRAWN = {"train": 10_000, "valid": 2_000, "test": 2_000}
HORIZONS = (1_000, 1_500, 2_000)  # steps from the frame that a model is given to the one that it predicts


@dataclass(frozen=True)
class Law:
    """How a system starts and moves.

    Args:
        draw: The first `used` of `draws` starts of a stream, from (stream, draws, used, particles, dims).
        source: The frame that a model is given.
        charges: Values of what stands beside positions and velocities.
    """

    draw: Callable[[np.random.RandomState, int, int, int, int], Start]
    trajectory: Trajectory
    source: int
    charges: tuple[int, ...]


LAWS = {
    "charged": Law(simulator.draw, simulator.trajectory, 30, (-1, 1)),
    "gravity": Law(gravity.draw, gravity.trajectory, 0, (1,)),
}


@dataclass(frozen=True)
class System:
    """Which particles, how many simulations of each part are used (the first ones of those drawn), and what is asked.

    Args:
        velocity: Whether velocities at the target frame belong to the data.
        law: A name in LAWS: charged or gravity.
        horizon: Steps from the frame that is given to the one that is predicted, one of HORIZONS.
    """

    particles: int = 5
    dims: int = 3
    train: int = 3_000
    valid: int = 2_000
    test: int = 2_000
    velocity: bool = False
    law: str = "charged"
    horizon: int = HORIZONS[0]

    def __post_init__(self) -> None:
        choose("system", LAWS, self.law)
        if self.horizon not in HORIZONS:
            raise UserError(f"horizon: expected one of {', '.join(map(str, HORIZONS))}; got {self.horizon}")
        ranges = {"particles": (2, math.inf), "dims": (1, math.inf)}
        for part, drawn in DRAWN.items():
            ranges[part] = (1, drawn)
        for name, (low, high) in ranges.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise UserError(f"{name}: expected {low} to {high}; got {value}")

    @property
    def source(self) -> int:
        """The frame that a model is given."""
        return LAWS[self.law].source

    @property
    def target(self) -> int:
        """The frame that it predicts."""
        return self.source + self.horizon // FRAME

    @property
    def frames(self) -> tuple[int, ...]:
        """Those in the file, in rising order. That of the first benchmark has one more, which nobody reads."""
        if (self.law, self.horizon) == ("charged", HORIZONS[0]):
            return (20, self.source, self.target)
        return (self.source, self.target)

    @property
    def file(self) -> str:
        """Name in the data folder; the benchmark's own name for the benchmark's own system."""
        parts = [f"nbody_{self.law}{self.particles}_initvel1small_seed{SEED}"]
        if (self.particles, self.dims) != (5, 3):
            parts.append("v2")  # earlier versions drew the starts of other systems in another way
        if self.dims != 3:
            parts.append(f"{self.dims}d")
        if (self.train, self.valid, self.test) != (3_000, 2_000, 2_000):
            parts.append(f"{self.train}-{self.valid}-{self.test}")
        if self.velocity:
            parts.append("velocity")
        if self.horizon != HORIZONS[0]:
            parts.append(f"to{self.target}")
        return "_".join(parts) + ".npz"

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of the arrays in the file: positions and velocities (S, N, D), charges (S, N)."""
        moving = [f"loc{self.source}", f"vel{self.source}", f"loc{self.target}"]
        if self.velocity:
            moving.append(f"vel{self.target}")
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
    law = LAWS[system.law]
    arrays: Arrays = {}
    for part, drawn in DRAWN.items():
        start = law.draw(rng, drawn, getattr(system, part), system.particles, system.dims)
        loc, vel = simulate(start, system.frames, trajectory=law.trajectory)
        for number, frame in enumerate(system.frames):
            arrays[f"loc{frame}_{part}"] = loc[number].astype(np.float32)
            if frame != system.target or system.velocity:
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
    return {part: tensors(arrays, part, system) for part in DRAWN}


def checked(arrays: Arrays, system: System, path: Path) -> Arrays:
    """The arrays of a file in the dtypes of this system.

    Raises UserError, naming the array, if it is not one of this system.
    """
    for name, shape in system.shapes().items():
        if arrays[name].shape != shape:
            raise UserError(f"{path}: {name}: expected shape {shape}; got {arrays[name].shape}")
        if name.startswith("charges"):
            known = LAWS[system.law].charges
            if not np.isin(arrays[name], known).all():
                raise UserError(f"{path}: {name}: expected charges {' and '.join(map(str, known))}")
        elif arrays[name].dtype.kind != "f":
            raise UserError(f"{path}: {name}: expected real numbers; got {arrays[name].dtype}")
    converted: Arrays = {}
    for name, array in arrays.items():
        if name.startswith("charges"):
            converted[name] = array.astype(np.int8)
        else:
            converted[name] = array.astype(np.float32)
    return converted


def tensors(arrays: Arrays, part: str, system: System = System()) -> Batch:
    """What a model gets and should give: pos, vel and target (B, N, D), edge (B, N, N, 1) = q_i q_j.

    Under gravity q is the mass, and all of `edge` is one. If the arrays have velocities at the target frame, also
    target_vel (B, N, D).
    """
    charges = torch.from_numpy(arrays[f"charges_{part}"]).float()
    batch = {
        "pos": torch.from_numpy(arrays[f"loc{system.source}_{part}"]),
        "vel": torch.from_numpy(arrays[f"vel{system.source}_{part}"]),
        "edge": (charges[:, :, None] * charges[:, None, :]).unsqueeze(-1),
        "target": torch.from_numpy(arrays[f"loc{system.target}_{part}"]),
    }
    final = arrays.get(f"vel{system.target}_{part}")
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
