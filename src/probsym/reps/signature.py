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


class Declaration(NamedTuple):
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
    names: list[str] = []
    for parameter in parameters:
        if parameter.kind == inspect.Parameter.POSITIONAL_OR_KEYWORD:
            names.append(parameter.name)
    return names


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
        # 1. the Reps in the containers of a call
        self.spec: Spec
        if isinstance(declared, dict):
            self.spec = {"kwargs": declared}
        elif isinstance(declared, tuple):
            self.spec = {"args": declared}
        else:
            self.spec = {"args": (declared,)}

        # 2. every declared argument
        entries: list[Declaration] = []
        for path, rep in containers.leaves(self.spec).items():
            entries.append(Declaration(path, containers.dotted(path[1:], "argument "), rep))
        if not entries:
            raise ValueError("inputs: expected at least one Rep, got none")
        self.entries = tuple(entries)
        self.paths = frozenset(entry.path for entry in entries)

        # 3. what acts on them
        self.group: Group = containers.group_of(self.spec)
        node_axes: dict[Any, None] = {}  # a set in order
        for entry in self.entries:
            for slot, _ in entry.rep.axes:
                if slot.group.on_nodes:
                    node_axes[slot.group] = None
        self.node_axes: tuple[NodeAxis, ...] = tuple(node_axes)

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
            by_name = dict(zip(names[declared:], args[declared:], strict=False))
            return args[:declared], {**by_name, **kwargs}
        return args, kwargs

    def naming(self, whose: Mapping[Path, Path]) -> Signature:
        """The same signature, in which the Reps on edges at these paths name whose edges they are."""
        entries: list[Declaration] = []
        for entry in self.entries:
            if entry.path in whose:
                entry = entry._replace(rep=entry.rep.naming(whose[entry.path]))
            entries.append(entry)
        named = copy.copy(self)
        named.entries = tuple(entries)
        return named
