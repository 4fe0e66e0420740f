"""A model that was trained with the library, or any other of torch, as a calculator of ASE."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.stress import full_3x3_to_voigt_6_stress
from torch import Tensor, nn

from probsym.estimators import Estimator
from probsym.forces import energy_and_forces
from probsym.reps.containers import Spec


class TorchCalculator(Calculator):
    """Energy, forces and stress of a structure by `ps.energy_and_forces`, for dynamics and relaxation with ASE.

    Give it a phi whose energy is one function: frozen, or exact as with `ps.WeightedFrame`. With fresh noise at each
    calculation energies and forces of two steps do not belong together. With `errors=True` `results` also holds
    `energy_stderr`, `forces_stderr` and `stress_stderr`.

    Args:
        phi: a `Symmetrizer`, one that is frozen, or a bare model with `reps` and `output`; energies in eV.
        inputs: makes the model's inputs of a structure, one input (B = 1), lengths in Angstrom: a dict of keywords, a
            tuple of positions, or the single argument. Atoms in their order; padding behind them is cut off.
        stress: whether the model has a stress.
        cell: name of the argument that holds the lattice vectors; None if the model takes none.
        errors: whether standard errors are wanted, at the price of a derivative for each sample.
        positions, energy, shifts, unstrained, reps, output, estimator: as of `ps.energy_and_forces`.

    Raises:
        TypeError: no module, or `inputs` is no function.
        ValueError: at a calculation, forces of fewer atoms than the structure has, or several energies; and as of
            `ps.energy_and_forces`.

    >>> import probsym as ps
    >>> from ase.build import molecule
    >>> from torch import nn
    >>> space = ps.SE(3)
    >>> energy = nn.Sequential(nn.Flatten(), nn.Linear(9, 8), nn.Tanh(), nn.Linear(8, 1)).double()
    >>> phi = ps.symmetrize(energy, ps.Rep(None, space), ps.Rep(), ps.WeightedFrame(space)).eval()
    >>> water = molecule("H2O")
    >>> water.calc = TorchCalculator(phi, lambda atoms: torch.from_numpy(atoms.positions)[None])
    >>> before = water.get_potential_energy()
    >>> water.rotate(40, (1, 2, 3))
    >>> abs(water.get_potential_energy() - before) < 1e-9
    True
    """

    def __init__(
        self,
        phi: nn.Module,
        inputs: Callable[[Atoms], Any],
        *,
        positions: str = "pos",
        energy: str | int | None = None,
        stress: bool = False,
        cell: str | None = None,
        shifts: str | Sequence[str] = (),
        unstrained: str | Sequence[str] = (),
        reps: Spec = None,
        output: Spec = None,
        estimator: Estimator | None = None,
        errors: bool = False,
    ) -> None:
        if not isinstance(phi, nn.Module):
            raise TypeError(f"phi: expected a module, got {type(phi).__name__}")
        if not callable(inputs):
            raise TypeError(f"inputs: expected a function of a structure, got {type(inputs).__name__}")
        self.phi = phi
        self.inputs = inputs
        self.options = {
            "positions": positions, "energy": energy, "shifts": shifts, "unstrained": unstrained, "reps": reps,
            "output": output, "estimator": estimator, "return_estimate": errors,
        }  # fmt: skip
        self.cell = cell
        self.implemented_properties = ["energy", "free_energy", "forces", *(["stress"] if stress else [])]
        super().__init__()

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Energy and forces, and the stress if it is asked for."""
        if atoms is None:
            atoms = self.atoms
        if atoms is None:
            raise ValueError("atoms: expected a structure, got None")
        # Who calls this by hand must not find a stress of another structure beside the new energy.
        if self.check_state(atoms):
            self.results = {}
        super().calculate(atoms, list(properties), list(system_changes))

        # 1. The derivatives. A model that takes no cell still needs the volume for its stress.
        stress = "stress" in properties
        cell: str | Tensor | None = None
        if stress:
            cell = self.cell if self.cell is not None else torch.from_numpy(atoms.cell.array.copy())
        found = energy_and_forces(
            self.phi, self.inputs(atoms), stress=stress, cell=cell, create_graph=False, **self.options
        )

        # 2. As ASE writes them.
        if not self.options["return_estimate"]:
            self.results = {**self.results, **self._written(found, "", len(atoms))}
            return
        mean = self._written(found.mean, "", len(atoms))
        errors = self._written(found.stderr, "_stderr", len(atoms))
        self.results = {**self.results, **mean, **errors}

    def _written(self, found: Any, suffix: str, atoms: int) -> dict[str, Any]:
        """Results by name, for one structure."""
        if found.energy.shape != (1,):
            raise ValueError(f"inputs: expected one structure, got energies of shape {tuple(found.energy.shape)}")
        forces = found.forces.detach().cpu().double().reshape(-1, found.forces.shape[-1])
        if len(forces) < atoms or forces.shape[-1] != 3:
            raise ValueError(f"inputs: expected {atoms} atoms in three dimensions, got forces of {tuple(forces.shape)}")
        energy = float(found.energy.detach())
        written = {f"energy{suffix}": energy, f"forces{suffix}": forces[:atoms].numpy()}
        if not suffix:
            written["free_energy"] = energy
        if len(found) > 2:
            written[f"stress{suffix}"] = full_3x3_to_voigt_6_stress(found.stress[0].detach().cpu().double().numpy())
        return written
