"""`probsym figures`: what it draws, and that the CSV beside each figure holds the numbers of the results."""

from __future__ import annotations

import csv
import json
import math
import shutil
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from probsym_experiments.cli import main
from probsym_experiments.comparisons import PLOTS, Curve
from probsym_experiments.evaluation import Score, trained
from probsym_experiments.figures import legend_below, spaced
from probsym_experiments.recipe import Recipe
from probsym_experiments.registry import EXPERIMENTS
from probsym_experiments.report import curve_of, looks
from probsym_experiments.tables import Row
from probsym_experiments.training import Progress

RESULTS = Path(__file__).parents[2] / "results"
DRAW = {plot.name: plot for plot in PLOTS}
BASE = {
    "experiment": "nbody", "preset": "gnn-ps", "value": 0.005, "stderr": 1e-5, "samples": 20, "steps": 10,
    "wall_s": 600.0, "params": 100, "overrides": {}, "config": {"symmetrizer": "ps", "eval_samples": [1, 20]},
    "by_samples": [{"samples": k, "value": v, "stderr": 0.0, "stderr_test": 0.0004, "draws": 2}
                   for k, v in ((1, 0.006), (20, 0.005))],
}  # fmt: skip
EXACT = {
    "preset": "gnn-fa", "samples": 8, "config": {"symmetrizer": "fa", "eval_samples": [1, 20]},
    "by_samples": [BASE["by_samples"][0] | {"samples": 8}],  # type: ignore[index]
    "equivariance_by_samples": [{"samples": 1, "error": 1e-6}],
}  # fmt: skip


def needed(tolerance: float, histogram: list[int], **more: float) -> dict[str, Any]:
    return {"tolerance": tolerance, "median": 4.0, "histogram": histogram, **more}


ANALYSED = {
    "equivariance_by_samples": [{"samples": 1, "error": 0.02}, {"samples": 20, "error": 0.005, "stderr_test": 0.001}],
    "samples_for_tolerance": [needed(0.01, [0, 1, 3], pool=256)],
}


def result(folder: Path, seed: int, **fields: Any) -> None:
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps(BASE | {"seed": seed} | fields))


def table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.open()))


def shown(name: str, *results: dict[str, Any]) -> list[Curve]:
    """Curves of a plot, a row a result."""
    rows = [Row(str(i), [BASE | {"seed": 1} | fields]) for i, fields in enumerate(results)]
    found = [curve_of(DRAW[name], row, look) for row, look in zip(rows, looks(rows), strict=True)]
    return [c for c in found if c is not None]


def drawn_by(name: str, *results: dict[str, Any]) -> Figure:
    figure = DRAW[name].draw(EXPERIMENTS["nbody"], shown(name, *results))
    assert figure is not None
    return figure


def words(figure: Figure) -> list[str]:
    (legend,) = figure.legends
    return [text.get_text() for text in (legend.get_title(), *legend.get_texts())]


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results").mkdir()  # not those of the checkout
    return tmp_path


@pytest.fixture
def drawn(empty: Path) -> Path:
    result(empty / "runs/a", 1)
    result(empty / "runs/b", 2, value=0.007, train_flops=2 * 10**13, **ANALYSED)
    result(empty / "runs/c", 1, **EXACT)
    assert main(["figures", "--out", str(empty / "drawn")]) == 0
    return empty / "drawn" / "nbody"


def test_every_figure_has_its_numbers_beside_it(drawn: Path) -> None:
    names = {"error_by_samples", "equivariance_by_samples", "samples_for_tolerance", "error_by_cost"}
    assert {path.name for path in drawn.iterdir()} == {n + e for n in names for e in (".png", ".csv")}
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in drawn.glob("*.png"))


def test_numbers_are_those_of_the_results(drawn: Path) -> None:
    errors = table(drawn / "error_by_samples.csv")
    assert {(r["row"], r["seed"], r["samples"], r["value"], r["stderr_test"]) for r in errors} == {
        ("gnn-ps", "1", "1", "0.006", "0.0004"), ("gnn-ps", "1", "20", "0.005", "0.0004"),
        ("gnn-ps", "2", "1", "0.006", "0.0004"), ("gnn-ps", "2", "20", "0.005", "0.0004"),
        ("gnn-fa", "1", "8", "0.006", "0.0004"),
    }  # fmt: skip
    moved = [r for r in table(drawn / "equivariance_by_samples.csv") if r["row"] == "gnn-ps"]
    assert [(r["error"], r["stderr_test"]) for r in moved] == [("0.02", ""), ("0.005", "0.001")]
    bins = table(drawn / "samples_for_tolerance.csv")
    assert [(r["above"], r["samples"], r["inputs"], r["share"]) for r in bins] == [
        ("0", "1", "0", "0.0"), ("1", "2", "1", "0.25"), ("2", "4", "3", "1.0"),
    ]  # fmt: skip
    cost = table(drawn / "error_by_cost.csv")
    assert [(r["row"], r["seed"], r["train_flops"], r["wall_s"], r["value"]) for r in cost] == [
        ("gnn-fa", "1", "", "600.0", "0.005"), ("gnn-ps", "1", "", "600.0", "0.005"),
        ("gnn-ps", "2", str(2 * 10**13), "600.0", "0.007"),
    ]  # fmt: skip
    assert {(r["row"], r["stderr_seeds"] and round(float(r["stderr_seeds"]), 9)) for r in cost} == {
        ("gnn-ps", 0.001), ("gnn-fa", ""),
    }  # fmt: skip


def test_results_of_the_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of their scores is in a CSV file; what is called by_samples but is no score is left alone."""
    shutil.copytree(RESULTS, tmp_path / "results")
    monkeypatch.chdir(tmp_path)
    assert main(["figures"]) == 0
    scores: dict[str, int] = {}
    for path in RESULTS.glob("*/*/*.json"):
        entries = json.loads(path.read_text()).get("by_samples", [])
        scores[path.parts[-3]] = scores.get(path.parts[-3], 0) + sum("value" in entry for entry in entries)
    found = {path.parent.name: len(table(path)) for path in Path("figures").glob("*/error_by_samples.csv")}
    assert found == {name: count for name, count in scores.items() if count}
    assert {"nbody", "exp-classify"} <= found.keys()
    assert {"automorphism", "sample-size"} <= scores.keys() - found.keys()


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_whatever_reports_a_training_is_drawn(name: str, empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under the name and with the fields of every experiment."""
    course = [{"step": step, "lr": 1e-3, "train_loss": 1.0, "valid": 1 / step} for step in (1, 2)]
    scores = [Score(k, 0.5 + k, 0.1, 0.2, 3) for k in (1, 2)]
    outcome = trained(scores, 2, Recipe(steps=2), Progress(best=0.5, history=course), 10**12, {"base": 7}, {})
    monkeypatch.setattr(import_module(EXPERIMENTS[name].module), "run", lambda config, place: outcome)
    assert main(["run", name, "--preset", next(iter(EXPERIMENTS[name].presets))]) == 0
    assert main(["figures"]) == 0
    drawn = empty / "figures" / name
    assert {path.stem for path in drawn.glob("*.png")} == {"error_by_samples", "error_by_cost", "learning_curve"}
    assert [(r["samples"], r["value"]) for r in table(drawn / "error_by_samples.csv")] == [("1", "1.5"), ("2", "2.5")]
    assert [(r["step"], r["valid"]) for r in table(drawn / "learning_curve.csv")] == [("1", "1.0"), ("2", "0.5")]


def test_tolerances_are_told_by_value() -> None:
    """Rows with other lists of them, of other lengths: each number is in the panel of its tolerance."""
    one = {"samples_for_tolerance": [needed(0.01, [1, 3], pool=256)]}
    two = {"samples_for_tolerance": [needed(0.02, [2, 2]), needed(0.01, [0, 1, 2, 1], above=0.25)]}
    figure = drawn_by("samples_for_tolerance", one, two)
    panels = {axes.get_title(): [list(c.lines[0].get_ydata()) for c in axes.containers] for axes in figure.axes}
    assert [title.split("below ")[1].split()[0] for title in panels] == ["0.02", "0.01"]
    assert list(panels.values()) == [[[], [0.5, 1.0]], [[0.25, 1.0], [0.0, 0.25, 0.75, 0.75]]]
    assert words(figure)[1:] == ["0", "1 (older: multiples of 16)"]


def test_bars_are_the_larger_error() -> None:
    """Over test inputs with one seed; over seeds where those differ more."""
    alone = Row("a", [BASE | {"seed": 1}])
    far = [BASE | {"seed": i, "by_samples": [BASE["by_samples"][0] | {"value": v}]} for i, v in enumerate((1.0, 3.0))]  # type: ignore[index]
    rows = [alone, Row("b", far)]
    one, two = (curve_of(DRAW["error_by_samples"], row, look) for row, look in zip(rows, looks(rows), strict=True))
    assert one is not None
    assert two is not None
    assert [(p.stderr_seeds, p.bar) for p in one.points] == [(None, 0.0004)] * 2
    assert [(p.value, p.bar) for p in two.points] == [(2.0, pytest.approx(1.0))]
    unknown = shown("equivariance_by_samples", {"equivariance_by_samples": [{"samples": 1, "error": 0.1}]})
    assert math.isnan(unknown[0].points[0].bar)


def test_rows_are_told_apart_by_look_and_name() -> None:
    """Names tell the overrides that differ, but no size of a test set."""
    changed = [{"steps": 5, "lr": 1, "test_size": 3}, {"steps": 5, "lr": 2}, *[{"steps": 5, "lr": 1}] * 40]
    found = looks([Row("gnn-ps", [BASE | {"overrides": overrides}]) for overrides in changed])
    assert [look.label for look in found[:3]] == ["gnn-ps lr=1", "gnn-ps lr=2", "gnn-ps lr=1"]
    assert len({(look.colour, look.marker) for look in found}) == len(found)
    assert looks([Row("gnn-ps", [BASE | {"overrides": {"steps": 5}}])])[0].label == "gnn-ps"


def test_exact_averages_are_lines_without_markers() -> None:
    figure = drawn_by("error_by_samples", {}, EXACT)
    assert words(figure)[1:3] == ["0", "1, exact (8 frames)"]
    ours = [line for line in figure.axes[0].lines if len(line.get_xdata()) == 2 and line.get_label() == "_nolegend_"]
    assert [line.get_marker() for line in ours if line.get_linestyle() == "--"] == [""]
    single = drawn_by("error_by_samples", {"config": {"eval_samples": [8]}, "by_samples": EXACT["by_samples"]})
    assert words(single)[1] == "0"  # one chosen k is no exact average


def test_cost_is_drawn_where_it_is_known() -> None:
    """In PFLOP, published results as points too; what lacks it is named."""
    figure = drawn_by("error_by_cost", {"train_flops": 3 * 10**13}, {"train_flops": None}, {})
    (axes,) = figure.axes
    assert 0.03 in [float(x) for line in axes.lines for x in line.get_xdata()]
    title, *labels = words(figure)
    assert "not drawn: 1, 2, GNN frame averaging" in title
    assert labels[0] == "0"
    assert any("published: GNN PS" in label for label in labels)
    assert not any(line.get_xdata()[0] == 0 for line in axes.lines)
    assert DRAW["error_by_cost"].draw(EXPERIMENTS["nbody"], shown("error_by_cost", {})) is None


@pytest.mark.parametrize(
    ("values", "scale", "plain"),
    [([2.0, 8.0], "linear", True), ([1.0, 6.0], "log", True), ([1.0, 30.0], "log", True), ([1.0, 300.0], "log", False)],
)
def test_ticks_are_plain_below_two_decades(values: list[float], scale: str, plain: bool) -> None:
    axes = Figure().subplots()
    axes.plot(values, values)
    spaced(axes.set_yscale, axes.yaxis, values)
    ticks = [text.get_text() for text in axes.get_yticklabels()]
    assert (axes.get_yscale(), all("mathdefault" not in text for text in ticks)) == (scale, plain)


def test_a_long_legend_is_whole_and_leaves_the_axes_their_size() -> None:
    heights = []
    for count in (1, 30):
        figure = Figure(figsize=(9, 5), layout="constrained")
        axes = figure.subplots()
        for i in range(count):
            axes.plot([0, 1], label=f"row {i} " + 12 * "field=value ")
        legend_below(axes, 30 * "title ")
        figure.draw_without_rendering()
        heights.append(axes.get_window_extent().height)
        box = figure.legends[0].get_window_extent()
        assert min(box.x0, box.y0, figure.bbox.x1 - box.x1, axes.get_window_extent().y0 - box.y1) >= 0
    assert heights[1] == pytest.approx(heights[0], rel=0.02)


def test_nothing_to_draw_is_an_error(empty: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["figures"]) == 2
    assert "--runs runs: expected results" in capsys.readouterr().err
    assert not (empty / "figures").exists()
