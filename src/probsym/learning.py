"""Training that needs fewer samples: a variance penalty, a prior towards the identity, a schedule for k.

All are plain functions for a training loop of any kind:

    samples = SampleSchedule(total_steps, last=10)
    for step, (x, y) in enumerate(batches):
        noise = phi.draw_noise(**x, samples=samples(step))
        outputs = phi.sample(**x, noise=noise)                          # (K, B, ...)
        loss = mse(mean(outputs), y) + 0.1 * variance(outputs) + 0.01 * identity_distance(phi, x, noise)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from probsym.distributions import Noise
from probsym.estimators.moments import absolute_square
from probsym.groups import Element
from probsym.groups.whole import positive
from probsym.kernels.precision import wide
from probsym.symmetrizer import Symmetrizer

# What `phi.sample` returns: a tensor (K, B, ...), or a dict or tuple of them.
Outputs: TypeAlias = "Tensor | Mapping[str, Outputs] | tuple[Outputs, ...]"


def mean(outputs: Outputs) -> Any:
    """The mean over the samples of `phi.sample`, in the same containers: (K, B, ...) to (B, ...)."""
    if isinstance(outputs, Mapping):
        return {key: mean(value) for key, value in outputs.items()}
    if isinstance(outputs, tuple):
        return tuple(mean(value) for value in outputs)
    return outputs.mean(0)


def variance(outputs: Outputs) -> Tensor:
    """The variance of one sample, averaged over all entries; zero for one sample.

        1/(K - 1) sum_k (y_k - mean y)^2

    The squared error of a mean over k samples is this divided by k, so a model that is penalised for it needs fewer
    samples. Where it vanishes, the base model is equivariant on the support of p. The estimate is unbiased and has a
    gradient to the base model and to p.

    Args:
        outputs: of `phi.sample`: a tensor (K, B, ...), or a dict or tuple of them, whose variances are added.

    >>> float(variance(torch.tensor([[0.0, 1.0], [2.0, 1.0]])))
    1.0
    """
    if isinstance(outputs, Mapping):
        outputs = tuple(outputs.values())
    if isinstance(outputs, tuple):
        return torch.stack([variance(value) for value in outputs]).sum()
    if len(outputs) < 2:
        # No estimate. A zero with a gradient, so that `backward` works.
        return 0.0 * absolute_square(outputs).sum()
    return wide(outputs).var(0).mean()


def identity_distance(phi: Symmetrizer, call: Mapping[str, Any] | tuple[Any, ...], noise: Noise) -> Tensor:
    """Mean distance of p's elements from the identity: a prior regulariser (Mondal et al., arXiv 2310.01647).

    Added to the loss, it lets a pretrained base model see inputs in the poses it was trained on. p stays equivariant:
    among the poses that it may choose from, it learns those of the training data.

    Args:
        phi: the symmetrized model.
        call: its arguments, a dict of keywords or a tuple.
        noise: of `phi.draw_noise`; give the same to the model. With late noise the elements cost one pass of the net.
    """
    if isinstance(call, Mapping):
        x = phi.bind((), dict(call))
    else:
        x = phi.bind(tuple(call), {})
    g = phi.distribution.transport(x, noise)
    return distance(g).mean()


def distance(g: Element) -> Tensor:
    """How far group elements are from the identity: in [0, 1] per factor, summed over factors; batch shape of g.

    O, SO, E, SE: |R - 1|^2 / (4 d), without the translation. S_n: the share of nodes that move, with the
    straight-through gradient of the scores. Signs: the share of signs that change. Other finite groups: 0 or 1, whose
    gradient is that of the weights, where p gives its elements any. A group of your own defines `distance_to_identity`.

    Raises:
        TypeError: a group without a distance.

    >>> from probsym.groups import SO
    >>> half_turn = SO(2).identity().map(lambda t, _: -t)
    >>> float(distance(half_turn)), float(distance(SO(2).identity()))
    (1.0, 0.0)
    """
    if g.group.trivial:
        return torch.zeros(g.shape)
    away = g.group.distance_to_identity(g[g.group])
    if g.weight is None:
        return away
    return g.weight * away  # of value one: they pass the gradient on to p


@dataclass(frozen=True)
class SampleSchedule:
    """Number of training samples that grows with the step: few while the gradient is large, many at the end.

        k(step) = round(first (last / first)^(step / (total - 1))),    between first and last

    Args:
        total: training steps.
        first, last: samples at the start and at the end.

    Raises:
        ValueError: not integers of at least one, or `first` is larger than `last`.

    >>> [SampleSchedule(5, last=16)(step) for step in range(5)]
    [1, 2, 4, 8, 16]
    """

    total: int
    first: int = 1
    last: int = 10

    def __post_init__(self) -> None:
        for name in ("total", "first", "last"):
            object.__setattr__(self, name, positive(name, getattr(self, name)))
        if self.first > self.last:
            raise ValueError(f"expected first <= last, got first={self.first}, last={self.last}")

    def __call__(self, step: int) -> int:
        last_step = max(self.total - 1, 1)
        share = min(max(step / last_step, 0.0), 1.0)
        return round(self.first * (self.last / self.first) ** share)
