"""EXP (Abboud et al., arXiv 2010.01179): 600 pairs of graphs (2k, 2k+1) that 1-WL cannot tell apart, labels 1 and 0."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ..batches import Batch
from ..errors import UserError
from ..npz import Arrays, read_npz
from .dense import pad

WIDTH = 64  # nodes of the largest graph
FIELDS = ("num_nodes", "num_edges", "x", "edge_index", "y")
SOURCE = "GRAPHSAT.pkl (github.com/ralphabb/GNN-RNI, Data/EXP/raw)"
CONVERTER = "python experiments/scripts/convert_exp.py GRAPHSAT.pkl exp.npz"


def load(folder: Path) -> Batch:
    """adjacency (B, 64, 64), nodes (B, 64, 2), mask (B, 64), target (B,), from exp.npz.

    Raises UserError if it is not there, is damaged, or holds something else.
    """
    path = folder / "exp.npz"
    if not path.exists():
        raise UserError(f"--data {folder}: expected exp.npz; make it of {SOURCE} by {CONVERTER}")
    arrays = read_npz(path, FIELDS)
    try:
        return tensors(arrays)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def tensors(arrays: Arrays) -> Batch:
    """Checked and padded; the node type 0 or 1 as two indicators.

    Raises UserError, naming the array, if it is not EXP.
    """
    x = arrays["x"]
    y = arrays["y"]
    if x.ndim != 2 or x.shape[1] != 1 or not np.isin(x, (0, 1)).all():
        raise UserError(f"x: expected node types 0 and 1 of shape (sum of num_nodes, 1); got shape {x.shape}")
    if y.shape != arrays["num_nodes"].shape or not np.isin(y, (0, 1)).all():
        raise UserError(f"y: expected a label 0 or 1 for each graph; got shape {y.shape}")
    if len(y) % 2:
        raise UserError(f"y: expected pairs of graphs; got {len(y)} graphs")
    batch = pad(arrays | {"x": np.concatenate([x == 0, x == 1], 1)}, WIDTH)
    return batch | {"target": torch.from_numpy(y.astype(np.float32))}
