"""What the fields of a configuration must be; every error names the field, what was expected and what came."""

from typing import Any

from .errors import UserError, choose

NOISES = {"late": "its features", "input": "its inputs"}  # where noise enters the net of p


def at_least(config: object, low: float, *names: str) -> None:
    """Raises if a field is below a bound, or not a number."""
    for name in names:
        if not (value := getattr(config, name)) >= low:
            raise UserError(f"{name}: expected at least {low}; got {value}")


def positive(config: object, *names: str) -> None:
    """Raises if a field is not above zero."""
    for name in names:
        if not (value := getattr(config, name)) > 0:
            raise UserError(f"{name}: expected a positive number; got {value}")


def samples_evaluated(config: Any) -> None:
    """Raises if `samples`, the result's, is not one of the positive numbers `eval_samples`."""
    if config.samples not in config.eval_samples or min(config.eval_samples) < 1:
        raise UserError(
            f"eval_samples: expected positive numbers, {config.samples} among them; got {config.eval_samples}"
        )


def noise_enters(config: Any) -> None:
    """Raises if `noise` is no place where noise enters the net of p."""
    choose("noise", NOISES, config.noise)
