"""Checks of arguments."""

from __future__ import annotations

import math
from typing import Any


def expected(kinds: Any, **values: object) -> None:
    """Raises TypeError for the first value of another type; a bool is no number."""
    for name, value in values.items():
        if not isinstance(value, kinds) or (isinstance(value, bool) and kinds is not bool):
            raise TypeError(f"{name}: expected {kinds!r}, got {value!r}")


def counted(**numbers: int) -> None:
    """Raises ValueError for the first that is no whole number from 1 on."""
    for name, value in numbers.items():
        if not whole(value) or value < 1:
            raise ValueError(f"{name}: expected a whole number from 1 on, got {value!r}")


def whole(value: object) -> bool:
    """Whether a value is a whole number, which True and 1.0 are not."""
    return isinstance(value, int) and not isinstance(value, bool)


def rate(**numbers: float) -> None:
    """Raises TypeError or ValueError for the first that is no finite number from 0 on."""
    expected(int | float, **numbers)
    for name, value in numbers.items():
        if not 0 <= value < math.inf:
            raise ValueError(f"{name}: expected a finite number from 0 on, got {value}")
