"""What a model returns: declared tensors taken out of it, averages put back into containers of the same kind."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from probsym.reps.containers import Path, Spec, dotted, leaves, lookup, read
from probsym.reps.rep import Rep


@dataclass(frozen=True)
class Form:
    """The kind of a container that a model returned, its length if a sequence, and the same of those within it."""

    kind: type
    length: int = 0
    parts: dict[Any, Form] = field(default_factory=dict)


class Outputs:
    """The outputs of one call of the model.

    A dict of Reps chooses outputs by name, and by number those of a tuple or list: entries of a dict, attributes of a
    `ModelOutput` or a dataclass, fields of a namedtuple. A tuple of Reps stands for all entries of a tuple or list.
    None leaves an entry out: it comes back as None. The average comes back in a container of the kind that the model
    returned; what is not declared is None there, and missing from plain dicts.

    Args:
        spec: Reps of the outputs.
    """

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.reps: dict[Path, Rep] = leaves(spec)
        self.form: Form | None = None  # as the model last returned it

    def take(self, returned: Any) -> dict[Path, Any]:
        """The declared entries of what the model returned.

        Raises:
            ValueError: an entry is missing, or a tuple has another number of entries than are declared.
        """
        self.form = _form_of(returned, self.spec)
        return {path: lookup(returned, path, "output ") for path in self.reps}

    def put(self, values: list[Tensor]) -> Any:
        """Values in the order of the Reps, in containers as the model returns them."""
        return _filled(self.form, self.spec, dict(zip(self.reps, values, strict=True)), ())


def _form_of(returned: Any, spec: Spec, path: Path = ()) -> Form | None:
    if spec is None or isinstance(spec, Rep):
        return None
    if isinstance(spec, tuple) and isinstance(returned, tuple | list) and len(returned) != len(spec):
        name = dotted(path, "output ").strip()
        raise ValueError(
            f"{name}: expected {len(spec)} entries as declared, got {len(returned)}: declare a Rep for each, and None "
            "for one that is to be left out"
        )
    items = spec.items() if isinstance(spec, dict) else enumerate(spec)
    parts = {}
    for key, child in items:
        form = _form_of(read(returned, key), child, (*path, key))
        if form is not None:
            parts[key] = form
    return Form(type(returned), len(returned) if isinstance(returned, tuple | list) else 0, parts)


def _filled(form: Form | None, spec: Spec, values: dict[Path, Tensor], path: Path) -> Any:
    if spec is None:
        return None
    if isinstance(spec, Rep):
        return values[path]
    items = spec.items() if isinstance(spec, dict) else enumerate(spec)
    entries = {}
    for key, child in items:
        part = None if form is None else form.parts.get(key)
        entries[key] = _filled(part, child, values, (*path, key))
    if form is None:
        return entries if isinstance(spec, dict) else tuple(entries.values())
    return _container(form.kind, form.length, entries)


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
        return kind(entries)  # type: ignore[call-arg]
    return entries


def _numbered(entries: dict[Any, Any], i: int, length: int) -> Any:
    """Entry i of a sequence, in its place also where others are left out; its number may count from the end."""
    return entries.get(i, entries.get(i - length))
