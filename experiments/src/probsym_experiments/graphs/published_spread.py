"""How much an average over k samples varies, as the published code measures it (exp_classify_analysis.py there).

It differs from `spread`: outputs are probabilities, variances are squares of mean standard deviations, every average
has draws of its own, and the gradient is that of training, where statistics of BatchNorm are those of one graph.

Letters: K samples, B graphs, N nodes, T trials.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

import probsym as ps
from probsym.reps import NodePermutation

from ..batches import Batch, Pages, Tensors
from .logits import cross_entropy
from .models import inputs
from .spread import ROWS

TRIALS = 100  # averages at each k
QUANTITIES = ("output_variance", "loss_variance", "entropy", "gradient_norm")


def measure(
    phi: ps.Symmetrizer, valid: Batch, train: Batch, counts: Sequence[int], trials: int, gradient_samples: int
) -> Tensor:
    """The quantities of one model at every k: (4, len(counts)).

        output variance   (mean_b std_t sigmoid(y_bt))^2     y_bt the mean of k outputs for graph b, trial t
        loss variance     (mean_b std_t loss(y_bt))^2
        entropy           mean_b of `order_entropies` of one mean of k orders
        gradient norm     |mean_b grad loss(y_b)|            of the base, in training mode, each graph b by itself

    Args:
        valid: Graphs of the first three. train: Of the gradient.
        trials: Independent averages at each k.
        gradient_samples: Largest k at which gradients are measured; beyond it they are NaN.

    The model is left in evaluation mode, with the statistics that it came with.
    """
    phi.eval()
    columns = []
    for k in counts:
        variances = output_and_loss_variance(phi, valid, k, trials)
        columns.append([*variances, mean_entropy(phi, valid, k), torch.nan])
    # Training mode changes statistics of BatchNorm.
    buffers = {name: value.clone() for name, value in phi.named_buffers()}
    phi.train()
    for column, k in enumerate(counts):
        if k <= gradient_samples:
            columns[column][-1] = gradient_norm(phi, train, k)
    for name, value in phi.named_buffers():
        value.copy_(buffers[name])
    phi.eval()
    return torch.tensor(columns, dtype=torch.float64).T


def summary(quantities: Tensor, counts: Sequence[int]) -> list[dict[str, float]]:
    """Rows by k of the quantities of one model (4, len(counts))."""
    rows = []
    for column, k in enumerate(counts):
        row: dict[str, float] = {"samples": k}
        for q, name in enumerate(QUANTITIES):
            row[name] = quantities[q, column].item()
        rows.append(row)
    return rows


@torch.no_grad()
def output_and_loss_variance(phi: ps.Symmetrizer, batch: Batch, k: int, trials: int) -> tuple[float, float]:
    """Squares of the mean over graphs of standard deviations over trials."""
    outputs = []
    losses = []
    for page in Pages(Tensors(batch), max(1, ROWS // k)):
        y = torch.stack([phi.sample(**inputs(page), samples=k).mean(0) for _ in range(trials)])  # (T, B, 1)
        outputs.append(y[..., 0].sigmoid().std(0))
        losses.append(cross_entropy(y, page).std(0))
    return torch.cat(outputs).mean().item() ** 2, torch.cat(losses).mean().item() ** 2


@torch.no_grad()
def mean_entropy(phi: ps.Symmetrizer, batch: Batch, k: int) -> float:
    """Of the mean of k orders of each graph, averaged over graphs."""
    entropies = []
    for page in Pages(Tensors(batch), max(1, ROWS // k)):
        given = inputs(page)
        noise = phi.draw_noise(**given, samples=k)
        order = phi.distribution.transport(phi.bind((), given), noise)
        assert isinstance(order, NodePermutation)
        entropies.append(order_entropies(order.index, page["mask"]))
    return torch.cat(entropies).mean().item()


def order_entropies(places: Tensor, mask: Tensor) -> Tensor:
    """Entropies of rows and of columns of the mean permutation matrix, added, averaged over nodes: (K, B, N) to (B,).

    Rows and columns sum to one, so that both have the same sum. In nats; at most 2 log k.
    """
    share = torch.nn.functional.one_hot(places, places.shape[-1]).double().mean(0)
    of_rows = torch.special.entr(share).sum(-1) * mask
    return 2 * of_rows.sum(-1) / mask.sum(-1)


def gradient_norm(phi: ps.Symmetrizer, batch: Batch, k: int) -> float:
    """Norm of the mean over graphs of the gradient of the loss to the base network's weights."""
    weights = list(phi.model.parameters())
    total = [torch.zeros_like(weight) for weight in weights]
    graphs = Pages(Tensors(batch), 1)
    for graph in graphs:
        y = phi.sample(**inputs(graph), samples=k).mean(0)
        torch._foreach_add_(total, torch.autograd.grad(cross_entropy(y, graph).mean(), weights))
    squares = torch.stack([gradient.square().sum() for gradient in total])
    return squares.sum().sqrt().item() / len(graphs)
