"""Files that are whole or absent, and the reading of files that may be damaged or made to harm."""

from __future__ import annotations

import json
import os
import tempfile
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from torch import Tensor

LARGEST_JSON = 2**24  # bytes
UNFINISHED = ".{}.????????.tmp"  # a file that `write` has not finished; mkstemp fills in eight characters


def write(path: Path, content: str | bytes | memoryview) -> None:
    """Writes a file in one go: a reader, or a crash, sees the old one or the new one.

    Text is written as UTF-8, whatever the locale.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content.encode("utf-8") if isinstance(content, str) else content)
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def unfinished(path: Path) -> bool:
    """Whether a path has the name of a file that a killed process was writing, or another process is writing now."""
    return fnmatch(path.name, UNFINISHED.format("*"))


def clean(folder: Path, name: str = "*") -> None:
    """Removes what killed processes had begun to write into a folder and those in it.

    Args:
        name: of the file that was to be written; all files unless given. No other process may be writing it now.
    """
    for path in folder.rglob(UNFINISHED.format(name)):
        path.unlink(missing_ok=True)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        ValueError: the file is larger than 16 MiB, damaged, or holds something else; names it.
    """
    size = path.stat().st_size
    if size > LARGEST_JSON:
        raise ValueError(f"{path}: expected at most {LARGEST_JSON} bytes, got {size}")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: damaged file ({error})") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path}: expected a JSON object, got {type(found).__name__}")
    return found


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Raises:
        ValueError: the file is damaged, or a tensor holds NaN; names the file and the tensor.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
    except (SafetensorError, RuntimeError, ValueError, KeyError, TypeError, MemoryError) as error:
        raise ValueError(f"{path}: damaged file ({error})") from error
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and bool(tensor.isnan().any()):
            raise ValueError(f"{path}: {name}: expected numbers, got NaN")
    return tensors
