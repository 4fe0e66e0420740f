"""The parts of the training loop: batches, averages, learning rates, errors against samples."""

from __future__ import annotations

import math

import pytest
import torch

from probsym.experiments.average import Average
from probsym.experiments.batches import Pages, Shuffled, size, stream
from probsym.experiments.evaluation import score
from probsym.experiments.recipe import Recipe


def test_a_pass_sees_every_sample_once_in_a_new_order() -> None:
    batches = Shuffled({"x": torch.arange(12)}, length=4, seed=0)
    passes = [torch.cat([batches[turn * 3 + i]["x"] for i in range(3)]) for turn in range(2)]
    for order in passes:
        assert torch.equal(order.sort().values, torch.arange(12))
    assert not torch.equal(*passes)


def test_a_batch_is_a_function_of_its_step() -> None:
    data = {"x": torch.arange(10)}
    forward, jump = Shuffled(data, 4, seed=1), Shuffled(data, 4, seed=1)
    walked = [forward[step]["x"] for step in range(8)]
    assert torch.equal(walked[7], jump[7]["x"])
    assert not torch.equal(walked[7], Shuffled(data, 4, seed=2)[7]["x"])


def test_ranks_share_a_batch() -> None:
    data = {"x": torch.arange(10)}
    whole = Shuffled(data, 4, seed=1)[3]["x"]
    parts = [Shuffled(data, 4, seed=1, rank=rank, world=2)[3]["x"] for rank in range(2)]
    assert torch.equal(torch.cat(parts).sort().values, whole.sort().values)


def test_pages_hold_everything_in_order() -> None:
    pages = Pages({"x": torch.arange(7)}, 3)
    assert [size(page) for page in pages] == [3, 3, 1]
    assert len(pages) == 3


def test_streams_differ() -> None:
    assert len({stream(seed, what, i) for seed in range(3) for what in ("step", "valid") for i in range(50)}) == 300


def test_average_of_constant_weights_is_those_weights_and_swaps_back() -> None:
    model = torch.nn.Linear(2, 2)
    average = Average(model, 0.9)
    before = model.weight.detach().clone()
    model.weight.data += 1
    average.update()  # d = min(0.9, 1/10)
    average.swap()
    torch.testing.assert_close(model.weight.data, before + 0.9)
    average.swap()
    torch.testing.assert_close(model.weight.data, before + 1)


def test_learning_rate() -> None:
    recipe = Recipe(steps=100, lr=2.0, warmup=10)
    assert recipe.rate(0) == pytest.approx(0.2)
    assert recipe.rate(50) == pytest.approx(1.0)
    assert recipe.rate(100) == pytest.approx(0.0)
    assert Recipe(steps=100, lr=2.0, lr_end=1.0).rate(73) == 2.0


def test_two_standard_errors() -> None:
    """Errors that differ only between inputs have no Monte Carlo error, and the other way round."""
    inputs = score(torch.tensor([[1.0, 3.0], [1.0, 3.0]]), 1)
    assert (inputs.value, inputs.stderr) == (2.0, 0.0)
    assert inputs.stderr_test == pytest.approx(math.sqrt(2) / math.sqrt(2))
    draws = score(torch.tensor([[1.0, 1.0], [3.0, 3.0]]), 1)
    assert (draws.stderr, draws.stderr_test) == (pytest.approx(1.0), 0.0)
