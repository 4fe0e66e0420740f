"""Node axes: how they are stored (dense, padded, ragged) and the trivial group on one."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import reduce
from operator import and_
from typing import Any, ClassVar

import torch
from torch import Tensor

from probsym.groups.base import Element, Group, Slot
from probsym.groups.lazy import lazy
from probsym.groups.whole import whole_number
from probsym.kernels.values import readable
from probsym.members import register


@dataclass(frozen=True, eq=False)
class Layout:
    """How one node axis is stored.

    dense: every input of the batch has `size` nodes; padded: `mask` (B, N) is true on the nodes, which come first;
    ragged: `batch` (sum N,) is the graph of each node and the axis stands for (batch, nodes).

    Args:
        size: length of the axis in memory: N, or the sum of all N in a ragged batch.
        count: number of inputs B; only ragged layouts need it.
        edges: for every set of edges of a ragged batch, the graph of each edge (sum E,), by the path of the tensor that
            holds its node numbers.
        carriers: the sets of edges on which other inputs live.
    """

    size: int
    mask: Tensor | None = None
    batch: Tensor | None = None
    count: int = 0
    edges: Mapping[Any, Tensor] = field(default_factory=dict)
    carriers: tuple[Any, ...] = ()

    @property
    def ragged(self) -> bool:
        return self.batch is not None

    @property
    def uneven(self) -> bool:
        """Whether inputs may have different numbers of nodes."""
        return self.batch is not None or self.mask is not None

    @lazy
    def sizes(self) -> Tensor:
        """Number of nodes of each input of a padded or ragged batch (B,)."""
        if self.mask is not None:
            return self.mask.sum(-1)
        return torch.bincount(self.batch, minlength=self.count)  # type: ignore[arg-type]

    @lazy
    def padded_size(self) -> int:
        """Length of the axis after `pad`: nodes of the largest input, or the room that padding leaves."""
        if self.batch is None:
            return self.size
        return int(self.sizes.max()) if self.count and self.size else 0

    @lazy
    def largest(self) -> int:
        """Nodes of the largest input; of a padded batch that is being traced, as many as there is room for."""
        if self.mask is None or not readable(self.mask):
            return self.padded_size
        return int(self.sizes.max()) if len(self.sizes) else 0

    @lazy
    def position(self) -> Tensor:
        """Flat index b * padded_size + (place of the node within its graph) of every ragged node (sum N,)."""
        batch: Tensor = self.batch  # type: ignore[assignment]
        order = torch.argsort(batch, stable=True)
        first = torch.cumsum(self.sizes, 0) - self.sizes
        rank = torch.empty_like(order)
        rank[order] = torch.arange(self.size, device=order.device) - first[batch[order]]
        return batch * self.padded_size + rank

    def padded_mask(self) -> Tensor | None:
        """The mask (B, padded_size) of `pad`; None where nothing is padded."""
        if self.batch is None:
            return self.mask
        return torch.arange(self.padded_size, device=self.batch.device) < self.sizes[:, None]

    def clear(self, x: Tensor, lead: int, *axes: int) -> Tensor:
        """x with zeros at the padding of these axes of nodes; its first `lead` dims end with the batch."""
        if self.mask is None:
            return x
        count, size = self.mask.shape
        views = [self.mask.reshape(count, *[1] * (a - lead), size, *[1] * (x.ndim - a - 1)) for a in axes]
        return x.masked_fill(~reduce(and_, views), 0)

    def pad(self, x: Tensor, lead: int) -> Tensor:
        """(*lead, sum N, ...) -> (*lead, B, padded_size, ...), zero where there is no node; x itself if not ragged."""
        if self.batch is None:
            return x
        head, rest = x.shape[:lead], x.shape[lead + 1 :]
        out = x.new_zeros(*head, self.count * self.padded_size, *rest)
        return out.index_copy(lead, self.position, x).reshape(*head, self.count, self.padded_size, *rest)

    def unpad(self, x: Tensor, lead: int) -> Tensor:
        """(*lead, B, padded_size, ...) -> (*lead, sum N, ...), the inverse of `pad`."""
        if self.batch is None:
            return x
        head, rest = x.shape[:lead], x.shape[lead + 2 :]
        return x.reshape(*head, self.count * self.padded_size, *rest).index_select(lead, self.position)

    def owner(self, slot: Slot | None, rows: int) -> Tensor:
        """Graph of each of the rows of a ragged axis: of its nodes, or of as many edges."""
        if isinstance(slot, Edges):
            return self.edges[self.edges_of(slot, rows)]
        return self.batch  # type: ignore[return-value]

    def edges_of(self, slot: Edges, rows: int) -> Any:
        """Whose edges an axis of edges holds, of which there are `rows`: the path of their node numbers.

        Of several sets of that length it is one that other inputs live on; which one does not matter where the edges
        of all lie in the same graphs.

        Raises:
            ValueError: no set is as long, or several are.
        """
        known = {path: graph for path, graph in self.edges.items() if slot.means(path)}
        if not known:
            raise ValueError(
                f"{slot!r}: values on the edges of a ragged batch need node numbers of shape (2, E) declared with "
                f".labels, got {', '.join(map(_last, self.edges)) or 'none'}"
            )
        fitting = [path for path, graph in known.items() if len(graph) == rows]
        if not fitting:
            lengths = " or ".join(f"{len(graph)} as in {_last(path)}" for path, graph in known.items())
            raise ValueError(f"{slot!r}: expected as many rows as edges, {lengths}, got {rows}")
        preferred = [path for path in fitting if path in self.carriers]
        clear = self._alike(fitting) or (preferred and self._alike(preferred))
        if not clear:
            names = " or ".join(map(_last, fitting))
            raise ValueError(
                f"{slot!r}: {rows} rows may be the edges of {names}, which lie in different graphs: say whose they "
                f"are, as in .edges_of({_last(fitting[0])})"
            )
        return (preferred or fitting)[0]

    def _alike(self, paths: list[Any]) -> bool:
        """Whether the edges of these sets lie in the same graphs."""
        if len(paths) < 2:
            return True
        first = self.edges[paths[0]]
        graphs = [self.edges[path] for path in paths]
        return readable(*graphs) and all(torch.equal(first, graph) for graph in graphs[1:])

    def spread(self, x: Tensor, lead: int, owner: Tensor | None = None) -> Tensor:
        """Values of each input (*lead, B, ...) -> values of each ragged node (*lead, sum N, ...), or row of `owner`."""
        return x.index_select(lead, self.batch if owner is None else owner)  # type: ignore[arg-type]

    def select(self, keep: Tensor, count: int) -> Layout:
        """The layout of the inputs marked in `keep` (B,) bool, of which there are `count`."""
        if self.batch is None:
            return Layout(self.size, None if self.mask is None else self.mask[keep], count=count)
        number = keep.cumsum(0) - 1
        batch = number[self.batch[keep[self.batch]]]
        edges = {path: number[graph[keep[graph]]] for path, graph in self.edges.items()}
        return Layout(len(batch), None, batch, count, edges, self.carriers)

    def tile(self, times: int) -> Layout:
        """The layout of `times` copies of the batch as one batch, sample-major."""
        mask = None if self.mask is None else self.mask.repeat(times, 1)
        if self.batch is None:
            return Layout(self.size, mask, count=self.count * times)
        batch = shifted(self.batch, times, self.count)
        edges = {path: shifted(graph, times, self.count) for path, graph in self.edges.items()}
        return Layout(self.size * times, mask, batch, self.count * times, edges, self.carriers)


def shifted(index: Tensor, times: int, step: int) -> Tensor:
    """`times` copies of an index (E,), one after the other, each larger by `step` than the one before."""
    return (index + step * torch.arange(times, device=index.device)[:, None]).reshape(-1)


def _last(path: Any) -> str:
    """The name of an input by its path."""
    return repr(path[-1] if isinstance(path, tuple) else path)


@dataclass(frozen=True)
class NodeAxis(Group):
    """A named axis of exchangeable or fixed nodes; `S` and `Axis` say which group acts on it.

    Args:
        name: tells this axis from others of the same kind.
        size: number of nodes, where the data does not tell it.
        mask: name of the input that marks the nodes of a padded batch, (B, N) bool, nodes first.
        batch: name of the input that numbers the graph of each node of a ragged batch, (sum N,) integer.
    """

    name: str | None = None
    size: int | None = None
    mask: str | int | None = None
    batch: str | int | None = None

    def __post_init__(self) -> None:
        if self.mask is not None and self.batch is not None:
            raise ValueError(f"{self!r}: an axis is padded (mask) or ragged (batch), not both")
        if self.name is not None and not isinstance(self.name, str):
            raise ValueError(f"{type(self).__name__}: expected a string as the name of the axis, got {self.name!r}")
        if self.size is not None:
            object.__setattr__(self, "size", whole_number(f"{type(self).__name__}, size", self.size, 0))

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

    def layout(self, n: Any = None) -> Layout:
        if isinstance(n, Layout):
            return n
        size = self.size if n is None else n
        if size is None:
            raise ValueError(f"{self!r} does not know its size: pass n=, or build it as S(n)")
        return Layout(int(size))

    def __repr__(self) -> str:
        shown = [repr(value) for value in (self.name, self.size) if value is not None]
        shown += [f"{key}={getattr(self, key)!r}" for key in ("mask", "batch") if getattr(self, key) is not None]
        return f"{type(self).__name__}({', '.join(shown)})"


@dataclass(frozen=True, eq=False)
class NodeElement(Element):
    """An element that acts on a node axis and knows how the axis is stored."""

    layout: Layout = Layout(0)

    @abstractmethod
    def permute(self, x: Tensor, axis: int, lead: int) -> Tensor:
        """(g x)_i = x_{g^-1(i)} along `axis`."""

    def permute_pairs(self, x: Tensor, axis: int, lead: int) -> Tensor:
        """`permute` along `axis` and the next: one gather where it can be."""
        moved = self.permute(x, axis, lead)
        lead, axis = lead + moved.ndim - x.ndim, axis + moved.ndim - x.ndim
        return self.permute(moved, axis + 1, lead)

    @abstractmethod
    def relabel(self, labels: Tensor, lead: int) -> Tensor:
        """Node number i becomes g(i); negative numbers mark padding and stay."""


@register
@dataclass(frozen=True, repr=False)
class Nodes(Slot):
    """One entry a node: the entries are permuted."""

    group: NodeAxis
    precise: ClassVar[bool] = True
    role: ClassVar[str] = "nodes"

    def act(self, g: NodeElement, x: Tensor, axis: int, lead: int) -> Tensor:
        return g.permute(x, axis, lead)


@register
@dataclass(frozen=True, repr=False)
class Labels(Slot):
    """Integer node numbers: the values are permuted, the places stay."""

    group: NodeAxis
    precise: ClassVar[bool] = True
    num_axes: ClassVar[int] = 0
    suffix: ClassVar[str] = ".labels"
    role: ClassVar[str] = "labels"

    def act(self, g: NodeElement, x: Tensor, axis: int, lead: int) -> Tensor:
        return g.relabel(x, lead)


@register
@dataclass(frozen=True, repr=False)
class Edges(Slot):
    """One entry an edge, in the order of the declared labels: nothing acts.

    Args:
        of: name or path of the labels, where there may be several.
    """

    group: NodeAxis
    of: Any = None
    precise: ClassVar[bool] = True
    role: ClassVar[str] = "edges"

    def means(self, path: Any) -> bool:
        """Whether these are the edges of the node numbers at a path."""
        return self.of is None or self.of in (path, path[-1])

    def __repr__(self) -> str:
        if self.of is None:
            return f"{self.group!r}.edges"
        return f"{self.group!r}.edges_of({_last(self.of)})"

    def act(self, g: NodeElement, x: Tensor, axis: int, lead: int) -> Tensor:
        return x


@register
@dataclass(frozen=True, repr=False)
class Axis(NodeAxis):
    """The trivial group on a named axis: nodes that a model already treats alike (a GNN), with mask or batch.

    Declares where the nodes are, so that centroids, frames and nets find them, without averaging over S_n.

    >>> Axis("atoms", batch="batch")
    Axis('atoms', batch='batch')
    """

    @property
    def noise_slots(self) -> tuple[Slot | None, ...]:
        return ()

    @property
    def trivial(self) -> bool:
        return True

    @property
    def finite(self) -> bool:
        return True

    def order(self, layout: Any = None) -> int:
        return 1

    def elements(self, layout: Any = None, device: Any = None) -> Element:
        return TrivialElement(self, self.layout(layout), (1,))

    def identity(self, shape: tuple[int, ...] = (), **kwargs: Any) -> Element:
        return TrivialElement(self, self.layout(kwargs.get("n")), tuple(shape))

    def compose(self, g: TrivialElement, h: TrivialElement) -> Element:
        return g

    def inverse(self, g: TrivialElement) -> Element:
        return g

    def project(self, z: Tensor, fallback: Tensor, layout: Any = None) -> Element:
        return TrivialElement(self, self.layout(layout), tuple(torch.broadcast_shapes(z.shape, fallback.shape)))

    def degenerate(self, z: Tensor, layout: Any = None) -> Tensor:
        return torch.zeros_like(z, dtype=torch.bool)

    def draw_noise(self, shape: tuple[int, ...], layout: Any = None, **kwargs: Any) -> Tensor:
        return torch.zeros(shape, dtype=kwargs.get("dtype"), device=kwargs.get("device"))


@dataclass(frozen=True, eq=False)
class TrivialElement(NodeElement):
    """The identity on a node axis."""

    batch_shape: tuple[int, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        return self.batch_shape

    def map(self, fn: Any) -> Element:
        return TrivialElement(self.group, self.layout, tuple(fn(torch.empty(self.batch_shape), 0).shape))

    def select(self, index: Any) -> Element:
        """Index the first batch dim; on the device of the index, since torch refuses one of a GPU on a CPU tensor."""
        device = index.device if isinstance(index, Tensor) else None
        shape = torch.empty(self.batch_shape, device=device)[index].shape
        return TrivialElement(self.group, self.layout, tuple(shape))

    def permute(self, x: Tensor, axis: int, lead: int) -> Tensor:
        return x

    def relabel(self, labels: Tensor, lead: int) -> Tensor:
        return labels
