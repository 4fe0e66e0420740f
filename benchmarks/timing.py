"""Two or more functions timed in one process, in turn: medians and ratios, because machines drift.

On a GPU a call is over when its last kernel is.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch


@dataclass
class Place:
    """Where everything that is timed lies."""

    device: torch.device = torch.device("cpu")

    def put(self, what: Any) -> Any:
        """A module, a tensor or a dict of tensors, moved there."""
        if isinstance(what, dict):
            return {name: tensor.to(self.device) for name, tensor in what.items()}
        return what.to(self.device)

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def memory(self) -> int:
        """Bytes of memory of the device."""
        if self.device.type == "cuda":
            return torch.cuda.get_device_properties(self.device).total_memory
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


place = Place()


def alternate(
    functions: dict[str, Callable[[], object]], repeats: int = 15, warmup: int = 3, budget: float = 60.0
) -> dict[str, list[float]]:
    """Seconds of each call, with every function once per round.

    After `budget` seconds it ends as soon as there are three rounds, and warm-up rounds count from then on.
    """
    times: dict[str, list[float]] = {name: [] for name in functions}
    began = time.perf_counter()
    for i in range(warmup + repeats):
        late = time.perf_counter() - began > budget
        if late and len(next(iter(times.values()))) >= 3:
            break
        for name, function in functions.items():
            place.wait()
            start = time.perf_counter()
            function()
            place.wait()
            if i >= warmup or (late and i):
                times[name].append(time.perf_counter() - start)
    return times


def ratio(times: dict[str, list[float]], name: str, reference: str) -> tuple[float, float, float]:
    """Median, lower and upper quartile of the ratio round by round."""
    pairs = sorted(a / b for a, b in zip(times[name], times[reference], strict=True))
    return statistics.median(pairs), pairs[len(pairs) // 4], pairs[-1 - len(pairs) // 4]


def spread(times: dict[str, list[float]], name: str, reference: str) -> str:
    """A ratio as "median (lower quartile to upper quartile)"."""
    median, lower, upper = ratio(times, name, reference)
    return f"{median:.2f} ({lower:.2f} to {upper:.2f})"


def milliseconds(values: list[float]) -> str:
    return f"{1e3 * statistics.median(values):.2f} ms"


def table(title: str, header: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """Print a Markdown table, row by row as they come."""
    header = list(header)
    print(f"\n### {title}\n")
    print("| " + " | ".join(header) + " |")
    print("|---" * len(header) + "|", flush=True)
    for row in rows:
        print("| " + " | ".join(str(cell) for cell in row) + " |", flush=True)
