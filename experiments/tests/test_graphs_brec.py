"""BREC: the tests of paired differences have the level that they claim, and the controls catch what should not pass."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import networkx
import numpy as np
import pytest
import torch

from probsym_experiments.cli import main
from probsym_experiments.config import load_config
from probsym_experiments.errors import UserError
from probsym_experiments.graphs import brec
from probsym_experiments.graphs.brec import Config, judged
from probsym_experiments.graphs.brec_data import CATEGORIES, KINDS, load
from probsym_experiments.graphs.dense import Adjacency, from_edges
from probsym_experiments.graphs.paired import hotelling, relative_gap, sign_flip_p_value
from probsym_experiments.registry import experiment
from wl_pairs import cfi, complete, rings


def on_the_torus(steps: list[tuple[int, int]]) -> Adjacency:
    """16 nodes (a, b) mod 4, joined by steps."""
    edges = []
    for a in range(4):
        for b in range(4):
            for x, y in steps:
                edges.append((4 * a + b, 4 * ((a + x) % 4) + (b + y) % 4))
    return from_edges(16, edges)


# The rook's graph and the graph of Shrikhande: strongly regular with the same parameters, equal to 3-WL.
STRONGLY_REGULAR = (
    on_the_torus([(0, 1), (0, 2), (1, 0), (2, 0)]),
    on_the_torus([(0, 1), (1, 0), (1, 1)]),
)


def keep(folder: Path, kind: str, pairs: list[tuple[Adjacency, Adjacency]]) -> None:
    lines = []
    for pair in pairs:
        for graph in pair:
            lines.append(networkx.to_graph6_bytes(networkx.from_numpy_array(graph), header=False))
    (folder / "brec").mkdir(exist_ok=True)
    (folder / "brec" / f"{kind}.g6").write_bytes(b"".join(lines))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    keep(folder, "basic", [rings()])
    keep(folder, "strongly-regular", [STRONGLY_REGULAR])
    keep(folder, "cfi", [cfi(complete(3))])
    return folder


def run(preset: str, data: Path, out: Path, *arguments: str) -> tuple[int, dict | None]:
    code = main(["run", "brec", "--preset", preset, "--data", str(data), "--out", str(out), *arguments])
    result = out / "result.json"
    return code, json.loads(result.read_text()) if result.is_file() else None


def five_sigma(rate: float, trials: int) -> float:
    return 5 * (rate * (1 - rate) / trials) ** 0.5


def test_the_published_threshold_is_the_quantile_of_normal_differences() -> None:
    """5 % of T^2 are above 72.34 for 32 differences of 16 normal numbers: false alarm below 1e-6."""
    trials = 2_000
    z = torch.randn(trials, 32, 16, generator=torch.Generator().manual_seed(0)).double()
    above = np.mean([hotelling(one) > 72.34 for one in z])
    assert abs(above - 0.05) < five_sigma(0.05, trials)


@pytest.mark.parametrize("tail", ["normal", "no variance", "a number of values"])
def test_signs_have_their_level_for_any_tail(tail: str) -> None:
    """A p-value is at most a with probability at most a, to five standard errors: false alarm below 1e-6."""
    trials, flips, level = 1_500, 99, 0.05
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(trials, 32, 4, generator=generator).double()
    if tail == "no variance":
        z = z * torch.randn(trials, 32, 1, generator=generator).double().abs() ** -2
    if tail == "a number of values":
        z = z.sign() * (z.abs() > 2)
    rejected = np.mean([sign_flip_p_value(one, flips, generator) <= level for one in z])
    assert rejected < level + five_sigma(level, trials)
    if tail != "a number of values":  # where ties make it smaller
        assert rejected > level - five_sigma(level, trials)


def test_signs_see_a_shift_and_nothing_where_nothing_is() -> None:
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(32, 16, generator=generator)
    assert sign_flip_p_value(z + 2, 9_999, generator) == 1e-4
    assert sign_flip_p_value(z + 1e4, 9_999, generator) == 1e-4  # all else is rounding
    assert sign_flip_p_value(torch.zeros(32, 16), 99, generator) == 1
    assert relative_gap(torch.zeros(3, 2), torch.zeros(3, 2)) == 0
    assert relative_gap(torch.ones(3, 4), -torch.ones(3, 4)) == 2


def test_a_singular_covariance_is_no_excuse() -> None:
    """Embeddings that do not vary at all: a difference is a difference, and none is none."""
    assert hotelling(torch.full((32, 16), 0.1)) > 1e6
    assert hotelling(torch.zeros(32, 16)) == 0


QUICK = {"epochs": 6, "lr": 1e-3, "hidden": [32], "flips": 1_999}


def pair(which: tuple[Adjacency, Adjacency]) -> tuple[torch.Tensor, torch.Tensor]:
    first, second = which
    return torch.from_numpy(first).float(), torch.from_numpy(second).float()


@pytest.mark.parametrize("which", [rings(), STRONGLY_REGULAR], ids=["rings", "strongly regular"])
def test_frames_tell_apart_what_is_different_and_nothing_else(which: tuple[Adjacency, Adjacency]) -> None:
    first, second = pair(which)
    config = Config(base="mlp", symmetrizer="fa", **QUICK)
    found = judged(first, second, config, 0)
    assert (found["different"], found["published"], found["published_code"]) == (1, 1, 1)
    order = torch.randperm(len(first))
    same = judged(first, first[order][:, order], config, 0)
    assert (same["different"], same["gap"] < 1e-5) == (0, True)


def test_copies_that_were_learned_by_heart_are_not_called_different() -> None:
    """A bare MLP, no function of graphs, drives the 32 copies of one graph apart from 32 others of the same graph."""
    first, _ = pair(STRONGLY_REGULAR)
    by_heart = QUICK | {"epochs": 60, "enough": 0.0, "hidden": [128], "batch_size": 64}
    found = judged(first, first, Config(base="mlp", symmetrizer="none", **by_heart), 0)
    assert found["loss"] < 0.01
    assert (found["different"], found["published_code"]) == (0, 0)
    assert found["p_value"] > 1e-3


def test_a_run_reports_by_category_and_resumes(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that broke off after two pairs ends as one that did not, and does not train those again."""
    quick = ["--epochs=1", "--samples=1", "--flips=1999", "--width=8", "--layers=1", "--copies=20"]
    code, whole = run("gin-id-ps", data, tmp_path / "whole", *quick)
    assert code == 0
    assert whole is not None
    assert whole["pairs"] == whole["controls"] == 3
    assert set(whole["by_kind"]) == {"basic", "strongly-regular", "cfi"}
    assert whole["by_category"]["regular"]["pairs"] == 1
    assert whole["value"] == sum(one["different"] for one in whole["by_category"].values())
    assert whole["isomorphic called different"] == 0

    compare, trained = brec.compare, []

    def interrupted(one, config):
        if len(trained) == 2:
            raise OSError("the disk is full")
        trained.append(one.kind)
        return compare(one, config)

    parts = tmp_path / "parts"
    with monkeypatch.context() as patch:
        patch.setattr(brec, "compare", interrupted)
        assert run("gin-id-ps", data, parts, *quick) == (2, None)
    monkeypatch.setattr(brec, "compare", lambda one, config: trained.append(one.kind) or compare(one, config))
    code, resumed = run("gin-id-ps", data, parts, *quick, "--resume")
    assert (code, trained) == (0, ["basic", "strongly-regular", "cfi"])
    assert resumed is not None
    timed = {"seconds", "cpu_seconds"}
    rows = [list(csv.DictReader((out / "pairs.csv").open())) for out in (tmp_path / "whole", parts)]
    for one, other in zip(*rows, strict=True):
        assert {name: one[name] for name in one if name not in timed} == {n: other[n] for n in other if n not in timed}
    for name in ("value", "by_category", "published rule", "isomorphic called different"):
        assert resumed[name] == whole[name]


def test_a_model_that_sees_no_edges_tells_nothing_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    from probsym_experiments.graphs import models

    class Blind(torch.nn.Linear):
        def forward(self, adjacency: torch.Tensor) -> torch.Tensor:
            return super().forward(torch.ones(len(adjacency), 1))

    monkeypatch.setitem(models.BASES, "mlp", models.Base(lambda shape, design: Blind(1, 16), ()))  # type: ignore[arg-type]
    found = judged(*pair(rings()), Config(base="mlp", symmetrizer="ga", **QUICK), 0)
    assert (found["different"], found["published"], found["gap"]) == (0, 0, 0)


def test_the_kinds_are_those_of_the_benchmark() -> None:
    assert sum(KINDS.values()) == 400
    sizes: dict[str, int] = {}
    for kind, count in KINDS.items():
        sizes[CATEGORIES[kind]] = sizes.get(CATEGORIES[kind], 0) + count
    assert sizes == {"basic": 60, "regular": 140, "extension": 100, "cfi": 100}


@pytest.mark.parametrize("preset", experiment("brec").presets)
def test_presets_are_the_published_procedure(preset: str) -> None:
    config = load_config(experiment("brec"), preset)
    assert preset == f"{config.base}-{config.symmetrizer}"
    published = (config.copies, config.out, config.epochs, config.batch_size, config.lr, config.weight_decay)
    assert published == (32, 16, 20, 16, 1e-4, 1e-4)
    assert (config.threshold, config.enough, config.margin) == (72.34, 0.2, 0.0)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--out=32"], "out: expected fewer than 32 copies; got 32"),
        (["--level=1e-5"], "level: expected at least 1 / .flips . 1. = 0.0001; got 1e-05"),
        (["--kinds=[basic,hard]"], "kinds: expected one of basic, .*; got 'hard'"),
        (["--symmetrizer=ps-soft"], "symmetrizer: expected one of ps, ga, fa, canonical, none; got 'ps-soft'"),
        (["--symmetrizer=fa", "--samples=3"], "samples: expected only with samples that are drawn"),
        (["--copies=1"], "copies"),
    ],
)
def test_bad_fields_are_named(arguments: list[str], named: str) -> None:
    with pytest.raises(UserError, match=named):
        load_config(experiment("brec"), "gin-id-ps", arguments)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"", "expected pairs of lines; got 0 lines"),
        (b"Bw\n", "expected pairs of lines; got 1 lines"),
        (b"Bw\nC~\n", "pair 0: expected two graphs of as many nodes; got 3 and 4"),
        (b"Bw\nBw\n", "pair 0: expected two graphs that are not isomorphic; they are the same"),
        (b"Bw\nB\x01\n", "line 2: expected characters"),
        (b"Bw\nBww\n", "line 2: "),
        (b"Bw\n~~~~~~~~\n", "line 2: "),
        (b"Bw\n" + b"~" * 50_000, "line 2: expected at most 512 nodes; got 50000 characters"),
    ],
)
def test_what_is_no_pair_is_named(content: bytes, named: str, tmp_path: Path) -> None:
    (tmp_path / "brec").mkdir()
    (tmp_path / "brec" / "basic.g6").write_bytes(content)
    with pytest.raises(UserError, match=rf"basic\.g6: {named}"):
        load(tmp_path)


def test_no_data_tells_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"expected brec/ with any of basic\.g6, .*convert_brec\.py"):
        load(tmp_path)


@pytest.fixture
def convert(monkeypatch: pytest.MonkeyPatch):
    import importlib.util

    path = Path(__file__).parents[1] / "scripts" / "convert_brec.py"
    spec = importlib.util.spec_from_file_location("convert_brec", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "KINDS", dict.fromkeys(KINDS, 1))
    return module


def test_the_converter_reads_texts_and_no_pickles(convert, tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    for name in convert.FILES:
        texts = np.array(["Bw", "Bo"])
        np.save(raw / name, texts.astype("S") if name == "cfi.npy" else texts)  # as published: both occur
    convert.main(raw, tmp_path / "made" / "brec")
    assert [pair.kind for pair in load(tmp_path / "made")] == list(KINDS)
    with pytest.raises(ValueError, match="is there already"):
        convert.main(raw, tmp_path / "made" / "brec")
    np.save(raw / "dr.npy", np.array([b"Bw", b"Bo"], object))
    with pytest.raises(ValueError, match=r"dr\.npy: damaged, or no array of texts"):
        convert.main(raw, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_the_converter_takes_the_first_copies_of_one_file(convert, tmp_path: Path) -> None:
    lines = []
    for kind in range(7):
        first = [b"Bw", b"C~", b"D~{", b"E~~w", b"F~~~w", b"G~~~~{", b"H~~~~~~"][kind]
        lines += 32 * [first, first.replace(b"w", b"o")]
    np.save(tmp_path / "brec_v3.npy", np.array(lines + lines))
    by_kind = convert.graphs(tmp_path / "brec_v3.npy")
    assert by_kind["basic"] == [b"Bw", b"Bo"]
    assert by_kind["distance-regular"] == [b"H~~~~~~", b"H~~~~~~"]
    np.save(tmp_path / "brec_v3.npy", np.array(lines))
    with pytest.raises(ValueError, match="expected 896 graphs; got 448"):
        convert.graphs(tmp_path / "brec_v3.npy")
