"""Data sets in the data folder, which all runs share: made once by one of several processes, and checked when read."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
from filelock import FileLock

from probsym.files import clean, write

from .npz import Arrays, expect_axes, read_npz


def cached(
    path: Path,
    make: Callable[[], Arrays],
    names: Iterable[str],
    axes: Mapping[str, int],
    advice: str = "delete it and it will be made again",
) -> Arrays:
    """The arrays of an npz file, which is made if it is not there.

    Args:
        make: Simulates, draws or downloads them.
        names: Of the arrays that are read.
        axes: How many each has.
        advice: What to do if the file is damaged; ends the message.

    Raises:
        UserError: the file is damaged or holds something else; names it.
    """
    once(path, lambda: pack(make()))
    return expect_axes(read_npz(path, names, advice), axes, str(path))


def pack(arrays: Arrays) -> bytes:
    """The content of an npz file."""
    packed = io.BytesIO()
    np.savez_compressed(packed, **arrays)  # type: ignore[arg-type]  # its stub reads ** as allow_pickle
    return packed.getvalue()


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
