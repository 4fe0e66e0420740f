"""As many samples as each input needs."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from probsym.estimators.base import Estimate, Estimator, Integrand, Widened, positive


@dataclass(frozen=True)
class Adaptive(Estimator):
    """As many samples as each input needs for a standard error below `tol`.

    Two stages (Stein): a pilot of independent samples measures the spread, then fresh samples give the answer, so that
    stopping does not bias it. The spread of an input is

        s^2 = max over outputs, nodes and channels of the trace of the covariance over the space axes,

    which no rotation, reflection or permutation changes, so that equivalent inputs get equally many samples, in
    distribution; no entry has a larger variance. The number of fresh samples is n = (s / tol)^2, with a margin of one
    standard deviation of s^2, rounded up to whole chunks. Inputs that have theirs leave the batch. `stderr` is
    elementwise and pools the variances of both stages.

    Args:
        tol: wanted standard error of each input, in units of the output.
        max_samples: largest number of fresh samples an input; `aux["above_tol"]` counts inputs that would need more,
            among them those whose outputs are not finite.
        pilot: samples of the pilot, at least 32.
        chunk: samples evaluated at once.

    Raises:
        ValueError: tol not positive, max_samples below 2 or pilot below 32.
    """

    tol: float
    max_samples: int = 1024
    pilot: int = 32
    chunk: int = 16

    def __post_init__(self) -> None:
        if not self.tol > 0:
            raise ValueError(f"tol: expected a positive number, got {self.tol}")
        positive("chunk", self.chunk)
        for name, value, least in (("max_samples", self.max_samples, 2), ("pilot", self.pilot, 32)):
            if not isinstance(value, int) or value < least:
                raise ValueError(f"{name}: expected an integer of at least {least}, got {value!r}")

    def __call__(self, integrand: Integrand) -> Estimate:
        if integrand.noise is not None:
            raise ValueError("noise: Adaptive draws its own; pass a generator instead")
        pilot, aux = _Totals(integrand), dict[str, Tensor]()
        for step in self._steps(self.pilot):
            g, aux = integrand.draw(step)
            pilot.add(integrand.evaluate(g, None), integrand)
        square = integrand.size(pilot.variance()) * (1 + math.sqrt(2 / (self.pilot - 1)))
        square = square.masked_fill(~square.isfinite(), math.inf)
        wanted = self._wanted(square)
        totals = self._answer(integrand, wanted)
        error = [
            ((a + b) / (n + self.pilot - 2) / n).sqrt()
            for a, b, n in zip(pilot.square, totals.square, totals.counts(wanted), strict=True)
        ]
        aux = {**aux, "above_tol": (square > wanted * self.tol**2).sum()}
        mean, error = totals.narrow(totals.mean), totals.narrow(error)
        return Estimate(integrand.rebuild(mean), integrand.rebuild(error), wanted, aux)

    def _steps(self, count: int) -> list[int]:
        return [min(self.chunk, count - start) for start in range(0, count, self.chunk)]

    def _wanted(self, square: Tensor) -> Tensor:
        """Fresh samples (B,) for a variance of one sample (B,)."""
        count = (square / self.tol**2 / self.chunk).ceil().clamp(1, self.max_samples) * self.chunk
        return count.clamp(2, self.max_samples).long()

    def _answer(self, integrand: Integrand, wanted: Tensor) -> _Totals:
        """Moments of the fresh samples; after every chunk the batch shrinks to the inputs that want more."""
        totals, start = _Totals(integrand), 0
        active, part = torch.ones_like(wanted, dtype=torch.bool), integrand
        for step in self._steps(int(wanted.max()) if wanted.numel() else 1):
            still = wanted > start
            if not torch.equal(still, active):
                active, part = still, integrand.restrict(still)
            g, _ = part.draw(step)
            totals.add(part.evaluate(g, None), part, active)
            start += step
        return totals


class _Totals(Widened):
    """Sample moments of the outputs of a whole batch, fed by smaller and smaller parts of it."""

    def __init__(self, integrand: Integrand) -> None:
        super().__init__()
        self.integrand = integrand
        self.count = 0
        self.mean: list[Tensor] = []
        self.square: list[Tensor] = []

    def add(self, outputs: list[Tensor], part: Integrand, active: Tensor | None = None) -> None:
        """Add outputs (K, ...) of the inputs marked in `active`, each of which has `count` samples already."""
        fresh = len(outputs[0])
        for i, y in enumerate(self.widen(outputs)):
            mean = y.mean(0)
            square = (y - mean).detach().square().sum(0)
            if i == len(self.mean):
                self.mean.append(mean)
                self.square.append(square)
                continue
            rows = None if active is None or bool(active.all()) else self.rows(active, i)
            old, spread = (t if rows is None else t[rows] for t in (self.mean[i], self.square[i]))
            delta, share = mean - old, fresh / (self.count + fresh)
            mean, square = old + delta * share, spread + square + delta.detach().square() * self.count * share
            self.mean[i], self.square[i] = (
                new if rows is None else whole.index_copy(0, rows, new)
                for whole, new in ((self.mean[i], mean), (self.square[i], square))
            )
        self.count += fresh

    def rows(self, active: Tensor, i: int) -> Tensor:
        """Rows of output i that belong to the marked inputs."""
        return self.integrand.spread(active, i).nonzero().squeeze(-1)

    def variance(self) -> list[Tensor]:
        return [s / (self.count - 1) for s in self.square]

    def counts(self, wanted: Tensor) -> list[Tensor]:
        """Samples (B,) of the inputs, shaped to broadcast on every output."""
        return [n[0] for n in self.integrand.align(wanted[None], [s[None] for s in self.square])]
