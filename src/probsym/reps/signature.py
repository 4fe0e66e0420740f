"""The Reps of a call, read once: what each declared argument is called, where it stands, and which axes have nodes."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import NamedTuple

from probsym.groups import Group, NodeAxis
from probsym.reps import containers
from probsym.reps.containers import Path, Spec
from probsym.reps.rep import Rep


class Declared(NamedTuple):
    """One declared argument."""

    path: Path
    name: str
    rep: Rep


class Signature:
    """What `Inputs.bind` asks of the Reps at every call.

    Args:
        declared: a dict of Reps describes keyword arguments, a tuple positional ones, one Rep the single argument.

    Attributes:
        spec: the Reps in containers shaped like {"args": tuple, "kwargs": dict}.
        entries: every declared argument. node_axes: the node axes among them, in order.

    Raises:
        ValueError: nothing is declared.
    """

    def __init__(self, declared: Spec) -> None:
        positional = declared if isinstance(declared, tuple) else (declared,)
        self.spec: Spec = {"kwargs": declared} if isinstance(declared, dict) else {"args": positional}
        self.entries = tuple(
            Declared(path, containers.dotted(path[1:], "argument "), rep)
            for path, rep in containers.leaves(self.spec).items()
        )
        if not self.entries:
            raise ValueError("inputs: expected at least one Rep, got none")
        groups = (slot.group for entry in self.entries for slot, _ in entry.rep.axes)
        self.node_axes = tuple(dict.fromkeys(group for group in groups if isinstance(group, NodeAxis)))
        self.paths = frozenset(entry.path for entry in self.entries)
        self.group: Group = containers.group_of(self.spec)

    def naming(self, whose: Mapping[Path, Path]) -> Signature:
        """The same signature, in which the Reps on edges at these paths name whose edges they are."""
        named = copy.copy(self)
        named.entries = tuple(
            entry._replace(rep=entry.rep.naming(whose[entry.path])) if entry.path in whose else entry
            for entry in self.entries
        )
        return named
