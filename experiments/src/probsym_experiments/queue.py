"""Runs that wait for a GPU: an ordered list that calls go through, so that a quarter of an hour of a card is of use."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from probsym.files import write

from .config import load_config
from .errors import UserError
from .registry import experiment, method_name
from .results import RESULT, read_result
from .runner import changed

FILE = Path(__file__).parent / "queue.yaml"
GRACE_S = 60.0  # that a run gets to write its checkpoint
POLL_S = 0.2


@dataclass(frozen=True)
class Job:
    """One training run, and what its number settles.

    Args:
        group: Place of its entry in the list; runs of a group may share a card.
        together: How many of them at once.
    """

    group: int
    settles: str
    experiment: str
    preset: str
    seed: int
    flags: tuple[str, ...] = ()
    together: int = 1

    @cached_property
    def method(self) -> str:
        """The name under which its results go. Raises UserError if the preset or the flags are not good."""
        what = experiment(self.experiment)
        config = asdict(load_config(what, self.preset, [*self.flags, f"--seed={self.seed}"]))
        return method_name(self.preset, config, changed(config, asdict(load_config(what, self.preset))))

    def folder(self, runs: Path) -> Path:
        """Where it runs: apart from runs of the same preset with other flags."""
        name = self.method
        if self.flags:
            name += "-" + "-".join(flag.removeprefix("--").replace("=", "") for flag in self.flags)
        return runs / self.experiment / name / f"seed{self.seed}"

    def published(self, results: Path) -> Path:
        """The file that is committed once it is done."""
        return results / self.experiment / self.folder(Path()).parent.name / f"seed{self.seed}.json"

    def state(self, runs: Path, results: Path) -> str:
        """done, begun or open."""
        if self.published(results).exists() or (self.folder(runs) / RESULT).exists():
            return "done"
        if (self.folder(runs) / "last.ckpt").exists():
            return "begun"
        return "open"

    def command(self, runs: Path, data: Path | None) -> list[str]:
        """What makes it, or goes on with it."""
        command = [sys.executable, "-m", "probsym_experiments", "run", self.experiment, "--preset", self.preset]
        command += [*self.flags, "--seed", str(self.seed), "--out", str(self.folder(runs)), "--resume"]
        command += ["--trainer.progress", "false"]
        if data is not None:
            command += ["--data", str(data)]
        return command


def read(path: Path = FILE) -> list[Job]:
    """The jobs of a list, in order: entry by entry, in each by seed and then by preset.

    Raises UserError for an entry that is not what `queue.yaml` says.
    """
    entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(entries, list):
        raise UserError(f"{path}: expected a list of entries; got {type(entries).__name__}")
    jobs = []
    for number, entry in enumerate(entries):
        try:
            flags = tuple(entry.get("flags", ()))
            together = int(entry.get("together", 1))
            for seed in entry["seeds"]:
                for preset in entry["presets"]:
                    jobs.append(Job(number, entry["settles"], entry["experiment"], preset, int(seed), flags, together))
                    _ = jobs[-1].method  # now, so that a bad entry is told before anything is run
        except UserError as error:
            raise UserError(f"{path}: entry {number + 1}: {error}") from error
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(f"{path}: entry {number + 1}: {type(error).__name__}: {error}") from error
    return jobs


def next_batch(jobs: Sequence[Job], runs: Path, results: Path) -> list[Job]:
    """The first jobs that are not done, as many of one group as one card takes."""
    batch: list[Job] = []
    for job in jobs:
        if job.state(runs, results) == "done":
            continue
        if batch and (job.group != batch[0].group or len(batch) >= batch[0].together):
            break
        batch.append(job)
    return batch


def work(
    jobs: Sequence[Job],
    minutes: float,
    runs: Path,
    results: Path,
    data: Path | None,
    say: Callable[[str], None] = print,
) -> list[Path]:
    """Goes through the list until the time is over; the files of `results` that are new.

    A run that the end of the time meets is asked to stop, and writes a checkpoint. One that fails is told and left out.
    """
    deadline = time.monotonic() + 60 * minutes
    made: list[Path] = []
    left = list(jobs)
    while time.monotonic() < deadline:
        batch = next_batch(left, runs, results)
        if not batch:
            break
        processes = []
        for job in batch:
            say(f"{job.experiment} {job.folder(Path()).parent.name} seed {job.seed}: {job.state(runs, results)}")
            processes.append(subprocess.Popen(job.command(runs, data)))
        _wait(processes, deadline)
        for job, process in zip(batch, processes, strict=True):
            source = job.folder(runs) / RESULT
            if source.exists():
                made.append(keep(read_result(source), job.published(results)))
                say(f"wrote {made[-1]}: commit it")
            elif time.monotonic() < deadline:
                say(f"left out, since it ended with {process.returncode}: {' '.join(job.command(runs, data))}")
                left.remove(job)
    return made


def keep(result: dict[str, Any], path: Path) -> Path:
    """Writes what the program wrote into the published folder; nothing is overwritten."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, json.dumps(result, indent=2, allow_nan=False) + "\n")
    return path


def _wait(processes: Sequence[subprocess.Popen[bytes]], deadline: float) -> None:
    """Until all have ended; those that have not at the deadline are asked to, and in the end made to."""
    asked = False
    while any(process.poll() is None for process in processes):
        now = time.monotonic()
        if now > deadline and not asked:
            for process in processes:
                if process.poll() is None:
                    process.send_signal(signal.SIGTERM)
            asked = True
        if now > deadline + GRACE_S:
            for process in processes:
                process.kill()
        time.sleep(POLL_S)
