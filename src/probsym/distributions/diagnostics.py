"""Scalars about an estimate, of which those that cost something are computed when they are read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor


class Diagnostics(dict[str, Tensor]):
    """A dict of scalars. A value given as a function is computed at the first look at it, once.

    Iterating over keys, `in` and `len` compute nothing; values, items, comparisons, conversion to a dict and copies
    compute everything. Pickles and deep copies are plain dicts.

    >>> diagnostics = Diagnostics(degenerate=torch.tensor(2), entropy=lambda: torch.tensor(0.5))
    >>> list(diagnostics), diagnostics.computed()
    (['degenerate', 'entropy'], {'degenerate': tensor(2)})
    >>> diagnostics["entropy"], diagnostics == {"degenerate": torch.tensor(2), "entropy": torch.tensor(0.5)}
    (tensor(0.5000), True)
    """

    def __getitem__(self, key: str) -> Tensor:
        value: Any = super().__getitem__(key)
        if callable(value):
            value = value()
            self[key] = value
        return value

    def later(self, key: str) -> Any:
        """The value, or a function of no arguments that computes it once."""
        if callable(super().__getitem__(key)):
            return lambda: self[key]
        return self[key]

    def computed(self) -> dict[str, Tensor]:
        """What is known without a computation."""
        known: dict[str, Tensor] = {}
        for key in self:
            value = super().__getitem__(key)
            if not callable(value):
                known[key] = value
        return known

    # dict(self) and {**self} would take what is stored as it is, if __iter__ were that of dict
    def __iter__(self) -> Iterator[str]:
        return super().__iter__()

    def values(self) -> Any:
        return dict(self).values()

    def items(self) -> Any:
        return dict(self).items()

    def get(self, key: str, default: Any = None) -> Any:
        if key not in self:
            return default
        return self[key]

    def pop(self, key: str, *default: Any) -> Any:
        if key not in self:
            return super().pop(key, *default)
        value = self[key]
        del self[key]
        return value

    def setdefault(self, key: str, default: Any = None) -> Any:
        super().setdefault(key, default)
        return self[key]

    def copy(self) -> dict[str, Tensor]:
        return dict(self)

    def __or__(self, other: Any) -> Any:
        return dict(self) | other

    def __ror__(self, other: Any) -> Any:
        return other | dict(self)

    def __eq__(self, other: object) -> bool:
        return dict(self) == other

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return repr(dict(self))

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)


def lazily(compute: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """`compute` in the gradient mode of now, whenever it is called."""
    mode = torch.is_grad_enabled()

    def later() -> Tensor:
        with torch.set_grad_enabled(mode):
            return compute()

    return later


def fill(diagnostics: dict[str, Tensor], values: Mapping[str, Tensor]) -> None:
    """Put the values into a dict. What waits to be computed keeps waiting only in a `Diagnostics`."""
    waits = isinstance(diagnostics, Diagnostics) and isinstance(values, Diagnostics)
    for key in values:
        diagnostics[key] = values.later(key) if waits else values[key]  # type: ignore[attr-defined]


def merged(*parts: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """One dict of several, without a computation; of the same key the last one counts."""
    values: dict[str, Any] = {}
    for part in parts:
        for key in part:
            values[key] = part.later(key) if isinstance(part, Diagnostics) else part[key]
    return gathered(values)


def gathered(values: dict[str, Any]) -> dict[str, Tensor]:
    """A plain dict unless there is something to compute: compilers know those better."""
    for value in values.values():
        if callable(value):
            return Diagnostics(values)
    return values


def added(parts: Iterable[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The sums of what has the same key, without a computation."""
    by_key: dict[str, list[Mapping[str, Tensor]]] = {}
    for part in parts:
        for key in part:
            by_key.setdefault(key, []).append(part)
    return gathered({key: _total(key, owners) for key, owners in by_key.items()})


def _total(key: str, parts: list[Mapping[str, Tensor]]) -> Any:
    """The sum of the values of one key, or a function that computes it."""

    def total() -> Tensor:
        value = parts[0][key]
        for part in parts[1:]:
            value = value + part[key]
        return value

    for part in parts:
        if isinstance(part, Diagnostics) and callable(part.later(key)):
            return total
    return total()
