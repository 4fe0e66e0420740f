"""Forces of a plain energy model: training on single samples, and energies that are smooth along a path."""

import torch
from torch import Tensor, nn

import probsym as ps

torch.manual_seed(0)
atoms, space = ps.Axis("atoms"), ps.SE(3, "space")
inputs = {"pos": ps.Rep(atoms, space)}


class Energy(nn.Module):
    """sum_i rho(sum_j psi(x_i - x_j)): any order of the atoms will do, but one orientation is not another."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.psi = nn.Sequential(nn.Linear(3, width), nn.SiLU(), nn.Linear(width, width))
        self.rho = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 1))

    def forward(self, pos: Tensor) -> Tensor:
        between = pos.unsqueeze(2) - pos.unsqueeze(1)
        return self.rho(self.psi(between).sum(2)).sum(1)


def truth(pos: Tensor) -> Tensor:
    """Atoms that attract each other at a distance and repel each other nearby."""
    first, second = torch.triu_indices(pos.shape[1], pos.shape[1], 1)
    distance = (pos[:, first] - pos[:, second]).norm(dim=-1)
    return (2 * torch.exp(-2 * distance) - torch.exp(-distance / 2)).sum(1, keepdim=True)


clouds = torch.randn(64, 6, 3)
pos = clouds.clone().requires_grad_()
target = -torch.autograd.grad(truth(pos).sum(), pos)[0]

for name in ("haar", "recursive", "learned"):
    phi = ps.symmetrize(Energy(), inputs, ps.Rep(), name, example={"pos": clouds[:1]})

    # 1. The force of one sample at one geometry: its tail index, and the largest of 4,000 over the median. Of a learned
    #    p by Gram-Schmidt the index is 2, and the variance infinite. Force training needs its square.
    copies = {"pos": clouds[:1].expand(4000, 6, 3)}
    single = ps.energy_and_forces(phi, copies, create_graph=False).forces
    norms = single.flatten(1).norm(dim=1).sort(descending=True).values
    index = 1 / (norms[:100] / norms[100]).log().mean()

    # 2. Training: fresh noise at every step.
    optimizer = torch.optim.Adam(phi.parameters(), 3e-3)
    for _ in range(150):
        loss = (ps.energy_and_forces(phi, {"pos": clouds}).forces - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    # 3. Evaluation: the noise is drawn once and held, so that the energy is one smooth function of the positions.
    phi.eval()
    noise = phi.draw_noise(pos=clouds, samples=16, generator=torch.Generator().manual_seed(0))
    estimate = ps.energy_and_forces(phi, {"pos": clouds}, noise=noise, return_estimate=True)
    found, spread = estimate.mean.forces, estimate.stderr.forces
    error = (found - target).abs().mean() / target.abs().mean()
    share = spread.mean() / target.abs().mean()  # what the 16 samples themselves leave open
    print(
        f"{name:9}  tail index {index:5.1f}, largest / median {norms[0] / norms.median():5.1f}, "
        f"error {error:.2f}, stderr {share:.2f}"
    )

    # Its forces are its derivative.
    if name == "recursive":
        way = torch.randn_like(clouds)
        with torch.no_grad():
            ahead = phi.double()(pos=(clouds + 1e-4 * way).double(), noise=noise).sum()
            behind = phi(pos=(clouds - 1e-4 * way).double(), noise=noise).sum()
        slope = (behind - ahead) / 2e-4
        print(f"           derivative along a path {slope:.4f}, forces along it {(found * way).sum():.4f}")
        assert abs(slope - (found * way).sum()) < 1e-3 * (found * way).norm()
