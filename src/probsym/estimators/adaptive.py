"""As many samples as each input needs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from numbers import Real

import torch
from torch import Tensor

from probsym.distributions import EquivariantDistribution
from probsym.distributions.diagnostics import Diagnostics, merged
from probsym.estimators.designs import Design, DesignLike, as_design
from probsym.estimators.estimate import Estimate
from probsym.estimators.estimator import Estimator, OrbitMap, Source
from probsym.estimators.moments import WideSums, absolute_square
from probsym.estimators.monte_carlo import slices
from probsym.estimators.samples import OutputSamples, block_means, concatenated
from probsym.groups.whole import whole_number
from probsym.members import register
from probsym.reps import Inputs
from probsym.reps.outputs import OutputStructure


@register
@dataclass(frozen=True)
class Adaptive(Estimator):
    """As many samples as each input needs for a standard error below `tol`.

    Two stages (Stein 1945): a pilot of independent samples measures the spread, then fresh samples give the answer, so
    that stopping does not bias it. The spread of an input is

        s^2 = max over outputs, nodes and channels of the trace of the covariance over the space axes,

    which no rotation, reflection or permutation changes, so that equivalent inputs get equally many samples, in
    distribution; no entry has a larger variance. The number of fresh samples is n = (s / tol)^2, with a margin of one
    standard deviation of s^2, rounded up to whole chunks. Inputs that have theirs leave the batch. `stderr` is
    elementwise and pools the variances of both stages. With a design the mean of a block takes the place of a sample,
    in both stages; few blocks tell the spread badly, so give a pilot of many.

    Args:
        tol: wanted standard error of each input, in units of the output.
        max_samples: largest number of fresh samples per input; `diagnostics["above_tol"]` counts inputs that would need
            more, among them those whose outputs are not finite.
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
    design: DesignLike = None

    def __post_init__(self) -> None:
        if not isinstance(self.tol, Real) or isinstance(self.tol, bool):
            raise TypeError(f"tol: expected a positive number, got {self.tol!r}")
        if not self.tol > 0:
            raise ValueError(f"tol: expected a positive number, got {self.tol}")
        object.__setattr__(self, "tol", float(self.tol))
        for name, least in (("chunk", 1), ("max_samples", 2), ("pilot", 32)):
            object.__setattr__(self, name, whole_number(name, getattr(self, name), least))
        as_design(self.design)

    def __call__(self, p: EquivariantDistribution, x: Inputs, orbit: OrbitMap, source: Source) -> Estimate:
        source.refuse_noise(self)
        design = as_design(self.design)
        block = design.block_size(p, x)
        if self.max_samples < 2 * block:
            raise ValueError(f"max_samples: expected at least two blocks of {block}, got {self.max_samples}")

        # 1. The pilot: the variance of one block, with a margin for what so few blocks tell of it.
        pilot = _ShrinkingMoments(block)
        diagnostics: dict[str, Tensor] = {}
        for blocks in self._steps(max(math.ceil(self.pilot / block), 2), block):
            diagnostics = Diagnostics()
            pilot.add(self._draw(design, blocks * block, p, x, orbit, source, diagnostics))
        margin = 1 + math.sqrt(2 / (pilot.count - 1))
        variance = pilot.whole.largest_variance(pilot.variances()) * margin
        variance = variance.masked_fill(~variance.isfinite(), math.inf)

        # 2. How many fresh blocks each input gets (B,).
        wanted = self._wanted_blocks(variance, block)

        # 3. Fresh blocks. Inputs that have theirs leave the batch.
        fresh = _ShrinkingMoments(block)
        drawn = torch.zeros_like(wanted)  # blocks of each input so far (B,)
        active = torch.ones_like(wanted, dtype=torch.bool)
        remaining = x
        for blocks in self._steps(int(wanted.max()) if wanted.numel() else 1, block):
            waiting = wanted > fresh.count
            if not torch.equal(waiting, active):
                smaller = x.select(waiting)
                # blocks of shifts are as long as the largest graph of a ragged batch: without it they would change
                if design.block_size(p, smaller) == block:
                    active, remaining = waiting, smaller
            fresh.add(self._draw(design, blocks * block, p, remaining, orbit, source), active)
            drawn = drawn + blocks * active

        # 4. The mean of the fresh blocks; its error from the spread within both stages.
        errors = []
        for in_pilot, in_fresh, count in zip(pilot.squares, fresh.squares, fresh.align(drawn), strict=True):
            errors.append(((in_pilot + in_fresh) / (count + pilot.count - 2) / count).sqrt())
        mean = fresh.whole.build(fresh.narrow(fresh.means))
        error = fresh.whole.build(fresh.narrow_errors(errors))
        above = {"above_tol": (variance > drawn * self.tol**2).sum()}
        return Estimate(mean, error, drawn * block, merged(diagnostics, above))

    def _draw(
        self,
        design: Design,
        k: int,
        p: EquivariantDistribution,
        x: Inputs,
        orbit: OrbitMap,
        source: Source,
        diagnostics: dict[str, Tensor] | None = None,
    ) -> OutputSamples:
        """k fresh samples, evaluated in chunks."""
        weights = design.weights(p, x)
        g = design.elements(p, x, k, source, diagnostics if source.statistics else None)
        parts = []
        for part in slices(k, design.block_size(p, x), self.chunk):
            parts.append(orbit(x, g.select(part)).weighted(weights, part.start))
        return concatenated(parts)

    def _blocks_at_once(self, block: int) -> int:
        """Blocks drawn at once: those of a chunk, at least one."""
        return max(self.chunk // block, 1)

    def _steps(self, blocks: int, block: int) -> Iterator[int]:
        """A number of blocks in steps of those drawn at once."""
        step = self._blocks_at_once(block)
        for start in range(0, blocks, step):
            yield min(step, blocks - start)

    def _wanted_blocks(self, variance: Tensor, block: int) -> Tensor:
        """Fresh blocks (B,) for a variance of one block (B,)."""
        most = self.max_samples // block
        step = self._blocks_at_once(block)
        count = (variance / self.tol**2 / step).ceil().clamp(1, most) * step
        return count.clamp(2, most).long()


class _ShrinkingMoments(WideSums):
    """Moments of the block means of a whole batch, fed by smaller and smaller parts of it.

    Attributes:
        count: blocks of every input that is still fed. means: of each output. squares: sums of squared deviations.
        whole: the structure of the outputs of the whole batch.
    """

    whole: OutputStructure

    def __init__(self, block: int) -> None:
        super().__init__()
        self.block = block
        self.count = 0
        self.means: list[Tensor] = []
        self.squares: list[Tensor] = []

    def add(self, samples: OutputSamples, active: Tensor | None = None) -> None:
        """Add samples of the inputs marked in `active` (B,), each of which has `count` blocks already; None for all."""
        if not self.means:
            self.whole = samples.structure
        fresh = samples.count // self.block
        for i, wide in enumerate(self.widen(samples)):
            y = block_means(wide, self.block)
            mean = y.mean(0)
            square = absolute_square((y - mean).detach()).sum(0)
            if i == len(self.means):
                self.means.append(mean)
                self.squares.append(square)
                continue

            # Two sets of blocks become one (Chan, Golub and LeVeque 1979), in the rows of the active inputs.
            rows = None
            if active is not None and not bool(active.all()):
                rows = self.whole.per_row(active, i, len(self.means[i])).nonzero().squeeze(-1)
            old_mean = self.means[i] if rows is None else self.means[i][rows]
            old_square = self.squares[i] if rows is None else self.squares[i][rows]
            delta = mean - old_mean
            share = fresh / (self.count + fresh)
            mean = old_mean + delta * share
            square = old_square + square + absolute_square(delta.detach()) * self.count * share
            if rows is not None:
                mean = self.means[i].index_copy(0, rows, mean)
                square = self.squares[i].index_copy(0, rows, square)
            self.means[i] = mean
            self.squares[i] = square
        self.count += fresh

    def variances(self) -> list[Tensor]:
        """The variance of one block, of each output."""
        return [square / (self.count - 1) for square in self.squares]

    def align(self, counts: Tensor) -> list[Tensor]:
        """Numbers (B,) per input, shaped to broadcast on each output."""
        aligned = self.whole.align(counts[None], [square[None] for square in self.squares])
        return [count[0] for count in aligned]
