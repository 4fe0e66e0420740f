"""graph6, the enumeration, EXP and the converter of its original file, and what is said about files that are none."""

from __future__ import annotations

import io
import os
import pickle
import runpy
import sys
import warnings
import zipfile
from pathlib import Path

import igraph
import numpy as np
import pytest
import torch

from places import DATA
from probsym_experiments.errors import UserError
from probsym_experiments.graphs import enumeration, exp_data
from probsym_experiments.graphs.dense import check, pad, ragged, relabelled, return_probabilities
from wl_pairs import cfi, complete, csl, dataset

SCRIPT = Path(__file__).parents[1] / "scripts" / "convert_exp.py"


def random_graphs(count: int, nodes: int, seed: int = 0) -> np.ndarray:
    upper = np.triu(np.random.default_rng(seed).random((count, nodes, nodes)) < 0.4, 1)
    return upper | upper.swapaxes(1, 2)


@pytest.mark.parametrize("nodes", [1, 2, 3, 8, 13, 62])
def test_graph6_round_trip(nodes: int) -> None:
    graphs = random_graphs(7, nodes)
    assert np.array_equal(enumeration.decode(enumeration.encode(graphs)), graphs)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (b"", "got none"),
        (b"Bw\nCw", "line 2"),
        (b"Bw\nB", "line 2"),
        (b"B!", "line 1"),
        (b"\x80\x04pickle", "line 1"),
    ],
)
def test_what_is_no_graph6_is_refused(text: bytes, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        enumeration.decode(text)


def test_enumeration_counts() -> None:
    assert tuple(len(enumeration.connected(n)) for n in range(1, 8)) == enumeration.COUNTS[:7]


@pytest.mark.skipif(not (DATA / "graph8c.g6").exists(), reason="needs ../shared/data")
def test_enumeration_is_that_of_nauty() -> None:
    theirs = enumeration.decode((DATA / "graph8c.g6").read_bytes())
    ours = enumeration.connected(8)
    assert len(ours) == enumeration.COUNTS[7]
    assert sorted(enumeration.keys(theirs)) == enumeration.keys(ours)


def test_keys_do_not_see_labels() -> None:
    graphs = random_graphs(20, 7)
    batch = {"adjacency": torch.from_numpy(graphs).float()}
    moved = relabelled(batch, torch.Generator().manual_seed(0))["adjacency"].bool().numpy()
    assert not np.array_equal(moved, graphs)
    assert enumeration.keys(moved) == enumeration.keys(graphs)


def test_graphs_are_made_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = enumeration.load(tmp_path, 5)
    monkeypatch.setattr(enumeration, "connected", lambda nodes: pytest.fail("made again"))
    assert np.array_equal(enumeration.load(tmp_path, 5), first)
    assert [p.name for p in tmp_path.iterdir()] == ["graph5c.g6"]


@pytest.mark.parametrize("change", ["cut", "doubled", "disconnected", "other size", "empty"])
def test_a_wrong_file_of_graphs_is_named(change: str, tmp_path: Path) -> None:
    lines = enumeration.encode(enumeration.connected(5)).splitlines()
    text = {
        "cut": b"\n".join(lines)[:-1],
        "doubled": b"\n".join([*lines[:-1], lines[0]]),
        "disconnected": b"\n".join([*lines[:-1], enumeration.encode(np.zeros((1, 5, 5), bool)).strip()]),
        "other size": enumeration.encode(enumeration.connected(4)),
        "empty": b"",
    }[change]
    (tmp_path / "graph5c.g6").write_bytes(text)
    with pytest.raises(UserError, match=r"graph5c\.g6"):
        enumeration.load(tmp_path, 5)


GRAPH = {"num_nodes": [3], "num_edges": [4], "edge_index": [[0, 1, 1, 2], [1, 0, 2, 1]]}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"num_nodes": [0], "num_edges": [0], "edge_index": [[], []]}, "graph 0: expected 1 to 5 nodes; got 0"),
        ({"num_nodes": [6]}, "graph 0: expected 1 to 5 nodes; got 6"),
        ({"edge_index": [[0, 1, 1, 3], [1, 0, 3, 1]]}, r"graph 0: expected node numbers below 3; got edge \[1, 3\]"),
        ({"edge_index": [[0, 1, 1, -1], [1, 0, -1, 1]]}, "graph 0: expected node numbers below 3"),
        ({"edge_index": [[0, 1, 1, 2], [1, 0, 2, 0]]}, r"graph 0: expected each edge in both directions; got only"),
        ({"num_edges": [5]}, "edge_index: expected shape"),
        ({"num_edges": [-4]}, "edge_index"),
        ({"num_edges": [2, 2]}, "num_nodes, num_edges"),
        ({"edge_index": [[0.5, 1, 1, 2], [1, 0.5, 2, 1]]}, "edge_index: expected integers"),
    ],
)
def test_what_is_no_graph_is_refused(change: dict, named: str) -> None:
    arrays = {name: np.array(value) for name, value in (GRAPH | change).items()}
    if not arrays["edge_index"].size:
        arrays["edge_index"] = arrays["edge_index"].astype(int)
    with pytest.raises(UserError, match=named):
        check(arrays, 5)


def test_loops_stay_doubles_count_once_and_edges_may_be_missing() -> None:
    arrays = {
        "num_nodes": np.array([3, 1, 2]),
        "num_edges": np.array([5, 0, 0]),
        "edge_index": np.array([[0, 1, 0, 1, 2], [1, 0, 1, 0, 2]]),
        "x": np.arange(6)[:, None],
    }
    batch = pad(arrays, 4)
    want = torch.zeros(3, 4, 4)
    want[0, [0, 1, 2], [1, 0, 2]] = 1
    assert torch.equal(batch["adjacency"], want)
    assert batch["mask"].sum(1).tolist() == [3, 1, 2]
    assert batch["nodes"][..., 0].tolist() == [[0, 1, 2, 0], [3, 0, 0, 0], [4, 5, 0, 0]]
    assert return_probabilities(batch["adjacency"], 3)[1].abs().max() == 0


def test_return_probabilities_are_powers_of_the_walk() -> None:
    graphs = torch.from_numpy(random_graphs(4, 9)).double()
    graphs[0, 3] = graphs[0, :, 3] = 0
    walk = graphs / graphs.sum(-1, keepdim=True).clamp_min(1)
    want = torch.stack([torch.linalg.matrix_power(walk, t).diagonal(dim1=1, dim2=2) for t in range(1, 8)], -1)
    torch.testing.assert_close(return_probabilities(graphs, 7), want)


def test_relabelling_leaves_padding_at_the_tail() -> None:
    batch = exp_data.tensors(dataset(3))
    moved = relabelled(batch, torch.Generator().manual_seed(1))
    for i in range(6):
        n = int(batch["mask"][i].sum())
        assert moved["adjacency"][i, n:].sum() == 0
        one, other = (b["adjacency"][i, :n, :n].bool().numpy() for b in (batch, moved))
        assert enumeration.keys(one[None]) == enumeration.keys(other[None])


def refined(adjacency: np.ndarray) -> list[int]:
    """Sorted stable colours of 1-WL."""
    colours = [0] * len(adjacency)
    for _ in range(len(adjacency)):
        seen = [(colours[i], tuple(sorted(colours[j] for j in np.flatnonzero(a)))) for i, a in enumerate(adjacency)]
        names = {key: number for number, key in enumerate(sorted(set(seen)))}
        colours = [names[key] for key in seen]
    return sorted(colours)


@pytest.mark.parametrize(
    "pair", [cfi(complete(4)), cfi(complete(3)), (csl(13, 2), csl(13, 3))], ids=["CFI K4", "CFI K3", "CSL 13"]
)
def test_made_pairs_fool_colour_refinement(pair: tuple[np.ndarray, np.ndarray]) -> None:
    one, other = pair
    assert refined(one) == refined(other)
    assert enumeration.keys(one[None]) != enumeration.keys(other[None])


def save(path: Path, **change: np.ndarray) -> Path:
    np.savez(path / "exp.npz", **(dataset(4) | change))
    return path


def same(one: dict, other: dict) -> None:
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_exp_from_npz(tmp_path: Path) -> None:
    batch = exp_data.load(save(tmp_path))
    assert {name: tuple(v.shape) for name, v in batch.items()} == {
        "adjacency": (8, 64, 64), "mask": (8, 64), "nodes": (8, 64, 2), "target": (8,),
    }  # fmt: skip
    assert torch.equal(batch["adjacency"], batch["adjacency"].mT)
    assert torch.equal(batch["nodes"].sum(-1).bool(), batch["mask"])


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"y": np.full(8, 2)}, "y: expected a label 0 or 1"),
        ({"y": np.zeros(7, int)}, "y: expected a label"),
        ({"x": np.zeros((5, 1))}, "x: expected shape"),
        ({"x": np.zeros((5, 3))}, "x: expected node types"),
        ({"num_nodes": np.full(8, 2)}, "graph 0: expected node numbers below 2"),
    ],
)
def test_a_wrong_npz_is_named(change: dict, named: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"exp\.npz: {named}"):
        exp_data.load(save(tmp_path, **change))


def test_a_damaged_npz_is_named(tmp_path: Path) -> None:
    whole = (save(tmp_path) / "exp.npz").read_bytes()
    for content in (whole[: len(whole) // 2], whole[:10], b"", b"hello", pickle.dumps([1])):
        (tmp_path / "exp.npz").write_bytes(content)
        with pytest.raises(UserError, match=r"exp\.npz"):
            exp_data.load(tmp_path)
    np.savez(tmp_path / "exp.npz", y=np.zeros(2))
    with pytest.raises(UserError, match="damaged"):
        exp_data.load(tmp_path)
    np.savez(tmp_path / "exp.npz", **(dataset(4) | {"x": np.array([{}], object)}))
    with pytest.raises(UserError, match="damaged"):
        exp_data.load(tmp_path)
    with (tmp_path / "exp.npz").open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(UserError, match="damaged"):
        exp_data.load(tmp_path)


@pytest.mark.parametrize("claimed", [None, 10**15, 10**7])
def test_an_array_that_is_none_or_claims_too_much_is_refused(claimed: int | None, tmp_path: Path) -> None:
    header = io.BytesIO()
    if claimed:
        np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (claimed, 1)})
    with zipfile.ZipFile(save(tmp_path) / "exp.npz", "a") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the name is there already; the last one counts
        archive.writestr("x.npy", header.getvalue() or b"words")
    with pytest.raises(UserError, match=r"exp\.npz: damaged"):
        exp_data.load(tmp_path)


def test_missing_data_say_how_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"exp\.npz; make it of GRAPHSAT\.pkl .*GNN-RNI.* by python .*convert_exp\.py"):
        exp_data.load(tmp_path)
    assert SCRIPT.is_file()


class OldData:
    """How PyG 1 pickled a graph: plain attributes, some of them None."""

    def __init__(self, **fields: object) -> None:
        self.__dict__.update(fields)


OldData.__module__, OldData.__qualname__, OldData.__name__ = "torch_geometric.data.data", "Data", "Data"


def graphsat(version: int, monkeypatch: pytest.MonkeyPatch) -> bytes:
    module = pytest.importorskip("torch_geometric.data.data")
    if version == 1:
        monkeypatch.setattr(module, "Data", OldData)
    arrays, graphs, node, edge = dataset(4), [], 0, 0
    for i, (n, e) in enumerate(zip(arrays["num_nodes"], arrays["num_edges"], strict=True)):
        graphs.append(
            module.Data(
                x=torch.from_numpy(arrays["x"][node : node + n]).long(),
                edge_index=torch.from_numpy(arrays["edge_index"][:, edge : edge + e]),
                edge_attr=None,
                y=torch.tensor([int(arrays["y"][i])]),
            )
        )
        node, edge = node + n, edge + e
    content = pickle.dumps(graphs)
    monkeypatch.undo()
    return content


@pytest.fixture
def convert(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Runs the script on a file: what it says if it refuses it, else ""."""

    def start(folder: Path) -> str:
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), str(folder / "GRAPHSAT.pkl"), str(folder / "exp.npz")])
        try:
            runpy.run_path(str(SCRIPT), run_name="__main__")
        except SystemExit as stop:
            return str(stop)
        return ""

    return start


@pytest.mark.parametrize("version", [1, 2])
def test_the_original_pickle_is_converted(
    version: int, convert, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = graphsat(version, monkeypatch)
    (tmp_path / "GRAPHSAT.pkl").write_bytes(content)
    assert convert(tmp_path) == ""
    same(exp_data.load(tmp_path), exp_data.tensors(dataset(4)))


def test_a_damaged_pickle_is_named(convert, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = graphsat(1, monkeypatch)
    for content in (whole[: len(whole) // 2], whole[:-1], b"", b"hello", pickle.dumps([1]), pickle.dumps({})):
        (tmp_path / "GRAPHSAT.pkl").write_bytes(content)
        assert "GRAPHSAT.pkl: " in convert(tmp_path)
        assert not (tmp_path / "exp.npz").exists()


class Call:
    """Asks the reader to call a function."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.what = function, arguments

    def __reduce__(self) -> tuple:
        return self.what


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_a_hostile_pickle_is_refused_before_it_acts(protocol: int, convert, tmp_path: Path) -> None:
    mark = tmp_path / "touched"
    inner = io.BytesIO()
    torch.save(Call(os.system, f"touch {mark}"), inner, _use_new_zipfile_serialization=False)
    attacks = [
        Call(os.system, f"touch {mark}"),
        Call(eval, f"open({str(mark)!r}, 'w')"),
        Call(getattr, "x", "upper"),
        Call(torch.load, str(mark)),
        Call(torch.storage._load_from_bytes, inner.getvalue()),
        [torch.zeros(2), {"x": Call(open, str(mark), "w")}],
    ]
    for attack in attacks:
        (tmp_path / "GRAPHSAT.pkl").write_bytes(pickle.dumps(attack, protocol))
        assert "GRAPHSAT.pkl: refused" in convert(tmp_path)
        assert not mark.exists()


@pytest.mark.skipif(not (DATA / "exp.npz").exists(), reason="needs ../shared/data")
def test_the_real_exp() -> None:
    batch = exp_data.load(DATA)
    assert len(batch["target"]) == 1200
    assert batch["target"].view(-1, 2).tolist() == [[1.0, 0.0]] * 600
    sizes = batch["mask"].sum(1)
    assert (int(sizes.min()), int(sizes.max())) == (32, 64)
    for i in (0, 2, 700):
        one, other = (batch["adjacency"][j, : sizes[j], : sizes[j]].bool().numpy() for j in (i, i + 1))
        assert refined(one) == refined(other)
        graphs = [igraph.Graph(len(g), enumeration.edges(g)) for g in (one, other)]
        assert not graphs[0].isomorphic(graphs[1])


def test_ragged_and_pad_are_inverse() -> None:
    graphs = [g for n in (2, 5, 3) for g in random_graphs(2, n)]
    batch = pad(ragged(graphs), 5)
    for i, graph in enumerate(graphs):
        assert np.array_equal(batch["adjacency"][i, : len(graph), : len(graph)].bool().numpy(), graph)


def test_the_converter_replaces_nothing_and_names_a_missing_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a program, in this process: sys.exit with a text is exit code 1."""

    def convert(*arguments: Path) -> str:
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(SCRIPT), run_name="__main__")
        return str(end.value.code)

    target = tmp_path / "exp.npz"
    assert "no such file" in convert(tmp_path / "none.pkl", target)
    source = tmp_path / "GRAPHSAT.pkl"
    source.write_bytes(b"")
    target.write_text("mine")
    assert "exists" in convert(source, target)
    assert target.read_text() == "mine"
