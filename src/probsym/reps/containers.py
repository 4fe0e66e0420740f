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
        arguments = [*args, *(kwargs or {}).values()]
        while not isinstance(arguments[0], cls):
            first = arguments.pop(0)
            if isinstance(first, tuple | list):  # tensors may come in lists, as in torch.cat
                arguments += first
        arguments[0].refuse()

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
    reps: dict[Path, Rep] = {}
    for key, child in items:
        reps.update(leaves(child, (*path, key)))
    return reps


def group_of(*specs: Spec) -> Group:
    """The product of all groups that act in the specs."""
    groups: list[Group] = []
    for spec in specs:
        for rep in leaves(spec).values():
            groups.append(rep.group)
    return product(groups)


def dotted(path: Path, root: str) -> str:
    """A path as a person would write it: `x`, `batch['x']`, or `root` in front of a position."""
    head, rest = root, path
    if path and isinstance(path[0], str):
        head, rest = path[0], path[1:]
    if not rest:
        return head.rstrip()
    for key in rest:
        head += f"[{key!r}]"
    return head


def lookup(value: Any, path: Path, name: str) -> Any:
    """The entry of a container at a path.

    Raises:
        ValueError: it is not there; names the argument.
    """
    for depth, key in enumerate(path):
        value = read(value, key)
        if value is None:
            raise ValueError(f"{dotted(path[: depth + 1], name)} is missing: it is declared, but was not given")
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
        if isinstance(key, int) and -len(value) <= key < len(value):
            return value[key]
        return None
    return getattr(value, str(key), None)


def entries(value: Any, declared: bool = False) -> Iterable[tuple[Any, Any]]:
    """(key, entry) of a container; of an object of any other class than PyG's only if some are `declared`."""
    if isinstance(value, MAPPINGS):
        return value.items()
    if isinstance(value, tuple | list):
        return enumerate(value)
    if hasattr(value, "stores") and hasattr(value, "to_dict"):  # PyG
        return value.to_dict().items()
    if not hasattr(value, "__dict__"):
        return ()
    if declared or (dataclasses.is_dataclass(value) and not isinstance(value, type)):
        return vars(value).items()
    return ()


def exchange(value: Any, changes: Mapping[Path, Any]) -> Any:
    """A shallow copy of nested containers with the entries at several paths exchanged; each is copied once."""
    # 1. the changes of each entry of this container
    if () in changes:
        return changes[()]
    parts: dict[Any, dict[Path, Any]] = {}
    for path, new in changes.items():
        parts.setdefault(path[0], {})[path[1:]] = new
    children = {key: exchange(read(value, key), part) for key, part in parts.items()}

    # 2. a container of the same type
    if isinstance(value, MAPPINGS):
        return {**value, **children}
    if isinstance(value, tuple | list):
        return sequence_like(value, children)
    changed = copy.copy(value)
    for key, child in children.items():
        setattr(changed, str(key), child)
    return changed


def sequence_like(value: tuple[Any, ...] | list[Any], changed: Mapping[int, Any]) -> Any:
    """A tuple, list or namedtuple of the type of `value`, with the entries at some places exchanged."""
    items = [changed.get(i, item) for i, item in enumerate(value)]
    if hasattr(value, "_fields"):  # a namedtuple takes its entries one by one
        return type(value)(*items)
    return type(value)(items)


def search(value: Any, key: Any, path: Path = ()) -> Path | None:
    """The path of the first entry called `key`, containers outside in."""
    if isinstance(value, Tensor) or value is None or isinstance(value, str | int | float):
        return None
    if isinstance(read(value, key), Tensor):
        return (*path, key)
    items: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, Mapping):
        items = value.items()
    elif isinstance(value, tuple | list):
        items = enumerate(value)
    for name, child in items:
        place = search(child, key, (*path, name))
        if place is not None:
            return place
    return None


def build(spec: Spec, fn: Callable[[Path, Rep], Any], path: Path = ()) -> Any:
    """A container shaped like the spec with fn(path, rep) at its leaves."""
    if isinstance(spec, Rep):
        return fn(path, spec)
    if isinstance(spec, dict):
        return {key: build(child, fn, (*path, key)) for key, child in spec.items()}
    return tuple(build(child, fn, (*path, i)) for i, child in enumerate(spec))
