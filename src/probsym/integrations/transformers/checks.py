"""Checks of arguments. Each takes keywords, so that an error names the argument."""

from __future__ import annotations

import math
from types import UnionType


def expected(kinds: type | UnionType, **values: object) -> None:
    """Raises TypeError for the first value of another type. A bool is not taken for a number."""
    for name, value in values.items():
        unwanted_bool = isinstance(value, bool) and kinds is not bool
        if unwanted_bool or not isinstance(value, kinds):
            raise TypeError(f"{name}: expected {kinds!r}, got {value!r}")


def counted(**numbers: int) -> None:
    """Raises ValueError for the first value that is not a whole number of at least 1."""
    for name, value in numbers.items():
        if not whole(value) or value < 1:
            raise ValueError(f"{name}: expected a whole number from 1 on, got {value!r}")


def whole(value: object) -> bool:
    """Whether a value is a whole number, which True and 1.0 are not."""
    return isinstance(value, int) and not isinstance(value, bool)


def rate(**numbers: float) -> None:
    """Raises TypeError or ValueError for the first value that is not a finite number of at least 0."""
    expected(int | float, **numbers)
    for name, value in numbers.items():
        if not 0 <= value < math.inf:
            raise ValueError(f"{name}: expected a finite number from 0 on, got {value}")
