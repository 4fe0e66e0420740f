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
from atoms import atoms
from correctness import correctness
from evaluations import designs
from launches import launches
from members import costs
from packages import frames, images, imports
from passes import passes
from points import points
from pretrained import pretrained
from relaxed import relaxed
from report import Kept, circumstances, header, record
from steps import compiled, places, steps, storage
from throughput import backbones

from probsym.files import write

ALL = (
    correctness,
    steps,
    launches,
    costs,
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
    atoms,
    pretrained,
)
BENCHMARKS: dict[str, Callable[[bool], None]] = {function.__name__: function for function in ALL}
ANYWHERE = ["steps", "actions", "relaxed"]  # not on the CPU alone


def main() -> None:
    # 1. What is asked for.
    summary, _, _ = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        prog="python benchmarks",
        description=summary,
        epilog="\n".join(f"{name:10} {function.__doc__}" for name, function in BENCHMARKS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", help=", ".join(BENCHMARKS))
    parser.add_argument("--quick", action="store_true", help="smaller cases and fewer repeats")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu", help=f"cpu or cuda ({', '.join(ANYWHERE)})")
    parser.add_argument(
        "--out", type=Path, help="a file for the same tables (.md or .json), written after each benchmark"
    )
    parser.add_argument("--force", action="store_true", help="overwrite that file")
    options = parser.parse_args()

    # 2. Refuse what cannot be done before anything runs.
    names = options.names or list(BENCHMARKS)
    for name in names:
        if name not in BENCHMARKS:
            parser.error(f"unknown benchmark {name!r}: expected some of {', '.join(BENCHMARKS)}")
    for name in names:
        if options.device != "cpu" and name not in ANYWHERE:
            parser.error(f"--device {options.device}: expected some of {', '.join(ANYWHERE)}; got {name!r}")
    if options.out and options.out.exists() and not options.force:
        parser.error(f"--out {options.out}: exists already; --force overwrites it")

    # 3. Run. The file is written after each benchmark, so that what was measured survives a failure.
    timing.place.device = torch.device(options.device)
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    facts = circumstances(options.threads)
    with redirect_stdout(Kept(sys.stdout)) as kept:
        print(header(facts))
        for name in names:
            BENCHMARKS[name](options.quick)
            if options.out is None:
                continue
            text = kept.getvalue()
            if options.out.suffix == ".json":
                text = record(facts, text)
            write(options.out, text)


if __name__ == "__main__":
    main()
