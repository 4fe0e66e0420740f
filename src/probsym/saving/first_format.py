"""The first format of the declaration, rewritten in the second.

It named classes by their place: groups by "family", distributions, estimators and designs by "kind", slots as lists.
"""

from __future__ import annotations

from typing import Any

# What the first format calls a class, and what it is registered as today.
DISTRIBUTIONS = {"Independent": "ProductDistribution"}
DESIGNS = {"Signs": "SignCosets", "Independent": "IID"}


def upgrade(config: dict[str, Any]) -> dict[str, Any]:
    """The declaration of a file of format 1 as format 2 has it."""
    inputs = _spec(config["inputs"])
    return {
        **config,
        "format": 2,
        "inputs": inputs,
        "output": _spec(config["output"]),
        "distribution": _distribution(config["distribution"], inputs),
        "train_samples": _fields(config["train_samples"]),
        "eval_samples": _fields(config["eval_samples"]),
    }


def _member(name: str, /, **arguments: Any) -> dict[str, Any]:
    """A member as the second format writes it."""
    return {"member": name, "arguments": arguments}


def _tuple(parts: list[Any]) -> dict[str, Any]:
    return {"tuple": parts}


def _spec(data: Any) -> Any:
    """Reps in their containers."""
    if data is None:
        return None
    if "rep" in data:
        return _member("Rep", slots=_tuple([_slot(slot) for slot in data["rep"]]))
    if "dict" in data:
        return {"dict": {key: _spec(child) for key, child in data["dict"].items()}}
    return _tuple([_spec(child) for child in data["tuple"]])


def _slot(data: list[Any] | None) -> Any:
    """[class, group], and for edges the name or the path of the node numbers."""
    if data is None:
        return None
    name, group, *labels = data
    arguments = {"group": _group(group)}
    if labels:
        (of,) = labels
        if isinstance(of, list):
            of = _tuple(of)
        arguments["of"] = of
    return _member(name, **arguments)


def _group(data: list[dict[str, Any]]) -> dict[str, Any]:
    """A list of factors."""
    factors = []
    for factor in data:
        factors.append(_member(factor["family"], **_values(factor, without="family")))
    if len(factors) == 1:
        return factors[0]
    return _member("Product", parts=_tuple(factors))


def _fields(data: dict[str, Any]) -> dict[str, Any]:
    """An estimator or a design: its fields beside its class."""
    kind = data["kind"]
    return _member(DESIGNS.get(kind, kind), **_values(data, without="kind"))


def _values(data: dict[str, Any], without: str) -> dict[str, Any]:
    """The fields of an object, without the one that names its class."""
    values = {}
    for key, value in data.items():
        if key != without:
            values[key] = _value(value)
    return values


def _value(value: Any) -> Any:
    """The value of a field: a number, a name, a design, or a list that stands for a tuple of these."""
    if isinstance(value, list):
        return _tuple([_value(part) for part in value])
    if isinstance(value, dict):
        return _fields(value)
    return value


def _distribution(data: dict[str, Any], inputs: Any) -> dict[str, Any]:
    """A distribution, around the default net of the declared inputs where it has a net."""
    kind = data["kind"]
    if kind is None:
        return {"given": data.get("repr")}
    if kind == "Independent":
        parts = [_distribution(part, inputs) for part in data["parts"]]
        return _member(DISTRIBUTIONS[kind], parts=_tuple(parts))

    not_arguments = ("kind", "net", "relaxation")
    arguments = {key: value for key, value in data.items() if key not in not_arguments}
    arguments["group"] = _group(data["group"])
    if "relaxation" in data:
        # Learned and Canonical were written only around the default net of the declared inputs.
        # Files without a number of the net were written when there was one net for every space.
        version = data.get("net", 1)
        arguments["net"] = _member("DefaultNet", spec=inputs, group=arguments["group"], version=version)
        arguments["relaxation"] = _member("Relaxation", **data["relaxation"])
    return _member(kind, **arguments)
