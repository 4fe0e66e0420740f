"""Members by name: how groups, slots, distributions, nets, estimators and designs are written as JSON and built again.

A file holds names, never paths of code. `register` says which class a name stands for; what is not registered is
neither written nor built. The library registers its own members where they are defined, in the same way.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from types import FunctionType
from typing import Any, TypeVar, overload

import torch

F = TypeVar("F", bound=Callable[..., Any])  # a class or a function
Json = Any  # None, bool, int, float, str, and lists and dicts of these

_CLASSES: dict[str, type] = {}
_NAMES: dict[type, str] = {}
_FUNCTIONS: dict[str, FunctionType] = {}


class UnknownMember(ValueError):
    """A file names a class that is not registered."""


class NeedsObject(ValueError):
    """A file leaves out an object that the caller has to give, such as a net of the user's own."""


@overload
def register(cls: F, *, name: str | None = None) -> F: ...


@overload
def register(cls: None = None, *, name: str | None = None) -> Callable[[F], F]: ...


def register(cls: Any = None, *, name: str | None = None) -> Any:
    """Let `save` write objects of a class and `load` build them again; a decorator.

    By default an object is described by the arguments of its constructor, read from its attributes of the same names.
    So a frozen dataclass needs nothing else. Where arguments and attributes differ, the class defines

        def describe(self) -> dict[str, Any]            # arguments by name
        @classmethod
        def rebuild(cls, **arguments) -> Self           # optional; `cls(**arguments)` unless given

    Arguments are numbers, strings, None, dtypes, other registered objects, and lists, tuples and dicts of these.
    Weights of nets are saved apart: describe the architecture alone.

    A function that is an argument of a member, such as `matrix_of` of `space.linear`, is registered in the same way.

    Args:
        cls: the class, or function; a subclass has to be registered itself.
        name: what the file calls it; the name of the class unless given. Files hold only this name, so the class may
            be renamed or moved later.

    Raises:
        ValueError: another class is registered under this name.

    >>> from dataclasses import dataclass
    >>> @register(name="docs/Mirror")
    ... @dataclass(frozen=True)
    ... class Mirror:
    ...     axis: int
    ...     places: tuple[int, ...] = ()
    >>> rebuild(describe(Mirror(1, (2, 3))))
    Mirror(axis=1, places=(2, 3))
    """
    if cls is None:
        return lambda decorated: register(decorated, name=name)
    if not isinstance(cls, type | FunctionType):
        raise TypeError(f"register: expected a class or a function, got {cls!r}")
    if name is None:
        name = cls.__name__
    other: Any = _CLASSES.get(name, _FUNCTIONS.get(name))
    if other is not None and _path(other) != _path(cls):
        raise ValueError(f"register: the name {name!r} stands for {_path(other)}, pass another name= for {_path(cls)}")
    # A class that is defined again, as in a cell of a notebook that runs twice, replaces the former one.
    if isinstance(cls, FunctionType):
        _FUNCTIONS[name] = cls
        return cls
    _CLASSES[name] = cls
    _NAMES[cls] = name
    return cls


def _path(cls: type | FunctionType) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def describe(value: Any, given: Callable[[Any], bool] | None = None) -> Json:
    """An object as JSON: what it is called and the arguments that make an equal one.

    Args:
        given: whether an object that is not registered may be left out, because `rebuild` will be given it.

    Raises:
        ValueError: an object cannot be built again; names it and the way out.
    """
    # 1. What JSON has itself.
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list):
        return [describe(part, given) for part in value]

    # 2. What JSON lacks. A JSON object always has one of these keys.
    if type(value) is tuple:
        return {"tuple": [describe(part, given) for part in value]}
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise ValueError(f"{key!r}: expected names as strings, got {type(key).__name__}")
        return {"dict": {key: describe(part, given) for key, part in value.items()}}
    if isinstance(value, torch.dtype):
        return {"dtype": str(value).removeprefix("torch.")}

    for name, function in _FUNCTIONS.items():
        if function is value:
            return {"function": name}

    # 3. Members. The exact class counts: a subclass may act in another way.
    value = getattr(value, "_orig_mod", value)  # torch.compile puts a wrapper around a module
    cls = type(value)
    if isinstance(value, FunctionType):
        raise ValueError(
            f"{value.__qualname__}: this function is not registered, so load could not find it: decorate it with "
            "probsym.saving.register, in a module that the loading program imports"
        )
    if cls not in _NAMES:
        if given is not None and given(value):
            return {"given": cls.__name__}
        raise ValueError(
            f"{_brief(value)}: {cls.__name__} is not registered, so load could not rebuild it: decorate the class with "
            "probsym.saving.register, or keep phi.state_dict() and declare the Symmetrizer again in code"
        )
    arguments = {key: describe(part, given) for key, part in _arguments(value).items()}
    described = {"member": _NAMES[cls], "arguments": arguments}
    if not cls.__module__.startswith("probsym."):
        described["from"] = cls.__module__  # for the error of a program that has not imported it; never imported
    return described


def _arguments(value: Any) -> Mapping[str, Any]:
    """The arguments of the constructor that make an equal object."""
    if hasattr(value, "describe"):
        return value.describe()
    cls = type(value)
    remedy = f"give {cls.__name__} a method describe() that returns the arguments of its constructor by name"
    arguments = {}
    for parameter in inspect.signature(cls).parameters.values():
        if parameter.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD):
            raise ValueError(f"{_brief(value)}: its constructor takes {parameter}, so it cannot be saved: {remedy}")
        if not hasattr(value, parameter.name):
            raise ValueError(
                f"{_brief(value)}: its constructor takes {parameter.name!r}, but it has no attribute of this name, so "
                f"it cannot be saved: keep the argument, or {remedy}"
            )
        arguments[parameter.name] = getattr(value, parameter.name)
    return arguments


def _brief(value: Any) -> str:
    """An object in one line. The repr of a module would list everything in it."""
    if isinstance(value, torch.nn.Module):
        return type(value).__name__
    return repr(value)


def rebuild(data: Json) -> Any:
    """The object that `describe` wrote; only registered classes are called.

    Raises:
        UnknownMember: a name that is not registered.
        NeedsObject: an object was left out.
        ValueError: the description is malformed. A constructor may raise other errors.
    """
    if data is None or isinstance(data, bool | int | float | str):
        return data
    if isinstance(data, list):
        return [rebuild(part) for part in data]
    if "tuple" in data:
        return tuple(rebuild(part) for part in data["tuple"])
    if "dict" in data:
        return {key: rebuild(part) for key, part in data["dict"].items()}
    if "dtype" in data:
        dtype = getattr(torch, data["dtype"])
        if not isinstance(dtype, torch.dtype):
            raise ValueError(f"expected the name of a dtype, got {data['dtype']!r}")
        return dtype
    if "given" in data:
        raise NeedsObject(str(data["given"]))
    if "function" in data:
        return _function(data["function"])
    if "member" not in data:
        raise ValueError(f"expected the description of a member, got {data!r}")
    name = data["member"]
    if name not in _CLASSES:
        origin = "a newer release may know it"
        if "from" in data:
            origin = f"import {data['from']}, where it was defined"
        raise UnknownMember(
            f"no class is registered as {name!r}: {origin}, or register yours with "
            f"probsym.saving.register(cls, name={name!r})"
        )
    cls = _CLASSES[name]
    arguments = {key: rebuild(part) for key, part in data["arguments"].items()}
    make = getattr(cls, "rebuild", cls)
    return make(**arguments)


def _function(name: str) -> FunctionType:
    """The function that is registered under a name."""
    if name not in _FUNCTIONS:
        raise UnknownMember(
            f"no function is registered as {name!r}: import the module that defines it, or register yours with "
            f"probsym.saving.register(function, name={name!r})"
        )
    return _FUNCTIONS[name]


def is_registered(cls: type) -> bool:
    """Whether objects of exactly this class can be described."""
    return cls in _NAMES


def registered() -> Mapping[str, type]:
    """All registered classes by name."""
    return dict(_CLASSES)


__all__ = ["NeedsObject", "UnknownMember", "describe", "is_registered", "rebuild", "register", "registered"]
