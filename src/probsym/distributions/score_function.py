"""Gradients through the law of what was drawn: the score function, and the law of an order with Gumbel noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from probsym.kernels.values import differentiated
from probsym.members import register
from probsym.reps import Layout, NodePermutation


@register
@dataclass(frozen=True)
class ScoreFunction:
    """The gradient of an average over orders, through the probability of every order that was drawn.

        d E[y] = E[(y - b) d log p(order|x)] + E[dy]

    The baseline b of a sample is the mean of the others, so that it needs two samples or more (with one, y itself
    remains, and the variance is large). Unbiased for every base model, also one that adds positions inside; exact for
    forces, to which the part through p belongs. It asks for no soft matrix and for no gradient to the inputs of the
    base.

    For `Learned(net, group, noise="gumbel", relaxation=ScoreFunction())`, or with noise at the input too,
    `Learned(net, group, noise="input", relaxation=ScoreFunction(scale=0.1))`: there the law of the order is known given
    that noise, whose own law has nothing to learn, so that the gradient is as unbiased.

    Args:
        scale: with noise at the input, the size of the Gumbel noise that is added to the scores, in standard deviations
            of the scores over the nodes of an input. None with noise="gumbel", whose size is that of `Learned`.

    Raises:
        ValueError: `scale` is not positive.

    >>> import probsym as ps
    >>> nodes = ps.S("nodes")
    >>> net = torch.nn.Sequential(torch.nn.Linear(2, 1), torch.nn.Flatten(1))
    >>> p = ps.Learned(net, nodes, noise="gumbel", relaxation=ps.ScoreFunction())
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(10, 1))
    >>> phi = ps.symmetrize(model, ps.Rep(nodes), ps.Rep(), p, train_samples=4)
    >>> phi(torch.randn(3, 5, 2)).sum().backward()
    >>> bool(net[0].weight.grad.abs().sum() > 0)
    True
    """

    scale: float | None = None
    by_weights: ClassVar[bool] = True  # whether samples have weights that pass the gradient on

    def __post_init__(self) -> None:
        if self.scale is not None and not self.scale > 0:
            raise ValueError(f"scale: expected a positive number or None, got {self.scale}")

    def check_noise(self, noise: str) -> None:
        """Raises ValueError unless the law of the orders is known with noise of this name, of one size."""
        if noise == "late":
            raise ValueError(
                "relaxation: a ScoreFunction needs the law of the orders, which is known with noise='gumbel', or given "
                "the noise with noise='input', got noise='late'"
            )
        if noise == "input" and self.scale is None:
            raise ValueError(
                "relaxation: with noise='input' the law of the orders comes from Gumbel noise on the scores, whose "
                "size is to be given, as in ScoreFunction(scale=0.1), got ScoreFunction()"
            )
        if noise == "gumbel" and self.scale is not None:
            raise ValueError(
                f"relaxation: with noise='gumbel' the size of the noise is the `scale` of Learned, got "
                f"ScoreFunction(scale={self.scale})"
            )

    def attach(self, g: NodePermutation, z: Tensor) -> NodePermutation:
        """g itself."""
        return g


def plackett_luce(preference: Tensor, order: NodePermutation, layout: Layout) -> Tensor:
    """Log-probabilities (*shape, B) of orders in which the first place goes to node i with weight exp(preference_i).

    Args:
        preference: (B, N), in a ragged batch (sum N,); or one row a sample, (*shape, B, N).
        order: permutations of batch shape (*shape, B).
    """
    # 1. The preferences in the order of the places: (*shape, B, N), padded places last.
    places = order.moves.places
    sorted_preference = preference.expand(places.shape).gather(-1, places)
    ranked = layout.pad(sorted_preference, places.ndim - 1)
    mask = layout.padded_mask()
    if mask is not None:
        # Not -inf, which would make NaN of the empty sums behind the last node.
        ranked = torch.where(mask, ranked, torch.finfo(ranked.dtype).min / 4)

    # 2. Each place goes to its node among all that are left.
    left = ranked.flip(-1).logcumsumexp(-1).flip(-1)
    each = ranked - left
    if mask is not None:
        each = torch.where(mask, each, 0.0)
    return each.sum(-1)


def score_weights(log_p: Tensor, baseline: bool = True) -> Tensor | None:
    """Weights (K, B) of value one for K samples with log-probabilities (K, B), with the gradient of their law.

        w_k = r_k + 1/(K - 1) sum_{j != k} (1 - r_j),    r_k = exp(l_k - l_k.detach())

    So d(1/K sum_k w_k y_k) = 1/K sum_k (y_k - b_k) dl_k + w_k dy_k, with the mean b_k of the other samples as baseline,
    and derivatives of any order are right (arXiv 1802.05098). None where nobody would see a difference.

    Args:
        baseline: whether there is one; else w_k = r_k. Of samples that are all the same it would leave no gradient.
    """
    if not differentiated(log_p):
        return None
    ratio = (log_p - log_p.detach()).exp()
    if len(ratio) == 1 or not baseline:
        return ratio
    gap = 1 - ratio
    return ratio + (gap.sum(0) - gap) / (len(ratio) - 1)
