"""What graphs look like as numbers: categories as indicators, random walks as structure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import UserError
from .storage import Graphs, Ragged


def width(classes: Sequence[int]) -> int:
    """Indicators of features with so many classes: one each, but one for two classes and none for one."""
    total = 0
    for count in classes:
        total += _columns(count)
    return total


def indicators(values: NDArray, classes: Sequence[int], full: bool = False) -> Tensor:
    """Categories (R, F) as 0 and 1 (R, W), `width(classes)` columns; with `full` one for every class.

    >>> indicators(np.array([[2, 0, 1], [0, 0, 0]]), (3, 1, 2)).tolist()
    [[0.0, 0.0, 1.0, 1.0], [1.0, 0.0, 0.0, 0.0]]
    """
    numbers = torch.from_numpy(values.astype(np.int64))
    parts = []
    for column, count in enumerate(classes):
        value = numbers[:, column, None]
        columns = count if full else _columns(count)
        parts.append((value == torch.arange(count - columns, count)).float())
    return torch.cat(parts, 1)


def _columns(count: int) -> int:
    """Indicators of one feature with so many classes."""
    if count > 2:
        return count
    return count - 1


def check_classes(values: NDArray, classes: Sequence[int], where: str) -> None:
    """Raises UserError unless the categories (R, F) are those expected."""
    if values.ndim != 2 or values.shape[1] != len(classes) or values.dtype.kind not in "iu":
        raise UserError(f"{where}: expected {len(classes)} integer columns; got {values.dtype} of shape {values.shape}")
    if not len(values):
        return
    for wrong in (values.min(0) < 0, values.max(0) >= np.array(classes)):
        if wrong.any():
            column = int(np.argmax(wrong))
            raise UserError(f"{where}: column {column}: expected categories below {classes[column]}")


def with_walks(graphs: Graphs, steps: int) -> Graphs:
    """The same graphs with column walks (sum N, T): probability that a walk is back after 1, ..., T = `steps` steps.

    PyG computes them (arXiv 2110.07875), graph by graph.
    """
    if not steps:
        return graphs
    # PyG takes seconds to import, and most runs do without walks.
    from torch_geometric.data import Data
    from torch_geometric.transforms import AddRandomWalkPE

    add_walks = AddRandomWalkPE(steps, attr_name="walks")
    walks = []
    for number, size in enumerate(graphs.sizes):
        link = torch.from_numpy(both_directions(graphs.take(slice(number, number + 1))))
        walks.append(add_walks(Data(edge_index=link, num_nodes=int(size))).walks.numpy())
    nodes = Ragged(graphs.nodes.counts, graphs.nodes.columns | {"walks": np.concatenate(walks)})
    return Graphs(nodes, graphs.edges, graphs.targets, graphs.pairs)


def both_directions(graphs: Graphs) -> NDArray:
    """Both directions of all edges (2, 2 sum E) with node numbers of the batch as one graph; a self-loop once."""
    shift = np.repeat(graphs.nodes.starts, graphs.edges.counts)[:, None]
    link = graphs.edges.columns["index"].astype(np.int64) + shift
    no_loop = link[:, 0] != link[:, 1]
    back = link[no_loop][:, ::-1]
    return np.ascontiguousarray(np.concatenate([link, back]).T)
