"""How well can PATTERN be solved by a model that knows how its graphs are made, but not the 100 patterns?

    python experiments/scripts/pattern_limit.py --out FILE      some minutes of one core; a file that exists is kept
    python experiments/scripts/pattern_limit.py --quick         to see that it works

Nodes are classified by the posterior probability that they belong to the pattern. It follows from the block model with
its true parameters, by Gibbs sampling. Half of the chains start from the true pattern, half from random blocks: they
must agree. Nothing is trained: no model that has not learned the patterns themselves can be expected to be
right more often. The second table says what there is to learn: with the pattern of a graph known, in how many places of
the graph it fits, and what follows from that where it is one.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probsym.files import write
from probsym_experiments.cli import data_folder
from probsym_experiments.runner import commit
from probsym_experiments.tasks.block_model import BlockModel, Pattern, draw_patterns, load
from probsym_experiments.tasks.storage import Graphs

PARTS = ("valid", "test")
SELECTED = 500  # validation graphs, the first ones, that the training of walk-transformer-ga looked at
CHAINS = 8  # of each graph, half from each start
FIRST, SWEEPS = 5, 25  # sweeps that are thrown away, and that are averaged
TOGETHER = 125  # graphs whose chains are updated at once
MATCHED = 100  # test graphs, the first ones, which hold every pattern once


# ---------------------------------------------------------------- the posterior of the blocks


def gibbs(
    recipe: BlockModel, links: NDArray, block: NDArray, first: int, sweeps: int, rng: np.random.Generator
) -> NDArray:
    """The posterior probability that a node belongs to the pattern, by each chain (M, N); signals say nothing about it.

    Sizes of blocks are uniform and the order of nodes is random. So blocks z with counts n_0 (pattern), n_1, ... have

        p(z)            in proportion to    prod_k n_k!    if every n_k is an allowed size, else 0
        p(links | z)    in proportion to    prod over pairs in the pattern's links or inside a community
                                            of p(link | same) / p(link | different communities)

    and the sizes need not be drawn. What is averaged is the probability of the pattern given all other nodes.

    Args:
        links: Symmetric, of graphs from the largest to the smallest (B, N, N).
        block: Where chains start: 0 is the pattern, -1 stands behind the last node of a graph (M, N). M is a multiple
            of B; chain m is of graph m // (M / B).
        first, sweeps: Updates of every node before averaging, and averaged.
    """
    chains, count = block.shape
    blocks = recipe.communities + 1
    nodes = (block >= 0).sum(1)
    assert (np.diff(nodes) <= 0).all()
    graph = np.repeat(np.arange(len(links)), chains // len(links))
    links = links.astype(np.int16)

    # 1. What a link and no link say for "same community" and for "one is in the pattern", against "neither". In single
    #    precision, as all that follows: half of the time.
    link_inside = np.float32(np.log(recipe.inside / recipe.between))
    none_inside = np.float32(np.log((1 - recipe.inside) / (1 - recipe.between)))
    link_pattern = np.float32(np.log(recipe.pattern / recipe.between))
    none_pattern = np.float32(np.log((1 - recipe.pattern) / (1 - recipe.between)))

    # 2. Nodes of each block (M, K), and the links of each node with each block (M, K, N).
    block = block.copy()
    member = block[:, None, :] == np.arange(blocks)[:, None]
    all_sizes = member.sum(-1, dtype=np.int16)
    of_graphs = member.reshape(len(links), -1, count).astype(np.float32)
    degree = (of_graphs @ links.astype(np.float32)).astype(np.int16).reshape(chains, blocks, count)

    total = np.zeros((chains, count))
    for sweep in range(first + sweeps):
        for i in range(count):
            # 3. Node i is taken out of its block, in the chains that have it: those of the larger graphs come first.
            chain = np.arange((nodes > i).sum())
            sizes = all_sizes[: len(chain)]
            old = block[: len(chain), i].copy()
            sizes[chain, old] -= 1

            # 4. How likely each block is for it, given all other nodes.
            linked = degree[: len(chain), :, i]
            unlinked = sizes - linked
            for_pattern = linked * link_pattern + unlinked * none_pattern
            score = linked * link_inside + unlinked * none_inside + for_pattern[:, :1]
            score[:, 0] = for_pattern.sum(1)
            score += np.log(sizes + 1)
            score[sizes >= recipe.largest] = -np.inf
            stays = sizes[chain, old] < recipe.smallest
            score[stays] = -np.inf
            score[stays, old[stays]] = 0
            odds = np.exp(score - score.max(1, keepdims=True))
            upto = odds.cumsum(1)
            if sweep >= first:
                total[: len(chain), i] += odds[:, 0] / upto[:, -1]

            # 5. Its new block, and what changes by that. The largest number that is drawn still is below the sum.
            drawn = rng.random(len(chain)) * upto[:, -1]
            new = (drawn[:, None] >= upto).sum(1)
            sizes[chain, new] += 1
            block[: len(chain), i] = new
            moved = np.flatnonzero(new != old)
            row = links[graph[moved], i]
            degree[moved, old[moved]] -= row
            degree[moved, new[moved]] += row
    return total / sweeps


def starts(pattern: NDArray, recipe: BlockModel, chains: int, rng: np.random.Generator) -> NDArray:
    """Blocks (chains, N) of a graph with a known pattern (N,): half of the chains have its pattern.

    All else is random: communities, and in the other half the pattern as well, with equal sizes.
    """
    count = len(pattern)
    found = np.zeros((chains, count), int)
    rest = np.flatnonzero(~pattern)
    for chain in range(chains // 2):
        found[chain, rng.permutation(rest)] = 1 + np.arange(len(rest)) % recipe.communities
    for chain in range(chains // 2, chains):
        found[chain, rng.permutation(count)] = np.arange(count) % (recipe.communities + 1)
    return found


@dataclass(frozen=True)
class Posterior:
    """Of the nodes of a part of the data, one after the other: probabilities by start (2, sum N)."""

    pattern: NDArray  # whether a node belongs to it (sum N,)
    graph: NDArray
    probability: NDArray


def posterior(graphs: Graphs, recipe: BlockModel, first: int, sweeps: int, seed: int) -> Posterior:
    """By the chains that start from the pattern, and by the others."""
    rng = np.random.default_rng(seed)
    pattern = graphs.nodes.columns["label"] > 0
    probability = np.zeros((2, len(pattern)))
    by_size = np.argsort(-graphs.sizes, kind="stable")
    for several in range(0, len(graphs), TOGETHER):
        # 1. Some graphs of similar sizes.
        chosen = by_size[several : several + TOGETHER]
        count = graphs.sizes[chosen[0]]
        links = np.zeros((len(chosen), count, count), bool)
        block = np.full((len(chosen), CHAINS, count), -1)
        for row, number in enumerate(chosen):
            size = graphs.sizes[number]
            nodes = slice(graphs.nodes.starts[number], graphs.nodes.starts[number] + size)
            links[row, :size, :size] = adjacency(graphs, number)
            block[row, :, :size] = starts(pattern[nodes], recipe, CHAINS, rng)

        # 2. The mean of their chains from each start.
        found = gibbs(recipe, links, block.reshape(-1, count), first, sweeps, rng)
        by_start = found.reshape(len(chosen), 2, CHAINS // 2, count).mean(2)
        for row, number in enumerate(chosen):
            size = graphs.sizes[number]
            nodes = slice(graphs.nodes.starts[number], graphs.nodes.starts[number] + size)
            probability[:, nodes] = by_start[row, :, :size]
    return Posterior(pattern, graphs.nodes.graph, probability)


def adjacency(graphs: Graphs, number: int) -> NDArray:
    """Links of one graph (N, N)."""
    first = graphs.edges.starts[number]
    i, j = graphs.edges.columns["index"][first : first + graphs.edges.counts[number]].T.astype(int)
    links = np.zeros((graphs.sizes[number],) * 2, bool)
    links[i, j] = True
    links[j, i] = True
    return links


# ---------------------------------------------------------------- accuracy


def accuracy(right: NDArray, pattern: NDArray, graph: NDArray, seed: int) -> tuple[float, float]:
    """Mean recall of the two classes, and its standard error over graphs by a bootstrap."""
    # 1. Right nodes and all nodes of each class, by graph (B, 2).
    _, graph = np.unique(graph, return_inverse=True)
    hits = []
    nodes = []
    for of_class in (pattern, ~pattern):
        hits.append(np.bincount(graph, right & of_class))
        nodes.append(np.bincount(graph, of_class))
    hit = np.stack(hits, 1)
    all_of = np.stack(nodes, 1)

    # 2. Of all graphs, and of graphs drawn anew.
    value = (hit.sum(0) / all_of.sum(0)).mean()
    rng = np.random.default_rng(seed)
    again = []
    for _ in range(500):
        drawn = rng.integers(len(hit), size=len(hit))
        again.append((hit[drawn].sum(0) / all_of[drawn].sum(0)).mean())
    return float(value), float(np.std(again))


def expected(probability: NDArray, decided: NDArray) -> float:
    """Mean recall of the two classes if the probabilities are right, from themselves: labels play no part."""
    in_pattern = (probability * decided).sum() / probability.sum()
    elsewhere = ((1 - probability) * ~decided).sum() / (1 - probability).sum()
    return float((in_pattern + elsewhere) / 2)


# ---------------------------------------------------------------- with the pattern known


def places(links: NDArray, signal: NDArray, pattern: Pattern) -> NDArray:
    """Where a pattern fits in a graph, links, missing links and signals alike: node of each of its nodes (P, S)."""
    # 1. Bit j of row i: whether j is linked to i, and whether it is not and is another node.
    others = ~np.eye(len(links), dtype=bool)
    agree = np.packbits(np.stack([~links & others, links]), axis=-1)
    inside = np.triu(pattern.links, 1)
    inside = (inside | inside.T).astype(int)

    # 2. One node of the pattern after the other: all continuations of what fits so far.
    fits = np.zeros((1, 0), int)
    for following in range(len(inside)):
        open_to = np.packbits(signal == pattern.signal[following])
        open_to = np.broadcast_to(open_to, (len(fits), len(open_to))).copy()
        for placed in range(following):
            open_to &= agree[inside[placed, following], fits[:, placed]]
        which, node = np.divmod(np.flatnonzero(np.unpackbits(open_to, axis=-1, count=len(links))), len(links))
        fits = np.concatenate([fits[which], node[:, None]], 1)
    return fits


# ---------------------------------------------------------------- report


def shown(value: float, error: float) -> str:
    return f"{value:.4f} +- {error:.4f}"


def without_patterns(parts: dict[str, Graphs], found: dict[str, Posterior], ratio: float) -> dict[str, Any]:
    """The first table: balanced accuracy by the posterior."""
    rows = []
    for part, first in (("valid", SELECTED), ("valid", None), ("test", None)):
        graphs = parts[part].take(slice(0, first))
        nodes = slice(0, len(graphs.nodes.graph))
        pattern = found[part].pattern[nodes]
        graph = found[part].graph[nodes]
        by_start = found[part].probability[:, nodes]
        cells = [part, str(len(graphs))]
        for probability in (by_start.mean(0), *by_start):
            # Recall counts every class alike, so a node is in the pattern if that is likelier than it is on average.
            decided = probability > ratio
            cells.append(shown(*accuracy(decided == pattern, pattern, graph, 0)))
        mean = by_start.mean(0)
        cells.append(f"{expected(mean, mean > ratio):.4f}")
        cells.append(f"{np.sqrt(np.square(by_start[0] - by_start[1]).mean()):.3f}")
        rows.append(cells)
    columns = ["part", "graphs", "all chains", "from the pattern", "from random blocks", "expected", "starts differ by"]
    return {"title": "Accuracy, classes alike, without knowledge of the patterns", "columns": columns, "rows": rows}


def with_patterns(recipe: BlockModel, test: Graphs, found: Posterior, ratio: float, count: int) -> dict[str, Any]:
    """The second table: in how many places the known pattern of a graph fits, by the size of the pattern."""
    # 1. Decided by the place if there is one, else without the pattern.
    patterns = draw_patterns(recipe, np.random.default_rng(recipe.seed))
    probability = found.probability.mean(0)
    decided = probability > ratio
    known = decided.copy()
    fits = np.zeros(count, int)
    for number in range(count):
        first = test.nodes.starts[number]
        nodes = slice(first, first + test.sizes[number])
        signal = test.nodes.columns["x"][nodes, 0]
        where = places(adjacency(test, number), signal, patterns[number % len(patterns)])
        fits[number] = len(where)
        if len(where) == 1:
            known[nodes] = False
            known[first + where[0]] = True

    # 2. By size; the patterns take turns.
    sizes = np.array([len(pattern.signal) for pattern in patterns])[np.arange(count) % len(patterns)]
    rows = []
    for smallest, largest in ((recipe.smallest, 12), (13, recipe.largest), (recipe.smallest, recipe.largest)):
        chosen = (smallest <= sizes) & (sizes <= largest)
        nodes = np.isin(found.graph, np.flatnonzero(chosen))
        cells = [f"{smallest} to {largest}", str(chosen.sum()), str((fits[chosen] == 1).sum())]
        for decision in (decided, known):
            right = decision[nodes] == found.pattern[nodes]
            cells.append(shown(*accuracy(right, found.pattern[nodes], found.graph[nodes], 0)))
        rows.append(cells)
    columns = ["nodes of the pattern", "test graphs", "of them with one place", "without", "with the pattern known"]
    return {"title": "Accuracy, classes alike, with the pattern of a graph known", "columns": columns, "rows": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--data", type=Path, help="data folder, as for probsym run")
    parser.add_argument("--out", type=Path, help="results as JSON")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.out and options.out.exists():
        parser.error(f"--out {options.out}: exists already")
    first: int = FIRST
    sweeps: int = SWEEPS
    taken = slice(None)
    if options.quick:
        first = 2
        sweeps = 4
        taken = slice(0, 20)
    started = time.process_time()

    # 1. The data, and the share of the pattern among the nodes that a model is trained with.
    recipe = BlockModel()
    data = load(recipe, options.data or data_folder())
    ratio = float(data["train"].nodes.columns["label"].mean())
    parts = {part: data[part].take(taken) for part in PARTS}

    # 2. Posteriors.
    found = {}
    for part in PARTS:
        found[part] = posterior(parts[part], recipe, first, sweeps, options.seed)

    # 3. Tables.
    matched = min(MATCHED, len(parts["test"]))
    kept = [
        without_patterns(parts, found, ratio),
        with_patterns(recipe, parts["test"], found["test"], ratio, matched),
    ]
    for table in kept:
        print(table["title"])
        for row in [table["columns"], *table["rows"]]:
            print(" | ".join(row))
    if options.out:
        seconds = time.process_time() - started
        code = commit() or "unknown"
        content = {
            "command": "python experiments/scripts/pattern_limit.py",
            "source": f"commit {code[:7]}, seed {options.seed}, {seconds:.0f} seconds of a core",
            "commit": code,
            "date": time.strftime("%Y-%m-%d %H:%M"),
            "cpu_seconds": seconds,
            "settings": {
                "seed": options.seed,
                "chains": CHAINS,
                "first": first,
                "sweeps": sweeps,
                "pattern_share": ratio,
            },
            "tables": kept,
        }
        write(options.out, json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
