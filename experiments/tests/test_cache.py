"""Files of the data folder: made once, and never half."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from probsym_experiments.cache import once


def test_a_file_is_made_once(tmp_path: Path) -> None:
    made = []

    def make() -> bytes:
        made.append(1)
        return b"content"

    path = tmp_path / "folder" / "data.npz"
    for _ in range(2):
        once(path, make)
    assert path.read_bytes() == b"content"
    assert made == [1]


def test_threads_that_start_together_make_it_once(tmp_path: Path) -> None:
    """Eight of them, which wait for a lock that is removed meanwhile."""
    made = []
    barrier = Barrier(8)

    def work(number: int) -> None:
        barrier.wait(timeout=60)
        for file in range(5):

            def make(file: int = file) -> bytes:
                made.append(file)
                time.sleep(0.01)
                return b"content"

            once(tmp_path / f"{file}.npz", make)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert sorted(made) == list(range(5))


def test_what_a_killed_process_began_is_removed(tmp_path: Path) -> None:
    """Of this file; other processes may be writing other ones."""
    (tmp_path / ".data.npz.abcdefgh.tmp").write_text("half")
    (tmp_path / ".other.npz.abcdefgh.tmp").write_text("half")
    once(tmp_path / "data.npz", lambda: b"content")
    assert {path.name for path in tmp_path.iterdir()} == {"data.npz", ".other.npz.abcdefgh.tmp"}


def test_nothing_is_left_if_it_cannot_be_made(tmp_path: Path) -> None:
    def fail() -> bytes:
        raise ValueError("no data")

    with pytest.raises(ValueError, match="no data"):
        once(tmp_path / "data.npz", fail)
    assert list(tmp_path.iterdir()) == []
