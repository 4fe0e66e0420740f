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

NODES = 188
BATCH = 2


def graph_transformer(kind: str) -> nn.Module:
    """A ViT-S/16 with random weights that reads graphs of at most 188 nodes (PATTERN)."""
    from transformers import ViTConfig, ViTModel

    from probsym.integrations.transformers import GraphTransformer, ImagePatches, NodeHead, NodeTokens

    tokens = {"patches": ImagePatches(NODES, patch=14), "nodes": NodeTokens(NODES)}
    config = ViTConfig(hidden_size=384, num_hidden_layers=12, num_attention_heads=6, intermediate_size=1536)
    return GraphTransformer(ViTModel(config), tokens[kind], NodeHead(2), node_channels=3, edge_channels=1)


def graphs(sizes: tuple[int, ...], n: int = NODES) -> dict[str, Tensor]:
    """Random features and edges of graphs of these sizes, padded to n nodes."""
    b = len(sizes)
    mask = torch.arange(n) < torch.tensor(sizes)[:, None]
    pair_mask = mask[:, None] & mask[:, :, None]
    edge = torch.rand(b, n, n, 1).round() * pair_mask[..., None]
    x = torch.randn(b, n, 3) * mask[..., None]
    return {"x": x, "edge": edge, "mask": mask}


def learner(module: nn.Module, call: dict[str, Any]) -> Callable[[], None]:
    """Forward and backward."""

    def step() -> None:
        module.zero_grad()
        module(**call).square().mean().backward()

    return step


def averaging(k: int | None, chunk: int | None) -> Callable[[], None]:
    """Forward and backward of phi with k samples; of the bare backbone where k is None."""
    from probsym.integrations.transformers import symmetrized

    f = graph_transformer("patches")
    call = graphs((NODES, 100))
    phi = symmetrized(f).train()
    # One step beforehand: lazy imports and the memory of the gradients do not count.
    if k is None:
        learner(f, call)()
        return learner(f, call)
    learner(phi, {**call, "estimator": ps.MonteCarlo(2, 1)})()
    return learner(phi, {**call, "estimator": ps.MonteCarlo(k, chunk)})


def most(k: int | None, chunk: int | None) -> str:
    """Of the whole process, in the second step."""
    return f"{peak(averaging, k=k, chunk=chunk)[1]:.0f} MB"


def backbones(quick: bool) -> None:
    """A ViT-S on graphs of 188 nodes: phi at k = 1 beside the bare backbone, tokens a second and memory."""
    budget = 30
    counts = [1, 4, 16]
    if quick:
        budget = 12
        counts = [1, 4]

    columns = ["tokens", "p", "bare", "symmetrized", "bare tokens/s", "symmetrized tokens/s", "ratio"]
    table(f"ViT-S, forward and backward, k = 1, B = {BATCH}, {NODES} nodes", columns, speed_rows(budget))
    title = f"ViT-S, peak memory of forward and backward, B = {BATCH}"
    table(title, ["k", "all at once", "chunk 1"], memory_rows(counts))


def speed_rows(budget: float) -> Iterator[list[object]]:
    """Tokens a second of phi at k = 1 and of the bare backbone."""
    from probsym.integrations.transformers import symmetrized

    tokens_of_graph = {"patches": 196, "nodes": NODES}
    for kind in ("patches", "nodes"):
        for distribution in ("learned", "haar"):
            f = graph_transformer(kind)
            call = graphs((NODES,) * BATCH)
            phi = symmetrized(f, distribution, train_samples=1).train()
            times = alternate({"phi": learner(phi, call), "bare": learner(f, call)}, 15, 2, budget)
            tokens = BATCH * tokens_of_graph[kind]
            yield [
                kind,
                distribution,
                milliseconds(times["bare"]),
                milliseconds(times["phi"]),
                f"{tokens / statistics.median(times['bare']):.0f}",
                f"{tokens / statistics.median(times['phi']):.0f}",
                spread(times, "phi", "bare"),
            ]


def memory_rows(counts: list[int]) -> Iterator[list[object]]:
    """Peak memory at each k, all samples at once and one after the other; 16 at once would be too much."""
    yield ["bare", most(None, None), "-"]
    for k in counts:
        at_once = "-"
        if k < 16:
            at_once = most(k, None)
        yield [k, at_once, most(k, 1)]
