"""Base models whose steps are timed, with the Reps of their calls and inputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from timing import place
from torch import Tensor, nn

import probsym as ps
from nets import MLP, GraphMLP, ParticleGNN, ParticleTransformer, WalkScores

N = 5  # particles
D = 3  # dimensions of their space


@dataclass
class Case:
    """A base model, the Reps of its call, inputs for a batch of B, and its learned p where it is not the default."""

    model: nn.Module
    inputs: dict[str, Any]
    output: Any
    call: Callable[[int], dict[str, Tensor]]
    learned: str | ps.EquivariantDistribution = "learned"

    def __post_init__(self) -> None:
        self.model = place.put(self.model)
        call = self.call
        self.call = lambda b: place.put(call(b))

    def symmetrized(self, k: int, distribution: str | ps.EquivariantDistribution | None = None) -> ps.Symmetrizer:
        p = distribution or self.learned
        phi = place.put(ps.symmetrize(self.model, self.inputs, self.output, p, train_samples=k))
        with torch.no_grad():
            phi.sample(**self.call(2))  # fixes the sizes of the net of p
        return phi

    def held(self) -> int:
        """Bytes that the bare model holds for backward, for each row."""
        bytes_by_address: dict[int, int] = {}  # a storage that is saved twice counts once

        def pack(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            bytes_by_address[storage.data_ptr()] = storage.nbytes()
            return tensor

        def unpack(tensor: Tensor) -> Tensor:
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
            y = self.model(**self.call(10))

        # Weights are saved as well, but there is one of each however many rows there are.
        for weight in self.model.parameters():
            bytes_by_address.pop(weight.untyped_storage().data_ptr(), None)
        return sum(bytes_by_address.values()) // len(y)


class Flat(nn.Module):
    """An MLP on all coordinates that tells how far particles move."""

    def __init__(self) -> None:
        super().__init__()
        self.net = MLP(2 * N * D + N * N, (256, 256), N * D)

    def forward(self, pos: Tensor, vel: Tensor, edge: Tensor) -> Tensor:
        return self.net(torch.cat([pos.flatten(1), vel.flatten(1), edge.flatten(1)], 1)).view_as(pos)


class ViT(nn.Module):
    """A small vision transformer that reads an adjacency matrix as an image."""

    def __init__(self, size: int = 64, patch: int = 8, width: int = 192, layers: int = 6, heads: int = 6) -> None:
        super().__init__()
        tokens = (size // patch) ** 2
        self.embed = nn.Conv2d(1, width, patch, patch)
        self.position = nn.Parameter(0.02 * torch.randn(tokens, width))
        layer = nn.TransformerEncoderLayer(width, heads, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.head = nn.Linear(width, 10)

    def forward(self, image: Tensor) -> Tensor:
        tokens = self.embed(image.unsqueeze(1)).flatten(2).mT + self.position
        return self.head(self.blocks(tokens).mean(1))


def particles(model: nn.Module, nodes: ps.Group) -> Case:
    """N particles in space with velocities and charges of pairs; the output is a vector per particle."""
    space = ps.E(D, "space")
    reps = {"pos": ps.Rep(nodes, space), "vel": ps.Rep(nodes, space.vector), "edge": ps.Rep(nodes, nodes)}

    def call(b: int) -> dict[str, Tensor]:
        return {"pos": torch.randn(b, N, D), "vel": torch.randn(b, N, D), "edge": torch.randn(b, N, N, 1)}

    return Case(model, reps, ps.Rep(nodes, space.vector), call)


def graphs() -> Case:
    """EXP-classify with the MLP of the published size, 25 M parameters, on random graphs as small and as sparse."""
    nodes = ps.S("nodes", mask="mask")
    largest = 64
    features = 2
    model = GraphMLP(largest, features, (2048, 4096, 2048))
    learned = ps.Learned(WalkScores(12), nodes, "late", 0.05, ps.Relaxation(0.05, 1))

    def call(b: int) -> dict[str, Tensor]:
        sizes = torch.randint(32, largest + 1, (b, 1))
        mask = torch.arange(largest) < sizes
        edges = (torch.rand(b, largest, largest) < 0.05).float().triu(1)
        adjacency = (edges + edges.mT) * mask.unsqueeze(-1) * mask.unsqueeze(-2)
        kinds = nn.functional.one_hot(torch.randint(features, mask.shape)).float()
        return {"adjacency": adjacency, "nodes": kinds * mask.unsqueeze(-1), "mask": mask}

    reps = {"adjacency": ps.Rep(nodes, nodes), "nodes": ps.Rep(nodes)}
    return Case(model, reps, ps.Rep(), call, learned)


def images() -> Case:
    """Random matrices under simultaneous permutations of their rows and columns, read as images."""
    nodes = ps.S("nodes")

    def call(b: int) -> dict[str, Tensor]:
        return {"image": torch.randn(b, 64, 64)}

    return Case(ViT(), {"image": ps.Rep(nodes, nodes)}, ps.Rep(), call)


def cases() -> dict[str, Case]:
    """All of them, with new weights."""
    nodes = ps.S("nodes")
    return {
        "MLP": particles(Flat(), nodes),
        "MLP, 25 M parameters": graphs(),
        "transformer": particles(ParticleTransformer(), nodes),
        "GNN": particles(ParticleGNN(), ps.Axis("nodes")),  # equivariant to S_n by itself
        "ViT": images(),
    }
