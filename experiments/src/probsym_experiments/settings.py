"""What sets runs of one experiment so far apart that their numbers do not compare: headings within `probsym table`.

Each function reads the configuration that a result holds, which lacks fields younger than the run, and returns a
heading; "" is the experiment's own task. This file imports nothing heavy, as `registry`, which names the functions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def one(config: Mapping[str, Any]) -> str:
    """Of an experiment all of whose runs compare."""
    return ""


def nbody(config: Mapping[str, Any]) -> str:
    """Which bodies, and how far ahead.

    >>> nbody({"system": "gravity", "horizon": 1500})
    'bodies under gravity, 1,500 steps ahead'
    """
    system = config.get("system", "charged")
    horizon = config.get("horizon", 1000)
    if (system, horizon) == ("charged", 1000):
        return ""
    names = {"charged": "charged particles", "gravity": "bodies under gravity"}
    bodies = names.get(system, system)
    return f"{bodies}, {horizon:,} steps ahead"


def atoms(config: Mapping[str, Any]) -> str:
    """Which atoms, and which base network.

    >>> atoms({"system": "paracetamol"})
    'paracetamol'
    """
    system = config.get("system", "ethanol")
    base = config.get("base", "points")
    if base != "points":
        return f"{system}, base {base}"
    if system == "ethanol":
        return ""
    return system


def exp_classify(config: Mapping[str, Any]) -> str:
    """Whether a net of p is told what classifies these graphs by itself, linearly, at 99.5 %.

    The published net of p reads none, whatever the number of walks is.

    >>> exp_classify({"symmetrizer": "ga", "walks": 12})
    ''
    """
    has_net = config.get("symmetrizer", "none") not in ("ga", "fa", "none")
    published = config.get("published", False)
    if has_net and not published and config.get("walks", 0) > 0:
        return "the net of p is told walk probabilities, which tell the classes apart by themselves"
    return ""
