"""Train a symmetrized network on a task, and measure it: what the tasks have in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric

import probsym as ps

from ..batches import Batch
from ..cost import training_flops
from ..errors import UserError
from ..evaluation import add_entropy, equivariance, parameters, trained
from ..figures import learning_curve
from ..methods import PAPER
from ..outcome import Outcome, Place
from ..published import published
from ..training import Problem, fit
from .bases import BASES, kind
from .build import arguments, build, groups
from .collate import Channels, Collated
from .config import Config
from .goals import Goal, Whole
from .judging import Judge
from .task import Task

CHECKED = 4  # graphs on which the trained model's equivariance is tested


def learn(task: Task, config: Config, place: Place) -> Outcome:
    """Trains and tests one model; the figure shows the metric of the validation set while training."""
    # 1. Data, goal and model.
    check(task, config)
    parts = task.parts(place.data, config.counts, config.walks, by_size=not config.published)
    goal = task.goal.fit(parts["train"])
    if config.published:
        goal = goal.of_batches()
    on_diagonal = config.published and kind(task) == 1  # there nodes are read and written on the diagonal of the image
    channels = Channels(task.node_classes, task.edge_classes, config.walks, config.published, on_diagonal)
    collate = BASES[config.base].layout.collate(channels)
    data = {part: Collated(graphs, collate) for part, graphs in parts.items()}
    torch.manual_seed(config.seed)
    phi = build(config, task, channels, data["train"][slice(0, 2)])

    # 2. Train.
    random = PAPER[config.symmetrizer].random
    valid_samples = 1
    if random:
        valid_samples = config.valid_samples
    page = max(1, config.rows // valid_samples)
    judge_by: Rows | Losses = Rows(goal)
    metric: Callable[[], Metric] = partial(Whole, goal)
    if config.select == "loss":
        judge_by = Losses(goal, config.published)
        metric = partial(MeanMetric, nan_strategy="disable")  # a NaN is told, not skipped
    judge_with: Callable[[nn.Module, Batch], Tensor] = judge_by
    if config.published:
        page = config.batch_size
        judge_with = InSinglePrecision(judge_by)
    problem = Problem(
        phi,
        Loss(goal, config.entropy_weight),
        judge_with,
        data["train"],
        data["valid"],
        metric=metric,
        groups=lambda: groups(config, phi),
        page=page,
    )
    cost = training_flops(problem, config)
    progress = fit(problem, config, place.out, place.resume)
    ps.save(phi, place.out / "model", overwrite=True)
    lines = [row for row in published(task.name) if row.figure]
    learning_curve(progress.history, place.out / "learning_curve.png", goal.name, lines)

    # 3. Test.
    judge = Judge(goal, config.rows, config.repeats, config.bootstrap, config.seed)
    if random:
        scores, rows = judge.by_samples(phi, data["test"], config.eval_samples)
    else:
        scores, rows = judge.exact(phi, data["test"])
    few = arguments(data["test"][slice(0, CHECKED)])
    details: dict[str, Any] = {
        "train_s": round(progress.seconds, 1),
        "graphs": {part: len(graphs) for part, graphs in parts.items()},
        "equivariance": equivariance(phi, few, 32, config.seed),
    }
    by_part = goal.details(rows)
    if by_part:
        details["by_part"] = by_part
    return trained(scores, config.samples, config, progress, cost, parameters(phi), details)


def check(task: Task, config: Config) -> None:
    """Raises UserError for a base that cannot give what the task asks, and for patches larger than its graphs."""
    if kind(task) not in BASES[config.base].kinds:
        able = [name for name, base in BASES.items() if kind(task) in base.kinds]
        raise UserError(f"base: expected one of {', '.join(able)} for {task.name}; got {config.base!r}")
    if config.patch is not None and config.patch > task.max_nodes:
        raise UserError(f"patch: expected at most {task.max_nodes} for {task.name}; got {config.patch}")


@dataclass(frozen=True)
class Loss:
    """Mean loss of a batch's graphs, plus the weighted entropy of the soft permutations (appendix A.1)."""

    goal: Goal
    entropy_weight: float

    def __call__(self, phi: nn.Module, batch: Batch) -> Tensor:
        if not self.entropy_weight:
            return self.goal.losses(phi(**arguments(batch)), batch).mean()
        estimate = phi(**arguments(batch), return_estimate=True)
        return add_entropy(self.goal.losses(estimate.mean, batch).mean(), estimate, self.entropy_weight)


@dataclass(frozen=True)
class Losses:
    """The loss of each graph of a batch (B,), or its mean: batches then count alike, however many graphs they have."""

    goal: Goal
    by_batch: bool = False

    def __call__(self, phi: nn.Module, batch: Batch) -> Tensor:
        losses = self.goal.losses(phi(**arguments(batch)), batch)
        if self.by_batch:
            return losses.mean()
        return losses


@dataclass(frozen=True)
class Rows:
    """What the metric needs of each graph of a batch (B, P)."""

    goal: Goal

    def __call__(self, phi: nn.Module, batch: Batch) -> Tensor:
        return self.goal.rows(phi(**arguments(batch)).unsqueeze(0), batch)[0]


@dataclass(frozen=True)
class InSinglePrecision:
    """A judge of outputs that are computed without autocast, whatever the precision of the training."""

    judge: Callable[[nn.Module, Batch], Tensor]

    def __call__(self, phi: nn.Module, batch: Batch) -> Tensor:
        device = next(phi.parameters()).device
        with torch.autocast(device.type, enabled=False):
            return self.judge(phi, batch)
