"""Draw headline.png from the results in this repository: python docs/figures/headline.py"""

import json
from math import sqrt
from pathlib import Path
from statistics import mean, stdev

import matplotlib.pyplot as plt

HERE = Path(__file__).parent
RESULTS = HERE.parents[1] / "results" / "nbody"
BASES = {
    "gnn": "GNN",
    "dynamics": "learned integrator",
    "dynamics-transformer": "transformer that moves particles",
    "transformer": "transformer, a token a pair",
}
METHODS = {
    "none": "as it is",
    "canonical": "one learned\npose",
    "fa": "frames",
    "ga": "uniform poses\n(haar)",
    "ps": "learned p",
}


def read(preset: str) -> list[dict]:
    """The results of a preset, one a seed; none where it was not run."""
    return [json.loads(path.read_text()) for path in sorted((RESULTS / preset).glob("*.json"))]


def error(results: list[dict]) -> float:
    """The larger of the standard errors over training seeds and over test systems."""
    over_test = results[0]["stderr_test"]
    if len(results) < 2:
        return over_test
    over_seeds = stdev(result["value"] for result in results) / sqrt(len(results))
    return max(over_seeds, over_test)


def main() -> None:
    figure, axes = plt.subplots(figsize=(7, 3.6), layout="constrained")
    for number, (base, label) in enumerate(BASES.items()):
        places, values, errors = [], [], []
        for place, method in enumerate(METHODS):
            results = read(f"{base}-{method}")
            if results:
                places.append(place + 0.12 * (number - 1.5))
                values.append(mean(result["value"] for result in results))
                errors.append(error(results))
        axes.errorbar(places, values, errors, fmt="osD^"[number], capsize=3, label=label)
    built_in = mean(result["value"] for result in read("egnn-none"))
    axes.axhline(built_in, color="0.5", linestyle="--", linewidth=1)
    axes.text(
        len(METHODS) - 0.6, built_in, "EGNN, equivariant by itself", color="0.4", fontsize=8, ha="right", va="bottom"
    )
    axes.set_xlim(-0.4, len(METHODS) - 0.5)
    axes.set_xticks(range(len(METHODS)), METHODS.values())
    axes.set_ylabel("test MSE")
    axes.set_ylim(bottom=0)
    axes.grid(axis="y", alpha=0.3)
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(HERE / "headline.png", dpi=150)


if __name__ == "__main__":
    main()
