"""Representations: the axes of a tensor and what acts on each."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from probsym.groups import Element, Group, Slot, product
from probsym.kernels.precision import complex_dtype, real_dtype, wide, without_autocast
from probsym.members import register
from probsym.reps.layout import Layout
from probsym.reps.nodes import Edges, NodeAxis

SlotLike: TypeAlias = Group | Slot | None


class Step(NamedTuple):
    """One step of an action: a slot at its place among the axes after the batch."""

    slot: Slot
    place: int
    paired: bool  # whether the next axis is one of the same nodes, so that one gather moves both


class RepPiece(NamedTuple):
    """A part of a tensor whose slot consists of several: along the axis at `place`, `length` entries of this shape."""

    rep: Rep
    place: int
    length: int
    shape: tuple[int, ...]


@register
class Rep:
    """The tensor product of slots, one an axis after the batch; channels may follow and nothing acts on them.

    `Rep(nodes, space)` is a point a node, `Rep(nodes, nodes)` an adjacency, `Rep()` invariant, and `None` an axis on
    which nothing acts. A group stands for its defining slot. In a ragged batch the node (or edge) axis comes first and
    stands for (batch, nodes).

    Raises:
        TypeError: an argument is neither a group, a slot nor None, or a product group.
        ValueError: a ragged axis that is not the first, or two of them.

    >>> from probsym.groups import E
    >>> from probsym.reps.nodes import S
    >>> nodes, space = S("nodes"), E(3, "space")
    >>> Rep(nodes, space.vector)
    Rep(S('nodes'), E(3, 'space').vector)
    """

    __slots__ = (
        "_guarded", "_hash", "_only_nodes", "_steps",
        "axes", "batch_dims", "is_complex", "is_image", "labelled", "ndim", "nodes", "on_edges", "pieces", "ragged",
        "requires_float", "slots",
    )  # fmt: skip
    slots: tuple[Slot | None, ...]
    axes: tuple[tuple[Slot, int], ...]  # every slot that acts, with its place among the axes after the batch
    nodes: tuple[tuple[NodeAxis, tuple[int, ...]], ...]  # every node axis with its places
    batch_dims: int  # number of batch dims of one input batch: 0 where a ragged axis absorbs the batch, else 1
    ndim: int  # number of axes after the batch, channels not counted
    ragged: NodeAxis | None  # the axis that absorbs the batch, if any
    labelled: NodeAxis | None  # the axis whose node numbers the tensor holds, if it holds any
    on_edges: bool  # whether the axis that absorbs the batch holds edges rather than nodes
    requires_float: bool  # whether the action adds entries up, so that integers will not do
    is_complex: bool  # whether its tensors are complex numbers
    pieces: tuple[RepPiece, ...]  # what the first slot that consists of several things consists of; empty without one
    is_image: bool  # whether the last slot takes several axes, those of an image or a volume
    _only_nodes: bool  # whether nothing but node axes moves
    _guarded: bool  # whether a slot would compute in half precision, or let autocast do so
    _steps: tuple[Step, ...]

    def __init__(self, *slots: SlotLike) -> None:
        self.slots = tuple(_slot(s) for s in slots)
        self._hash = hash(self.slots)

        # 1. Places of the slots among the axes after the batch, and of the nodes among them.
        axes: list[tuple[Slot, int]] = []
        node_places: dict[NodeAxis, tuple[int, ...]] = {}
        ragged: list[Slot] = []
        place = 0
        for number, slot in enumerate(self.slots):
            if slot is None:
                place += 1
                continue
            axes.append((slot, place))
            axis: Any = slot.group
            if slot.role == "nodes":
                node_places[axis] = (*node_places.get(axis, ()), place)
            if slot.role in ("nodes", "edges") and axis.batch is not None:
                if number > 0:
                    raise ValueError(f"{self!r}: a ragged axis stands for (batch, nodes) and must come first, once")
                ragged.append(slot)
            place += slot.num_axes
        self.axes, self.nodes, self.ndim = tuple(axes), tuple(node_places.items()), place

        # 2. What absorbs the batch.
        labelled: Any = next((slot.group for slot, _ in axes if slot.role == "labels"), None)
        self.labelled = labelled
        self.ragged = ragged[0].group if ragged else None  # type: ignore[assignment]  # a node axis, as asked above
        self.on_edges = bool(ragged) and ragged[0].role == "edges"
        packed = self.ragged is not None or (labelled is not None and labelled.batch is not None)
        self.batch_dims = 0 if packed else 1

        # 3. How it acts.
        self.requires_float = any(slot.requires_float for slot, _ in axes)
        self.is_complex = any(slot.is_complex for slot, _ in axes)
        last = self.slots[-1] if self.slots else None
        self.is_image = last is not None and last.num_axes >= 2
        self._only_nodes = all(slot.role == "nodes" for slot, _ in axes)
        self._guarded = not all(slot.guards_precision for slot, _ in axes)
        self._steps = _steps(axes)
        self.pieces = _pieces(self.slots)

    def check_sizes(self, name: str, x: Tensor, layouts: Mapping[NodeAxis, Layout]) -> None:
        """Refuse a tensor, with its batch in front, of which an axis has not the size that its slot needs.

        Args:
            name: what the tensor is called. layouts: of the node axes whose size is known.

        Raises:
            ValueError: names the tensor, its axis, what was expected and what came.
        """
        for slot, place in self.axes:
            if slot.role in ("nodes", "edges", "labels"):
                continue  # the data says how many there are
            axis = self.batch_dims + place
            if slot.misfit(tuple(x.shape[axis : axis + slot.num_axes])) is not None:
                slot.check(x, axis, name, f" of {self!r}")
        for node_axis, places in self.nodes:
            if node_axis not in layouts:
                continue
            size = layouts[node_axis].size
            for place in places:
                axis = self.batch_dims + place
                if x.shape[axis] != size:
                    raise ValueError(
                        f"{name}: expected size {size} on axis {axis} for {node_axis!r} of {self!r}, "
                        f"got shape {tuple(x.shape)}"
                    )

    def naming(self, labels: Any) -> Rep:
        """This Rep, on the edges of a ragged batch, with the path of the node numbers that make the edges."""
        return Rep(Edges(self.ragged, labels), *self.slots[1:])  # type: ignore[arg-type]

    @property
    def group(self) -> Group:
        """The product of all groups that occur."""
        return product(slot.group for slot in self.slots if slot is not None)

    def act(self, g: Element, x: Tensor, shared_dims: int | None = None) -> Tensor:
        """g x, one axis after the other; padded nodes are set to zero.

        Args:
            g: element of a group that contains every factor of this Rep, batch shape L; in a ragged batch (*K, B).
            x: tensor whose first `shared_dims` dims are a suffix of L (for a ragged Rep of K); all of L unless given.

        Returns: the moved tensor with all of L (or K) in front.

        >>> import torch
        >>> from probsym.reps.nodes import S
        >>> g = S(3).project(torch.tensor([[3.0, 1.0, 2.0]]), torch.zeros(1, 3))
        >>> Rep(S(3)).act(g, torch.tensor([[10.0, 20.0, 30.0]])).tolist()
        [[30.0, 10.0, 20.0]]
        """
        full = len(g.shape) - (1 - self.batch_dims)
        shared_dims = full if shared_dims is None else shared_dims
        dtype = x.dtype

        # 1. Half precision is rounded once, however many slots there are; few of torch's gathers know halves of complex
        #    numbers.
        if self.requires_float or self._guarded or dtype.is_complex:
            x = wide(x)

        # 2. Padding is zero, of what comes too: NaN that a model writes there would reach the gradient of g.
        #    Permutations leave padding in its place, so that where nothing else acts the inputs are masked instead of
        #    each of their samples.
        masked_before = self._only_nodes and 0 < shared_dims < full
        if masked_before or shared_dims == full:
            x = self.masked(g, x, shared_dims)

        # 3. One slot after the other. The batch dims that g has and x has not come with the first that acts.
        with without_autocast(x.device) if self._guarded else nullcontext():
            for slot, place, paired in self._steps:
                part: Any = g[slot.group]
                before, spread_dims = x.ndim, 0
                if self.ragged is not None and not slot.group.on_nodes:
                    part, spread_dims = self._spread(g, part, x.shape[shared_dims]), 1
                if not slot.guards_precision:
                    x, part = _in_one_dtype(x, part)
                if paired:
                    x = part.permute_pairs(x, shared_dims + place, shared_dims)
                else:
                    x = slot.act(part, x, shared_dims + place, shared_dims + spread_dims)
                shared_dims += x.ndim - before
        if shared_dims != full:
            x = x.expand(*g.shape[: full - shared_dims], *x.shape)
        if not masked_before:
            x = self.masked(g, x, full)

        # 4. Back to the dtype that came, unless a slot that turns phases made complex numbers of real ones.
        if x.is_complex() and not dtype.is_complex:
            return x
        return x.to(dtype)

    def _spread(self, g: Element, part: Element, rows: int) -> Element:
        """The part of a space factor for every row of the ragged axis."""
        layout = g[self.ragged].layout  # type: ignore[index, union-attr, attr-defined]
        owner = layout.owner(self.slots[0], rows)
        return part.map(lambda tensor, trailing: layout.spread(tensor, tensor.ndim - trailing - 1, owner))

    def masked(self, g: Element, x: Tensor, shared_dims: int) -> Tensor:
        """x, whose first `shared_dims` dims are batch dims of g, with zeros at padded nodes."""
        for axis, places in self.nodes:
            layout = g[axis].layout  # type: ignore[attr-defined]
            if layout.mask is not None:
                x = layout.clear(x, shared_dims, *(shared_dims + place for place in places))
        return x

    def describe(self) -> dict[str, Any]:
        """The slots, for `probsym.save`."""
        return {"slots": self.slots}

    @classmethod
    def rebuild(cls, slots: tuple[SlotLike, ...]) -> Rep:
        """The Rep of these slots."""
        return cls(*slots)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Rep) and self.slots == other.slots

    def __hash__(self) -> int:
        return self._hash

    def __reduce__(self) -> tuple[Any, ...]:
        return Rep, self.slots  # hashes of names differ between processes

    def __repr__(self) -> str:
        return f"Rep({', '.join(map(repr, self.slots))})"


def _in_one_dtype(x: Tensor, g: Element) -> tuple[Tensor, Element]:
    """A tensor and an element in one precision, the wider, for slots that multiply them as they come."""
    if not (x.is_floating_point() or x.is_complex()):
        return x, g
    # 1. The widest precision of both, as a real dtype.
    dtype = real_dtype(x.dtype)
    for tensor in g.tensors.values():
        if tensor.is_floating_point() or tensor.is_complex():
            dtype = torch.promote_types(dtype, real_dtype(tensor.dtype))

    # 2. Both in it; complex numbers stay complex.
    def widened(tensor: Tensor) -> Tensor:
        if tensor.is_complex():
            return tensor.to(complex_dtype(dtype))
        return tensor.to(dtype) if tensor.is_floating_point() else tensor

    return widened(x), g.map(lambda tensor, _: widened(tensor))


def _slot(slot: SlotLike) -> Slot | None:
    if slot is None or isinstance(slot, Slot):
        return slot
    if isinstance(slot, Group):
        return slot.defining
    raise TypeError(f"Rep takes groups, slots such as space.vector, and None; got {slot!r}")


def _pieces(slots: tuple[Slot | None, ...]) -> tuple[RepPiece, ...]:
    """A Rep for each piece of the first slot that has any."""
    place = 0
    for number, slot in enumerate(slots):
        if slot is not None and slot.pieces:
            parts: list[RepPiece] = []
            for piece in slot.pieces:
                rep = Rep(*slots[:number], *piece.slots, *slots[number + 1 :])
                parts.append(RepPiece(rep, place, math.prod(piece.shape), piece.shape))
            return tuple(parts)
        place += 1 if slot is None else slot.num_axes
    return ()


def _steps(axes: list[tuple[Slot, int]]) -> tuple[Step, ...]:
    """The slots in order; two neighbours of the same nodes are one step."""
    steps: list[Step] = []
    for slot, place in axes:
        follows_itself = bool(steps) and steps[-1] == (slot, place - 1, False)
        if slot.role == "nodes" and follows_itself:
            steps[-1] = Step(slot, place - 1, True)
        else:
            steps.append(Step(slot, place, False))
    return tuple(steps)
