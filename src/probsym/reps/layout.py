"""How a batch of node axes lies in memory: dense, padded with a mask, or ragged with a batch vector."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from probsym.groups.base import Slot
from probsym.groups.lazy import lazy
from probsym.kernels.values import readable

if TYPE_CHECKING:
    from probsym.reps.nodes import Edges


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

    # ------------------------------------------------------------ sizes

    @lazy
    def sizes(self) -> Tensor:
        """Number of nodes of each input of a padded or ragged batch (B,)."""
        if self.mask is not None:
            return self.mask.sum(-1)
        return torch.bincount(self._graphs, minlength=self.count)

    @lazy
    def padded_size(self) -> int:
        """Length of the axis after `pad`: nodes of the largest input, or the room that padding leaves."""
        if self.batch is None:
            return self.size
        if not self.count or not self.size:
            return 0
        return int(self.sizes.max())

    @lazy
    def largest(self) -> int:
        """Nodes of the largest input; of a padded batch that is being traced, as many as there is room for."""
        if self.mask is None or not readable(self.mask):
            return self.padded_size
        return int(self.sizes.max()) if len(self.sizes) else 0

    # ------------------------------------------------------------ padding

    def padded_mask(self) -> Tensor | None:
        """The mask (B, padded size) of `pad`; None where nothing is padded."""
        if self.batch is None:
            return self.mask
        return torch.arange(self.padded_size, device=self.batch.device) < self.sizes[:, None]

    def clear(self, x: Tensor, batch_dims: int, *axes: int) -> Tensor:
        """Zero the padded entries of x along the given node axes.

        The first `batch_dims` dims of x are (samples..., batch).
        """
        if self.mask is None:
            return x
        count, size = self.mask.shape
        real: Tensor | None = None
        for axis in axes:
            view = self.mask.reshape(count, *[1] * (axis - batch_dims), size, *[1] * (x.ndim - axis - 1))
            real = view if real is None else real & view
        return x if real is None else x.masked_fill(~real, 0)

    # ------------------------------------------------------------ ragged batches

    @property
    def _graphs(self) -> Tensor:
        if self.batch is None:
            raise ValueError("expected a ragged batch")
        return self.batch

    @lazy
    def position(self) -> Tensor:
        """Flat index b * padded size + (place of the node within its graph) of every ragged node (sum N,)."""
        batch = self._graphs
        order = torch.argsort(batch, stable=True)
        first = torch.cumsum(self.sizes, 0) - self.sizes
        rank = torch.empty_like(order)
        rank[order] = torch.arange(self.size, device=order.device) - first[batch[order]]
        return batch * self.padded_size + rank

    def pad(self, x: Tensor, batch_dims: int) -> Tensor:
        """(*K, sum N, ...) -> (*K, B, N, ...), zero where there is no node; x itself if not ragged."""
        if self.batch is None:
            return x
        head, rest = x.shape[:batch_dims], x.shape[batch_dims + 1 :]
        out = x.new_zeros(*head, self.count * self.padded_size, *rest)
        return out.index_copy(batch_dims, self.position, x).reshape(*head, self.count, self.padded_size, *rest)

    def unpad(self, x: Tensor, batch_dims: int) -> Tensor:
        """(*K, B, N, ...) -> (*K, sum N, ...), the inverse of `pad`."""
        if self.batch is None:
            return x
        head, rest = x.shape[:batch_dims], x.shape[batch_dims + 2 :]
        return x.reshape(*head, self.count * self.padded_size, *rest).index_select(batch_dims, self.position)

    def spread(self, x: Tensor, batch_dims: int, owner: Tensor | None = None) -> Tensor:
        """Values of each input (*K, B, ...) -> values of each ragged node (*K, sum N, ...), or row of `owner`."""
        return x.index_select(batch_dims, self._graphs if owner is None else owner)

    # ------------------------------------------------------------ sets of edges of a ragged batch

    def owner(self, slot: Slot | None, rows: int) -> Tensor:
        """Graph of each of the rows of a ragged axis: of its nodes, or of as many edges."""
        if slot is not None and slot.role == "edges":
            return self.edges[self.edges_of(slot, rows)]  # type: ignore[arg-type]
        return self._graphs

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
        if not self._in_same_graphs(fitting) and not (preferred and self._in_same_graphs(preferred)):
            names = " or ".join(map(_last, fitting))
            raise ValueError(
                f"{slot!r}: {rows} rows may be the edges of {names}, which lie in different graphs: say whose they "
                f"are, as in .edges_of({_last(fitting[0])})"
            )
        return (preferred or fitting)[0]

    def _in_same_graphs(self, paths: list[Any]) -> bool:
        """Whether the edges of these sets lie in the same graphs."""
        if len(paths) < 2:
            return True
        graphs = [self.edges[path] for path in paths]
        return readable(*graphs) and all(torch.equal(graphs[0], graph) for graph in graphs[1:])

    # ------------------------------------------------------------ other batches

    def select(self, keep: Tensor, count: int) -> Layout:
        """The layout of the inputs marked in `keep` (B,) bool, of which there are `count`."""
        if self.batch is None:
            return Layout(self.size, None if self.mask is None else self.mask[keep], count=count)
        number = keep.cumsum(0) - 1  # of each input that stays, among those that stay
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
