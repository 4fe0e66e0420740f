"""What symmetrization costs: a training step of phi beside one of the bare model on as many rows.

Both take Adam in one fused operation, the fastest there is for small nets.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import torch
from bases import Case, D, N, cases
from timing import alternate, milliseconds, place, spread, table
from torch import Tensor, nn

import probsym as ps


def trainer(module: nn.Module, call: dict[str, Tensor], target: Tensor) -> Callable[[], None]:
    """One step: forward, backward, Adam."""
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-4, fused=True)

    def step() -> None:
        optimizer.zero_grad()
        (module(**call) - target).square().mean().backward()
        optimizer.step()

    return step


def contenders(
    case: Case, k: int, b: int, wrap: Callable[..., Any] = lambda module: module, in_place: bool = False
) -> dict[str, Callable[[], None]]:
    """A step of the bare model on K B rows, and of phi with a learned and with the uniform p on B inputs.

    Args:
        in_place: whether to add the learned p after `phi.compile()`, which leaves the model as it is.
    """
    call = case.call(b)
    with torch.no_grad():
        target = torch.randn_like(case.model(**call))
    rows = {}
    for name, value in call.items():
        rows[name] = repeated(value, k)
    steps = {"bare": trainer(wrap(case.model), rows, repeated(target, k))}
    for name, p in (("learned", case.learned), ("haar", "haar")):
        phi = case.symmetrized(k, p).train()
        steps[name] = trainer(wrap(phi), call, target)
    if in_place:
        phi = case.symmetrized(k).train()
        phi.compile()
        steps["compiled"] = trainer(phi, call, target)
    return steps


def repeated(x: Tensor, k: int) -> Tensor:
    """The batch k times: (B, ...) to (K B, ...)."""
    times = [1] * x.ndim
    times[0] = k
    return x.repeat(times)


def left_out(case: Case, k: int, b: int, quick: bool) -> str:
    """Why there is no such row; nothing where there is one."""
    if quick and k > 10:
        return "left out by --quick"
    held = case.held() * k * b
    if held > place.memory() / 2:
        return f"left out: holds {held / 1e9:.0f} GB for backward"
    return ""


def steps(quick: bool) -> None:
    """phi with a learned and with the uniform p against the bare model on the same K B rows."""
    budget = 60
    if quick:
        budget = 10
    elif place.device.type != "cpu":
        budget = 5  # repeats are alike on a GPU of one's own
    in_place = place.device.type != "cpu"  # where launches take the time

    columns = ["base model", "k", "B", "bare step", "learned p", "Haar", "learned / bare", "Haar / bare"]
    if in_place:
        columns += ["learned p, phi.compile()", "the same / bare"]

    def rows() -> Iterator[list[object]]:
        for name, case in cases().items():
            for k, b in product((1, 10, 100), (1, 100)):
                reason = left_out(case, k, b, quick)
                if reason:
                    yield [name, k, b, reason, *["-"] * (len(columns) - 4)]
                    continue
                times = alternate(contenders(case, k, b, in_place=in_place), 21, 2, budget)
                row: list[object] = [
                    name,
                    k,
                    b,
                    milliseconds(times["bare"]),
                    milliseconds(times["learned"]),
                    milliseconds(times["haar"]),
                    spread(times, "learned", "bare"),
                    spread(times, "haar", "bare"),
                ]
                if in_place:
                    row += [milliseconds(times["compiled"]), spread(times, "compiled", "bare")]
                yield row

    table("Training step", columns, rows())


def compiled(quick: bool) -> None:
    """Steps at k = 10 with torch.compile of phi and of the bare model; a minute or more of compilation each."""
    budget = 60
    if quick:
        budget = 10

    def rows() -> Iterator[list[object]]:
        for name, b in product(("MLP", "transformer", "GNN"), (1, 100)):
            case = cases()[name]
            torch._dynamo.reset()
            eager = contenders(case, 10, b)
            fast = contenders(case, 10, b, torch.compile)

            # The first call compiles.
            first_bare = seconds(fast["bare"])
            first_learned = seconds(fast["learned"])

            functions = {
                "bare": eager["bare"],
                "learned": eager["learned"],
                "bare compiled": fast["bare"],
                "learned compiled": fast["learned"],
            }
            times = alternate(functions, 21, 2, budget)
            yield [
                name,
                b,
                milliseconds(times["bare"]),
                milliseconds(times["learned"]),
                milliseconds(times["bare compiled"]),
                milliseconds(times["learned compiled"]),
                spread(times, "learned", "bare"),
                spread(times, "learned compiled", "bare compiled"),
                f"{first_bare:.0f} s",
                f"{first_learned:.0f} s",
            ]

    columns = ["base model", "B", "bare", "learned p", "bare, compiled", "learned p, compiled", "learned / bare",
               "the same, compiled", "first step, bare", "first step, learned"]  # fmt: skip
    table("Training step, k = 10, compiled", columns, rows())


def seconds(function: Callable[[], object]) -> float:
    """How long one call takes."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def places(quick: bool) -> None:
    """Noise added to the features (late) against noise at the input: training steps on the GNN base."""
    counts = [1, 10, 100]
    budget = 60
    if quick:
        counts = [1, 10]
        budget = 10

    def rows() -> Iterator[list[object]]:
        for k in counts:
            case = cases()["GNN"]
            call = case.call(100)
            target = torch.randn(100, N, D)
            functions = {}
            for noise in ("late", "input"):
                group = case.symmetrized(1).group
                net = ps.distributions.DefaultNet(case.inputs, group)
                phi = case.symmetrized(k, ps.Learned(net, group, noise=noise))
                functions[noise] = trainer(phi.train(), call, target)
            times = alternate(functions, 15, 2, budget)
            yield [k, milliseconds(times["late"]), milliseconds(times["input"]), spread(times, "input", "late")]

    table("Place of the noise, B = 100", ["k", "late", "input", "input / late"], rows())


class Pooled(nn.Module):
    """A node MLP and a sum over the nodes of each graph; padded (mask) or ragged (batch)."""

    def __init__(self) -> None:
        super().__init__()
        self.node = nn.Sequential(nn.Linear(9, 128), nn.SiLU(), nn.Linear(128, 128), nn.SiLU(), nn.Linear(128, 128))
        self.head = nn.Linear(128, 4)

    def forward(self, x: Tensor, mask: Tensor | None = None, batch: Tensor | None = None) -> Tensor:
        if batch is None:
            assert mask is not None
            position = torch.linspace(0, 1, x.shape[1]).expand(x.shape[:2])
            y = self.features(x, position) * mask.unsqueeze(-1)
            return self.head(y.sum(1))
        position = torch.linspace(0, 1, len(x))
        y = self.features(x, position)
        pooled = y.new_zeros(int(batch.max()) + 1, 128).index_add(0, batch, y)
        return self.head(pooled)

    def features(self, x: Tensor, position: Tensor) -> Tensor:
        """Of each node, which also sees its position in the order: no equivariant function."""
        return self.node(torch.cat([x, position.unsqueeze(-1)], -1)).tanh()


def storage(quick: bool) -> None:
    """The same graphs, 10 to 100 nodes, padded and ragged."""
    graphs = 64
    budget = 60
    if quick:
        graphs = 16
        budget = 10

    # 1. The same node features in both kinds of storage.
    sizes = torch.linspace(10, 100, graphs).long()
    mask = torch.arange(int(sizes.max())) < sizes[:, None]
    ragged = torch.randn(int(sizes.sum()), 8)
    padded = torch.zeros(*mask.shape, 8).masked_scatter(mask.unsqueeze(-1), ragged)
    batch = torch.arange(graphs).repeat_interleave(sizes)
    target = torch.randn(graphs, 4)
    calls = {"padded": {"x": padded, "mask": mask}, "ragged": {"x": ragged, "batch": batch}}
    axes = {"padded": ps.S("nodes", mask="mask"), "ragged": ps.S("nodes", batch="batch")}

    # 2. A training step of each.
    def rows() -> Iterator[list[object]]:
        for k in (1, 10):
            functions = {}
            for name, call in calls.items():
                case = Case(Pooled(), {"x": ps.Rep(axes[name])}, ps.Rep(), lambda _, call=call: call)
                functions[name] = trainer(case.symmetrized(k).train(), call, target)
            times = alternate(functions, 15, 2, budget)
            yield [k, milliseconds(times["padded"]), milliseconds(times["ragged"]), spread(times, "ragged", "padded")]

    heading = f"Padded and ragged batches, {graphs} graphs of 10 to 100 nodes"
    table(heading, ["k", "padded", "ragged", "ratio"], rows())
