"""Save a Symmetrizer as safetensors and JSON, and load it back: nothing is pickled."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from probsym.distributions import (
    Canonical,
    DefaultNet,
    EquivariantDistribution,
    Frame,
    Haar,
    Learned,
    ProductDistribution,
    Relaxation,
)
from probsym.estimators import Adaptive, Design, Estimator, Exact, Hybrid, MonteCarlo, designs
from probsym.files import read_json, read_tensors, write
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
FORMAT = 1
GROUPS = {family.__name__: family for family in FAMILIES}
KINDS_OF_SLOT = (Nodes, Labels, Edges, Point, Vector, Det, Turned, Regular, Rolled, Signed)
SLOTS: dict[str, Callable[..., Slot]] = {slot.__name__: slot for slot in KINDS_OF_SLOT}
ESTIMATORS = {kind.__name__: kind for kind in (MonteCarlo, Exact, Hybrid, Adaptive)}
KINDS = {kind.__name__: kind for kind in (designs.Joint, *map(type, designs.DESIGNS.values()))}


def save(phi: Symmetrizer, folder: str | os.PathLike[str], overwrite: bool = False) -> None:
    """Write the weights and the declaration of a Symmetrizer: `model.safetensors` and `probsym.json`.

    Both files are written completely before they take their names. What `load` could not rebuild is refused here, and
    nothing is written then: groups, slots, estimators and designs of your own, entries of the state that are no dense
    tensors, nets that no call has built yet, NaN. A distribution of your own is saved as its weights alone; `load`
    needs it as `distribution=`. Names are those of the plain module where the model is compiled.

    Args:
        folder: made if absent.
        overwrite: replace a model that lies there.

    Raises:
        FileExistsError: the folder holds a saved model, and `overwrite` is false.
        ValueError: something cannot be rebuilt; names it.
        ImportError: safetensors is not installed.
    """
    from safetensors.torch import save as to_bytes

    folder = Path(folder)
    if (folder / CONFIG).exists() and not overwrite:
        raise FileExistsError(f"{folder / CONFIG} exists: pass overwrite=True to replace the saved model")
    weights = {}
    pairs = []
    for name, entry in phi.state_dict().items():
        tensor = _dense(name, entry).detach()
        name = _plain_name(name)
        if tensor.is_complex():
            pairs.append(name)
            tensor = torch.view_as_real(tensor.resolve_conj())
        weights[name] = tensor.contiguous().clone()
    content = to_bytes(weights)
    config = _json({**describe(phi), "complex": pairs, "sha256": hashlib.sha256(content).hexdigest()})
    _check_rebuilt(phi, json.loads(config))
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / WEIGHTS, content)
    write(folder / CONFIG, config)


def load(
    folder: str | os.PathLike[str], model: nn.Module, distribution: EquivariantDistribution | None = None
) -> Symmetrizer:
    """The Symmetrizer that `save` wrote, around a model of the same architecture.

    The same generator seed gives bit-equal outputs before and after. Weights keep the dtype in which they were saved,
    whatever that of the model given.

    Args:
        model: the base model; its weights are replaced.
        distribution: needed only where the saved one was made with a net of the user's own.

    Raises:
        FileNotFoundError: no saved model there.
        ValueError: a file is damaged or of an unknown format, weights do not fit or are NaN, or the distribution has to
            be given.
    """
    folder = Path(folder)
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder / name}: no such file; expected a folder written by probsym.save")
    config = _read_config(folder / CONFIG)
    _check_digest(folder / WEIGHTS, config.get("sha256"))
    weights = _read_weights(folder / WEIGHTS, config.get("complex", []))
    inputs, output, *estimators = _rebuilt(folder / CONFIG, config)
    if distribution is None:
        distribution = _rebuilt_distribution(folder / CONFIG, config, inputs)
    phi = Symmetrizer(model, inputs, output, distribution, *estimators)
    own_names = {_plain_name(name): name for name in phi.state_dict()}
    weights = {own_names.get(name, name): tensor for name, tensor in weights.items()}
    try:
        phi.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(f"{folder / WEIGHTS} does not fit the model: {error}") from error
    for name, tensor in itertools.chain(phi.named_parameters(), phi.named_buffers()):
        if name in weights and tensor.dtype != weights[name].dtype:
            tensor.data = weights[name].to(tensor.device)
    return phi


def _dense(name: str, entry: Any) -> Tensor:
    """An entry of a state that safetensors can hold.

    Raises:
        ValueError: names the entry.
    """
    if not isinstance(entry, Tensor):
        raise ValueError(
            f"{name}: expected a tensor, got {type(entry).__name__}: state of a module that is no tensor "
            "(get_extra_state) cannot be saved; keep it in a buffer"
        )
    if is_lazy(entry):
        raise ValueError(
            f"{name}: its shape is not known before the first call: call the Symmetrizer once, or pass example= when "
            "it is made"
        )
    if entry.layout != torch.strided or entry.is_quantized or entry.is_meta:
        kind = "quantized" if entry.is_quantized else "without data (meta)" if entry.is_meta else str(entry.layout)
        raise ValueError(f"{name}: expected a dense tensor, got one that is {kind}: it cannot be saved")
    if bool(entry.isnan().any()):
        raise ValueError(f"{name}: expected numbers, got NaN: such a model is not saved")
    return entry


def _plain_name(name: str) -> str:
    """The name of an entry without the wrapper that torch.compile puts around a module."""
    return name.replace("_orig_mod.", "")


def _json(config: dict[str, Any]) -> str:
    try:
        return json.dumps(config, indent=2)
    except TypeError as error:
        raise ValueError(f"the declaration cannot be written as JSON: {error}") from error


def _check_rebuilt(phi: Symmetrizer, config: dict[str, Any]) -> None:
    """Refuse whatever would come back as something else."""
    inputs, output, *estimators = _rebuilt(Path(CONFIG), config)
    given = {
        "inputs": (phi.inputs, inputs),
        "output": (phi.output, output),
        "train_samples": (phi.train_estimator, estimators[0]),
        "eval_samples": (phi.eval_estimator, estimators[1]),
    }
    for name, (before, after) in given.items():
        if before != after:
            raise ValueError(f"{name}: {before!r} would be loaded as {after!r}: it cannot be saved")


def _read_config(path: Path) -> dict[str, Any]:
    """The declaration in a file.

    Raises:
        ValueError: it is damaged, or of another format.
    """
    config = read_json(path)
    if config.get("format") != FORMAT:
        raise ValueError(
            f"{path}: expected format {FORMAT}, got {config.get('format')!r}: written by another version of probsym"
        )
    return config


def _check_digest(path: Path, expected: str | None) -> None:
    """Refuse weights that are not those of the declaration beside them: a flipped bit, or a save that was cut off.

    Older folders do not know their digest.
    """
    if expected is None:
        return
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != expected:
        raise ValueError(f"{path}: damaged, or not the weights that {CONFIG} was written with (sha256 differs)")


def _read_weights(path: Path, pairs: list[str]) -> dict[str, Tensor]:
    """The tensors in a file; those named in `pairs` are complex numbers as pairs of real ones.

    Raises:
        ValueError: the file is damaged, or an entry is NaN; names it.
    """
    weights = read_tensors(path)
    for name in set(pairs) & set(weights):
        tensor = weights[name]
        if tensor.ndim == 0 or tensor.shape[-1] != 2 or not tensor.is_floating_point():
            raise ValueError(f"{path}: {name}: expected pairs of real numbers, got {tuple(tensor.shape)}")
        weights[name] = torch.view_as_complex(tensor.clone())  # a file aligns to 8 bytes, complex128 needs 16
    return weights


def _rebuilt(path: Path, config: dict[str, Any]) -> list[Any]:
    """Reps of inputs and output and both estimators.

    Raises:
        ValueError: the declaration is damaged; names the file.
    """
    with _blamed(path):
        specs = [decode(config[key]) for key in ("inputs", "output")]
        return specs + [_decode_estimator(config[key]) for key in ("train_samples", "eval_samples")]


def _rebuilt_distribution(path: Path, config: dict[str, Any], inputs: Any) -> EquivariantDistribution:
    with _blamed(path):
        return _decode_distribution(config["distribution"], inputs)


@contextmanager
def _blamed(path: Path) -> Iterator[None]:
    """Whatever goes wrong with the content of a file is a ValueError that names it."""
    try:
        yield
    except NeedsDistribution:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError, OverflowError) as error:
        raise ValueError(f"{path}: damaged file ({type(error).__name__}: {error})") from error


class NeedsDistribution(ValueError):
    """The saved distribution has a net of its own."""


def describe(phi: Symmetrizer) -> dict[str, Any]:
    """Everything about a Symmetrizer but its weights and its base model, as JSON."""
    return {
        "format": FORMAT,
        "inputs": encode(phi.inputs),
        "output": encode(phi.output),
        "distribution": _encode_distribution(phi.distribution),
        "train_samples": _encode_estimator(phi.train_estimator),
        "eval_samples": _encode_estimator(phi.eval_estimator),
    }


def encode(spec: Any) -> Any:
    """A container of Reps as JSON.

    Raises:
        ValueError: a slot or a group of your own; a key that is no string.
    """
    if spec is None:
        return None
    if isinstance(spec, Rep):
        return {"rep": [None if slot is None else _encode_slot(slot) for slot in spec.slots]}
    if isinstance(spec, dict):
        for key in spec:
            if not isinstance(key, str):
                raise ValueError(f"{key!r}: expected names of arguments as strings, got {type(key).__name__}")
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


def _encode_slot(slot: Slot) -> list[Any]:
    """Its class, its group, and for edges whose they are, if that is declared."""
    _refuse_own("slot", slot, SLOTS)
    named = [slot.of] if isinstance(slot, Edges) and slot.of is not None else []
    return [type(slot).__name__, _encode_group(slot.group), *named]


def _slot(name: str, group: Any, *named: Any) -> Slot:
    return SLOTS[name](_decode_group(group), *named)


def _encode_group(group: Group) -> list[dict[str, Any]]:
    encoded = []
    for factor in group.factors:
        _refuse_own("group", factor, GROUPS)
        encoded.append({"family": type(factor).__name__, **asdict(factor)})  # type: ignore[call-overload]
    return encoded


def _refuse_own(what: str, value: Any, known: Mapping[str, Any]) -> None:
    """Refuse what is none of the library's own kinds: `load` could not rebuild it."""
    if known.get(type(value).__name__) is not type(value):
        raise ValueError(
            f"{what} {value!r}: {type(value).__name__} is none of the library's own, so load could not rebuild it: "
            "keep phi.state_dict() instead, and declare the Symmetrizer again in code"
        )


def _decode_group(data: list[dict[str, Any]]) -> Group:
    return product(GROUPS[f["family"]](**{k: v for k, v in f.items() if k != "family"}) for f in data)


def _encode_estimator(estimator: Estimator) -> dict[str, Any]:
    _refuse_own("estimator", estimator, ESTIMATORS)
    return {"kind": type(estimator).__name__, **_encode_fields(estimator)}


def _encode_fields(value: Any) -> dict[str, Any]:
    return {field.name: _encode_option(getattr(value, field.name)) for field in fields(value)}


def _encode_option(value: Any) -> Any:
    """A number, a name, a design, or a tuple of these."""
    if isinstance(value, tuple):
        return [_encode_option(part) for part in value]
    if isinstance(value, Design):
        _refuse_own("design", value, KINDS)
        return {"kind": type(value).__name__, **_encode_fields(value)}
    return value


def _decode_estimator(data: dict[str, Any]) -> Estimator:
    return ESTIMATORS[data["kind"]](**{key: _decode_option(value) for key, value in data.items() if key != "kind"})


def _decode_option(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_decode_option(part) for part in value)
    if isinstance(value, dict):
        return KINDS[value["kind"]](**{key: _decode_option(part) for key, part in value.items() if key != "kind"})
    return value


def _encode_distribution(p: EquivariantDistribution) -> dict[str, Any]:
    """What `load` needs to make p anew; for a distribution or a net of your own only how it looks."""
    kind, group = type(p).__name__, _encode_group(p.group)
    if type(p) is ProductDistribution:
        return {"kind": kind, "parts": [_encode_distribution(part) for part in p.parts]}  # type: ignore[arg-type]
    if type(p) is Haar:
        return {"kind": kind, "group": group, "origin": p.origin}
    if type(p) is Frame:
        return {"kind": kind, "group": group, "max_support": p.max_support, "samples": p.samples}
    if isinstance(p, Learned | Canonical) and type(p) in (Learned, Canonical) and type(p.net) is DefaultNet:
        options = {"noise": p.place.name, "scale": p.scale} if isinstance(p, Learned) else {}
        return {"kind": kind, "group": group, "net": p.net.version, "relaxation": asdict(p.relaxation), **options}
    return {"kind": None, "repr": repr(p)}


def _from_net(kind: Callable[..., EquivariantDistribution], data: dict[str, Any], inputs: Any) -> Any:
    group = _decode_group(data["group"])
    options = {key: data[key] for key in ("noise", "scale") if key in data}
    net = DefaultNet(inputs, group, version=data.get("net", 1))  # the first release wrote no number
    return kind(net, group, relaxation=Relaxation(**data["relaxation"]), **options)


def _decode_distribution(data: dict[str, Any], inputs: Any) -> EquivariantDistribution:
    makers: dict[str, Callable[[], EquivariantDistribution]] = {
        "ProductDistribution": lambda: ProductDistribution(
            *(_decode_distribution(part, inputs) for part in data["parts"])
        ),
        "Independent": lambda: ProductDistribution(*(_decode_distribution(part, inputs) for part in data["parts"])),
        "Haar": lambda: Haar(_decode_group(data["group"]), data["origin"]),
        "Frame": lambda: Frame(_decode_group(data["group"]), data["max_support"], data["samples"]),
        "Learned": lambda: _from_net(Learned, data, inputs),
        "Canonical": lambda: _from_net(Canonical, data, inputs),
    }
    if data["kind"] not in makers:
        raise NeedsDistribution(
            f"the saved distribution {data.get('repr')} has a net of its own: build it and pass it as distribution="
        )
    return makers[data["kind"]]()
