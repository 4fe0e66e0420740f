"""Peak memory of one call, in a process of its own (Linux)."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

CHILD = """
import sys; sys.path.insert(0, {here!r})
import torch; torch.set_num_threads(1)
from {module} import {name}
call = {name}(**{options!r})
status = lambda key: int(open("/proc/self/status").read().split(key + ":")[1].split()[0])
open("/proc/self/clear_refs", "w").write("5")  # forget the peak so far
before = status("VmRSS")
call()
print(before, status("VmHWM"))
"""


def peak(prepare: Callable[..., Callable[[], object]], **options: object) -> tuple[float, float]:
    """MB of the process before, and at most during, the call that `prepare(**options)` returns."""
    here = str(Path(__file__).parent)
    child = CHILD.format(here=here, module=prepare.__module__, name=prepare.__name__, options=options)
    env = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}  # freed memory goes back at once
    done = subprocess.run([sys.executable, "-c", child], capture_output=True, text=True, check=True, env=env)
    before, most = (int(kilobytes) / 1024 for kilobytes in done.stdout.split())
    return before, most


def growth(prepare: Callable[..., Callable[[], object]], **options: object) -> str:
    before, most = peak(prepare, **options)
    return f"{most - before:.0f} MB"
