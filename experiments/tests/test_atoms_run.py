"""Models, loss, dynamics and whole small runs of the experiment with atoms."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import probsym as ps
from probsym_experiments.atoms import Config
from probsym_experiments.atoms.analysis import equivariance, errors
from probsym_experiments.atoms.calculator import trained
from probsym_experiments.atoms.data import Data, Frames, generate, load
from probsym_experiments.atoms.dynamics import FS, KELVIN, TIME_STEP, drift, fly, kinetic, labelled, velocities
from probsym_experiments.atoms.forces import draws
from probsym_experiments.atoms.loss import Loss, turned
from probsym_experiments.atoms.models import METHODS, build, inputs
from probsym_experiments.atoms.systems import SYSTEMS, ready
from probsym_experiments.batches import Batch, rows
from probsym_experiments.cli import main
from probsym_experiments.interruption import Interrupted
from probsym_experiments.training import Keeper

ase = pytest.importorskip("ase")
CU8 = Frames("cu8", 12, 6, 6)
SMALL = [
    "--system=cu8", "--drawn=[12,6,6]", "--train_size=12", "--valid_size=6", "--test_size=6", "--width=16",
    "--steps=20", "--validate_every=10", "--batch_size=4", "--valid_samples=2", "--eval_samples=[1,2]", "--samples=2",
    "--fly=4", "--ema=0", "--trainer.progress=false", "--trainer.accelerator=cpu", "--trainer.threads=1",
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("atoms")
    np.savez(made / CU8.file, **generate(CU8, start=20, gap=2))
    return made


@pytest.fixture(scope="module")
def data(folder: Path) -> Data:
    return load([CU8], folder)


@pytest.fixture
def run(folder: Path, tmp_path: Path, fitting, capsys: pytest.CaptureFixture[str]):
    """Runs `probsym run atoms ...` small; gives exit code, stderr and the result."""

    def start(preset: str, *arguments: str, out: Path | None = None):
        out = out or tmp_path / "out"
        given = [*fitting("atoms", preset, SMALL, arguments), *arguments]
        code = main(["run", "atoms", "--preset", preset, "--data", str(folder), "--out", str(out), *given])
        result = out / "result.json"
        return code, capsys.readouterr().err, json.loads(result.read_text()) if result.is_file() else None

    return start


def double(batch: Batch) -> Batch:
    return {name: tensor.double() for name, tensor in batch.items()}


def small(**fields: object) -> Config:
    return Config(system="cu8", width=16, layers=1, eval_samples=[1, 2], samples=2, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("base", ["transformer", "points"])
def test_bases_treat_atoms_of_a_kind_alike_and_know_no_origin_but_know_directions(base: str, data: Data) -> None:
    phi = build(small(base=base, symmetrizer="none"), data.parts["train"]).double()
    batch = double(rows(data.parts["train"], slice(0, 4)))
    energy, forces = ps.energy_and_forces(phi, inputs(phi, batch))
    order = torch.randperm(8)
    moved = {**batch, "pos": batch["pos"][:, order] + 3.0, "kinds": batch["kinds"][:, order]}
    there_energy, there_forces = ps.energy_and_forces(phi, inputs(phi, moved))
    torch.testing.assert_close(there_energy, energy)
    torch.testing.assert_close(there_forces, forces[:, order])
    turned_energy, _ = ps.energy_and_forces(phi, inputs(phi, turned(batch, 0)))
    assert (turned_energy - energy).abs().max() > 1e-3


@pytest.mark.parametrize("base", ["transformer", "points"])
@pytest.mark.parametrize("symmetrizer", ["none", "ga", "wf", "recursive"])
def test_gradient_of_the_loss_is_right(base: str, symmetrizer: str, data: Data) -> None:
    """Against finite differences along one direction of all weights, the noise held."""
    phi = build(small(base=base, symmetrizer=symmetrizer), data.parts["train"]).double().train()
    batch = double(rows(data.parts["train"], slice(0, 3)))
    loss = Loss(energy_weight=2.0, force_weight=3.0)
    weights = [weight for weight in phi.parameters() if weight.requires_grad]
    along = [torch.randn_like(weight) for weight in weights]

    def move(step: float) -> None:
        with torch.no_grad():
            for weight, change in zip(weights, along, strict=True):
                weight += step * change

    def value() -> Tensor:
        torch.manual_seed(5)
        return loss(phi, batch)

    value().backward()
    slope = torch.zeros((), dtype=torch.float64)
    for weight, change in zip(weights, along, strict=True):
        if weight.grad is not None:
            slope = slope + (weight.grad * change).sum()
    move(1e-6)
    above = value().detach()
    move(-2e-6)
    below = value().detach()
    torch.testing.assert_close(slope, (above - below) / 2e-6, rtol=1e-4, atol=1e-6)


class Springs(nn.Module):
    """E = sum_i |x_i|^2 / 2: a force of 1 eV/Angstrom at 1 Angstrom."""

    def forward(self, pos: Tensor, kinds: Tensor) -> Tensor:
        return pos.square().sum((1, 2))[:, None] / 2


def springs() -> ps.Symmetrizer:
    """As it is, like the bare base."""
    atoms = ps.Axis("atoms")
    return ps.symmetrize(Springs(), {"pos": ps.Rep(atoms, None), "kinds": ps.Rep(atoms)}, ps.Rep(), "haar")


def test_the_loss_is_what_it_says() -> None:
    pos = torch.tensor([[[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]]])
    batch = {"pos": pos, "kinds": torch.ones(1, 2, 1), "energy": torch.tensor([2.0]), "forces": torch.zeros(1, 2, 3)}
    phi = springs()
    energy, forces = ps.energy_and_forces(phi, inputs(phi, batch))
    energy = energy.detach()
    forces = forces.detach()
    torch.testing.assert_close(energy, torch.tensor([2.5]))
    torch.testing.assert_close(forces, -pos)
    # (2.5 - 2)^2 over two atoms, and |F|^2 over six components
    torch.testing.assert_close(Loss(2.0, 3.0)(springs(), batch), torch.tensor(2 * 0.125 + 3 * 5 / 6))
    torch.testing.assert_close(Loss().errors(springs(), batch), torch.tensor([500.0]))
    found = errors(energy, forces, batch)
    assert found["energy_mae"] == pytest.approx(250)  # meV, two atoms
    assert found["force_mae"] == pytest.approx(500)
    assert found["force_rmse"] == pytest.approx(1000 * (5 / 6) ** 0.5)


def test_augmented_frames_turn_with_their_forces(data: Data) -> None:
    """A model that is right stays right; each frame has a pose of its own."""
    batch = data.parts["train"]
    there = turned(batch, 0)
    torch.testing.assert_close(there["pos"].norm(dim=2), batch["pos"].norm(dim=2))
    atoms = ready("cu8")
    for number in range(3):
        atoms.set_positions(there["pos"][number].double().numpy())
        np.testing.assert_allclose(atoms.get_forces(), there["forces"][number].numpy(), atol=1e-4)
    straight = {**batch, "energy": torch.zeros(12), "forces": -batch["pos"]}
    assert Loss(0.0, 1.0, augmented=True)(springs(), straight) < 1e-10


@pytest.mark.parametrize("symmetrizer", METHODS)
def test_every_method_is_equivariant_if_it_says_so(symmetrizer: str, data: Data) -> None:
    """In law for those that draw (one chance in a million of a false alarm); to rounding for exact averages."""
    config = small(symmetrizer=symmetrizer)
    phi = build(config, data.parts["train"]).double().eval()
    few = double(rows(data.parts["test"], slice(0, 4)))
    report = ps.testing.equivariance_error(
        phi,
        {"pos": few["pos"], "kinds": few["kinds"]},
        {"pos": ps.Rep(ps.Axis("atoms"), ps.SE(3)), "kinds": ps.Rep(ps.Axis("atoms"))},
        ps.Rep(),
        samples=128,
        generator=torch.Generator().manual_seed(0),
    )
    assert (report.p_value >= 1e-6) == (symmetrizer not in ("none", "augmented"))


def test_draws_are_single_samples_whose_mean_is_the_average(data: Data) -> None:
    phi = build(small(symmetrizer="ga"), data.parts["train"]).eval()
    few = rows(data.parts["test"], slice(0, 2))
    energies, forces = draws(phi, few, 400, 0)
    assert (energies.shape, forces.shape) == ((400, 2), (400, 2, 8, 3))
    torch.manual_seed(1)
    energy, force = ps.energy_and_forces(phi, inputs(phi, few), samples=400)
    for mean, other in ((energies, energy), (forces, force)):
        z = (mean.mean(0) - other) / (mean.std(0) * (2 / 400) ** 0.5)
        assert z.abs().max() < 5.5  # 50 numbers: less than one in 10^5 by chance


def test_equivariance_of_forces_is_that_of_averages(data: Data) -> None:
    """It falls with the samples; it is rounding for exact averages, and large for the bare base."""
    found = {}
    for symmetrizer in ("none", "ga", "wf"):
        config = small(symmetrizer=symmetrizer)
        torch.manual_seed(0)
        found[symmetrizer] = equivariance(build(config, data.parts["train"]).eval(), data.parts["test"], config)
    assert [entry["samples"] for entry in found["ga"]] == [1, 2]
    assert found["ga"][1]["error"] < found["ga"][0]["error"]
    assert found["wf"][0]["error"] < 1e-2 < found["none"][0]["error"]
    assert found["wf"][0]["energy_error"] < 1e-3 < found["none"][0]["energy_error"]


def test_dynamics_conserve_energy_with_the_labels_own_calculator() -> None:
    """The control of the drift: EMT at 300 K, 40 fs; and one whose forces are not its gradient drifts."""
    atoms = ready("cu8")
    masses = torch.from_numpy(atoms.get_masses())
    emt = labelled(atoms)
    start = torch.from_numpy(atoms.get_positions())[None]
    motion = velocities(masses, 1, 300.0, seed=0)
    found = drift(fly(emt, start, motion, masses, 80))
    assert found["off_worst"] < 0.2  # meV, of 300 that move

    def sheared(pos: Tensor) -> tuple[Tensor, Tensor]:
        energy, forces = emt(pos)
        return energy, forces + 0.2 * (pos - pos.mean(1, keepdim=True)).flip(2)

    assert drift(fly(sheared, start, motion, masses, 80))["off_worst"] > 2


def test_units_of_the_dynamics_are_those_of_ase() -> None:
    from ase import units

    assert pytest.approx(units.fs) == FS
    assert pytest.approx(units.kB) == KELVIN
    masses = torch.tensor([1.0, 60.0], dtype=torch.float64)
    moving = velocities(masses, 4000, 300.0, seed=0)
    torch.testing.assert_close((masses[:, None] * moving).sum(1), torch.zeros(4000, 3, dtype=torch.float64))
    # Three degrees of freedom without the centre of mass; the mean of 4,000 is within 6 of its standard errors.
    expected = 1.5 * KELVIN * 300
    assert float(kinetic(moving, masses).mean()) == pytest.approx(expected, rel=6 * (2 / 3 / 4000) ** 0.5)
    assert TIME_STEP == 0.5


def test_drift_tells_jumps_from_slow_motion() -> None:
    slow = torch.linspace(0, 0.01, 101, dtype=torch.float64)[:, None]
    jump = (torch.arange(101) > 50).double()[:, None] * 0.01
    found = drift(torch.cat([slow, jump], 1))
    assert found["drift"] == pytest.approx(10)
    assert found["step_worst"] == pytest.approx(10)
    assert drift(slow)["step_worst"] == pytest.approx(0.1)


@pytest.mark.parametrize("preset", ["points-none", "points-augmented", "points-recursive", "points-wf"])
def test_a_small_run_reports(run, preset: str) -> None:
    code, error, result = run(preset)
    assert code == 0, error
    found = result["errors"]
    assert set(found) == {"original", "turned", "hot original", "hot turned"}
    assert result["value"] == pytest.approx(found["turned"]["force_mae"], rel=0.5)
    assert result["original pose"] == found["original"]["force_mae"]
    drawn = preset == "points-recursive"
    counts = [row["samples"] for row in result["by_samples"]]
    if drawn:
        assert counts == [1, 2]
    elif preset == "points-wf":
        assert 2 < counts[0] <= 56  # pairs of atoms of eight
    else:
        assert counts == [1]
    assert result["flights"]["samples"] == (2 if drawn else None)
    assert result["flights"]["generic"]["off_worst"] < 50
    assert result["step_seconds"]["ratio"] > 0
    moved = result["equivariance_by_samples"][-1]["error"]
    assert (moved < 1e-2) == (preset == "points-wf")


def test_a_stopped_run_ends_with_the_same_bits(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, _, straight = run("points-ga", out=tmp_path / "whole")
    save = Keeper.on_train_epoch_end

    def stop(keeper: Keeper, trainer, module) -> None:
        if trainer.global_step == 10:
            keeper.signal = signal.SIGTERM
        save(keeper, trainer, module)

    with monkeypatch.context() as patched:
        patched.setattr(Keeper, "on_train_epoch_end", stop)
        code, _, result = run("points-ga")
    assert (code, result) == (Interrupted(signal.SIGTERM).code, None)
    code, error, resumed = run("points-ga", "--resume")
    assert code == 0, error
    for field in ("value", "by_samples", "errors", "equivariance_by_samples", "flights", "best_valid"):
        assert resumed[field] == straight[field], field


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--system=benzene"], "expected one of cu8, ethanol, malonaldehyde, paracetamol, molecules; got 'benzene'"),
        (["--storage=ragged"], "storage: expected only with several molecules"),
        (["--system=molecules", "--storage=sparse"], "storage: expected one of padded, ragged; got 'sparse'"),
        (["--system=molecules", "--storage=ragged", "--base=transformer"], "storage: expected padded with base"),
        (["--train_size=13"], "train_size: expected at most the 12 that are drawn; got 13"),
        (["--drawn=[5]"], "drawn: expected three numbers"),
        (["--base=gnn"], "base: expected one of transformer, points; got 'gnn'"),
        (["--energy_weight=0", "--force_weight=0"], "expected one of them above 0"),
        (["--layers=2"], "layers: expected only with base transformer"),
        (["--base=transformer", "--width=18"], "width: expected a multiple of the 4 heads"),
        (["--symmetrizer=none", "--train_samples=2"], "train_samples: expected only with more than one pose"),
    ],
)
def test_bad_fields_are_named(run, arguments: list[str], named: str) -> None:
    code, error, _ = run("points-ga", *arguments)
    assert code == 2
    assert named in error


def test_without_the_package_a_run_ends_with_what_to_install(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "tblite.ase", None)
    arguments = ["run", "atoms", "--preset", "points-ga", "--data", str(tmp_path), "--out", str(tmp_path / "out")]
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert "tblite" in error
    assert "pip install" in error
    assert len(error.splitlines()) == 1
    assert SYSTEMS["ethanol"].timestep == 1.0


def test_a_trained_model_is_a_function_of_atoms(run, data: Data, tmp_path: Path) -> None:
    """Forces are minus the gradient of its energy; other elements are refused."""
    assert run("points-ga")[0] == 0
    calculate = trained(str(tmp_path / "out"), samples=24, design="octahedral")
    atoms = ready("cu8")
    atoms.set_positions(data.parts["test"]["pos"][0].double().numpy())
    here = calculate(atoms)
    along = np.random.default_rng(0).normal(size=(8, 3))
    energies = []
    for step in (-1e-4, 1e-4):
        moved = atoms.copy()
        moved.set_positions(atoms.get_positions() + step * along)
        energies.append(calculate(moved)["energy"])
    slope = (energies[1] - energies[0]) / 2e-4
    assert slope == pytest.approx(-(here["forces"] * along).sum(), rel=1e-4)
    with pytest.raises(ValueError, match=r"atoms: expected elements \[29\], got \[6\]"):
        calculate(ase.Atoms("C"))


def test_an_audit_tells_the_bare_network_from_an_exact_average(run, data: Data, tmp_path: Path) -> None:
    """Weighted frames of E(3) pass all of it; those of SE(3) leave handedness, and nothing else."""
    audit = pytest.importorskip("probsym.integrations.audit").audit
    atoms = ready("cu8")
    atoms.set_positions(data.parts["test"]["pos"][0].double().numpy())
    atoms.calc = None
    violated = {}
    for name, preset, flags in (
        ("bare", "points-none", []),
        ("rotations", "points-wf", []),
        ("reflections too", "points-wf", ["--group=E"]),
    ):
        assert run(preset, *flags, "--steps=2", "--fly=0", out=tmp_path / name)[0] == 0
        report = audit(trained(str(tmp_path / name)), atoms, poses=3, paths=1, spectrum="never")
        violated[name] = {outcome.row for _, outcome in report.violations}
    assert violated == {"bare": {"rotation", "reflection"}, "rotations": {"reflection"}, "reflections too": set()}
