"""Integers as arguments: whatever Python takes for one."""

from __future__ import annotations

import operator
from typing import Any

from torch import Tensor


def whole_number(name: str, value: Any, least: int) -> int:
    """`value` as an int: anything that Python takes for an integer, such as `numpy.int64`, but no bool and no tensor.

    Raises:
        ValueError: no integer, or below `least`; names the argument.

    >>> import numpy as np
    >>> whole_number("samples", np.int32(3), 1)
    3
    """
    if isinstance(value, bool | Tensor):
        number = None
    elif isinstance(value, int):
        number = value
    else:
        try:
            number = operator.index(value)
        except TypeError:
            number = None
    if number is None or number < least:
        raise ValueError(f"{name}: expected an integer of at least {least}, got {value!r}")
    return number


def positive(name: str, value: Any) -> int:
    """`value` as an int of at least one; see `whole_number`."""
    return whole_number(name, value, 1)
