"""The molecules of the Long Range Graph Benchmark (arXiv 2206.08164) from npz files, which PyG makes if need be."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..cache import cached
from ..errors import UserError
from ..npz import Arrays
from .storage import Graphs, Ragged, check

PEPTIDE_ATOMS = (17, 3, 7, 7, 5, 1, 6, 2, 2)  # classes of each atom feature
PEPTIDE_BONDS = (4, 1, 2)
CONTACT_ATOMS = (35, 3, 7, 7, 2, 4, 6, 2, 2)
CONTACT_BONDS = (4, 1, 1)
GRAPHS = ("num_nodes", "num_edges", "x", "edge_index", "edge_attr", "train", "val", "test")
TARGETS = ("y",)
PAIRS = ("num_pairs", "pair_index", "pair_label")
AXES = {  # of each array
    "num_nodes": 1,
    "num_edges": 1,
    "x": 2,
    "edge_index": 2,
    "edge_attr": 2,
    "y": 2,
    "num_pairs": 1,
    "pair_index": 2,
    "pair_label": 1,
    "train": 1,
    "val": 1,
    "test": 1,
}
PART_OF = {"train": "train", "val": "valid", "test": "test"}


@dataclass(frozen=True)
class Molecules:
    """A data set of the benchmark.

    Args:
        file: In the data folder. dataset: PyG's name of it.
        labels: Fields that hold what is to be predicted, TARGETS or PAIRS.
        prepare: What is done with the targets (B, T).
    """

    file: str
    dataset: str
    labels: tuple[str, ...] = TARGETS
    prepare: Callable[[NDArray], NDArray] = np.asarray

    def load(self, folder: Path) -> dict[str, Graphs]:
        """The official molecules and split; what PyG downloads is kept as one npz file.

        Raises UserError if neither is to be had, or the file is damaged.
        """
        path = folder / self.file
        arrays = cached(path, lambda: self.fetch(folder), GRAPHS + self.labels, AXES, "delete it to get it again")
        if "y" in self.labels:
            arrays = arrays | {"y": self.prepare(arrays["y"])}
        return split(arrays, str(path))

    def fetch(self, folder: Path) -> Arrays:
        """The arrays of the file from PyG's `LRGBDataset`, which downloads."""
        # 1. The official parts.
        try:
            from torch_geometric.datasets import LRGBDataset
        except ImportError as error:
            raise UserError(
                f'--data {folder}: {self.file} is not there; pip install "probsym[graphs]" gets it'
            ) from error
        parts: dict[str, Arrays] = {}
        try:
            for part in PART_OF:
                parts[part] = convert(LRGBDataset(folder / "lrgb", self.dataset, part))
        except OSError as error:
            raise UserError(f"--data {folder}: {self.file} is not there, and {self.dataset}: {error}") from error
        except zipfile.BadZipFile as error:
            raise UserError(f"{folder / 'lrgb'}: damaged download ({error}); delete it to get it again") from error

        # 2. All graphs one after the other; edge_index has a column an edge, everything else a row.
        arrays: Arrays = {}
        for name in GRAPHS + self.labels:
            if name not in PART_OF:
                axis = int(name == "edge_index")
                arrays[name] = np.concatenate([part[name] for part in parts.values()], axis)

        # 3. Which of them belong to each part.
        first = 0
        for name, part_arrays in parts.items():
            last = first + len(part_arrays["num_nodes"])
            arrays[name] = np.arange(first, last)
            first = last
        return arrays


def convert(dataset: Any) -> Arrays:
    """The arrays of a collated PyG data set: node numbers are local to each graph there too."""
    data = dataset._data
    slices = dataset.slices

    def counts(name: str) -> NDArray:
        return np.diff(slices[name].numpy())

    def small(values: Any) -> NDArray:
        return values.numpy().astype(np.uint8)

    arrays: Arrays = {
        "num_nodes": counts("x"),
        "num_edges": counts("edge_index"),
        "x": small(data.x),
        "edge_index": data.edge_index.numpy().astype(np.int16),
        "edge_attr": small(data.edge_attr),
    }
    if "edge_label_index" in data:
        arrays["num_pairs"] = counts("edge_label_index")
        arrays["pair_index"] = data.edge_label_index.numpy().T.astype(np.int16)
        arrays["pair_label"] = small(data.edge_label)
    else:
        arrays["y"] = data.y.numpy()
    return arrays


def split(arrays: Arrays, where: str) -> dict[str, Graphs]:
    """The parts of a data set.

    Args:
        arrays: num_nodes, num_edges (B,), x (sum N, F), edge_index (2, sum E) with both directions, edge_attr
            (sum E, A), and the graph numbers of train, val and test. Of labelled graphs y (B, T), of labelled pairs
            num_pairs (B,), pair_index (sum L, 2), pair_label (sum L,).
        where: It came from; for messages.
    """
    # 1. All graphs.
    if arrays["edge_index"].ndim != 2 or len(arrays["edge_index"]) != 2:
        raise UserError(f"{where}: edge_index: expected two rows; got shape {arrays['edge_index'].shape}")
    nodes = Ragged(arrays["num_nodes"].astype(np.int64), {"x": arrays["x"]})
    edges = Ragged(arrays["num_edges"].astype(np.int64), {"index": arrays["edge_index"].T, "attr": arrays["edge_attr"]})
    pairs = None
    if "num_pairs" in arrays:
        columns = {"index": arrays["pair_index"], "label": arrays["pair_label"]}
        pairs = Ragged(arrays["num_pairs"].astype(np.int64), columns)
    whole = one_direction(check(Graphs(nodes, edges, arrays.get("y"), pairs), where))

    # 2. The parts that the benchmark names.
    parts = {}
    for name, part in PART_OF.items():
        members = arrays[name]
        if members.ndim != 1 or members.dtype.kind not in "iu":
            raise UserError(f"{where}: {name}: expected graph numbers below {len(whole)}")
        if len(members) and (members.min() < 0 or members.max() >= len(whole)):
            raise UserError(f"{where}: {name}: expected graph numbers below {len(whole)}")
        parts[part] = whole.take(members)
    return parts


def one_direction(graphs: Graphs) -> Graphs:
    """Of the two directions of each edge the one from the lower node number."""
    index = graphs.edges.columns["index"]
    kept = index[:, 0] <= index[:, 1]
    counts = np.bincount(graphs.edges.graph[kept], minlength=len(graphs))
    edges = Ragged(counts, {name: column[kept] for name, column in graphs.edges.columns.items()})
    return Graphs(graphs.nodes, edges, graphs.targets, graphs.pairs)


def standardised(y: NDArray) -> NDArray:
    """Each target with mean 0 and standard deviation 1 over the whole data set, as the benchmark publishes them.

    >>> standardised(np.array([[1.0], [2.0], [3.0]])).tolist()
    [[-1.0], [0.0], [1.0]]
    """
    return ((y - y.mean(0)) / y.std(0, ddof=1)).astype(np.float32)
