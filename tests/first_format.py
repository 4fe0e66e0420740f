"""Symmetrizers that were saved in the first format, and how each is declared today.

    python tests/first_format.py FOLDER

writes one folder per case: what `probsym.save` makes of it, and `call.safetensors` with the inputs and what came out.
Those in tests/data/format1 were written by the last release that knew the first format alone (commit 0176d55).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import probsym as ps
from probsym.distributions import DefaultNet, EquivariantDistribution

B, N = 2, 4
NODES, SPACE = ps.S("nodes"), ps.E(3, "space")
CLOUD = {"pos": ps.Rep(NODES, SPACE), "vel": ps.Rep(NODES, SPACE.vector)}
PADDED, RAGGED, TWO_SETS = ps.S("nodes", mask="mask"), ps.S("nodes", batch="batch"), ps.Axis("atoms", batch="batch")


class Base(nn.Module):
    """Any function of all its floating arguments, flattened, with an output of a given shape."""

    def __init__(self, entries: int, *shape: int) -> None:
        super().__init__()
        self.shape = shape
        self.inner = nn.Linear(entries, 4, dtype=torch.float64)
        self.outer = nn.Linear(4, torch.Size(shape).numel(), dtype=torch.float64)

    def forward(self, *args: Tensor, **kwargs: Tensor) -> Tensor:
        given = [tensor.flatten(1) for tensor in (*args, *kwargs.values()) if tensor.is_floating_point()]
        return self.outer(torch.tanh(self.inner(torch.cat(given, 1)))).reshape(-1, *self.shape)


class ComplexBase(Base):
    """One with complex weights."""

    def __init__(self, entries: int, *shape: int) -> None:
        super().__init__(entries, *shape)
        self.factor = nn.Parameter(torch.randn(3, dtype=torch.complex128))

    def forward(self, *args: Tensor, **kwargs: Tensor) -> Tensor:
        return super().forward(*args, **kwargs) * self.factor


class RowBase(nn.Module):
    """A function of each row of a ragged batch and of its number."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.net = nn.Linear(channels, out, dtype=torch.float64)

    def forward(self, pos: Tensor, batch: Tensor, edge: Tensor | None = None, bond: Tensor | None = None) -> Tensor:
        place = torch.arange(len(batch), dtype=pos.dtype) - torch.searchsorted(batch, batch).to(pos.dtype)
        added = 0 if bond is None or edge is None else torch.zeros(len(batch), 1).to(pos).index_add(0, edge[0], bond)
        return torch.tanh(self.net(pos) + place.unsqueeze(1) + added)


class TwoOutputs(Base):
    """Two outputs in a dict."""

    def forward(self, *args: Tensor, **kwargs: Tensor) -> Any:
        y = super().forward(*args, **kwargs)
        return {"points": y, "total": y.sum((1, 2)), "left out": y}


class OwnNet(nn.Module):
    """A user's net of p."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, dtype=torch.float64))

    def forward(self, pos: Tensor, vel: Tensor) -> dict[ps.Group, Tensor]:
        centred = pos - pos.mean(1, keepdim=True)
        size = centred.square().sum(-1)
        mixed = torch.stack([(size ** (i + 1)).unsqueeze(-1) * vel for i in range(3)], -1).sum(1)
        return {NODES: size * self.weight[0] + vel.square().sum(-1), SPACE: mixed * self.weight}


@dataclass(frozen=True)
class Case:
    """One saved Symmetrizer.

    Args:
        model: makes its base model.
        inputs, output: Reps.
        distribution: makes it; of a user's own it is passed to `load` too.
        call: the arguments.
        own: whether the distribution has a net of the user's.
        narrow: whether the net of p stays in float32.
        oldest: whether the file is one of the first release, which wrote neither digest nor the version of the net.
    """

    model: Callable[[], nn.Module]
    inputs: Any
    output: Any
    distribution: Callable[[], str | EquivariantDistribution]
    call: Callable[[], dict[str, Tensor] | tuple[Tensor, ...]]
    own: bool = False
    narrow: bool = False
    oldest: bool = False
    train_samples: Any = None
    eval_samples: Any = None

    def make(self) -> ps.Symmetrizer:
        return ps.symmetrize(
            self.model(), self.inputs, self.output, self.distribution(), self.train_samples, self.eval_samples
        )

    def evaluate(self, phi: ps.Symmetrizer, call: Any) -> dict[str, Tensor]:
        """The outputs in evaluation, and those of a sample, for fixed generators."""
        args, kwargs = ((), call) if isinstance(call, dict) else (call, {})
        phi.eval()
        with torch.no_grad():
            mean = phi(*args, **kwargs, generator=torch.Generator().manual_seed(5))
            sample = phi.sample(*args, **kwargs, samples=2, generator=torch.Generator().manual_seed(6))
        found = {}
        for kind, value in {"mean": mean, "sample": sample}.items():
            for key, tensor in value.items() if isinstance(value, dict) else [("", value)]:
                if tensor is not None:
                    found[f"{kind}{key}"] = torch.view_as_real(tensor) if tensor.is_complex() else tensor
        return found


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def cloud() -> dict[str, Tensor]:
    return {"pos": normal(B, N, 3), "vel": normal(B, N, 3)}


def molecule() -> dict[str, Tensor]:
    return {"pos": normal(7, 3), "batch": torch.tensor([0, 0, 0, 0, 1, 1, 1])}


def bonded() -> dict[str, Tensor]:
    return {**molecule(), "edge": torch.tensor([[0, 1, 2, 4, 6], [1, 2, 3, 5, 5]]), "bond": normal(5, 1)}


def padded() -> dict[str, Tensor]:
    mask = torch.arange(N) < torch.tensor([[N], [3]])
    return {"pos": normal(B, N, 3) * mask.unsqueeze(-1), "mask": mask}


def learned(**options: Any) -> EquivariantDistribution:
    version = options.pop("version", 2)
    return ps.Learned(DefaultNet(CLOUD, NODES * SPACE, version=version), NODES * SPACE, **options)


def points(**options: Any) -> Case:
    """On a point cloud with velocities."""
    given = {"model": lambda: Base(2 * N * 3, N, 3), "inputs": CLOUD, "output": ps.Rep(NODES, SPACE), "call": cloud}
    return Case(**{**given, **options})


ROTATED, RAGGED_SPACE = ps.SO(3), ps.O(3)
C4, D4, SHIFT = ps.C(4, "turn"), ps.D(4, border="border"), ps.Shift((3, 4))
ORBITS = ps.O(2, "plane")
TREE = ps.designs.as_design

CASES: dict[str, Case] = {
    "learned": points(distribution=lambda: "learned", train_samples=2, eval_samples=ps.MonteCarlo(6, chunk=2)),
    "learned-all-pairs": points(distribution=lambda: learned(version=1), eval_samples=3, oldest=True),
    "learned-at-the-input": points(
        distribution=lambda: learned(noise="input", scale=0.5, relaxation=ps.Relaxation(0.2, 3)),
        eval_samples=ps.Adaptive(0.2, max_samples=64, pilot=32, chunk=8),
    ),
    "canonical-graph": Case(
        model=lambda: Base(N * N, N),
        inputs=(ps.Rep(NODES, NODES),),
        output=ps.Rep(NODES),
        distribution=lambda: "canonical",
        call=lambda: (normal(B, N, N),),
        narrow=True,
    ),
    "canonical-sets": Case(
        model=lambda: Base(N * 2, 1),
        inputs=ps.Rep(NODES),
        output=ps.Rep(),
        distribution=lambda: "canonical",
        call=lambda: (normal(B, N, 2),),
        narrow=True,
    ),
    "frame": points(distribution=lambda: "frame"),
    "frame-axis": Case(
        model=lambda: Base(N * 3, N, 3),
        inputs={"pos": ps.Rep(ps.Axis("atoms"), ps.SE(3))},
        output=ps.Rep(ps.Axis("atoms"), ps.SE(3).vector),
        distribution=lambda: "frame",
        call=lambda: {"pos": normal(B, N, 3)},
        eval_samples=ps.Exact(chunk=3),
    ),
    "product": points(
        distribution=lambda: ps.Haar(NODES) * ps.Frame(SPACE, max_support=32, samples=16),
        eval_samples=ps.Hybrid(2, chunk=5),
    ),
    "haar-designs": points(
        distribution=lambda: "haar",
        train_samples=ps.MonteCarlo(96, design=("octahedral", "shifts")),
        eval_samples=ps.MonteCarlo(24, design=TREE("octahedral")),
    ),
    "haar-joint": points(
        distribution=lambda: "haar",
        train_samples=ps.MonteCarlo(8, design=TREE("signs")),
        eval_samples=ps.MonteCarlo(32, chunk=8, design=TREE(("signs", ps.designs.Cyclic(4)))),
    ),
    "haar-sobol": points(
        distribution=lambda: "haar",
        train_samples=ps.MonteCarlo(8, design=TREE("antithetic")),
        eval_samples=ps.MonteCarlo(64, design=ps.designs.Sobol(64)),
    ),
    "haar-plane": Case(
        model=lambda: Base(N * 2, N, 2),
        inputs=ps.Rep(None, ORBITS),
        output=ps.Rep(None, ORBITS),
        distribution=lambda: "haar",
        call=lambda: (normal(B, N, 2),),
        train_samples=ps.MonteCarlo(4, design=ps.designs.Stratified(2)),
        eval_samples=ps.MonteCarlo(10, design=ps.designs.Dihedral(5)),
    ),
    "images": Case(
        model=lambda: Base(2 * 16, 2, 4),
        inputs=(ps.Rep(None, C4),),
        output=ps.Rep(None, C4.regular),
        distribution=lambda: "haar",
        call=lambda: (normal(B, 2, 4, 4),),
        eval_samples=ps.Exact(),
    ),
    "images-mirrored": Case(
        model=lambda: Base(2 * 16, 4, 4),
        inputs=(ps.Rep(D4, None),),
        output=ps.Rep(D4),
        distribution=lambda: "haar",
        call=lambda: (normal(B, 4, 4, 2),),
        eval_samples=ps.MonteCarlo(10),  # the default of that release; eight elements are averaged exactly today
    ),
    "shift": Case(
        model=lambda: Base(2 * 12, 2, 3, 4),
        inputs=(ps.Rep(None, SHIFT),),
        output=ps.Rep(None, SHIFT),
        distribution=lambda: "haar",
        call=lambda: (normal(B, 2, 3, 4),),
        eval_samples=ps.MonteCarlo(16, design=ps.designs.Stratified(8)),
    ),
    "signs": Case(
        model=lambda: Base(2 * 3, 3),
        inputs=(ps.Rep(None, ps.Signs(3, "eigenvectors")),),
        output=ps.Rep(ps.Signs(3, "eigenvectors")),
        distribution=lambda: "haar",
        call=lambda: (normal(B, 2, 3),),
        eval_samples=ps.Exact(),
    ),
    "padded": Case(
        model=lambda: Base(N * 3, N, 3),
        inputs={"pos": ps.Rep(PADDED, ROTATED), "mask": None},
        output=ps.Rep(PADDED, ROTATED),
        distribution=lambda: "learned",
        call=padded,
    ),
    "ragged": Case(
        model=lambda: RowBase(3, 3),
        inputs={"pos": ps.Rep(RAGGED, RAGGED_SPACE), "batch": None},
        output=ps.Rep(RAGGED, RAGGED_SPACE),
        distribution=lambda: "learned",
        call=molecule,
        eval_samples=4,
    ),
    "edges": Case(
        model=lambda: RowBase(3, 1),
        inputs={
            "pos": ps.Rep(TWO_SETS, RAGGED_SPACE),
            "batch": None,
            "edge": ps.Rep(None, TWO_SETS.labels),
            "bond": ps.Rep(TWO_SETS.edges_of("edge"), RAGGED_SPACE.det),
        },
        output=ps.Rep(TWO_SETS, RAGGED_SPACE.det),
        distribution=lambda: ps.Haar(RAGGED_SPACE),
        call=bonded,
        eval_samples=5,
    ),
    "two-outputs": points(
        model=lambda: TwoOutputs(2 * N * 3, N, 3),
        output={"points": ps.Rep(NODES, SPACE.vector), "total": ps.Rep()},
        distribution=lambda: "haar",
    ),
    "complex-weights": points(
        model=lambda: ComplexBase(2 * N * 3, N, 3),
        output=ps.Rep(NODES, SPACE.vector),
        distribution=lambda: "haar",
    ),
    "own-net": points(distribution=lambda: ps.Learned(OwnNet(), NODES * SPACE), own=True),
}


def make_oldest(declaration: Path) -> None:
    """Take out what the first release did not write."""
    config = json.loads(declaration.read_text())
    del config["sha256"], config["complex"], config["distribution"]["net"]
    declaration.write_text(json.dumps(config, indent=2))


def write(folder: Path) -> None:
    for number, (name, case) in enumerate(CASES.items()):
        torch.manual_seed(number)
        phi, call = case.make(), case.call()
        case.evaluate(phi, call)  # lazy nets are built
        if not case.narrow:
            phi.double()
        ps.save(phi, folder / name)
        if case.oldest:
            make_oldest(folder / name / "probsym.json")
        named = call if isinstance(call, dict) else {f"argument{i}": tensor for i, tensor in enumerate(call)}
        content = {**{f"call.{key}": value for key, value in named.items()}, **case.evaluate(phi, call)}
        save_file({key: value.contiguous() for key, value in content.items()}, folder / name / "call.safetensors")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
