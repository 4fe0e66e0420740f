"""Permutations that learn: the gather with its gradient to the scores, beside a dense matrix with the same gradient."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from actions import BATCH, CHANNELS, SIZES, dense
from agreement import gap
from peaks import growth
from timing import alternate, milliseconds, place, spread, table
from torch import Tensor, nn

import probsym as ps

NODES = ps.S("nodes")
PAIRS = ps.Rep(NODES, NODES)
RELAXATION = ps.Relaxation()


def soft(z: Tensor, temperature: float = RELAXATION.temperature, passes: int = RELAXATION.sinkhorn) -> Tensor:
    """SoftSort and Sinkhorn, written down (arXiv 2006.16038): node by rank (B, N, N)."""
    distance = (z.unsqueeze(-1) - z.sort(-1).values.unsqueeze(-2)).abs()
    log_p = (-distance / temperature).log_softmax(-2)
    for _ in range(passes):
        log_p = log_p.log_softmax(-1)
        log_p = log_p.log_softmax(-2)
    return log_p.exp()


def by_matrix(z: Tensor, x: Tensor) -> Tensor:
    """P A P^T, straight through: P is hard in value and soft in its gradient."""
    p = soft(z)
    hard = nn.functional.one_hot(z.argsort(-1).argsort(-1), z.shape[-1]).to(x.dtype)
    return dense(hard + (p - p.detach()), x)


def by_gather(z: Tensor, x: Tensor) -> Tensor:
    g = NODES.project(z, torch.rand_like(z))
    return PAIRS.act(RELAXATION.attach(g, z), x)


ROUTES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"dense": by_matrix, "gather": by_gather}


def learner(name: str, n: int) -> Callable[[], tuple[Tensor, Tensor, Tensor]]:
    """Forward and backward on the data of this n: the value, and the gradients of the scores and of the input."""
    generator = torch.Generator().manual_seed(n)
    # Scores apart by more than rounding: nearly equal ones are ties, whose order is drawn at random.
    order = torch.randn(BATCH, n, generator=generator).argsort(-1)
    z = place.put(torch.linspace(-3, 3, n)[order]).requires_grad_()
    x, weight = place.put(torch.randn(2, BATCH, n, n, CHANNELS, generator=generator))
    x.requires_grad_()

    def step() -> tuple[Tensor, Tensor, Tensor]:
        y = ROUTES[name](z, x)
        gradient_z, gradient_x = torch.autograd.grad((y * weight).sum(), (z, x))
        return y, gradient_z, gradient_x

    return step


def warmed(name: str, n: int) -> Callable[[], object]:
    """The same, after what the first call of all brings into memory."""
    learner(name, 8)()
    return learner(name, n)


def held(name: str, n: int) -> str:
    """Growth of the peak memory: of the process, or of what is allocated on the GPU."""
    if place.device.type == "cpu":
        return growth(warmed, name=name, n=n)
    step = warmed(name, n)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step()
    most = torch.cuda.max_memory_allocated()
    return f"{(most - before) / 2**20:.0f} MB"


def relaxed(quick: bool) -> None:
    """Pair features (B, N, N, C) under a learned order: gather against straight-through P A P^T, time and memory."""
    sizes = SIZES
    budget = 30
    if quick:
        sizes = SIZES[:-1]
        budget = 5

    def rows() -> Iterator[list[object]]:
        for n in sizes:
            steps = {"dense": learner("dense", n), "gather": learner("gather", n)}

            # The same value and the same two gradients.
            for by_gather, by_matrix in zip(steps["gather"](), steps["dense"](), strict=True):
                gap(by_gather, by_matrix, 1e-4 * by_matrix.abs().max().item())

            times = alternate(steps, 15, 3, budget)
            yield [
                n,
                milliseconds(times["dense"]),
                milliseconds(times["gather"]),
                spread(times, "dense", "gather"),
                held("dense", n),
                held("gather", n),
            ]

    columns = ["n", "dense", "gather", "dense / gather", "peak memory, dense", "peak memory, gather"]
    table(f"Learned order of pair features, {CHANNELS} channels, B = {BATCH}, forward and backward", columns, rows())
