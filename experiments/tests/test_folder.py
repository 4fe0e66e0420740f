"""A run's folder: killed at any moment it goes on, two processes never share it, and what is not ours is left alone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import kill_driver
import toy
from kill_driver import FINISHED, MOMENTS, UNCLAIMED
from probsym_experiments import registry
from probsym_experiments.cli import main
from probsym_experiments.errors import UserError
from probsym_experiments.folder import HOLDER, LOCK, held

DRIVER = Path(kill_driver.__file__)
RACES = 8
Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the toy into a folder; gives exit code and stderr."""
    monkeypatch.setattr(registry, "PRESETS", registry.PRESETS)
    monkeypatch.setattr(registry, "EXPERIMENTS", registry.EXPERIMENTS | {})
    monkeypatch.setattr("probsym_experiments.cli.EXPERIMENTS", registry.EXPERIMENTS)
    toy.install(tmp_path / "presets")

    def start(out: Path, *more: str) -> tuple[int, str]:
        code = main(["run", "toy", "--preset", "plain", "--data", str(tmp_path / "data"), "--out", str(out), *more])
        return code, capsys.readouterr().err

    return start


def drive(folder: Path, *arguments: str) -> str:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, str(DRIVER), str(folder), *arguments], env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    return done.stdout.decode()


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for each moment at which a run was killed; tests work on copies."""
    folder = tmp_path_factory.mktemp("killed")
    drive(folder, "kill")
    return folder


def content(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}


def remains(out: Path) -> list[str]:
    """Names of files that were being written."""
    return [path.name for path in out.rglob("*") if path.name.endswith(".tmp")]


def value(out: Path) -> float:
    return json.loads((out / "result.json").read_text())["value"]


def test_the_kills_came_when_they_should(killed: Path) -> None:
    """Files that were begun lie there; a control of the tests below."""
    for moment, (name, _, after) in MOMENTS.items():
        begun = remains(killed / moment)
        if after or name is None:
            assert begun == []
        else:
            assert len(begun) == 1
            assert begun[0].startswith(f".{name}.")
        assert (killed / moment / "run.json").exists() == (moment not in UNCLAIMED)
        assert (killed / moment / "result.json").exists() == (moment == FINISHED)


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_run_goes_on_with_resume(moment: str, killed: Path, run: Run, tmp_path: Path) -> None:
    """It ends as one that was never killed, and what was begun is gone."""
    out = tmp_path / "out"
    shutil.copytree(killed / moment, out)
    assert run(out, "--resume") == (0, "")
    whole = killed / FINISHED  # killed after its end
    assert value(out) == value(whole)
    assert (out / "metrics.csv").read_text() == (whole / "metrics.csv").read_text()
    if moment != FINISHED:
        assert remains(out) == []
    assert not (out / HOLDER).exists() or moment == FINISHED


@pytest.mark.parametrize("moment", MOMENTS)
def test_the_same_command_after_a_kill(moment: str, killed: Path, run: Run, tmp_path: Path) -> None:
    """It starts where nothing was claimed, else it tells of --resume and changes nothing."""
    out = tmp_path / "out"
    shutil.copytree(killed / moment, out)
    before = content(out)
    code, error = run(out)
    if moment in UNCLAIMED:
        assert (code, error) == (0, "")
        assert remains(out) == []
        return
    assert (code, error.count("\n")) == (2, 1)
    what = "a finished run (--resume prints its result)" if moment == FINISHED else "(--resume continues it)"
    assert what in error
    after = content(out)
    assert {name: text for name, text in after.items() if name not in (LOCK, HOLDER)} == {
        name: text for name, text in before.items() if name not in (LOCK, HOLDER)
    }


def races(folder: Path, *arguments: str) -> list[list[tuple[int, str]]]:
    return [[tuple(racer) for racer in json.loads(line)] for line in drive(folder, *arguments).splitlines()]


def trained(folder: Path, number: int) -> int:
    return len((folder / f"of{number}" / toy.TRAINED).read_text().splitlines())


def test_one_of_two_processes_gets_a_new_folder(tmp_path: Path) -> None:
    for number, ends in enumerate(races(tmp_path, "race", str(RACES))):
        assert sorted(code for code, _ in ends) == [0, 2], ends
        error = max(ends)[1]
        assert error.count("\n") == 1
        assert f"race{number}: " in error
        assert trained(tmp_path, number) == 1


def test_one_of_two_processes_resumes(killed: Path, tmp_path: Path) -> None:
    """The other is refused, or comes after the end and reads the result."""
    for number in range(RACES):
        shutil.copytree(killed / "checkpoint written", tmp_path / f"race{number}")
    for number, ends in enumerate(races(tmp_path, "race", str(RACES), "--resume")):
        assert all(code == 0 or (code == 2 and "works there" in error) for code, error in ends), ends
        assert trained(tmp_path, number) == 1
        assert remains(tmp_path / f"race{number}") == []


def test_without_the_lock_two_processes_share_a_folder(tmp_path: Path) -> None:
    """The control of the two tests above."""
    races(tmp_path, "unlocked", "4")
    assert any(trained(tmp_path, number) == 2 for number in range(4))


def test_the_second_process_hears_who_works_there(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with held(out):
        for more in ([], ["--resume"]):
            code, error = run(out, *more)
            assert (code, error.count("\n")) == (2, 1)
            assert f"--out {out}: process {os.getpid()} on " in error
            assert "wait for it, or choose another folder" in error
        (out / HOLDER).write_text("{")  # not told yet
        assert "another process works there" in run(out)[1]
    assert run(out) == (0, "")
    assert not (out / HOLDER).exists()


def test_a_folder_in_which_nothing_was_made_is_left_empty(tmp_path: Path) -> None:
    with held(tmp_path / "out"):
        assert {path.name for path in (tmp_path / "out").iterdir()} == {LOCK, HOLDER}
    assert list((tmp_path / "out").iterdir()) == []


OTHER: dict[str, str] = {
    "a text": "thesis.tex",
    "a hidden file": ".git",
    "a temporary file": "thesis.tmp",
    "a result without a run": "result.json",
    "a checkpoint without a run": "last.ckpt",
}


@pytest.mark.parametrize("what", OTHER)
@pytest.mark.parametrize("more", [[], ["--resume"]])
def test_what_is_not_a_run_is_left_as_it_is(what: str, more: list[str], run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / OTHER[what]).write_text("years of work")
    code, error = run(out, *more)
    assert (code, error.count("\n")) == (2, 1)
    assert str(out) in error
    assert content(out) == {OTHER[what]: b"years of work"}


def test_files_of_others_beside_a_run_are_kept(killed: Path, run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(killed / "next checkpoint begun", out)
    for name in ("notes.tmp", ".notes.tmp", ".notes", "last.tmp"):
        (out / name).write_text("mine")
    assert run(out, "--resume") == (0, "")
    assert {"notes.tmp", ".notes.tmp", ".notes", "last.tmp"} <= {path.name for path in out.iterdir()}


def test_a_file_or_a_broken_link_where_a_folder_is_expected(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere" / "else")
    for out in (tmp_path / "file", tmp_path / "file" / "out", tmp_path / "link"):
        for more in ([], ["--resume"]):
            code, error = run(out, *more)
            assert (code, error.count("\n")) == (2, 1)
            assert out.name in error or "file" in error


DAMAGES = {
    "empty": b"",
    "cut": b'{"experiment": "toy", ',
    "bytes": b"\xff\xfe\x00",
    "a list": b"[]",
    "nothing in it": b"{}",
    "config is text": b'{"experiment": "toy", "preset": "plain", "config": "a"}',
    "deep": b"[" * 200_000,
    "threads": b'{"experiment": "toy", "preset": "plain", "config": {}, "threads": 0}',
    "resumed": b'{"experiment": "toy", "preset": "plain", "config": {}, "resumed": 1}',
    "versions": b'{"experiment": "toy", "preset": "plain", "config": {}, "versions": []}',
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_run_json_is_one_clear_error(damage: str, killed: Path, run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(killed / "checkpoint written", out)
    (out / "run.json").write_bytes(DAMAGES[damage])
    code, error = run(out, "--resume")
    assert (code, error.count("\n")) == (2, 1)
    assert str(out / "run.json") in error
    assert (out / "last.ckpt").exists()


@pytest.mark.parametrize("damage", ["empty", "cut", "bytes", "a list", "nothing in it", "deep"])
def test_a_damaged_result_json_is_one_clear_error(damage: str, killed: Path, run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(killed / FINISHED, out)
    (out / "result.json").write_bytes(DAMAGES[damage])
    code, error = run(out, "--resume")
    assert (code, error.count("\n")) == (2, 1)
    assert str(out / "result.json") in error


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_metrics_csv_is_written_anew(damage: str, killed: Path, run: Run, tmp_path: Path) -> None:
    """Nothing reads it: its rows lie in the checkpoint."""
    out = tmp_path / "out"
    shutil.copytree(killed / "next checkpoint begun", out)
    (out / "metrics.csv").write_bytes(DAMAGES[damage])
    assert run(out, "--resume") == (0, "")
    assert (out / "metrics.csv").read_bytes() == (killed / FINISHED / "metrics.csv").read_bytes()


def test_the_lock_is_refused_to_two_objects_of_one_process(tmp_path: Path) -> None:
    with held(tmp_path), pytest.raises(UserError, match="works there"), held(tmp_path):
        pass
