"""A trained model as a function of ase's atoms, for `probsym audit` and whoever wants energies of structures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

import probsym as ps

from ..recipe import TrainerOptions
from ..results import IDENTITY, read_identity
from .config import Config
from .models import BASES, METHODS, inputs
from .systems import elements, members

if TYPE_CHECKING:
    from ase import Atoms

Calculate = Callable[["Atoms"], dict[str, Any]]


def trained(run: str, samples: int | None = None, design: str | None = None, seed: int = 0) -> Calculate:
    """Atoms to a dict with energy in eV, counted from the mean of the training frames, and forces in eV/Angstrom.

    Computed in float64, with the same noise at every call. Bare networks know the orientation in which they were
    trained; other elements than those of the system are refused. Of several molecules each has a mean of its own:
    compare energies of one molecule, not of two.

    Args:
        run: Folder that `probsym run atoms` wrote.
        samples: Of methods that draw; None is the number with which the run was tested.
        design: Of these samples, such as "octahedral".
        seed: Of the noise.

    Raises:
        UserError: a folder without a run. ValueError: elements that the model does not know.
    """
    # 1. What was trained.
    fields = dict(read_identity(Path(run) / IDENTITY)["config"])
    trainer = TrainerOptions(**fields.pop("trainer"))
    config = Config(**fields, trainer=trainer)
    known = elements(config.system)
    base = BASES[config.base](config, len(known))
    phi = ps.load(Path(run) / "model", model=base).double()
    frozen = phi.frozen(seed).eval()
    estimator: ps.MonteCarlo | None = None
    if METHODS[config.symmetrizer].random:
        estimator = ps.MonteCarlo(samples or config.samples, design=design)
    several = len(members(config.system)) > 1

    # 2. One structure at a time.
    def calculate(atoms: Atoms) -> dict[str, Any]:
        numbers = atoms.get_atomic_numbers().tolist()
        if not set(numbers) <= set(known):
            raise ValueError(f"atoms: expected elements {known}, got {sorted(set(numbers))}")
        kinds = torch.zeros(1, len(numbers), len(known), dtype=torch.float64)
        for place, number in enumerate(numbers):
            kinds[0, place, known.index(number)] = 1
        frame = {"pos": torch.from_numpy(atoms.get_positions())[None], "kinds": kinds}
        if several:
            frame["mask"] = torch.ones(1, len(numbers), dtype=torch.bool)
        energy, forces = ps.energy_and_forces(frozen, inputs(phi, frame), estimator=estimator)
        return {"energy": energy.item(), "forces": forces.reshape(-1, 3).numpy()}

    return calculate
