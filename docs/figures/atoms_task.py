"""Draw atoms_task.png and write results/benchmarks/atoms_task.json from results/atoms.

python docs/figures/atoms_task.py, with ase, tblite and the data in $PROBSYM_DATA, or it makes them.

`python benchmarks/fill.py` puts the tables of that file into docs/atoms.md.
"""

import json
from math import sqrt
from pathlib import Path
from statistics import mean, stdev

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from probsym_experiments.atoms.analysis import flown
from probsym_experiments.atoms.config import Config
from probsym_experiments.atoms.data import load
from probsym_experiments.atoms.dynamics import labelled
from probsym_experiments.atoms.systems import ready
from probsym_experiments.cli import data_folder

HERE = Path(__file__).parent
RESULTS = HERE.parents[1] / "results"
METHODS = {
    "none": "as it is",
    "augmented": "augmented: trained on turned frames",
    "ga": "uniform poses (haar)",
    "wf": "weighted frames",
    "fa": "frames of equal weight",
    "recursive": "learned p, plain net (recursive)",
    "ps": "learned p, equivariant net",
    "canonical": "one learned pose",
}
SHORT = {
    "none": "as it is",
    "ga": "haar",
    "wf": "weighted\nframes",
    "fa": "frames",
    "ps": "learned",
    "canonical": "one pose",
}
SYSTEMS = {"ethanol": "Ethanol, GFN2-xTB", "cu8": "Eight copper atoms, EMT", "malonaldehyde": "Malonaldehyde, GFN2-xTB"}
AUDITS = {"atoms_none": "as it is", "atoms_ga": "uniform poses, 24 octahedral ones, frozen"}
FRAMES = 1_000  # to train on, in the tables
STEPS = 600


def read(method: str) -> list[dict]:
    """All results of a method, whatever the system, the frames and the seed."""
    return [json.loads(path.read_text()) for path in sorted((RESULTS / "atoms" / f"points-{method}").glob("*.json"))]


def of(method: str, system: str, frames: int = FRAMES) -> list[dict]:
    """Those of a system, trained on so many frames for as many steps as the presets; one a seed."""
    found = []
    for result in read(method):
        config = result["config"]
        if config["system"] == system and config["train_size"] == frames and config["steps"] == STEPS:
            found.append(result)
    return found


def cell(values: list[float], digits: int) -> str:
    """The mean, and its standard error over seeds where there are several."""
    text = f"{mean(values):.{digits}f}"
    if len(values) > 1:
        text += f" ± {stdev(values) / sqrt(len(values)):.{digits}f}"
    return text


def errors(system: str) -> dict:
    """Errors on test frames as they lie and in random poses, at the temperature of the training and at 600 K."""
    rows = []
    for method, label in METHODS.items():
        results = of(method, system)
        if not results:
            continue
        row = [label, str(len(results)), "/".join(sorted({str(result["samples"]) for result in results}))]
        for situation in ("original", "turned", "hot turned"):
            row.append(cell([result["errors"][situation]["force_mae"] for result in results], 0))
        row.append(cell([result["errors"]["turned"]["force_rmse"] for result in results], 0))
        for situation in ("original", "turned"):
            row.append(cell([result["errors"][situation]["energy_mae"] for result in results], 1))
        rows.append(row)
    columns = [
        "p", "seeds", "poses", "forces as the data lie", "forces turned", "turned, 600 K", "turned, RMSE",
        "energy as the data lie", "energy turned",
    ]  # fmt: skip
    return {"title": SYSTEMS[system], "columns": columns, "rows": rows}


def behaviour(system: str) -> dict:
    """How far from equivariant, whether dynamics jump, and what a training step costs."""
    rows = []
    for method, label in METHODS.items():
        results = of(method, system)
        if not results:
            continue
        row = [label, str(len(results))]
        row.append(cell([result["equivariance_by_samples"][-1]["error"] for result in results], 2))
        row.append(cell([result["equivariance_by_samples"][-1]["energy_error"] for result in results], 3))
        for start, number in (("generic", "off"), ("symmetric", "off"), ("symmetric", "step_worst")):
            row.append(f"{mean(result['flights'][start][number] for result in results):.2g}")
        row.append(cell([result["step_seconds"]["ratio"] for result in results], 1))
        rows.append(row)
    flights = control(system)
    row = ["the labels themselves", "", "", ""]
    for start, number in (("generic", "off"), ("symmetric", "off"), ("symmetric", "step_worst")):
        row.append(f"{flights[start][number]:.2g}")
    rows.append([*row, ""])
    columns = [
        "p", "seeds", "violation of forces", "violation of energy", "NVE 300 K", "NVE from rest", "largest step",
        "training step",
    ]  # fmt: skip
    return {"title": SYSTEMS[system], "columns": columns, "rows": rows}


def audits() -> dict:
    """What `probsym audit` says of the network as it is and of its average over frozen poses, both of seed 1."""
    rows = []
    for name, label in AUDITS.items():
        report = json.loads((RESULTS / "benchmarks" / f"audit_{name}.json").read_text())
        by_row = {}
        for outcome in report["structures"][0]["outcomes"]:
            by_row[outcome["row"], outcome["quantity"]] = outcome
        row = [label]
        for of_row in ("rotation", "reflection"):
            for quantity, unit in (("energy", "meV/atom"), ("forces", "meV/Å")):
                row.append(f"{by_row[of_row, quantity]['rms']:.3g} {unit}")
        row += [by_row["permutation", "energy"]["verdict"], by_row["curl of F", "forces"]["verdict"]]
        rows.append(row)
    columns = [
        "p", "rotation, energy", "rotation, forces", "reflection, energy", "reflection, forces", "permutation",
        "curl of forces",
    ]  # fmt: skip
    return {"title": "Audit", "columns": columns, "rows": rows}


def control(system: str) -> dict:
    """The same dynamics with the calculator that made the labels; makes the data if they are not there."""
    config = Config(system=system)
    data = load(config.frames(), data_folder(), config.used())
    return flown(labelled(ready(system)), data, config)


def draw() -> None:
    """Left: force errors of ethanol by pose. Right: against the number of frames to train on."""
    figure, (bars, curves) = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained", width_ratios=(3, 2))
    shown = [method for method in METHODS if of(method, "ethanol")]
    for number, (situation, label) in enumerate(
        {"original": "as the data lie", "turned": "turned", "hot turned": "turned, 600 K"}.items()
    ):
        heights = []
        spreads = []
        for method in shown:
            values = [result["errors"][situation]["force_mae"] for result in of(method, "ethanol")]
            heights.append(mean(values))
            spreads.append(0.0)
            if len(values) > 1:
                spreads[-1] = stdev(values) / sqrt(len(values))
        places = [place + 0.27 * (number - 1) for place in range(len(shown))]
        bars.bar(places, heights, 0.25, yerr=spreads, capsize=2, label=label, color=("0.7", "C0", "C3")[number])
    bars.set_xticks(range(len(shown)), [SHORT.get(method, method) for method in shown], fontsize=8)
    bars.set_ylabel("force MAE, meV/Å")
    bars.set_title("ethanol, 1,000 frames at 300 K", fontsize=9)
    bars.legend(frameon=False, fontsize=8)
    by_frames(curves)
    figure.savefig(HERE / "atoms_task.png", dpi=150)


def by_frames(axes: Axes) -> None:
    """Force errors of turned frames of ethanol by the number of frames, after a short and a long training."""
    for number, method in enumerate(("none", "augmented", "ga", "recursive")):
        for steps, line in ((STEPS, "o--"), (5 * STEPS, "s-")):
            values: dict[int, list[float]] = {}
            for result in read(method):
                if result["config"]["system"] == "ethanol" and result["config"]["steps"] == steps:
                    values.setdefault(result["config"]["train_size"], []).append(result["value"])
            sizes = sorted(values)
            means = [mean(values[size]) for size in sizes]
            if len(sizes) > 1:
                label = f"{SHORT.get(method, method)}, {steps:,} steps"
                axes.plot(sizes, means, line, color=f"C{number}", label=label, markersize=4)
    axes.set(xscale="log", yscale="log", xlabel="frames to train on", ylabel="force MAE of turned frames, meV/Å")
    if axes.lines:
        axes.legend(frameon=False, fontsize=7, loc="center", bbox_to_anchor=(0.5, 0.56))


def main() -> None:
    tables = []
    for system in ("ethanol", "cu8"):
        tables += [errors(system), behaviour(system)]
    tables.append(audits())
    commits = sorted({result["commit"] for method in METHODS for result in read(method)})
    words = f"from `results/atoms`, of commit {', '.join(commit[:7] for commit in commits)}"
    summary = {"source": words, "tables": tables}
    (RESULTS / "benchmarks" / "atoms_task.json").write_text(json.dumps(summary, indent=1, ensure_ascii=False) + "\n")
    draw()


if __name__ == "__main__":
    main()
