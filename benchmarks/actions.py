"""Permutations as gathers beside dense matrices, and memory in chunks."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator
from functools import partial

import torch
from peaks import growth
from timing import alternate, milliseconds, place, spread, table
from torch import Tensor, nn

import probsym as ps
from nets import MLP

SIZES = (8, 16, 32, 64, 128, 256, 444, 1000)
BATCH = 2
CHANNELS = 8


def dense(matrix: Tensor, x: Tensor) -> Tensor:
    """P A P^T for pair features A (B, N, N, C)."""
    b, n, _, c = x.shape
    rows = (matrix @ x.flatten(2)).reshape(b, n, n, c).transpose(1, 2)
    return (matrix @ rows.flatten(2)).reshape(b, n, n, c).transpose(1, 2)


def actions(quick: bool) -> None:
    """Pair features (B, N, N, C) under S_n: gather against P A P^T, forward alone and with backward."""
    columns = ["n", "dense", "gather", "dense / gather", "memory of the element, dense / gather"]
    for title, backward in (("forward", False), ("forward and backward", True)):
        medians: dict[str, list[float]] = {"dense": [], "gather": []}
        heading = f"Action of S_n on pair features, {CHANNELS} channels, B = {BATCH}, {title}"
        table(heading, columns, action_rows(backward, quick, medians))
        slopes = []
        for name, seconds in medians.items():
            slopes.append(f"{name} {exponent(SIZES, seconds):.2f}")
        print("\nGrowth exponent from n = 64: " + ", ".join(slopes))


def action_rows(backward: bool, quick: bool, medians: dict[str, list[float]]) -> Iterator[list[object]]:
    """One row per n. The median seconds of each way are appended to `medians`."""
    sizes = SIZES
    budget = 30
    if quick:
        sizes = SIZES[:-1]
        budget = 5
    nodes = ps.S("nodes")
    rep = ps.Rep(nodes, nodes)

    for n in sizes:
        # 1. The same permutation, as indices and as a matrix.
        g = nodes.haar((BATCH,), n=n, device=place.device)
        x = torch.randn(BATCH, n, n, CHANNELS, requires_grad=backward, device=place.device)
        matrix = nn.functional.one_hot(g.index, n).float()

        # 2. Times are comparable only if both ways compute the same.
        by_matrix = partial(dense, matrix, x)
        by_gather = partial(rep.act, g, x)
        assert torch.equal(by_matrix(), by_gather())

        # 3. The times, with the backward pass if that is asked for.
        functions: dict[str, Callable[[], object]] = {"dense": by_matrix, "gather": by_gather}
        if backward:
            functions = {"dense": with_backward(by_matrix), "gather": with_backward(by_gather)}
        times = alternate(functions, 15, 3, budget)
        for name, seconds in times.items():
            medians[name].append(statistics.median(seconds))

        memory_ratio = matrix.nbytes / g.index.nbytes
        yield [
            n,
            milliseconds(times["dense"]),
            milliseconds(times["gather"]),
            spread(times, "dense", "gather"),
            f"{memory_ratio:.0f}",
        ]


def with_backward(function: Callable[[], Tensor]) -> Callable[[], None]:
    """The call, followed by the gradient of the sum of what it returns."""

    def call() -> None:
        function().sum().backward()

    return call


def exponent(sizes: tuple[int, ...], seconds: list[float]) -> float:
    """Slope of log time over log n, by least squares, from n = 64: below it a call costs the same for every n."""
    log_sizes = []
    log_seconds = []
    for n, duration in zip(sizes, seconds, strict=False):  # a quick run leaves out the last size
        if n >= 64:
            log_sizes.append(math.log(n))
            log_seconds.append(math.log(duration))
    return statistics.linear_regression(log_sizes, log_seconds).slope


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
    counts = [10, 100, 1000]
    if quick:
        counts = [10, 100]

    def rows() -> Iterator[list[object]]:
        for k in counts:
            yield [
                k,
                growth(averaging, k=k, chunk=None, train=False),
                growth(averaging, k=k, chunk=10, train=False),
                growth(averaging, k=k, chunk=None, train=True),
                growth(averaging, k=k, chunk=10, train=True),
            ]

    columns = ["k", "evaluation", "evaluation, chunk 10", "training", "training, chunk 10"]
    table("Peak memory of a call, S_20 on matrices, B = 64, MLP of 512", columns, rows())


def samples(quick: bool) -> None:
    """What the permutations of all samples hold in memory."""
    n, batch, k = 444, 128, 10
    g = ps.S("nodes").haar((k, batch), n=n)
    index_bytes = g.index.untyped_storage().nbytes()
    matrix_bytes = 4 * k * batch * n * n
    held = f"{index_bytes / 1e6:.1f} MB as indices, {matrix_bytes / 1e9:.2f} GB as float32 matrices"
    print(f"\nn = {n}, B = {batch}, k = {k}: {held}")
