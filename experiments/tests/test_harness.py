"""The parts of the training loop: batches, averages, learning rates, errors against samples."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import torchmetrics
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

import probsym as ps
from probsym_experiments.average import Average
from probsym_experiments.batches import Pages, Shuffled, Tensors, size, stream
from probsym_experiments.cost import counter, training_flops
from probsym_experiments.evaluation import exact_errors, score
from probsym_experiments.models.pair_transformer import PairTransformer
from probsym_experiments.recipe import Recipe, TrainerOptions
from probsym_experiments.training import Problem, fit


def test_a_pass_sees_every_sample_once_in_a_new_order() -> None:
    batches = Shuffled(Tensors({"x": torch.arange(12)}), length=4, seed=0)
    passes = [torch.cat([batches[turn * 3 + i]["x"] for i in range(3)]) for turn in range(2)]
    for order in passes:
        assert torch.equal(order.sort().values, torch.arange(12))
    assert not torch.equal(*passes)


def test_a_batch_is_a_function_of_its_step() -> None:
    data = Tensors({"x": torch.arange(10)})
    forward, jump = Shuffled(data, 4, seed=1), Shuffled(data, 4, seed=1)
    walked = [forward[step]["x"] for step in range(8)]
    assert torch.equal(walked[7], jump[7]["x"])
    assert not torch.equal(walked[7], Shuffled(data, 4, seed=2)[7]["x"])


def test_the_rest_of_a_pass_is_a_short_batch_where_it_is_kept() -> None:
    """Every sample once a pass, with sizes and without; full batches are those of a run that drops the rest."""
    for sizes in (None, torch.randperm(10)):
        data = Tensors({"x": torch.arange(10)}, sizes)
        batches = Shuffled(data, 4, seed=1, keep_rest=True)
        dropping = Shuffled(data, 4, seed=1)
        for turn in range(2):
            found = [batches[3 * turn + i]["x"] for i in range(3)]
            assert [len(batch) for batch in found] == [4, 4, 2]
            assert torch.equal(torch.cat(found).sort().values, torch.arange(10))
            for i in range(2):
                assert torch.equal(found[i], dropping[2 * turn + i]["x"])
    assert Shuffled(Tensors({"x": torch.arange(8)}), 4, seed=1, keep_rest=True).per_pass == 2


def test_ranks_share_a_batch() -> None:
    data = Tensors({"x": torch.arange(10)})
    whole = Shuffled(data, 4, seed=1)[3]["x"]
    parts = [Shuffled(data, 4, seed=1, rank=rank, world=2)[3]["x"] for rank in range(2)]
    assert torch.equal(torch.cat(parts).sort().values, whole.sort().values)


def test_pages_hold_everything_in_order() -> None:
    pages = Pages(Tensors({"x": torch.arange(7)}), 3)
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


def test_cost_of_a_training_is_counted_and_leaves_no_trace() -> None:
    """A linear layer: 2 B I O operations forward and as many for the gradient of its weights; none for the inputs."""
    net = torch.nn.Linear(3, 2, bias=False)
    data = Tensors({"x": torch.randn(20, 3)})
    problem = Problem(net, lambda f, b: f(b["x"]).square().mean(), lambda f, b: f(b["x"]).square().sum(-1), data, data)
    assert training_flops(problem, Recipe(steps=7, batch_size=4)) == 7 * 2 * (2 * 4 * 3 * 2)
    assert net.weight.grad is None


def test_attention_is_counted() -> None:
    """A transformer against its closed form, of its R N N tokens; gradients cost twice the products, inputs have none.

    Alike for the kernel that CPUs choose and for plain matrix products.
    """
    rows, n, features, pair, out, width, layers = 3, 4, 6, 2, 3, 16, 2
    net, tokens = PairTransformer(n, features, pair, out, width, layers, heads=4), n * n
    first = 2 * rows * n * features * width + 2 * rows * tokens * pair * width
    attention = 2 * rows * tokens * tokens * width * 2
    rest = layers * (2 * rows * tokens * 6 * width * width + attention) + 2 * rows * n * width * (width + out)
    inputs = torch.randn(rows, n, features), torch.randn(rows, n, n, pair)
    for kernel in (SDPBackend.FLASH_ATTENTION, SDPBackend.MATH):
        with sdpa_kernel(kernel):
            with counter() as forward:
                loss = net(*inputs).square().sum()
            with counter() as backward:
                loss.backward()
        assert forward.get_total_flops() == first + rest
        assert backward.get_total_flops() == first + 2 * rest


def test_two_standard_errors() -> None:
    """Errors that differ only between inputs have no Monte Carlo error, and the other way round."""
    inputs = score(torch.tensor([[1.0, 3.0]] * 4), 1)
    assert (inputs.value, inputs.stderr) == (2.0, 0.0)
    assert inputs.stderr_test == pytest.approx(1.0)
    draws = score(torch.tensor([[1.0, 1.0], [3.0, 3.0], [5.0, 5.0]]), 1)
    assert (draws.stderr, draws.stderr_test) == (pytest.approx(2 / math.sqrt(3)), 0.0)


def test_one_draw_or_two_are_no_error_bar() -> None:
    """Unless nothing was drawn."""
    for draws in (1, 2):
        rows = torch.rand(draws, 4)
        assert math.isnan(score(rows, 1).stderr)
        assert score(rows, 1, exact=True).stderr == 0.0


class Flat(nn.Linear):
    def __init__(self) -> None:
        super().__init__(15, 1)

    def forward(self, pos: torch.Tensor) -> torch.Tensor:
        return super().forward(pos.flatten(1))


@pytest.mark.parametrize(("symmetric", "error"), [(False, 0.0), (True, math.nan)])
def test_a_canonical_pose_that_was_drawn_has_no_error_of_zero(symmetric: bool, error: float) -> None:
    """One input of four is a line, whose pose about itself is open."""
    space = ps.SO(3, "space")
    clouds = torch.randn(4, 5, 3)
    if symmetric:
        clouds[2] = torch.linspace(-1, 1, 5)[:, None] * torch.randn(3)
    phi = ps.symmetrize(Flat(), {"pos": ps.Rep(ps.Axis("nodes"), space)}, ps.Rep(), "canonical").eval()
    found = exact_errors(phi, {"pos": clouds}, lambda batch: {"pos": batch["pos"]}, lambda y, batch: y[:, 0])
    assert found.stderr == pytest.approx(error, nan_ok=True)


def test_ranks_share_the_pages() -> None:
    data = Tensors({"x": torch.arange(7)})
    parts = [[page["x"] for page in Pages(data, 2, rank, world=2)] for rank in range(2)]
    assert [len(pages) for pages in parts] == [len(Pages(data, 2, rank, 2)) for rank in range(2)]
    assert torch.equal(torch.cat([torch.cat(pages) for pages in parts]).sort().values, torch.arange(7))


def test_batches_of_like_size() -> None:
    """Every sample once a pass, sizes within a batch close together, and batches in no order of size."""
    sizes = torch.randperm(100)
    batches = Shuffled(Tensors({"x": sizes}, sizes), length=5, seed=0)
    found = [batches[step]["x"] for step in range(20)]
    assert torch.equal(torch.cat(found).sort().values, torch.arange(100))
    assert all(int(x.max() - x.min()) == 4 for x in found)
    assert not torch.equal(torch.stack(found)[:, 0].sort().values, torch.stack(found)[:, 0])


def test_linear_schedule_starts_where_the_warm_up_ends() -> None:
    recipe = Recipe(steps=110, lr=2.0, warmup=10, schedule="linear")
    assert [recipe.rate(step) for step in (0, 4, 9, 10, 60, 110)] == pytest.approx([0.2, 1.0, 2.0, 2.0, 1.0, 0.0])


class Recall(torchmetrics.Metric):
    """Share of ones among what it was given: higher is better."""

    higher_is_better = True

    def __init__(self) -> None:
        super().__init__()
        self.add_state("values", [], dist_reduce_fx="cat")

    def update(self, values: torch.Tensor) -> None:
        self.values.append(values)

    def compute(self) -> torch.Tensor:
        return torch.cat(self.values).mean()


def test_groups_have_rates_of_their_own_and_a_metric_may_grow(tmp_path: Path) -> None:
    """One step of a linear model: each weight moves by its own rate, and the best validation is the largest one."""
    model = torch.nn.ParameterDict({"a": torch.zeros(()), "b": torch.zeros(())})
    data = Tensors({"x": torch.ones(4)})
    problem = Problem(
        model,
        lambda model, batch: -(model["a"] + model["b"]) * batch["x"].mean(),
        lambda model, batch: batch["x"] * model["b"],
        data,
        data,
        metric=Recall,
        groups=lambda: [{"params": [model["a"]], "lr": 0.1}, {"params": [model["b"]], "lr": 0.01}],
    )
    options = TrainerOptions(accelerator="cpu", progress=False)
    recipe = Recipe(steps=4, lr=1.0, lr_end=1.0, validate_every=1, batch_size=4, clip=0.0, trainer=options)
    progress = fit(problem, recipe, tmp_path)
    assert model["a"].item() == pytest.approx(0.4)
    assert model["b"].item() == pytest.approx(0.04)
    assert progress.best == pytest.approx(0.04)
    assert [row["valid"] for row in progress.history] == pytest.approx([0.01, 0.02, 0.03, 0.04])


@pytest.mark.parametrize(
    ("first", "steps", "expected"), [(0, 7, [3, 6, 7]), (1, 7, [1, 4, 7]), (5, 7, [5, 7]), (9, 7, [7]), (3, 3, [3])]
)
def test_the_first_validation_may_come_at_another_step(
    tmp_path: Path, first: int, steps: int, expected: list[int]
) -> None:
    """It is then as far from the next as any other, and the last step is followed by one."""
    model = torch.nn.ParameterDict({"a": torch.zeros(())})
    data = Tensors({"x": torch.ones(4)})
    problem = Problem(
        model,
        lambda model, batch: (model["a"] - batch["x"]).square().mean(),
        lambda model, batch: (model["a"] - batch["x"]).square(),
        data,
        data,
    )
    options = TrainerOptions(accelerator="cpu", progress=False)
    recipe = Recipe(steps=steps, validate_every=3, validate_first=first, batch_size=4, trainer=options)
    progress = fit(problem, recipe, tmp_path)
    assert [row["step"] for row in progress.history] == expected
    assert progress.steps == steps


@pytest.mark.parametrize("clip", [0.0, 1e-2])
def test_half_precision_learns_what_single_precision_does(tmp_path: Path, clip: float) -> None:
    """Products in bfloat16, weights and their updates in float32, with and without clipping."""
    x = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    data, ends = Tensors({"x": x}), []
    for precision in ("32-true", "bf16-mixed"):
        torch.manual_seed(0)
        net = torch.nn.Linear(4, 1)
        problem = Problem(
            net,
            lambda f, b: (f(b["x"]).float() - b["x"].sum(-1, keepdim=True)).square().mean(),
            lambda f, b: (f(b["x"]).float() - b["x"].sum(-1, keepdim=True)).square()[:, 0],
            data,
            data,
        )
        options = TrainerOptions(accelerator="cpu", progress=False, precision=precision)
        recipe = Recipe(steps=40, lr=0.15, validate_every=20, batch_size=16, clip=clip, trainer=options)
        assert fit(problem, recipe, tmp_path / precision).best < 0.2
        assert net.weight.dtype == torch.float32
        ends.append(net.weight.detach().clone())
    torch.testing.assert_close(*ends, rtol=0, atol=0.02)
