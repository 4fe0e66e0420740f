"""Reads what `probsym run` wrote, run.json and result.json; what is damaged is one error that names file and field."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from probsym import files

from .errors import UserError

IDENTITY = "run.json"
RESULT = "result.json"

Kinds = tuple[type, ...]  # what a field may be; None is JSON's null, which stands for a number that was not finite
WHOLE: Kinds = (int,)
NUMBER: Kinds = (int, float)
NUMBER_OR_NONE: Kinds = (int, float, type(None))
TEXT: Kinds = (str,)
TEXT_OR_NONE: Kinds = (str, type(None))
LIST_OR_NONE: Kinds = (list, type(None))

IDENTITY_FIELDS: dict[str, Kinds] = {"experiment": TEXT, "preset": TEXT, "config": (dict,)}
RESULT_FIELDS: dict[str, Kinds] = {
    "experiment": TEXT,
    "preset": TEXT,
    "value": NUMBER_OR_NONE,
    "stderr": NUMBER_OR_NONE,
    "seed": WHOLE,
    "samples": WHOLE,
    "steps": WHOLE,
    "wall_s": NUMBER,
    "params": NUMBER,
    "overrides": (dict,),
}
# What earlier versions did not write.
YOUNGER_FIELDS: dict[str, Kinds] = {
    "metric": TEXT,
    "commit": TEXT_OR_NONE,
    "versions": (dict,),
    "resumed": (list,),
    "threads": WHOLE,
    "config": (dict,),
    "device": TEXT_OR_NONE,
    "stderr_test": NUMBER_OR_NONE,
    "train_flops": NUMBER_OR_NONE,
    "cpu_s": NUMBER_OR_NONE,
    "by_samples": LIST_OR_NONE,
    "equivariance_by_samples": LIST_OR_NONE,
    "samples_for_tolerance": LIST_OR_NONE,
    "learning_curve": LIST_OR_NONE,
}
# Of each entry of these lists: fields that must be there.
ENTRY_FIELDS: dict[str, dict[str, Kinds]] = {
    "by_samples": {"samples": WHOLE},
    "equivariance_by_samples": {"samples": WHOLE},
    "samples_for_tolerance": {"tolerance": NUMBER, "histogram": (list,)},
    "learning_curve": {"step": WHOLE},
}
# And fields that may be.
ENTRY_YOUNGER_FIELDS: dict[str, Kinds] = {
    "value": NUMBER_OR_NONE,
    "error": NUMBER_OR_NONE,
    "valid": NUMBER_OR_NONE,
    "stderr": NUMBER_OR_NONE,
    "stderr_test": NUMBER_OR_NONE,
    "above": NUMBER,
}


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object, or a UserError that names the file."""
    try:
        return files.read_json(path)
    except ValueError as error:
        raise UserError(str(error)) from error


def read_identity(path: Path) -> dict[str, Any]:
    """run.json: whose run a folder holds."""
    identity = read_json(path)
    _check(path, identity, IDENTITY_FIELDS, needed=True)
    _check(path, identity, YOUNGER_FIELDS, needed=False)
    if identity.get("threads", 1) < 1:
        raise UserError(f"{path}: threads: expected at least 1; got {identity['threads']}")
    return identity


def read_result(path: Path) -> dict[str, Any]:
    """result.json, or a file with the same content."""
    result = read_json(path)
    _check(path, result, RESULT_FIELDS, needed=True)
    _check(path, result, YOUNGER_FIELDS, needed=False)
    for name, fields in ENTRY_FIELDS.items():
        for number, entry in enumerate(result.get(name) or ()):
            place = f"{name}[{number}]"
            if not isinstance(entry, dict):
                raise UserError(f"{path}: {place}: expected an object; got {type(entry).__name__}")
            _check(path, entry, fields, needed=True, place=f"{place}.")
            _check(path, entry, ENTRY_YOUNGER_FIELDS, needed=False, place=f"{place}.")
            if name == "samples_for_tolerance":
                _check_histogram(path, f"{place}.histogram", entry["histogram"])
    return result


def _check(path: Path, entry: Mapping[str, Any], fields: dict[str, Kinds], needed: bool, place: str = "") -> None:
    """Raises UserError for a field that is missing though needed, or is of another kind than it may be."""
    missing = [place + name for name in fields if name not in entry]
    if needed and missing:
        raise UserError(f"{path}: expected what probsym run writes; it lacks {', '.join(missing)}")
    for name, kinds in fields.items():
        if name not in entry:
            continue
        value = entry[name]
        right = isinstance(value, kinds) and not isinstance(value, bool)  # Python takes true for a number
        if not right:
            expected = " or ".join(kind.__name__ for kind in kinds).replace("NoneType", "null")
            raise UserError(f"{path}: {place}{name}: expected {expected}; got {type(value).__name__}")


def _check_histogram(path: Path, place: str, counts: list[Any]) -> None:
    """Raises UserError unless it counts something."""
    right = True
    for count in counts:
        if not isinstance(count, int) or count < 0:
            right = False
    if not right or sum(counts) == 0:
        raise UserError(f"{path}: {place}: expected numbers of test inputs, not all zero; got {counts}")
