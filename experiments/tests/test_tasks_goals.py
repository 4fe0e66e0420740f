"""What is asked: losses as means over graphs, metrics of a whole set against torchmetrics, ranks one by one."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy
from torchmetrics.functional.classification import multiclass_accuracy, multilabel_average_precision
from torchmetrics.functional.regression import mean_absolute_error
from torchmetrics.functional.retrieval import retrieval_hit_rate, retrieval_reciprocal_rank

from probsym_experiments.tasks.block_model import BlockModel, assemble, draw
from probsym_experiments.tasks.collate import Channels, Packed, Padded
from probsym_experiments.tasks.goals import HITS, Labels, Links, NodeClasses, Numbers, Whole
from probsym_experiments.tasks.judging import Judge
from probsym_experiments.tasks.ranking import ranks

CHANNELS = Channels((3,))


@pytest.fixture(scope="module")
def graphs():
    return assemble(draw(BlockModel(patterns=4, train=3, valid=1, test=1)))


def test_recalls_of_a_whole_set_are_those_of_torchmetrics(graphs) -> None:
    """Padded in two batches, and packed in one: the mean recall over all nodes, not a mean over batches."""
    goal, found, logits, labels = NodeClasses(2), [], [], []
    whole = Whole(goal)
    for index in (slice(0, 7), slice(7, 20)):
        batch = Padded(CHANNELS)(graphs.take(index))
        y = torch.randn(*batch["mask"].shape, 2)
        found.append(goal.rows(y[None], batch)[0])
        whole.update(found[-1])
        logits.append(y[batch["mask"]])
        labels.append(batch["label"][batch["mask"]])
    wanted = multiclass_accuracy(torch.cat(logits), torch.cat(labels), 2, average="macro")
    torch.testing.assert_close(goal.total(torch.cat(found)).float(), wanted)
    torch.testing.assert_close(whole.compute().float(), wanted)
    packed = Packed(CHANNELS)(graphs)
    torch.testing.assert_close(goal.rows(torch.cat(logits)[None], packed)[0], torch.cat(found))


def test_the_loss_of_nodes_weighs_classes_alike(graphs) -> None:
    """The mean over all graphs is the weighted cross-entropy of all nodes, padded or packed."""
    goal = NodeClasses(2).fit(graphs)
    batch, packed = Padded(CHANNELS)(graphs), Packed(CHANNELS)(graphs)
    y = torch.randn(*batch["mask"].shape, 2)
    flat, label = y[batch["mask"]], packed["label"]
    weights = 1 / torch.bincount(label).float()
    wanted = cross_entropy(flat, label, weights)
    torch.testing.assert_close(goal.losses(y, batch).mean(), wanted)
    torch.testing.assert_close(goal.losses(flat, packed).mean(), wanted)
    assert goal.losses(y, batch).shape == (20,)


def test_average_precision_is_that_of_torchmetrics() -> None:
    goal, y, target = Labels(10), 5 * torch.randn(50, 10), torch.randint(2, (50, 10))
    rows = goal.rows(y[None], {"target": target.float()})[0]
    wanted = multilabel_average_precision(y.sigmoid(), target, 10, average="macro")
    torch.testing.assert_close(goal.total(rows).float(), wanted)
    assert np.mean(list(goal.details(rows).values())) == pytest.approx(float(wanted))


def test_small_logits_are_not_taken_for_probabilities() -> None:
    """torchmetrics applies a sigmoid only if some value lies outside [0, 1]; order must not depend on it."""
    goal, target = Labels(2), torch.tensor([[1.0], [0.0], [1.0]]).expand(3, 2)
    y = torch.tensor([[0.9], [0.5], [0.1]]).expand(3, 2)
    one, other = (goal.total(goal.rows(x[None], {"target": target})[0]) for x in (y, 100 * y - 50))
    assert one == other == pytest.approx((1 + 2 / 3) / 2)


def test_absolute_error_is_that_of_torchmetrics() -> None:
    goal, y, target = Numbers(3), torch.randn(2, 5, 3), torch.randn(5, 3)
    assert goal.total(goal.rows(y, {"target": target})[1]) == pytest.approx(float(mean_absolute_error(y[1], target)))
    assert not goal.higher


def test_ranks_are_those_of_torchmetrics() -> None:
    """Every true pair as a query of its own, its rivals by hand; scores without ties."""
    y, mask = torch.randn(3, 12, 12), torch.arange(12) < torch.tensor([[12], [7], [4]])
    pair = torch.tensor([[0, 1, 5], [0, 1, 8], [0, 3, 3], [1, 0, 6], [1, 2, 1], [2, 3, 0]])
    every = {tuple(p) for p in pair.tolist()}
    for which, found in enumerate(ranks(y, mask, pair)):
        for rank, (g, i, j) in zip(found, pair.tolist(), strict=True):
            rivals = [k for k in range(int(mask[g].sum())) if k != j]
            if which:
                rivals = [k for k in rivals if (g, i, k) not in every]
            if which == 2:
                rivals = [k for k in rivals if k != i]
            scores = y[g, i, [j, *rivals]].sigmoid()  # torchmetrics wants positive numbers
            true = torch.arange(len(scores)) == 0
            assert 1 / rank == pytest.approx(float(retrieval_reciprocal_rank(scores, true)))
            for k in HITS:
                assert float(rank <= k) == float(retrieval_hit_rate(scores, true, top_k=min(k, len(scores))))


def test_a_constant_score_ranks_in_the_middle() -> None:
    (raw, _, _) = ranks(torch.zeros(1, 9, 9), torch.ones(1, 9, dtype=torch.bool), torch.tensor([[0, 2, 3]]))
    assert raw.tolist() == [5.0]


def test_ranks_are_averaged_within_graphs_first() -> None:
    """A graph with two pairs of rank 1 and 2, one with a pair of rank 4, one without any."""
    y = torch.zeros(3, 5, 5)
    y[0, 0], y[1, 0] = torch.tensor([0, 5.0, 3, 4, 1]), torch.tensor([0, 1.0, 4, 3, 2])
    pair = torch.tensor([[0, 0, 1], [0, 0, 3], [1, 0, 1], [1, 0, 4]])
    batch = {"mask": torch.ones(3, 5, dtype=torch.bool), "pair": pair, "label": torch.tensor([1, 1, 1, 0])}
    goal = Links()
    rows = goal.rows(y[None, ..., None], batch)[0]
    assert goal.total(rows) == pytest.approx(((1 + 1 / 2) / 2 + 1 / 4 + 0) / 3)
    assert goal.details(rows)["raw_hits3"] == pytest.approx(1 / 3)
    assert goal.details(rows)["filtered_mrr"] == pytest.approx((1 + 1 / 4 + 0) / 3)


def test_the_loss_of_pairs_is_a_mean_over_each_graph() -> None:
    y = torch.randn(2, 3, 3, 1)
    batch = {"pair": torch.tensor([[0, 0, 1], [0, 1, 2], [1, 2, 2]]), "label": torch.tensor([1, 0, 1])}
    error = torch.nn.functional.binary_cross_entropy_with_logits
    first = error(y[0, [0, 1], [1, 2], 0], torch.tensor([1.0, 0.0]))
    second = error(y[1, 2, 2, 0], torch.tensor(1.0))
    torch.testing.assert_close(Links().losses(y, batch), torch.stack([first, second]))


def test_the_two_standard_errors_of_a_set_metric() -> None:
    """Draws that agree have no Monte Carlo error; the bootstrap's error of a mean is that of its formula."""
    judge = Judge(Numbers(1), rows=1, repeats=1, resamples=2000, seed=0)
    errors = torch.rand(400, 1)
    score = judge.score(torch.stack([errors] * 4), 5)
    assert (score.samples, score.draws, score.stderr) == (5, 4, 0.0)
    assert score.value == pytest.approx(float(errors.mean()))
    assert score.stderr_test == pytest.approx(float(errors.std()) / 20, rel=0.12)  # five standard errors of a deviation
    assert judge.score(torch.stack([errors, errors + 1, errors + 2]), 5).stderr == pytest.approx(1 / 3**0.5)
    assert math.isnan(judge.score(torch.stack([errors, errors + 1]), 5).stderr)  # two draws are no error bar
