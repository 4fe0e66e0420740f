"""Lets every test import its helpers, keeps the tests on one thread, and simulates data for small runs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
# Programs with arguments; doctests are looked for in every file.
collect_ignore = ["ddp_driver.py", "kill_driver.py", "output_driver.py"]

SMALL = [
    "--train_size=64", "--valid_size=16", "--test_size=16", "--steps=60", "--validate_every=20", "--batch_size=32",
    "--valid_samples=1", "--eval_samples=[1,2]", "--samples=2", "--repeats=2", "--trainer.progress=false",
    "--trainer.accelerator=cpu", "--trainer.threads=1", "--tolerances=[]", "--warmup=0", "--ema=0", "--layers=1",
]  # fmt: skip


def without_idle(name: str, preset: str, arguments: Sequence[str], more: Sequence[str] = ()) -> list[str]:
    """The arguments `--field=value` less those that change nothing of a preset with `more`, and so are refused."""
    from probsym_experiments.config import parse
    from probsym_experiments.errors import UserError
    from probsym_experiments.registry import experiment

    fields = [argument for argument in more if argument != "--resume"]
    try:
        uses = parse(experiment(name), ["--preset", str(experiment(name).presets[preset]), *fields]).uses()
    except UserError:
        return list(arguments)
    idle = {field for fits, fields in uses.values() if not fits for field in fields}
    return [a for a in arguments if a.removeprefix("--").partition("=")[0] not in idle]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture
def fitting() -> Callable[[str, str, Sequence[str]], list[str]]:
    return without_idle


@pytest.fixture
def small() -> list[str]:
    return SMALL


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from probsym_experiments.nbody.data import System, load

    folder = tmp_path_factory.mktemp("data")
    load(System(train=64, valid=16, test=16), folder)
    return folder


@pytest.fixture
def run(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Runs `probsym run nbody ...` small; gives exit code, stderr and the result."""
    from probsym_experiments.cli import main

    def start(*arguments: str, out: Path | None = None, preset: str = "gnn-ps"):
        out = out or tmp_path / "out"
        few = without_idle("nbody", preset, SMALL, arguments)
        code = main(["run", "nbody", "--preset", preset, "--data", str(data), "--out", str(out), *few, *arguments])
        result = out / "result.json"
        return code, capsys.readouterr().err, json.loads(result.read_text()) if result.is_file() else None

    return start
