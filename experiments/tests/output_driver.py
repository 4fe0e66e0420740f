"""Runs commands of `probsym` in this process, whatever its locale: a program, so that imports are paid once.

    output_driver.py FOLDER             list, table, figures, help and a run of the toy, into FOLDER

The last line is the list of their exit codes.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import toy
from probsym_experiments.cli import main

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    codes = [main(["list"]), main(["table", "--runs", str(folder)]), main(["run", "nbody", "--help"])]
    drawn = ["--results", str(folder / "results"), "--out", str(folder / "figures")]
    codes.append(main(["figures", "--runs", str(folder), *drawn]))
    toy.install(folder / "presets")
    here = ["--data", str(folder / "data"), "--out", str(folder / "out")]
    codes.append(main(["run", "toy", "--preset", "plain", *here]))
    codes.append(main(["run", "toy", "--preset", "plain", "--schedule", "coñine", *here]))
    print(json.dumps(codes))
