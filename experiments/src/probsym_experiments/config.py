"""A preset and the command line's overrides become a typed config; whatever does not fit is an error that names it."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Sequence
from dataclasses import asdict, fields, is_dataclass
from typing import Any

import jsonargparse

from .checks import idle
from .errors import UserError, choose
from .registry import Experiment


def load_config(experiment: Experiment, preset: str, overrides: Sequence[str] = ()) -> Any:
    """The experiment's dataclass from a preset by name and arguments such as `--steps 100 --trainer.devices 2`.

    Raises UserError for an unknown preset, an unknown or mistyped field, a value out of range, or an override that
    `uses` of the config tells to change nothing.
    """
    file = ["--preset", str(choose("preset", experiment.presets, preset))]
    refuse_groups(experiment, overrides)
    config = parse(experiment, [*file, *overrides])
    if overrides:
        of_preset = asdict(parse(experiment, file))
        changed = []
        for name, value in asdict(config).items():
            if value != of_preset[name]:
                changed.append(name)
        idle(config, changed)
    return config


def parse(experiment: Experiment, arguments: Sequence[str]) -> Any:
    """The dataclass from arguments alone; here `--preset` is the path of a YAML file."""
    parser = _parser(experiment)
    try:
        given = parser.parse_args(list(arguments))
        given.pop("preset", None)
        values = vars(parser.instantiate(given))
    except argparse.ArgumentError as error:
        raise UserError(_one_line(str(error))) from error
    config = experiment.config(**values)
    within_range(asdict(config))
    return config


def refuse_groups(experiment: Experiment, overrides: Sequence[str]) -> None:
    """Raises UserError for a value given to a group of fields, as `--trainer VALUE`, instead of one of its fields.

    jsonargparse would take the value for the name of a class, and import it.
    """
    defaults = experiment.config()
    groups = []
    for field in fields(experiment.config):
        if is_dataclass(getattr(defaults, field.name)):
            groups.append(field.name)
    for argument in overrides:
        name = argument.partition("=")[0].removeprefix("--").removesuffix("+")
        if argument.startswith("--") and name in groups:
            raise UserError(f"{name}: expected one of its fields, as --{name}.FIELD VALUE; got {argument!r}")


def within_range(config: Any, name: str = "") -> None:
    """Raises UserError for numbers with which nothing can be computed: not finite, or too long for torch."""
    if isinstance(config, dict):
        prefix = ""
        if name:
            prefix = f"{name}."
        for key, value in config.items():
            within_range(value, f"{prefix}{key}")
    elif isinstance(config, list | tuple):
        for value in config:
            within_range(value, name)
    elif isinstance(config, float) and not math.isfinite(config):
        raise UserError(f"{name}: expected a finite number; got {config}")
    elif isinstance(config, int):
        bits = 31
        if name == "seed":
            bits = 63
        if abs(config) >= 2**bits:
            raise UserError(f"{name}: expected a whole number below 2^{bits}; got {config}")


def fields_help(experiment: Experiment) -> str:
    """The fields with their types, defaults and meaning."""
    return _parser(experiment).format_help()


def _parser(experiment: Experiment) -> jsonargparse.ArgumentParser:
    parser = jsonargparse.ArgumentParser(
        prog=f"probsym run {experiment.name}", usage=argparse.SUPPRESS, exit_on_error=False, allow_abbrev=False
    )
    parser.add_argument("--preset", action="config", help=argparse.SUPPRESS)
    parser.add_class_arguments(experiment.config)
    return parser


def _one_line(message: str) -> str:
    """jsonargparse's message without its own words: 'steps: Expected a int. Got value: x'."""
    message = re.sub(r'Parser key "(.+?)":', r"\1:", message)
    return " ".join(re.sub(r"<class '(.+?)'>", r"\1", message).split())
