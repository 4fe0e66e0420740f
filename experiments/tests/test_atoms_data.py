"""Frames of atoms: units, order in time, alignment, and what is said about packages and files."""

from __future__ import annotations

import builtins
from pathlib import Path

import numpy as np
import pytest
import torch

from probsym_experiments.atoms.data import PARTS, Frames, generate, load, onto
from probsym_experiments.atoms.systems import SYSTEMS, ready
from probsym_experiments.errors import UserError

ase = pytest.importorskip("ase")
FEW = {"train": 6, "valid": 3, "test": 3}
CU8 = Frames("cu8", **FEW)


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    return generate(CU8, start=20, gap=2)


@pytest.fixture
def cached(arrays: dict[str, np.ndarray], tmp_path: Path) -> Path:
    np.savez(tmp_path / CU8.file, **arrays)
    return tmp_path


def test_frames_are_reproducible(arrays: dict[str, np.ndarray]) -> None:
    again = generate(CU8, start=20, gap=2)
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, again[name], name)


def test_parts_follow_each_other_in_time_with_gaps(arrays: dict[str, np.ndarray]) -> None:
    for parts in PARTS.values():
        end = 0.0
        for part in parts:
            times = arrays[f"time_{part}"]
            assert (np.diff(times) > 0).all()
            assert times[0] - end > 2 * 20.0  # two frames of ten steps of 2 fs
            end = times[-1]


@pytest.mark.parametrize("system", ["cu8", "ethanol", "malonaldehyde"])
def test_labels_are_in_electronvolts_and_angstrom(system: str) -> None:
    """Forces are minus the gradient of the energy, by finite differences of 0.001 Angstrom."""
    if system != "cu8":
        pytest.importorskip("tblite")
    atoms = ready(system)
    rng = np.random.default_rng(0)
    atoms.set_positions(atoms.get_positions() + rng.normal(scale=0.05, size=(len(atoms), 3)))
    forces = atoms.get_forces()
    along = rng.normal(size=(len(atoms), 3))
    here = atoms.get_positions()
    energies = []
    for step in (-1e-3, 1e-3):
        atoms.set_positions(here + step * along)
        energies.append(atoms.get_potential_energy())
    slope = (energies[1] - energies[0]) / 2e-3
    assert slope == pytest.approx(-(forces * along).sum(), abs=2e-3 * np.abs(forces).max())
    # Electronvolts: an atom of copper is bound by about 3.5 of them in bulk, GFN2 counts all valence electrons.
    expected = {"cu8": (0, 25), "ethanol": (-320, -300), "malonaldehyde": (-460, -440)}
    low, high = expected[system]
    assert low < atoms.get_potential_energy() < high


def test_a_molecule_relaxes_to_what_its_name_says() -> None:
    """Malonaldehyde is planar, with a hydrogen bond that closes a ring."""
    pytest.importorskip("tblite")
    atoms = ready("malonaldehyde")
    assert np.abs(atoms.get_positions()[:, 2]).max() < 0.01
    assert 1.4 < atoms.get_distance(2, 5) < 2.0
    assert 0.9 < atoms.get_distance(4, 5) < 1.1


def test_frames_lie_as_the_relaxed_geometry_does(arrays: dict[str, np.ndarray]) -> None:
    """No further rotation brings them closer, and labels went with the turn."""
    for part in ("train", "hot"):
        for pos, forces, energy in zip(
            arrays[f"pos_{part}"], arrays[f"forces_{part}"], arrays[f"energy_{part}"], strict=True
        ):
            np.testing.assert_allclose(onto(pos, arrays["relaxed"]), np.eye(3), atol=1e-9)
            np.testing.assert_allclose(pos.mean(0), 0, atol=1e-9)
            atoms = ase.Atoms("Cu8", pos)
            atoms.calc = SYSTEMS["cu8"].calculator()
            np.testing.assert_allclose(atoms.get_forces(), forces, atol=1e-8)
            assert atoms.get_potential_energy() == pytest.approx(energy, abs=1e-9)


def test_onto_is_a_proper_rotation_that_undoes_a_turn() -> None:
    rng = np.random.default_rng(0)
    points = rng.normal(size=(7, 3))
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    turn *= np.linalg.det(turn)
    np.testing.assert_allclose(onto(points @ turn.T, points), turn.T, atol=1e-12)
    mirrored = onto(points * [1, 1, -1], points)
    assert np.linalg.det(mirrored) == pytest.approx(1)


def test_parts_are_tensors(cached: Path) -> None:
    data = load([CU8], cached, {"train": 3})
    shapes = {name: tuple(x.shape) for name, x in data.parts["train"].items()}
    assert shapes == {"pos": (3, 8, 3), "kinds": (3, 8, 1), "energy": (3,), "forces": (3, 8, 3)}
    assert len(data.parts["hot"]["pos"]) == 3
    assert data.parts["train"]["energy"].mean().abs() < 1e-6
    whole = load([CU8], cached)
    torch.testing.assert_close(data.parts["train"]["pos"], whole.parts["train"]["pos"][::2])


def test_kinds_tell_elements_apart(tmp_path: Path) -> None:
    pytest.importorskip("tblite")
    frames = Frames("ethanol", 2, 2, 2)
    np.savez(tmp_path / frames.file, **generate(frames, start=2, gap=1))
    kinds = load([frames], tmp_path).parts["train"]["kinds"][0]
    assert kinds.sum(0).tolist() == [6, 2, 1]  # H, C, O
    assert kinds.sum(1).tolist() == [1] * 9


@pytest.mark.parametrize("missing", ["ase", "tblite"])
def test_a_missing_package_is_told_with_what_to_install(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: object, **more: object) -> object:
        if name.partition(".")[0] == missing:
            raise ModuleNotFoundError(f"No module named {missing!r}")
        return real(name, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match=rf"system: expected {missing}.*No module named '{missing}'.*pip install"):
        ready("ethanol")


def test_damaged_and_foreign_files(cached: Path, arrays: dict[str, np.ndarray]) -> None:
    path = cached / CU8.file
    np.savez(path, **arrays | {"energy_hot": arrays["energy_hot"][:1]})
    with pytest.raises(UserError, match=r"energy_hot: expected shape \(3,\); got \(1,\)"):
        load([CU8], cached)
    np.savez(path, **{name: array for name, array in arrays.items() if name != "forces_test"})
    with pytest.raises(UserError, match="forces_test"):
        load([CU8], cached)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(UserError, match="damaged data file"):
        load([CU8], cached)
