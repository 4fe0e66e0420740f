"""Graphs of different sizes: the block model's statistics, storage, batches, and what is said about damaged files."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from molecules import keep, molecules
from probsym_experiments.cache import cached
from probsym_experiments.errors import UserError
from probsym_experiments.graphs.dense import return_probabilities as dense_probabilities
from probsym_experiments.tasks.block_model import BlockModel, assemble, draw, load
from probsym_experiments.tasks.collate import Channels, Collated, Packed, Padded
from probsym_experiments.tasks.features import indicators, with_walks
from probsym_experiments.tasks.molecules import Molecules, convert, split, standardised
from probsym_experiments.tasks.pattern import TASK as PATTERN
from probsym_experiments.tasks.pcqm_contact import DATA as CONTACT
from probsym_experiments.tasks.peptides_func import TASK as PEPTIDES
from probsym_experiments.tasks.peptides_struct import DATA as STRUCT
from probsym_experiments.tasks.storage import Graphs, Ragged, check

SMALL = BlockModel(patterns=10, train=12, valid=4, test=4)


@pytest.fixture(scope="module")
def graphs() -> Graphs:
    return assemble(draw(SMALL))


def test_the_block_model_has_its_probabilities(graphs: Graphs) -> None:
    """Frequencies of links over all pairs of each kind; false alarms below 1e-6 (five standard errors)."""
    label, size = graphs.nodes.columns["label"], graphs.sizes
    planted = np.add.reduceat(label.astype(int), graphs.nodes.starts)
    at = np.repeat(graphs.nodes.starts, graphs.edges.counts)[:, None] + graphs.edges.columns["index"]
    touched = label[at].any(1)
    pairs = (size * (size - 1) // 2).sum()
    outside = ((size - planted) * (size - planted - 1) // 2).sum()
    assert len(graphs) == 200
    assert planted.min() >= 5
    assert planted.max() <= 34
    assert size.max() <= 188
    share = touched.sum() / (pairs - outside)
    assert abs(share - 0.5) < 5 * (0.25 / (pairs - outside)) ** 0.5 + 0.01  # the patterns' own links are 10 draws
    rest = (~touched).sum() / outside
    assert 0.36 < rest < 0.42  # between 0.35 and 0.5, as a fifth or so of these pairs is inside a community
    assert (graphs.edges.columns["index"][:, 0] < graphs.edges.columns["index"][:, 1]).all()


def test_all_graphs_of_a_pattern_share_its_links_and_signal(graphs: Graphs) -> None:
    """Graphs 0 and 10 hold the same pattern, 0 and 1 do not: compared by sorted degrees and signals inside."""

    def inside(number: int) -> tuple[list[int], int]:
        one = graphs.take(np.array([number]))
        label, signal = one.nodes.columns["label"], one.nodes.columns["x"][:, 0]
        link = one.edges.columns["index"]
        kept = link[label[link].all(1)]
        degree = np.bincount(kept.reshape(-1), minlength=len(label))[label > 0]
        return sorted(zip(degree.tolist(), signal[label > 0].tolist(), strict=True)), len(kept)

    assert inside(0) == inside(10) == inside(190)
    assert inside(0) != inside(1)


def test_drawing_is_a_function_of_the_seed() -> None:
    tiny = BlockModel(patterns=2, train=1, valid=1, test=1)
    first, again, other = draw(tiny), draw(tiny), draw(BlockModel(7, 2, 1, 1, 1))
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not np.array_equal(first["link"], other["link"])


def test_parts_are_drawn_once_and_kept(tmp_path: Path) -> None:
    parts = load(SMALL, tmp_path)
    assert {name: len(part) for name, part in parts.items()} == {"train": 120, "valid": 40, "test": 40}
    path = tmp_path / SMALL.file
    before = path.stat().st_mtime_ns
    again = load(SMALL, tmp_path)
    assert path.stat().st_mtime_ns == before
    assert np.array_equal(parts["test"].edges.columns["index"], again["test"].edges.columns["index"])


def test_a_damaged_file_is_told(tmp_path: Path) -> None:
    load(SMALL, tmp_path)
    path = tmp_path / SMALL.file
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(UserError, match=f"{path}: damaged data file .*drawn again"):
        load(SMALL, tmp_path)


def test_taking_graphs_is_taking_each() -> None:
    counts = np.array([3, 0, 2, 1])
    rows = Ragged(counts, {"v": np.arange(6)})
    for index in (slice(1, 3), slice(0, 4, 2), np.array([3, 0, 0]), slice(4, 4), np.array([], int)):
        parts = [np.arange(6)[rows.starts[i] : rows.starts[i] + counts[i]] for i in np.arange(4)[index]]
        assert rows.take(index).columns["v"].tolist() == np.concatenate([np.array([], int), *parts]).tolist()


def test_padded_and_packed_batches_hold_the_same_graphs(graphs: Graphs) -> None:
    few, channels = graphs.take(np.array([3, 17, 90])), Channels((3,))
    padded, packed = Padded(channels)(few), Packed(channels)(few)
    sizes = torch.from_numpy(few.sizes)
    assert padded["mask"].sum(1).tolist() == sizes.tolist() == packed["size"][:, 0].tolist()
    assert torch.equal(padded["x"][padded["mask"]], packed["x"])
    assert torch.equal(padded["label"][padded["mask"]], packed["label"])
    first = sizes.cumsum(0) - sizes
    graph = packed["batch"][packed["edge_index"][0]]
    i, j = packed["edge_index"] - first[graph]
    rebuilt = torch.zeros_like(padded["edge"])
    rebuilt[graph, i, j] = packed["bonds"]
    assert torch.equal(rebuilt, padded["edge"])
    assert torch.equal(padded["edge"], padded["edge"].transpose(1, 2))


def test_only_padded_batches_are_sorted_by_size(graphs: Graphs) -> None:
    assert Collated(graphs, Padded(Channels((3,)))).sizes is not None
    assert Collated(graphs, Packed(Channels((3,)))).sizes is None


def test_walks_are_those_of_the_dense_formula(graphs: Graphs) -> None:
    few = graphs.take(slice(0, 5))
    batch = Padded(Channels((3,)))(few)
    dense = dense_probabilities(batch["edge"][..., 0].double(), 7)[batch["mask"]]
    torch.testing.assert_close(
        torch.from_numpy(with_walks(few, 7).nodes.columns["walks"]).double(), dense, rtol=1e-4, atol=1e-6
    )


def test_indicators() -> None:
    assert indicators(np.array([[1, 0, 1]]), (2, 1, 3)).tolist() == [[1.0, 0.0, 1.0, 0.0]]


def test_molecules_are_read_with_each_edge_once(tmp_path: Path) -> None:
    arrays = molecules()
    keep(tmp_path / "peptides_func.npz", arrays)
    parts = PEPTIDES.parts(tmp_path, dict.fromkeys(("train", "valid", "test")), walks=4)
    assert {name: len(part) for name, part in parts.items()} == {"train": 10, "valid": 10, "test": 10}
    assert parts["train"].edges.counts.tolist() == (arrays["num_nodes"][:10] - 1).tolist()
    batch = Packed(Channels(PEPTIDES.node_classes, PEPTIDES.edge_classes, 4))(parts["train"])
    assert batch["x"].shape == (arrays["num_nodes"][:10].sum(), 47 + 4)
    assert batch["bonds"].shape == (2 * (arrays["num_nodes"][:10] - 1).sum(), 5)
    assert batch["target"].shape == (10, 10)


COUNTS: dict[str, int | None] = dict.fromkeys(("train", "valid", "test"))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"val": np.arange(0)}, "valid: expected at least one graph; the split is empty"),
        ({"test": np.array([31])}, "test: expected graph numbers below 30"),
        ({"num_nodes": np.full(30, 2)}, "x: expected 60 nodes"),
        ({"y": np.zeros((30, 10), np.int8)}, "label 0 never occurs"),
        ({"y": np.zeros((29, 10), np.int8)}, "expected a label for each of 30 graphs; got 29"),
        ({"edge_index": np.zeros((3, 8), int)}, "edge_index: expected two rows"),
    ],
)
def test_bad_molecules_are_named(change: dict[str, np.ndarray], named: str, tmp_path: Path) -> None:
    keep(tmp_path / "peptides_func.npz", molecules() | change)
    with pytest.raises(UserError, match=named):
        PEPTIDES.parts(tmp_path, COUNTS, 0)


def test_categories_out_of_range_are_named(tmp_path: Path) -> None:
    arrays = molecules()
    arrays["x"][5, 2] = 99
    keep(tmp_path / "peptides_func.npz", arrays)
    with pytest.raises(UserError, match="train: x: column 2: expected categories below 7"):
        PEPTIDES.parts(tmp_path, COUNTS, 0)


def test_node_numbers_out_of_range_are_named() -> None:
    arrays = molecules()
    arrays["edge_index"][1, 3] = 50
    with pytest.raises(UserError, match="graph 0: expected node numbers from 0 to"):
        split(arrays, "here")
    nodes = Ragged(np.array([2]), {"x": np.zeros((2, 1), np.uint8)})
    with pytest.raises(UserError, match="graph 0: expected node numbers from 0 to 1; got -1 to 1"):
        check(Graphs(nodes, Ragged(np.array([1]), {"index": np.array([[-1, 1]])})), "here")


def test_absent_molecules_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a file and without network, or without PyG."""
    datasets = pytest.importorskip("torch_geometric.datasets")

    def offline(*arguments: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(datasets, "LRGBDataset", offline)
    with pytest.raises(UserError, match=r"peptides_struct\.npz is not there, and Peptides-struct: no network"):
        STRUCT.load(tmp_path)
    monkeypatch.delattr(datasets, "LRGBDataset")
    with pytest.raises(UserError, match=r"pcqm_contact\.npz is not there; pip install"):
        CONTACT.load(tmp_path)


def downloaded(folder: Path, source: Molecules, arrays: dict[str, np.ndarray]) -> None:
    """Leaves in the folder what PyG's data set finds in its archive: a list of tuples of tensors a part."""
    raw = folder / "lrgb" / source.dataset.lower() / "raw"
    raw.mkdir(parents=True)
    first = {name: np.cumsum(arrays[name]) - arrays[name] for name in ("num_nodes", "num_edges")}
    for part in ("train", "val", "test"):
        graphs = []
        for number in arrays[part]:
            node, edge = (slice(first[name][number], first[name][number] + arrays[name][number]) for name in first)
            given = [arrays["x"][node], arrays["edge_attr"][edge], arrays["edge_index"][:, edge]]
            if source is CONTACT:
                given += [np.array([[0, 1], [2, 2]]), np.array([1, 0])]
            graphs.append(tuple(torch.from_numpy(value.astype(int)) for value in given))
            if source is STRUCT:
                graphs[-1] += (number + torch.arange(11.0)[None],)
        torch.save(graphs, raw / f"{part}.pt")


@pytest.mark.parametrize("source", [STRUCT, CONTACT], ids=["struct", "contact"])
def test_what_pyg_downloads_is_kept_in_our_schema(
    source: Molecules, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets, arrays = pytest.importorskip("torch_geometric.datasets"), molecules()
    downloaded(tmp_path, source, arrays)
    found = convert(datasets.LRGBDataset(tmp_path / "lrgb", source.dataset, "val"))
    assert found["num_nodes"].tolist() == arrays["num_nodes"][10:20].tolist()
    parts = source.load(tmp_path)
    monkeypatch.delattr(datasets, "LRGBDataset")
    again = source.load(tmp_path)["test"]
    assert {name: len(part) for name, part in parts.items()} == {"train": 10, "valid": 10, "test": 10}
    assert np.array_equal(again.nodes.columns["x"], arrays["x"][arrays["num_nodes"][:20].sum() :])
    if source is CONTACT:
        batch = Padded(Channels(PEPTIDES.node_classes, PEPTIDES.edge_classes))(again.take(slice(0, 2)))
        assert batch["pair"].tolist() == [[0, 0, 2], [0, 1, 2], [1, 0, 2], [1, 1, 2]]
        assert batch["label"].tolist() == [1, 0, 1, 0]
    else:
        assert again.targets is not None
        np.testing.assert_allclose(again.targets, standardised(np.arange(30.0)[:, None])[20:].repeat(11, 1), rtol=1e-5)


def test_a_damaged_download_is_told(tmp_path: Path) -> None:
    """PyG keeps the archive and would stumble over it for ever."""
    pytest.importorskip("torch_geometric.datasets")
    (tmp_path / "lrgb").mkdir()
    (tmp_path / "lrgb" / "peptidesstruct.zip").write_bytes(b"half of it")
    with pytest.raises(UserError, match=f"{tmp_path / 'lrgb'}: damaged download .*; delete it to get it again"):
        STRUCT.load(tmp_path)


def test_one_of_several_processes_makes_a_file(tmp_path: Path) -> None:
    """Threads stand for processes, as a lock belongs to who opened it; each would be making it when the next looks."""
    made = []

    def make() -> dict[str, np.ndarray]:
        made.append(1)
        time.sleep(0.2)
        return {"v": np.arange(3)}

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: cached(tmp_path / "new" / "v.npz", make, ["v"], {"v": 1}), range(4)))
    assert made == [1]


def test_large_graphs_and_missing_classes_are_told(graphs: Graphs) -> None:
    nodes = Ragged(np.array([189]), {"x": np.zeros((189, 1), np.uint8), "label": np.arange(189) % 2})
    with pytest.raises(UserError, match="test: graph 0: expected at most 188 nodes; got 189"):
        PATTERN.check(Graphs(nodes, Ragged(np.array([0]), {"index": np.zeros((0, 2), int)})), "test")
    nodes = Ragged(np.array([3]), {"x": np.zeros((3, 1), np.uint8), "label": np.zeros(3, int)})
    with pytest.raises(UserError, match="valid: class 1 never occurs"):
        PATTERN.check(Graphs(nodes, Ragged(np.array([0]), {"index": np.zeros((0, 2), int)})), "valid")
