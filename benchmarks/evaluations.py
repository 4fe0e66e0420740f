"""Evaluations of the base model for an error of 1 %, for every design and group. Counts, not times."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from timing import table
from torch import Tensor, nn

import probsym as ps

POINTS = 5
INPUTS = 16
NETS = 4
DESIGNS: dict[str, list[Any]] = {
    "SO(3)": ["tetrahedral", "octahedral", "icosahedral", "signs", "signed-permutations", "antithetic", "stratified",
              "sobol", 64, 256],
    "O(3)": ["tetrahedral", "octahedral", "icosahedral", "pyritohedral", "full-octahedral", "full-icosahedral", "signs",
             "signed-permutations", "antithetic", "stratified", "sobol", 64, 256],
    "SO(2)": ["cyclic", ps.designs.Cyclic(16), "signs", "signed-permutations", "antithetic", "stratified", "sobol", 64],
    "O(2)": ["cyclic", "dihedral", ps.designs.Dihedral(8), "signs", "signed-permutations", "antithetic", "stratified",
             "sobol", 64],
    "SO(4)": ["signs", "signed-permutations", "antithetic", "stratified", "sobol", 64],
    "O(4)": ["signs", "signed-permutations", "antithetic", "stratified", "sobol", 64],
    "SE(3)": ["octahedral"],
    "E(3)": ["full-octahedral"],
    "S(5)": ["shifts", "antithetic", "stratified", "sobol", 64, 256],
    "S(5) x SO(3)": ["octahedral", "shifts", ("shifts", "signs"), ("shifts", "octahedral"), "antithetic", "stratified",
                     "sobol", 64],
}  # fmt: skip


def group(name: str) -> tuple[ps.Rep, int]:
    """The Rep of the points and their dimension."""
    nodes = None
    if name.startswith("S(5)"):
        nodes = ps.S("nodes")

    spaces: dict[str, ps.groups.IsometryGroup] = {"SE(3)": ps.SE(3), "E(3)": ps.E(3)}
    for d in (2, 3, 4):
        spaces[f"SO({d})"] = ps.SO(d)
        spaces[f"O({d})"] = ps.O(d)
    space = spaces.get(name.split(" x ")[-1])
    if space is None:
        return ps.Rep(nodes), 3
    return ps.Rep(nodes, space), space.dim


@torch.no_grad()
def evaluations_for_one_percent(rep: ps.Rep, model: nn.Module, x: Tensor, design: Any, evaluations: int) -> float:
    """Evaluations for a root mean square error of 1 % of the spread of f over the group, summed over the inputs."""
    phi = ps.symmetrize(model, rep, ps.Rep(), "haar").eval()
    estimator = ps.MonteCarlo(evaluations, 240, design)
    estimate = phi.estimate(x, estimator=estimator, generator=torch.Generator().manual_seed(1))
    variance_of_one = estimate.stderr.squeeze(-1).square() * evaluations
    return (variance_of_one / 1e-4).sum().item()


def net(dim: int, scale: float, seed: int) -> nn.Module:
    """A 3-layer MLP on all coordinates, weights times `scale`."""
    torch.manual_seed(seed)
    layers = [nn.Linear(POINTS * dim, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 1)]
    with torch.no_grad():
        for layer in layers[::2]:
            layer.weight.mul_(scale)  # type: ignore[operator]
    return nn.Sequential(nn.Flatten(), *layers).double()


def designs(quick: bool) -> None:
    """Evaluations for an error of 1 % of the standard deviation of f over the group; plain Monte Carlo needs 10,000."""
    total = 7680
    if quick:
        total = 1920
    columns = ["group", "design", "block", "evaluations for 1 %", "variance, plain / design", "range over nets"]
    for title, scale in (("Rough net (weights times 3)", 3.0), ("Smooth net", 1.0)):
        heading = f"{title}: evaluations for an error of 1 % of the standard deviation over the group"
        table(heading, columns, design_rows(scale, total))


def design_rows(scale: float, total: int) -> Iterator[list[object]]:
    """The rows of all groups."""
    for name in DESIGNS:
        yield from compared(name, scale, total)


def compared(name: str, scale: float, total: int) -> Iterator[list[object]]:
    """One row per design of a group, beside plain Monte Carlo on the same nets and inputs."""
    # 1. The nets, and what plain Monte Carlo needs on each.
    rep, dim = group(name)
    x = torch.randn(INPUTS, POINTS, dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    models = []
    plain = []
    for seed in range(NETS):
        model = net(dim, scale, seed)
        models.append(model)
        plain.append(evaluations_for_one_percent(rep, model, x, None, total))

    for given in DESIGNS[name]:
        # 2. What the design needs. Only whole blocks are evaluated.
        design = given
        if isinstance(given, int):
            design = ps.designs.Sobol(given)
        block = block_of(rep, x, design)
        evaluations = total - total % block
        with_design = []
        ratios = []
        for model, by_plain in zip(models, plain, strict=True):
            by_design = evaluations_for_one_percent(rep, model, x, design, evaluations)
            with_design.append(by_design)
            ratios.append(by_plain / by_design)

        # 3. The row. Nobody can evaluate less than one block.
        label = design
        if isinstance(design, tuple):
            label = " x ".join(design)
        gain = sum(plain) / sum(with_design)
        yield [
            name,
            label,
            block,
            f"{max(block, 1e4 / gain):,.0f}",
            f"{gain:.1f}",
            f"{min(ratios):.1f} to {max(ratios):.1f}",
        ]


def block_of(rep: ps.Rep, x: Tensor, design: Any) -> int:
    """Samples in a block, asked of the design itself."""
    phi = ps.symmetrize(nn.Flatten(), rep, ps.Rep(), "haar").eval()
    return ps.designs.as_design(design).block_size(phi.distribution, phi.bind((x[:1],), {}))
