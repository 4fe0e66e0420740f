"""EXP-classify: do soft permutations stay soft, or do they harden in training, since scores may grow?

    python experiments/scripts/soft_hardness.py RUN [RUN ...] --data FOLDER --out FILE       RUN: the folder of a run

The relaxation of an order has one scale, the temperature. Where scores have unit norm, as in the published code, two
neighbours in the order cannot move apart by more than that norm allows. Where they have not, they can grow until their
gaps are far above the temperature, and a soft permutation is a hard one. For each run, of the test graphs, with its
weights at the start and with the best ones:

    spread     standard deviation of the scores over the nodes of a graph, in temperatures, mean over graphs and samples
    largest    the largest entry of a row of the soft matrix, mean over rows: 1 is a hard permutation
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import probsym as ps
from probsym.distributions import NetDistribution
from probsym.files import write
from probsym_experiments.batches import reseed, stream
from probsym_experiments.cli import data_folder
from probsym_experiments.graphs.exp_classify import Config, inputs
from probsym_experiments.graphs.exp_data import load
from probsym_experiments.graphs.soft import Soft
from probsym_experiments.results import RESULT
from probsym_experiments.runner import commit
from probsym_experiments.training import CHECKPOINT

SAMPLES = 10
SHOWN = ("10", "200")  # samples at which the table has the accuracy


@torch.no_grad()
def hardness(phi: ps.Symmetrizer | Soft, graphs: dict[str, Tensor], temperature: float) -> tuple[float, float]:
    """Spread of the scores in temperatures, and the mean of the largest entries of the rows of the soft matrices.

    Raises:
        TypeError: p has no relaxation of the scores of a net.
    """
    p = phi.distribution
    if not isinstance(p, NetDistribution) or not isinstance(p.relaxation, ps.Relaxation):
        raise TypeError(f"expected a run with a net of p that is relaxed, as ps or ps-soft; got {p!r}")
    if isinstance(phi, Soft):
        wrapped = phi.phi
    else:
        wrapped = phi

    # 1. The scores (K, B, N) of noisy inputs.
    x = wrapped.bind((), graphs)
    noise = p.noise(x, (SAMPLES,))
    (group,) = p.group.factors
    (layout,) = x.layouts.values()
    mask = layout.padded_mask()
    scores = p.features(x, noise["features"])[group]

    # 2. Only the nodes that a graph has count.
    soft = p.relaxation(scores, mask)
    if mask is None:
        mask = torch.ones(scores.shape[1:], dtype=torch.bool)
    count = mask.sum(-1)
    kept = scores.where(mask, 0.0)
    mean = kept.sum(-1) / count
    variance = (kept - mean[..., None]).where(mask, 0.0).square().sum(-1) / count
    largest = soft.amax(-1).where(mask, 0.0).sum(-1) / count
    return float(variance.sqrt().mean()) / temperature, float(largest.mean())


def of_run(folder: Path, data: Path) -> dict[str, Any]:
    """What a run has at its start and at its end."""
    recipe = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    result = json.loads((folder / RESULT).read_text(encoding="utf-8"))
    fields = {name: value for name, value in recipe["config"].items() if name != "trainer"}
    config = Config(**fields)
    parts = config.split(config.graphs(load(data)))
    phi = config.model(parts["train"]).eval()
    graphs = inputs(parts["test"])

    # 1. The weights of the seed, then the best ones; the same noise for both.
    seed = stream(config.seed, "hardness")
    reseed(seed)
    at_start = hardness(phi, graphs, config.temperature)
    saved = torch.load(folder / CHECKPOINT, map_location="cpu", weights_only=True)
    phi.load_state_dict(saved["progress"]["weights"])
    reseed(seed)
    at_end = hardness(phi, graphs, config.temperature)

    # 2. Beside what the run reported.
    return {
        "run": f"{result['preset']} {json.dumps(result['overrides'])} seed {config.seed}",
        "symmetrizer": config.symmetrizer,
        "unit norm": config.published,
        "steps": result["steps"],
        "accuracy": {str(row["samples"]): row["value"] for row in result["by_samples"]},
        "start": {"spread": at_start[0], "largest": at_start[1]},
        "end": {"spread": at_end[0], "largest": at_end[1]},
    }


def row(found: dict[str, Any]) -> list[str]:
    """Of the table of the documentation."""
    unit_norm = "no"
    if found["unit norm"]:
        unit_norm = "yes"
    cells = [found["symmetrizer"], unit_norm, f"{found['steps']:,}"]
    for when in ("start", "end"):
        cells.append(f"{found[when]['spread']:.3g}")
        cells.append(f"{found[when]['largest']:.2f}")
    for samples in SHOWN:
        accuracy = found["accuracy"].get(samples)
        if accuracy is None:
            cells.append("not measured")
        else:
            cells.append(f"{accuracy:.3f}")
    return cells


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    parser.add_argument("--data", type=Path, help="data folder, as for probsym run")
    parser.add_argument("--out", type=Path, help="results as JSON; a file that exists is kept")
    options = parser.parse_args()
    if options.out and options.out.exists():
        parser.error(f"--out {options.out}: exists already")
    for folder in options.runs:
        for name in (CHECKPOINT, RESULT):
            if not (folder / name).exists():
                parser.error(f"{folder}: expected {name}, which a run leaves at its end; there is none")
    started = time.process_time()
    found = [of_run(folder, options.data or data_folder()) for folder in options.runs]
    columns = [
        "p", "scores of unit norm", "steps", "spread at the start, temperatures", "largest entry", "spread at the end",
        "largest entry at the end", "accuracy, k = 10", "k = 200",
    ]  # fmt: skip
    table = {"title": "Soft permutations", "columns": columns, "rows": [row(one) for one in found]}
    for cells in [columns, *table["rows"]]:
        print(" | ".join(cells))
    if options.out:
        code = commit() or "unknown"
        seconds = time.process_time() - started
        content = {
            "command": "python experiments/scripts/soft_hardness.py RUN ...",
            "source": f"commit {code[:7]}, {seconds:.0f} seconds of a core",
            "commit": code,
            "date": time.strftime("%Y-%m-%d %H:%M"),
            "runs": found,
            "tables": [table],
        }
        write(options.out, json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
