"""Reads a pickle of PyG graphs without running it: only what such a file needs is admitted, all else is refused.

A pickle names functions that are to be called while it is read. Here a few names are known, and each stands for
something harmless of our own: torch_geometric's Data and its parts become plain records, tensors are rebuilt from their
storage, storages are read by torch's own restricted reader, and OrderedDict is itself.
"""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import UserError


class Record:
    """Stands for a PyG Data, or for the store in it; what the pickle gives it lies apart from its methods."""

    __slots__ = ("given",)

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, dict):
            raise pickle.UnpicklingError(f"expected attributes, got {type(state).__name__}")
        self.given = state

    def find(self, name: str) -> Any:
        """An attribute, in Data of PyG 1 directly, in that of PyG 2 in its store."""
        mine = getattr(self, "given", {})
        store = mine.get("_store", self)
        held = getattr(store, "given", {}) if isinstance(store, Record) else {}
        held = held.get("_mapping", held)
        return held.get(name) if isinstance(held, dict) else None


def _tensor(storage: Any, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Tensor:
    """A tensor without hooks, no larger than its storage; torch checks that it lies within."""
    made = torch._utils._rebuild_tensor_v2(storage, offset, size, stride, False, OrderedDict())  # type: ignore[no-untyped-call]
    if made.nbytes > made.untyped_storage().nbytes():
        raise pickle.UnpicklingError(f"a tensor of shape {tuple(size)} claims more than its storage holds")
    return made


def _storage(content: bytes) -> Any:
    """A storage, by the reader that admits nothing but tensors."""
    return torch.load(io.BytesIO(content), weights_only=True)


ADMITTED: dict[tuple[str, str], Any] = {
    ("torch_geometric.data.data", "Data"): Record,
    ("torch_geometric.data.data", "DataEdgeAttr"): Record,
    ("torch_geometric.data.data", "DataTensorAttr"): Record,
    ("torch_geometric.data.storage", "GlobalStorage"): Record,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch.storage", "_load_from_bytes"): _storage,
    ("collections", "OrderedDict"): OrderedDict,
}


class _Restricted(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ADMITTED:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which a list of graphs does not need")
        return ADMITTED[module, name]


def graphs(path: Path) -> list[Record]:
    """The records of a pickled list of graphs.

    Raises UserError if the file is damaged, holds something else, or names anything that is not admitted.
    """
    try:
        with path.open("rb") as file:
            found = _Restricted(file).load()
    except OSError:
        raise
    except Exception as error:  # bytes that are no pickle can raise anything
        raise UserError(f"{path}: refused or damaged pickle: {str(error) or type(error).__name__}") from error
    if not isinstance(found, list) or not all(isinstance(item, Record) for item in found):
        raise UserError(f"{path}: expected a pickled list of torch_geometric Data; got {type(found).__name__}")
    return found
