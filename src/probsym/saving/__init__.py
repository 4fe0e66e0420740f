"""Save a Symmetrizer as safetensors and JSON, and load it back: nothing is pickled, and no file names code to run.

`model.safetensors` holds the weights. `probsym.json` holds the declaration: the Reps, the distribution and the
estimators, each by the name under which its class is registered, with the arguments that make it again.

A member of your own is saved like those of the library once its class is registered:

>>> import tempfile
>>> from dataclasses import dataclass
>>> import probsym as ps
>>> from probsym.groups import Slot
>>> from probsym.saving import register
>>> @register(name="docs/Invariant")
... @dataclass(frozen=True)
... class Invariant(Slot):
...     def act(self, g, x, axis, shared_dims):
...         return x.expand(*g.shape, *x.shape[shared_dims:])
>>> space = ps.SO(3)
>>> phi = ps.symmetrize(nn.Linear(3, 1), ps.Rep(space), ps.Rep(Invariant(space)), "haar")
>>> with tempfile.TemporaryDirectory() as folder:
...     save(phi, folder)
...     load(folder, nn.Linear(3, 1)).output == phi.output
True
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from probsym.distributions import EquivariantDistribution
from probsym.estimators import Estimator
from probsym.files import read_json, read_tensors, write
from probsym.members import NeedsObject, UnknownMember, describe, rebuild, register
from probsym.saving.first_format import upgrade
from probsym.symmetrizer import Symmetrizer

WEIGHTS = "model.safetensors"
CONFIG = "probsym.json"
FORMAT = 2

__all__ = ["load", "register", "save"]


class Declaration(NamedTuple):
    """What a Symmetrizer is made of, beside its base model and its distribution."""

    inputs: Any
    output: Any
    train_samples: Estimator
    eval_samples: Estimator


def save(phi: Symmetrizer, folder: str | os.PathLike[str], overwrite: bool = False) -> None:
    """Write the weights and the declaration of a Symmetrizer: `model.safetensors` and `probsym.json`.

    Whatever `load` could not rebuild is refused here, by name, and then nothing is written: groups, slots, estimators,
    designs and distributions of your own whose classes are not registered (`register`), entries of the state that are
    not dense tensors, nets that no call has built yet, NaN.

    The base model is not described, and neither is a net of p whose class is not registered: `load` is given the model,
    and the distribution around such a net as `distribution=`. Their weights are saved.

    Both files are written completely before they take their names. Names of weights are those of the plain module where
    the model is compiled.

    Args:
        folder: made if absent.
        overwrite: replace a model that lies there.

    Raises:
        FileExistsError: the folder holds a saved model, and `overwrite` is false.
        ValueError: something cannot be rebuilt; names it.
        TypeError: phi is something else, such as `SymmetryBreaking` or what `phi.frozen(seed)` returns.
        ImportError: safetensors is not installed.
    """
    from safetensors.torch import save as to_bytes

    plain = getattr(phi, "_orig_mod", phi)  # what torch.compile wraps
    if not isinstance(plain, Symmetrizer):
        raise TypeError(f"phi: expected a Symmetrizer, got {type(phi).__name__}, whose state_dict() torch can save")
    folder = Path(folder)
    if (folder / CONFIG).exists() and not overwrite:
        raise FileExistsError(f"{folder / CONFIG} exists: pass overwrite=True to replace the saved model")

    # 1. The weights. safetensors has no complex numbers: they are written as pairs of real ones.
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

    # 2. The declaration, read back as `load` will read it: what would come out as something else is refused now.
    config = _described(phi)
    config["complex"] = pairs
    config["sha256"] = hashlib.sha256(content).hexdigest()
    text = json.dumps(config, indent=2)
    _check_rebuilt(phi, json.loads(text))

    # 3. The files, the declaration last: a folder without it holds no model.
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / WEIGHTS, content)
    write(folder / CONFIG, text)


def load(
    folder: str | os.PathLike[str], model: nn.Module, distribution: EquivariantDistribution | None = None
) -> Symmetrizer:
    """The Symmetrizer that `save` wrote, around a model of the same architecture.

    The same generator seed gives bit-equal outputs before and after. Weights keep the dtype in which they were saved,
    whatever that of the model given. Members of your own are found by name: import the module that registers them
    before. Files of the first format load too.

    Args:
        model: the base model; its weights are replaced.
        distribution: needed only where the saved one has a net whose class is not registered.

    Raises:
        FileNotFoundError: no saved model there.
        ValueError: a file is damaged or of an unknown format, a class is not registered, weights do not fit or are NaN,
            or the distribution has to be given.
    """
    folder = Path(folder)
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder / name}: no such file; expected a folder written by probsym.save")

    # 1. What the files say.
    config = _read_config(folder / CONFIG)
    _check_digest(folder / WEIGHTS, config.get("sha256"))
    weights = _read_weights(folder / WEIGHTS, config.get("complex", []))

    # 2. The same Symmetrizer, with other weights.
    with _blamed(str(folder / CONFIG)):
        declared = _rebuilt(config)
        if distribution is None:
            distribution = _rebuilt_distribution(config)
    phi = Symmetrizer(
        model,
        declared.inputs,
        declared.output,
        distribution,
        train_samples=declared.train_samples,
        eval_samples=declared.eval_samples,
    )

    # 3. The saved weights, in the dtype in which they were saved.
    own_names = {_plain_name(name): name for name in phi.state_dict()}
    weights = {own_names.get(name, name): tensor for name, tensor in weights.items()}
    try:
        phi.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(f"{folder / WEIGHTS} does not fit the model: {error}") from error
    for name, tensor in itertools.chain(phi.named_parameters(), phi.named_buffers()):
        if name in weights and tensor.dtype != weights[name].dtype:
            # A copy: tensors of a file lie anywhere in memory, and what is not aligned is summed in another order.
            tensor.data = weights[name].to(tensor.device, copy=True)
    return phi


def _described(phi: Symmetrizer) -> dict[str, Any]:
    """Everything about a Symmetrizer except for its weights and its base model, as JSON.

    Raises:
        ValueError: a member is not registered; names the argument and the member.
    """
    config: dict[str, Any] = {"format": FORMAT}
    parts = {
        "inputs": phi.inputs,
        "output": phi.output,
        "distribution": phi.distribution,
        "train_samples": phi.train_estimator,
        "eval_samples": phi.eval_estimator,
    }
    for name, part in parts.items():
        try:
            config[name] = describe(part, given=_is_net)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
    return config


def _is_net(value: Any) -> bool:
    """Whether an object is a net of p, which `load` may be given as a base model is."""
    return isinstance(value, nn.Module) and not isinstance(value, EquivariantDistribution)


def _rebuilt(config: dict[str, Any]) -> Declaration:
    """Everything that a declaration says, except for the distribution."""
    declared = Declaration(
        inputs=rebuild(config["inputs"]),
        output=rebuild(config["output"]),
        train_samples=rebuild(config["train_samples"]),
        eval_samples=rebuild(config["eval_samples"]),
    )
    for name in ("train_samples", "eval_samples"):
        estimator = getattr(declared, name)
        if not isinstance(estimator, Estimator):
            raise TypeError(f"{name}: expected an estimator, got {estimator!r}")
    return declared


def _rebuilt_distribution(config: dict[str, Any]) -> EquivariantDistribution:
    """The distribution of a declaration, with new weights."""
    distribution = rebuild(config["distribution"])
    if not isinstance(distribution, EquivariantDistribution):
        raise TypeError(f"distribution: expected a distribution, got {distribution!r}")
    return distribution


def _check_rebuilt(phi: Symmetrizer, config: dict[str, Any]) -> None:
    """Refuse whatever would come back as something else.

    Raises:
        ValueError: names the argument.
    """
    # 1. Reps and estimators are values, and equal ones come back.
    with _blamed("inputs, output, estimators", "load could not rebuild them"):
        declared = _rebuilt(config)
    before = Declaration(phi.inputs, phi.output, phi.train_estimator, phi.eval_estimator)
    for name in Declaration._fields:
        old, new = getattr(before, name), getattr(declared, name)
        if old != new:
            raise ValueError(f"{name}: {old!r} would be loaded as {new!r}: it cannot be saved")

    # 2. A distribution is described by the arguments of its constructor. One that is made of them has the same
    #    arguments again, and weights of the same names and shapes. Its first weights are drawn from a random state that
    #    is put back.
    try:
        with torch.random.fork_rng(devices=[]), _blamed("distribution", "load could not rebuild it"):
            again = _rebuilt_distribution(config)
    except NeedsDistribution:
        return
    remedy = "its class, or that of a net in it, has to describe all that its constructor needs (describe())"
    described = describe(again, given=_is_net)
    if described != config["distribution"]:
        raise ValueError(
            f"distribution: it would be loaded as {described}, expected {config['distribution']}: {remedy}"
        )
    own = {_plain_name(name): tensor for name, tensor in phi.distribution.state_dict().items()}
    new = {_plain_name(name): tensor for name, tensor in again.state_dict().items()}
    for name in sorted(own.keys() | new.keys()):
        if name not in own or name not in new:
            where = "only in the one that is saved"
            if name in new:
                where = "only in the one that is loaded"
            raise ValueError(f"distribution: {name} would be {where}: {remedy}")
        if not is_lazy(new[name]) and own[name].shape != new[name].shape:
            shapes = f"{tuple(own[name].shape)} would be loaded as {tuple(new[name].shape)}"
            raise ValueError(f"distribution: {name} of shape {shapes}: {remedy}")


class NeedsDistribution(ValueError):
    """The saved distribution has a net of the user's own."""


@contextmanager
def _blamed(where: str, what: str = "damaged file") -> Iterator[None]:
    """Turn whatever goes wrong with the content of a file into a ValueError that names the file."""
    try:
        yield
    except UnknownMember as error:
        raise ValueError(f"{where}: {error}") from error
    except NeedsObject as error:
        raise NeedsDistribution(
            f"the saved distribution has a net of your own, {error}: build the distribution and pass it as "
            "distribution=, or register the class of the net (probsym.saving.register) before you save"
        ) from error
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError, OverflowError) as error:
        raise ValueError(f"{where}: {what} ({type(error).__name__}: {error})") from error


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
    if entry.is_meta:
        raise ValueError(f"{name}: expected a dense tensor, got one without data (meta): it cannot be saved")
    if entry.is_quantized:
        raise ValueError(f"{name}: expected a dense tensor, got one that is quantized: it cannot be saved")
    if entry.layout != torch.strided:
        raise ValueError(f"{name}: expected a dense tensor, got one that is {entry.layout}: it cannot be saved")
    if bool(entry.isnan().any()):
        raise ValueError(f"{name}: expected numbers, got NaN: such a model is not saved")
    return entry


def _plain_name(name: str) -> str:
    """The name of an entry without the wrapper that torch.compile puts around a module."""
    return name.replace("_orig_mod.", "")


def _read_config(path: Path) -> dict[str, Any]:
    """The declaration in a file, in the present format.

    Raises:
        ValueError: it is damaged, or of another format.
    """
    config = read_json(path)
    pairs = config.get("complex", [])
    if not isinstance(pairs, list) or not all(isinstance(name, str) for name in pairs):
        raise ValueError(f"{path}: damaged file (complex: expected a list of names, got {pairs!r})")
    number = config.get("format")
    if number == 1:
        with _blamed(str(path)):
            return upgrade(config)
    if number != FORMAT:
        raise ValueError(
            f"{path}: expected format 1 or {FORMAT}, got {number!r}: written by another release of probsym"
        )
    return config


def _check_digest(path: Path, expected: str | None) -> None:
    """Refuse weights that do not belong to the declaration beside them: a flipped bit, or a save that was cut off.

    Folders of the first release hold no digest.
    """
    if expected is None:
        return
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != expected:
        raise ValueError(f"{path}: damaged, or not the weights that {CONFIG} was written with (sha256 differs)")


def _read_weights(path: Path, pairs: list[str]) -> dict[str, Tensor]:
    """The tensors in a file. Those named in `pairs` hold complex numbers as pairs of real ones.

    Raises:
        ValueError: the file is damaged, or an entry is NaN; names it.
    """
    weights = read_tensors(path)
    for name in pairs:
        if name not in weights:
            continue  # `load_state_dict` says what is missing
        tensor = weights[name]
        if tensor.ndim == 0 or tensor.shape[-1] != 2 or not tensor.is_floating_point():
            raise ValueError(f"{path}: {name}: expected pairs of real numbers, got {tuple(tensor.shape)}")
        # A file aligns tensors to 8 bytes, and complex128 needs 16: without a copy torch crashes.
        weights[name] = torch.view_as_complex(tensor.clone())
    return weights
