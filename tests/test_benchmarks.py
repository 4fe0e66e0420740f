"""The benchmarks compare functions that do the same, and say what they leave out."""

import json
import math
import runpy
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import probsym as ps

HERE = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(autouse=True)
def _importable(monkeypatch):
    monkeypatch.syspath_prepend(str(HERE))


@pytest.fixture
def brief(monkeypatch):
    """Two rounds of everything."""
    import packages
    import relaxed
    import steps
    import timing

    for module in (packages, relaxed, steps):
        monkeypatch.setattr(module, "alternate", lambda functions, *_: timing.alternate(functions, 2, 0))


def tables(text: str) -> dict[str, list[dict[str, str]]]:
    """Rows by title, cells by column."""
    found = {}
    for block in text.split("### ")[1:]:
        title, _, *lines = block.splitlines()
        columns, _, *rows = [[c.strip() for c in line[1:-1].split("|")] for line in lines if line.startswith("|")]
        found[title] = [dict(zip(columns, row, strict=True)) for row in rows]
    return found


def positive(ratio: str) -> bool:
    """A median between its quartiles, all above zero."""
    median, lower, _, upper = ratio.replace("(", "").replace(")", "").split()
    return 0 < float(lower) <= float(median) <= float(upper)


@pytest.fixture
def run(monkeypatch, capsys):
    """`python benchmarks` with arguments, and what it prints."""

    def run(*arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", ["benchmarks", *map(str, arguments)])
        runpy.run_path(str(HERE), run_name="__main__")
        return capsys.readouterr().out

    return run


@pytest.mark.slow
def test_command(run, brief):
    printed = run("--quick", "imports", "samples")
    assert f"torch {torch.__version__}, 1 thread(s)" in printed
    assert "n = 444, B = 128, k = 10: 4.5 MB as indices" in printed
    ((row,),) = tables(printed).values()
    assert list(row) == ["torch", "probsym", "ratio"]
    assert positive(row["ratio"])


def test_tables_are_kept_in_a_file(run, tmp_path, capsys):
    """A file that exists stays as it is, unless told otherwise."""
    out = tmp_path / "times.md"
    first = run("samples", "--out", out)
    assert out.read_text() == first
    with pytest.raises(SystemExit, match="2"):
        run("samples", "samples", "--out", out)
    assert "--force" in capsys.readouterr().err
    assert out.read_text() == first
    second = run("samples", "samples", "--out", out, "--force")
    assert out.read_text() == second
    assert second.count("as indices") == 2 * first.count("as indices") == 2


def test_tables_are_kept_as_data(run, tmp_path):
    """The machine, the commit, and every table under its title."""
    import report

    out = tmp_path / "times.json"
    run("samples", "--out", out)
    kept = json.loads(out.read_text())
    assert kept["torch"] == torch.__version__
    assert kept["command"] == "python benchmarks samples --out times.json"  # no folders of the machine
    assert {"processor", "commit", "date", "threads", "load_at_start", "tables"} <= kept.keys()
    printed = "## Steps\n\n| a | b |\n|---|---|\n| 1 | 2.0 (1 to 3) |\n\nafter\n| c |\n|---|\n"
    assert report.tables(printed) == [
        {"title": "Steps", "columns": ["a", "b"], "rows": [["1", "2.0 (1 to 3)"]]},
        {"title": "after", "columns": ["c"], "rows": []},
    ]


def test_another_device_is_for_some(run, capsys):
    with pytest.raises(SystemExit, match="2"):
        run("steps", "frames", "--device", "cuda")
    assert "expected some of steps, actions, relaxed; got 'frames'" in capsys.readouterr().err


def test_steps(monkeypatch, brief, capsys):
    """Every k and B has its row, with a time or with the reason why there is none."""
    import steps
    import timing

    case = steps.cases()["MLP"]
    monkeypatch.setattr(steps, "cases", lambda: {"MLP": case})
    steps.steps(True)
    rows = tables(capsys.readouterr().out)["Training step"]
    assert [(row["k"], row["B"]) for row in rows] == [(k, b) for k in ("1", "10", "100") for b in ("1", "100")]
    assert all(positive(row[f"{p} / bare"]) for row in rows[:4] for p in ("learned", "Haar"))
    assert {row["bare step"] for row in rows[4:]} == {"left out by --quick"}
    assert not steps.left_out(case, 100, 100, False)
    monkeypatch.setattr(timing.Place, "memory", lambda place: 2 * 10_000 * case.held() - 1)
    assert steps.left_out(case, 100, 100, False).startswith("left out: holds")
    assert not steps.left_out(case, 100, 99, False)


def test_launches():
    """Views and allocations do not count, reading a value does; a learned p adds no more than is written down."""
    import launches

    x = torch.ones(3)
    with launches.Launches() as counter:
        y = (x.unsqueeze(0) + torch.empty(3).fill_(1)).sum()
        float(y)
    assert counter.count == 4  # fill, add, sum, and a value that is read
    (row, *_) = json.loads((HERE.parent / "results" / "benchmarks" / "launches.json").read_text())["tables"][0]["rows"]
    found = {p: (here, there) for p, here, there in launches.counted(launches.cases()[row[0]], launches.BATCH)}
    (bare, bare_there), (learned, learned_there) = found["bare"], found["learned"]
    assert learned.count - bare.count <= 1.05 * int(row[4])  # another release of torch may take some more
    assert learned_there.count - bare_there.count <= 1.05 * int(row[6])


def test_memory_held_for_backward():
    """The input and the output of tanh, four and eight floats a row; no weights, and nothing twice."""
    from bases import Case

    net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
    assert Case(net, {}, None, lambda b: {"input": torch.randn(b, 4)}).held() == 4 * (4 + 8)


def test_peak_memory(monkeypatch, tmp_path):
    (tmp_path / "blocks.py").write_text(
        "import torch\ndef block(mb):\n    return lambda: torch.ones(mb * 2**18).sum()\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    monkeypatch.syspath_prepend(str(tmp_path))
    from blocks import block
    from peaks import peak

    before, most = peak(block, mb=50)
    assert 50 <= most - before < 55


def test_designs(monkeypatch):
    """Every design of the table fits its group; cosets of the octahedral group gain most on a smooth net."""
    import evaluations

    for name, designs in evaluations.DESIGNS.items():
        rep, dim = evaluations.group(name)
        x = torch.randn(1, evaluations.POINTS, dim, dtype=torch.float64)
        blocks = {d: evaluations.block_of(rep, x, d) for d in designs if not isinstance(d, int)}
        assert blocks.get("signed-permutations", 0) in (0, 2**dim * math.factorial(dim) // (2 if "SO" in name else 1))
    monkeypatch.setattr(evaluations, "DESIGNS", {"SO(3)": ["octahedral", "antithetic"]})
    best, worst = evaluations.compared("SO(3)", 1.0, 240)
    assert best[2] == 24
    assert float(best[4]) > 100 > 10 > float(worst[4]) > 0.5


def test_outputs_that_differ_are_refused():
    from agreement import gap

    assert gap(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.25]), 0.25) == "2e-01"
    for other in (2.5, float("nan")):
        with pytest.raises(ValueError, match="outputs differ"):
            gap(torch.tensor([1.0, 2.0]), torch.tensor([1.0, other]), 0.25)


def test_frames_are_compared_with_the_same_net(monkeypatch, brief, capsys):
    pytest.importorskip("frame_averaging_pytorch")
    import packages

    packages.frames(True)
    ((*rows,),) = tables(capsys.readouterr().out).values()
    assert len(rows) == 4
    assert all(positive(row["ratio"]) for row in rows)
    frame_average = pytest.importorskip("frame_averaging_pytorch").FrameAverage
    monkeypatch.setattr(frame_average, "forward", lambda self, x: x.flip(-1))
    with pytest.raises(ValueError, match="outputs differ"):
        packages.frames(True)


def test_images_are_compared_under_the_same_group(monkeypatch, brief):
    ttach = pytest.importorskip("ttach")
    import packages

    monkeypatch.setattr(ttach.aliases, "d4_transform", ttach.aliases.flip_transform)
    with pytest.raises(ValueError, match="outputs differ"):
        packages.images(True)


def test_relaxed_permutations_have_the_gradient_of_the_dense_ones(monkeypatch, brief, capsys):
    import relaxed

    monkeypatch.setattr(relaxed, "SIZES", (8, 16, 0))
    monkeypatch.setattr(relaxed, "growth", lambda *_, **__: "")
    relaxed.relaxed(True)
    ((*rows,),) = tables(capsys.readouterr().out).values()
    assert all(positive(row["dense / gather"]) for row in rows)
    monkeypatch.setattr(relaxed, "RELAXATION", ps.Relaxation(0.2))
    with pytest.raises(ValueError, match="outputs differ"):
        relaxed.relaxed(True)


def test_few_sinkhorn_passes_give_the_gradient_of_many(run):
    """Two passes, the default, point where the limit points; none (plain SoftSort) is told apart from them."""
    (rows,) = tables(run("passes", "--quick")).values()
    cosine = {(row["n"], row["passes"]): float(row["mean cosine"]) for row in rows}
    assert all(cosine[n, "2"] > 0.999 > cosine[n, "0"] for n in ("5", "20", "64"))


def test_tables_in_the_documentation_are_those_that_were_measured():
    """Every marked table under docs/ is that of its committed file, to the letter."""
    import fill

    marked = 0
    for page in fill.pages():
        text = page.read_text(encoding="utf-8")
        marked += len(fill.MARKED.findall(text))
        assert fill.filled(text) == text, f"{page.name}: run python benchmarks/fill.py"
    assert marked > 5
    text = "<!-- table: correctness.json 0 -->\n| typed by hand |\n<!-- end -->"
    assert fill.filled(text) != text  # a negative control


def test_a_page_may_show_some_rows_and_columns_of_a_table():
    import fill

    whole = fill.table("designs.json", 0).splitlines()[2:]
    some = fill.table("designs.json", 0, " rows=2,0 columns=1,0").splitlines()
    assert len(some) == 4
    cells = [line.strip("| ").split(" | ") for line in whole]
    assert [line.strip("| ").split(" | ") for line in some] == [
        row[1::-1] for row in (cells[0], cells[1], cells[4], cells[2])
    ]
