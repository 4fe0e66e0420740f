"""Reads a pickle of PyG graphs without running it: only what such a file needs is admitted, all else is refused.

A pickle names functions that are to be called while it is read. Here a few names are known, and each stands for
something harmless of our own: torch_geometric's Data and its parts become plain records, storages are read from the
bytes that the pickle holds, tensors are views of them, and the hooks of a tensor are left out.
"""

from __future__ import annotations

import io
import math
import pickle
import struct
from collections.abc import Callable
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


def _storage(content: bytes) -> Tensor:
    """The numbers of a storage that torch saved, (N,).

    Such content is five small pickles (two marks, facts of the machine, what is stored, its key), then the number of
    entries and the entries. They are taken from `content` as they are, so that no claim costs memory.
    """
    file = io.BytesIO(content)
    reader = _StorageReader(file)
    for _ in range(3):
        reader.load()
    dtype = reader.load()
    reader.load()
    (count,) = struct.unpack("<q", file.read(8))
    if not isinstance(dtype, torch.dtype) or count < 0 or count * dtype.itemsize != len(content) - file.tell():
        raise pickle.UnpicklingError(f"a storage of {dtype} claims {count} entries, which are not what it holds")
    return torch.frombuffer(bytearray(file.read()), dtype=dtype) if count else torch.empty(0, dtype=dtype)


class _StorageReader(pickle.Unpickler):
    """Reads what torch writes before the entries of a storage; the storage itself stands for its type."""

    def find_class(self, module: str, name: str) -> Any:
        if module != "torch" or name not in STORED:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which a storage of numbers does not need")
        return STORED[name]

    def persistent_load(self, saved: Any) -> Any:
        kind, dtype, *_ = saved
        if kind != "storage":
            raise pickle.UnpicklingError(f"expected a storage, got {kind!r}")
        return dtype


STORED = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Tensor:
    """A tensor that lies within its storage and is no larger; hooks are left out."""
    if not isinstance(storage, Tensor):
        raise pickle.UnpicklingError(f"expected a storage, got {type(storage).__name__}")
    for numbers in ((offset,), size, stride):
        if not isinstance(numbers, tuple) or any(type(n) is not int or n < 0 for n in numbers):
            raise pickle.UnpicklingError(f"expected offset, shape and strides that are not negative, got {numbers!r}")
    if len(size) != len(stride):
        raise pickle.UnpicklingError(f"expected a stride for each axis, got {size} and {stride}")
    count = math.prod(size)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if count > len(storage) or (count and last >= len(storage)):
        raise pickle.UnpicklingError(f"a tensor of shape {size} claims more than its storage holds")
    return storage.as_strided(size, stride, offset) if count else storage.new_empty(size)


class _Made:
    """Stands for a function or class that a pickle calls. It has no attributes that a pickle could change."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable[..., Any]) -> None:
        self._make = make

    def __call__(self, *arguments: Any) -> Any:
        return self._make(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("it changes what it may only call")


ADMITTED: dict[tuple[str, str], Any] = {
    ("torch_geometric.data.data", "Data"): Record,
    ("torch_geometric.data.data", "DataEdgeAttr"): Record,
    ("torch_geometric.data.data", "DataTensorAttr"): Record,
    ("torch_geometric.data.storage", "GlobalStorage"): Record,
    ("torch._utils", "_rebuild_tensor_v2"): _Made(_tensor),
    ("torch.storage", "_load_from_bytes"): _Made(_storage),
    ("collections", "OrderedDict"): _Made(lambda *entries: {}),  # the hooks of a tensor, which are left out
}
LARGEST = 2**28  # bytes of a file; GRAPHSAT.pkl has some millions


class _Restricted(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ADMITTED:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which a list of graphs does not need")
        return ADMITTED[module, name]


def graphs(path: Path) -> list[Record]:
    """The records of a pickled list of graphs.

    Raises UserError if the file is damaged, holds something else, or names anything that is not admitted.
    """
    if path.stat().st_size > LARGEST:
        raise UserError(f"{path}: expected at most {LARGEST} bytes; got {path.stat().st_size}")
    content = path.read_bytes()
    try:
        found = _Restricted(io.BytesIO(content)).load()
    except Exception as error:  # bytes that are no pickle can raise anything
        raise UserError(f"{path}: refused or damaged pickle: {str(error) or type(error).__name__}") from error
    if not isinstance(found, list) or not all(isinstance(item, Record) for item in found):
        raise UserError(f"{path}: expected a pickled list of torch_geometric Data; got {type(found).__name__}")
    return found
