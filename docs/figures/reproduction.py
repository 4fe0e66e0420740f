"""Write results/benchmarks/{nbody,brec,exp_classify}.json from the results of these, and draw nbody_ahead.png.

python docs/figures/reproduction.py

`python benchmarks/fill.py` puts the tables of these files into docs/reproduction.md.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from probsym_experiments.published import Published, published

HERE = Path(__file__).parent
RESULTS = HERE.parents[1] / "results"

METHODS = {
    "none": "as it is",
    "ps": "learned p",
    "ga": "uniform poses",
    "fa": "frames",
    "canonical": "one learned pose",
}
BASES = {
    "gnn": "GNN, 92 k",
    "dynamics": "`dynamics`, 26 k",
    "dynamics-transformer": "`dynamics-transformer`, 217 k",
    "transformer": "transformer, a token per pair, 208 k",
    "egnn": "EGNN, 122 k",
    "egnn-inverse": "EGNN, told inverse distances, 122 k",
}
SYSTEMS = ("charged", "gravity")
HORIZONS = (1_000, 1_500, 2_000)
AHEAD = ("SEGNO", "SEGNN", "GMN", "EGNN", "GNN")  # rows of SEGNO's page that have all six tasks
SHORTENED = (
    ("gnn", 1, 3_000, "GNN"),
    ("gnn", 20, 1_000, "GNN"),
    ("transformer", 1, 1_000, "transformer"),
    ("transformer", 1, 3_000, "transformer"),
)
KINDS = {
    "basic": "basic, 60",
    "regular": "simple regular, 50",
    "extension": "extension, 100",
    "strongly-regular": "strongly regular, 50",
    "4-vertex-condition": "4-vertex condition, 20",
    "distance-regular": "distance regular, 20",
    "cfi": "CFI, 100",
}
BREC_METHODS = {
    "ps": "learned",
    "canonical": "one learned order",
    "ga": "uniform orders",
    "fa": "frames",
    "none": "as it is",
}
BREC_BASES = {"gin-id": "GIN-ID", "mlp": "MLP"}
CLASSIFIERS = {  # of mlp-ps-noise-no-walks, by the beginning of the name of a file
    "": "learned p, fresh noise",
    "soft-": "the same, soft permutations",
    "fixed-noise-": "the same, fixed noise of each graph",
    "canonical-": "one learned order",
}
SAMPLES = (1, 5, 10, 50, 200)


def read(pattern: str) -> list[dict]:
    """The results that match, in the order of their names."""
    return [json.loads(path.read_text()) for path in sorted(RESULTS.glob(pattern))]


# ---------------------------------------------------------------- cells


def error(results: Sequence[dict], digits: int = 5, count: bool = True) -> str:
    """Mean of the test errors with its standard error over seeds, and their number; of one seed the error alone.

    >>> error([{"value": 0.01}, {"value": 0.02}], digits=3), error([{"value": 0.01}], digits=3), error([])
    ('0.015 +- 0.005 (2)', '0.010', '')
    """
    if not results:
        return ""
    values = [result["value"] for result in results]
    text = f"{mean(values):.{digits}f}"
    if len(values) > 1:
        text += f" +- {stdev(values) / len(values) ** 0.5:.{digits}f}"
        if count:
            text += f" ({len(values)})"
    return text


def over_test(results: Sequence[dict]) -> str:
    """The standard error over the test systems, which all seeds share."""
    return f"+- {mean(result['stderr_test'] for result in results):.5f}"


def cost(results: Sequence[dict]) -> str:
    """CPU time of a seed, from the least to the most: in minutes, below one and a half in seconds."""
    seconds = sorted(result["cpu_s"] for result in results)
    if seconds[-1] < 90:
        low, high, unit = round(seconds[0]), round(seconds[-1]), "s"
    else:
        low, high, unit = round(seconds[0] / 60), round(seconds[-1] / 60), "min"
    if low == high:
        return f"{low} {unit}"
    return f"{low} to {high} {unit}"


def concentration(results: Sequence[dict]) -> str:
    """How concentrated p is: of poses, and of orders where p has them."""
    words = []
    for what in ("poses", "orders"):
        found = [result.get(f"concentration of {what}") for result in results]
        if all(value is not None for value in found):
            words.append(f"{what} {mean(found):.2f}")
    return ", ".join(words)


# ---------------------------------------------------------------- n-body


def bases() -> dict:
    """Test errors after 12,000 steps, base network by method."""
    rows = []
    for base, label in BASES.items():
        row = [label]
        for method in METHODS:
            row.append(error(read(f"nbody/{base}-{method}/seed*.json")))
        rows.append(row)
    return {"title": "Test MSE after 12,000 steps", "columns": ["base", *METHODS.values()], "rows": rows}


def shortened() -> dict:
    """The paper's recipe, a small part of its steps: a learned p and uniform poses."""
    rows = []
    for base, samples, steps, label in SHORTENED:
        by_method = {}
        for method in ("ps", "ga"):
            by_method[method] = read(f"nbody/{base}-{method}-published/k{samples}-steps{steps}-seed*.json")
        learned, uniform = by_method["ps"], by_method["ga"]
        if not learned or not uniform:
            continue
        rows.append(
            [
                label,
                f"{samples}",
                f"{steps:,}",
                error(learned, digits=4),
                error(uniform, digits=4),
                concentration(learned),
                f"{cost(learned)}, {cost(uniform)}",
            ]
        )
    columns = [
        "base", "samples a step", "steps", "learned p", "uniform poses", "concentration of p",
        "cost of a seed, learned and uniform",
    ]  # fmt: skip
    return {"title": "The paper's net of p, noise and recipe", "columns": columns, "rows": rows}


def ours_ahead(system: str, horizon: int) -> tuple[str, list[dict]]:
    """The preset of a task, and its results."""
    preset = f"dynamics-ga-{system}-{horizon}"
    if (system, horizon) == ("charged", 1_000):
        preset = "dynamics-ga"
    return preset, read(f"nbody/{preset}/seed*.json")


def published_ahead() -> dict[tuple[str, str, int], Published]:
    """Rows of SEGNO's page by network, system and horizon."""
    found = {}
    for row in published("nbody"):
        words = row.row.split(", ")
        if words[0] not in AHEAD:
            continue
        if len(words) == 1:
            found[words[0], "charged", 1_000] = row
        else:
            horizon = int(words[2].removesuffix(" steps").replace(",", ""))
            found[words[0], words[1], horizon] = row
    return found


def published_cell(row: Published) -> str:
    """A published error, with the standard deviation over its five runs where it was given."""
    text = f"{row.value:.5f}"
    if row.stderr is not None:
        text += f" +- {row.stderr:.5f}"
    return text


def ahead() -> dict:
    """Charged particles and bodies under gravity, three horizons: ours beside published errors."""
    papers = published_ahead()
    rows = []
    for system in SYSTEMS:
        for horizon in HORIZONS:
            preset, results = ours_ahead(system, horizon)
            row = [f"{system}, {horizon:,} steps: `{preset}`", error(results, count=False)]
            row += [str(len(results)), over_test(results), cost(results)]
            for network in ("SEGNO", "SEGNN", "EGNN"):
                row.append(published_cell(papers[network, system, horizon]))
            rows.append(row)
    columns = [
        "test MSE",
        "ours",
        "seeds",
        "over the test systems",
        "cost of a seed",
        "SEGNO (5 runs)",
        "SEGNN",
        "EGNN",
    ]
    return {"title": "Further ahead, and under gravity", "columns": columns, "rows": rows}


def draw_ahead() -> None:
    """Test error against the horizon, charged on the left and gravity on the right."""
    figure, both = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained", sharey=True)
    papers = published_ahead()
    for axes, system in zip(both, SYSTEMS, strict=True):
        draw_system(axes, system, papers)
    both[0].set_ylabel("test MSE")
    both[0].set_title("five charged particles", fontsize=10)
    both[1].set_title("five bodies under gravity", fontsize=10)
    figure.legend(*both[0].get_legend_handles_labels(), loc="outside right center", frameon=False, fontsize=8)
    figure.savefig(HERE / "nbody_ahead.png", dpi=150)


def draw_system(axes: Axes, system: str, papers: Mapping[tuple[str, str, int], Published]) -> None:
    """One line a network. Bars: standard errors over the test systems for ours, standard deviations over runs else."""
    for number, network in enumerate(reversed(AHEAD)):
        rows = [papers[network, system, horizon] for horizon in HORIZONS]
        bars = [row.stderr or 0.0 for row in rows]
        axes.errorbar(
            HORIZONS,
            [row.value for row in rows],
            bars,
            fmt="o--",
            markersize=3,
            linewidth=1,
            capsize=2,
            color=f"C{number}",
            label=network,
        )
    means = []
    bars = []
    for horizon in HORIZONS:
        _, results = ours_ahead(system, horizon)
        means.append(mean(result["value"] for result in results))
        bars.append(mean(result["stderr_test"] for result in results))
    axes.errorbar(
        HORIZONS,
        means,
        bars,
        fmt="o-",
        capsize=2,
        color="black",
        label="ours: a plain network\nof 26 k parameters,\naveraged over poses",
    )
    axes.set(yscale="log", xlabel="steps ahead")
    axes.set_xticks(HORIZONS, [f"{horizon:,}" for horizon in HORIZONS])


# ---------------------------------------------------------------- BREC


def brec() -> dict:
    """Pairs told apart by category; of each row the largest run, with controls if there is one."""
    rows = []
    for base, base_label in BREC_BASES.items():
        for method, label in BREC_METHODS.items():
            results = read(f"brec/{base}-{method}/*.json")
            if not results:
                continue
            best = max(results, key=lambda result: (result["pairs"], has_controls(result)))
            row = [f"{base_label}, {label}"]
            for kind in KINDS:
                found = best["by_kind"].get(kind)
                row.append("" if found is None else str(found["different"]))
            total = f"{best['value']:.0f} of {best['pairs']}"
            controls = "none run"
            if has_controls(best):
                controls = f"{best['isomorphic called different'] * best['pairs']:.0f}"
            rows.append([*row, total, controls, cost([best])])
    columns = ["base, p", *KINDS.values(), "all", "isomorphic called different", "cost"]
    return {"title": "Pairs told apart", "columns": columns, "rows": rows}


def has_controls(result: dict) -> bool:
    """Whether graphs were compared with relabellings of themselves too."""
    return bool(result["config"]["controls"])


# ---------------------------------------------------------------- EXP-classify


def classifiers() -> dict:
    """Test accuracies by number of samples, of our recipe for a CPU; a row for each seed."""
    rows = []
    for name, label in CLASSIFIERS.items():
        for result in read(f"exp-classify/mlp-ps-noise-no-walks/{name}steps3000-seed*.json"):
            row = [f"{label}, seed {result['seed']}"]
            by_samples = {score["samples"]: score for score in result["by_samples"]}
            for samples in SAMPLES:
                cell = ""
                if samples in by_samples:
                    cell = f"{by_samples[samples]['value']:.3f} +- {by_samples[samples]['stderr_test']:.3f}"
                row.append(cell)
            rows.append([*row, f"{result['best_valid']:.3f}", cost([result])])
    columns = ["p"]
    for samples in SAMPLES:
        columns.append(f"k = {samples}")
    return {"title": "Test accuracy on EXP", "columns": [*columns, "best validation loss", "cost"], "rows": rows}


# ---------------------------------------------------------------- files


def summary(folder: str, tables: list[dict]) -> dict:
    """Tables, and which results they are of."""
    commits = sorted({result["commit"] for result in read(f"{folder}/**/*.json")})
    source = f"from `results/{folder}`, of commit {', '.join(commit[:7] for commit in commits)}"
    return {"source": source, "tables": tables}


def summaries() -> dict[str, dict]:
    """What the files hold, by the name of an experiment."""
    return {
        "nbody": summary("nbody", [bases(), shortened(), ahead()]),
        "brec": summary("brec", [brec()]),
        "exp_classify": summary("exp-classify/mlp-ps-noise-no-walks", [classifiers()]),
    }


def main() -> None:
    for name, content in summaries().items():
        file = RESULTS / "benchmarks" / f"{name}.json"
        file.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    draw_ahead()


if __name__ == "__main__":
    main()
