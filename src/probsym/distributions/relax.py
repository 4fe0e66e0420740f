"""The relaxation of a permutation: what sends a gradient through a sort to the scores."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor

from probsym.kernels.sinkhorn import (
    soft_permutation,
    soft_permutation_entropies,
    soft_permutation_entropy,
    soft_permutation_gradient,
    soft_permutation_token,
)
from probsym.kernels.values import differentiated
from probsym.members import register
from probsym.reps import Layout, NodePermutation


@register
@dataclass(frozen=True)
class Relaxation:
    """How scores become a soft permutation matrix P, which exists in the gradient only.

    P P^T x is x for permutations and not for the soft matrix, so that a base must not add its input to its output
    inside the average (docs/theory.md, eq. 8).

    Args:
        temperature: tau of SoftSort (arXiv 2006.16038); smaller is harder.
        sinkhorn: number of row and column normalisations that follow.
        softmax: whether SoftSort's softmax over the nodes comes before them. Without it the weights
            exp(-|z_i - sort(z)_r| / tau) are normalised as they are, rows first, as in the code of arXiv 2306.02866.
            On a GPU this is slower: there is no kernel for it.

    Raises:
        ValueError: a temperature that is not positive, a negative number of normalisations, none at all.

    >>> import torch
    >>> P = Relaxation(0.1)(torch.tensor([2.0, 0.0, 1.0]))
    >>> P.argmax(-1).tolist()                            # node 0 ranks last: row 0 picks pose slot 2
    [2, 0, 1]
    """

    temperature: float = 0.1
    sinkhorn: int = 2
    softmax: bool = True
    by_weights: ClassVar[bool] = False  # whether samples have weights that pass the gradient on

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"temperature: expected a positive number, got {self.temperature}")
        if self.sinkhorn < 0:
            raise ValueError(f"sinkhorn: expected a number of passes >= 0, got {self.sinkhorn}")
        if not self.softmax and not self.sinkhorn:
            raise ValueError("sinkhorn: expected at least one pass without the softmax, got 0")

    @property
    def _setting(self) -> tuple[float, int, bool]:
        return self.temperature, self.sinkhorn, self.softmax

    def check_noise(self, noise: str) -> None:
        """Every noise will do."""

    def __call__(self, z: Tensor, mask: Tensor | None = None) -> Tensor:
        """P (*shape, N, N), node by pose slot, for scores z (*shape, N) in float32 or better.

        P = Sinkhorn(softmax_i(-|z_i - sort(z)_r| / tau))
        """
        return soft_permutation(z, mask, *self._setting)

    def pull(self, z: Tensor, mask: Tensor | None, grad: Tensor) -> Tensor:
        """The gradient of sum(grad * P) with respect to the scores z (*shape, N), for grad (*shape, N, N)."""
        return soft_permutation_gradient(z, mask, grad, *self._setting)

    def attach(self, g: NodePermutation, z: Tensor) -> NodePermutation:
        """g with a straight-through gradient to the scores z (*shape, N) it was sorted by."""
        if not differentiated(z):
            return g
        z = g.layout.pad(z.expand_as(g.index), g.index.ndim - 1)
        token = soft_permutation_token(z, g.layout.padded_mask(), *self._setting)
        return replace(g, relaxed=token)

    def entropy(self, z: Tensor, layout: Layout) -> Tensor:
        """Mean entropy of the rows and columns of P, in nats: low where the relaxation is nearly a permutation."""
        z = layout.pad(z, z.ndim - 1)
        return soft_permutation_entropy(z, layout.padded_mask(), *self._setting)

    def entropies(self, z: Tensor, layout: Layout) -> Tensor:
        """Of each sample and input, (*shape,), rows and columns divided by their sums first, as in the paper's code.

        The mean of these numbers counts inputs alike, however many nodes they have.
        """
        z = layout.pad(z, z.ndim - 1)
        return soft_permutation_entropies(z, layout.padded_mask(), *self._setting)
