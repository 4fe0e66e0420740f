"""The samples g_k f(g_k^-1 x) of every output of a model."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from probsym.kernels.precision import real_dtype, wide
from probsym.reps import Inputs
from probsym.reps.outputs import OutputStructure


@dataclass(frozen=True, eq=False)
class OutputSamples:
    """K samples g_k f(g_k^-1 x) of every output of a model.

    Args:
        tensors: one per declared output, (K, B, ...), in a ragged batch (K, sum N, ...).
        structure: the Reps of the outputs, and the containers that they go back into.
    """

    tensors: list[Tensor]
    structure: OutputStructure

    @property
    def count(self) -> int:
        """Number of samples K."""
        return self.tensors[0].shape[0]

    @property
    def counts(self) -> Tensor:
        """Number of samples of each input (B,), as in `Estimate.samples`."""
        return sample_counts(self.structure.x, self.count)

    def build(self, tensors: list[Tensor]) -> Any:
        """One tensor per output, in containers as the model returns them."""
        return self.structure.build(tensors)

    def mean(self) -> Any:
        """The mean over the samples, in containers as the model returns them."""
        return self.build([_mean(tensor) for tensor in self.tensors])

    def standard_error(self, block: int = 1) -> Any:
        """The standard error of the mean, from the means of blocks of consecutive samples; inf for one block."""
        return self.build([_standard_error(tensor, block) for tensor in self.tensors])

    def weighted(self, weights: Tensor | None, start: int = 0) -> OutputSamples:
        """The samples times their weights. Those of weight zero are zero, even if they are not finite.

        Integers, which are never averaged, stay as they are.

        Args:
            weights: (M, B), the same for every block of M samples; None for one.
            start: number of the first of these samples among all.
        """
        if weights is None:
            return self
        number = torch.arange(start, start + self.count, device=weights.device) % len(weights)
        aligned = self.structure.align(weights[number], self.tensors)
        scaled = []
        for weight, tensor in zip(aligned, self.tensors, strict=True):
            if not (tensor.is_floating_point() or tensor.is_complex()):
                scaled.append(tensor)
                continue
            scaled.append((weight * tensor.masked_fill(weight == 0, 0)).to(tensor.dtype))
        return OutputSamples(scaled, self.structure)


def concatenated(parts: list[OutputSamples]) -> OutputSamples:
    """All samples of several chunks."""
    tensors = [torch.cat(chunks) for chunks in zip(*(part.tensors for part in parts), strict=True)]
    return OutputSamples(tensors, parts[0].structure)


def sample_counts(x: Inputs, k: int) -> Tensor:
    """k for each input (B,)."""
    return torch.full((x.count,), k, dtype=torch.long, device=x.device)


def _mean(samples: Tensor) -> Tensor:
    """The mean over axis 0."""
    if len(samples) == 1:
        return samples.squeeze(0)
    if samples.dtype == torch.complex32:  # torch has no mean of halves of complex numbers
        return wide(samples).mean(0).to(samples.dtype)
    return samples.mean(0)


def _standard_error(samples: Tensor, block: int) -> Tensor:
    """The standard error of the mean over axis 0: s / sqrt(J) for J block means of standard deviation s."""
    means = block_means(wide(samples.detach()), block)
    dtype = real_dtype(samples.dtype)
    if len(means) < 2:
        return torch.full_like(samples[0], math.inf, dtype=dtype)
    return (means.std(0) / math.sqrt(len(means))).to(dtype)


def block_means(samples: Tensor, block: int) -> Tensor:
    """Means over blocks of consecutive samples: (K, ...) -> (K / block, ...)."""
    if block == 1:
        return samples
    return samples.unflatten(0, (-1, block)).mean(1)
