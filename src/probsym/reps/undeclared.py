"""Tensors of a call that nobody declared: refused by name, before any number is computed with them.

A tensor with a row per input, node or edge has to be moved and repeated with the rest, and no shape tells such a tensor
from a table: with one input, or a last batch as long as the table, they look alike. So every tensor with at least one
axis is declared, with a Rep or with None ("pass it as it is"). Numbers, strings and tensors without axes pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from probsym.kernels.values import recorded
from probsym.reps import containers
from probsym.reps.containers import Path, Spec, Undeclared
from probsym.reps.rep import Rep

NOTHING: Spec = {}  # the spec of a container in which nothing is declared


def guarded(values: dict[str, Any], spec: Spec, markers: list[Path], missing: list[str]) -> dict[str, Any]:
    """The arguments of a call, with a stand-in for every entry of a declared container that has no Rep itself.

    An argument is refused at once. An entry of a dict or a PyG `Data` of which other entries are declared may be one
    that the model never reads, such as a label: its stand-in is refused when something is done with it.

    Args:
        values: {"args": tuple, "kwargs": dict}. spec: the Reps in containers of this shape.
        markers: where masks and batch vectors are. missing: names of those that were not found.

    Raises:
        ValueError: an argument is a tensor, or holds one, and is not declared.
        TypeError: an argument is a `HeteroData`, and is not declared None.
    """
    changes: dict[Path, Undeclared] = {}
    for path, value in _undeclared(values, spec, ()):
        # masks and batch vectors are read by name, and PyG's own entries are rewritten for every call
        if path in markers or _is_bookkeeping(values, path, markers):
            continue

        # refused at once: whole arguments, entries of containers in which nothing is declared, and under a compiler
        refusal = Undeclared(_message(path, value, spec, missing))
        if len(path) == 2 or not _inner(_inner(spec, path[0]), path[1]) or recorded():
            refusal.refuse()
        changes[path] = refusal
    if not changes:
        return values
    return containers.exchange(values, changes)


def _undeclared(value: Any, spec: Spec, path: Path) -> Iterator[tuple[Path, Any]]:
    """Every tensor or array with at least one axis, and where it is, that has neither a Rep nor None.

    Raises:
        TypeError: Reps are declared in a `HeteroData`, or nothing is.
    """
    if spec is None or isinstance(spec, Rep) or isinstance(value, Undeclared):
        return
    if isinstance(value, Tensor) or hasattr(value, "__array__"):
        if getattr(value, "ndim", 0):
            yield path, value
        return
    # Compilers cannot follow the bases of a class, and meet no such object: they would fail at its entries before.
    if not recorded() and any(kind.__name__ == "HeteroData" for kind in type(value).__mro__):
        name = repr(path[1]) if len(path) == 2 else containers.dotted(path[1:], "")
        raise TypeError(
            f"argument {name}: a HeteroData of PyG has one container for each kind of node, "
            "which cannot be exchanged for another: pass its tensors as arguments of their own, and name the batch "
            'vector of each kind, as in S("atoms", batch="atoms_batch")'
        )
    for key, child in containers.entries(value, declared=bool(spec)):
        yield from _undeclared(child, _inner(spec, key), (*path, key))


def _inner(spec: Spec, key: Any) -> Spec:
    """The spec of one entry of a container."""
    if isinstance(spec, dict):
        return spec.get(key, NOTHING)
    if isinstance(spec, tuple) and isinstance(key, int) and key < len(spec):
        return spec[key]
    return NOTHING


def _is_bookkeeping(values: dict[str, Any], path: Path, markers: list[Path]) -> bool:
    """Whether an entry beside a batch vector is one of PyG's own."""
    for marker in markers:
        if marker[:-1] == path[:-1]:
            return is_bookkeeping(containers.lookup(values, path[:-1], "argument "), path[-1])
    return False


def is_bookkeeping(holder: Any, key: Any) -> bool:
    """`ptr`, `num_nodes`, and `x_batch` and `x_ptr` of an entry x (PyG's `follow_batch`)."""
    if key in ("ptr", "num_nodes"):
        return True
    stem, _, end = str(key).rpartition("_")
    return end in ("batch", "ptr") and containers.read(holder, stem) is not None


def _message(path: Path, value: Any, spec: Spec, missing: list[str]) -> str:
    """Why a tensor is refused, and the ways out."""
    name = repr(path[1]) if len(path) == 2 else containers.dotted(path[1:], "")
    place = "inputs"
    for key in path[1:-1]:
        place += f"[{key!r}]"
    entry = ""
    if isinstance(path[-1], str):
        entry = f", {path[-1]!r}: ps.Rep(),"
    text = (
        f"argument {name} has no Rep (a tensor of shape {tuple(value.shape)}), so it would neither be moved nor "
        f"repeated with the rest: declare it Rep() in {place}{entry} if it has one row per input on which nothing "
        "acts, with the Rep of what acts on it otherwise, or None to pass it to the model as it is"
    )
    if path[0] == "kwargs" and "kwargs" not in spec:
        text += "; to declare arguments by name, positional ones too, make inputs a dict {name: Rep, ...}"
    if missing:
        text += f"; if it is the {' or '.join(missing)} that an axis names, pass it by that name"
        if path[0] == "args" and len(path) == 2:
            text += f", or name its position, as in S(..., batch={path[1]}) or S(..., mask={path[1]})"
    return text


__all__ = ["Undeclared", "guarded", "is_bookkeeping"]
