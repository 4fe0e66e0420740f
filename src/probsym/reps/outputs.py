"""What a model returns: declared tensors taken out of it, averages put back into containers of the same kind."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from probsym.groups import Slot
from probsym.reps.channels import plain_images, refuse_channels_first
from probsym.reps.containers import Path, Spec, dotted, leaves, lookup, read
from probsym.reps.inputs import Inputs
from probsym.reps.rep import Rep


class DeclaredOutputs:
    """The Reps of a model's outputs, read once; the counterpart of `Signature` for its inputs.

    A dict of Reps chooses outputs by name, and by number those of a tuple or list: entries of a dict, attributes of a
    `ModelOutput` or a dataclass, fields of a namedtuple. A tuple of Reps stands for all entries of a tuple or list.
    None leaves an entry out: it comes back as None. The average comes back in a container of the kind that the model
    returned; what is not declared is None there, and missing from plain dicts.

    Args:
        spec: Reps of the outputs.

    Attributes:
        paths, reps: where each declared output stands, and its Rep.
    """

    def __init__(self, spec: Spec) -> None:
        declared = leaves(spec)
        self.spec = spec
        self.paths: tuple[Path, ...] = tuple(declared)
        self.reps: tuple[Rep, ...] = tuple(declared.values())

    def read(self, returned: Any, rows: Inputs, averaged: bool = True) -> list[Tensor]:
        """The declared tensors of what the model returned for `rows`, checked, in the order of `reps`.

        Args:
            averaged: whether they must be numbers with a mean.

        Raises:
            ValueError: an entry is missing, or its shape does not fit its Rep; names it.
            TypeError: an entry is no tensor, or of a dtype that its Rep or an average cannot take; names it.
        """
        values = []
        for path, rep in zip(self.paths, self.reps, strict=True):
            try:
                value = lookup(returned, path, "output ")
            except ValueError:
                name = "".join(f"[{key!r}]" for key in path)
                kind = type(returned).__name__
                raise ValueError(
                    f"output{name} is missing: it is declared, but not in what the model returned, a {kind}"
                ) from None
            _check_shape(path, rep, value, rows)
            _check_dtype(path, rep, value, averaged)
            values.append(value)
        return values


@dataclass(frozen=True, eq=False)
class OutputStructure:
    """All about the outputs of a call but their values.

    Args:
        declared: the Reps of the outputs.
        form: the containers that the model returned.
        x: the batch of B inputs that they belong to.
    """

    declared: DeclaredOutputs
    form: Form | None
    x: Inputs

    @staticmethod
    def of(returned: Any, declared: DeclaredOutputs, x: Inputs) -> OutputStructure:
        """The structure of what the model returned.

        Raises:
            ValueError: a tuple has another number of entries than are declared.
        """
        return OutputStructure(declared, _form_of(returned, declared.spec), x)

    def build(self, tensors: list[Tensor]) -> Any:
        """One tensor per output, in containers as the model returns them."""
        values = dict(zip(self.declared.paths, tensors, strict=True))
        return _filled(self.form, self.declared.spec, values, ())

    def per_row(self, value: Tensor, output: int, rows: int) -> Tensor:
        """Values per input (..., B) as values per row of an output: the same, or (..., sum N) in a ragged batch.

        Args:
            output: number of the output. rows: how many rows it has.
        """
        rep = self.declared.reps[output]
        if rep.ragged is None:
            return value
        layout = self.x.layouts[rep.ragged]
        return layout.spread(value, value.ndim - 1, layout.owner(rep.slots[0], rows))

    def align(self, value: Tensor, tensors: list[Tensor]) -> list[Tensor]:
        """Values (K, B) per sample and input, one tensor per output, shaped to broadcast on outputs (K, rows, ...)."""
        aligned = []
        for i, tensor in enumerate(tensors):
            rows = self.per_row(value, i, tensor.shape[1])
            aligned.append(rows.reshape(*rows.shape, *[1] * (tensor.ndim - 2)))
        return aligned

    def largest_variance(self, variances: list[Tensor]) -> Tensor:
        """A size (B,) of the variances (rows, ...) of the first outputs, or of all, that no group element changes.

        s^2 = max over outputs, nodes and channels of the trace of the covariance over the space axes
        """
        largest = torch.zeros(self.x.count, dtype=self.x.dtype, device=self.x.device)
        for i, variance in enumerate(variances):
            rep = self.declared.reps[i]

            # The trace: a sum over every axis along which a group element combines entries.
            axes: list[int] = []
            for slot, place in rep.axes:
                if _combines_entries(slot):
                    start = rep.batch_dims + place
                    axes.extend(range(start, start + slot.num_axes))
            traces = variance.sum(axes) if axes else variance
            traces = traces.to(largest.dtype)
            if not traces.numel():
                continue

            # The maximum over the rows of each input, and over what is left of the other axes.
            inputs = torch.arange(self.x.count, device=variance.device)
            owner = self.per_row(inputs, i, len(traces))
            largest = largest.scatter_reduce(0, owner, traces.reshape(len(traces), -1).amax(1), "amax")
        return largest


def _combines_entries(slot: Slot) -> bool:
    """Whether group elements combine entries along its axes, so that only their sum is the same in every pose.

    Pixels of an interpolated image are not: each is as good as another. What a slot of one's own does is not known.
    """
    return (slot.requires_float and slot.num_axes == 1) or not slot.guards_precision


# ---------------------------------------------------------------- checks


def _check_shape(path: Path, rep: Rep, value: Any, x: Inputs) -> None:
    """Refuse an output of the model on the rows x that is no tensor, or whose shape does not fit its Rep."""
    name = dotted(path, "output ")
    if not isinstance(value, Tensor):
        raise TypeError(f"{name}: expected a tensor for {rep!r}, got {type(value).__name__}")
    rows = x.count if rep.ragged is None else x.layouts[rep.ragged].size
    if value.ndim < rep.batch_dims + rep.ndim or (value.shape[0] != rows and not rep.on_edges):
        raise ValueError(f"{name}: expected {rows} rows and the axes of {rep!r}, got shape {tuple(value.shape)}")
    if rep.on_edges:
        x.check_edges(name, rep, len(value))
    if rep.is_image:
        images = [(leaf.rep, tuple(leaf.value.shape)) for leaf in x.leaves.values()]
        if not plain_images(images, rep, tuple(value.shape)):
            refuse_channels_first(name, rep, tuple(value.shape))
    rep.check_sizes(name, value, x.layouts)


def _check_dtype(path: Path, rep: Rep, value: Tensor, averaged: bool) -> None:
    """Refuse what has no average, integers, booleans and slots that say so, and integers that the group would combine.

    And real numbers where a group acts on complex ones: of what it makes of them the imaginary part would be lost.
    """
    name = "output" + "".join(f"[{key!r}]" for key in path)
    if rep.is_complex and not value.is_complex():
        raise TypeError(f"{name}: expected a complex dtype for {rep!r}, got {value.dtype}")
    if averaged:
        for slot, _ in rep.axes:
            if slot.no_average is not None:
                raise TypeError(f"{name}: {slot!r} cannot be averaged, {slot.no_average}")
    if value.is_floating_point() or value.is_complex():
        return
    if averaged:
        raise TypeError(
            f"{name}: expected a floating or complex dtype, got {value.dtype}, which cannot be averaged: let the model "
            "return logits, scores or one-hot probabilities, and take .argmax() or .long() of the average; "
            "phi.sample(...) returns integers as they are"
        )
    if rep.requires_float:
        raise TypeError(f"{name}: expected a floating or complex dtype for {rep!r}, got {value.dtype}")


# ---------------------------------------------------------------- containers


@dataclass(frozen=True)
class Form:
    """The kind of a container that a model returned, its length if a sequence, and the same of those within it."""

    kind: type
    length: int = 0
    parts: dict[Any, Form] = field(default_factory=dict)


def _form_of(returned: Any, spec: Spec, path: Path = ()) -> Form | None:
    """The form of a container in which outputs are declared; None for a tensor."""
    if spec is None or isinstance(spec, Rep):
        return None
    is_sequence = isinstance(returned, tuple | list)
    if isinstance(spec, tuple) and is_sequence and len(returned) != len(spec):
        name = dotted(path, "output ").strip()
        raise ValueError(
            f"{name}: expected {len(spec)} entries as declared, got {len(returned)}: declare a Rep for each, and None "
            "for one that is to be left out"
        )
    parts = {}
    for key, child in _children(spec):
        form = _form_of(read(returned, key), child, (*path, key))
        if form is not None:
            parts[key] = form
    return Form(type(returned), len(returned) if is_sequence else 0, parts)


def _filled(form: Form | None, spec: Spec, values: dict[Path, Tensor], path: Path) -> Any:
    """The values in containers of a form."""
    if spec is None:
        return None
    if isinstance(spec, Rep):
        return values[path]
    entries = {}
    for key, child in _children(spec):
        part = None if form is None else form.parts.get(key)
        entries[key] = _filled(part, child, values, (*path, key))
    if form is not None:
        return _container(form.kind, form.length, entries)
    if isinstance(spec, dict):
        return entries
    return tuple(entries.values())


def _children(spec: Any) -> Any:
    """(key, Spec) of a dict or tuple of Specs."""
    return spec.items() if isinstance(spec, dict) else enumerate(spec)


def _container(kind: type, length: int, entries: dict[Any, Any]) -> Any:
    """A container of that kind with these entries; a plain dict where the kind cannot be made of them."""
    if issubclass(kind, tuple) and hasattr(kind, "_fields"):
        names: tuple[str, ...] = kind._fields
        make: Callable[..., Any] = kind
        return make(*[entries.get(name, _numbered(entries, i, length)) for i, name in enumerate(names)])
    if dataclasses.is_dataclass(kind):  # a ModelOutput is one, too
        unknown = {f.name: None for f in dataclasses.fields(kind) if f.init and f.name not in entries}
        return kind(**unknown, **entries)
    if issubclass(kind, tuple | list):
        return kind(_numbered(entries, i, length) for i in range(length))
    if issubclass(kind, Mapping):
        try:
            return kind(entries)  # type: ignore[call-arg]
        except TypeError:  # a defaultdict begins with its factory
            return entries
    return entries


def _numbered(entries: dict[Any, Any], i: int, length: int) -> Any:
    """Entry i of a sequence, in its place also where others are left out; its number may count from the end."""
    return entries.get(i, entries.get(i - length))
