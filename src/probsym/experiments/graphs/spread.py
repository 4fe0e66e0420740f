"""How much an average over k samples varies: of outputs, of the loss, of poses, and the gradient that is left of it.

Letters: K samples, B graphs, N nodes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

import probsym as ps

from ..batches import Batch, size
from .logits import cross_entropy
from .models import inputs

ROWS = 2_000  # samples times graphs that the base network sees at once
QUANTITIES = ("output_variance", "loss_variance", "entropy", "gradient_norm")


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
        means = y[: len(y) // k * k].unflatten(0, (-1, k)).mean(1)
        losses = cross_entropy(means, batch).mean(-1)
        norm = gradient_norm(phi, batch, k, repeats) if k <= gradient_samples else torch.nan
        columns.append([means.var(0).mean(), losses.var(), entropy(places[:k], batch["mask"]), norm])
    return torch.tensor(columns, dtype=torch.float64).T


@torch.no_grad()
def draw_pool(phi: ps.Symmetrizer, batch: Batch, count: int) -> tuple[Tensor, Tensor]:
    """Outputs (K, B, 1) and permutations, as gather indices (K, B, N), of independent samples."""
    given, outputs, places = inputs(batch), [], []
    step = max(1, ROWS // size(batch))
    for start in range(0, count, step):
        noise = phi.draw_noise(**given, samples=min(step, count - start))
        outputs.append(phi.sample(**given, noise=noise))
        places.append(phi.distribution.transport(phi.bind((), given), noise).index)  # type: ignore[attr-defined]
    return torch.cat(outputs), torch.cat(places)


def entropy(places: Tensor, mask: Tensor) -> Tensor:
    """Entropy of the rows of the mean permutation matrix, in nats, averaged over nodes: (K, B, N) to a scalar.

    At most log k, and log n for uniform permutations.
    """
    width = places.shape[-1]
    share = torch.nn.functional.one_hot(places, width).double().mean(0)
    rows = torch.special.entr(share).sum(-1)
    return rows[mask].mean()


def gradient_norm(phi: ps.Symmetrizer, batch: Batch, k: int, repeats: int) -> float:
    """Norm of the gradient of the loss to the base network's weights, averaged over draws before the norm is taken."""
    weights = list(phi.model.parameters())
    total = [torch.zeros_like(w) for w in weights]
    for _ in range(repeats):
        loss = cross_entropy(phi(**inputs(batch), estimator=ps.MonteCarlo(k)), batch).mean()
        torch._foreach_add_(total, torch.autograd.grad(loss, weights))
    return torch.stack([t.norm() for t in total]).norm().item() / repeats
