"""Draw atoms_task.png and write results/benchmarks/atoms_task.json from results/atoms.

python docs/figures/atoms_task.py, with ase, tblite and the data in $PROBSYM_DATA, or it makes them.

`python benchmarks/fill.py` puts the tables of that file into docs/atoms.md.
"""

import json
from math import nan, sqrt
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
SYSTEMS = {
    "ethanol": "Ethanol, GFN2-xTB",
    "malonaldehyde": "Malonaldehyde, GFN2-xTB",
    "paracetamol": "Paracetamol, GFN2-xTB",
    "molecules": "The three molecules together, GFN2-xTB",
    "cu8": "Eight copper atoms, EMT",
}
AUDITS = {"atoms_none": "as it is", "atoms_ga": "uniform poses, 24 octahedral ones, frozen"}
FRAMES = 1_000  # to train on, in the tables
STEPS = 600
STEPS_TOGETHER = 1_800  # of three molecules: as many for each
LONG = 3_000  # of the learning curve
SIZES = (100, 300, 1_000, 2_000)  # frames to train on, there
MOLECULES = ("ethanol", "malonaldehyde", "paracetamol")


def read(method: str) -> list[dict]:
    """All results of a method, whatever the system, the frames and the seed."""
    return [json.loads(path.read_text()) for path in sorted((RESULTS / "atoms" / f"points-{method}").glob("*.json"))]


def of(method: str, system: str, frames: int = FRAMES, steps: int | None = None, base: str = "points") -> list[dict]:
    """Those of a system, trained on so many frames for so many steps; one a seed.

    Args:
        steps: None for as many as in the tables.
    """
    if steps is None:
        steps = STEPS
        if system == "molecules":
            steps = STEPS_TOGETHER
    wanted = {"system": system, "train_size": frames, "steps": steps, "base": base}
    found = []
    for result in read(method):
        if all(result["config"][name] == value for name, value in wanted.items()):
            found.append(result)
    return found


def cell(values: list[float], digits: int) -> str:
    """The mean, and its standard error over seeds where there are several."""
    text = f"{mean(values):.{digits}f}"
    if len(values) > 1:
        text += f" ± {spread(values):.{digits}f}"
    return text


def force_error(results: list[dict], situation: str = "turned") -> str:
    """Mean absolute error of the forces; empty where there are no results."""
    if not results:
        return ""
    return cell([result["errors"][situation]["force_mae"] for result in results], 0)


def overview() -> dict:
    """Force errors in random poses: a column for each system, and one for the other base, if there are results."""
    columns = ["p"]
    rows = [["as it is, as the data lie"]]
    for label in METHODS.values():
        rows.append([label])
    for title, system, base in (
        ("ethanol", "ethanol", "points"),
        ("malonaldehyde", "malonaldehyde", "points"),
        ("paracetamol", "paracetamol", "points"),
        ("all three together", "molecules", "points"),
        ("ethanol, transformer", "ethanol", "transformer"),
        ("eight copper atoms", "cu8", "points"),
    ):
        cells = [force_error(of("none", system, base=base), "original")]
        for method in METHODS:
            cells.append(force_error(of(method, system, base=base)))
        if any(cells):
            columns.append(title)
            for row, text in zip(rows, cells, strict=True):
                row.append(text)
    return {"title": "Forces in random poses", "columns": columns, "rows": rows}


def together() -> dict:
    """Errors of each molecule after a training on all three."""
    rows = []
    for method, label in METHODS.items():
        results = of(method, "molecules")
        if not results:
            continue
        row = [label, str(len(results))]
        for name, digits in (("force_mae", 0), ("energy_mae", 1)):
            for molecule in MOLECULES:
                found = [result["errors_by_molecule"][molecule]["turned"][name] for result in results]
                row.append(cell(found, digits))
        row.append(cell([result["step_seconds"]["ratio"] for result in results], 1))
        rows.append(row)
    columns = ["p", "seeds"]
    for quantity in ("forces", "energy"):
        for molecule in MOLECULES:
            columns.append(f"{quantity}, {molecule}")
    return {"title": SYSTEMS["molecules"], "columns": [*columns, "training step"], "rows": rows}


def by_frames() -> dict:
    """Force errors of ethanol in random poses by the number of frames, after a long training."""
    rows = []
    for method, label in METHODS.items():
        row = [label]
        for frames in SIZES:
            row.append(force_error(of(method, "ethanol", frames, LONG)))
        if any(row[1:]):
            rows.append(row)
    columns = ["p"]
    for frames in SIZES:
        columns.append(f"{frames:,} frames")
    return {"title": f"Ethanol, {LONG:,} steps", "columns": columns, "rows": rows}


def errors(system: str, base: str = "points") -> dict:
    """Errors on test frames as they lie and in random poses, at the temperature of the training and at 600 K."""
    rows = []
    for method, label in METHODS.items():
        results = of(method, system, base=base)
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
    title = SYSTEMS[system]
    if base != "points":
        title += f", {base}"
    return {"title": title, "columns": columns, "rows": rows}


def behaviour(system: str) -> dict:
    """How far from equivariant, whether dynamics jump, and what a training step costs."""
    rows = []
    for method, label in METHODS.items():
        results = of(method, system)
        if not results:
            continue
        row = [label, str(len(results))]
        row.append(cell([result["equivariance_by_samples"][-1]["error"] for result in results], 1))
        row.append(cell([result["equivariance_by_samples"][-1]["energy_error"] for result in results], 2))
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
    """Left: force errors of each molecule by method. Right: against the number of frames to train on."""
    figure, (bars, curves) = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained", width_ratios=(3, 2))
    draw_molecules(bars)
    draw_curves(curves)
    figure.savefig(HERE / "atoms_task.png", dpi=150)


def draw_molecules(axes: Axes) -> None:
    """Bars of molecules side by side; those of the network as it is also as the data lie."""
    kinds = [("none", "original", "as it is, as\nthe data lie")]
    for method in METHODS:
        kinds.append((method, "turned", SHORT.get(method, method)))
    for number, molecule in enumerate(MOLECULES):
        places = []
        heights = []
        spreads = []
        for place, (method, situation, _) in enumerate(kinds):
            values = [result["errors"][situation]["force_mae"] for result in of(method, molecule)]
            if values:
                places.append(place + 0.27 * (number - 1))
                heights.append(mean(values))
                spreads.append(spread(values))
        axes.bar(places, heights, 0.25, yerr=spreads, capsize=2, label=molecule, color=("C0", "C2", "C3")[number])
    axes.set_yscale("log")
    axes.set_yticks([50, 100, 200, 500, 1000], ["50", "100", "200", "500", "1,000"])
    axes.minorticks_off()
    axes.set_xticks(range(len(kinds)), [label for _, _, label in kinds], fontsize=7)
    axes.set_ylabel("force MAE, meV/Å")
    axes.set_title("1,000 frames at 300 K, 600 steps, tested in random poses", fontsize=9)
    axes.legend(frameon=False, fontsize=8)


def draw_curves(axes: Axes) -> None:
    """Force errors of ethanol in random poses by the number of frames; of the network as it is also as the data lie."""
    curves = [("none", "original")]
    for method in ("none", "augmented", "ga", "wf", "ps", "canonical"):
        curves.append((method, "turned"))
    for number, (method, situation) in enumerate(curves):
        sizes = []
        means = []
        spreads = []
        for frames in SIZES:
            values = [result["errors"][situation]["force_mae"] for result in of(method, "ethanol", frames, LONG)]
            if values:
                sizes.append(frames)
                means.append(mean(values))
                spreads.append(spread(values))
        label = SHORT.get(method, method).replace("\n", " ")
        if situation == "original":
            label += ", as the data lie"
        if not sizes:
            continue
        axes.errorbar(sizes, means, spreads, fmt="o-", capsize=2, markersize=4, label=label, color=f"C{number}")
    axes.set(xscale="log", yscale="log", xlabel="frames to train on", ylabel="force MAE, meV/Å")
    axes.set_xticks(SIZES, [f"{size:,}" for size in SIZES])
    axes.set_yticks([50, 100, 200, 500], ["50", "100", "200", "500"])
    axes.minorticks_off()
    axes.set_title("ethanol, 3,000 steps", fontsize=9)
    axes.legend(frameon=False, fontsize=7)


def spread(values: list[float]) -> float:
    """Standard error over seeds; not a number, which is not drawn, of a single one."""
    if len(values) < 2:
        return nan
    return stdev(values) / sqrt(len(values))


def main() -> None:
    # 1. What the page shows, in this order; then the rest.
    tables = [overview(), errors("ethanol"), behaviour("ethanol"), audits(), together()]
    tables += [errors("cu8"), behaviour("cu8"), by_frames()]
    for system in ("malonaldehyde", "paracetamol"):
        tables += [errors(system), behaviour(system)]
    tables.append(errors("molecules"))
    tables.append(errors("ethanol", base="transformer"))

    # 2. Where they come from.
    commits = sorted({result["commit"] for method in METHODS for result in read(method)})
    words = f"from `results/atoms`, of commit {', '.join(commit[:7] for commit in commits)}"
    summary = {"source": words, "tables": tables}
    (RESULTS / "benchmarks" / "atoms_task.json").write_text(json.dumps(summary, indent=1, ensure_ascii=False) + "\n")
    draw()


if __name__ == "__main__":
    main()
