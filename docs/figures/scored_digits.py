"""Accuracy on digits in any quarter turn, by p. Writes the figure from results/benchmarks/scored_digits.json."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import matplotlib.pyplot as plt

HERE = Path(__file__).parent
RESULTS = HERE.parents[1] / "results" / "benchmarks" / "scored_digits.json"
# (method, which accuracy, label): the number of calls is that of training, then of evaluation
SHOWN = [
    ("none", "test", "no p\n1, 1"),
    ("canonical, fixed net", "test", "Canonical,\nfixed net\n1, 1"),
    ("haar, exact", "test", "Haar,\nexact\n4, 4"),
    ("scored, best pose", "test", "Scored,\nbest pose\n1, 1"),
    ("scored, two draws", "test_one_call", "Scored,\ntwo draws\n2, 1"),
    ("scored, two draws", "test", "Scored,\ntwo draws\n2, 4"),
    ("scored, exact", "test", "Scored,\nexact\n4, 4"),
]


def main() -> None:
    runs = json.loads(RESULTS.read_text(encoding="utf-8"))["runs"]
    figure, axes = plt.subplots(figsize=(8.4, 3.6), layout="constrained")
    for place, (method, which, _) in enumerate(SHOWN):
        found = [run[which] for run in runs if run["method"] == method]
        colour = "#2a6f97" if method.startswith("scored") else "#9a9a9a"
        mean = statistics.mean(found)
        low, high = mean - min(found), max(found) - mean
        axes.errorbar(place, mean, [[low], [high]], color=colour, fmt="o", capsize=4, markersize=7)
        axes.text(place, max(found) + 0.004, f"{mean:.3f}", ha="center", va="bottom", fontsize=9)
    axes.set_xticks(range(len(SHOWN)), [label for _, _, label in SHOWN], fontsize=9)
    axes.set_ylim(0.83, 0.98)
    axes.grid(axis="y", alpha=0.3)
    axes.set_ylabel("test accuracy")
    seeds = len({run["seed"] for run in runs})
    calls = "below each p: calls of the CNN per image in training, evaluation"
    axes.set_title(f"Digits in any quarter turn, mean and range of {seeds} seeds; {calls}", fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(HERE / "scored_digits.png", dpi=160)


if __name__ == "__main__":
    main()
