"""The command line without training: what it says, how it fails, and that it starts light."""

from __future__ import annotations

import subprocess
import sys

import pytest

from probsym.cli import main
from probsym.experiments.registry import EXPERIMENTS


def test_list_has_one_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == sum(1 + len(found.presets) for found in EXPERIMENTS.values())
    assert all(len(line) <= 120 for line in lines)


def test_the_module_is_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    listed = subprocess.run([sys.executable, "-m", "probsym", "list"], capture_output=True, text=True)
    assert (listed.returncode, listed.stdout) == (0, capsys.readouterr().out)
    assert subprocess.run([sys.executable, "-m", "probsym", "foo"], capture_output=True).returncode == 2


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["foo"], "foo"),
        (["list", "--all"], "--all"),
        (["run"], "nbody"),
        (["run", "foo", "--preset", "x"], "experiment: expected one of nbody, .*; got 'foo'"),
        (["run", "nbody"], "--preset"),
        (["run", "nbody", "--preset", "gnn"], "preset: expected one of .*gnn-ps.* got 'gnn'"),
        (["run", "nbody", "--preset", "gnn-ps", "--stepz", "3"], "--stepz"),
        (["run", "nbody", "--preset", "gnn-ps", "--steps", "many"], "steps: .*many"),
        (["run", "nbody", "--preset"], "--preset"),
    ],
)
def test_user_errors_are_one_line_and_exit_with_2(
    arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    import re

    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(named, error), error


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    assert "probsym run nbody --preset gnn-ps" in capsys.readouterr().out
    assert main([]) == 0
    assert main(["run", "nbody", "--help"]) == 0
    assert "--eval_samples" in capsys.readouterr().out


def test_starts_light() -> None:
    heavy = ["lightning", "jsonargparse", "matplotlib", "rich", "yaml"]
    code = f"import sys, probsym.cli; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize("arguments", [[], ["demo"], ["table"], ["run", "nbody", "--preset", "gnn-ps"]])
def test_a_bare_install_says_what_to_add(arguments: list[str]) -> None:
    """The extra's packages are hidden from a fresh interpreter."""
    code = f"""
import sys
from importlib.machinery import PathFinder
class Hidden(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        hidden = name.partition(".")[0] in {{"lightning", "jsonargparse", "matplotlib", "rich", "yaml", "tqdm"}}
        return None if hidden else super().find_spec(name, path, target)
sys.meta_path[:] = [Hidden if finder is PathFinder else finder for finder in sys.meta_path]
from probsym.cli import main
sys.exit(main({arguments!r}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert 'pip install "probsym[experiments]"' in done.stderr
    assert done.stderr.count("\n") == 1
