"""All benchmarks, or those that are named: tables of ratios, each measured beside its reference in the same process.

python benchmarks                      everything, about half an hour on one core
python benchmarks --quick              smaller cases, a few minutes
python benchmarks designs actions      some of it
"""

from __future__ import annotations

import argparse
import platform
from collections.abc import Callable

import torch
from actions import actions, memory, samples
from backbones import backbones
from evaluations import designs
from packages import frames, images, imports
from steps import places, steps, storage

BENCHMARKS: dict[str, Callable[[bool], None]] = {
    f.__name__: f
    for f in (steps, places, storage, actions, memory, samples, designs, frames, images, imports, backbones)
}


def main() -> None:
    lines = [f"{name:10} {f.__doc__}" for name, f in BENCHMARKS.items()]
    parser = argparse.ArgumentParser(
        prog="python benchmarks", description=__doc__.split("\n")[0], epilog="\n".join(lines),  # type: ignore[union-attr]
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("names", nargs="*", help=", ".join(BENCHMARKS))
    parser.add_argument("--quick", action="store_true", help="smaller cases and fewer repeats")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"unknown benchmark {unknown[0]!r}: expected some of {', '.join(BENCHMARKS)}")
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, {options.threads} thread(s), {platform.machine()}; medians (quartiles)")
    for name in options.names or BENCHMARKS:
        BENCHMARKS[name](options.quick)


if __name__ == "__main__":
    main()
