"""Which p for forces? Tails of the force of one sample, and force training on clusters of eight copper atoms.

    python benchmarks/force_tails.py --out FILE     a run that the file holds already is not repeated
    python benchmarks/force_tails.py --quick        to see that it works

The data are made here: Langevin dynamics of Cu8 with ase's effective-medium potential (EMT), seeded. The base model is
plain: the energy of an atom is an MLP of the sum of an MLP of the displacements to the others, component by component.
It knows that the order of the atoms does not matter, and nothing of rotations. phi averages it over SE(3): one sample a
step in training, 32 in evaluation, forces by autograd. Methods differ in p alone. Frames for training come before those
for validation, and these before those for testing.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from report import circumstances
from torch import Tensor, nn

import probsym as ps
from probsym.distributions import PlainNet, SmallAngle
from probsym.files import write

ATOMS, SPACE = ps.Axis("atoms"), ps.SE(3, "space")
INPUTS = {"pos": ps.Rep(ATOMS, SPACE)}
METHODS: dict[str, Callable[[], Any]] = {
    "haar": lambda: "haar",
    "learned": lambda: "learned",
    "recursive, small angle": lambda: ps.Recursive(PlainNet(INPUTS, SPACE), SPACE),
    "recursive, quaternion": lambda: ps.Recursive(PlainNet(INPUTS, SPACE, "quaternion"), SPACE, "quaternion"),
    "recursive, small angle, MLP": lambda: ps.Recursive(Flat(), SPACE),
}


# ---------------------------------------------------------------- data


def frames(count: int, gap: int = 12, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Positions (frames, 8, 3) in Angstrom and EMT forces in eV/Angstrom, every 24 fs of dynamics at 600 K."""
    from ase import Atoms, units
    from ase.calculators.emt import EMT
    from ase.md.langevin import Langevin
    from ase.optimize import BFGS

    rng = np.random.default_rng(seed)
    corners = np.stack(np.meshgrid([0, 1], [0, 1], [0, 1]), -1).reshape(8, 3)
    atoms = Atoms("Cu8", 2.4 * corners + rng.normal(scale=0.1, size=(8, 3)))
    atoms.calc = EMT()
    BFGS(atoms, logfile=None).run(fmax=0.05, steps=500)
    dynamics = Langevin(atoms, 2 * units.fs, temperature_K=600, friction=0.02 / units.fs, rng=rng)
    dynamics.run(500)
    positions, forces = [], []
    for _ in range(count):
        dynamics.run(gap)
        positions.append(atoms.get_positions())
        forces.append(atoms.get_forces())
    return torch.tensor(np.stack(positions)).float(), torch.tensor(np.stack(forces)).float()


# ---------------------------------------------------------------- model


def mlp(inputs: int, width: int, outputs: int, layers: int = 2) -> nn.Sequential:
    parts: list[nn.Module] = []
    for _ in range(layers):
        parts += [nn.Linear(inputs, width), nn.SiLU()]
        inputs = width
    return nn.Sequential(*parts, nn.Linear(width, outputs))


class Energy(nn.Module):
    """sum_i rho(sum_j psi(x_j - x_i)) for coordinates (B, 8, 3) in Angstrom: energies (B, 1) in eV."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.psi = mlp(3, width, width)
        self.rho = mlp(width, width, 1, layers=1)

    def forward(self, pos: Tensor) -> Tensor:
        between = pos.unsqueeze(1) - pos.unsqueeze(2)
        others = ~torch.eye(pos.shape[1], dtype=torch.bool)
        pairs = between[:, others].unflatten(1, (pos.shape[1], -1))  # (B, 8, 7, 3)
        return self.rho(self.psi(pairs).sum(2)).sum(1)


class Flat(nn.Module):
    """Three numbers of a pose, from all of its coordinates: any function of it."""

    def __init__(self) -> None:
        super().__init__()
        self.net = mlp(24, 128, 3)

    def forward(self, pos: Tensor) -> Tensor:
        return self.net(pos.flatten(1) / 2)


def symmetrized(method: str, example: Tensor, seed: int) -> ps.Symmetrizer:
    torch.manual_seed(seed)
    model = Energy()
    return ps.symmetrize(
        model, INPUTS, ps.Rep(), METHODS[method](), train_samples=1, eval_samples=32, example={"pos": example[:1]}
    )


def forces_of(phi: ps.Symmetrizer, pos: Tensor, generator: torch.Generator, trains: bool = False) -> Tensor:
    """-dE/dx with the noise held."""
    pos = pos.detach().requires_grad_()
    energy = phi(pos=pos, generator=generator).sum()
    return -torch.autograd.grad(energy, pos, create_graph=trains)[0]


# ---------------------------------------------------------------- measurements


def tails(phi: ps.Symmetrizer, pos: Tensor, count: int) -> dict[str, float]:
    """Norms of the force of one sample at one geometry: Hill's tail index of the top half per cent, and extremes."""
    was_training = phi.training
    phi.train()
    generator = torch.Generator().manual_seed(1)
    norms = []
    for start in range(0, count, 2500):
        batch = pos.expand(min(2500, count - start), *pos.shape[1:])
        norms.append(forces_of(phi, batch, generator).flatten(1).norm(dim=1))
    phi.train(was_training)
    ordered = torch.cat(norms).double().sort(descending=True).values
    top = count // 200
    return {
        "tail_index": float(1 / (ordered[:top] / ordered[top]).log().mean()),
        "largest_over_median": float(ordered[0] / ordered.median()),
        "share_of_top_permille": float(ordered[: count // 1000].square().sum() / ordered.square().sum()),
    }


@torch.no_grad()
def concentration(phi: ps.Symmetrizer, pos: Tensor, count: int = 2000) -> dict[str, float]:
    """How far p is from uniform: rho_l = |E D^l(g)| / sqrt(2 l + 1) for l = 1, 2, in [0, 1]; mean over geometries.

    Uniform elements have 1/sqrt(count) by chance. With it the angle of gamma in degrees: mean, and spread over poses.
    """
    x = phi.bind((), {"pos": pos})
    noise = phi.distribution.draw(x, count, torch.Generator().manual_seed(2))
    g = phi.distribution.transport(x, noise)[SPACE].matrix.double()
    first = g.mean(0).square().sum((-2, -1))
    both = torch.einsum("kbij,kbmn->bijmn", g, g) / count
    second = (both.square().flatten(1).sum(1) - 1 - first).clamp_min(0)
    found = {"rho_1": float((first / 3).sqrt().mean()), "rho_2": float((second / 5).sqrt().mean())}
    p = next((m for m in phi.distribution.modules() if isinstance(m, ps.Recursive)), None)
    if p is not None:
        of_p = noise
        while "features" not in of_p:
            of_p = next(part for part in of_p if isinstance(part, dict) and "features" in part["features"])
        h = p.uniform.transport(x, of_p["features"])
        gamma = h.inverse() @ p.transport(x, of_p)
        trace = gamma.matrix.double().diagonal(dim1=-2, dim2=-1).sum(-1)
        angle = ((trace - 1) / 2).clamp(-1, 1).arccos() * 180 / math.pi
        found["angle_mean"] = float(angle.mean())
        found["angle_spread"] = float(angle.std(0).mean())
    return found


def errors(phi: ps.Symmetrizer, pos: Tensor, force: Tensor) -> dict[str, float]:
    """Mean absolute and root mean square error of the components of the forces, meV/Angstrom."""
    phi.eval()
    generator = torch.Generator().manual_seed(3)
    found = [forces_of(phi, part, generator) for part in pos.split(50)]
    away = 1000 * (torch.cat(found) - force)
    return {"mae": float(away.abs().mean()), "rmse": float(away.square().mean().sqrt())}


def run(method: str, seed: int, data: dict[str, tuple[Tensor, Tensor]], steps: int, count: int) -> dict[str, Any]:
    """One training: everything that is measured of it."""
    pos, force = data["train"]
    phi = symmetrized(method, pos, seed)
    before = {"tails": tails(phi, pos[:1], count), "concentration": concentration(phi, pos[:8])}
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(phi.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    started = time.perf_counter()
    phi.train()
    for step in range(steps):
        index = torch.randint(len(pos), (32,), generator=generator)
        loss = (forces_of(phi, pos[index], generator, trains=True) - force[index]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 500 == 0:
            print(f"  {method}, seed {seed}, step {step}: loss {loss.item():.4f}", flush=True)
    seconds = time.perf_counter() - started
    after = {"tails": tails(phi, pos[:1], count), "concentration": concentration(phi, pos[:8])}
    measured = {split: errors(phi, *data[split]) for split in ("valid", "test")}
    return {
        "method": method,
        "seed": seed,
        "steps": steps,
        "seconds": seconds,
        "before": before,
        "after": after,
        **measured,
    }


# ---------------------------------------------------------------- report


def table(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The tables of the documentation: mean over seeds, and the range."""

    def cell(found: list[float], digits: int) -> str:
        if len(found) == 1:
            return f"{found[0]:.{digits}f}"
        return f"{statistics.mean(found):.{digits}f} ({min(found):.{digits}f} to {max(found):.{digits}f})"

    rows, learns = [], []
    for method in METHODS:
        own = [r for r in runs if r["method"] == method]
        if not own:
            continue
        rows.append([
            method,
            str(len(own)),
            cell([r["before"]["tails"]["tail_index"] for r in own], 1),
            cell([r["after"]["tails"]["tail_index"] for r in own], 1),
            cell([r["after"]["tails"]["largest_over_median"] for r in own], 0),
            cell([r["test"]["mae"] for r in own], 1),
            cell([r["test"]["rmse"] for r in own], 1),
        ])  # fmt: skip
        angle = "-"
        if "angle_mean" in own[0]["after"]["concentration"]:
            angle = cell([r["after"]["concentration"]["angle_mean"] for r in own], 0)
        learns.append([
            method,
            cell([r["before"]["concentration"]["rho_1"] for r in own], 2),
            cell([r["after"]["concentration"]["rho_1"] for r in own], 2),
            cell([r["before"]["concentration"]["rho_2"] for r in own], 2),
            cell([r["after"]["concentration"]["rho_2"] for r in own], 2),
            angle,
        ])  # fmt: skip
    errors_of = {
        "title": "Force training on Cu8",
        "columns": [
            "p", "seeds", "tail index before", "after training", "largest / median", "test MAE, meV/A", "test RMSE",
        ],
        "rows": rows,
    }  # fmt: skip
    learned = {
        "title": "How far p is from uniform",
        "columns": ["p", "rho_1 before", "after", "rho_2 before", "after", "angle of gamma, degrees"],
        "rows": learns,
    }
    return [errors_of, learned]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, help="results as JSON; runs that it holds are not repeated")
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--limit", type=float, help="limit of the small angles in radians, instead of the default")
    options = parser.parse_args()
    torch.set_num_threads(1)
    steps, count, seeds = options.steps, 20_000, options.seeds
    if options.quick:
        steps, count, seeds = 50, 5_000, seeds[:1]
    if options.limit is not None:
        head = SmallAngle(options.limit)
        METHODS["recursive, small angle"] = lambda: ps.Recursive(PlainNet(INPUTS, SPACE, head), SPACE, head)

    runs: list[dict[str, Any]] = []
    if options.out and options.out.exists():
        runs = json.loads(options.out.read_text())["runs"]
    sizes = {"train": 500, "valid": 100, "test": 200}
    warnings.simplefilter("ignore", FutureWarning)  # ase's of a fixed centre of mass, which is meant here
    pos, force = frames(sum(sizes.values()), gap=1 if options.quick else 12)
    parts = zip(sizes, pos.split(list(sizes.values())), force.split(list(sizes.values())), strict=True)
    data = {name: (p, f) for name, p, f in parts}
    facts = circumstances(1)
    facts["command"] = "python benchmarks/force_tails.py"
    facts["force_rms"] = float(1000 * data["train"][1].square().mean().sqrt())
    for seed in seeds:
        for method in options.methods:
            if any(r["method"] == method and r["seed"] == seed for r in runs):
                continue
            runs.append(run(method, seed, data, steps, count))
            print(json.dumps(runs[-1]), flush=True)
            if options.out:
                write(options.out, json.dumps({**facts, "tables": table(runs), "runs": runs}, indent=1) + "\n")
    for each in table(runs):
        print("\n" + each["title"] + "\n\n" + " | ".join(each["columns"]))
        for row in each["rows"]:
            print(" | ".join(row))


if __name__ == "__main__":
    main()
