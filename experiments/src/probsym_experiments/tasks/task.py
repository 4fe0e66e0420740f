"""A task: graphs in three parts, how they look, and what is asked of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import UserError
from .features import check_classes, with_walks
from .goals import Goal
from .storage import Graphs

PARTS = ("train", "valid", "test")


@dataclass(frozen=True)
class Task:
    """What `probsym run NAME` is about.

    Args:
        name: In the registry of experiments.
        load: The data folder to the graphs of each part.
        goal: What is asked.
        node_classes, edge_classes: Of the categories of nodes and edges.
        max_nodes: Of a graph.
    """

    name: str
    load: Callable[[Path], Mapping[str, Graphs]]
    goal: Goal
    node_classes: tuple[int, ...]
    edge_classes: tuple[int, ...]
    max_nodes: int

    def parts(
        self, folder: Path, counts: Mapping[str, int | None], walks: int, by_size: bool = True
    ) -> dict[str, Graphs]:
        """The graphs of each part, the first ones up to `counts`, checked.

        Args:
            by_size: Whether those that are only judged come in order of size, which takes less padding, or as they are.

        Raises UserError if a part is empty or larger than asked, a graph too large, or the metric not defined.
        """
        parts = {}
        for part, whole in self.load(folder).items():
            graphs = whole
            count = counts[part]
            if count is not None:
                if count > len(whole):
                    raise UserError(f"{part}_size: expected at most {len(whole)}; got {count}")
                graphs = whole.take(slice(0, count))
            self.check(graphs, part)
            graphs = with_walks(graphs, walks)
            if by_size and part != "train":
                graphs = graphs.by_size()
            parts[part] = graphs
        return parts

    def check(self, graphs: Graphs, part: str) -> None:
        """Raises UserError if these graphs do not fit the task."""
        self.goal.check(graphs, part)
        if graphs.sizes.max() > self.max_nodes:
            largest = graphs.sizes.argmax()
            size = graphs.sizes[largest]
            raise UserError(f"{part}: graph {largest}: expected at most {self.max_nodes} nodes; got {size}")
        check_classes(graphs.nodes.columns["x"], self.node_classes, f"{part}: x")
        if self.edge_classes:
            check_classes(graphs.edges.columns["attr"], self.edge_classes, f"{part}: edge_attr")
