"""The limit of PATTERN without the patterns: its sampler has the posterior, its search finds all places."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from probsym_experiments.tasks.block_model import BlockModel, Pattern, assemble, draw, draw_patterns

# Probabilities all different, and blocks so small that both limits of their sizes count.
FEW = BlockModel(communities=2, smallest=1, largest=3, inside=0.7, between=0.2, pattern=0.55)


@pytest.fixture(autouse=True)
def _importable(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "scripts"))


def random_graph(size: int, rng: np.random.Generator) -> np.ndarray:
    links = np.triu(rng.random((size, size)) < 0.45, 1)
    return links | links.T


def enumerated(recipe: BlockModel, links: np.ndarray) -> np.ndarray:
    """Posterior of the pattern, from all blocks of all nodes; sizes and the order of nodes as they are drawn."""
    size = len(links)
    blocks = recipe.communities + 1
    total = np.zeros(size)
    whole = 0.0
    for block in itertools.product(range(blocks), repeat=size):
        # Sizes are drawn first, then one of the orders that are different.
        counts = np.bincount(block, minlength=blocks)
        if counts.min() < recipe.smallest or counts.max() > recipe.largest:
            continue
        orders = np.prod(np.arange(1, size + 1))
        for count in counts:
            orders = orders / np.prod(np.arange(1, count + 1))
        probability = 1 / orders
        for i, j in itertools.combinations(range(size), 2):
            chance = recipe.between
            if block[i] == block[j]:
                chance = recipe.inside
            if block[i] == 0 or block[j] == 0:
                chance = recipe.pattern
            if not links[i, j]:
                chance = 1 - chance
            probability *= chance
        whole += probability
        total += probability * (np.array(block) == 0)
    return total / whole


def test_sampler_has_the_posterior():
    """Two graphs at once, both starts, against all labelings; 13 comparisons at seven standard errors of 200 chains."""
    from pattern_limit import gibbs, starts

    rng = np.random.default_rng(0)
    links = np.zeros((2, 7, 7), bool)
    block = np.full((2, 400, 7), -1)
    for graph, size in enumerate((7, 6)):
        links[graph, :size, :size] = random_graph(size, rng)
        pattern = np.arange(size) < 3
        block[graph, :, :size] = starts(pattern, FEW, 400, rng)
    found = gibbs(FEW, links, block.reshape(800, 7), 20, 100, rng).reshape(2, 2, 200, 7)
    for graph, size in enumerate((7, 6)):
        of_graph = links[graph, :size, :size]
        exact = enumerated(FEW, of_graph)
        assert np.ptp(exact) > 0.1
        for of_start in found[graph, :, :, :size]:
            error = of_start.std(0) / np.sqrt(len(of_start))
            assert error.max() < 0.01
            assert (np.abs(of_start.mean(0) - exact) < 7 * error).all()

        # Negative control: with links of other probabilities the posterior is another one.
        other = enumerated(BlockModel(communities=2, smallest=1, largest=3), of_graph)
        assert (np.abs(of_start.mean(0) - other) > 7 * error).any()


def test_pattern_is_found_where_it_lies():
    """All graphs of a small data set hold their pattern, and a brute search agrees on the number of places."""
    from pattern_limit import adjacency, places

    recipe = BlockModel(patterns=3, train=2, valid=1, test=1, communities=2, smallest=4, largest=8)
    graphs = assemble(draw(recipe))
    patterns = draw_patterns(recipe, np.random.default_rng(recipe.seed))
    for number in range(len(graphs)):
        first = graphs.nodes.starts[number]
        nodes = slice(first, first + graphs.sizes[number])
        where = places(adjacency(graphs, number), graphs.nodes.columns["x"][nodes, 0], patterns[number % 3])
        true = set(np.flatnonzero(graphs.nodes.columns["label"][nodes]).tolist())
        assert any(set(place.tolist()) == true for place in where)


def test_places_are_all_places():
    from pattern_limit import places

    rng = np.random.default_rng(1)
    links = random_graph(9, rng)
    signal = rng.integers(2, size=9)
    pattern = Pattern(np.array([[1, 1, 0], [0, 1, 1], [1, 1, 1]], bool), np.array([0, 1, 0]))
    expected = []
    for a, b, c in itertools.permutations(range(9), 3):
        linked = (links[a, b], links[a, c], links[b, c])
        if linked == (True, False, True) and (signal[a], signal[b], signal[c]) == (0, 1, 0):
            expected.append((a, b, c))
    assert expected
    assert sorted(map(tuple, places(links, signal, pattern).tolist())) == expected


def test_accuracy_counts_classes_alike():
    from pattern_limit import accuracy, expected

    pattern = np.array([True, False, False, False, True, False])
    right = np.array([True, True, True, False, False, True])
    value, error = accuracy(right, pattern, np.array([0, 0, 0, 1, 1, 1]), 0)
    assert value == pytest.approx((1 / 2 + 3 / 4) / 2)
    assert error > 0
    # A decision by probabilities that are certain is right.
    assert expected(pattern.astype(float), pattern) == 1
