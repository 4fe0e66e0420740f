"""The arguments of one call, bound to their Reps: what distributions read and the Symmetrizer moves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from probsym.groups import Element, Group
from probsym.groups.lazy import lazy
from probsym.kernels.precision import real_dtype
from probsym.kernels.values import readable
from probsym.reps import containers
from probsym.reps.binding import bind, check_edges_of_output, graphs_of_labels
from probsym.reps.bookkeeping import Rebatch, beside_batch, separated
from probsym.reps.containers import Path, Spec
from probsym.reps.layout import Layout
from probsym.reps.nodes import NodeAxis
from probsym.reps.owned import arranged, owned
from probsym.reps.rep import Rep
from probsym.reps.signature import Signature
from probsym.reps.storage import StoredNodes
from probsym.reps.values import check_values


@dataclass(frozen=True)
class Leaf:
    """One declared tensor."""

    name: str
    rep: Rep
    value: Tensor

    @property
    def channels(self) -> tuple[int, ...]:
        """Sizes of the axes on which nothing acts and that no Rep names."""
        return tuple(self.value.shape[self.rep.batch_dims + self.rep.ndim :])

    def as_edges(self) -> Tensor:
        """Node numbers as edges (2, E), or (B, 2, E) where not ragged.

        A node number that stands alone, such as one root per input (B,), is a loop; of more than two rows the first
        two count.
        """
        labels = self.value.long()
        batch_dims = self.rep.batch_dims
        if labels.ndim < batch_dims + 2:
            labels = labels.reshape(*labels.shape[:batch_dims], -1 if labels.ndim > batch_dims else 1)
            return torch.stack([labels, labels], batch_dims)
        if labels.shape[batch_dims] == 1:
            return torch.cat([labels, labels], batch_dims)
        return labels.narrow(batch_dims, 0, 2)


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
        return bind(Inputs({"args": tuple(args), "kwargs": dict(kwargs)}, signature))

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
        return self._stored_axes.get(factor, factor)

    @lazy
    def _stored_axes(self) -> dict[Group, Group | StoredNodes]:
        """The verbs of every node axis, made once a call."""
        return {axis: axis.stored(layout) for axis, layout in self.layouts.items()}

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
        kinds += [real_dtype(leaf.value.dtype) for leaf in self.leaves.values() if leaf.value.is_complex()]
        wide = torch.float32 if kinds else torch.get_default_dtype()
        for kind in kinds:
            wide = torch.promote_types(wide, kind)
        return wide

    @lazy
    def device(self) -> torch.device:
        return next(iter(self.leaves.values())).value.device

    def map(self, fn: Callable[[Leaf], Tensor]) -> Inputs:
        """The same call with every declared tensor exchanged."""
        changes = {path: fn(leaf) for path, leaf in self.leaves.items()}
        return Inputs(containers.exchange(self.values, changes), self.signature, self.layouts)

    def act(self, g: Element) -> Inputs:
        """g x for one element an input, batch shape (B,)."""
        return self.map(lambda leaf: leaf.rep.act(g, leaf.value, leaf.rep.batch_dims))

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
        if leaf.rep.batch_dims:
            return leaf.value[keep]
        if leaf.rep.labelled is None:
            return leaf.value[keep[self.owner(leaf)]]
        batch: Tensor = self.layouts[leaf.rep.labelled].batch  # type: ignore[assignment]
        number = keep[batch].cumsum(0) - 1
        labels = leaf.value[..., keep[graphs_of_labels(leaf.value, batch, self.count)]]
        return torch.where(labels < 0, labels, number[labels.clamp_min(0)].to(labels.dtype))

    def owner(self, leaf: Leaf) -> Tensor:
        """The input of each row of a ragged leaf: of its nodes, or of its edges."""
        layout = self.layouts[leaf.rep.ragged]  # type: ignore[index]
        return layout.owner(leaf.rep.slots[0], len(leaf.value))

    def with_layouts(self, layouts: dict[NodeAxis, Layout], change: Rebatch) -> Inputs:
        """Write masks, batch vectors and PyG's bookkeeping of new layouts into the arguments."""
        values: Any = self.values
        paths = {axis: self.path_of_marker(axis) for axis in layouts}
        markers = [path[-1] for path in paths.values() if path is not None]
        places: set[Path] = set()
        for axis, layout in layouts.items():
            path = paths[axis]
            if path is None:
                self._refuse_unmarked(axis, change.times)
                continue
            marker = layout.mask if layout.batch is None else layout.batch
            values = containers.exchange(values, {path: marker})
            if layout.ragged:
                places.add(path[:-1])
                holder = containers.lookup(self.values, path[:-1], "argument ")
                entries = beside_batch(holder, markers, self.layouts[axis], layout, change)
                values = containers.exchange(values, {(*path[:-1], name): new for name, new in entries.items()})
        for place in places:
            values = self._separated(values, place, change)
        return Inputs(values, self.signature, layouts)

    def _separated(self, values: Any, place: Path, change: Rebatch) -> Any:
        """Values in which the PyG `Batch` at a place knows again which rows belong to which graph."""
        inside = {path[-1]: leaf.rep for path, leaf in self.leaves.items() if path[:-1] == place}
        labels = {name: self.layouts[rep.labelled] for name, rep in inside.items() if rep.labelled is not None}
        entries = separated(containers.lookup(values, place, "argument "), inside, labels, change)
        if not entries:
            return values
        return containers.exchange(values, {(*place, name): new for name, new in entries.items()})

    def path_of_marker(self, axis: NodeAxis) -> Path | None:
        """Where the mask or batch vector of an axis stands among the arguments."""
        if axis.marker is None:
            return None
        path = containers.search(self.kwargs, axis.marker, ("kwargs",))
        return path or containers.search(self.args, axis.marker, ("args",))

    def check_edges(self, name: str, rep: Rep, rows: int) -> None:
        """Whether an output with `rows` rows fits its Rep on the edges of a ragged batch.

        Raises:
            ValueError: it has another length than all edges, or may belong to several sets of edges; says so of `name`.
        """
        check_edges_of_output(self.layouts[rep.ragged], rep.slots[0], name, rows)  # type: ignore[index]

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
