"""Data files that are damaged or made to harm: numbers, or one error that names the file."""

from __future__ import annotations

import io
import random
import zipfile
from pathlib import Path

import numpy as np
import pytest

from probsym_experiments.errors import UserError
from probsym_experiments.graphs import exp_data
from probsym_experiments.nbody import data as nbody_data
from probsym_experiments.npz import read_npz
from probsym_experiments.tasks import block_model
from wl_pairs import dataset

ARRAYS = {
    "real": np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4),
    "whole": np.arange(7),
    "truth": np.array([True, False]),
    "alone": np.float64(3.5),
    "none": np.zeros((0, 3)),
    "by_columns": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "other_end": np.arange(3, dtype=">f4"),
}


def packed(arrays: dict, compress: bool = True) -> bytes:
    content = io.BytesIO()
    (np.savez_compressed if compress else np.savez)(content, **arrays)
    return content.getvalue()


@pytest.mark.parametrize("compress", [False, True])
def test_arrays_come_back(compress: bool, tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(packed(ARRAYS, compress))
    found = read_npz(tmp_path / "a.npz", ARRAYS)
    assert list(found) == list(ARRAYS)
    for name, array in found.items():
        assert array.dtype.isnative
        np.testing.assert_array_equal(array, ARRAYS[name])
        assert array.shape == ARRAYS[name].shape


@pytest.mark.parametrize(
    ("array", "named"),
    [
        (np.array([{}, []], dtype=object), "expected numbers, got object"),
        (np.array(["a", "b"]), "expected numbers, got <U1"),
        (np.array([1j]), "expected numbers, got complex128"),
        (np.zeros(2, dtype=[("a", "f4"), ("b", "i4")]), "expected numbers"),
        (np.array(["2026-01-01"], dtype="M8[D]"), "expected numbers"),
        (np.array([1.0, np.nan]), "expected finite numbers"),
        (np.array([np.inf]), "expected finite numbers"),
    ],
)
def test_what_is_no_number_is_refused(array: np.ndarray, named: str, tmp_path: Path) -> None:
    content = io.BytesIO()
    np.savez(content, a=array)
    (tmp_path / "a.npz").write_bytes(content.getvalue())
    with pytest.raises(UserError, match=rf"a\.npz: damaged data file \(a: {named}"):
        read_npz(tmp_path / "a.npz", ["a"])


@pytest.mark.parametrize("shape", ["(2, 3)", "(2,)", "(1,)", "(99999999999,)", "(-4,)", "(2, -2)", "(2**70,)", "'x'"])
def test_a_header_that_does_not_fit_is_refused(shape: str, tmp_path: Path) -> None:
    """Four numbers, said to be others: no memory for claims."""
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}}}".ljust(117) + "\n"
    content = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + np.arange(4.0).tobytes()
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("a.npy", content)
    with pytest.raises(UserError, match=r"a\.npz: damaged"):
        read_npz(tmp_path / "a.npz", ["a"])


@pytest.mark.parametrize("content", [b"", b"PK", b"hello" * 100, packed(ARRAYS)[:200], packed(ARRAYS)[100:]])
def test_what_is_no_archive_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.npz: damaged data file .*; get it again"):
        read_npz(tmp_path / "a.npz", ARRAYS, "get it again")


def test_a_missing_array_and_a_missing_file_are_told(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(packed(ARRAYS))
    with pytest.raises(UserError, match="absent"):
        read_npz(tmp_path / "a.npz", ["absent"])
    with pytest.raises(FileNotFoundError):
        read_npz(tmp_path / "b.npz", ["real"])


@pytest.mark.parametrize("compress", [False, True])
def test_changed_bytes_are_found(compress: bool, tmp_path: Path) -> None:
    """1,200 seeded changes of one to three bytes: the same numbers, or one error."""
    whole = packed(ARRAYS, compress)
    numbers = random.Random(0)
    refused = 0
    for _ in range(600):
        changed = bytearray(whole)
        for _ in range(numbers.randint(1, 3)):
            changed[numbers.randrange(len(whole))] = numbers.randrange(256)
        (tmp_path / "a.npz").write_bytes(changed)
        try:
            found = read_npz(tmp_path / "a.npz", ARRAYS)
        except UserError:
            refused += 1
            continue
        for name, array in found.items():
            np.testing.assert_array_equal(array, ARRAYS[name])
    assert refused > 300


def changed(arrays: dict[str, np.ndarray], numbers: random.Random) -> dict[str, np.ndarray]:
    """The arrays with one of them missing, of another type, shape, order or length, or with other values."""
    arrays = dict(arrays)
    name = numbers.choice(sorted(arrays))
    array = arrays.pop(name)
    place = numbers.randrange(array.size)
    spoilt = array.copy()
    spoilt.flat[place] = numbers.choice([0, 1, 63, 100])
    others = [
        None, array.astype("f8"), array.astype("i1"), array.astype("c16"), array.astype("U3"), array[..., None],
        array.reshape(-1)[:place], np.full_like(array, 100), array.T, np.array(3), spoilt, array[::-1], array[:0],
        np.concatenate([array, array]),
    ]  # fmt: skip
    other = numbers.choice(others)
    return arrays if other is None else arrays | {name: other}


def nbody_file(folder: Path) -> tuple[Path, object]:
    system = nbody_data.System(train=6, valid=4, test=4)
    nbody_data.load(system, folder)
    return folder / system.file, lambda: nbody_data.load(system, folder)


def pattern_file(folder: Path) -> tuple[Path, object]:
    recipe = block_model.BlockModel(patterns=2, train=2, valid=1, test=1)
    block_model.load(recipe, folder)
    return folder / recipe.file, lambda: block_model.load(recipe, folder)


def exp_file(folder: Path) -> tuple[Path, object]:
    (folder / "exp.npz").write_bytes(packed(dataset(4)))
    return folder / "exp.npz", lambda: exp_data.load(folder)


@pytest.mark.parametrize("make", [nbody_file, pattern_file, exp_file])
def test_data_of_other_types_and_shapes_are_one_clear_error(make, tmp_path: Path) -> None:
    """80 seeded changes of one array: data that fit, or an error of the user's that names the file."""
    file, load = make(tmp_path)
    with np.load(file) as held:
        arrays = dict(held)
    numbers = random.Random(0)
    refused = 0
    for _ in range(80):
        file.write_bytes(packed(changed(arrays, numbers), compress=False))
        try:
            load()
        except UserError as error:
            refused += str(file) in str(error)
    assert refused > 20
