"""What the command line prints arrives in any locale, and a reader that goes away is no error."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from probsym_experiments import registry
from probsym_experiments.cli import main
from probsym_experiments.terminal import CLOSED_PIPE, HANDLER

DRIVER = Path(__file__).with_name("output_driver.py")
LOCALES = {
    "C": {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "latin": {"PYTHONIOENCODING": "latin-1"},
}
KEPT = ("PATH", "HOME", "VIRTUAL_ENV", "LD_LIBRARY_PATH")  # of the environment


def environment(**more: str) -> dict[str, str]:
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    return kept | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "OMP_NUM_THREADS": "1"} | more


def a_result(folder: Path) -> None:
    """One whose row has signs that ASCII lacks, in what is printed and in what is written."""
    place = folder / "results" / "nbody" / "gnn-ps"
    place.mkdir(parents=True)
    found = {
        "experiment": "nbody", "preset": "gnn-ps", "value": 0.1, "stderr": 0.1, "seed": 1, "samples": 2, "steps": 3,
        "wall_s": 1.0, "params": 5, "overrides": {"who": "José"}, "device": "Größe", "config": {},
        "by_samples": [{"samples": 2, "value": 0.1}],
    }  # fmt: skip
    (place / "1.json").write_text(json.dumps(found, ensure_ascii=False), encoding="utf-8")


@pytest.mark.parametrize("locale", LOCALES)
def test_a_poor_locale_ends_no_command(locale: str, tmp_path: Path) -> None:
    a_result(tmp_path)
    done = subprocess.run(
        [sys.executable, str(DRIVER), str(tmp_path)],
        env=environment(**LOCALES[locale]),
        cwd=tmp_path,
        capture_output=True,
    )
    error = done.stderr.decode("latin-1")
    assert done.returncode == 0, error[-2000:]
    text = done.stdout.decode("latin-1")
    assert json.loads(text.splitlines()[-1]) == [0, 0, 0, 0, 0, 2]
    assert "Traceback" not in error
    assert error.count("probsym: error:") == 1
    sign = "±" if locale == "latin" else "+-"
    assert f"{sign} seeds" in text or f"{sign} samples" in text
    assert re.search(rf"test MSE \S+ {re.escape(sign)} 0 \(samples\)", text)
    assert "José" in (tmp_path / "figures/nbody/error_by_samples.csv").read_text(encoding="utf-8")


def test_signs_have_a_likeness() -> None:
    """Also lone surrogates, which stand for bytes of a file name that are no text."""
    assert "0.1 ± 2 × 3\udcff é".encode("ascii", HANDLER) == b"0.1 +- 2 x 3? ?"
    assert "0.1 ±\udcff".encode("utf-8", HANDLER).decode() == "0.1 ±?"


def test_presets_and_published_rows_are_read_in_any_locale() -> None:
    for folder in (registry.PRESETS, registry.PRESETS.parent / "published"):
        for path in folder.rglob("*.yaml"):
            assert path.read_bytes().isascii(), path  # jsonargparse reads presets in the locale's encoding


def shell(command: str) -> subprocess.CompletedProcess[str]:
    program = f"{shlex.quote(sys.executable)} -m probsym_experiments"
    text = f"set -o pipefail; {command.replace('PROBSYM', program)}"
    return subprocess.run(["bash", "-c", text], env=environment(), capture_output=True, text=True)


@pytest.mark.parametrize("arguments", ["list", "run --help", "table"])
def test_a_reader_that_goes_away_is_no_error(arguments: str) -> None:
    """The exit code is that of `yes | head`: 141. The reader closes the pipe before anything is written."""
    done = shell(f"PROBSYM {arguments} | true")
    assert done.stderr == ""
    assert done.returncode == CLOSED_PIPE == 141


def test_a_reader_of_one_line_has_it() -> None:
    done = shell("PROBSYM list | head -1")
    assert done.stderr == ""
    assert done.returncode in (0, CLOSED_PIPE)
    assert done.stdout.count("\n") == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_under_the_output_is_one_line() -> None:
    done = shell("PROBSYM list > /dev/full")
    assert done.returncode == 2
    assert done.stderr == "probsym: error: input or output: No space left on device\n"


def test_a_closed_output_is_no_error() -> None:
    assert (done := shell("PROBSYM list >&-")).returncode == 0, done.stderr


def test_too_little_memory_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Of numpy, and of torch; other errors of the program stay what they are."""

    def fail(error: Exception) -> None:
        monkeypatch.setattr("probsym_experiments.cli.summary", lambda preset: (_ for _ in ()).throw(error))

    for error in (MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried ...")):
        fail(error)
        assert main(["list"]) == 2
        assert "out of memory" in capsys.readouterr().err
    fail(RuntimeError("a defect"))
    with pytest.raises(RuntimeError, match="a defect"):
        main(["list"])
