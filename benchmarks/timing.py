"""Two or more functions timed in one process, in turn: medians and ratios, because machines drift."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable


def alternate(functions: dict[str, Callable[[], object]], repeats: int = 15, warmup: int = 3) -> dict[str, list[float]]:
    """Seconds of each call, every function once a round."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for i in range(warmup + repeats):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            if i >= warmup:
                times[name].append(time.perf_counter() - start)
    return times


def ratio(times: dict[str, list[float]], name: str, reference: str) -> tuple[float, float, float]:
    """Median, lower and upper quartile of the ratio round by round."""
    pairs = sorted(a / b for a, b in zip(times[name], times[reference], strict=True))
    return statistics.median(pairs), pairs[len(pairs) // 4], pairs[-1 - len(pairs) // 4]


def milliseconds(values: list[float]) -> str:
    return f"{1e3 * statistics.median(values):.2f} ms"
