"""The folder of a run: which process works in it, whose run it holds, and what a killed process left there."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from probsym.files import clean, unfinished, write

from .errors import UserError
from .registry import experiment
from .results import IDENTITY, RESULT, read_identity, read_json

LOCK = ".lock"  # what is locked
HOLDER = ".holder.json"  # who holds it


@contextmanager
def held(out: Path) -> Iterator[None]:
    """Keeps all other processes out of a run's folder until the block ends; makes the folder if it is absent.

    The lock belongs to the process: the system frees it when the process ends, however it ends.

    Raises UserError if another process holds it, or if the folder holds something, but no run.
    """
    _refuse_other_content(out)
    out.mkdir(parents=True, exist_ok=True)
    lock = FileLock(out / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise UserError(f"--out {out}: {_holder(out)} works there; wait for it, or choose another folder") from error
    try:
        me = {"pid": os.getpid(), "host": platform.node(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
        write(out / HOLDER, json.dumps(me) + "\n")
        yield
    finally:
        (out / HOLDER).unlink(missing_ok=True)
        if [path.name for path in out.glob("*")] == [LOCK]:
            (out / LOCK).unlink()  # nothing was made; who has opened the file meanwhile sees that it is gone
        lock.release()


def _holder(out: Path) -> str:
    """Who holds a folder, in words."""
    try:
        other = read_json(out / HOLDER)
        return f"process {other['pid']} on {other['host']} (since {other['since']})"
    except (OSError, UserError, KeyError):
        return "another process"  # it took the lock this very moment, and has not told its name yet


def _refuse_other_content(out: Path) -> None:
    """Raises UserError if a folder holds something, but no run: it is then left as it is, without a lock."""
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out}: expected a folder; it is a file")
    if not empty(out) and not (out / IDENTITY).is_file():
        raise UserError(f"--out {out}: expected a new or empty folder, or that of a run; it holds no {IDENTITY}")


def empty(out: Path) -> bool:
    """Whether a folder is absent, or holds no more than the lock and what a killed process had begun to write."""
    if not out.is_dir():
        return True
    for path in out.iterdir():
        if path.name not in (LOCK, HOLDER) and not unfinished(path):
            return False
    return True


def claim(out: Path, run: dict[str, Any], code: dict[str, Any], resume: bool) -> dict[str, Any]:
    """Marks an empty folder as this run's, or recognises it as such; returns what the run was made with.

    That is its number of threads, its commit and versions, and those it was resumed under where they are others.

    Args:
        run: Its experiment, preset and config.
        code: The present commit and versions.
    """
    if empty(out):
        clean(out)
        write(out / IDENTITY, json.dumps(run | threads(run) | code, indent=2) + "\n")
        return threads(run) | code
    if not resume:
        state = "a finished run (--resume prints its result)"
        if not (out / RESULT).exists():
            state = "a run that was interrupted (--resume continues it)"
        raise UserError(f"--out {out}: expected a new or empty folder; it holds {state}")
    identity = recognise(out, run)
    clean(out)
    kept = threads(run)
    if "threads" in identity:  # older runs do not know theirs
        kept = {"threads": identity["threads"]}
    if _asked(run) not in (None, kept["threads"]):
        raise UserError(
            f"--trainer.threads {_asked(run)}: {out} was begun with {kept['threads']} threads; with others it would "
            "not end the same, so leave the option out"
        )
    origin = kept | since(identity, code)
    if identity | origin != identity and not (out / RESULT).exists():
        write(out / IDENTITY, json.dumps(identity | origin, indent=2) + "\n")
    return origin


def threads(run: dict[str, Any]) -> dict[str, int]:
    """With how many threads a new run computes."""
    return {"threads": _asked(run) or torch.get_num_threads()}


def _asked(run: dict[str, Any]) -> int | None:
    """The threads that the user asked for; None is torch's choice."""
    return run["config"].get("trainer", {}).get("threads")


def recognise(out: Path, run: dict[str, Any]) -> dict[str, Any]:
    """What run.json holds; raises UserError if it is another run's."""
    identity = read_identity(out / IDENTITY)
    changes: dict[str, tuple[Any, Any]] = {}
    for name in ("experiment", "preset"):
        if identity[name] != run[name]:
            changes[name] = (identity[name], run[name])
    if identity["experiment"] == run["experiment"]:
        defaults = asdict(experiment(run["experiment"]).config())  # of fields younger than the run
        changes |= differences(defaults | identity["config"], run["config"])
    if changes:
        texts = [f"{name}: {was!r}, not {now!r}" for name, (was, now) in changes.items()]
        raise UserError(f"--resume: {out} holds a run of {'; '.join(texts)}")
    return identity


def differences(was: dict[str, Any], now: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Fields that differ, apart from how Lightning's Trainer runs."""
    changes = {}
    for name in was | now:
        before = was.get(name)
        after = now.get(name)
        if name != "trainer" and before != after:
            changes[name] = (before, after)
    return changes


def since(identity: dict[str, Any], code: dict[str, Any]) -> dict[str, Any]:
    """What a run has been made with that goes on with `code`; one too old to tell was made with that all along.

    >>> since({"commit": "a", "versions": {}}, {"commit": "b", "versions": {}})
    {'commit': 'a', 'versions': {}, 'resumed': [{'commit': 'b', 'versions': {}}]}
    """
    made_with = dict(code)
    for name in code:
        if name in identity:
            made_with[name] = identity[name]
    resumed = list(identity.get("resumed", []))
    last = made_with
    if resumed:
        last = resumed[-1]
    if code != last:
        resumed.append(code)
    if not resumed:
        return made_with
    return made_with | {"resumed": resumed}


def release(out: Path) -> None:
    """Empties a folder that holds no more than the claim, so that the same command may start again."""
    names = {path.name for path in out.iterdir() if not unfinished(path)}
    if names <= {IDENTITY, LOCK, HOLDER}:
        (out / IDENTITY).unlink(missing_ok=True)
