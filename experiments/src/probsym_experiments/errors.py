"""The one exception whose message a user of the command line reads."""

from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T")


class UserError(ValueError):
    """Something the user can put right: it ends the program with exit code 2 and one line, not a traceback."""


def choose(what: str, registry: Mapping[str, T], key: str) -> T:
    """The entry of a registry, or an error that names all of them.

    >>> choose("base", {"gnn": 1}, "mlp")
    Traceback (most recent call last):
    probsym_experiments.errors.UserError: base: expected one of gnn; got 'mlp'
    """
    if key not in registry:
        raise UserError(f"{what}: expected one of {', '.join(registry)}; got {key!r}")
    return registry[key]
