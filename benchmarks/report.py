"""What a run prints, under the circumstances in which it was measured, kept in a file as well."""

from __future__ import annotations

import io
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import TextIO

import torch
from timing import place


def header(threads: int) -> str:
    """The command, and what times depend on."""
    facts = [time.strftime("%Y-%m-%d %H:%M"), f"torch {torch.__version__}", f"{threads} thread(s)", processor()]
    facts += [torch.cuda.get_device_name(place.device)] if place.device.type == "cuda" else []
    facts += [f"commit {known}"] if (known := commit()) else []
    facts += [f"load average {os.getloadavg()[0]:.2f} at the start"]
    return f"    python benchmarks {' '.join(sys.argv[1:])}\n\n{', '.join(facts)}; medians (quartiles)"


def processor() -> str:
    """The name it gives itself; its architecture where it gives none."""
    known = Path("/proc/cpuinfo")
    lines = known.read_text().splitlines() if known.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def commit() -> str | None:
    """Of the checkout that this file lies in, with "-dirty" where its files differ."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--exclude", "*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


class Kept(io.StringIO):
    """Passes on what is printed, and keeps it."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self.stream = stream

    def write(self, text: str) -> int:
        self.stream.write(text)
        return super().write(text)

    def flush(self) -> None:
        self.stream.flush()
