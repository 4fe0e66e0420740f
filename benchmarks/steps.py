"""What symmetrization costs: a training step of phi beside one of the bare model on as many rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from timing import alternate, milliseconds, spread, table
from torch import Tensor, nn

import probsym as ps
from probsym.nets import MLP, ParticleGNN, ParticleTransformer

N, D = 5, 3


@dataclass
class Case:
    """A base model, the Reps of its call, and inputs for a batch of B."""

    model: nn.Module
    inputs: dict[str, Any]
    output: Any
    call: Callable[[int], dict[str, Tensor]]

    def symmetrized(self, k: int, **options: Any) -> ps.Symmetrizer:
        options.setdefault("distribution", "learned")
        return ps.symmetrize(self.model, self.inputs, self.output, train_samples=k, example=self.call(2), **options)


class Flat(nn.Module):
    """An MLP on all coordinates."""

    def __init__(self) -> None:
        super().__init__()
        self.net = MLP(2 * N * D + N * N, (256, 256), N * D)

    def forward(self, pos: Tensor, vel: Tensor, edge: Tensor) -> Tensor:
        return pos + self.net(torch.cat([pos.flatten(1), vel.flatten(1), edge.flatten(1)], 1)).view_as(pos)


class ViT(nn.Module):
    """A small vision transformer that reads an adjacency matrix as an image."""

    def __init__(self, size: int = 64, patch: int = 8, width: int = 192, layers: int = 6, heads: int = 6) -> None:
        super().__init__()
        self.embed = nn.Conv2d(1, width, patch, patch)
        self.place = nn.Parameter(0.02 * torch.randn((size // patch) ** 2, width))
        layer = nn.TransformerEncoderLayer(width, heads, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.head = nn.Linear(width, 10)

    def forward(self, image: Tensor) -> Tensor:
        tokens = self.embed(image.unsqueeze(1)).flatten(2).mT + self.place
        return self.head(self.blocks(tokens).mean(1))


def particles(model: nn.Module, nodes: ps.Group) -> Case:
    space = ps.E(D, "space")
    reps = {"pos": ps.Rep(nodes, space), "vel": ps.Rep(nodes, space.vector), "edge": ps.Rep(nodes, nodes)}

    def call(b: int) -> dict[str, Tensor]:
        return {"pos": torch.randn(b, N, D), "vel": torch.randn(b, N, D), "edge": torch.randn(b, N, N, 1)}

    return Case(model, reps, ps.Rep(nodes, space), call)


def cases() -> dict[str, Case]:
    nodes = ps.S("nodes")
    image = {"image": ps.Rep(nodes, nodes)}
    return {
        "MLP": particles(Flat(), nodes),
        "transformer": particles(ParticleTransformer(), nodes),
        "GNN": particles(ParticleGNN(), ps.Axis("nodes")),
        "ViT": Case(ViT(), image, ps.Rep(), lambda b: {"image": torch.randn(b, 64, 64)}),
    }


def trainer(module: nn.Module, call: dict[str, Tensor], target: Tensor) -> Callable[[], None]:
    """One step: forward, backward, Adam."""
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-4)

    def step() -> None:
        optimizer.zero_grad()
        (module(**call) - target).square().mean().backward()
        optimizer.step()

    return step


def compared(case: Case, k: int, b: int, budget: float) -> list[object]:
    phi, call = case.symmetrized(k).train(), case.call(b)
    with torch.no_grad():
        target = torch.randn_like(case.model(**call))
    rows = {name: value.repeat(k, *[1] * (value.ndim - 1)) for name, value in call.items()}
    bare = trainer(case.model, rows, target.repeat(k, *[1] * (target.ndim - 1)))
    times = alternate({"phi": trainer(phi, call, target), "bare": bare}, 21, 2, budget)
    return [k, b, milliseconds(times["bare"]), milliseconds(times["phi"]), spread(times, "phi", "bare")]


def steps(quick: bool) -> None:
    """phi with a learned p against the bare model on the same K B rows."""

    def rows() -> Iterator[list[object]]:
        for name, case in cases().items():
            for k in (1, 10) if quick else (1, 10, 100):
                for b in (1, 100):
                    if (name == "ViT" or quick) and k * b > 1000:
                        continue
                    yield [name, *compared(case, k, b, 10 if quick else 60)]

    table("Training step", ["base model", "k", "B", "bare step", "symmetrized step", "ratio"], rows())


def places(quick: bool) -> None:
    """Noise added to the features (late) against noise at the input: training steps on the GNN base."""

    def rows() -> Iterator[list[object]]:
        for k in (1, 10) if quick else (1, 10, 100):
            case = cases()["GNN"]
            call, target = case.call(100), torch.randn(100, N, D)
            functions = {}
            for noise in ("late", "input"):
                group = case.symmetrized(1).group
                p = ps.Learned(ps.distributions.DefaultNet(case.inputs, group), group, noise=noise)
                functions[noise] = trainer(case.symmetrized(k, distribution=p).train(), call, target)
            times = alternate(functions, 15, 2, 10 if quick else 60)
            yield [k, milliseconds(times["late"]), milliseconds(times["input"]), spread(times, "input", "late")]

    table("Place of the noise, B = 100", ["k", "late", "input", "input / late"], rows())


class Pooled(nn.Module):
    """A node MLP and a mean over the nodes of each graph; padded (mask) or ragged (batch)."""

    def __init__(self) -> None:
        super().__init__()
        self.node = nn.Sequential(nn.Linear(9, 128), nn.SiLU(), nn.Linear(128, 128), nn.SiLU(), nn.Linear(128, 128))
        self.head = nn.Linear(128, 4)

    def forward(self, x: Tensor, mask: Tensor | None = None, batch: Tensor | None = None) -> Tensor:
        if batch is None:
            place = torch.linspace(0, 1, x.shape[1]).expand(x.shape[:2]).unsqueeze(-1)
            y = self.node(torch.cat([x, place], -1)).tanh() * mask.unsqueeze(-1)  # type: ignore[union-attr]
            return self.head(y.sum(1))
        rank = torch.linspace(0, 1, len(x)).unsqueeze(-1)
        y = self.node(torch.cat([x, rank], -1)).tanh()
        return self.head(y.new_zeros(int(batch.max()) + 1, 128).index_add(0, batch, y))


def storage(quick: bool) -> None:
    """The same graphs, 10 to 100 nodes, padded and ragged."""
    sizes = torch.linspace(10, 100, 16 if quick else 64).long()
    b, most = len(sizes), int(sizes.max())
    mask = torch.arange(most) < sizes[:, None]
    x = torch.randn(int(sizes.sum()), 8)
    dense = torch.zeros(b, most, 8).masked_scatter(mask.unsqueeze(-1), x)
    batch, target = torch.arange(b).repeat_interleave(sizes), torch.randn(b, 4)
    calls = {"padded": {"x": dense, "mask": mask}, "ragged": {"x": x, "batch": batch}}
    axes = {"padded": ps.S("nodes", mask="mask"), "ragged": ps.S("nodes", batch="batch")}

    def rows() -> Iterator[list[object]]:
        for k in (1, 10):
            functions = {}
            for name, call in calls.items():
                case = Case(Pooled(), {"x": ps.Rep(axes[name])}, ps.Rep(), lambda _, call=call: call)
                functions[name] = trainer(case.symmetrized(k).train(), call, target)
            times = alternate(functions, 15, 2, 10 if quick else 60)
            yield [k, milliseconds(times["padded"]), milliseconds(times["ragged"]), spread(times, "ragged", "padded")]

    table(f"Padded and ragged batches, {b} graphs of 10 to 100 nodes", ["k", "padded", "ragged", "ratio"], rows())
