"""What the fields of a configuration must be; every error names the field, what was expected and what came."""

from collections.abc import Collection
from typing import Any

from .errors import UserError, choose

Uses = dict[str, tuple[bool, Collection[str]]]
NOISES = dict.fromkeys(("late", "input"))  # where noise enters the net of p


def at_least(config: object, low: float, *names: str) -> None:
    """Raises if a field is below a bound, or not a number."""
    for name in names:
        value = getattr(config, name)
        if not value >= low:  # not a number is not at least anything
            raise UserError(f"{name}: expected at least {low}; got {value}")


def positive(config: object, *names: str) -> None:
    """Raises if a field is not above zero."""
    for name in names:
        value = getattr(config, name)
        if not value > 0:
            raise UserError(f"{name}: expected a positive number; got {value}")


def idle(config: Any, asked: Collection[str]) -> None:
    """Raises for a field that was asked for, though it changes nothing of this configuration.

    `config.uses()` tells what fields belong to -> whether the configuration has it, and their names.
    """
    for where, (fits, names) in config.uses().items():
        for name in names:
            if name in asked and not fits and getattr(config, name) is not None:
                raise UserError(f"{name}: expected only with {where}; got {getattr(config, name)}")


def samples_evaluated(config: Any) -> None:
    """Raises if `samples`, the result's, is not one of the positive numbers `eval_samples`."""
    if config.samples not in config.eval_samples or min(config.eval_samples) < 1:
        raise UserError(
            f"eval_samples: expected positive numbers, {config.samples} among them; got {config.eval_samples}"
        )


def noise_enters(config: Any) -> None:
    """Raises if `noise` is no place where noise enters the net of p."""
    choose("noise", NOISES, config.noise)
