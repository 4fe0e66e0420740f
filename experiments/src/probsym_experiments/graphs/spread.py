"""How much an average over k samples varies: of outputs, of the loss, of poses, and the gradient that is left of it.

Letters: K samples, B graphs, N nodes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

import probsym as ps
from probsym.reps import NodePermutation

from ..batches import Batch, size
from .logits import cross_entropy
from .models import inputs

ROWS = 2_000  # samples times graphs that the base network sees at once
QUANTITIES = ("output_variance", "loss_variance", "entropy", "gradient_square")


def measure(phi: ps.Symmetrizer, batch: Batch, counts: Sequence[int], repeats: int, gradient_samples: int) -> Tensor:
    """The quantities of one model at every k: (4, len(counts)).

    Args:
        counts: Numbers of samples, rising.
        repeats: Independent averages at the largest k; more at smaller ones, from the same draws.
        gradient_samples: Largest k at which gradients are measured; beyond it they are NaN.
    """
    y, places = draw_pool(phi, batch, counts[-1] * repeats)
    columns = []
    for k in counts:
        means = averages(y, k)
        output_variance = means.var(0).mean()
        loss_variance = loss(means, batch).var()
        columns.append([output_variance, loss_variance, entropy(places[:k], batch["mask"]), torch.nan])
    quantities = torch.tensor(columns, dtype=torch.float64).T
    few = [k for k in counts if k <= gradient_samples]
    if few:
        quantities[-1, : len(few)] = gradient_squares(phi, batch, few, repeats)
    return quantities


def summary(measurements: Tensor, counts: Sequence[int]) -> list[dict[str, float]]:
    """Rows by k of measurements (M, quantity, k): means and their standard errors over M."""
    mean = measurements.mean(0)
    error = measurements.std(0) / len(measurements) ** 0.5
    rows = []
    for column, k in enumerate(counts):
        row: dict[str, float] = {"samples": k}
        for q, name in enumerate(QUANTITIES):
            row[name] = mean[q, column].item()
        for q, name in enumerate(QUANTITIES):
            row[f"{name}_stderr"] = error[q, column].item()
        rows.append(row)
    return rows


def averages(y: Tensor, k: int) -> Tensor:
    """Means over k samples each: (K, B, 1) to (K // k, B, 1)."""
    return y[: len(y) // k * k].unflatten(0, (-1, k)).mean(1)


def loss(means: Tensor, batch: Batch) -> Tensor:
    """Loss of each average of the whole batch: (M, B, 1) to (M,)."""
    return cross_entropy(means, batch).mean(-1)


@torch.no_grad()
def draw_pool(phi: ps.Symmetrizer, batch: Batch, count: int) -> tuple[Tensor, Tensor]:
    """Outputs (K, B, 1) and permutations, as gather indices (K, B, N), of independent samples."""
    given = inputs(batch)
    x = phi.bind((), given)
    outputs = []
    places = []
    step = max(1, ROWS // size(batch))
    for start in range(0, count, step):
        noise = phi.draw_noise(**given, samples=min(step, count - start))
        outputs.append(phi.sample(**given, noise=noise))
        order = phi.distribution.transport(x, noise)
        assert isinstance(order, NodePermutation)
        places.append(order.index)
    return torch.cat(outputs), torch.cat(places)


def entropy(places: Tensor, mask: Tensor) -> Tensor:
    """Entropy of the rows of the mean permutation matrix, in nats, averaged over nodes: (K, B, N) to a scalar.

    At most log k, and log n for uniform permutations.
    """
    width = places.shape[-1]
    share = torch.nn.functional.one_hot(places, width).double().mean(0)
    rows = torch.special.entr(share).sum(-1)
    return rows[mask].mean()


def gradient_squares(phi: ps.Symmetrizer, batch: Batch, counts: Sequence[int], repeats: int) -> Tensor:
    """Squared norm of the expected gradient of the loss of k samples to the base network's weights, at every k.

        |E grad|^2 = E <grad, grad'>                 grad and grad' from independent draws

    The square of one mean gradient would have the trace of its covariance in it. Each half of the draws gives one
    mean, so that the estimate is unbiased, and negative at times.

    Args:
        repeats: Draws of the largest k, at least 2; each gives a gradient at every k.
    """
    weights = list(phi.model.parameters())

    # 1. Sums of gradients over the even and over the odd draws, for each k one tensor a weight.
    even: dict[int, list[Tensor]] = {}
    odd: dict[int, list[Tensor]] = {}
    for k in counts:
        even[k] = [torch.zeros_like(weight) for weight in weights]
        odd[k] = [torch.zeros_like(weight) for weight in weights]
    for draw in range(repeats):
        half = even
        if draw % 2:
            half = odd
        y = phi.sample(**inputs(batch), samples=counts[-1])
        for k in counts:
            mean = loss(averages(y, k), batch).mean()
            torch._foreach_add_(half[k], torch.autograd.grad(mean, weights, retain_graph=True))

    # 2. Their inner products.
    products = []
    for k in counts:
        by_weight = []
        for of_even, of_odd in zip(even[k], odd[k], strict=True):
            by_weight.append((of_even * of_odd).sum())
        products.append(torch.stack(by_weight).sum())
    draws_of_odd = repeats // 2
    draws_of_even = repeats - draws_of_odd
    return torch.stack(products) / (draws_of_odd * draws_of_even)
