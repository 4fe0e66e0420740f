"""The data files: shapes, caching, and what is said about bad ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from probsym_experiments.errors import UserError
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


@pytest.mark.parametrize("field", [{"particles": 1}, {"dims": 0}, {"train": 10_001}, {"test": 0}])
def test_impossible_systems(field: dict[str, int]) -> None:
    with pytest.raises(UserError, match=next(iter(field))):
        System(**field)
