"""A property that is computed once, and that `torch.compile` can follow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar, overload

import torch

T = TypeVar("T")


class lazy(Generic[T]):
    """`functools.cached_property` without its lock, which compilers cannot trace; they compute it at each access."""

    def __init__(self, fn: Callable[[Any], T]) -> None:
        self.fn = fn
        self.name = fn.__name__
        self.__doc__ = fn.__doc__

    @overload
    def __get__(self, instance: None, owner: Any = None) -> lazy[T]: ...
    @overload
    def __get__(self, instance: object, owner: Any = None) -> T: ...
    def __get__(self, instance: Any, owner: Any = None) -> Any:
        if instance is None:
            return self
        value = self.fn(instance)
        if not torch.compiler.is_compiling():
            instance.__dict__[self.name] = value
        return value
