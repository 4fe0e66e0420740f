"""`probsym audit` as a user meets it: exit codes, files, calculators by name."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

pytest.importorskip("ase")

from ase.build import bulk, molecule
from ase.io import write

from probsym_experiments.cli import main

FEW = ["--poses", "2", "--paths", "1", "--spectrum", "never"]

MODELS = '''
import numpy as np
from ase.calculators.emt import EMT

def sound(atoms):
    return {"energy": float(len(atoms))}

def make(direction=0.0, kind="function"):
    """A potential that sees the x axis, more or less."""
    def potential(atoms):
        differences = atoms.positions[None] - atoms.positions[:, None]
        near = np.exp(-(differences ** 2).sum(-1))
        return {"energy": float((near * (1 + direction * differences[..., 0] ** 2)).sum())}
    return potential if kind == "function" else EMT()

made = EMT()
number = 3
'''


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder, with a module and two structures."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    Path("audited_models.py").write_text(MODELS)
    write("frames.xyz", [molecule("H2O"), molecule("NH3"), molecule("CH4")])
    write("copper.cif", bulk("Cu", cubic=True))
    return tmp_path


def test_a_sound_calculator_ends_with_0_and_leaves_a_table_and_two_files(folder, capsys):
    assert main(["audit", "copper.cif", "--calculator", "emt", "--out", "found", *FEW]) == 0
    printed = capsys.readouterr().out
    assert "PASSED" in printed
    assert max(len(line) for line in printed.splitlines()) <= 80
    content = json.loads(Path("found/audit.json").read_text())
    assert content["passed"] is True
    assert content["command"]["calculator"] == "emt"
    assert Path("found/audit.png").read_bytes().startswith(b"\x89PNG")


def test_a_violation_ends_with_1(folder, capsys):
    arguments = ["audit", "frames.xyz@:2", "--calculator", "audited_models:make", *FEW]
    assert main([*arguments, "--kwargs", "direction=0.1"]) == 1
    assert "rotation, energy, 0 H2O" in capsys.readouterr().out
    content = json.loads(Path("audit.json").read_text())
    assert [structure["atoms"] for structure in content["structures"]] == [3, 4]
    assert main([*arguments, "--overwrite"]) == 0  # the same potential without a direction


def test_nothing_is_overwritten_unasked(folder, capsys):
    Path("audit.png").write_text("mine")
    assert main(["audit", "bulk:Cu", "--calculator", "emt", *FEW]) == 2
    assert "audit.png exists" in capsys.readouterr().err
    assert Path("audit.png").read_text() == "mine"
    assert not Path("audit.json").exists()
    assert main(["audit", "bulk:Cu", "--calculator", "emt", "--overwrite", *FEW]) == 0


def test_calculators_that_are_made_already_and_keywords(folder):
    for name in ("audited_models:made", "audited_models:EMT"):
        assert main(["audit", "bulk:Cu", "--calculator", name, "--out", name.replace(":", "-"), *FEW]) == 0
    assert main(["audit", "molecule:H2", "--calculator", "lj", "--kwargs", "rc=20", "sigma=0.7", *FEW]) == 0


def test_a_folder_of_the_same_name_does_not_hide_a_calculator(folder):
    """Such as a copy of its source."""
    Path("emt").mkdir()
    assert main(["audit", "bulk:Cu", "--calculator", "emt", *FEW]) == 0


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["nothing.xyz", "--calculator", "emt"], "nothing.xyz: no such file"),
        (["audited_models.py", "--calculator", "emt"], "audited_models.py: ASE cannot read it"),
        (["frames.xyz@9", "--calculator", "emt"], "frames.xyz@9: ASE cannot read it"),
        (["molecule:nothing", "--calculator", "emt"], "molecule:nothing: ASE cannot read it"),
        (["copper.cif"], "--calculator"),
        (["copper.cif", "--calculator", "emtt"], "--calculator: expected MODULE:NAME, .*; got 'emtt'"),
        (["copper.cif", "--calculator", "."], "--calculator .: expected .*; got a folder, .*TorchCalculator"),
        (["copper.cif", "--calculator", "no_module:x"], "ModuleNotFoundError"),
        (["copper.cif", "--calculator", "audited_models:nothing"], "AttributeError.*nothing"),
        (["copper.cif", "--calculator", "audited_models:number"], "expected a class, a function .*; got 3"),
        (["copper.cif", "--calculator", "audited_models:make", "--kwargs", "size=2"], "TypeError.*size"),
        (["copper.cif", "--calculator", "audited_models:made", "--kwargs", "size=2"], "a calculator already"),
        (["copper.cif", "--calculator", "emt", "--kwargs", "size"], "expected KEY=VALUE; got 'size'"),
        (["copper.cif", "--calculator", "audited_models:sound"], "--calculator audited_models:sound: TypeError"),
        (["bulk:Na", "--calculator", "emt"], "0 Na: the calculator failed: NotImplementedError"),
        (["copper.cif", "--calculator", "emt", "--poses", "0"], "poses: expected an integer of at least 1"),
        (["copper.cif", "--calculator", "emt", "--energy-tol", "0"], "tolerances: energy: expected a positive number"),
        (["copper.cif", "--calculator", "emt", "--poses", "few"], "--poses"),
    ],
)  # fmt: skip
def test_user_errors_are_one_line_and_exit_with_2(folder, arguments, named, capsys):
    assert main(["audit", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    assert re.search(named, error), error


def test_of_a_pretrained_potential_left_handed_cells_alone_are_found(tmp_path):
    """chgnet is invariant by construction, computes in single precision, and divides stress by a volume with a sign."""
    pytest.importorskip("chgnet")
    write(tmp_path / "salt.xyz", bulk("NaCl", "rocksalt", a=5.64))
    arguments = ["--calculator", "chgnet", "--kwargs", "use_device=cpu", "--out", str(tmp_path / "out"), *FEW]
    assert main(["audit", str(tmp_path / "salt.xyz"), *arguments]) == 1
    content = json.loads((tmp_path / "out" / "audit.json").read_text())
    violated = [outcome for outcome in content["structures"][0]["outcomes"] if outcome["worst"] > outcome["limit"]]
    assert [(outcome["row"], outcome["quantity"]) for outcome in violated] == [("left-handed", "stress")]
