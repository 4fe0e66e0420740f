"""What symmetrizing a ViT-S costs: tokens a second and memory beside the bare GraphTransformer."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator

import torch
from timing import alternate, milliseconds, spread, table
from torch import Tensor, nn

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


def learner(module: nn.Module, call: dict[str, Tensor]) -> Callable[[], None]:
    """Forward and backward."""

    def step() -> None:
        module.zero_grad()
        module(**call).square().mean().backward()

    return step


PEAK = """
import sys; sys.path.insert(0, {here!r})
import torch, probsym as ps
from backbones import BATCH, NODES, graph_transformer, graphs
from probsym.integrations.transformers import symmetrized
torch.set_num_threads(1)
f, call = graph_transformer("patches"), graphs((NODES, 100))
phi = symmetrized(f).train()
def step(k, chunk):
    phi.zero_grad()
    model = f if k is None else phi
    options = {{}} if k is None else {{"estimator": ps.MonteCarlo(k, chunk)}}
    model(**call, **options).square().mean().backward()
step({k}, {chunk}) if {k} is None else step(2, 1)  # lazy imports, gradients
status = lambda key: int(open("/proc/self/status").read().split(key + ":")[1].split()[0])
open("/proc/self/clear_refs", "w").write("5")  # forget the peak so far
step({k}, {chunk})
print(status("VmHWM"))
"""


def peak(k: int | None, chunk: int | None) -> str:
    """Peak resident memory of the second forward and backward, in a process of its own (Linux); k None: bare."""
    command = [sys.executable, "-c", PEAK.format(k=k, chunk=chunk, here=os.path.dirname(__file__))]
    env = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}  # freed memory goes back at once
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
    return f"{int(done.stdout) / 1024:.0f} MB"


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
        yield ["bare", peak(None, None), "-"]
        for k in (1, 4) if quick else (1, 4, 16):
            yield [k, peak(k, None) if k < 16 else "-", peak(k, 1)]

    table(f"ViT-S, peak memory of forward and backward, B = {BATCH}", ["k", "all at once", "chunk 1"], memory())
