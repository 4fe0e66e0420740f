"""Write files in one go, and read files that may be damaged or malicious."""

from __future__ import annotations

import json
import os
import tempfile
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from torch import Tensor

LARGEST_JSON = 2**24  # bytes
UNFINISHED = ".{}.????????.tmp"  # name of a file while `write` is writing it; mkstemp fills in eight characters


def write(path: Path, content: str | bytes | memoryview) -> None:
    """Write a file in one go: a reader, or a crash, sees the old content or the new one, never a part.

    Text is written as UTF-8, whatever the locale.
    """
    if isinstance(content, str):
        content = content.encode("utf-8")
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(name, 0o644)  # mkstemp lets nobody else read the file
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def unfinished(path: Path) -> bool:
    """Whether a path is a file that `write` has not finished, because its process was killed or is still writing."""
    return fnmatch(path.name, UNFINISHED.format("*"))


def clean(folder: Path, name: str = "*") -> None:
    """Remove the files that killed processes did not finish, in a folder and in all folders below it.

    No other process may be writing there.

    Args:
        name: of the file that was to be written; all files unless given.
    """
    for path in folder.rglob(UNFINISHED.format(name)):
        path.unlink(missing_ok=True)


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        ValueError: the file is larger than 16 MiB, damaged, or holds something else; names the file.
    """
    size = path.stat().st_size
    if size > LARGEST_JSON:
        raise ValueError(f"{path}: expected at most {LARGEST_JSON} bytes, got {size}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: damaged file ({error})") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a JSON object, got {type(content).__name__}")
    return content


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
