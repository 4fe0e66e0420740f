"""A potential that knows the axes of the laboratory, mended in ASE: error bars, a relaxation, a crystal."""

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from ase.optimize import BFGS

import probsym as ps
from probsym.integrations.ase import SymmetrizedCalculator, turned


class Tilted(Calculator):
    """EMT, and a part that depends on how far atoms lie along z, as a network without symmetry has it."""

    implemented_properties = ("energy", "forces")

    def calculate(self, atoms=None, properties=("energy",), system_changes=tuple(all_changes)):
        super().calculate(atoms, properties, system_changes)
        emt = EMT()
        positions = torch.from_numpy(self.atoms.positions).requires_grad_()
        z = (positions - positions.mean(0))[:, 2]
        extra = 0.02 * (z.square().sum() - z.pow(4).sum())
        (slope,) = torch.autograd.grad(extra, positions)
        energy = emt.get_property("energy", self.atoms) + extra.item()
        self.results = {"energy": energy, "forces": emt.get_property("forces", self.atoms) - slope.numpy()}


water = Atoms("OHH", positions=[[0, 0, 0], [0.76, 0.59, 0], [-0.76, 0.59, 0]])
generator = torch.Generator().manual_seed(0)
poses = [turned(water, ps.SO(3).haar((), generator=generator, dtype=torch.float64)) for _ in range(5)]

# 1. The energy of one molecule in five orientations.
calculators = {
    "as it is": Tilted(),
    "24 octahedral poses": SymmetrizedCalculator(Tilted()),  # exact to degree 3; the part z^4 has degree 4
    "60 icosahedral poses": SymmetrizedCalculator(Tilted(), estimator=ps.MonteCarlo(60, design="icosahedral")),
}
for name, calculator in calculators.items():
    energies = [calculator.get_property("energy", pose) for pose in poses]
    print(f"{name:22} energies differ by {1e3 * np.ptp(energies):7.4f} meV")

# 2. Error bars. Eight blocks of 24 poses tell how good their average is, and how far single poses lie apart.
calculator = SymmetrizedCalculator(Tilted(), estimator=ps.MonteCarlo(192, design="octahedral"))
energy = calculator.get_property("energy", water)
results = calculator.results
exact = calculators["60 icosahedral poses"].get_property("energy", water)
print(f"energy {energy:.4f} +- {results['energy_stderr']:.4f} eV, to degree 5 exactly {exact:.4f}")
print(f"single poses lie {results['energy_rot_std']:.4f} eV apart")
assert abs(energy - exact) < 5 * results["energy_stderr"]

# 3. A relaxation with frozen poses ends in one shape, however the molecule was put.
for name in ("as it is", "60 icosahedral poses"):
    angles = []
    for pose in poses[:3]:
        atoms = pose.copy()
        atoms.calc = calculators[name]
        BFGS(atoms, logfile=None).run(fmax=0.01, steps=30)
        angles.append(atoms.get_angle(1, 0, 2))
    print(f"{name:22} angles of water from {min(angles):.2f} to {max(angles):.2f} degrees")

# 4. A crystal: spglib finds its operations, and the stress gets their symmetry, at no further evaluation.
copper = bulk("Cu", cubic=True, a=3.5)
calculator = SymmetrizedCalculator(EMT(), group=None, space_group=1e-5)
print("stress of copper", calculator.get_property("stress", copper).round(4), "poses:", calculator.poses)
