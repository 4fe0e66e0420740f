"""Files in the data folder, which all runs share: made once, by one of several processes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from probsym.files import clean, write


def once(path: Path, make: Callable[[], bytes]) -> None:
    """Makes a file that is not there; of several processes one does, and the others wait for it."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = path.with_name(f".{path.name}.lock")
    with FileLock(lock):
        try:
            clean(path.parent, path.name)
            if not path.exists():
                write(path, make())
        finally:
            lock.unlink(missing_ok=True)  # who waits for it sees that it is gone, and asks for a new one
