"""The molecules of the Long Range Graph Benchmark (arXiv 2206.08164) from npz files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError
from .storage import Arrays, Graphs, Ragged, check, read

PEPTIDE_ATOMS = (17, 3, 7, 7, 5, 1, 6, 2, 2)  # classes of each atom feature
PEPTIDE_BONDS = (4, 1, 2)
FIELDS = ("num_nodes", "num_edges", "x", "edge_index", "edge_attr", "y", "train", "val", "test")
PART_OF = {"train": "train", "val": "valid", "test": "test"}


def load_peptides_func(folder: Path) -> dict[str, Graphs]:
    """The official molecules and split from peptides_func.npz; raises UserError if it is absent or damaged."""
    path = folder / "peptides_func.npz"
    if not path.exists():
        raise UserError(f"--data {folder}: expected peptides_func.npz; it is not there")
    return split(read(path, FIELDS, "get it again"), str(path))


def split(arrays: Arrays, where: str) -> dict[str, Graphs]:
    """The parts of a data set.

    Args:
        arrays: num_nodes, num_edges (B,), x (sum N, F), edge_index (2, sum E) with both directions, edge_attr
            (sum E, A), y (B, T), and the graph numbers of train, val and test.
        where: It came from; for messages.
    """
    if arrays["edge_index"].ndim != 2 or len(arrays["edge_index"]) != 2:
        raise UserError(f"{where}: edge_index: expected two rows; got shape {arrays['edge_index'].shape}")
    nodes = Ragged(arrays["num_nodes"].astype(np.int64), {"x": arrays["x"]})
    edges = Ragged(arrays["num_edges"].astype(np.int64), {"index": arrays["edge_index"].T, "attr": arrays["edge_attr"]})
    whole = once(check(Graphs(nodes, edges, arrays["y"]), where))
    return {part: whole.take(_members(arrays[name], len(whole), f"{where}: {name}")) for name, part in PART_OF.items()}


def once(graphs: Graphs) -> Graphs:
    """Of the two directions of each edge the one from the lower node number."""
    index = graphs.edges.columns["index"]
    kept = index[:, 0] <= index[:, 1]
    counts = np.bincount(graphs.edges.graph[kept], minlength=len(graphs))
    edges = Ragged(counts, {name: column[kept] for name, column in graphs.edges.columns.items()})
    return Graphs(graphs.nodes, edges, graphs.targets, graphs.pairs)


def _members(index: NDArray, count: int, where: str) -> NDArray:
    if index.ndim != 1 or index.dtype.kind not in "iu" or (len(index) and not 0 <= index.min() <= index.max() < count):
        raise UserError(f"{where}: expected graph numbers below {count}")
    return index
