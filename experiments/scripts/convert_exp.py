"""Converts GRAPHSAT.pkl, the EXP data as they are published, to the exp.npz that the experiments read.

    python experiments/scripts/convert_exp.py GRAPHSAT.pkl exp.npz

GRAPHSAT.pkl is in github.com/ralphabb/GNN-RNI under Data/EXP/raw. A pickle names functions that are called while it is
read. This reader knows the few names that a list of PyG graphs needs, and refuses all others.
"""

from __future__ import annotations

import io
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from probsym.files import write

LARGEST_FILE = 2**28  # bytes; GRAPHSAT.pkl has some millions
FIELDS = ("x", "edge_index", "y")


class Record:
    """Stands for a PyG graph, or for the store in it: it keeps what it is given, and does nothing."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.given = dict(state)

    def find(self, name: str) -> Any:
        """A field: in graphs of PyG 1 an attribute, in those of PyG 2 an entry of a store."""
        fields = self.given
        if isinstance(fields.get("_store"), Record):
            fields = fields["_store"].given["_mapping"]
        return fields.get(name)


def read_storage(content: bytes) -> Any:
    """The numbers of a tensor. What torch saved is a pickle itself; `weights_only` admits nothing but numbers there."""
    return torch.load(io.BytesIO(content), weights_only=True)


ADMITTED: dict[tuple[str, str], Any] = {
    ("torch_geometric.data.data", "Data"): Record,
    ("torch_geometric.data.data", "DataEdgeAttr"): Record,
    ("torch_geometric.data.data", "DataTensorAttr"): Record,
    ("torch_geometric.data.storage", "GlobalStorage"): Record,
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
    ("torch.storage", "_load_from_bytes"): read_storage,
    ("collections", "OrderedDict"): dict,  # the hooks of a tensor, none
}


class Reader(pickle.Unpickler):
    """An unpickler that knows no names but those above."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ADMITTED:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which a list of graphs does not need")
        return ADMITTED[module, name]


def convert(content: bytes) -> dict[str, Any]:
    """The arrays of exp.npz from the content of GRAPHSAT.pkl.

    Raises:
        ValueError: the content is no list of graphs, is damaged, or names anything else.
    """
    try:
        graphs = Reader(io.BytesIO(content)).load()
    except Exception as error:  # bytes that are no pickle can raise anything
        raise ValueError(f"refused or damaged pickle: {str(error) or type(error).__name__}") from error
    if not isinstance(graphs, list) or not graphs or not all(isinstance(graph, Record) for graph in graphs):
        raise ValueError("expected a list of PyG graphs")
    parts: dict[str, list[Tensor]] = {name: [] for name in FIELDS}
    for number, graph in enumerate(graphs):
        for name in FIELDS:
            value = graph.find(name)
            if not isinstance(value, Tensor):
                raise ValueError(f"graph {number}: expected a tensor {name}; got {type(value).__name__}")
            parts[name].append(value.detach())
    return {
        "num_nodes": np.array([len(x) for x in parts["x"]]),
        "num_edges": np.array([index.shape[1] for index in parts["edge_index"]]),
        "x": torch.cat(parts["x"]).numpy(),
        "edge_index": torch.cat(parts["edge_index"], 1).numpy(),
        "y": torch.cat([y.reshape(1) for y in parts["y"]]).numpy(),
    }


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    if not source.is_file():
        sys.exit(f"{source}: no such file; expected GRAPHSAT.pkl")
    if target.exists():
        sys.exit(f"{target} exists: remove it, or give another name")
    if source.stat().st_size > LARGEST_FILE:
        sys.exit(f"{source}: expected at most {LARGEST_FILE} bytes; got {source.stat().st_size}")
    try:
        arrays = convert(source.read_bytes())
    except ValueError as error:
        sys.exit(f"{source}: {error}")
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)
    write(target, content.getvalue())  # under its name only when it is complete
    print(f"{target}: {len(arrays['y'])} graphs")


if __name__ == "__main__":
    main()
