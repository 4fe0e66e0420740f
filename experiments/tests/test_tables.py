"""Rows of `probsym table`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from probsym_experiments.cli import main
from probsym_experiments.config import load_config
from probsym_experiments.published import published
from probsym_experiments.registry import EXPERIMENTS
from probsym_experiments.tables import collect


@pytest.fixture(autouse=True)
def _plain_output(monkeypatch: pytest.MonkeyPatch) -> None:
    """As wide as a file or a pipe allows, unless a test says otherwise."""
    monkeypatch.delenv("COLUMNS", raising=False)


def result(folder: Path, seed: int, value: float, **fields: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    base = {
        "experiment": "nbody", "preset": "gnn-ps", "value": value, "stderr": 1e-5, "seed": seed, "samples": 20,
        "steps": 20_000, "wall_s": 600.0, "params": 100_000, "overrides": {},
    }  # fmt: skip
    (folder / f"{seed}.json").write_text(json.dumps(base | fields))


def test_seeds_become_one_row(tmp_path: Path) -> None:
    for seed, value in enumerate((0.0050, 0.0054, 0.0058)):
        result(tmp_path / "results/nbody/gnn-ps", seed, value)
    result(tmp_path / "results/nbody/gnn-ps", 9, 0.02, overrides={"steps": 5}, steps=5)
    rows = {row.name: row for row in collect(tmp_path / "results", tmp_path / "runs")["nbody"]}
    assert rows["gnn-ps"].mean("value") == pytest.approx(0.0054)
    assert rows["gnn-ps"].stderr() == pytest.approx(0.0004 / 3**0.5)
    assert rows["gnn-ps steps=5"].stderr() is None


def test_table_shows_ours_beside_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    result(tmp_path / "results/nbody/gnn-ps", 1, 0.0056, train_flops=12_000_000_000_000, cpu_s=300.0)
    run = tmp_path / "runs/nbody/gnn-ps/seed2"
    result(run, 2, 0.0054)
    (run / "2.json").rename(run / "result.json")
    assert main(["table"]) == 0
    lines = capsys.readouterr().out.splitlines()
    place = next(i for i, line in enumerate(lines) if "GNN PS" in line)
    assert "unverified" in lines[place]
    assert lines[place + 1].split()[:3] == ["gnn-ps-published", "not", "run:"]
    assert lines[place + 2].split()[0] == "gnn-ps"
    assert all(text in lines[place] for text in ("300,000", "2.7"))
    assert all(text in lines[place + 2] for text in ("0.0055", "0.0001", "2", "20,000", "0.012", "10.0 min", "5.0 min"))
    assert "unverified" not in next(line for line in lines if "EGNN" in line and "0.0071" in line)


WIDTHS = (80, 100, 130, 200)


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where table looks: three seeds of one preset, one of another with overrides and a GPU, one without a paper."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "results/nbody"
    for seed, value in enumerate((0.0050, 0.0054, 0.0058)):
        result(folder / "gnn-ps", seed, value, device="cpu", stderr_test=3e-4)
    long = {"steps": 5, "lr": 0.00125, "eval_samples": [1, 10, 100, 1000], "noise": "input", "validate_every": 5}
    result(folder / "gnn-fa", 7, 0.04567, preset="gnn-fa", overrides=long, device="NVIDIA H100 80GB HBM3")
    result(folder / "dynamics-ga", 1, 0.003112, preset="dynamics-ga")
    return tmp_path / "results"


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    assert main(["table", *arguments]) == 0
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("width", WIDTHS)
def test_every_name_and_value_is_whole(
    width: int, results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    lines = shown(capsys)
    names = [row.row for name in EXPERIMENTS for row in published(name)]
    names += [row.name for rows in collect(results, Path("runs")).values() for row in rows]
    stripped = [line.strip() for line in lines]
    for name in names:
        assert any(line == name or line.startswith(f"{name}  ") for line in stripped), name
    values = [str(row) for name in EXPERIMENTS for row in published(name)]
    values += [row.source for name in EXPERIMENTS for row in published(name)]
    values += ["0.0054", "0.0002", "0.0003", "0.04567", "0.003112", "NVIDIA H100 80GB HBM3", "20,000", "100,000"]
    text = "\n".join(lines)
    for value in values:
        assert value in text, value
    assert "…" not in text
    too_long = [line for line in lines if len(line) > width and line.strip() not in names]
    assert [line for line in too_long if str(results) not in line] == []


@pytest.mark.parametrize("width", WIDTHS)
def test_numbers_stand_under_their_row(
    width: int, results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In one line where there is room, else in those below the name."""
    monkeypatch.setenv("COLUMNS", str(width))
    lines = shown(capsys)
    start = next(i for i, line in enumerate(lines) if line.strip().split("  ")[0] == "gnn-ps")
    end = next(i for i in range(start + 1, len(lines)) if not lines[i].startswith(" " * 6))
    own = " ".join(lines[start:end])
    assert all(value in own for value in ("0.0054", "0.0002", "0.0003", "cpu", "20,000", "10.0 min"))
    assert (end == start + 1) == (width == 200)


def test_the_device_is_shown(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """That of all seeds; earlier versions did not write it."""
    result(results / "nbody/gnn-ps", 9, 0.0056, device="NVIDIA H200")
    lines = [line for line in shown(capsys) if line.startswith("  ")]
    assert "cpu / NVIDIA H200" in next(line for line in lines if line.startswith("  gnn-ps  "))
    assert "unknown" in next(line for line in lines if line.startswith("  dynamics-ga"))


def test_what_was_never_run_says_so(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(capsys)
    names = [line.strip().split("  ")[0] for line in lines]
    place = names.index("EGNN")
    exact, own = names.index("egnn-none-published"), names.index("egnn-none")
    assert place < exact < own < names.index("SEGNN")
    assert "not run: 150 GPU min" in " ".join(lines[exact:own])
    assert "not run" in " ".join(lines[own : names.index("SEGNN")])
    assert "not run" not in " ".join(lines[names.index("gnn-ps") : names.index("SEGNN (10,000 train)")])
    start = next(i for i, line in enumerate(lines) if line.startswith("never run: "))
    never = " ".join(lines[start : lines.index("", start)]).partition("dynamics-ga: ")[0]
    assert "dynamics-none" in never
    assert " dynamics-ga," not in never


def test_a_shortened_exact_recipe_is_not_the_exact_one(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The recipe to the letter still waits, above it."""
    result(results / "nbody/gnn-ps-published", 1, 0.0077, preset="gnn-ps-published", overrides={"steps": 3000})
    lines = shown(capsys)
    names = [line.strip().split("  ")[0] for line in lines]
    exact, shortened = names.index("gnn-ps-published"), names.index("gnn-ps-published steps=3000")
    assert exact < shortened < names.index("gnn-ps")
    assert "not run: 150 GPU min" in " ".join(lines[exact:shortened])
    assert "0.0077" in " ".join(lines[shortened : names.index("gnn-ps")])


def test_a_published_row_may_be_a_recipe_with_flags(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The number of samples is changed in the recipe to the letter: a run of it is exact there, and nowhere else."""
    of_two = {"experiment": "exp-classify", "preset": "mlp-ps-published", "overrides": {"train_samples": 2}}
    result(results / "exp-classify/mlp-ps-published", 1, 0.9912, **of_two, config={"published": True, "walks": 12})
    lines = shown(capsys)
    names = [line.strip().split("  ")[0] for line in lines]
    of_one = names.index("mlp-ps-published train_samples=1")
    assert names.index("MLP PS, trained with k = 1") < of_one < names.index("MLP PS, trained with k = 2")
    assert "not run: 8 GPU min" in " ".join(lines[of_one : of_one + 2])
    first = names.index("mlp-ps-published train_samples=2")
    assert names.index("MLP PS, trained with k = 2") < first < names.index("MLP PS, trained with k = 5")
    assert "0.9912" in " ".join(lines[first : first + 2])
    assert sum("0.9912" in line for line in lines) == 1


def test_an_error_that_is_not_known_is_not_shown(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One draw does not tell how far others lie."""
    result(results / "nbody/dynamics-canonical", 1, 0.00573, preset="dynamics-canonical", stderr=None)
    lines = shown(capsys)
    start = next(i for i, line in enumerate(lines) if line.strip().startswith("dynamics-canonical"))
    assert "0.00573" in " ".join(lines[start : start + 2])
    assert "nan" not in " ".join(lines)


def test_a_preset_of_which_another_reading_alone_was_run_says_so(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It has no line among the published rows, and so it stands among those that were never run."""
    folder = results / "exp-classify/mlp-ga-first-reading"
    result(folder, 1, 0.5, experiment="exp-classify", preset="mlp-ga-first-reading")
    text = " ".join(shown(capsys))
    table = text[text.index("exp-classify: ") :]
    never = table[table.index("never run: ") :].partition("mlp-ga-first-reading: ")[0]
    assert " mlp-ga," in never
    assert " mlp-fa," not in never


def test_our_own_bases_stand_apart(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(capsys)
    apart = lines.index("-- ours, with nothing published to compare")
    names = [line.strip().split("  ")[0] for line in lines]
    assert names.index("gnn-ps") < apart < names.index("dynamics-ga")
    assert apart > max(names.index(row.row) for row in published("nbody") if not row.setting)


def test_what_does_not_compare_stands_apart(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Another task is under a heading of its own, beside published rows of it; so is a net that is told the answer."""
    gravity = {"system": "gravity", "horizon": 1500}
    result(results / "nbody/far", 1, 0.0111, preset="dynamics-ga-gravity-1500", config=gravity)
    told = {"symmetrizer": "ps", "walks": 12}
    result(results / "exp-classify/mlp-ps", 1, 0.9961, experiment="exp-classify", preset="mlp-ps", config=told)
    lines = shown(capsys)
    names = [line.strip().split("  ")[0] for line in lines]

    heading = names.index("-- bodies under gravity, 1,500 steps ahead")
    end = names.index("-- bodies under gravity, 2,000 steps ahead")
    assert heading < names.index("SEGNO, gravity, 1,500 steps") < names.index("dynamics-ga-gravity-1500") < end
    assert names.index("dynamics-ga") < heading

    apart = next(i for i, line in enumerate(lines) if line.startswith("-- the net of p is told walk"))
    headline = next(i for i, line in enumerate(lines) if line.startswith("MLP PS, soft"))
    assert headline < apart
    assert "0.9961" in lines[apart + 1]
    # The published net of p has a field of that name, and does not read it.
    assert EXPERIMENTS["exp-classify"].setting(told | {"published": True}) == ""
    assert sum("0.9961" in line for line in lines) == 1


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_settings_of_published_rows_are_those_of_runs(name: str) -> None:
    """A published row with a setting that no preset has would stand alone for ever."""
    found = EXPERIMENTS[name]
    of_presets = {found.setting(asdict(load_config(found, preset))) for preset in found.presets}
    assert {row.setting for row in published(name)} <= of_presets


def test_where_results_are_looked_for(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert f"5 results in {results} and" in shown(capsys)[0]
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    first = " ".join(shown(capsys)[:2])
    assert f"0 results in {elsewhere / 'results'} (no such folder)" in first
    assert "--results DIR" in first
    assert f"5 results in {results} and" in shown(capsys, "--results", str(results))[0]
    assert main(["table", "--results", str(tmp_path / "nowhere")]) == 2
    assert "--results" in capsys.readouterr().err


def test_only_what_was_read_at_its_source_is_verified() -> None:
    """Each row that claims it names a page, not the paper itself, which nobody here has."""
    told = [row for name in EXPERIMENTS for row in published(name) if row.verified]
    assert {row.source for row in told} == {
        "SEGNO project page (github.com/yliukj/SEGNO)",
        "authors' replies, openreview.net, forum phnN1eu5AX",
        "paperswithcode page of arXiv 2306.02866",
        "scoutml page of PATTERN",
    }
    first_task: dict[str, float] = {}
    other_tasks: dict[str, float] = {}
    for row in published("nbody"):
        if not row.verified:
            continue
        if row.row.endswith("00 steps"):
            other_tasks[row.row] = row.value
        else:
            first_task[row.row] = row.value
    assert len(other_tasks) == 25
    assert {name: value for name, value in other_tasks.items() if name.startswith("SEGNO")} == {
        "SEGNO, charged, 1,500 steps": 0.01858,
        "SEGNO, charged, 2,000 steps": 0.04285,
        "SEGNO, gravity, 1,000 steps": 0.00338,
        "SEGNO, gravity, 1,500 steps": 0.01362,
        "SEGNO, gravity, 2,000 steps": 0.04017,
    }
    assert first_task == {
        "SE(3)-Transformer": 0.02483,
        "TFN": 0.01544,
        "GNN": 0.01077,
        "Radial Field": 0.0106,
        "GMN": 0.00824,
        "EGNN": 0.00711,
        "SEGNN": 0.00448,
        "SEGNO": 0.00433,
        "Transformer canonical (4 layers, first submission)": 0.00779,
        "Transformer PS (4 layers, first submission)": 0.00417,
    }
    assert [row.value for row in published("exp-classify") if row.verified] == [1.0, 1.0, 0.5, 0.5, 0.82, 0.5]
    assert not any(row.verified for name in ("exp", "graph8c", "sample-size") for row in published(name))


DAMAGES: dict[str, dict[str, object]] = {
    "value": {"value": "a"},
    "overrides": {"overrides": []},
    "seed": {"seed": 1.5},
    "params": {"params": None},
    "device": {"device": 3},
    "cpu_s": {"cpu_s": "1"},
    "by_samples": {"by_samples": {"a": 1}},
    "by_samples[0]": {"by_samples": [1]},
    "by_samples[0].samples": {"by_samples": [{"samples": None}]},
    "by_samples[0].value": {"by_samples": [{"samples": 1, "value": "x"}]},
    "learning_curve[1].step": {"learning_curve": [{"step": 1, "valid": 0.1}, {"step": "2"}]},
    "samples_for_tolerance[0].histogram": {"samples_for_tolerance": [{"tolerance": 0.1, "histogram": []}]},
}


@pytest.mark.parametrize("command", ["table", "figures"])
@pytest.mark.parametrize("what", DAMAGES)
def test_a_result_of_another_kind_is_named(
    what: str, command: str, results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = results / "nbody/gnn-ps/2.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | DAMAGES[what]))
    assert main([command]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"{results.relative_to(tmp_path)}/nbody/gnn-ps/2.json: " in error
    assert what in error


def test_a_damaged_result_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/result.json").write_text("{")
    assert main(["table", "--runs", str(tmp_path)]) == 2
    assert str(tmp_path / "a/result.json") in capsys.readouterr().err
    (tmp_path / "a/result.json").write_text("{}")
    assert main(["table", "--runs", str(tmp_path)]) == 2
    assert "lacks experiment" in capsys.readouterr().err


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_published_rows_name_our_presets(name: str) -> None:
    methods = {preset.removesuffix("-published") for preset in EXPERIMENTS[name].presets}
    assert all(row.preset is None or row.preset in methods for row in published(name))


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_recipes_of_published_rows_are_presets_and_their_flags_change_them(experiment: str) -> None:
    """A misspelt name, or a flag that says what the preset says, would never be found among the results."""
    what = EXPERIMENTS[experiment]
    for row in published(experiment):
        if row.recipe is None:
            assert not row.flags, row.row
            continue
        before = asdict(load_config(what, row.recipe))
        for name, value in row.flags.items():
            after = asdict(load_config(what, row.recipe, [f"--{name}={value}"]))
            assert after[name] == value, row.row
            assert after[name] != before[name], row.row
