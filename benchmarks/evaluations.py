"""Evaluations of the base model for an error of 1 %, for every design and group. Counts, not times."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from timing import table
from torch import Tensor, nn

import probsym as ps

POINTS, INPUTS, NETS = 5, 16, 4
PLAIN: dict[str, list[Any]] = {
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
    nodes = ps.S("nodes") if name.startswith("S(5)") else None
    spaces = {repr(space): space for space in (*(f(d) for f in (ps.SO, ps.O) for d in (2, 3, 4)), ps.SE(3), ps.E(3))}
    space = spaces.get(name.split(" x ")[-1])
    return ps.Rep(nodes, space), getattr(space, "dim", 3)


def net(dim: int, scale: float, seed: int) -> nn.Module:
    """A 3-layer MLP on all coordinates, weights times `scale`."""
    torch.manual_seed(seed)
    layers = [nn.Linear(POINTS * dim, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 1)]
    with torch.no_grad():
        for layer in layers[::2]:
            layer.weight.mul_(scale)  # type: ignore[operator]
    return nn.Sequential(nn.Flatten(), *layers).double()


@torch.no_grad()
def needed(rep: ps.Rep, model: nn.Module, x: Tensor, design: Any, evaluations: int) -> Tensor:
    """Evaluations for a root mean square error of 1 % of the spread of f over the group (B,)."""
    phi = ps.symmetrize(model, rep, ps.Rep(), "haar").eval()
    estimator = ps.MonteCarlo(evaluations, 240, design)
    estimate = phi.estimate(x, estimator=estimator, generator=torch.Generator().manual_seed(1))
    return estimate.stderr.squeeze(-1).square() * evaluations / 1e-4


def designs(quick: bool) -> None:
    """Evaluations for an error of 1 % of the standard deviation of f over the group; plain Monte Carlo needs 10,000."""
    total = 1920 if quick else 7680
    for title, scale in (("Rough net (weights times 3)", 3.0), ("Smooth net", 1.0)):
        rows = (row for name in PLAIN for row in compared(name, scale, total))
        columns = ["group", "design", "block", "evaluations for 1 %", "variance, plain / design", "range over nets"]
        table(f"{title}: evaluations for an error of 1 % of the standard deviation over the group", columns, rows)


def compared(name: str, scale: float, total: int) -> Iterator[list[object]]:
    rep, dim = group(name)
    models = [net(dim, scale, seed) for seed in range(NETS)]
    x = torch.randn(INPUTS, POINTS, dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    plain = [needed(rep, model, x, None, total).sum() for model in models]
    for given in PLAIN[name]:
        design = ps.designs.Sobol(given) if isinstance(given, int) else given
        block = block_of(rep, x, design)
        count = total - total % block
        found = [needed(rep, model, x, design, count).sum() for model in models]
        ratios = sorted(float(a / b) for a, b in zip(plain, found, strict=True))
        middle = float(sum(plain) / sum(found))
        yield [
            name,
            " x ".join(design) if isinstance(design, tuple) else design,
            block,
            f"{max(block, 1e4 / middle):,.0f}",
            f"{middle:.1f}",
            f"{ratios[0]:.1f} to {ratios[-1]:.1f}",
        ]


def block_of(rep: ps.Rep, x: Tensor, design: Any) -> int:
    """Samples in a block, asked of the design itself."""
    phi = ps.symmetrize(nn.Flatten(), rep, ps.Rep(), "haar").eval()
    return ps.designs.as_design(design).block_size(phi.distribution, phi.bind((x[:1],), {}))
