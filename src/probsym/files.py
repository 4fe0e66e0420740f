"""Files that are whole or absent."""

from __future__ import annotations

import os
import tempfile
from fnmatch import fnmatch
from pathlib import Path

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
