"""Processes that are killed at given moments, or start at the same moment; a program, so that imports are paid once.

    kill_driver.py FOLDER kill          FOLDER/MOMENT is the folder of a run that was killed at that moment
    kill_driver.py FOLDER race TIMES    prints a line for each race, [[exit code, what it said], ...] of two processes
    kill_driver.py FOLDER race TIMES --resume
    kill_driver.py FOLDER unlocked TIMES

It forks before torch has computed anything, so that no threads are lost.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import toy
from probsym import files
from probsym_experiments import folder as run_folder
from probsym_experiments import runner
from probsym_experiments.cli import main

# The name of the file that is about to take its place, how many of that name came before, and whether the process is
# killed before or after it does. None stands for no file: before the lock, and when it was taken.
MOMENTS: dict[str, tuple[str | None, int, bool]] = {
    "folder made": (None, 0, False),
    "lock taken": (None, 0, True),
    "holder begun": (run_folder.HOLDER, 0, False),
    "run.json begun": (run_folder.IDENTITY, 0, False),
    "run.json written": (run_folder.IDENTITY, 0, True),
    "metrics.csv begun": ("metrics.csv", 0, False),
    "checkpoint begun": ("last.ckpt", 0, False),
    "checkpoint written": ("last.ckpt", 0, True),
    "next checkpoint begun": ("last.ckpt", 1, False),
    "last checkpoint written": ("last.ckpt", 3, True),
    "model begun": ("model.safetensors", 0, False),
    "model half written": ("probsym.json", 0, False),
    "result.json begun": ("result.json", 0, False),
    "result.json written": ("result.json", 0, True),
}
UNCLAIMED = list(MOMENTS)[:4]  # run.json was not there yet
FINISHED = "result.json written"


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def arm(name: str | None, before: int, after: bool) -> None:
    """Makes this process die at a moment."""
    if name is None:
        lock = run_folder.FileLock

        class Deadly(lock):  # type: ignore[misc, valid-type]
            def acquire(self, *arguments: object, **options: object) -> object:
                if after:
                    super().acquire(*arguments, **options)
                die()

        run_folder.FileLock = Deadly  # type: ignore[misc]
        return
    replace, seen = os.replace, []

    def deadly(source: str, target: Path) -> None:
        meant = Path(target).name == name
        here = meant and len(seen) == before
        if meant:
            seen.append(target)
        if here and not after:
            die()
        replace(source, target)
        if here:
            die()

    files.os.replace = deadly  # type: ignore[assignment]


def fork(work: Callable[[], None]) -> int:
    """The number of a process that does some work and ends."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(99)
    return pid


def kill(folder: Path) -> None:
    for name, moment in MOMENTS.items():

        def work(out: Path = folder / name, moment: tuple[str | None, int, bool] = moment) -> None:
            arm(*moment)
            main(["run", "toy", "--preset", "plain", "--data", str(folder / "data"), "--out", str(out)])

        _, status = os.waitpid(fork(work), 0)
        assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL, f"{name}: {os.waitstatus_to_exitcode(status)}"


def race(folder: Path, times: int, *more: str) -> None:
    """Two processes at a time that start together with the same FOLDER/raceN; each tells what it came to.

    Between the look at the folder and the claim they wait a little, so that both would see it empty.
    """
    toy.PAUSE = 0.3
    look = run_folder.empty

    def slowly(out: Path) -> bool:
        found = look(out)
        time.sleep(0.05)
        return found

    run_folder.empty = slowly
    for number in range(times):
        said = [folder / f"said-{number}-{racer}.json" for racer in range(2)]
        start = time.monotonic() + 0.1  # both wait for this moment

        def work(path: Path, number: int = number, start: float = start) -> None:
            arguments = ["run", "toy", "--preset", "plain", *more]
            arguments += ["--data", str(folder / f"of{number}"), "--out", str(folder / f"race{number}")]
            error = io.StringIO()
            while time.monotonic() < start:
                pass
            with contextlib.redirect_stderr(error), contextlib.redirect_stdout(io.StringIO()):
                code = main(arguments)
            path.write_text(json.dumps([code, error.getvalue()]))
            os._exit(0)

        racers = [fork(lambda path=path: work(path)) for path in said]  # type: ignore[misc]
        ends = [os.waitstatus_to_exitcode(os.waitpid(racer, 0)[1]) for racer in racers]
        assert ends == [0, 0], ends
        print(json.dumps([json.loads(path.read_text()) for path in said]))


if __name__ == "__main__":
    where = Path(sys.argv[1])
    toy.install(where / "presets")
    if sys.argv[2] == "kill":
        kill(where)
    if sys.argv[2] == "unlocked":  # the control
        runner.held = lambda out: contextlib.nullcontext(out.mkdir(parents=True, exist_ok=True))  # type: ignore[assignment]
    if sys.argv[2] in ("race", "unlocked"):
        race(where, int(sys.argv[3]), *sys.argv[4:])
