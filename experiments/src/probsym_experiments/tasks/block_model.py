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
        name = f"pattern_sbm_seed{self.seed}"
        if self.patterns != 100:
            name += f"_{self.patterns}x{self.train}-{self.valid}-{self.test}"
        return f"{name}.npz"

    def parts(self) -> dict[str, slice]:
        """Which graphs belong to each part; the patterns take turns, so that the first ones hold all of them."""
        end_of_train = self.train * self.patterns
        end_of_valid = end_of_train + self.valid * self.patterns
        end_of_test = end_of_valid + self.test * self.patterns
        return {
            "train": slice(0, end_of_train),
            "valid": slice(end_of_train, end_of_valid),
            "test": slice(end_of_valid, end_of_test),
        }


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
    edges = Ragged(arrays["num_links"].astype(np.int64), {"index": arrays["link"]})
    return Graphs(nodes, edges)


@dataclass(frozen=True)
class Pattern:
    """What all graphs that hold it share: its links (S, S), of which the upper half counts, and its signal (S,)."""

    links: NDArray
    signal: NDArray


def draw_patterns(recipe: BlockModel, rng: np.random.Generator) -> list[Pattern]:
    """The patterns of a data set are the first that its generator draws."""
    patterns = []
    for size in rng.integers(recipe.smallest, recipe.largest + 1, recipe.patterns):
        links = rng.random((size, size)) < recipe.pattern
        signal = rng.integers(SIGNALS, size=size)
        patterns.append(Pattern(links, signal))
    return patterns


def draw(recipe: BlockModel) -> Arrays:
    """All graphs: num_nodes, num_links (B,), signal, label (sum N,), link (sum E, 2) with the lower number first."""
    # 1. The patterns.
    rng = np.random.default_rng(recipe.seed)
    patterns = draw_patterns(recipe, rng)

    # 2. The graphs; the patterns take turns.
    graphs = []
    for _ in range(recipe.train + recipe.valid + recipe.test):
        for pattern in patterns:
            graphs.append(_graph(recipe, rng, pattern))

    # 3. One array a column.
    return {
        "num_nodes": np.array([len(graph["label"]) for graph in graphs], np.int32),
        "num_links": np.array([len(graph["link"]) for graph in graphs], np.int32),
        "signal": np.concatenate([graph["signal"] for graph in graphs]),
        "label": np.concatenate([graph["label"] for graph in graphs]),
        "link": np.concatenate([graph["link"] for graph in graphs]),
    }


def _graph(recipe: BlockModel, rng: np.random.Generator, pattern: Pattern) -> Arrays:
    """Signal, label (N,) and link (E, 2) of one graph, its nodes in a random order."""
    # 1. Sizes of the communities, drawn anew while the graph is too large.
    own = len(pattern.signal)
    count = LARGEST + 1
    while count > LARGEST:
        sizes = rng.integers(recipe.smallest, recipe.largest + 1, recipe.communities)
        count = own + sizes.sum()

    # 2. The block of each node: 0 is the pattern, whose nodes are numbered from 0 to `own` before the shuffle.
    order = rng.permutation(count)
    block = np.repeat(np.arange(recipe.communities + 1), [own, *sizes])[order]

    # 3. Links between all pairs, with the probability of their blocks.
    chance = np.where(np.eye(recipe.communities + 1), recipe.inside, recipe.between).astype(np.float32)
    chance[0, :] = recipe.pattern
    chance[:, 0] = recipe.pattern
    i, j = _pairs(count)
    link = rng.random(len(i), dtype=np.float32) < chance[block[i], block[j]]

    # 4. Those inside the pattern are the pattern's own.
    inside = np.flatnonzero(block[i] + block[j] == 0)
    ends = np.sort([order[i[inside]], order[j[inside]]], 0)
    link[inside] = pattern.links[ends[0], ends[1]]

    # 5. The signal: the pattern's own, and random elsewhere.
    elsewhere = rng.integers(SIGNALS, size=sizes.sum())
    signal = np.concatenate([pattern.signal, elsewhere])[order]
    return {
        "signal": signal.astype(np.uint8),
        "label": (block == 0).astype(np.uint8),
        "link": np.stack([i[link], j[link]], 1).astype(np.uint8),
    }


@cache
def _pairs(n: int) -> tuple[NDArray, NDArray]:
    """All i < j below n."""
    return np.triu_indices(n, 1)
