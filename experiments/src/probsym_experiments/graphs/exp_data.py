"""EXP (Abboud et al., arXiv 2010.01179): 600 pairs of graphs (2k, 2k+1) that 1-WL cannot tell apart, labels 1 and 0."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..batches import Batch
from ..errors import UserError
from ..npz import Arrays, read_npz
from . import unpickle
from .dense import pad

WIDTH = 64  # nodes of the largest graph
DTYPES = (torch.float64, torch.float32, torch.int64, torch.int32, torch.uint8, torch.bool)
FIELDS = ("num_nodes", "num_edges", "x", "edge_index", "y")
SOURCE = "https://github.com/ralphabb/GNN-RNI, Data/EXP/raw/GRAPHSAT.pkl"


def load(folder: Path) -> Batch:
    """adjacency (B, 64, 64), nodes (B, 64, 2), mask (B, 64), target (B,), from exp.npz or the original GRAPHSAT.pkl.

    Raises UserError if neither is there, or it is damaged or holds something else.
    """
    for name, read in (("exp.npz", read_arrays), ("GRAPHSAT.pkl", read_pickle)):
        if (path := folder / name).exists():
            try:
                return tensors(read(path))
            except UserError as error:
                named = str(error) if str(path) in str(error) else f"{path}: {error}"
                raise UserError(named) from error
    raise UserError(f"--data {folder}: expected exp.npz or GRAPHSAT.pkl (from {SOURCE}); found neither")


def read_arrays(path: Path) -> Arrays:
    """The arrays of exp.npz."""
    return read_npz(path, FIELDS)


def read_pickle(path: Path) -> Arrays:
    """The same arrays from a pickled list of PyG graphs."""
    parts: dict[str, list[Tensor]] = {"x": [], "edge_index": [], "y": []}
    for number, record in enumerate(unpickle.graphs(path)):
        for name, into in parts.items():
            if not isinstance(value := record.find(name), Tensor):
                raise UserError(f"{path}: graph {number}: expected a tensor {name}; got {type(value).__name__}")
            if value.dtype not in DTYPES:
                raise UserError(f"{path}: graph {number}: expected plain numbers {name}; got {value.dtype}")
            into.append(value.detach())
        x, edge_index, y = (part[-1] for part in parts.values())
        if (x.ndim, *x.shape[1:]) != (2, 1) or (edge_index.ndim, *edge_index.shape[:1]) != (2, 2) or y.numel() != 1:
            raise UserError(f"{path}: graph {number}: expected x (N, 1), edge_index (2, E) and one label y")
    if not parts["y"]:
        raise UserError(f"{path}: expected graphs; got an empty list")
    return {
        "num_nodes": np.array([len(x) for x in parts["x"]]),
        "num_edges": np.array([e.shape[1] for e in parts["edge_index"]]),
        "x": torch.cat(parts["x"]).numpy(),
        "edge_index": torch.cat(parts["edge_index"], 1).numpy(),
        "y": torch.cat([y.reshape(1) for y in parts["y"]]).numpy(),
    }


def tensors(arrays: Arrays) -> Batch:
    """Checked and padded; the node type 0 or 1 as two indicators.

    Raises UserError, naming the array, if it is not EXP.
    """
    x, y = arrays["x"], arrays["y"]
    if x.ndim != 2 or x.shape[1] != 1 or not np.isin(x, (0, 1)).all():
        raise UserError(f"x: expected node types 0 and 1 of shape (sum of num_nodes, 1); got shape {x.shape}")
    if y.shape != arrays["num_nodes"].shape or not np.isin(y, (0, 1)).all():
        raise UserError(f"y: expected a label 0 or 1 for each graph; got shape {y.shape}")
    if len(y) % 2:
        raise UserError(f"y: expected pairs of graphs; got {len(y)} graphs")
    batch = pad(arrays | {"x": np.concatenate([x == 0, x == 1], 1)}, WIDTH)
    return batch | {"target": torch.from_numpy(y.astype(np.float32))}
