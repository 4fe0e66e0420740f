"""An ablation of the paper: the base model sees nodes mixed by a soft permutation instead of permuted ones."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import probsym as ps
from probsym.distributions import NetDistribution, Noise
from probsym.reps import Inputs


class Soft(nn.Module):
    """phi(x) = 1/k sum_k f(P_k^T x), P_k the doubly stochastic relaxation of the k-th permutation of a learned p(g|x).

    Where g^-1 x gathers nodes, P^T A P and P^T h mix them (arXiv 2306.02866, "PS (soft)"). Invariant in distribution,
    as P moves with x; trained by plain gradients. Scores closer than the temperature are told apart by nobody.

    Args:
        phi: A Symmetrizer with a p that sorts scores with noise, over one S_n, and `Rep()` as output; its model, net,
            noise and numbers of samples are used.
    """

    def __init__(self, phi: ps.Symmetrizer) -> None:
        super().__init__()
        if not isinstance(phi.distribution, NetDistribution):
            raise TypeError(f"phi: expected a learned distribution, got {phi.distribution!r}")
        self.phi = phi
        self.learned = phi.distribution
        relaxation = phi.distribution.relaxation
        if not isinstance(relaxation, ps.Relaxation):
            raise TypeError(f"phi: expected a learned distribution with a Relaxation, got {relaxation!r}")
        self.relaxation = relaxation

    @property
    def model(self) -> nn.Module:
        return self.phi.model

    @property
    def distribution(self) -> nn.Module:
        return self.phi.distribution

    def forward(self, *, samples: int | None = None, return_estimate: bool = False, **given: Tensor) -> Any:
        if samples is None:
            estimator = self.phi.eval_estimator
            if self.training:
                estimator = self.phi.train_estimator
            assert isinstance(estimator, ps.MonteCarlo)
            samples = estimator.k
        x = self.phi.bind((), given)
        y, scores = self._draw(samples, x, None)
        mean = y.mean(0)
        if not return_estimate:
            return mean
        counts = torch.full((y.shape[1],), len(y), device=y.device)
        (group,) = self.learned.group.factors
        entropy = self.learned.diagnose(x, {group: scores})["entropy"]
        return ps.Estimate(mean, y.std(0) / len(y) ** 0.5, counts, {"entropy": entropy})

    def sample(self, *, samples: int = 1, noise: Noise = None, **given: Tensor) -> Tensor:
        """One output a sample (K, B, ...)."""
        y, _ = self._draw(samples, self.phi.bind((), given), noise)
        return y

    def _draw(self, k: int, x: Inputs, noise: Noise) -> tuple[Tensor, Tensor]:
        """Outputs (K, B, ...) and the scores of the nodes (K, B, N)."""
        # 1. The scores of the nodes, and P: node by place.
        p = self.learned
        if noise is None:
            noise = p.noise(x, (k,))
        (group,) = p.group.factors
        (layout,) = x.layouts.values()
        scores = p.features(x, noise["features"])[group]
        mixing = self.relaxation(scores, layout.padded_mask())

        # 2. f of the mixed nodes, all samples in one batch.
        rows = x.fold(lambda leaf: _mix(mixing, leaf.value, leaf.rep.ndim), k)
        y = self.model(*rows.args, **rows.kwargs)
        return y.unflatten(0, (k, x.count)), scores


def _mix(soft: Tensor, value: Tensor, axes: int) -> Tensor:
    """P^T h for nodes (B, N, F), P^T A P for pairs (B, N, N): (K, B, N, N) and these to (K, B, ...)."""
    mixed = soft.mT @ value
    if axes == 2:
        mixed = mixed @ soft
    return mixed
