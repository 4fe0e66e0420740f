"""The energy of ethanol while it turns, by a calculator that knows the axes of the laboratory; before and after."""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from ase import Atoms
from ase.build import molecule
from ase.calculators.emt import EMT

import probsym as ps
from probsym.integrations.ase import SymmetrizedCalculator

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from lab_axes import Anisotropic

ANGLES = np.linspace(0, 360, 73)  # degrees about a skew axis
AXIS = (1, 2, 0.5)
AMPLITUDES = {1: 2e-3, 2: 2e-3, 3: 1e-3, 4: 4e-4, 5: 2e-4, 6: 1e-4}  # eV, by degree
SHOWN = {
    "as it is": ("tab:gray", None),
    "24 octahedral poses": ("tab:blue", ps.MonteCarlo(24, design="octahedral")),
    "60 icosahedral poses": ("tab:orange", ps.MonteCarlo(60, design="icosahedral")),
}


def energies(estimator: ps.Estimator | None) -> np.ndarray:
    """The energy at each angle in meV, less that of the part without axes."""
    calculator = Anisotropic(EMT(), AMPLITUDES)
    if estimator is not None:
        calculator = SymmetrizedCalculator(calculator, estimator=estimator)
    truth = EMT().get_potential_energy(molecule("CH3CH2OH"))
    values: list[float] = []
    for angle in ANGLES:
        atoms: Atoms = molecule("CH3CH2OH")
        atoms.rotate(angle, AXIS)
        values.append(1e3 * (calculator.get_potential_energy(atoms) - truth))
    return np.array(values)


def main() -> None:
    torch.set_num_threads(1)
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.4, 3.2), layout="constrained")
    for name, (colour, estimator) in SHOWN.items():
        values = energies(estimator)
        print(f"{name}: {np.ptp(values):.4f} meV from the lowest to the highest")
        left.plot(ANGLES, values, color=colour, label=f"{name}: {np.ptp(values):.2f} meV", lw=1.6)
        if estimator is not None:
            right.plot(ANGLES, values, color=colour, lw=1.6)
    for axis in (left, right):
        axis.set_xlabel("angle by which the molecule is turned (degrees)")
        axis.set_xticks(np.arange(0, 361, 90))
        axis.spines[["top", "right"]].set_visible(False)
    left.set_ylabel("error of the energy (meV)")
    left.legend(frameon=False, fontsize=8, title="highest less lowest", title_fontsize=8)
    right.set_title("the same, averages alone", fontsize=9)
    right.axhline(0, color="0.8", lw=0.8, zorder=0)
    low, high = left.get_ylim()
    left.set_ylim(low, high + 0.4 * (high - low))
    figure.savefig(Path(__file__).with_suffix(".png"), dpi=160)


if __name__ == "__main__":
    main()
