"""What PyG writes beside a batch vector, rewritten for a batch of other graphs: each of them K times, or some."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from probsym.reps import containers
from probsym.reps.layout import Layout, shifted


@dataclass(frozen=True, eq=False)
class Rebatch:
    """How the graphs of a batch become those of another.

    Args:
        count: graphs before. times: how often each occurs, copy after copy.
        keep: which of them are left (B,) bool; None for all.
    """

    count: int
    times: int = 1
    keep: Tensor | None = None

    def numbers(self, graph: Tensor) -> Tensor:
        """The graph of each row, as in `batch` and `x_batch`."""
        if self.keep is None:
            return shifted(graph, self.times, self.count)
        number = self.keep.cumsum(0) - 1
        return number[graph[self.keep[graph]]].to(graph.dtype)

    def starts(self, pointer: Tensor) -> Tensor:
        """The first row of each graph and the end of the last (B + 1,), as in `ptr` and `x_ptr`."""
        sizes = self.each(pointer.diff())
        return torch.nn.functional.pad(sizes.cumsum(0), (1, 0)).to(pointer.dtype)

    def each(self, values: Tensor) -> Tensor:
        """One value per graph."""
        if self.keep is None:
            return values.repeat(self.times, *[1] * (values.ndim - 1))
        return values[self.keep.to(values.device)]

    def each_of(self, values: list[Any]) -> list[Any]:
        """The same for a list."""
        if self.keep is None:
            return values * self.times
        kept: list[Any] = []
        for value, keep in zip(values, self.keep.tolist(), strict=True):
            if keep:
                kept.append(value)
        return kept


class Later(dict[Any, Any]):
    """A dict whose values are functions, called when they are read: most models never do."""

    def __getitem__(self, key: Any) -> Any:
        return super().__getitem__(key)()

    def get(self, key: Any, default: Any = None) -> Any:
        return self[key] if key in self else default  # noqa: SIM401

    def values(self) -> Any:
        return [self[key] for key in self]

    def items(self) -> Any:
        return [(key, self[key]) for key in self]


def graphs_told(holder: Any) -> int | None:
    """The number of graphs that `num_graphs` or `ptr` beside a batch vector tells; None where neither is there.

    Raises:
        ValueError: both are, and tell different numbers.
    """
    counted = containers.read(holder, "num_graphs")
    if _is_number(counted):
        counted = int(counted)
    if not isinstance(counted, int):
        counted = None
    pointer = containers.read(holder, "ptr")
    if not isinstance(pointer, Tensor):
        return counted
    if counted is not None and counted != pointer.numel() - 1:
        raise ValueError(
            f"argument 'ptr': expected the starts of {counted} graphs, as num_graphs says, and the end of the last, "
            f"got shape {tuple(pointer.shape)}"
        )
    return pointer.numel() - 1


def _is_number(value: Any) -> bool:
    """Whether it is a whole number in a tensor, as `batch.max() + 1` is."""
    return isinstance(value, Tensor) and value.ndim == 0 and value.dtype in (torch.int32, torch.int64)


def beside_batch(holder: Any, markers: Iterable[Any], before: Layout, after: Layout, change: Rebatch) -> dict[str, Any]:
    """The new values of entries that go with a batch vector, which is one of the `markers`, names of batch vectors.

    `ptr`, the numbers of nodes and graphs, and for every entry x with PyG's `follow_batch` also `x_batch` and `x_ptr`.
    Of two axes with a batch vector in one container, `ptr` and `num_nodes` belong to one, and nothing says to which: so
    they are rewritten from what they are.
    """
    rewritten: dict[str, Any] = {}

    # 1. entries of the whole batch
    pointer = containers.read(holder, "ptr")
    if isinstance(pointer, Tensor):
        rewritten["ptr"] = change.starts(pointer)
    if isinstance(containers.read(holder, "_num_graphs"), int):
        rewritten["_num_graphs"] = after.count

    # 2. entries that stand beside another one
    for name, value in containers.entries(holder):
        if name == "num_nodes" and isinstance(value, int):
            if change.keep is None:
                rewritten[name] = value * change.times
            elif "ptr" in rewritten:
                rewritten[name] = int(rewritten["ptr"][-1])
            elif value == before.size:
                rewritten[name] = after.size
        if name == "num_graphs" and isinstance(value, int):
            rewritten[name] = after.count
        if name == "num_graphs" and _is_number(value):
            rewritten[name] = torch.full_like(value, after.count)
        if name in markers or not isinstance(value, Tensor):
            continue
        stem, _, end = str(name).rpartition("_")
        if end not in ("batch", "ptr") or not stem or containers.read(holder, stem) is None:
            continue
        if end == "batch":
            rewritten[name] = change.numbers(value)
        else:
            rewritten[name] = change.starts(value)
    return rewritten


def separated(holder: Any, declared: Iterable[Any], labels: Mapping[Any, Layout], change: Rebatch) -> dict[str, Any]:
    """What `Batch.to_data_list` and `get_example` read: where each entry of each graph starts, and by how much the
    node numbers of each graph have been raised.

    Args:
        declared: names of entries that have a Rep. labels: layout of the nodes for those that hold node numbers.
    """
    slices = containers.read(holder, "_slice_dict")
    raised = containers.read(holder, "_inc_dict")
    if not isinstance(slices, Mapping) or not isinstance(raised, Mapping):
        return {}
    rewritten: dict[str, Any] = {}
    counted = containers.read(holder, "_num_nodes")
    if isinstance(counted, list):
        rewritten["_num_nodes"] = change.each_of(counted)
    starts = Later()
    offsets = Later()
    for name, old in slices.items():
        value = containers.read(holder, name)
        if isinstance(value, list) and len(value) == change.count and not any(isinstance(v, Tensor) for v in value):
            rewritten[name] = change.each_of(value)  # one entry per graph, such as names
        elif isinstance(value, Tensor) and (name not in declared or not isinstance(old, Tensor)):
            continue  # passed as it is: it belongs to no graph in particular
        if isinstance(value, Tensor):
            starts[name] = _later(change.starts, old)
        else:
            starts[name] = _later(_same, old)
        offsets[name] = _later(_raised, raised.get(name), labels.get(name), change)
    rewritten["_slice_dict"] = starts
    rewritten["_inc_dict"] = offsets
    return rewritten


def _later(function: Callable[..., Any], *args: Any) -> Callable[[], Any]:
    return lambda: function(*args)


def _same(value: Any) -> Any:
    return value


def _raised(old: Any, layout: Layout | None, change: Rebatch) -> Any:
    """By how much the numbers of each graph are raised (B, ...); only node numbers change with the batch."""
    if not isinstance(old, Tensor):
        return old
    new = change.each(old)
    if layout is None:
        return new
    before = torch.nn.functional.pad(layout.sizes.cumsum(0), (1, 0)).to(old.device)
    gain = change.starts(before)[:-1] - change.each(before[:-1])
    return new + gain.reshape(-1, *[1] * (new.ndim - 1)).to(new.dtype)
