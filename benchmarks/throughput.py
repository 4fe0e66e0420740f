"""What symmetrizing a ViT-S costs: tokens a second and memory beside the bare GraphTransformer."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from typing import Any

import torch
from peaks import peak
from timing import alternate, milliseconds, spread, table
from torch import Tensor, nn

import probsym as ps

NODES, BATCH = 188, 2


def graph_transformer(kind: str) -> nn.Module:
    """A ViT-S/16 with random weights that reads graphs of at most 188 nodes (PATTERN)."""
    from transformers import ViTConfig, ViTModel

    from probsym.integrations.transformers import GraphTransformer, ImagePatches, NodeHead, NodeTokens

    tokens = {"patches": ImagePatches(NODES, patch=14), "nodes": NodeTokens(NODES)}[kind]
    config = ViTConfig(hidden_size=384, num_hidden_layers=12, num_attention_heads=6, intermediate_size=1536)
    return GraphTransformer(ViTModel(config), tokens, NodeHead(2), node_channels=3, edge_channels=1)


def graphs(sizes: tuple[int, ...], n: int = NODES) -> dict[str, Tensor]:
    mask = torch.arange(n) < torch.tensor(sizes)[:, None]
    edge = torch.rand(len(sizes), n, n, 1).round() * (mask[:, None] & mask[:, :, None])[..., None]
    return {"x": torch.randn(len(sizes), n, 3) * mask[..., None], "edge": edge, "mask": mask}


def learner(module: nn.Module, call: dict[str, Any]) -> Callable[[], None]:
    """Forward and backward."""

    def step() -> None:
        module.zero_grad()
        module(**call).square().mean().backward()

    return step


def averaging(k: int | None, chunk: int | None) -> Callable[[], None]:
    """Forward and backward of phi with k samples; of the bare backbone where k is None."""
    from probsym.integrations.transformers import symmetrized

    f, call = graph_transformer("patches"), graphs((NODES, 100))
    phi = symmetrized(f).train()
    if k is None:
        learner(f, call)()  # lazy imports, gradients
        return learner(f, call)
    learner(phi, {**call, "estimator": ps.MonteCarlo(2, 1)})()
    return learner(phi, {**call, "estimator": ps.MonteCarlo(k, chunk)})


def most(k: int | None, chunk: int | None) -> str:
    """Of the whole process, in the second step."""
    return f"{peak(averaging, k=k, chunk=chunk)[1]:.0f} MB"


def backbones(quick: bool) -> None:
    """A ViT-S on graphs of 188 nodes: phi at k = 1 beside the bare backbone, tokens a second and memory."""
    from probsym.integrations.transformers import symmetrized

    def speed() -> Iterator[list[object]]:
        for kind in ("patches", "nodes"):
            for distribution in ("learned", "haar"):
                f, call = graph_transformer(kind), graphs((NODES,) * BATCH)
                phi = symmetrized(f, distribution, train_samples=1).train()
                times = alternate({"phi": learner(phi, call), "bare": learner(f, call)}, 15, 2, 12 if quick else 30)
                tokens = BATCH * (196 if kind == "patches" else NODES)
                rates = (f"{tokens / statistics.median(times[name]):.0f}" for name in ("bare", "phi"))
                yield [kind, distribution, milliseconds(times["bare"]), milliseconds(times["phi"]), *rates,
                       spread(times, "phi", "bare")]  # fmt: skip

    columns = ["tokens", "p", "bare", "symmetrized", "bare tokens/s", "symmetrized tokens/s", "ratio"]
    table(f"ViT-S, forward and backward, k = 1, B = {BATCH}, {NODES} nodes", columns, speed())

    def memory() -> Iterator[list[object]]:
        yield ["bare", most(None, None), "-"]
        for k in (1, 4) if quick else (1, 4, 16):
            yield [k, most(k, None) if k < 16 else "-", most(k, 1)]

    table(f"ViT-S, peak memory of forward and backward, B = {BATCH}", ["k", "all at once", "chunk 1"], memory())
