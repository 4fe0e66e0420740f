"""What symmetrization costs beside the bare model, and permutations beside dense matrices.

python benchmarks/cost.py
"""

from __future__ import annotations

import platform

import torch
from timing import alternate, milliseconds, ratio
from torch import Tensor, nn

import probsym as ps
from probsym.nets import ParticleGNN, ParticleTransformer
from probsym.symmetrizer import Symmetrizer

B, N, D = 100, 5, 3


def inputs() -> dict[str, Tensor]:
    return {"pos": torch.randn(B, N, D), "vel": torch.randn(B, N, D), "edge": torch.randn(B, N, N, 1)}


def symmetrized(model: nn.Module, nodes: ps.Group, k: int) -> Symmetrizer:
    space = ps.E(D, "space")
    reps = {"pos": ps.Rep(nodes, space), "vel": ps.Rep(nodes, space.vector), "edge": ps.Rep(nodes, nodes)}
    return ps.symmetrize(model, reps, ps.Rep(nodes, space), train_samples=k, example=inputs())


def step(module: nn.Module, x: dict[str, Tensor], target: Tensor, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    (module(**x) - target).square().mean().backward()
    optimizer.step()


def training_steps(k: int, model: nn.Module, nodes: ps.Group) -> str:
    """One training step (forward, backward, Adam) of the symmetrized and of the bare model on the same K*B rows."""
    phi = symmetrized(model, nodes, k)
    x, target = inputs(), torch.randn(B, N, D)
    rows, row_target = {name: value.repeat_interleave(k, 0) for name, value in x.items()}, target.repeat(k, 1, 1)
    ours = torch.optim.Adam(phi.parameters(), lr=1e-3)
    theirs = torch.optim.Adam(model.parameters(), lr=1e-3)
    times = alternate(
        {"phi": lambda: step(phi, x, target, ours), "bare": lambda: step(model, rows, row_target, theirs)},
        repeats=31 if k == 1 else 11,
    )
    middle, low, high = ratio(times, "phi", "bare")
    return (
        f"| {type(model).__name__} | {k} | {milliseconds(times['bare'])} | {milliseconds(times['phi'])} "
        f"| {middle:.2f} ({low:.2f} to {high:.2f}) |"
    )


def permutation_action(n: int = 444, channels: int = 8, batch: int = 2) -> str:
    """Forward action on pair features: gather against P A P^T with dense P."""
    nodes = ps.S("nodes")
    rep, g = ps.Rep(nodes, nodes), nodes.haar((1, batch), n=n)
    features = torch.randn(batch, n, n, channels)
    matrix = nn.functional.one_hot(g.index, n).float()

    def dense() -> Tensor:
        rows = (matrix @ features.flatten(2)).reshape(1, batch, n, n, channels).transpose(2, 3)
        return (matrix @ rows.flatten(3)).reshape(1, batch, n, n, channels).transpose(2, 3)

    assert torch.equal(dense(), rep.act(g, features, 1))
    times = alternate({"dense": dense, "gather": lambda: rep.act(g, features, 1)})
    middle, low, high = ratio(times, "dense", "gather")
    return (
        f"| {n} | {channels} | {batch} | {milliseconds(times['dense'])} | {milliseconds(times['gather'])} "
        f"| {middle:.1f} ({low:.1f} to {high:.1f}) |"
    )


def stored_samples(n: int = 444, batch: int = 128, k: int = 10) -> str:
    """Memory of the permutations of all samples."""
    g = ps.S("nodes").haar((k, batch), n=n)
    held = g.index.untyped_storage().nbytes()
    return (
        f"n={n}, B={batch}, k={k}: {held / 1e6:.1f} MB held, {k * batch * n * n * 4 / 1e9:.2f} GB as float32 matrices"
    )


def main() -> None:
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {platform.machine()}; medians, quartiles\n")
    print("| base model | k | bare step | symmetrized step | ratio |\n|---|---|---|---|---|")
    for k in (1, 10):
        print(training_steps(k, ParticleTransformer(), ps.S("nodes")))
        print(training_steps(k, ParticleGNN(), ps.Axis("nodes")))
    print("\n| n | channels | B | dense P A P^T | gather | dense / gather |\n|---|---|---|---|---|---|")
    print(permutation_action())
    print("\n" + stored_samples())


if __name__ == "__main__":
    main()
