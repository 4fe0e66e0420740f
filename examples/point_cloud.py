"""Padded point clouds: frames, group averaging and a learned distribution around one plain network."""

import torch
from torch import nn

import probsym as ps

torch.manual_seed(0)
torch.set_default_dtype(torch.float64)  # exactness shows best in double precision


class Flat(nn.Module):
    """A plain network on a padded cloud, equivariant neither to rotations nor to the order of the points."""

    def __init__(self, points: int) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3 * points, 64), nn.Tanh(), nn.Linear(64, 4))

    def forward(self, pos: torch.Tensor, mask: torch.Tensor) -> dict[str, torch.Tensor]:
        out = self.net((pos * mask[..., None]).flatten(1))
        return {"energy": out[:, :1], "dipole": out[:, 1:]}


nodes, space = ps.S("nodes", mask="mask"), ps.E(3, "space")
inputs = {"pos": ps.Rep(nodes, space)}
output = {"energy": ps.Rep(), "dipole": ps.Rep(space.vector)}

sizes = torch.tensor([6, 4, 5])
mask = torch.arange(6) < sizes[:, None]
cloud = {"pos": torch.randn(3, 6, 3) * mask[..., None], "mask": mask}

model = Flat(6)
for name in ("frame", "haar", "canonical", "learned"):
    phi = ps.symmetrize(model, inputs, output, distribution=name).eval()
    estimate = phi.estimate(**cloud)
    error = ps.testing.equivariance_error(phi, cloud, generator=torch.Generator().manual_seed(0))
    energy = estimate.mean["energy"][0].item()
    stderr = estimate.stderr["energy"][0].item()
    print(f"{name:10} samples {estimate.samples.tolist()}, energy {energy:+.4f} +- {stderr:.4f}; {error}")
    assert error.passed

bare = ps.testing.equivariance_error(model, cloud, reps=phi.inputs, output=phi.output)
print("bare model:", bare)
assert not bare.passed

# As many samples as each input needs, and a bound on memory.
phi = ps.symmetrize(model, inputs, output, distribution="haar").eval()
estimate = phi.estimate(**cloud, tol=0.02, max_samples=2000, generator=torch.Generator().manual_seed(0))
print("samples for a standard error of 0.02:", estimate.samples.tolist())
