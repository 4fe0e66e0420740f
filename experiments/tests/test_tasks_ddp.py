"""Two processes learn what one does: same losses and metrics from the same global batches, different noise."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from molecules import contacts, keep, molecules

DRIVER = Path(__file__).parent / "ddp_driver.py"
RECIPE = [
    "--width=16", "--layers=2", "--steps=8", "--validate_every=2", "--batch_size=12", "--train_size=48",
    "--valid_size=47", "--test_size=12", "--valid_samples=1", "--eval_samples=[1]", "--samples=1", "--repeats=1",
    "--rows=10", "--bootstrap=2", "--trainer.progress=false", "--trainer.accelerator=cpu",
    "--trainer.precision=32-true",
]  # fmt: skip
PACKED = ["run", "peptides-func", "--preset", "gnn-id-ga", "--dropout=0", "--walks=0", "--ema=0"]
PATCHES = ["run", "pcqm-contact", "--preset", "scratch-ps", "--symmetrizer=ga", "--heads=2"]
DISTRIBUTED = ["--trainer.strategy=ddp", "--trainer.devices=2", "--trainer.num_nodes=1"]
TRAINER = [sys.executable]  # starts the other processes itself
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]


def start(folder: Path, launcher: list[str], *options: str) -> list[dict[str, float]]:
    """Trains by the driver and gives the rows of metrics.csv."""
    out = folder / f"out{len(options)}"
    command = [*launcher, str(DRIVER), str(folder), *options, *RECIPE, "--data", str(folder), "--out", str(out)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads((out / "result.json").read_text())["steps"] == 8
    return [{k: float(v) for k, v in row.items()} for row in csv.DictReader((out / "metrics.csv").open())]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "launcher"), [(PACKED, TORCHRUN), (PATCHES, TRAINER)], ids=["packed-torchrun", "patches-trainer"]
)
def test_two_processes_are_one(what: list[str], launcher: list[str], tmp_path: Path) -> None:
    """47 validation graphs in pages of 10: 24 and 23 a process, three pages each."""
    keep(tmp_path / "peptides_func.npz", molecules(150))
    keep(tmp_path / "pcqm_contact.npz", contacts(150))
    one = start(tmp_path, [sys.executable], *what)
    two = start(tmp_path, launcher, *what, *DISTRIBUTED)
    assert [row["step"] for row in one] == [2, 4, 6, 8]
    for name in ("train_loss", "valid"):
        np.testing.assert_allclose([row[name] for row in two], [row[name] for row in one], rtol=2e-4, err_msg=name)
    assert len({row["train_loss"] for row in one}) == 4  # weights move, so that agreement means something
    ranks = [np.load(tmp_path / f"noise-{rank}-of-2.npy") for rank in range(2)]
    shorter = min(map(len, ranks))
    assert shorter > 20
    assert not np.intersect1d(ranks[0], ranks[1]).size
