"""Reps as leaves of dict, tuple and PyG `Data`: read the declared tensors out, put moved ones back."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NoReturn, TypeAlias

from torch import Tensor

from probsym.groups import Group, Slot, product
from probsym.reps.rep import Rep

Spec: TypeAlias = Any  # Rep, None ("pass it as it is"), or dict / tuple of Specs
Path: TypeAlias = tuple[Any, ...]
MAPPINGS = (dict, Mapping)  # ordinary dicts first: to ask for any Mapping takes long


class Undeclared:
    """Stands for an entry that has no Rep: whatever is done with it is refused, with the message given.

    It may be handed on, looked at in a list of entries, and indexed; it has no value.
    """

    def __init__(self, message: str) -> None:
        self.__dict__["message"] = message

    def refuse(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise ValueError(self.__dict__["message"])

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # questions of Python's own, such as how to copy it
            raise AttributeError(name)
        self.refuse()

    def __getitem__(self, key: Any) -> Undeclared:
        return self

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> NoReturn:
        parts = [*args, *(kwargs or {}).values()]
        while not isinstance(parts[0], cls):  # tensors may come in lists, as in torch.cat
            first = parts.pop(0)
            parts += first if isinstance(first, tuple | list) else []
        parts[0].refuse()

    def __repr__(self) -> str:
        return "<no Rep>"

    __hash__ = object.__hash__


ARITHMETIC = ("add", "sub", "mul", "matmul", "truediv", "floordiv", "mod", "pow", "and", "or", "xor")
REFUSED = (
    *ARITHMETIC,
    *(f"r{name}" for name in ARITHMETIC),
    *("neg", "pos", "abs", "invert", "eq", "ne", "lt", "le", "gt", "ge"),
    *("bool", "int", "float", "index", "array", "len", "iter", "contains", "setitem", "setattr"),
)
for _name in REFUSED:
    setattr(Undeclared, f"__{_name}__", Undeclared.refuse)


def as_spec(declared: Any, name: str, untouched: bool = False) -> Spec:
    """Reps in a container; groups and slots are short for Reps.

    Args:
        untouched: whether None may be declared, for what is passed as it is.

    Raises:
        TypeError: something else is declared.
    """
    if isinstance(declared, Rep) or (declared is None and untouched):
        return declared
    if isinstance(declared, Group | Slot):
        return Rep(declared)
    if isinstance(declared, Mapping):
        return {key: as_spec(value, f"{name}[{key!r}]", untouched) for key, value in declared.items()}
    if isinstance(declared, tuple | list):
        return tuple(as_spec(value, f"{name}[{i}]", untouched) for i, value in enumerate(declared))
    raise TypeError(f"{name}: expected a Rep, or a dict or tuple of them, got {type(declared).__name__} {declared!r}")


def leaves(spec: Spec, path: Path = ()) -> dict[Path, Rep]:
    """Every Rep of a spec by its path."""
    if spec is None:
        return {}
    if isinstance(spec, Rep):
        return {path: spec}
    items = spec.items() if isinstance(spec, dict) else enumerate(spec)
    return {p: rep for key, child in items for p, rep in leaves(child, (*path, key)).items()}


def group_of(*specs: Spec) -> Group:
    """The product of all groups that act in the specs."""
    return product(rep.group for spec in specs for rep in leaves(spec).values())


def dotted(path: Path, root: str) -> str:
    """A path as a person would write it."""
    head, rest = (str(path[0]), path[1:]) if path and isinstance(path[0], str) else (root, path)
    return head.rstrip() if not rest else head + "".join(f"[{key!r}]" for key in rest)


def lookup(value: Any, path: Path, name: str) -> Any:
    """The entry of a container at a path.

    Raises:
        ValueError: it is not there; names the argument.
    """
    for depth, key in enumerate(path):
        found = read(value, key)
        if found is None:
            raise ValueError(f"{dotted(path[: depth + 1], name)} is missing: it is declared, but was not given")
        value = found
    return value


def read(value: Any, key: Any) -> Any:
    """value[key] for containers, value.key for objects such as PyG Data; None if absent."""
    if isinstance(value, Undeclared):
        return None
    if isinstance(value, MAPPINGS):
        return value.get(key)
    if isinstance(value, tuple) and key in getattr(value, "_fields", ()):
        return getattr(value, key)
    if isinstance(value, tuple | list):
        return value[key] if isinstance(key, int) and -len(value) <= key < len(value) else None
    return getattr(value, str(key), None)


def entries(value: Any, declared: bool = False) -> Iterable[tuple[Any, Any]]:
    """(key, entry) of a container; of an object of any other class than PyG's only if some are `declared`."""
    if isinstance(value, MAPPINGS):
        return value.items()
    if isinstance(value, tuple | list):
        return enumerate(value)
    if hasattr(value, "stores") and hasattr(value, "to_dict"):  # PyG
        return value.to_dict().items()
    if hasattr(value, "__dict__") and (declared or (dataclasses.is_dataclass(value) and not isinstance(value, type))):
        return vars(value).items()
    return ()


def exchange(value: Any, changes: Mapping[Path, Any]) -> Any:
    """A shallow copy of nested containers with the entries at several paths exchanged; each is copied once."""
    if () in changes:
        return changes[()]
    parts: dict[Any, dict[Path, Any]] = {}
    for path, new in changes.items():
        parts.setdefault(path[0], {})[path[1:]] = new
    children = {key: exchange(read(value, key), part) for key, part in parts.items()}
    if isinstance(value, MAPPINGS):
        return {**value, **children}
    if isinstance(value, tuple | list):
        items = [children.get(i, item) for i, item in enumerate(value)]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    changed = copy.copy(value)
    for key, child in children.items():
        setattr(changed, str(key), child)
    return changed


def search(value: Any, key: Any, path: Path = ()) -> Path | None:
    """The path of the first entry called `key`, containers outside in."""
    if isinstance(value, Tensor) or value is None or isinstance(value, str | int | float):
        return None
    if isinstance(read(value, key), Tensor):
        return (*path, key)
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, tuple | list) else ()
    found = (search(child, key, (*path, k)) for k, child in items)
    return next((p for p in found if p is not None), None)


def build(spec: Spec, fn: Callable[[Path, Rep], Any], path: Path = ()) -> Any:
    """A container shaped like the spec with fn(path, rep) at its leaves."""
    if isinstance(spec, Rep):
        return fn(path, spec)
    if isinstance(spec, dict):
        return {key: build(child, fn, (*path, key)) for key, child in spec.items()}
    return tuple(build(child, fn, (*path, i)) for i, child in enumerate(spec))
