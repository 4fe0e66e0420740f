"""`probsym run`: claims a folder, runs an experiment, writes result.json."""

from __future__ import annotations

import json
import math
import platform
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_only

import probsym
from probsym.files import write

from .config import load_config
from .errors import UserError
from .folder import claim, differences, held, recognise, release, threads
from .outcome import Place
from .registry import Experiment, experiment, method_name
from .results import RESULT, read_result

PACKAGES = ("torch", "numpy", "lightning")


def run(
    name: str,
    preset: str,
    overrides: Sequence[str] = (),
    data: Path = Path("data"),
    out: Path | None = None,
    resume: bool = False,
) -> dict[str, Any]:
    """Runs one experiment and returns what it wrote into `out`/result.json; of a finished run, what lies there.

    Raises UserError if anything given is wrong, or `out` holds another run.
    """
    what = experiment(name)
    config = load_config(what, preset, overrides)
    overridden = changed(asdict(config), asdict(load_config(what, preset)))
    called = method_name(preset, asdict(config), overridden)
    out = out or Path("runs") / name / called / f"seed{config.seed}"
    place = Place(called, data, out, resume)
    me = {"experiment": name, "preset": preset, "config": asdict(config)}
    if resume and (out / RESULT).exists():
        recognise(out, me)
        return read_result(out / RESULT)  # nothing is written, so no lock is needed
    code = {"versions": versions(), "commit": commit()}
    if rank_zero_only.rank:  # type: ignore[attr-defined]
        # The first process claims the folder.
        return work(what, config, me | {"overrides": overridden}, place, threads(me) | code)
    with held(out):
        origin = claim(out, me, code, resume)
        if (out / RESULT).exists():  # another process finished it while this one started
            return read_result(out / RESULT)
        return work(what, config, me | {"overrides": overridden}, place, origin)


def work(what: Experiment, config: Any, recipe: dict[str, Any], place: Place, origin: dict[str, Any]) -> dict[str, Any]:
    """Runs an experiment in a folder that is claimed, and writes and returns its result.

    Args:
        recipe: The preset, the config as a dict, and what was changed in the preset.
        origin: With how many threads and what code the run is made.
    """
    start = time.monotonic()
    start_cpu = time.process_time()
    out = place.out
    try:
        with torch_threads(origin["threads"]):
            outcome = what.run(config, place)
    except UserError:
        release(out)
        raise
    earlier, earlier_cpu = outcome.earlier
    result = {
        "experiment": what.name,
        "preset": recipe["preset"],
        "metric": what.metric,
        "value": outcome.value,
        "stderr": outcome.stderr,
        "seed": config.seed,
        "samples": outcome.samples,
        "steps": outcome.steps,
        "wall_s": round(earlier + time.monotonic() - start, 1),
        "cpu_s": round(earlier_cpu + time.process_time() - start_cpu, 1),  # of all threads of this process
        "train_flops": outcome.train_flops,
        "params": sum(outcome.params.values()),
        "params_by_part": outcome.params,
        **outcome.details,
        "device": device(),
        "overrides": recipe["overrides"],
        **origin,
        "config": recipe["config"],
    }
    result = finite(result)
    write(out / RESULT, json.dumps(result, indent=2, allow_nan=False) + "\n")
    return result


def finite(value: Any) -> Any:
    """The same with None for numbers that are none, which JSON does not know."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Lets torch compute with `count` threads, and puts the number that it had back."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def changed(config: dict[str, Any], preset: dict[str, Any]) -> dict[str, Any]:
    """The fields whose value is not the preset's; the seed is no change of recipe."""
    changes = {}
    for name, (_, now) in differences(preset, config).items():
        if name != "seed":
            changes[name] = now
    return changes


def versions() -> dict[str, str]:
    """Of Python and the packages that decide the numbers."""
    by_package = {"python": platform.python_version(), "probsym": probsym.__version__}
    for package in PACKAGES:
        try:
            by_package[package] = version(package)
        except PackageNotFoundError:
            by_package[package] = "unknown"
    return by_package


def device() -> str:
    """The GPU that this process has worked on; cpu where it has not."""
    if torch.cuda.is_initialized():
        return torch.cuda.get_device_name()
    return "cpu"


def commit() -> str | None:
    """Hash of the commit that this package and the library run from; None where they do not run from one checkout.

    "-dirty" follows it if files of either differ from those of the commit.
    """
    heads = set()
    dirty = False
    for package in (Path(__file__).parent, Path(probsym.__file__).parent):
        tracked = git(package, "ls-files", "--error-unmatch", "__init__.py")
        head = git(package, "rev-parse", "HEAD")
        if tracked is None or head is None:
            return None
        heads.add(head)
        dirty = dirty or bool(git(package, "status", "--porcelain", "--", "."))
    if len(heads) > 1:
        return None
    (head,) = heads
    if dirty:
        head += "-dirty"
    return head


def git(folder: Path, *arguments: str) -> str | None:
    """What git says in a folder; None if it fails."""
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
