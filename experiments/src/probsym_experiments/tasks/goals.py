"""What is asked of a model, as data: the loss of a graph, and what of it the metric of the whole set is made.

A metric that is no mean over graphs (recall of a class, average precision) still is a function of one row a graph: how
many nodes were right, or the logits themselves. So a goal gives `rows` (S, B, P), one a graph, and `total` of the rows
of a whole set; processes gather rows, and a bootstrap draws them anew.

Letters: S draws, B graphs, N nodes of the largest, C outputs, T targets, P numbers of a row.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy
from torchmetrics import Metric
from torchmetrics.functional.classification import multilabel_average_precision

from probsym import Rep
from probsym.reps import NodeAxis

from ..batches import Batch, in_order
from ..errors import UserError
from .ranking import ranks
from .storage import Graphs

PUBLISHED_BATCH = 128  # graphs of a batch of the published code


class Goal(ABC):
    """One task on graphs; higher: whether more of its metric, called `name`, is better."""

    name: str
    higher: bool
    outputs: int  # C

    @abstractmethod
    def rep(self, nodes: NodeAxis) -> Rep:
        """How the output moves with the nodes."""

    @abstractmethod
    def losses(self, output: Tensor, batch: Batch) -> Tensor:
        """Outputs to the loss of each graph (B,); its mean over any graphs is an unbiased loss."""

    @abstractmethod
    def rows(self, output: Tensor, batch: Batch) -> Tensor:
        """Outputs (S, ...) to what the metric needs of each graph (S, B, P)."""

    @abstractmethod
    def total(self, rows: Tensor) -> Tensor:
        """The metric of the graphs whose rows (B, P) are given."""

    def details(self, rows: Tensor) -> dict[str, float]:
        """More numbers of the same kind by name."""
        return {}

    def fit(self, train: Graphs) -> Goal:
        """The same goal with what it takes from the training set, such as the balance of classes."""
        return self

    def of_batches(self) -> Goal:
        """The same goal as the published code has it: with its loss of a batch, its metric, and its outputs.

        Where that loss is no mean over graphs, the mean of `losses` is that loss. Outputs of nodes are the diagonal of
        outputs of pairs.
        """
        return self

    def check(self, graphs: Graphs, part: str) -> None:
        """Raises UserError if the metric is not defined on these graphs."""
        if not len(graphs):
            raise UserError(f"{part}: expected at least one graph; the split is empty")


@dataclass(frozen=True)
class NodeClasses(Goal):
    """Classes of nodes by their mean recall, weighted in the loss so that each class counts alike (arXiv 2003.00982).

    The loss of a graph is sum_i w_{y_i} CE_i over the mean weight sum of a training graph, so that a mean over graphs
    is the loss of all their nodes, on however many processes they lie. Or, `of_batches`, it is the cross-entropy of all
    nodes of a batch with weights w_c = 1 - share of class c in it, over the sum of the weights, and outputs are pairs
    (..., N, N, C) of which the diagonal counts. The metric then is the mean over batches of 128 neighbours, as in the
    benchmark's code: the set has to be in its own order.
    """

    outputs: int
    weights: tuple[float, ...] = ()  # of the classes, by `fit`
    by_batch: bool = False
    name: str = "accuracy, classes alike"
    higher: bool = True

    def rep(self, nodes: NodeAxis) -> Rep:
        if self.by_batch:
            return Rep(nodes, nodes)
        return Rep(nodes)

    def fit(self, train: Graphs) -> NodeClasses:
        counts = np.bincount(train.nodes.columns["label"], minlength=self.outputs)
        weights = len(train) / (self.outputs * np.maximum(counts, 1))
        return NodeClasses(self.outputs, tuple(weights.tolist()), self.by_batch)

    def of_batches(self) -> NodeClasses:
        return replace(self, by_batch=True)

    def losses(self, output: Tensor, batch: Batch) -> Tensor:
        if self.by_batch:
            return self._losses_of_batch(_diagonal(output).float(), batch)
        weights = output.new_tensor(self.weights, dtype=torch.float32)
        errors = cross_entropy(output.float().movedim(-1, 1), batch["label"], weights, reduction="none")
        return per_graph(errors, batch)

    def _losses_of_batch(self, output: Tensor, batch: Batch) -> Tensor:
        # 1. Nodes of each class in this batch, and its weight; a class without nodes has none.
        label = batch["label"]
        there = torch.ones_like(label)
        if "mask" in batch:
            there = batch["mask"].long()
        counts = torch.bincount(label.flatten(), there.flatten().double(), minlength=self.outputs)
        total = counts.sum()
        weights = (total - counts) / total * (counts > 0)

        # 2. The share of each graph in the mean, times the number of graphs.
        errors = cross_entropy(output.movedim(-1, 1), label, weights.to(output.dtype), reduction="none")
        sums = per_graph(errors, batch)
        return sums * len(sums) / (weights * counts).sum().to(output.dtype)

    def rows(self, output: Tensor, batch: Batch) -> Tensor:
        """Right nodes of each class, then all of each class (S, B, 2 C)."""
        label = batch["label"]
        if self.by_batch:
            output = _diagonal(output)
        right = output.argmax(-1) == label
        classes = label.unsqueeze(-1) == torch.arange(self.outputs, device=label.device)
        right_of_class = []
        all_of_class = []
        for c in range(self.outputs):
            of_class = classes[..., c]
            right_of_class.append(per_graph((right & of_class).float(), batch, 1))
            all_of_class.append(per_graph(of_class.float(), batch))
        right_counts = torch.stack(right_of_class, -1)
        counts = torch.stack(all_of_class, -1)
        return torch.cat([right_counts, counts.expand_as(right_counts)], -1)

    def total(self, rows: Tensor) -> Tensor:
        if self.by_batch:
            recalls = []
            for batch in rows.split(PUBLISHED_BATCH):
                right, every = batch.double().sum(0).chunk(2)
                recalls.append((right / every.clamp_min(1)).mean())  # a class that a batch lacks counts 0
            return torch.stack(recalls).mean()
        right, every = rows.double().sum(0).chunk(2)
        return (right / every).nanmean()  # a class that a bootstrap sample lacks does not count

    def check(self, graphs: Graphs, part: str) -> None:
        super().check(graphs, part)
        counts = np.bincount(graphs.nodes.columns["label"], minlength=self.outputs)
        if not (counts > 0).all():
            raise UserError(f"{part}: class {int(np.argmin(counts))} never occurs, so that its recall is not defined")


def _diagonal(pairs: Tensor) -> Tensor:
    """(..., N, N, C) to (..., N, C)."""
    return pairs.diagonal(dim1=-3, dim2=-2).mT


@dataclass(frozen=True)
class Labels(Goal):
    """Labels of graphs, each there or not, by the mean of their average precisions over the whole set."""

    outputs: int
    name: str = "average precision"
    higher: bool = True

    def rep(self, nodes: NodeAxis) -> Rep:
        return Rep()

    def losses(self, output: Tensor, batch: Batch) -> Tensor:
        return binary_cross_entropy_with_logits(output.float(), batch["target"], reduction="none").mean(-1)

    def rows(self, output: Tensor, batch: Batch) -> Tensor:
        """Logits, then labels (S, B, 2 C)."""
        return torch.cat([output.float(), batch["target"].expand_as(output)], -1)

    def total(self, rows: Tensor) -> Tensor:
        return self._each(rows).nanmean()

    def details(self, rows: Tensor) -> dict[str, float]:
        by_name = {}
        for number, precision in enumerate(self._each(rows)):
            by_name[f"label_{number}"] = float(precision)
        return by_name

    def _each(self, rows: Tensor) -> Tensor:
        """Of every label, NaN for one that a bootstrap sample lacks; from probabilities, which no logit passes for."""
        logits, target = rows.chunk(2, -1)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="No positive samples")
            each = multilabel_average_precision(logits.double().sigmoid(), target.long(), self.outputs, average="none")
        return torch.where(target.sum(0) > 0, each, torch.nan)

    def check(self, graphs: Graphs, part: str) -> None:
        super().check(graphs, part)
        assert graphs.targets is not None
        counts = graphs.targets.sum(0)
        if not (counts > 0).all():
            raise UserError(
                f"{part}: label {int(np.argmin(counts))} never occurs: its average precision is not defined"
            )


@dataclass(frozen=True)
class Numbers(Goal):
    """Numbers of graphs, by their mean absolute error, in units in which the training set has mean 0 and variance 1."""

    outputs: int
    name: str = "mean absolute error"
    higher: bool = False

    def rep(self, nodes: NodeAxis) -> Rep:
        return Rep()

    def losses(self, output: Tensor, batch: Batch) -> Tensor:
        return (output.float() - batch["target"]).abs().mean(-1)

    def rows(self, output: Tensor, batch: Batch) -> Tensor:
        """Absolute error of each number (S, B, C)."""
        return (output.float() - batch["target"]).abs()

    def total(self, rows: Tensor) -> Tensor:
        return rows.double().mean()


HITS = (1, 3, 10)
FILTERS = ("raw", "filtered", "self_filtered")


def rank_names() -> tuple[str, ...]:
    """Of the numbers that follow from ranks, in their order in a row."""
    names = []
    for which in FILTERS:
        names.append(f"{which}_mrr")
        for k in HITS:
            names.append(f"{which}_hits{k}")
    return tuple(names)


@dataclass(frozen=True)
class Links(Goal):
    """Pairs of nodes that belong together, by the mean reciprocal rank of the true end among all nodes of the graph.

    Of every labelled pair (i, j) the score y_ij is ranked among y_ik over k: raw, over all other nodes k; filtered,
    over nodes that are no true end of i; self-filtered, over those but i itself (arXiv 2309.00367). Ranks are averaged
    over the pairs of a graph first, then over graphs; a graph without pairs counts 0, as in arXiv 2206.08164.
    """

    outputs: int = 1
    name: str = "mean reciprocal rank"
    higher: bool = True
    names: tuple[str, ...] = field(default=rank_names())
    by_batch: bool = False  # whether the loss is a mean over the pairs of a batch, and not of a graph first

    def of_batches(self) -> Links:
        return replace(self, by_batch=True)

    def rep(self, nodes: NodeAxis) -> Rep:
        return Rep(nodes, nodes)

    def losses(self, output: Tensor, batch: Batch) -> Tensor:
        graph, i, j = batch["pair"].unbind(-1)
        errors = binary_cross_entropy_with_logits(
            output[graph, i, j, 0].float(), batch["label"].float(), reduction="none"
        )
        if self.by_batch:
            sums = torch.zeros(len(output), device=output.device, dtype=errors.dtype).index_add_(0, graph, errors)
            return sums * len(output) / max(len(errors), 1)
        count = torch.zeros(len(output), device=output.device).index_add_(0, graph, torch.ones_like(errors))
        return torch.zeros_like(count).index_add_(0, graph, errors) / count.clamp_min(1)

    def rows(self, output: Tensor, batch: Batch) -> Tensor:
        """Means over the pairs of each graph of all that `names` says."""
        of_draws = []
        for scores in output[..., 0].float():
            of_draws.append(self._means(scores, batch))
        return torch.stack(of_draws)

    def _means(self, scores: Tensor, batch: Batch) -> Tensor:
        # 1. The numbers of each true pair.
        pair = batch["pair"][batch["label"] > 0]
        columns = []
        for rank in ranks(scores, batch["mask"], pair):
            columns.append(1 / rank)
            for k in HITS:
                columns.append(rank <= k)
        of_pairs = torch.stack(columns, 1).float()

        # 2. Their means over the pairs of a graph.
        graph = pair[:, 0]
        sums = scores.new_zeros(len(scores), len(columns)).index_add_(0, graph, of_pairs)
        count = torch.bincount(graph, minlength=len(scores))[:, None]
        return sums / count.clamp_min(1)

    def total(self, rows: Tensor) -> Tensor:
        return rows[:, self.names.index("raw_mrr")].double().mean()

    def details(self, rows: Tensor) -> dict[str, float]:
        means = rows.double().mean(0).tolist()
        return dict(zip(self.names, means, strict=True))

    def check(self, graphs: Graphs, part: str) -> None:
        super().check(graphs, part)
        if graphs.pairs is None or not (graphs.pairs.columns["label"] > 0).any():
            raise UserError(f"{part}: no pair is labelled true, so that no rank is defined")


def per_graph(values: Tensor, batch: Batch, lead: int = 0) -> Tensor:
    """Sums over the nodes of each graph: padded (*S, B, N) or ragged (*S, sum N), `lead` axes S, to (*S, B)."""
    if "mask" in batch:
        return (values * batch["mask"]).sum(-1)
    shape = *values.shape[:lead], len(batch["size"])
    return values.new_zeros(shape).index_add_(lead, batch["batch"], values)


class Whole(Metric):
    """The metric of a goal over a whole set: gathers rows from all processes, however many each has.

    Some metrics depend on the order of the set, which `Pages` deals out to the processes in turn.
    """

    rows: list[Tensor]

    def __init__(self, goal: Goal) -> None:
        super().__init__()
        self.goal = goal
        self.add_state("rows", [], dist_reduce_fx="cat")

    @property
    def higher_is_better(self) -> bool:  # type: ignore[override]
        return self.goal.higher

    def update(self, rows: Tensor) -> None:
        self.rows.append(rows)

    def compute(self) -> Any:
        # Gathering from several processes makes one tensor of the list.
        if isinstance(self.rows, Tensor):
            return self.goal.total(in_order(self.rows, torch.distributed.get_world_size()))
        return self.goal.total(torch.cat(self.rows))
