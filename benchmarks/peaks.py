"""Peak memory of one call, in a process of its own (Linux)."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

# What the process of its own runs.
CHILD = """
import sys
sys.path.insert(0, {here!r})
import torch
torch.set_num_threads(1)
from {module} import {name}

def kilobytes(key):
    for line in open("/proc/self/status"):
        if line.startswith(key + ":"):
            return int(line.split()[1])

call = {name}(**{options!r})
open("/proc/self/clear_refs", "w").write("5")  # forget the peak so far
before = kilobytes("VmRSS")
call()
print(before, kilobytes("VmHWM"))
"""


def peak(prepare: Callable[..., Callable[[], object]], **options: object) -> tuple[float, float]:
    """MB of the process before, and at most during, the call that `prepare(**options)` returns."""
    here = str(Path(__file__).parent)
    child = CHILD.format(here=here, module=prepare.__module__, name=prepare.__name__, options=options)
    env = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}  # freed memory goes back at once
    done = subprocess.run([sys.executable, "-c", child], capture_output=True, text=True, check=True, env=env)
    before, most = done.stdout.split()
    return int(before) / 1024, int(most) / 1024


def growth(prepare: Callable[..., Callable[[], object]], **options: object) -> str:
    """By how much the call makes the process larger at most."""
    before, most = peak(prepare, **options)
    return f"{most - before:.0f} MB"
