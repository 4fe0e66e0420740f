"""Permutations as gathers beside dense matrices, and memory in chunks."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator

import torch
from peaks import growth
from timing import alternate, milliseconds, place, spread, table
from torch import Tensor, nn

import probsym as ps
from nets import MLP

SIZES = (8, 16, 32, 64, 128, 256, 444, 1000)
BATCH, CHANNELS = 2, 8


def dense(matrix: Tensor, x: Tensor) -> Tensor:
    """P A P^T for pair features A (B, N, N, C)."""
    b, n, _, c = x.shape
    rows = (matrix @ x.flatten(2)).reshape(b, n, n, c).transpose(1, 2)
    return (matrix @ rows.flatten(2)).reshape(b, n, n, c).transpose(1, 2)


def actions(quick: bool) -> None:
    """Pair features (B, N, N, C) under S_n: gather against P A P^T, forward alone and with backward."""
    nodes = ps.S("nodes")
    rep = ps.Rep(nodes, nodes)
    for title, backward in (("forward", False), ("forward and backward", True)):
        found: dict[str, list[float]] = {"dense": [], "gather": []}

        def rows(backward: bool = backward, found: dict[str, list[float]] = found) -> Iterator[list[object]]:
            for n in SIZES[:-1] if quick else SIZES:
                g = nodes.haar((BATCH,), n=n, device=place.device)
                x = torch.randn(BATCH, n, n, CHANNELS, requires_grad=backward, device=place.device)
                matrix = nn.functional.one_hot(g.index, n).float()
                functions = {"dense": lambda: dense(matrix, x), "gather": lambda: rep.act(g, x)}  # noqa: B023
                assert torch.equal(*(f() for f in functions.values()))
                if backward:
                    functions = {name: lambda f=f: f().sum().backward() for name, f in functions.items()}  # type: ignore[misc]
                times = alternate(functions, 15, 3, 5 if quick else 30)
                for name, seconds in times.items():
                    found[name].append(statistics.median(seconds))
                held = g.index.nbytes
                yield [n, milliseconds(times["dense"]), milliseconds(times["gather"]), spread(times, "dense", "gather"),
                       f"{matrix.nbytes / held:.0f}"]  # fmt: skip

        columns = ["n", "dense", "gather", "dense / gather", "memory of the element, dense / gather"]
        table(f"Action of S_n on pair features, {CHANNELS} channels, B = {BATCH}, {title}", columns, rows())
        slopes = {name: exponent(SIZES, seconds) for name, seconds in found.items()}
        print("\nGrowth exponent from n = 64: " + ", ".join(f"{name} {slope:.2f}" for name, slope in slopes.items()))


def exponent(sizes: tuple[int, ...], seconds: list[float]) -> float:
    """Slope of log time over log n, by least squares, from n = 64."""
    points = [(math.log(n), math.log(t)) for n, t in zip(sizes, seconds, strict=False) if n >= 64]
    mean = [statistics.mean(column) for column in zip(*points, strict=True)]
    return sum((a - mean[0]) * (b - mean[1]) for a, b in points) / sum((a - mean[0]) ** 2 for a, _ in points)


def averaging(k: int, chunk: int | None, train: bool) -> Callable[[], None]:
    """One call of phi, in training with backward."""
    nodes = ps.S("nodes")
    net = MLP(20 * 20, (512, 512), 4)
    phi = ps.symmetrize(net, ps.Rep(nodes, nodes), ps.Rep(), "haar").train(train)
    x = torch.randn(64, 20, 20)
    phi(x, estimator=ps.MonteCarlo(2, 1)).sum().backward()  # lazy imports

    def call() -> None:
        with torch.set_grad_enabled(train):
            y = phi(x, estimator=ps.MonteCarlo(k, chunk))
            if train:
                y.sum().backward()

    return call


def memory(quick: bool) -> None:
    """Growth of the peak memory of one call, each in a process of its own (Linux)."""

    def rows() -> Iterator[list[object]]:
        for k in (10, 100) if quick else (10, 100, 1000):
            cells = [(train, chunk) for train in (False, True) for chunk in (None, 10)]
            yield [k, *(growth(averaging, k=k, chunk=chunk, train=train) for train, chunk in cells)]

    columns = ["k", "evaluation", "evaluation, chunk 10", "training", "training, chunk 10"]
    table("Peak memory of a call, S_20 on matrices, B = 64, MLP of 512", columns, rows())


def samples(quick: bool) -> None:
    """What the permutations of all samples hold in memory."""
    n, batch, k = 444, 128, 10
    g = ps.S("nodes").haar((k, batch), n=n)
    held, dense = g.index.untyped_storage().nbytes(), 4 * k * batch * n * n
    print(f"\nn = {n}, B = {batch}, k = {k}: {held / 1e6:.1f} MB as indices, {dense / 1e9:.2f} GB as float32 matrices")
