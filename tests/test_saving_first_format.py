"""Folders that the first release wrote load today, declare the same, and give the same outputs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import probsym as ps
from first_format import CASES

FOLDER = Path(__file__).parent / "data" / "format1"


def stored(name: str) -> tuple[dict[str, torch.Tensor] | tuple[torch.Tensor, ...], dict[str, torch.Tensor]]:
    """The arguments of the call, and what came out."""
    content = load_file(FOLDER / name / "call.safetensors")
    call = {key.removeprefix("call."): content.pop(key) for key in list(content) if key.startswith("call.")}
    if "argument0" in call:
        return tuple(call[f"argument{i}"] for i in range(len(call))), content
    return call, content


def test_every_stored_folder_has_its_case():
    assert {path.name for path in FOLDER.iterdir() if path.is_dir()} == set(CASES)


@pytest.mark.parametrize("name", CASES)
def test_folders_of_the_first_format_give_the_outputs_that_they_gave(name):
    case = CASES[name]
    declared = case.make()
    phi = ps.load(FOLDER / name, case.model(), declared.distribution if case.own else None)
    assert (phi.inputs, phi.output) == (declared.inputs, declared.output)
    assert phi.train_estimator == declared.train_estimator
    assert phi.eval_estimator == declared.eval_estimator
    call, expected = stored(name)
    found = case.evaluate(phi, call)
    assert set(found) == set(expected)
    for key, value in expected.items():
        assert value.is_floating_point()
        assert torch.allclose(found[key], value, rtol=1e-12, atol=1e-12), key


@pytest.mark.parametrize("name", CASES)
def test_folders_of_the_first_format_are_written_again_in_the_second(name, tmp_path):
    case = CASES[name]
    given = [case.make().distribution if case.own else None for _ in range(2)]
    phi = ps.load(FOLDER / name, case.model(), given[0])
    ps.save(phi, tmp_path / "again")
    again = ps.load(tmp_path / "again", case.model(), given[1])
    call, _ = stored(name)
    first, second = case.evaluate(phi, call), case.evaluate(again, call)
    assert all(torch.equal(first[key], second[key]) for key in first)
