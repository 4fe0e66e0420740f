"""Save a Symmetrizer as safetensors and JSON, and load it back: nothing is pickled."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from torch import nn

from probsym.distributions import (
    Canonical,
    DefaultNet,
    EquivariantDistribution,
    Frame,
    Haar,
    Independent,
    Learned,
    Relaxation,
)
from probsym.estimators import Adaptive, Design, Estimator, Exact, Hybrid, MonteCarlo, designs
from probsym.files import write
from probsym.groups import FAMILIES, Group, Slot, product
from probsym.groups.axis import Edges, Labels, Nodes
from probsym.groups.cyclic import Regular, Turned
from probsym.groups.euclidean import Point
from probsym.groups.orthogonal import Det, Vector
from probsym.groups.shift import Rolled
from probsym.groups.signs import Signed
from probsym.reps import Rep
from probsym.symmetrizer import Symmetrizer

WEIGHTS, CONFIG = "model.safetensors", "probsym.json"
GROUPS = {family.__name__: family for family in FAMILIES}
KINDS_OF_SLOT = (Nodes, Labels, Edges, Point, Vector, Det, Turned, Regular, Rolled, Signed)
SLOTS: dict[str, Callable[[Any], Slot]] = {slot.__name__: slot for slot in KINDS_OF_SLOT}
ESTIMATORS = {kind.__name__: kind for kind in (MonteCarlo, Exact, Hybrid, Adaptive)}
KINDS = {kind.__name__: kind for kind in (designs.Joint, *map(type, designs.DESIGNS.values()))}


def save(phi: Symmetrizer, folder: str | os.PathLike[str], overwrite: bool = False) -> None:
    """Write the weights and the declaration of a Symmetrizer: `model.safetensors` and `probsym.json`.

    Both files are written completely before they take their names.

    Args:
        folder: made if absent.
        overwrite: replace a model that lies there.

    Raises:
        FileExistsError: the folder holds a saved model, and `overwrite` is false.
        ImportError: safetensors is not installed.
    """
    from safetensors.torch import save as to_bytes

    folder = Path(folder)
    if (folder / CONFIG).exists() and not overwrite:
        raise FileExistsError(f"{folder / CONFIG} exists: pass overwrite=True to replace the saved model")
    weights = {name: tensor.detach().contiguous().clone() for name, tensor in phi.state_dict().items()}
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / WEIGHTS, to_bytes(weights))
    write(folder / CONFIG, json.dumps(describe(phi), indent=2))


def load(
    folder: str | os.PathLike[str], model: nn.Module, distribution: EquivariantDistribution | None = None
) -> Symmetrizer:
    """The Symmetrizer that `save` wrote, around a model of the same architecture.

    The same generator seed gives bit-equal outputs before and after.

    Args:
        model: the base model; its weights are replaced.
        distribution: needed only where the saved one was made with a net of the user's own.

    Raises:
        FileNotFoundError: no saved model there.
        ValueError: weights do not fit, or the distribution has to be given.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    folder = Path(folder)
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder / name}: no such file; expected a folder written by probsym.save")
    config = json.loads((folder / CONFIG).read_text())
    inputs, output = (decode(config[key]) for key in ("inputs", "output"))
    if distribution is None:
        distribution = _decode_distribution(config["distribution"], inputs)
    estimators = (_decode_estimator(config[key]) for key in ("train_samples", "eval_samples"))
    phi = Symmetrizer(model, inputs, output, distribution, *estimators)
    try:
        phi.load_state_dict(load_file(folder / WEIGHTS))
    except (RuntimeError, SafetensorError) as error:
        raise ValueError(f"{folder / WEIGHTS} does not fit the model: {error}") from error
    return phi


def describe(phi: Symmetrizer) -> dict[str, Any]:
    """Everything about a Symmetrizer but its weights and its base model, as JSON."""
    return {
        "format": 1,
        "inputs": encode(phi.inputs),
        "output": encode(phi.output),
        "distribution": _encode_distribution(phi.distribution),
        "train_samples": _encode_estimator(phi.train_estimator),
        "eval_samples": _encode_estimator(phi.eval_estimator),
    }


def encode(spec: Any) -> Any:
    """A container of Reps as JSON."""
    if spec is None:
        return None
    if isinstance(spec, Rep):
        return {"rep": [None if s is None else [type(s).__name__, _encode_group(s.group)] for s in spec.slots]}
    if isinstance(spec, dict):
        return {"dict": {key: encode(child) for key, child in spec.items()}}
    return {"tuple": [encode(child) for child in spec]}


def decode(data: Any) -> Any:
    """The inverse of `encode`."""
    if data is None:
        return None
    if "rep" in data:
        return Rep(*(None if slot is None else _slot(*slot) for slot in data["rep"]))
    if "dict" in data:
        return {key: decode(child) for key, child in data["dict"].items()}
    return tuple(decode(child) for child in data["tuple"])


def _slot(name: str, group: Any) -> Slot:
    return SLOTS[name](_decode_group(group))


def _encode_group(group: Group) -> list[dict[str, Any]]:
    return [{"family": type(f).__name__, **asdict(f)} for f in group.factors]  # type: ignore[call-overload]


def _decode_group(data: list[dict[str, Any]]) -> Group:
    return product(GROUPS[f["family"]](**{k: v for k, v in f.items() if k != "family"}) for f in data)


def _encode_estimator(estimator: Estimator) -> dict[str, Any]:
    return {"kind": type(estimator).__name__, **_encode_fields(estimator)}


def _encode_fields(value: Any) -> dict[str, Any]:
    return {field.name: _encode_option(getattr(value, field.name)) for field in fields(value)}


def _encode_option(value: Any) -> Any:
    """A number, a name, a design, or a tuple of these."""
    if isinstance(value, tuple):
        return [_encode_option(part) for part in value]
    return {"kind": type(value).__name__, **_encode_fields(value)} if isinstance(value, Design) else value


def _decode_estimator(data: dict[str, Any]) -> Estimator:
    return ESTIMATORS[data["kind"]](**{key: _decode_option(value) for key, value in data.items() if key != "kind"})


def _decode_option(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_decode_option(part) for part in value)
    if isinstance(value, dict):
        return KINDS[value["kind"]](**{key: _decode_option(part) for key, part in value.items() if key != "kind"})
    return value


def _encode_distribution(p: EquivariantDistribution) -> dict[str, Any]:
    kind, group = type(p).__name__, _encode_group(p.group)
    if isinstance(p, Independent):
        return {"kind": kind, "parts": [_encode_distribution(part) for part in p.parts]}  # type: ignore[arg-type]
    if isinstance(p, Haar):
        return {"kind": kind, "group": group, "origin": p.origin}
    if isinstance(p, Frame):
        return {"kind": kind, "group": group, "max_support": p.max_support, "samples": p.samples}
    if isinstance(p, Learned | Canonical) and isinstance(p.net, DefaultNet):
        options = {"noise": p.place.name, "scale": p.scale} if isinstance(p, Learned) else {}
        return {"kind": kind, "group": group, "relaxation": asdict(p.relaxation), **options}
    return {"kind": None, "repr": repr(p)}


def _from_net(kind: Callable[..., EquivariantDistribution], data: dict[str, Any], inputs: Any) -> Any:
    group = _decode_group(data["group"])
    options = {key: data[key] for key in ("noise", "scale") if key in data}
    return kind(DefaultNet(inputs, group), group, relaxation=Relaxation(**data["relaxation"]), **options)


def _decode_distribution(data: dict[str, Any], inputs: Any) -> EquivariantDistribution:
    makers: dict[str, Callable[[], EquivariantDistribution]] = {
        "Independent": lambda: Independent(*(_decode_distribution(part, inputs) for part in data["parts"])),
        "Haar": lambda: Haar(_decode_group(data["group"]), data["origin"]),
        "Frame": lambda: Frame(_decode_group(data["group"]), data["max_support"], data["samples"]),
        "Learned": lambda: _from_net(Learned, data, inputs),
        "Canonical": lambda: _from_net(Canonical, data, inputs),
    }
    if data["kind"] not in makers:
        raise ValueError(
            f"the saved distribution {data.get('repr')} has a net of its own: build it and pass it as distribution="
        )
    return makers[data["kind"]]()
