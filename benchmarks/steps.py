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
    case: Case, k: int, b: int, wrap: Callable[..., Any] = lambda module: module
) -> dict[str, Callable[[], None]]:
    """A step of the bare model on K B rows, and of phi with a learned and with the uniform p on B inputs."""
    call = case.call(b)
    with torch.no_grad():
        target = torch.randn_like(case.model(**call))
    rows = {name: value.repeat(k, *[1] * (value.ndim - 1)) for name, value in call.items()}
    steps = {"bare": trainer(wrap(case.model), rows, target.repeat(k, *[1] * (target.ndim - 1)))}
    for name, p in (("learned", case.learned), ("haar", "haar")):
        steps[name] = trainer(wrap(case.symmetrized(k, p).train()), call, target)
    return steps


def left_out(case: Case, k: int, b: int, quick: bool) -> str:
    """Why there is no such row; nothing where there is one."""
    if quick and k > 10:
        return "left out by --quick"
    needed = case.held() * k * b
    return f"left out: holds {needed / 1e9:.0f} GB for backward" if needed > place.memory() / 2 else ""


def steps(quick: bool) -> None:
    """phi with a learned and with the uniform p against the bare model on the same K B rows."""

    def rows() -> Iterator[list[object]]:
        for name, case in cases().items():
            for k, b in product((1, 10, 100), (1, 100)):
                if reason := left_out(case, k, b, quick):
                    yield [name, k, b, reason, *"----"]
                    continue
                budget = 60 if place.device.type == "cpu" else 5  # repeats are alike on a GPU of one's own
                times = alternate(contenders(case, k, b), 21, 2, 10 if quick else budget)
                yield [name, k, b, *(milliseconds(values) for values in times.values()),
                       spread(times, "learned", "bare"), spread(times, "haar", "bare")]  # fmt: skip

    columns = ["base model", "k", "B", "bare step", "learned p", "Haar", "learned / bare", "Haar / bare"]
    table("Training step", columns, rows())


def compiled(quick: bool) -> None:
    """Steps at k = 10 with torch.compile of phi and of the bare model; a minute or more of compilation each."""

    def rows() -> Iterator[list[object]]:
        for name, b in product(("MLP", "transformer", "GNN"), (1, 100)):
            case = cases()[name]
            torch._dynamo.reset()
            plain, fast = contenders(case, 10, b), contenders(case, 10, b, torch.compile)
            waits = [f"{seconds(fast[who]):.0f} s" for who in ("bare", "learned")]
            functions = {"bare": plain["bare"], "learned": plain["learned"],
                         "bare compiled": fast["bare"], "learned compiled": fast["learned"]}  # fmt: skip
            times = alternate(functions, 21, 2, 10 if quick else 60)
            yield [name, b, *(milliseconds(times[who]) for who in functions), spread(times, "learned", "bare"),
                   spread(times, "learned compiled", "bare compiled"), *waits]  # fmt: skip

    columns = ["base model", "B", "bare", "learned p", "bare, compiled", "learned p, compiled", "learned / bare",
               "the same, compiled", "first step, bare", "first step, learned"]  # fmt: skip
    table("Training step, k = 10, compiled", columns, rows())


def seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


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
                functions[noise] = trainer(case.symmetrized(k, p).train(), call, target)
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
