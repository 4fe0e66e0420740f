"""The arguments of one call, bound to their Reps: what distributions read and the Symmetrizer moves."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from probsym.groups import Element, Group
from probsym.groups.lazy import lazy
from probsym.kernels.values import readable
from probsym.reps import containers
from probsym.reps.bookkeeping import Rebatch, beside_batch, separated
from probsym.reps.channels import refuse_channels_first
from probsym.reps.containers import Path, Spec
from probsym.reps.layout import Layout
from probsym.reps.nodes import NodeAxis
from probsym.reps.owned import arranged, owned
from probsym.reps.rep import Rep
from probsym.reps.signature import Signature
from probsym.reps.storage import StoredNodes
from probsym.reps.undeclared import guarded
from probsym.reps.values import check_values, without_padding


@dataclass(frozen=True)
class Leaf:
    """One declared tensor."""

    name: str
    rep: Rep
    value: Tensor

    @property
    def channels(self) -> tuple[int, ...]:
        """Sizes of the axes on which nothing acts and that no Rep names."""
        return tuple(self.value.shape[self.rep.batch_dims() + self.rep.ndim :])

    def as_edges(self) -> Tensor:
        """Node numbers as edges (2, E), or (B, 2, E) where not ragged.

        A node number that stands alone, such as one root per input (B,), is a loop; of more than two rows the first
        two count.
        """
        labels = self.value.long()
        lead = self.rep.batch_dims()
        if labels.ndim < lead + 2:
            labels = labels.reshape(*labels.shape[:lead], -1 if labels.ndim > lead else 1)
            return torch.stack([labels, labels], lead)
        if labels.shape[lead] == 1:
            return torch.cat([labels, labels], lead)
        return labels.narrow(lead, 0, 2)


@dataclass(frozen=True, eq=False)
class Inputs:
    """Arguments of a model call with the Reps of the declared ones.

    Args:
        values: {"args": tuple, "kwargs": dict}, exactly as the model is called.
        signature: the Reps of the declared ones.
        layouts: storage of every node axis.

    Attributes of use to a distribution: `leaves`, `layouts`, `count`, `dtype`, `device`, `args`, `kwargs`.
    """

    values: dict[str, Any]
    signature: Signature
    layouts: dict[NodeAxis, Layout] = field(default_factory=dict)

    @staticmethod
    def bind(spec: Spec | Signature, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Inputs:
        """Match call arguments with their Reps, or with the signature made of them, and check shapes and dtypes.

        Padding is set to zero: the padded nodes of masks, and edges whose node numbers are negative.

        Raises:
            ValueError, TypeError: an argument is missing, or its rank, size or dtype does not fit its Rep; names it.

        >>> from probsym.reps.nodes import S
        >>> x = Inputs.bind({"a": Rep(S("nodes"))}, (), {"a": torch.zeros(2, 5, 7)})
        >>> x.count, x.layouts[S("nodes")].size
        (2, 5)
        """
        signature = spec if isinstance(spec, Signature) else Signature(spec)
        inputs = Inputs({"args": tuple(args), "kwargs": dict(kwargs)}, signature)
        inputs = inputs._guarded()
        for leaf in inputs.leaves.values():
            _check_leaf(leaf)
        inputs = inputs._with_long_labels()
        inputs.layouts.update((axis, inputs._layout(axis)) for axis in signature.node_axes)
        inputs._check_sizes()
        return without_padding(inputs._with_edges_told_apart())

    @property
    def args(self) -> tuple[Any, ...]:
        return self.values["args"]

    @property
    def kwargs(self) -> dict[str, Any]:
        return self.values["kwargs"]

    @lazy
    def leaves(self) -> dict[Path, Leaf]:
        """The declared tensors by path."""
        values = self.values
        return {
            path: Leaf(name, rep, containers.lookup(values[path[0]], path[1:], "argument "))
            for path, name, rep in self.signature.entries
        }

    @property
    def readable(self) -> bool:
        """Whether the values can be read: no compiler records the call, and no function transform wraps them."""
        return readable(*[leaf.value for leaf in self.leaves.values()])

    @property
    def group(self) -> Group:
        return self.signature.group

    def stored(self, factor: Group) -> Group | StoredNodes:
        """The verbs of a factor of the group for this call: those of a node axis know sizes, padding and graphs."""
        for axis, layout in self.layouts.items():
            if axis is factor or axis == factor:
                return axis.stored(layout)
        return factor

    @lazy
    def count(self) -> int:
        """Number of inputs B."""
        for layout in self.layouts.values():
            if layout.ragged:
                return layout.count
        return next(iter(self.leaves.values())).value.shape[0]

    @lazy
    def dtype(self) -> torch.dtype:
        """The widest floating type of the declared tensors, at least float32; of complex ones that of their parts."""
        kinds = [leaf.value.dtype for leaf in self.leaves.values() if leaf.value.is_floating_point()]
        kinds += [leaf.value.dtype.to_real() for leaf in self.leaves.values() if leaf.value.is_complex()]
        wide = torch.float32 if kinds else torch.get_default_dtype()
        for kind in kinds:
            wide = torch.promote_types(wide, kind)
        return wide

    @property
    def device(self) -> torch.device:
        return next(iter(self.leaves.values())).value.device

    def map(self, fn: Callable[[Leaf], Tensor]) -> Inputs:
        """The same call with every declared tensor exchanged."""
        changes = {path: fn(leaf) for path, leaf in self.leaves.items()}
        return Inputs(containers.exchange(self.values, changes), self.signature, self.layouts)

    def act(self, g: Element) -> Inputs:
        """g x for one element an input, batch shape (B,)."""
        return self.map(lambda leaf: leaf.rep.act(g, leaf.value, leaf.rep.batch_dims()))

    def tile(self, times: int) -> Inputs:
        """The call repeated `times` times in one batch, row = k B + b: also masks, batch vectors and edge numbers."""
        return self.fold(lambda leaf: leaf.value.expand(times, *leaf.value.shape), times)

    def fold(self, moved: Callable[[Leaf], Tensor], times: int) -> Inputs:
        """Like `tile`, with `moved(leaf)` of shape (K, B, ...) in place of plain copies.

        The only place where samples become rows. They share no memory with this call, nor with each other, so that a
        model may write into them; tensors declared None are copied for the same reason.
        """
        tiled = self.map(lambda leaf: arranged(fold(moved(leaf), leaf.rep, self.layouts), leaf.value))
        layouts = {axis: layout.tile(times) for axis, layout in self.layouts.items()}
        tiled = tiled.with_layouts(layouts, Rebatch(self.count, times))
        return Inputs(owned(tiled.values, self.values), self.signature, tiled.layouts)

    def owned(self) -> Inputs:
        """The same call in memory of its own, for a model that may write into its arguments."""
        copied = self.map(lambda leaf: leaf.value)  # the objects that hold them too
        return Inputs(owned(copied.values, self.values), self.signature, self.layouts)

    def select(self, keep: Tensor) -> Inputs:
        """The batch of the inputs marked in `keep` (B,) bool, in the same order; undeclared arguments stay."""
        count = int(keep.sum())
        small = self.map(lambda leaf: self._kept(leaf, keep))
        layouts = {axis: layout.select(keep, count) for axis, layout in self.layouts.items()}
        return small.with_layouts(layouts, Rebatch(self.count, keep=keep))

    def _kept(self, leaf: Leaf, keep: Tensor) -> Tensor:
        if leaf.rep.batch_dims():
            return leaf.value[keep]
        if leaf.rep.labelled is None:
            return leaf.value[keep[self.owner(leaf)]]
        batch: Tensor = self.layouts[leaf.rep.labelled].batch  # type: ignore[assignment]
        number = keep[batch].cumsum(0) - 1
        labels = leaf.value[..., keep[_graphs(leaf.value, batch, self.count)]]
        return torch.where(labels < 0, labels, number[labels.clamp_min(0)].to(labels.dtype))

    def owner(self, leaf: Leaf) -> Tensor:
        """The input of each row of a ragged leaf: of its nodes, or of its edges."""
        layout = self.layouts[leaf.rep.ragged]  # type: ignore[index]
        return layout.owner(leaf.rep.slots[0], len(leaf.value))

    def with_layouts(self, layouts: dict[NodeAxis, Layout], change: Rebatch) -> Inputs:
        """Write masks, batch vectors and PyG's bookkeeping of new layouts into the arguments."""
        values: Any = self.values
        paths = {axis: self._path_of(axis) for axis in layouts}
        markers = [path[-1] for path in paths.values() if path is not None]
        places: set[Path] = set()
        for axis, layout in layouts.items():
            path = paths[axis]
            if path is None:
                self._refuse_unmarked(axis, change.times)
                continue
            values = containers.replace(values, path, layout.mask if layout.batch is None else layout.batch)
            if layout.ragged:
                places.add(path[:-1])
                holder = containers.lookup(self.values, path[:-1], "argument ")
                entries = beside_batch(holder, markers, layout, change)
                values = containers.exchange(values, {(*path[:-1], name): new for name, new in entries.items()})
        for place in places:
            values = self._separated(values, place, change)
        return Inputs(values, self.signature, layouts)

    def _separated(self, values: Any, place: Path, change: Rebatch) -> Any:
        """Values in which the PyG `Batch` at a place knows again which rows belong to which graph."""
        inside = {path[-1]: leaf.rep for path, leaf in self.leaves.items() if path[:-1] == place}
        labels = {name: self.layouts[rep.labelled] for name, rep in inside.items() if rep.labelled is not None}
        entries = separated(containers.lookup(values, place, "argument "), inside, labels, change)
        return (
            containers.exchange(values, {(*place, name): new for name, new in entries.items()}) if entries else values
        )

    def _path_of(self, axis: NodeAxis) -> Path | None:
        """Where the mask or batch vector of an axis stands among the arguments."""
        key = axis.mask if axis.batch is None else axis.batch
        if key is None:
            return None
        return containers.search(self.values["kwargs"], key, ("kwargs",)) or containers.search(
            self.values["args"], key, ("args",)
        )

    def _guarded(self) -> Inputs:
        """The same call, in which no undeclared tensor can be read."""
        markers = {axis: self._path_of(axis) for axis in self.signature.node_axes}
        missing = [repr(axis.mask or axis.batch) for axis, path in markers.items()
                   if path is None and (axis.mask or axis.batch) is not None]  # fmt: skip
        found = [path for path in markers.values() if path is not None]
        values = guarded(self.values, self.signature.spec, found, missing)
        return self if values is self.values else Inputs(values, self.signature)

    def _with_long_labels(self) -> Inputs:
        """The same call with node numbers of 32 or 64 bits, so that those of all samples fit, and can be an index."""
        narrow = {
            path: leaf.value.long()
            for path, leaf in self.leaves.items()
            if leaf.rep.labelled is not None and leaf.value.dtype not in (torch.int32, torch.int64)
        }
        return Inputs(containers.exchange(self.values, narrow), self.signature) if narrow else self

    def _layout(self, axis: NodeAxis) -> Layout:
        path = self._path_of(axis)
        marker = None if path is None else containers.lookup(self.values, path, "argument ")
        size = self._axis_size(axis)
        if axis.batch is not None:
            if marker is None:
                marker = torch.zeros(size, dtype=torch.long, device=self.device)
            if marker.dtype in (torch.uint8, torch.int8, torch.int16):
                marker = marker.long()  # numbers of all samples must fit, and bytes would be taken for a mask
            _check_batch(axis, marker, size)
            holder = containers.lookup(self.values, path[:-1], "argument ") if path else None
            return Layout(size, None, marker, self._ragged_count(marker, holder), self._edges(axis, marker))
        if axis.mask is not None and marker is None:
            raise ValueError(f"argument {axis.mask!r} is missing: {axis!r} names it as the mask of its nodes")
        if marker is not None and (marker.dtype != torch.bool or marker.ndim != 2 or marker.shape[1] != size):
            raise ValueError(
                f"argument {axis.mask!r}: expected a bool mask of shape (B, {size}), "
                f"got {marker.dtype} {tuple(marker.shape)}"
            )
        return Layout(size, marker)

    def _axis_size(self, axis: NodeAxis) -> int:
        for leaf in self.leaves.values():
            for slot, place in leaf.rep.axes:
                if slot.role == "nodes" and slot.group == axis:
                    return leaf.value.shape[leaf.rep.batch_dims() + place]
        path = self._path_of(axis)
        if path is not None:
            return containers.lookup(self.values, path, "argument ").shape[-1]
        if axis.size is not None:
            return axis.size
        for path, leaf in self.leaves.items():  # a lone graph of PyG knows how many nodes it has
            if axis in (leaf.rep.labelled, leaf.rep.ragged):
                counted = containers.read(containers.lookup(self.values, path[:-1], "argument "), "num_nodes")
                if isinstance(counted, int):
                    return counted
        raise ValueError(f"{axis!r}: no input has this axis, so its size is unknown; declare one, or give S(n)")

    def _ragged_count(self, batch: Tensor, holder: Any) -> int:
        counted = containers.read(holder, "num_graphs") if holder is not None else None
        pointer = containers.read(holder, "ptr") if holder is not None else None
        if isinstance(counted, int):
            return counted
        if isinstance(pointer, Tensor):
            return pointer.numel() - 1
        dense = [leaf.value.shape[0] for leaf in self.leaves.values() if leaf.rep.batch_dims() == 1]
        return dense[0] if dense else (int(batch.max()) + 1 if batch.numel() else 0)

    def _edges(self, axis: NodeAxis, batch: Tensor) -> dict[Path, Tensor]:
        """The graph of each edge, for every tensor of node numbers (2, E) on a ragged axis."""
        labels = {path: leaf.value for path, leaf in self.leaves.items() if leaf.rep.labelled == axis}
        return {path: _graphs(value, batch, 0) for path, value in labels.items() if value.ndim > 1}

    def _with_edges_told_apart(self) -> Inputs:
        """The same call, in which every leaf on the edges of a ragged batch names the edges that it belongs to.

        Raises:
            ValueError: a leaf has another length than all edges, or may belong to several sets of edges.
        """
        whose: dict[Path, Path] = {}
        for path, leaf in self.leaves.items():
            if leaf.rep.on_edges and self.layouts[leaf.rep.ragged].edges:  # type: ignore[index]
                whose[path] = self._edges_of(path, leaf)
        if not any(len(layout.edges) > 1 for layout in self.layouts.values()):
            return self
        signature = self.signature.naming(whose)
        carriers = tuple(whose.values())
        layouts = {axis: replace(layout, carriers=carriers) for axis, layout in self.layouts.items()}
        return Inputs(self.values, signature, layouts)

    def _edges_of(self, path: Path, leaf: Leaf) -> Path:
        """Whose edges a leaf holds: those of its length; of several sets that long, the one declared last before it."""
        layout, slot = self.layouts[leaf.rep.ragged], leaf.rep.slots[0]  # type: ignore[index]
        known = [edges for edges in layout.edges if slot.means(edges)]  # type: ignore[union-attr]
        fitting = [edges for edges in known if len(layout.edges[edges]) == len(leaf.value)]
        order = list(self.leaves)
        before = [edges for edges in known if order.index(edges) < order.index(path)]
        if before and before[-1] in fitting:
            return before[-1]
        try:
            found = layout.edges_of(slot, len(leaf.value))  # type: ignore[arg-type]
        except ValueError as error:
            raise ValueError(f"{leaf.name}: {error}") from None
        if before:
            _warn_of_edges(leaf.name, found, before[-1])
        return found

    def check_edges(self, name: str, rep: Rep, rows: int) -> None:
        """Whether an output with `rows` rows fits its Rep on the edges of a ragged batch.

        Raises:
            ValueError: it has another length than all edges, or may belong to several sets of edges; says so of `name`.
        """
        layout, slot = self.layouts[rep.ragged], rep.slots[0]  # type: ignore[index]
        if not layout.edges:
            return
        try:
            found = layout.edges_of(slot, rows)  # type: ignore[arg-type]
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
        if layout.carriers and found not in layout.carriers and slot.of is None:  # type: ignore[union-attr]
            _warn_of_edges(name, found, layout.carriers[-1])

    def _check_sizes(self) -> None:
        for axis, layout in self.layouts.items():
            if layout.mask is not None and layout.mask.shape[0] != self.count:  # `len` fixes the size of an export
                raise ValueError(
                    f"argument {axis.mask!r}: expected a bool mask of shape ({self.count}, {layout.size}), as long as "
                    f"the other inputs, got {tuple(layout.mask.shape)}"
                )
        for leaf in self.leaves.values():
            if leaf.rep.batch_dims() == 1 and leaf.value.shape[0] != self.count:
                raise ValueError(
                    f"{leaf.name}: expected batch size {self.count} on axis 0, got shape {tuple(leaf.value.shape)}"
                )
            leaf.rep.check_sizes(leaf.name, leaf.value, self.layouts)

    def _refuse_unmarked(self, axis: NodeAxis, times: int) -> None:
        """Copies of a lone graph are many graphs: only a batch vector tells the model so."""
        if axis.batch is not None and times > 1:
            raise ValueError(
                f"argument {axis.batch!r} is missing: {axis!r} names it as the graph of each node, and {times} samples "
                f"make {times} graphs of one; pass zeros of shape ({self.layouts[axis].size},), in PyG a Batch"
            )

    def check_values(self) -> None:
        """Refuse NaN and infinity, node numbers out of range, edges between inputs and masks with holes.

        Raises:
            ValueError: names the argument.
        """
        check_values(self)


def _warn_of_edges(name: str, found: Path, other: Path) -> None:
    warnings.warn(
        f"{name}: taken for values on the edges of {found[-1]!r}, which are as many; with equally many edges those of "
        f"{other[-1]!r} would be chosen: declare it .edges_of({found[-1]!r})",
        UserWarning,
        stacklevel=3,
    )


def _graphs(labels: Tensor, batch: Tensor, count: int) -> Tensor:
    """The graph of each edge of node numbers (2, E), or of each one of a list (E,).

    Negative numbers are padding, which may belong to any graph; in a list of one number per input to that input.
    """
    if labels.ndim == 1 and len(labels) == count:
        every = torch.arange(count, device=labels.device)
        return torch.where(labels < 0, every, batch[labels.clamp_min(0)]) if len(batch) else every
    if not len(batch):
        return torch.zeros(labels.shape[-1], dtype=torch.long, device=labels.device)
    first = labels if labels.ndim == 1 else labels.flatten(0, -2).amax(0)
    return batch[first.clamp(0, len(batch) - 1)]


def fold(x: Tensor, rep: Rep, layouts: Mapping[NodeAxis, Layout]) -> Tensor:
    """(K, B, ...) -> (K B, ...), and for ragged node numbers (K, 2, E) -> (2, K E) with an offset a copy."""
    axis = rep.labelled
    if axis is None or not layouts[axis].ragged:
        return x.reshape(x.shape[0] * x.shape[1], *x.shape[2:])
    shift = layouts[axis].size * torch.arange(len(x), device=x.device)
    shifted = torch.where(x < 0, x, x + shift.reshape(-1, *[1] * (x.ndim - 1)).to(x.dtype))
    return shifted.movedim(0, -2).reshape(*x.shape[1:-1], x.shape[0] * x.shape[-1])


def unfold(x: Tensor, rep: Rep, times: int) -> Tensor:
    """The inverse of `fold` for outputs: (K B, ...) -> (K, B, ...)."""
    return x.reshape(times, x.shape[0] // times, *x.shape[1:])


def _check_leaf(leaf: Leaf) -> None:
    if not isinstance(leaf.value, Tensor):
        raise TypeError(f"{leaf.name}: expected a tensor for {leaf.rep!r}, got {type(leaf.value).__name__}")
    need = leaf.rep.batch_dims() + leaf.rep.ndim
    if leaf.value.ndim < need:
        raise ValueError(
            f"{leaf.name}: expected at least {need} axes (batch, then those of {leaf.rep!r}), "
            f"got shape {tuple(leaf.value.shape)}"
        )
    # Exchanged axes are told before a size, a mask or a batch vector is blamed for them.
    refuse_channels_first(leaf.name, leaf.rep, tuple(leaf.value.shape))
    leaf.rep.check_sizes(leaf.name, leaf.value, {})
    kind = leaf.value.dtype
    wants_complex = any(slot.is_complex for slot, _ in leaf.rep.axes)
    if wants_complex and not kind.is_complex:
        raise TypeError(f"{leaf.name}: expected a complex dtype for {leaf.rep!r}, got {kind}")
    if leaf.rep.requires_float and not kind.is_floating_point and not wants_complex:
        raise TypeError(f"{leaf.name}: expected a floating dtype for {leaf.rep!r}, got {kind}")
    if leaf.rep.labelled is not None and (kind.is_floating_point or kind.is_complex or kind == torch.bool):
        raise TypeError(f"{leaf.name}: expected integer node numbers for {leaf.rep!r}, got {kind}")


def _check_batch(axis: NodeAxis, batch: Tensor, size: int) -> None:
    if batch.dtype not in (torch.long, torch.int) or batch.shape != (size,):
        raise ValueError(
            f"argument {axis.batch!r}: expected the graph of each of {size} nodes as integers of shape ({size},), "
            f"got {batch.dtype} {tuple(batch.shape)}"
        )
