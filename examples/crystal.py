"""An energy of a crystal that is exactly invariant under the 48 operations of fcc, whatever net computes it."""

from itertools import permutations, product

import torch
from torch import nn

import probsym as ps

torch.manual_seed(0)
torch.set_default_dtype(torch.float64)

# 1. The 48 operations of the cube, as a program for space groups lists them: signed permutation matrices.
rotations = []
for axes in permutations(range(3)):
    for signs in product((1, -1), repeat=3):
        rotations.append((torch.eye(3)[list(axes)] * torch.tensor(signs)[:, None]).tolist())

# 2. The sites of fcc in a periodic box of 2 x 2 x 2 cells, in units of half of a cell: 32 points whose sum is even.
sites = [site for site in product(range(4), repeat=3) if sum(site) % 2 == 0]
places = torch.tensor(sites)

# 3. Which site each operation brings to each place: (g u)_i = R u_{source_i}, where R (site source_i) = site i.
sources = []
for rotation in rotations:
    back = torch.tensor(rotation).long().T
    sources.append([sites.index(tuple(site)) for site in (places @ back.T % 4).tolist()])

fcc = ps.Finite(generators=rotations, name="fcc")  # all of them are generators here; a few would do
atoms = fcc.permutation(sources)  # the relations of the group are checked
assert fcc.order() == 48
print("operations:", fcc.order(), " sites:", len(sites))


class Energy(nn.Module):
    """A plain net on all displacements (B, 32, 3): energies (B, 1)."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(96, 64), nn.SiLU(), nn.Linear(64, 1))

    def forward(self, displacements: torch.Tensor) -> torch.Tensor:
        return self.net(displacements)


model = Energy()
phi = ps.symmetrize(model, ps.Rep(atoms, fcc.vector), ps.Rep(), "haar", eval_samples=ps.Exact()).eval()
displacements = 0.1 * torch.randn(4, 32, 3)

print("symmetrized:", ps.testing.assert_equivariant(phi, displacements))
bare = ps.testing.equivariance_error(model, displacements, reps=phi.inputs, output=phi.output)
print("bare model: ", bare)
assert not bare.passed

# The forces turn with the crystal, and vanish by symmetry on the atom that all operations keep.
moved = displacements.clone().requires_grad_()
(forces,) = torch.autograd.grad(-phi(moved).sum(), moved)
crystal = ps.Rep(atoms, fcc.vector)
g = fcc.elements().select(torch.tensor([5, 11, 23, 47]))  # an operation for each of the four
turned = crystal.act(g, displacements).requires_grad_()
(there,) = torch.autograd.grad(-phi(turned).sum(), turned)
assert torch.allclose(there, crystal.act(g, forces), atol=1e-12)

rest = torch.zeros(1, 32, 3, requires_grad=True)
(at_rest,) = torch.autograd.grad(-phi(rest).sum(), rest)
centre = at_rest[0, sites.index((0, 0, 0))].abs().max().item()
print(f"force at rest on the atom that all operations keep: {centre:.1e}")
assert centre < 1e-12

# A wrong list is refused: an operation that is told to leave all sites where they are.
try:
    fcc.permutation([list(range(32)), *sources[1:-1], list(range(32))])
except ValueError as error:
    print("refused:", str(error)[:90], "...")
