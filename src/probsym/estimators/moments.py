"""Running mean and spread of samples that come chunk by chunk, so that they need not be held together."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from probsym.estimators.samples import OutputSamples, block_means
from probsym.kernels.precision import real_dtype, wide
from probsym.reps.outputs import OutputStructure


class WideSums:
    """Sums of outputs of any precision in at least single precision, and the way back to that of the outputs.

    Attributes:
        structure: that of the samples that were added last.
    """

    structure: OutputStructure

    def __init__(self) -> None:
        self.dtypes: list[torch.dtype] = []

    def widen(self, samples: OutputSamples) -> list[Tensor]:
        """The tensors of the samples in at least single precision; remembers what they were, and their structure."""
        self.structure = samples.structure
        self.dtypes = [tensor.dtype for tensor in samples.tensors]
        return [wide(tensor) for tensor in samples.tensors]

    def narrow(self, values: list[Tensor]) -> list[Tensor]:
        """Values in the precision of the outputs."""
        return [value.to(dtype) for value, dtype in zip(values, self.dtypes, strict=True)]

    def narrow_errors(self, errors: list[Tensor]) -> list[Tensor]:
        """Standard errors in the precision of the outputs: real, also for complex outputs."""
        return [error.to(real_dtype(dtype)) for error, dtype in zip(errors, self.dtypes, strict=True)]


class Moments(WideSums):
    """Weighted mean and spread over the sample axis.

    Attributes:
        means: of each output sum_k w_k y_k / sum_k w_k. squares: sum_k w_k |y_k - mean|^2. totals: sum_k w_k.
    """

    def __init__(self) -> None:
        super().__init__()
        self.means: list[Tensor] = []
        self.squares: list[Tensor] = []
        self.totals: list[Tensor] = []

    def mean(self) -> Any:
        """The mean, in containers as the model returns them."""
        return self.structure.build(self.narrow(self.means))

    def standard_error(self, scale: Tensor) -> Any:
        """sqrt(scale * square), where the weights sum to one; `scale` (B,) is 1 / (k - 1) for k samples of weight 1/k.

        It is infinite where the scale is.
        """
        squares = [square[None] for square in self.squares]
        errors = []
        for square, aligned in zip(self.squares, self.structure.align(scale[None], squares), strict=True):
            factor = aligned[0].expand_as(square)
            unknown = factor.isinf()
            finite = (square * torch.where(unknown, 0, factor)).sqrt()
            errors.append(torch.where(unknown, math.inf, finite))
        return self.structure.build(self.narrow_errors(errors))

    def as_sample(self) -> OutputSamples:
        """The mean as one sample (1, ...) of an outer average."""
        return OutputSamples([mean[None] for mean in self.narrow(self.means)], self.structure)

    def add(self, samples: OutputSamples, weights: Tensor | None, spread: bool) -> None:
        """Add K samples.

        Args:
            weights: (K, B); None for weight one. spread: whether the squares are wanted.
        """
        values = self.widen(samples)
        if weights is None:
            aligned = [_ones(value) for value in values]
        else:
            aligned = samples.structure.align(weights, values)
        for i, (y, w) in enumerate(zip(values, aligned, strict=True)):
            total = w.sum(0)
            mean = (w * y).sum(0) / torch.where(total > 0, total, 1)
            square = torch.zeros_like(total)
            if spread:
                square = (w * absolute_square((y - mean).detach())).sum(0)
            if i == len(self.means):
                self.means.append(mean)
                self.squares.append(square)
                self.totals.append(total)
                continue

            # Two sets of samples become one (Chan, Golub and LeVeque 1979).
            joint = self.totals[i] + total
            share = total / torch.where(joint > 0, joint, 1)
            delta = mean - self.means[i]
            if spread:
                self.squares[i] = self.squares[i] + square + absolute_square(delta.detach()) * self.totals[i] * share
            self.means[i] = self.means[i] + delta * share
            self.totals[i] = joint

    def add_shares(self, samples: OutputSamples, weights: Tensor) -> None:
        """Add samples whose weights (K, B) sum to one over all that will be added. The mean alone, at less cost."""
        values = self.widen(samples)
        aligned = samples.structure.align(weights, values)
        first = not self.means
        for i, (y, w) in enumerate(zip(values, aligned, strict=True)):
            if first:
                self.means.append(w[0] * y[0] if len(y) == 1 else (w * y).sum(0))
            elif len(y) == 1:
                self.means[i] = torch.addcmul(self.means[i], w[0], y[0])
            else:
                self.means[i] = self.means[i] + (w * y).sum(0)

    def add_equal(self, samples: OutputSamples, share: float) -> None:
        """Add samples that all have the weight `share`. The mean alone, at less cost."""
        first = not self.means
        for i, y in enumerate(self.widen(samples)):
            total = y[0] if len(y) == 1 else y.sum(0)
            if first:
                self.means.append(total * share)
            else:
                self.means[i] = self.means[i].add_(total, alpha=share)


class BlockMoments(WideSums):
    """Mean and spread of block means, from chunks of whole blocks or of a part of one.

    Args:
        block: samples in a block. spread: whether the spread is wanted.
    """

    def __init__(self, block: int, spread: bool) -> None:
        super().__init__()
        self.block = block
        self.spread = spread
        self.moments = Moments()
        self.blocks = 0  # whole blocks so far
        self.begun: list[Tensor] = []  # sums over the block that has begun
        self.samples_begun = 0

    def add(self, samples: OutputSamples) -> None:
        """Add K samples of equal weight."""
        values = self.widen(samples)
        if samples.count % self.block == 0:
            means = [block_means(value, self.block) for value in values]
        else:
            # A part of a block: summed up until the block is complete.
            sums = [value.sum(0) for value in values]
            if self.samples_begun:
                sums = [new + old for new, old in zip(sums, self.begun, strict=True)]
            self.begun = sums
            self.samples_begun += samples.count
            if self.samples_begun < self.block:
                return
            self.samples_begun = 0
            means = [total[None] / self.block for total in sums]
        self.moments.add(OutputSamples(means, samples.structure), None, self.spread)
        self.blocks += len(means[0])

    def mean(self) -> Any:
        """The mean, in containers as the model returns them."""
        return self.structure.build(self.narrow(self.moments.means))

    def errors(self) -> list[Tensor]:
        """The standard error of the mean of each output; inf for one block."""
        errors = []
        for square in self.moments.squares:
            if self.blocks < 2:
                errors.append(torch.full_like(square, math.inf))
            else:
                errors.append((square / (self.blocks - 1) / self.blocks).sqrt())
        return self.narrow_errors(errors)

    def standard_error(self) -> Any:
        """`errors`, in containers as the model returns them."""
        return self.structure.build(self.errors())


def _ones(value: Tensor) -> Tensor:
    """Weights of one (K, 1, ...) for samples (K, ...)."""
    shape = (len(value), *[1] * (value.ndim - 1))
    return torch.ones(shape, dtype=real_dtype(value.dtype), device=value.device)


def absolute_square(y: Tensor) -> Tensor:
    """|y|^2, elementwise and real: y^2, or for complex y the squares of both parts added up."""
    if y.is_complex():
        return torch.view_as_real(y).square().sum(-1)
    return y.square()
