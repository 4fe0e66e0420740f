"""Molecules of different sizes in one batch: padded, ragged, and as each of them would be alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import probsym as ps
from probsym_experiments.atoms import Config
from probsym_experiments.atoms.calculator import trained
from probsym_experiments.atoms.data import Data, Frames, generate, load
from probsym_experiments.atoms.forces import over_components, predicted
from probsym_experiments.atoms.loss import Loss, turned
from probsym_experiments.atoms.models import METHODS, build, inputs
from probsym_experiments.atoms.systems import SYSTEMS, elements, members
from probsym_experiments.batches import Batch, rows
from probsym_experiments.cli import main

ase = pytest.importorskip("ase")
pytest.importorskip("tblite")
SIZES = {"ethanol": 9, "malonaldehyde": 9, "paracetamol": 20}
FEW = [Frames(system, 4, 2, 2) for system in members("molecules")]
SMALL = [
    "--system=molecules", "--drawn=[4,2,2]", "--train_size=4", "--valid_size=2", "--test_size=2", "--width=16",
    "--steps=6", "--validate_every=3", "--batch_size=6", "--eval_samples=[1,2]", "--samples=2", "--fly=2", "--ema=0",
    "--trainer.progress=false", "--trainer.accelerator=cpu", "--trainer.threads=1",
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("molecules")
    for frames in FEW:
        np.savez(made / frames.file, **generate(frames, start=2, gap=1))
    return made


@pytest.fixture(scope="module")
def data(folder: Path) -> Data:
    return load(FEW, folder)


def small(**fields: object) -> Config:
    return Config(system="molecules", width=16, **fields)  # type: ignore[arg-type]


def double(batch: Batch) -> Batch:
    """What is floating in float64."""
    wide = {}
    for name, tensor in batch.items():
        wide[name] = tensor
        if tensor.is_floating_point():
            wide[name] = tensor.double()
    return wide


def test_frames_of_all_molecules_alternate_and_are_padded(data: Data) -> None:
    train = data.parts["train"]
    assert train["pos"].shape == (12, 20, 3)
    assert train["molecule"].tolist() == [0, 1, 2] * 4
    assert train["mask"].sum(1).tolist() == list(SIZES.values()) * 4
    for name in ("pos", "kinds", "forces"):
        assert (train[name][~train["mask"]] == 0).all()
    assert elements("molecules") == [1, 6, 7, 8]
    # H and C, N, O of ethanol, malonaldehyde and paracetamol
    kinds = torch.tensor([[6, 2, 0, 1], [4, 3, 0, 2], [9, 8, 1, 2]])
    torch.testing.assert_close(train["kinds"][:3].sum(1), kinds.float())


def test_each_molecule_is_as_it_is_alone(data: Data, folder: Path) -> None:
    """Its frames, and its energies, which are counted from the mean of its training frames."""
    for number, frames in enumerate(FEW):
        alone = load([frames], folder)
        for part in ("train", "hot"):
            of_mixture = data.alone(part, number)
            for name in ("pos", "energy", "forces"):
                torch.testing.assert_close(of_mixture[name], alone.parts[part][name], rtol=0, atol=0)
        assert data.molecules[number].zero == alone.molecules[0].zero
        assert data.alone("train", number)["energy"].mean().abs() < 1e-5


def test_least_squares_of_an_energy_for_each_element_meets_the_means(data: Data) -> None:
    """What potentials usually subtract is here the same as a mean for each molecule."""
    numbers = []
    for number in range(3):
        numbers.append(data.alone("train", number)["kinds"][0].double().sum(0))
    compositions = torch.stack(numbers)
    zeros = torch.tensor([molecule.zero for molecule in data.molecules], dtype=torch.float64)
    of_elements = torch.linalg.lstsq(compositions, zeros, driver="gelsd").solution
    torch.testing.assert_close(compositions @ of_elements, zeros)


@pytest.mark.parametrize("base", ["points", "transformer"])
@pytest.mark.parametrize("symmetrizer", ["none", "wf"])
def test_padding_changes_nothing_and_gets_no_force(base: str, symmetrizer: str, data: Data) -> None:
    """Energies and forces of a padded batch are those of each molecule without padding, in an order of its own."""
    phi = build(small(base=base, symmetrizer=symmetrizer), data.parts["train"]).double().eval()
    batch = double(turned(data.parts["test"], 0))
    energy, forces = predicted(phi, batch)
    assert (forces[~batch["mask"]] == 0).all()
    # Whatever the padding holds.
    spoilt = dict(batch)
    for name in ("pos", "kinds"):
        spoilt[name] = batch[name].masked_fill(~batch["mask"][:, :, None], torch.nan)
    for found, expected in zip(predicted(phi, spoilt), (energy, forces), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
    for number, atoms in enumerate(SIZES.values()):
        here = batch["molecule"] == number
        order = torch.randperm(atoms)
        alone = {name: rows(batch, here)[name][:, order] for name in ("pos", "kinds", "mask")}
        energy_alone, forces_alone = ps.energy_and_forces(phi, alone)
        torch.testing.assert_close(energy[here], energy_alone, rtol=0, atol=1e-10)
        torch.testing.assert_close(forces[here][:, order], forces_alone, rtol=0, atol=1e-10)
    # A control: with atoms in place of the padding it is another molecule.
    another, _ = predicted(phi, batch | {"mask": torch.ones_like(batch["mask"])})
    assert (another - energy).abs().max() > 1e-3


@pytest.mark.parametrize("symmetrizer", [name for name in METHODS if name != "augmented"])
def test_padded_and_ragged_are_the_same(symmetrizer: str, data: Data) -> None:
    """With the same weights and the same noise: energies, forces, and the gradient of the loss."""
    batch = double(turned(rows(data.parts["train"], slice(0, 6)), 0))
    found = {}
    weights = None
    for storage in ("padded", "ragged"):
        phi = build(small(base="points", symmetrizer=symmetrizer, storage=storage), data.parts["train"]).double()
        if weights is not None:
            phi.load_state_dict(weights)
        weights = phi.state_dict()
        call = inputs(phi, batch)
        assert call["pos"].shape == {"padded": (6, 20, 3), "ragged": (2 * 38, 3)}[storage]
        torch.manual_seed(1)
        energy, forces = predicted(phi, batch)
        torch.manual_seed(1)
        loss = Loss()(phi, batch)
        slopes = torch.autograd.grad(loss, [*phi.model.parameters()])
        found[storage] = [energy.detach(), forces.detach(), *slopes]
    for padded, ragged in zip(found["padded"], found["ragged"], strict=True):
        torch.testing.assert_close(padded, ragged, rtol=0, atol=1e-10)


def test_a_molecule_counts_alike_whatever_its_size(data: Data) -> None:
    """An error of 0.1 eV/Angstrom in every component of one molecule is the same for all three."""
    batch = data.parts["train"]
    for number in range(3):
        off = torch.zeros_like(batch["pos"])
        off[(batch["molecule"] == number)[:, None] & batch["mask"]] = 0.1
        assert float(over_components(off, batch).mean()) == pytest.approx(0.1 / 3)


@pytest.mark.parametrize(
    ("preset", "flags"),
    [
        ("points-ga", ["--storage=ragged", "--valid_samples=2"]),
        ("points-wf", []),
        ("points-none", ["--base=transformer", "--layers=1"]),
    ],
)
def test_a_small_run_reports_each_molecule(
    preset: str, flags: list[str], folder: Path, fitting, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [*fitting("atoms", preset, SMALL, flags), *flags]
    out = tmp_path / "out"
    code = main(["run", "atoms", "--preset", preset, "--data", str(folder), "--out", str(out), *given])
    assert code == 0, capsys.readouterr().err
    result = json.loads((out / "result.json").read_text())
    of_molecules = result["errors_by_molecule"]
    assert list(of_molecules) == list(SIZES)
    for situation, errors in result["errors"].items():
        for name in ("energy_mae", "force_mae"):
            mean = np.mean([by_situation[situation][name] for by_situation in of_molecules.values()])
            assert errors[name] == pytest.approx(mean, rel=1e-6)
    assert set(result["flights"]) >= {"generic", "symmetric"}

    # The trained model as a function of atoms: any molecule of its elements.
    calculate = trained(str(out))
    for system in SIZES:
        atoms = SYSTEMS[system].start()
        found = calculate(atoms)
        assert found["forces"].shape == (SIZES[system], 3)
        assert np.abs(found["forces"].sum(0)).max() < 1e-8
    with pytest.raises(ValueError, match=r"atoms: expected elements \[1, 6, 7, 8\], got \[29\]"):
        calculate(ase.Atoms("Cu"))
