"""What graphs look like as numbers: categories as indicators, random walks as structure."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import UserError
from .storage import Graphs, Ragged

GRAPHS = 500  # whose walks are followed at a time


def width(classes: Sequence[int]) -> int:
    """Indicators of features with so many classes: one each, but one for two classes and none for one."""
    return sum(_columns(count) for count in classes)


def indicators(values: NDArray, classes: Sequence[int]) -> Tensor:
    """Categories (R, F) as 0 and 1 (R, W).

    >>> indicators(np.array([[2, 0, 1], [0, 0, 0]]), (3, 1, 2)).tolist()
    [[0.0, 0.0, 1.0, 1.0], [1.0, 0.0, 0.0, 0.0]]
    """
    numbers = torch.from_numpy(values.astype(np.int64))
    parts = []
    for column, count in enumerate(classes):
        value = numbers[:, column, None]
        parts.append((value == torch.arange(count - _columns(count), count)).float())
    return torch.cat(parts, 1)


def _columns(count: int) -> int:
    return count if count > 2 else count - 1


def check_classes(values: NDArray, classes: Sequence[int], where: str) -> None:
    """Raises UserError unless the categories (R, F) are those expected."""
    if values.ndim != 2 or values.shape[1] != len(classes) or values.dtype.kind not in "iu":
        raise UserError(f"{where}: expected {len(classes)} integer columns; got {values.dtype} of shape {values.shape}")
    if len(values) and ((values.min(0) < 0).any() or (wrong := values.max(0) >= np.array(classes)).any()):
        column = int(np.argmax(wrong)) if (values.min(0) >= 0).all() else int(np.argmax(values.min(0) < 0))
        raise UserError(f"{where}: column {column}: expected categories below {classes[column]}")


def with_walks(graphs: Graphs, steps: int) -> Graphs:
    """The same graphs with column walks (sum N, T): probability that a walk is back after 1, ..., T = `steps` steps.

    arXiv 2110.07875. One sparse pass over all graphs.
    """
    if not steps:
        return graphs
    found = [return_probabilities(graphs.take(slice(i, i + GRAPHS)), steps) for i in range(0, len(graphs), GRAPHS)]
    nodes = Ragged(graphs.nodes.counts, graphs.nodes.columns | {"walks": np.concatenate(found)})
    return Graphs(nodes, graphs.edges, graphs.targets, graphs.pairs)


def return_probabilities(graphs: Graphs, steps: int) -> NDArray:
    """(sum N, steps), from S = D^-1/2 A D^-1/2 of all graphs: (S^(a + b))_ii = sum_j (S^a)_ij (S^b)_ij."""
    count, link = int(graphs.sizes.sum()), torch.from_numpy(joined(graphs))
    degree = torch.bincount(link[0], minlength=count).float()
    weight = (degree[link[0]] * degree[link[1]]).rsqrt()
    powers = [torch.sparse_coo_tensor(link, weight, (count, count), check_invariants=False).coalesce()]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR")  # beta; torch's own means
        while 2 * len(powers) < steps:
            powers.append(torch.sparse.mm(powers[-1], powers[0]).coalesce())
    row, column = powers[0].indices()
    loops = torch.zeros(count).index_add_(0, row, powers[0].values() * (row == column))
    found = [loops]
    for t in range(2, steps + 1):
        product = powers[(t + 1) // 2 - 1] * powers[t // 2 - 1]
        found.append(torch.sparse.sum(product, 1).to_dense())
    return torch.stack(found, 1).numpy()


def joined(graphs: Graphs) -> NDArray:
    """Both directions of all edges (2, 2 sum E) with node numbers of the batch as one graph; a self-loop once."""
    shift = np.repeat(graphs.nodes.starts, graphs.edges.counts)[:, None]
    link = graphs.edges.columns["index"].astype(np.int64) + shift
    back = link[link[:, 0] != link[:, 1]][:, ::-1]
    return np.ascontiguousarray(np.concatenate([link, back]).T)
