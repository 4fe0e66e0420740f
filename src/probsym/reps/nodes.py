"""Node axes: which group acts on the nodes, and how their axis is stored (dense, padded, ragged)."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from probsym.groups.base import Group, Slot
from probsym.groups.whole import whole_number
from probsym.members import register
from probsym.reps.layout import Layout
from probsym.reps.storage import NodeElement, NodePermutation, StoredNodes, StoredSymmetric, StoredTrivial


@dataclass(frozen=True)
class NodeAxis(Group):
    """A named axis of nodes on which a plain group acts; `S` and `Axis` say which.

    The group is mathematics; the axis adds how a batch of inputs lies in memory. `stored(layout)` has the verbs of the
    group for one layout, and the verbs of the axis itself are those of a dense one.

    Args:
        name: tells this axis from others of the same kind.
        size: number of nodes, where the data does not tell it.
        mask: name of the input that marks the nodes of a padded batch, (B, N) bool, nodes first.
        batch: name of the input that numbers the graph of each node of a ragged batch, (sum N,) integer.

    Raises:
        ValueError: mask and batch, a name that is no string, or a size that is no integer of at least zero.
    """

    name: str | None = None
    size: int | None = None
    mask: str | int | None = None
    batch: str | int | None = None
    on_nodes = True

    def __post_init__(self) -> None:
        if self.mask is not None and self.batch is not None:
            raise ValueError(f"{self!r}: an axis is padded (mask) or ragged (batch), not both")
        if self.name is not None and not isinstance(self.name, str):
            raise ValueError(f"{type(self).__name__}: expected a string as the name of the axis, got {self.name!r}")
        if self.size is not None:
            object.__setattr__(self, "size", whole_number(f"{type(self).__name__}, size", self.size, 0))

    # ------------------------------------------------------------ slots

    @property
    def defining(self) -> Slot:
        return Nodes(self)

    @property
    def labels(self) -> Slot:
        """Integer tensors that hold node numbers, such as edge_index (2, E): values move, not places."""
        return Labels(self)

    @property
    def edges(self) -> Slot:
        """An axis of edges on which nothing acts; in a ragged batch it stands for (batch, edges).

        With several sets of edges in a ragged batch the length tells whose edges they are. Of sets with equally many
        edges an input belongs to the one declared last before it, and an output to the one that inputs belong to.
        `edges_of` says it by name.
        """
        return Edges(self)

    def edges_of(self, labels: Any) -> Slot:
        """`edges` of the node numbers in the input of this name (or number, of a positional argument)."""
        return Edges(self, labels)

    # ------------------------------------------------------------ storage

    @property
    def marker(self) -> str | int | None:
        """Name of the input that says where the nodes are: the mask or the batch vector."""
        return self.mask if self.batch is None else self.batch

    @abstractmethod
    def stored(self, layout: Layout | int | None = None) -> StoredNodes:
        """The verbs of the group for nodes that are stored so.

        Args:
            layout: a layout, the number of nodes of a dense axis, or None for the size that the axis knows.

        Raises:
            ValueError: neither says the number of nodes.
        """

    def _layout(self, given: Layout | int | None) -> Layout:
        if isinstance(given, Layout):
            return given
        size = self.size if given is None else given
        if size is None:
            raise ValueError(f"{self!r} does not know its size: pass n=, or build it as S(n)")
        return Layout(int(size))

    # ------------------------------------------------------------ the verbs, on a dense axis

    def identity(self, shape: tuple[int, ...] = (), *, n: Layout | int | None = None, **options: Any) -> NodeElement:
        return self.stored(n).identity(shape, **options)

    def compose(self, g: NodeElement, h: NodeElement) -> NodeElement:
        return self.stored(g.layout).compose(g, h)

    def inverse(self, g: NodeElement) -> NodeElement:
        return self.stored(g.layout).inverse(g)

    def draw_noise(self, shape: tuple[int, ...], *, n: Layout | int | None = None, **options: Any) -> Tensor:
        return self.stored(n).draw_noise(shape, **options)

    def haar(self, shape: tuple[int, ...] = (), *, n: Layout | int | None = None, **options: Any) -> NodeElement:
        return self.stored(n).haar(shape, **options)

    def elements(self, device: torch.device | str | None = None) -> NodeElement:
        if self.size is None:
            raise TypeError(f"the elements of {self!r} cannot be listed: inputs of any size")
        return self.stored().elements(device)

    def __repr__(self) -> str:
        shown = [repr(value) for value in (self.name, self.size) if value is not None]
        if self.mask is not None:
            shown.append(f"mask={self.mask!r}")
        if self.batch is not None:
            shown.append(f"batch={self.batch!r}")
        return f"{type(self).__name__}({', '.join(shown)})"


@register
@dataclass(frozen=True, repr=False)
class S(NodeAxis):
    """The symmetric group on a node axis; its size is read from the data unless given.

    Args:
        name: name of the axis, or the number of nodes.

    >>> S("nodes", mask="mask")
    S('nodes', mask='mask')
    >>> g = S(3).project(torch.tensor([0.3, -1.0, 2.0]), torch.zeros(3))   # the pose g 0 of scores is sorted
    >>> g.index.tolist(), g.inverse().index.tolist()
    ([1, 0, 2], [1, 0, 2])
    """

    feature_kind: ClassVar[str] = "scores"

    def __post_init__(self) -> None:
        if self.name is not None and not isinstance(self.name, str):
            object.__setattr__(self, "size", whole_number("S(n)", self.name, 0))
            object.__setattr__(self, "name", None)
        super().__post_init__()

    @property
    def finite(self) -> bool:
        return True

    def order(self) -> int | None:
        """n!, or None where only the data tells the size."""
        return None if self.size is None else self.stored().order()

    def stored(self, layout: Layout | int | None = None) -> StoredSymmetric:
        return StoredSymmetric(self, self._layout(layout))

    def violation(self, g: NodePermutation) -> Tensor | None:
        """Zero if the indices are a permutation."""
        return g.moves.group.violation(g.moves)

    def distance_to_identity(self, g: NodePermutation) -> Tensor:
        """The share of nodes that move, with the straight-through gradient of the scores."""
        return g.moved_share()

    def project(self, z: Tensor, fallback: Tensor) -> NodeElement:
        return self.stored(z.shape[-1]).project(z, fallback)

    def degenerate(self, z: Tensor) -> Tensor:
        return self.stored(z.shape[-1]).degenerate(z)


@register
@dataclass(frozen=True, repr=False)
class Axis(NodeAxis):
    """The trivial group on a named axis: nodes that a model already treats alike (a GNN), with mask or batch.

    Declares where the nodes are, so that centroids, frames and nets find them, without averaging over S_n.

    >>> Axis("atoms", batch="batch")
    Axis('atoms', batch='batch')
    """

    trivial = True

    @property
    def noise_slots(self) -> tuple[Slot | None, ...]:
        return ()

    @property
    def finite(self) -> bool:
        return True

    def order(self) -> int:
        return 1

    def stored(self, layout: Layout | int | None = None) -> StoredTrivial:
        return StoredTrivial(self, self._layout(layout))

    def project(self, z: Tensor, fallback: Tensor) -> NodeElement:
        return self.stored().project(z, fallback)

    def degenerate(self, z: Tensor) -> Tensor:
        return torch.zeros_like(z, dtype=torch.bool)


# ---------------------------------------------------------------- slots


@register
@dataclass(frozen=True, repr=False)
class Nodes(Slot):
    """One entry per node: the entries are permuted."""

    group: NodeAxis
    role: ClassVar[str] = "nodes"
    guards_precision: ClassVar[bool] = True

    def act(self, g: NodeElement, x: Tensor, axis: int, shared_dims: int) -> Tensor:
        return g.permute(x, axis, shared_dims)


@register
@dataclass(frozen=True, repr=False)
class Labels(Slot):
    """Integer node numbers: the values are permuted, the places stay."""

    group: NodeAxis
    num_axes: ClassVar[int] = 0
    suffix: ClassVar[str] = ".labels"
    role: ClassVar[str] = "labels"
    guards_precision: ClassVar[bool] = True

    def act(self, g: NodeElement, x: Tensor, axis: int, shared_dims: int) -> Tensor:
        return g.relabel(x, shared_dims)


@register
@dataclass(frozen=True, repr=False)
class Edges(Slot):
    """One entry per edge, in the order of the declared labels: nothing acts.

    Args:
        of: name or path of the labels, where there may be several.
    """

    group: NodeAxis
    of: Any = None
    role: ClassVar[str] = "edges"
    guards_precision: ClassVar[bool] = True

    def means(self, path: Any) -> bool:
        """Whether these are the edges of the node numbers at a path."""
        return self.of is None or self.of in (path, path[-1])

    def __repr__(self) -> str:
        if self.of is None:
            return f"{self.group!r}.edges"
        name = self.of[-1] if isinstance(self.of, tuple) else self.of
        return f"{self.group!r}.edges_of({name!r})"

    def act(self, g: NodeElement, x: Tensor, axis: int, shared_dims: int) -> Tensor:
        return x
