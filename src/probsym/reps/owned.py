"""Memory of their own for the arguments of a model: whatever it writes into them, nobody else sees it."""

from __future__ import annotations

import copy
from collections.abc import Mapping, MutableMapping
from typing import Any

import torch
from torch import Tensor

from probsym.kernels.values import has_memory, recorded
from probsym.reps.containers import sequence_like

CONTAINERS = (dict, tuple, list, Mapping)  # ordinary dicts first: to ask for any Mapping takes long
CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}  # by the number of axes


def owned(value: Any, given: Any) -> Any:
    """`value` with a copy of every tensor that shares memory with its counterpart in `given`.

    Walks dicts, lists and tuples, and the tensors of objects (PyG `Data`) that are themselves copies of the given ones.
    Other objects pass as they are, and so do containers without tensors.

    Args:
        value: arguments of a model. given: the arguments that they were made of, in the same containers.
    """
    return _owned(value, given, recorded())[0]


def _owned(value: Any, given: Any, is_recorded: bool) -> tuple[Any, bool]:
    """The same, and whether anything had to be copied; compilers cannot follow `is` between containers.

    Args:
        is_recorded: whether the call is `recorded`; then every tensor may share memory.
    """
    if isinstance(value, Tensor):
        if isinstance(given, Tensor) and (is_recorded or share_memory(value, given)):
            return value.clone(), True
        return value, False
    if not isinstance(value, CONTAINERS) and value is given:
        return value, False
    changed: dict[Any, Any] = {}
    for key, entry, counterpart in _pairs(value, given):
        new, copied = _owned(entry, counterpart, is_recorded)
        if copied:
            changed[key] = new
    if not changed:
        return value, False
    return _with_entries(value, changed), True


def share_memory(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors of a call that is not `recorded` lie in the same storage; also true where nobody can tell."""
    if a is b or a.layout != torch.strided or b.layout != torch.strided:
        return True
    if not (has_memory(a) and has_memory(b)):
        return True
    return a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr()


def arranged(rows: Tensor, given: Tensor) -> Tensor:
    """`rows` in contiguous memory, so that each has its own and `view` works; channels last if `given` is."""
    if rows.is_contiguous():
        return rows
    order = CHANNELS_LAST.get(rows.ndim)
    if order is not None and given.ndim == rows.ndim:
        if rows.is_contiguous(memory_format=order) and given.is_contiguous(memory_format=order):
            return rows
    return rows.contiguous()


def _pairs(value: Any, given: Any) -> list[tuple[Any, Any, Any]]:
    """(key, entry, its counterpart) of a container or an object."""
    if isinstance(value, tuple | list):
        pairs: list[tuple[Any, Any, Any]] = []
        for i, entry in enumerate(value):
            # a list of names that PyG keeps for each graph is longer for several samples
            counterpart = given[i] if i < len(given) else None
            pairs.append((i, entry, counterpart))
        return pairs
    if isinstance(value, Mapping):
        entries, before = value, given
    else:
        entries, before = _attributes(value), _attributes(given)
    return [(name, entry, before.get(name)) for name, entry in entries.items()]


def _attributes(value: Any) -> Mapping[str, Any]:
    """What an object holds: PyG's `Data` by its own account, others by their `__dict__`."""
    if hasattr(value, "to_dict"):
        return value.to_dict()
    return getattr(value, "__dict__", {})


def _with_entries(value: Any, changed: dict[Any, Any]) -> Any:
    """`value` with some entries exchanged; what is still the caller's is copied first."""
    if isinstance(value, tuple | list):
        return sequence_like(value, changed)
    if isinstance(value, Mapping):
        if type(value) is dict or not isinstance(value, MutableMapping):
            return {**value, **changed}
        copied = copy.copy(value)
        copied.update(changed)
        return copied
    for name, new in changed.items():
        setattr(value, name, new)
    return value
