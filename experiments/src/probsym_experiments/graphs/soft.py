"""An ablation of the paper: the base model sees nodes mixed by a soft permutation instead of permuted ones."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import probsym as ps
from probsym.distributions import Noise
from probsym.reps import NodePermutation


class Soft(nn.Module):
    """phi(x) = 1/k sum_k f(P_k^T x), P_k the doubly stochastic relaxation of the k-th permutation of a learned p(g|x).

    Where g^-1 x gathers nodes, P^T A P and P^T h mix them (arXiv 2306.02866, "PS (soft)"). Invariant in distribution,
    as P moves with x; trained by plain gradients. Scores closer than the temperature are told apart by nobody.

    Args:
        phi: A Symmetrizer with a `Learned` distribution over one S_n, and `Rep()` as output; its model, net, noise and
            numbers of samples are used.
    """

    def __init__(self, phi: ps.Symmetrizer) -> None:
        super().__init__()
        if not isinstance(phi.distribution, ps.Learned):
            raise TypeError(f"phi: expected a Learned distribution, got {phi.distribution!r}")
        self.phi, self.learned = phi, phi.distribution

    @property
    def model(self) -> nn.Module:
        return self.phi.model

    @property
    def distribution(self) -> nn.Module:
        return self.phi.distribution

    def forward(self, *, samples: int | None = None, return_estimate: bool = False, **given: Tensor) -> Any:
        estimator = self.phi.train_estimator if self.training else self.phi.eval_estimator
        assert isinstance(estimator, ps.MonteCarlo)
        y, entropy = self._draw(estimator.k if samples is None else samples, given, None, return_estimate)
        if not return_estimate:
            return y.mean(0)
        counts = torch.full((y.shape[1],), len(y), device=y.device)
        return ps.Estimate(y.mean(0), y.std(0) / len(y) ** 0.5, counts, entropy)

    def sample(self, *, samples: int = 1, noise: Noise = None, **given: Tensor) -> Tensor:
        """One output a sample (K, B, ...)."""
        return self._draw(samples, given, noise, False)[0]

    def _draw(self, k: int, given: dict[str, Tensor], noise: Noise, diagnose: bool) -> tuple[Tensor, dict[str, Tensor]]:
        x, p = self.phi.bind((), given), self.learned
        noise = p.noise(x, (k,)) if noise is None else noise
        (group,), layout = p.group.factors, next(iter(x.layouts.values()))
        z = p.features(x, noise["features"])[group]
        hard = p.project(x, group, z.detach(), noise["fallback"][group])
        assert isinstance(hard, NodePermutation)
        relaxation = p.relaxation
        assert isinstance(relaxation, ps.Relaxation)
        mixed = relaxation(z, layout.padded_mask())  # node by place
        rows = x.fold(lambda leaf: _mix(mixed, leaf.value, leaf.rep.ndim), k)
        y = self.model(*rows.args, **rows.kwargs)
        return y.unflatten(0, (k, x.count)), {"entropy": relaxation.entropy(z, layout)} if diagnose else {}


def _mix(soft: Tensor, value: Tensor, axes: int) -> Tensor:
    """P^T h for nodes (B, N, F), P^T A P for pairs (B, N, N): (K, B, N, N) and these to (K, B, ...)."""
    moved = soft.mT @ value
    return moved @ soft if axes == 2 else moved
