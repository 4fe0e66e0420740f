"""The Reps of a call, read once: what each declared argument is called, where it stands, and which axes have nodes."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import nn

from probsym.groups import Group
from probsym.reps import containers
from probsym.reps.containers import Path, Spec
from probsym.reps.nodes import NodeAxis
from probsym.reps.rep import Rep


class Declared(NamedTuple):
    """One declared argument."""

    path: Path
    name: str
    rep: Rep


def positional_names(model: nn.Module) -> list[str]:
    """The names of the arguments that a model takes by position or by name, in order; none where it cannot tell."""
    written = getattr(getattr(model, "signature", None), "param_dict", None)  # PyG's Sequential("x, edge_index", ...)
    if isinstance(written, Mapping):
        return list(written)
    try:
        parameters = inspect.signature(model.forward).parameters.values()
    except (TypeError, ValueError):
        return []
    return [p.name for p in parameters if p.kind == inspect.Parameter.POSITIONAL_OR_KEYWORD]


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
        node_axes: dict[Any, None] = {}  # a set in order
        for entry in self.entries:
            for slot, _ in entry.rep.axes:
                if slot.group.on_nodes:
                    node_axes[slot.group] = None
        self.node_axes: tuple[NodeAxis, ...] = tuple(node_axes)
        self.paths = frozenset(entry.path for entry in self.entries)
        self.group: Group = containers.group_of(self.spec)

    def with_markers_named(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], model: nn.Module
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Arguments of a call in which masks and batch vectors that stand at the end by position are given by name.

        Args:
            model: its signature tells the names of the arguments.

        Raises:
            ValueError: such a one stands among the declared arguments.
        """
        declared = len(self.spec["args"])
        for axis in self.node_axes:
            key = axis.marker
            if not isinstance(key, str) or containers.search(kwargs, key) or containers.search(args, key):
                continue
            names = positional_names(model)
            if key not in names[: len(args)] or len(args) > len(names):
                continue
            place = names.index(key)
            if place < declared:
                kind = "mask" if axis.batch is None else "batch"
                raise ValueError(
                    f"argument {place}: the model calls it {key!r}, which {axis!r} names as its {kind}, but it stands "
                    f"among the declared arguments: pass it by name, or give its position instead, {kind}={place}"
                )
            return args[:declared], {**dict(zip(names[declared:], args[declared:], strict=False)), **kwargs}
        return args, kwargs

    def naming(self, whose: Mapping[Path, Path]) -> Signature:
        """The same signature, in which the Reps on edges at these paths name whose edges they are."""
        named = copy.copy(self)
        named.entries = tuple(
            entry._replace(rep=entry.rep.naming(whose[entry.path])) if entry.path in whose else entry
            for entry in self.entries
        )
        return named
