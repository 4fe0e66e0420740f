"""Energies along a path next to a symmetric shape: principal axes jump, weighted frames do not. Writes the figure."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import torch
from torch import Tensor, nn

import probsym as ps

STEPS = torch.linspace(-0.06, 0.06, 241, dtype=torch.float64)
SHOWN = {"frame": "Frame: principal axes", "weighted": "WeightedFrame", "haar": "Haar, 240 frozen samples"}


def path() -> Tensor:
    """Eight atoms (steps, 8, 3) on their way through a capped tetrahedron."""
    generator = torch.Generator().manual_seed(0)
    corners = torch.tensor([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], dtype=torch.float64)
    symmetric = torch.cat([corners, -1.7 * corners])
    direction = 0.3 * torch.randn(8, 3, generator=generator, dtype=torch.float64)
    return symmetric + STEPS[:, None, None] * direction


def energies() -> dict[str, Tensor]:
    """The energy along the path of one small network, averaged in three ways."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(24, 32), nn.Tanh(), nn.Linear(32, 1)).double()
    space = ps.SE(3)
    made: dict[str, Tensor] = {}
    for name, p in (("frame", "frame"), ("weighted", ps.WeightedFrame(space)), ("haar", "haar")):
        phi = ps.symmetrize(net, ps.Rep(ps.Axis("atoms"), space), ps.Rep(), p).eval()
        values: list[Tensor] = []
        for positions in path():
            if name == "haar":
                generator = torch.Generator().manual_seed(0)
                values.append(phi(positions[None], samples=240, generator=generator).detach().squeeze())
            else:
                values.append(phi(positions[None]).detach().squeeze())
        made[name] = torch.stack(values)
    return made


def main() -> None:
    figure, axis = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
    for name, values in energies().items():
        step = values.diff().abs()
        ratio = float(step.max() / step.median())
        axis.plot(STEPS, values, label=f"{SHOWN[name]}: largest step {ratio:,.0f} x median", lw=1.4)
        print(f"{name}: largest step {float(step.max()):.2e}, {ratio:.1f} times the median")
    axis.set_xlabel("displacement from the symmetric shape")
    axis.set_ylabel("energy (arbitrary units)")
    figure.legend(loc="outside lower center", frameon=False, fontsize=8)
    axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(Path(__file__).with_suffix(".png"), dpi=160)


if __name__ == "__main__":
    main()
