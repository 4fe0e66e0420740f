"""The data files: shapes, caching, and what is said about bad ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from probsym_experiments.errors import UserError
from probsym_experiments.nbody import data
from probsym_experiments.nbody.data import System, generate, load

TINY = System(particles=3, dims=2, train=4, valid=2, test=2)


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    return generate(TINY)


@pytest.fixture
def cached(arrays: dict[str, np.ndarray], tmp_path: Path) -> Path:
    np.savez(tmp_path / TINY.file, **arrays)
    return tmp_path


def test_parts_are_tensors(cached: Path) -> None:
    train = load(TINY, cached)["train"]
    assert {name: tuple(x.shape) for name, x in train.items()} == {
        "pos": (4, 3, 2), "vel": (4, 3, 2), "edge": (4, 3, 3, 1), "target": (4, 3, 2)
    }  # fmt: skip
    assert all(x.dtype == torch.float32 for x in train.values())
    assert torch.equal(train["edge"], train["edge"].transpose(1, 2))
    assert set(train["edge"].unique().tolist()) <= {-1.0, 1.0}


def test_second_load_reads_the_cache(cached: Path) -> None:
    before = (cached / TINY.file).stat().st_mtime_ns
    first, second = load(TINY, cached), load(TINY, cached)
    assert torch.equal(first["test"]["target"], second["test"]["target"])
    assert (cached / TINY.file).stat().st_mtime_ns == before


def test_the_benchmark_has_the_benchmarks_name() -> None:
    assert System().file == "nbody_charged5_initvel1small_seed43.npz"
    assert TINY.file == "nbody_charged3_initvel1small_seed43_v2_2d_4-2-2.npz"


@pytest.mark.parametrize(("law", "source"), [("charged", 30), ("gravity", 0)])
def test_longer_horizons_ask_for_later_frames_of_the_same_simulations(
    law: str, source: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data, "DRAWN", {"train": 4, "valid": 2, "test": 2})  # not the 14,000 of the benchmark
    systems = [System(3, 2, 4, 2, 2, law=law, horizon=steps) for steps in (1000, 1500, 2000)]
    assert [system.target - source for system in systems] == [10, 15, 20]
    assert len({system.file for system in systems}) == 3
    near, middle, far = (load(system, tmp_path)["test"] for system in systems)
    for name in ("pos", "vel", "edge"):
        assert torch.equal(near[name], far[name])
    moved = [(batch["target"] - near["pos"]).norm() for batch in (near, middle, far)]
    assert moved[0] < moved[1] < moved[2]
    assert set(near["edge"].unique().tolist()) <= ({1.0} if law == "gravity" else {-1.0, 1.0})


def test_charges_of_another_system_are_refused(cached: Path, arrays: dict[str, np.ndarray]) -> None:
    bodies = System(particles=3, dims=2, train=4, valid=2, test=2, law="gravity")
    renamed = {}
    for name, value in arrays.items():
        renamed[name.replace("loc30", "loc0").replace("vel30", "vel0").replace("loc40", "loc10")] = value
    np.savez(cached / bodies.file, **renamed)
    with pytest.raises(UserError, match="charges_train: expected charges 1"):
        load(bodies, cached)


def test_truncated_file(cached: Path) -> None:
    path = cached / TINY.file
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(UserError, match=f"{TINY.file}: damaged data file"):
        load(TINY, cached)


def test_missing_array_and_wrong_shape(cached: Path, arrays: dict[str, np.ndarray]) -> None:
    np.savez(cached / TINY.file, **{k: v for k, v in arrays.items() if k != "vel30_valid"})
    with pytest.raises(UserError, match="vel30_valid"):
        load(TINY, cached)
    np.savez(cached / TINY.file, **arrays | {"loc40_test": arrays["loc40_test"][:1]})
    with pytest.raises(UserError, match=r"loc40_test: expected shape \(2, 3, 2\); got \(1, 3, 2\)"):
        load(TINY, cached)


@pytest.mark.parametrize(
    "field", [{"particles": 1}, {"dims": 0}, {"train": 10_001}, {"test": 0}, {"horizon": 1200}, {"law": "springs"}]
)
def test_impossible_systems(field: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=next(iter(field)).replace("law", "system")):
        System(**field)
