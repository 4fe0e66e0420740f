"""All benchmarks, or those that are named: tables of ratios, each measured beside its reference in the same process.

python benchmarks                      everything, more than an hour on one core
python benchmarks --quick              smaller cases and fewer repeats
python benchmarks designs actions      some of it
python benchmarks --out times.md       into a file as well; times.json: tables, machine and commit as data
python benchmarks steps --device cuda  on a GPU; steps, actions and relaxed alone
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path

import timing
import torch
from actions import actions, memory, samples
from correctness import correctness
from evaluations import designs
from packages import frames, images, imports
from passes import passes
from points import points
from relaxed import relaxed
from report import Kept, circumstances, header, record
from steps import compiled, places, steps, storage
from throughput import backbones

from probsym.files import write

ALL = (
    correctness,
    steps,
    points,
    compiled,
    places,
    storage,
    actions,
    relaxed,
    passes,
    memory,
    samples,
    designs,
    frames,
    images,
    imports,
    backbones,
)
BENCHMARKS: dict[str, Callable[[bool], None]] = {f.__name__: f for f in ALL}
ANYWHERE = [f.__name__ for f in (steps, actions, relaxed)]  # not on the CPU alone


def main() -> None:
    lines = [f"{name:10} {f.__doc__}" for name, f in BENCHMARKS.items()]
    parser = argparse.ArgumentParser(
        prog="python benchmarks", description=__doc__.split("\n")[0], epilog="\n".join(lines),  # type: ignore[union-attr]
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("names", nargs="*", help=", ".join(BENCHMARKS))
    parser.add_argument("--quick", action="store_true", help="smaller cases and fewer repeats")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu", help=f"cpu or cuda ({', '.join(ANYWHERE)})")
    parser.add_argument(
        "--out", type=Path, help="a file for the same tables (.md or .json), written after each benchmark"
    )
    parser.add_argument("--force", action="store_true", help="overwrite that file")
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"unknown benchmark {unknown[0]!r}: expected some of {', '.join(BENCHMARKS)}")
    wrong = [name for name in options.names or BENCHMARKS if name not in ANYWHERE]
    if wrong and options.device != "cpu":
        parser.error(f"--device {options.device}: expected some of {', '.join(ANYWHERE)}; got {wrong[0]!r}")
    if options.out and options.out.exists() and not options.force:
        parser.error(f"--out {options.out}: exists already; --force overwrites it")
    timing.place.device = torch.device(options.device)
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    facts = circumstances(options.threads)
    with redirect_stdout(Kept(sys.stdout)) as kept:
        print(header(facts))
        for name in options.names or BENCHMARKS:
            BENCHMARKS[name](options.quick)
            if options.out:
                as_data = options.out.suffix == ".json"
                write(options.out, record(facts, kept.getvalue()) if as_data else kept.getvalue())


if __name__ == "__main__":
    main()
