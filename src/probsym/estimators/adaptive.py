"""As many samples as each input needs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real

import torch
from torch import Tensor

from probsym.distributions.diagnostics import merged
from probsym.estimators.base import Estimate, Estimator, Integrand, Widened, block_means, square_size
from probsym.estimators.designs import Design, as_design
from probsym.estimators.monte_carlo import slices
from probsym.groups.whole import whole_number
from probsym.members import register


@register
@dataclass(frozen=True)
class Adaptive(Estimator):
    """As many samples as each input needs for a standard error below `tol`.

    Two stages (Stein): a pilot of independent samples measures the spread, then fresh samples give the answer, so that
    stopping does not bias it. The spread of an input is

        s^2 = max over outputs, nodes and channels of the trace of the covariance over the space axes,

    which no rotation, reflection or permutation changes, so that equivalent inputs get equally many samples, in
    distribution; no entry has a larger variance. The number of fresh samples is n = (s / tol)^2, with a margin of one
    standard deviation of s^2, rounded up to whole chunks. Inputs that have theirs leave the batch. `stderr` is
    elementwise and pools the variances of both stages. With a design the mean of a block takes the place of a sample,
    in both stages; few blocks tell the spread badly, so give a pilot of many.

    Args:
        tol: wanted standard error of each input, in units of the output.
        max_samples: largest number of fresh samples an input; `aux["above_tol"]` counts inputs that would need more,
            among them those whose outputs are not finite.
        pilot: samples of the pilot, at least 32; rounded up to whole blocks, at least two.
        chunk: samples evaluated at once.
        design: of the samples, as in `MonteCarlo`.

    Raises:
        ValueError: tol not positive, max_samples below 2 or pilot below 32, an unknown design; at the call, max_samples
            below two blocks, or a design that fits no factor of the group.
        TypeError: tol not a number.
    """

    tol: float
    max_samples: int = 1024
    pilot: int = 32
    chunk: int = 16
    design: str | Design | tuple[str | Design, ...] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.tol, Real) or isinstance(self.tol, bool):
            raise TypeError(f"tol: expected a positive number, got {self.tol!r}")
        if not self.tol > 0:
            raise ValueError(f"tol: expected a positive number, got {self.tol}")
        object.__setattr__(self, "tol", float(self.tol))
        for name, least in (("chunk", 1), ("max_samples", 2), ("pilot", 32)):
            object.__setattr__(self, name, whole_number(name, getattr(self, name), least))
        as_design(self.design)

    def __call__(self, integrand: Integrand) -> Estimate:
        if integrand.noise is not None:
            raise ValueError("noise: Adaptive draws its own; pass a generator instead")
        block = as_design(self.design).length(integrand)
        if self.max_samples < 2 * block:
            raise ValueError(f"max_samples: expected at least two blocks of {block}, got {self.max_samples}")
        pilot, aux = _Totals(integrand, block), dict[str, Tensor]()
        for step in self._steps(max(math.ceil(self.pilot / block), 2), block):
            y, aux = self._draw(integrand, step * block)
            pilot.add(y, integrand)
        square = integrand.size(pilot.variance()) * (1 + math.sqrt(2 / (pilot.count - 1)))
        square = square.masked_fill(~square.isfinite(), math.inf)
        totals, drawn = self._answer(integrand, self._wanted(square, block), block)
        error = [
            ((a + b) / (n + pilot.count - 2) / n).sqrt()
            for a, b, n in zip(pilot.square, totals.square, totals.counts(drawn), strict=True)
        ]
        aux = merged(aux, {"above_tol": (square > drawn * self.tol**2).sum()})
        mean, error = totals.narrow(totals.mean), totals.narrow_errors(error)
        return Estimate(integrand.rebuild(mean), integrand.rebuild(error), drawn * block, aux)

    def _draw(self, integrand: Integrand, samples: int) -> tuple[list[Tensor], dict[str, Tensor]]:
        """Outputs (K, ...) of fresh samples, and counters."""
        design = as_design(self.design)
        block, weights = design.length(integrand), design.weights(integrand)
        g, aux = design.draw(integrand, samples)
        parts = [
            integrand.scaled(integrand.evaluate(g.select(part), None), weights, part)
            for part in slices(samples, block, self.chunk)
        ]
        return [torch.cat(y) for y in zip(*parts, strict=True)], aux

    def _together(self, block: int) -> int:
        """Blocks drawn at once: those of a chunk, at least one."""
        return max(self.chunk // block, 1)

    def _steps(self, blocks: int, block: int) -> list[int]:
        step = self._together(block)
        return [min(step, blocks - start) for start in range(0, blocks, step)]

    def _wanted(self, square: Tensor, block: int) -> Tensor:
        """Fresh blocks (B,) for a variance of one block (B,)."""
        most, step = self.max_samples // block, self._together(block)
        count = (square / self.tol**2 / step).ceil().clamp(1, most) * step
        return count.clamp(2, most).long()

    def _answer(self, integrand: Integrand, wanted: Tensor, block: int) -> tuple[_Totals, Tensor]:
        """Moments of the fresh blocks and how many an input has (B,); the batch shrinks to those that want more."""
        design, totals, drawn = as_design(self.design), _Totals(integrand, block), torch.zeros_like(wanted)
        active, part = torch.ones_like(wanted, dtype=torch.bool), integrand
        for step in self._steps(int(wanted.max()) if wanted.numel() else 1, block):
            still = wanted > totals.count
            if not torch.equal(still, active):
                smaller = integrand.restrict(still)
                # blocks of shifts are as long as the largest graph of a ragged batch: without it they would change
                if design.length(smaller) == block:
                    active, part = still, smaller
            y, _ = self._draw(part, step * block)
            totals.add(y, part, active)
            drawn = drawn + step * active
        return totals, drawn


class _Totals(Widened):
    """Moments of the block means of a whole batch, fed by smaller and smaller parts of it."""

    def __init__(self, integrand: Integrand, block: int) -> None:
        super().__init__()
        self.integrand, self.block = integrand, block
        self.count = 0
        self.mean: list[Tensor] = []
        self.square: list[Tensor] = []

    def add(self, outputs: list[Tensor], part: Integrand, active: Tensor | None = None) -> None:
        """Add outputs (K, ...) of the inputs marked in `active`, each of which has `count` blocks already."""
        fresh = len(outputs[0]) // self.block
        for i, y in enumerate(block_means(self.widen(outputs), self.block)):
            mean = y.mean(0)
            square = square_size((y - mean).detach()).sum(0)
            if i == len(self.mean):
                self.mean.append(mean)
                self.square.append(square)
                continue
            rows = None if active is None or bool(active.all()) else self.rows(active, i)
            old, spread = (t if rows is None else t[rows] for t in (self.mean[i], self.square[i]))
            delta, share = mean - old, fresh / (self.count + fresh)
            mean, square = old + delta * share, spread + square + square_size(delta.detach()) * self.count * share
            self.mean[i], self.square[i] = (
                new if rows is None else whole.index_copy(0, rows, new)
                for whole, new in ((self.mean[i], mean), (self.square[i], square))
            )
        self.count += fresh

    def rows(self, active: Tensor, i: int) -> Tensor:
        """Rows of output i that belong to the marked inputs."""
        return self.integrand.spread(active, i, len(self.mean[i])).nonzero().squeeze(-1)

    def variance(self) -> list[Tensor]:
        return [s / (self.count - 1) for s in self.square]

    def counts(self, wanted: Tensor) -> list[Tensor]:
        """Numbers (B,) of the inputs, shaped to broadcast on every output."""
        return [n[0] for n in self.integrand.align(wanted[None], [s[None] for s in self.square])]
