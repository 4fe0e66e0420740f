"""What a run prints, under the circumstances in which it was measured, kept in a file as well."""

from __future__ import annotations

import io
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, TextIO

import torch
from timing import place


def circumstances(threads: int) -> dict[str, Any]:
    """The command, and what times depend on."""
    words = []
    for word in sys.argv[1:]:
        if "/" in word:
            word = Path(word).name  # no folders of this machine
        words.append(word)
    device = "cpu"
    if place.device.type == "cuda":
        device = torch.cuda.get_device_name(place.device)
    return {
        "command": " ".join(["python benchmarks", *words]),
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "torch": torch.__version__,
        "threads": threads,
        "processor": processor(),
        "device": device,
        "commit": commit(),
        "load_at_start": round(os.getloadavg()[0], 2),
    }


def header(facts: dict[str, Any]) -> str:
    """The same for a reader."""
    shown = [facts["date"], f"torch {facts['torch']}", f"{facts['threads']} thread(s)", facts["processor"]]
    if facts["device"] != "cpu":
        shown.append(facts["device"])
    if facts["commit"]:
        shown.append(f"commit {facts['commit']}")
    shown.append(f"load average {facts['load_at_start']:.2f} at the start")
    return f"    {facts['command']}\n\n{', '.join(shown)}; medians (quartiles)"


def record(facts: dict[str, Any], printed: str) -> str:
    """JSON of the circumstances and of all tables that were printed."""
    return json.dumps({**facts, "tables": tables(printed)}, indent=1) + "\n"


def tables(printed: str) -> list[dict[str, Any]]:
    """The Markdown tables of a text, each under the last line of text before it.

    >>> tables("Title\\n\\n| a | b |\\n|---|---|\\n| 1 | 2 |")
    [{'title': 'Title', 'columns': ['a', 'b'], 'rows': [['1', '2']]}]
    """
    parsed: list[dict[str, Any]] = []
    title = ""
    within = False
    for line in printed.splitlines():
        if not line.startswith("|"):
            within = False
            if line.strip():
                title = line.strip("# ")
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not within:
            parsed.append({"title": title, "columns": cells, "rows": []})
            within = True
        elif not set(line) <= set("|-: "):  # the line under the columns says nothing
            parsed[-1]["rows"].append(cells)
    return parsed


def processor() -> str:
    """The name of the processor, or its architecture if it has none."""
    known = Path("/proc/cpuinfo")
    if known.exists():
        for line in known.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


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
