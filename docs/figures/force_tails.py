"""How heavy the tails of forces are, and what force training makes of them. Writes the figure.

Left: the norm of the force of one sample at one geometry of eight points, 40,000 samples of each p before training.
Right: the errors in results/benchmarks/force_tails.json.
"""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from torch import Tensor, nn

import probsym as ps
from probsym.distributions import PlainNet

HERE = Path(__file__).parent
RESULTS = HERE.parents[1] / "results" / "benchmarks" / "force_tails.json"
SPACE = ps.SE(3, "space")
INPUTS = {"pos": ps.Rep(ps.Axis("atoms"), SPACE)}
SHOWN = {
    "haar": ("Haar", "haar"),
    "learned": ("Learned", "learned"),
    "recursive, small angle": ("Recursive,\nsmall angle", "recursive"),
    "recursive, quaternion": (
        "Recursive,\nquaternion",
        ps.Recursive(PlainNet(INPUTS, SPACE, "quaternion"), SPACE, "quaternion"),
    ),
}


class Energy(nn.Module):
    """An MLP on the coordinates of eight points."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(24, 64), nn.SiLU(), nn.Linear(64, 1))

    def forward(self, pos: Tensor) -> Tensor:
        return self.net(pos)


def norms(p: str | ps.EquivariantDistribution) -> Tensor:
    """Norms of the forces of 40,000 samples, the largest first."""
    torch.manual_seed(0)
    pos = 1.5 * torch.randn(1, 8, 3)
    phi = ps.symmetrize(Energy(), INPUTS, ps.Rep(), p, example={"pos": pos})
    generator = torch.Generator().manual_seed(0)
    found = []
    for _ in range(16):
        x = pos.expand(2500, 8, 3).clone().requires_grad_()
        (gradient,) = torch.autograd.grad(phi(pos=x, generator=generator).sum(), x)
        found.append(gradient.flatten(1).norm(dim=1))
    return torch.cat(found).sort(descending=True).values


def main() -> None:
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.4, 3.8), layout="constrained")

    # 1. the tails
    for label, p in SHOWN.values():
        values = norms(p)
        probability = torch.arange(1, len(values) + 1) / len(values)
        left.loglog(values / values.median(), probability, lw=1.4, label=label.replace("\n", " "))
    ratio = torch.tensor([3.0, 100.0])
    left.loglog(ratio, 0.3 * ratio**-2, color="0.5", lw=1, ls=":", label="slope -2: infinite variance")
    left.set_xlabel("force of one sample / median")
    left.set_ylabel("probability of a larger one")
    left.legend(frameon=False, fontsize=8)

    # 2. the errors after training, one mark a seed
    runs = json.loads(RESULTS.read_text())["runs"]
    for place, method in enumerate(SHOWN):
        errors = [run["test"]["mae"] for run in runs if run["method"] == method]
        right.plot([place] * len(errors), errors, "o", ms=5, color=f"C{place}")
    right.set_yscale("log")
    right.set_xticks(range(len(SHOWN)), [label for label, _ in SHOWN.values()], fontsize=8)
    right.set_ylabel("test error of forces, meV/A (MAE)")
    for axis in (left, right):
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(HERE / "force_tails.png", dpi=160)


if __name__ == "__main__":
    main()
