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
from .outcome import Place
from .registry import experiment

IDENTITY, RESULT = "run.json", "result.json"
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
    out = out or Path("runs") / name / preset / f"seed{config.seed}"
    start, cpu = time.monotonic(), time.process_time()
    origin = claim(out, name, preset, asdict(config), resume)
    if (out / RESULT).exists():
        return read_json(out / RESULT)
    try:
        with torch_threads(origin["threads"]):
            outcome = what.run(config, Place(preset, data, out, resume))
    except UserError:
        release(out)
        raise
    earlier, earlier_cpu = outcome.earlier
    result = {
        "experiment": name,
        "preset": preset,
        "metric": what.metric,
        "value": outcome.value,
        "stderr": outcome.stderr,
        "seed": config.seed,
        "samples": outcome.samples,
        "steps": outcome.steps,
        "wall_s": round(earlier + time.monotonic() - start, 1),
        "cpu_s": round(earlier_cpu + time.process_time() - cpu, 1),  # of all threads of this process
        "train_flops": outcome.train_flops,
        "params": sum(outcome.params.values()),
        "params_by_part": outcome.params,
        **outcome.details,
        "device": device(),
        "overrides": changed(asdict(config), asdict(load_config(what, preset))),
        **origin,
        "config": asdict(config),
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
    return None if isinstance(value, float) and not math.isfinite(value) else value


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Lets torch compute with `count` threads, and puts the number that it had back."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def claim(out: Path, name: str, preset: str, config: dict[str, Any], resume: bool) -> dict[str, Any]:
    """Marks an empty folder as this run's, or recognises it as such; returns what the run was made with.

    That is its number of threads, its commit and versions, and those it was resumed under where they are others.
    """
    code: dict[str, Any] = {"versions": versions(), "commit": commit()}
    asked = config.get("trainer", {}).get("threads")
    threads = {"threads": asked or torch.get_num_threads()}
    if rank_zero_only.rank:  # type: ignore[attr-defined]
        return threads | code  # the first process claims
    me = {"experiment": name, "preset": preset, "config": config}
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        write(out / IDENTITY, json.dumps(me | threads | code, indent=2) + "\n")
        return threads | code
    if not resume:
        raise UserError(
            f"--out {out}: expected a new or empty folder; it holds another run (continue it with --resume)"
        )
    if not (out / IDENTITY).is_file():
        raise UserError(f"--resume: {out}: expected a folder that holds a run; there is no {IDENTITY}")
    other = read_json(out / IDENTITY)
    older = asdict(experiment(name).config()) | other.get("config", {})  # fields that are younger than the run
    differ = [f"{k}: {other.get(k)!r}, not {me[k]!r}" for k in ("experiment", "preset") if other.get(k) != me[k]]
    differ += [f"{k}: {was!r}, not {now!r}" for k, (was, now) in _differences(older, config).items()]
    if differ:
        raise UserError(f"--resume: {out} holds a run of {'; '.join(differ)}")
    kept = {"threads": other["threads"]} if "threads" in other else threads  # older runs do not know theirs
    if asked not in (None, kept["threads"]):
        raise UserError(
            f"--trainer.threads {asked}: {out} was begun with {kept['threads']} threads; with others it would not end "
            "the same, so leave the option out"
        )
    origin = kept | since(other, code)
    if other | origin != other and not (out / RESULT).exists():
        write(out / IDENTITY, json.dumps(other | origin, indent=2) + "\n")
    return origin


def since(identity: dict[str, Any], code: dict[str, Any]) -> dict[str, Any]:
    """What a run has been made with that goes on with `code`; one too old to tell was made with that all along.

    >>> since({"commit": "a", "versions": {}}, {"commit": "b", "versions": {}})
    {'commit': 'a', 'versions': {}, 'resumed': [{'commit': 'b', 'versions': {}}]}
    """
    first = code | {name: identity[name] for name in code if name in identity}
    resumed = identity.get("resumed", [])
    if code != [first, *resumed][-1]:
        resumed = [*resumed, code]
    return first | ({"resumed": resumed} if resumed else {})


def release(out: Path) -> None:
    """Empties a folder that holds no more than the claim, so that the same command may start again."""
    if [path.name for path in out.iterdir()] == [IDENTITY]:
        (out / IDENTITY).unlink(missing_ok=True)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object, or a UserError that names the file."""
    try:
        found = json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"{path}: damaged file ({error})") from error
    if not isinstance(found, dict):
        raise UserError(f"{path}: expected a JSON object; got {type(found).__name__}")
    return found


def changed(config: dict[str, Any], preset: dict[str, Any]) -> dict[str, Any]:
    """The fields whose value is not the preset's; the seed is no change of recipe."""
    return {name: now for name, (_, now) in _differences(preset, config).items() if name != "seed"}


def _differences(was: dict[str, Any], now: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Fields that differ, apart from how Lightning's Trainer runs."""
    names = [name for name in was | now if name != "trainer"]
    return {name: (was.get(name), now.get(name)) for name in names if was.get(name) != now.get(name)}


def versions() -> dict[str, str]:
    """Of Python and the packages that decide the numbers."""
    found = {"python": platform.python_version(), "probsym": probsym.__version__}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "unknown"
    return found


def device() -> str:
    """The GPU that this process has worked on; cpu where it has not."""
    return torch.cuda.get_device_name() if torch.cuda.is_initialized() else "cpu"


def commit() -> str | None:
    """Hash of the checkout this package runs from, with "-dirty" if its files differ from it; None outside one."""
    package = Path(probsym.__file__).parent

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", str(package), *arguments], capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            return None
        return done.stdout.strip()

    tracked, head = git("ls-files", "--error-unmatch", "__init__.py"), git("rev-parse", "HEAD")
    if tracked is None or head is None:
        return None
    return head + ("-dirty" if git("status", "--porcelain", "--", ".") else "")
