"""Two or more functions timed in one process, in turn: medians and ratios, because machines drift.

On a GPU a call is over when its last kernel is.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
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
    functions: Mapping[str, Callable[[], object]], repeats: int = 15, warmup: int = 3, budget: float = 60.0
) -> dict[str, list[float]]:
    """Seconds of each call, with every function once per round.

    After `budget` seconds it ends as soon as there are three rounds, and warm-up rounds count from then on.
    """
    times: dict[str, list[float]] = {}
    for name in functions:
        times[name] = []
    rounds_kept = 0
    began = time.perf_counter()
    for i in range(warmup + repeats):
        late = time.perf_counter() - began > budget
        if late and rounds_kept >= 3:
            break
        # The very first round never counts: it loads and compiles.
        kept = i >= warmup or (late and i > 0)
        for name, function in functions.items():
            place.wait()
            start = time.perf_counter()
            function()
            place.wait()
            if kept:
                times[name].append(time.perf_counter() - start)
        rounds_kept += kept
    return times


def ratio(times: dict[str, list[float]], name: str, reference: str) -> tuple[float, float, float]:
    """Median, lower and upper quartile of the ratio round by round."""
    ratios = []
    for seconds, reference_seconds in zip(times[name], times[reference], strict=True):
        ratios.append(seconds / reference_seconds)
    ratios.sort()
    quarter = len(ratios) // 4
    return statistics.median(ratios), ratios[quarter], ratios[-1 - quarter]


def spread(times: dict[str, list[float]], name: str, reference: str) -> str:
    """A ratio as "median (lower quartile to upper quartile)"."""
    median, lower, upper = ratio(times, name, reference)
    return f"{median:.2f} ({lower:.2f} to {upper:.2f})"


def milliseconds(values: list[float]) -> str:
    return f"{1e3 * statistics.median(values):.2f} ms"


def table(title: str, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a Markdown table, row by row as they come."""
    print(f"\n### {title}\n")
    print("| " + " | ".join(header) + " |")
    print("|---" * len(header) + "|", flush=True)
    for row in rows:
        print("| " + " | ".join(map(str, row)) + " |", flush=True)
