"""PATTERN (arXiv 2003.00982): which nodes of a stochastic block model belong to a planted pattern?

A graph has five communities of 5 to 34 nodes, linked with probability 0.5 inside and 0.35 between, and one of 100
patterns of 5 to 34 nodes, linked with probability 0.5 inside and to the rest. The links inside a pattern and the
signal on its nodes are the same in all graphs that hold it; every other node has a random signal, one of three. Each
pattern is in 100 training, 20 validation and 20 test graphs, with its nodes in a random order among the others.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..cache import cached
from ..npz import Arrays
from .storage import Graphs, Ragged, check

SIGNALS = 3
LARGEST = 188  # nodes: the published data hold no more, drawing may give 204
AXES = {"num_nodes": 1, "num_links": 1, "signal": 1, "label": 1, "link": 2}


@dataclass(frozen=True)
class BlockModel:
    """The recipe of a data set; the defaults are the published one.

    Args:
        seed: Of everything that is drawn.
        patterns: Different patterns.
        train, valid, test: Graphs of each part that hold the same pattern.
        communities: Of each graph. smallest, largest: Nodes of a community or a pattern.
        inside, between: Probability of a link between nodes of the same community and of different ones.
        pattern: Probability of a link of a pattern's node, to its own and to other nodes.
    """

    seed: int = 41
    patterns: int = 100
    train: int = 100
    valid: int = 20
    test: int = 20
    communities: int = 5
    smallest: int = 5
    largest: int = 34
    inside: float = 0.5
    between: float = 0.35
    pattern: float = 0.5

    @property
    def file(self) -> str:
        """Name in the data folder."""
        counts = "" if self.patterns == 100 else f"_{self.patterns}x{self.train}-{self.valid}-{self.test}"
        return f"pattern_sbm_seed{self.seed}{counts}.npz"

    def parts(self) -> dict[str, slice]:
        """Which graphs belong to each part; the patterns take turns, so that the first ones hold all of them."""
        share = {"train": self.train, "valid": self.valid, "test": self.test}
        ends = np.cumsum([0, *share.values()]) * self.patterns
        return {name: slice(int(ends[i]), int(ends[i + 1])) for i, name in enumerate(share)}


def load(recipe: BlockModel, folder: Path) -> dict[str, Graphs]:
    """The parts train, valid and test, from the folder if it holds them, else drawn (seconds) and kept there.

    Raises UserError if the file is damaged.
    """
    path = folder / recipe.file
    arrays = cached(path, lambda: draw(recipe), AXES, AXES, "delete it and it will be drawn again")
    whole = check(assemble(arrays), str(path))
    return {name: whole.take(index) for name, index in recipe.parts().items()}


def assemble(arrays: Arrays) -> Graphs:
    """Signals as node features, labels and links."""
    nodes = Ragged(arrays["num_nodes"].astype(np.int64), {"x": arrays["signal"][:, None], "label": arrays["label"]})
    return Graphs(nodes, Ragged(arrays["num_links"].astype(np.int64), {"index": arrays["link"]}))


@dataclass(frozen=True)
class Pattern:
    """What all graphs that hold it share: its links (S, S), of which the upper half counts, and its signal (S,)."""

    links: NDArray
    signal: NDArray


def draw(recipe: BlockModel) -> Arrays:
    """All graphs: num_nodes, num_links (B,), signal, label (sum N,), link (sum E, 2) with the lower number first."""
    rng = np.random.default_rng(recipe.seed)
    patterns = [
        Pattern(rng.random((size, size)) < recipe.pattern, rng.integers(SIGNALS, size=size))
        for size in rng.integers(recipe.smallest, recipe.largest + 1, recipe.patterns)
    ]
    count = recipe.train + recipe.valid + recipe.test
    graphs = [_graph(recipe, rng, pattern) for pattern in patterns * count]
    rows = {name: np.concatenate([graph[name] for graph in graphs]) for name in ("signal", "label", "link")}
    counts = {"num_nodes": "label", "num_links": "link"}
    return {name: np.array([len(graph[rows]) for graph in graphs], np.int32) for name, rows in counts.items()} | rows


def _graph(recipe: BlockModel, rng: np.random.Generator, pattern: Pattern) -> Arrays:
    """Signal, label (N,) and link (E, 2) of one graph, its nodes in a random order."""
    own, limit = len(pattern.signal), LARGEST
    while (sizes := rng.integers(recipe.smallest, recipe.largest + 1, recipe.communities)).sum() + own > limit:
        pass
    order = rng.permutation(own + sizes.sum())
    block = np.repeat(np.arange(recipe.communities + 1), [own, *sizes])[order]  # 0 is the pattern
    chance = np.where(np.eye(recipe.communities + 1), recipe.inside, recipe.between).astype(np.float32)
    chance[0] = chance[:, 0] = recipe.pattern
    i, j = _pairs(len(order))
    link = rng.random(len(i), dtype=np.float32) < chance[block[i], block[j]]
    inside = np.flatnonzero(block[i] + block[j] == 0)
    ends = np.sort([order[i[inside]], order[j[inside]]], 0)
    link[inside] = pattern.links[ends[0], ends[1]]
    signal = np.concatenate([pattern.signal, rng.integers(SIGNALS, size=sizes.sum())])[order]
    return {
        "signal": signal.astype(np.uint8),
        "label": (block == 0).astype(np.uint8),
        "link": np.stack([i[link], j[link]], 1).astype(np.uint8),
    }


@cache
def _pairs(n: int) -> tuple[NDArray, NDArray]:
    """All i < j below n."""
    return np.triu_indices(n, 1)
