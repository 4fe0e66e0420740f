"""Representations: the axes of a tensor and what acts on each."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any, TypeAlias

import torch
from torch import Tensor

from probsym.groups import Element, Group, Layout, NodeAxis, Product, Slot, product
from probsym.groups.axis import Edges, Labels, NodeElement, Nodes
from probsym.kernels.precision import wide, without_autocast
from probsym.members import register

SlotLike: TypeAlias = Group | Slot | None


@register
class Rep:
    """The tensor product of slots, one an axis after the batch; channels may follow and nothing acts on them.

    `Rep(nodes, space)` is a point a node, `Rep(nodes, nodes)` an adjacency, `Rep()` invariant, and `None` an axis on
    which nothing acts. A group stands for its defining slot. In a ragged batch the node (or edge) axis comes first and
    stands for (batch, nodes).

    Raises:
        TypeError: an argument is neither a group, a slot nor None, or a product group.
        ValueError: a ragged axis that is not the first, or two of them.

    >>> from probsym.groups import E, S
    >>> nodes, space = S("nodes"), E(3, "space")
    >>> Rep(nodes, space.vector)
    Rep(S('nodes'), E(3, 'space').vector)
    """

    __slots__ = (
        "_guarded",
        "_hash",
        "_lead",
        "_steps",
        "axes",
        "labelled",
        "ndim",
        "nodes",
        "on_edges",
        "ragged",
        "requires_float",
        "slots",
    )  # fmt: skip
    slots: tuple[Slot | None, ...]
    axes: tuple[tuple[Slot, int], ...]  # every slot that acts, with its place among the axes after the batch
    ndim: int  # number of axes after the batch, channels not counted
    ragged: NodeAxis | None  # the axis that absorbs the batch, if any
    labelled: NodeAxis | None  # the axis whose node numbers the tensor holds, if it holds any
    on_edges: bool  # whether the axis that absorbs the batch holds edges rather than nodes
    requires_float: bool  # whether the action adds entries up, so that integers will not do
    _guarded: bool  # whether a slot would compute in half precision, or let autocast do so
    _steps: tuple[tuple[Slot, int, bool], ...]  # what `act` does: slot, place, whether it takes the next axis along
    nodes: tuple[tuple[NodeAxis, tuple[int, ...]], ...]  # places of every node axis

    def __init__(self, *slots: SlotLike) -> None:
        self.slots = tuple(_slot(s) for s in slots)
        widths = [1 if slot is None else slot.num_axes for slot in self.slots]
        places = [sum(widths[:i]) for i in range(len(widths))]
        self.axes = tuple((slot, at) for slot, at in zip(self.slots, places, strict=True) if slot is not None)
        self.ndim = sum(widths)
        first = next((slot for slot, width in zip(self.slots, widths, strict=True) if width), None)
        self.ragged = first.group if _is_ragged(first) else None  # type: ignore[union-attr, assignment]
        self.labelled = next((slot.group for slot in self.slots if isinstance(slot, Labels)), None)
        self.on_edges = self.ragged is not None and isinstance(self.slots[0], Edges)
        packed = self.ragged is not None or (self.labelled is not None and self.labelled.batch is not None)
        self._lead = 0 if packed else 1
        self.requires_float = any(slot.requires_float for slot, _ in self.axes)
        self._guarded = not all(slot.precise for slot, _ in self.axes)
        self._steps, self.nodes = _steps(self.axes), _node_places(self.axes)
        self._hash = hash(self.slots)
        ragged = [i for i, s in enumerate(self.slots) if _is_ragged(s) and s.num_axes]  # type: ignore[union-attr]
        if ragged and ragged != [0]:
            raise ValueError(f"{self!r}: a ragged axis stands for (batch, nodes) and must come first, once")

    def describe(self) -> dict[str, Any]:
        """The slots, for `probsym.save`."""
        return {"slots": self.slots}

    @classmethod
    def rebuild(cls, slots: tuple[SlotLike, ...]) -> Rep:
        """The Rep of these slots."""
        return cls(*slots)

    def check_sizes(self, name: str, x: Tensor, layouts: Mapping[NodeAxis, Layout]) -> None:
        """Refuse a tensor, with its batch in front, of which an axis has not the size that its slot needs.

        Args:
            name: what the tensor is called. layouts: of the node axes whose size is known.

        Raises:
            ValueError: names the tensor, its axis, what was expected and what came.
        """
        for slot, place in self.axes:
            axis = self.batch_dims() + place
            if not isinstance(slot, Nodes):
                if slot.misfit(tuple(x.shape[axis : axis + slot.num_axes])) is not None:
                    slot.check(x, axis, name, f" of {self!r}")
            elif slot.group in layouts and x.shape[axis] != layouts[slot.group].size:
                size = layouts[slot.group].size
                raise ValueError(
                    f"{name}: expected size {size} on axis {axis} for {slot!r} of {self!r}, got shape {tuple(x.shape)}"
                )

    def naming(self, labels: Any) -> Rep:
        """This Rep, on the edges of a ragged batch, with the path of the node numbers that make the edges."""
        return Rep(Edges(self.ragged, labels), *self.slots[1:])  # type: ignore[arg-type]

    @property
    def group(self) -> Group:
        """The product of all groups that occur."""
        return product(slot.group for slot in self.slots if slot is not None)

    def batch_dims(self) -> int:
        """Number of batch dims of one input batch: 0 where a ragged axis absorbs the batch, else 1."""
        return self._lead

    def act(self, g: Element, x: Tensor, lead: int | None = None) -> Tensor:
        """g x, one axis after the other; padded nodes are set to zero.

        Args:
            g: element of a group that contains every factor of this Rep, batch shape L; in a ragged batch (*K, B).
            x: tensor whose first `lead` dims are a suffix of L (for a ragged Rep of K); all of L unless given.

        Returns: the moved tensor with all of L (or K) in front.

        >>> import torch
        >>> from probsym.groups import S
        >>> g = S(3).project(torch.tensor([[3.0, 1.0, 2.0]]), torch.zeros(1, 3))
        >>> Rep(S(3)).act(g, torch.tensor([[10.0, 20.0, 30.0]])).tolist()
        [[30.0, 10.0, 20.0]]
        """
        full = len(g.shape) - (1 - self.batch_dims())
        lead = full if lead is None else lead
        # permutations leave padding in its place: masks are for the inputs then, not for each of their samples
        early = 0 < lead < full and sum(len(places) for _, places in self.nodes) == len(self.axes)
        kind = x.dtype
        if (
            self.requires_float or self._guarded or kind.is_complex
        ):  # few of torch's gathers know halves of complex numbers
            x = wide(x)  # half precision is rounded once, however many slots there are
        # what a model writes to its padding, NaN it may be, would reach the gradient of g
        x = self.masked(g, x, lead) if early or lead == full else x
        with without_autocast(x.device) if self._guarded else nullcontext():
            for slot, place, paired in self._steps:
                part: Any = g[slot.group]
                before, packed = x.ndim, 0
                if self.ragged is not None and not isinstance(part, NodeElement):
                    part, packed = self._spread(g, part, x.shape[lead]), 1
                if not slot.precise:
                    x, part = _alike(x, part)
                at = lead + place
                x = part.permute_pairs(x, at, lead) if paired else slot.act(part, x, at, lead + packed)
                lead += x.ndim - before
        x = x if lead == full else x.expand(*g.shape[: full - lead], *x.shape)
        x = x if early else self.masked(g, x, full)
        if x.is_complex() and not kind.is_complex:
            return x  # a slot that turns phases makes complex numbers of real ones
        return x.to(kind)

    def _spread(self, g: Element, part: Element, rows: int) -> Element:
        """The part of a space factor for every row of the ragged axis."""
        layout = g[self.ragged].layout  # type: ignore[index, union-attr, attr-defined]
        owner = layout.owner(self.slots[0], rows)
        return part.map(lambda tensor, trailing: layout.spread(tensor, tensor.ndim - trailing - 1, owner))

    def masked(self, g: Element, x: Tensor, lead: int) -> Tensor:
        """x, whose first `lead` dims are batch dims of g, with zeros at padded nodes."""
        for axis, places in self.nodes:
            layout = g[axis].layout  # type: ignore[attr-defined]
            if layout.mask is not None:
                x = layout.clear(x, lead, *(lead + place for place in places))
        return x

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Rep) and self.slots == other.slots

    def __hash__(self) -> int:
        return self._hash

    def __reduce__(self) -> tuple[Any, ...]:
        return Rep, self.slots  # hashes of names differ between processes

    def __repr__(self) -> str:
        return f"Rep({', '.join(map(repr, self.slots))})"


def _alike(x: Tensor, g: Element) -> tuple[Tensor, Element]:
    """A tensor and an element in one floating dtype, the wider, for slots that multiply them as they come."""
    if not (x.is_floating_point() or x.is_complex()):
        return x, g
    # 1. the widest precision of both, as a real dtype
    kind = _real(x.dtype)
    for name in g.trailing_dims:
        tensor = getattr(g, name)
        if tensor is not None and (tensor.is_floating_point() or tensor.is_complex()):
            kind = torch.promote_types(kind, _real(tensor.dtype))

    # 2. both in it; complex numbers stay complex
    def widened(tensor: Tensor) -> Tensor:
        if tensor.is_complex():
            return tensor.to(kind.to_complex())
        return tensor.to(kind) if tensor.is_floating_point() else tensor

    return widened(x), g.map(lambda tensor, _: widened(tensor))


def _real(kind: torch.dtype) -> torch.dtype:
    """The dtype of the parts of complex numbers, and of real ones."""
    return kind.to_real() if kind.is_complex else kind  # `to_real` of a real one stops compilers


def _slot(slot: SlotLike) -> Slot | None:
    if slot is None or isinstance(slot, Slot):
        return slot
    if isinstance(slot, Product):
        return slot.defining
    if isinstance(slot, Group):
        return slot.defining
    raise TypeError(f"Rep takes groups, slots such as space.vector, and None; got {slot!r}")


def _is_ragged(slot: Slot | None) -> bool:
    return isinstance(slot, Nodes | Edges) and slot.group.batch is not None


def _steps(axes: tuple[tuple[Slot, int], ...]) -> tuple[tuple[Slot, int, bool], ...]:
    """The slots in order; two neighbours of the same nodes are one step."""
    found: list[tuple[Slot, int, bool]] = []
    for slot, place in axes:
        if isinstance(slot, Nodes) and found and found[-1] == (slot, place - 1, False):
            found[-1] = (slot, place - 1, True)
        else:
            found.append((slot, place, False))
    return tuple(found)


def _node_places(axes: tuple[tuple[Slot, int], ...]) -> tuple[tuple[NodeAxis, tuple[int, ...]], ...]:
    places: dict[NodeAxis, tuple[int, ...]] = {}
    for slot, place in axes:
        if isinstance(slot, Nodes):
            places[slot.group] = (*places.get(slot.group, ()), place)
    return tuple(places.items())
