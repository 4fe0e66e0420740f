"""The mean of k samples: independent ones, or designs that share the error out among a block of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from probsym.estimators.base import (
    Blocks,
    Counters,
    Estimate,
    Estimator,
    Integrand,
    standard_error,
)
from probsym.estimators.designs import Design, as_design, check_sampling
from probsym.kernels.precision import wide
from probsym.members import register


@register
@dataclass(frozen=True)
class MonteCarlo(Estimator):
    """The mean of k samples.

        mean = 1/k sum_k g_k f(g_k^-1 x),    stderr = s / sqrt(k)

    With a design the samples come in blocks of size m (cosets, pairs, scrambles); s is then the spread of the k / m
    block means, and m takes the place of one sample. Cosets of a finite group H make another, as equivariant model of a
    learned p, p * Unif(H): train with the design that you evaluate with.

    Args:
        k: number of samples, a multiple of the design's block.
        chunk: samples evaluated at once; bounds memory, in training by recomputing chunks in backward (under
            torch.compile the compiler decides what to keep). The samples do not depend on it, nor does the result, up
            to rounding, but for what a model does to its rows together or at random: in training BatchNorm normalises
            each chunk by itself and updates its running statistics once a chunk (the recomputation leaves them alone),
            and dropout draws chunk by chunk.
        design: a name of `probsym.designs.DESIGNS` ("octahedral", "antithetic", "sobol", ...) or a `Design`; a tuple
            of them joins cosets on several factors; None takes independent samples.

    Raises:
        ValueError: k or chunk below one, an unknown design, k no multiple of its block; at the call, a design that
            fits no factor of the group.

    >>> MonteCarlo(48, design="octahedral")
    MonteCarlo(k=48, chunk=None, design='octahedral')
    """

    k: int
    chunk: int | None = None
    design: str | Design | tuple[str | Design, ...] | None = None

    def __post_init__(self) -> None:
        check_sampling(self)

    def __call__(self, integrand: Integrand) -> Estimate:
        design = as_design(self.design)
        if self.chunk is None or self.chunk >= self.k:
            g, aux = design.draw(integrand, self.k)
            count = g.shape[0]
            y = integrand.scaled(integrand.evaluate(g, None), design.weights(integrand), slice(0, count))
            mean, error = [_mean(t) if count > 1 else t.squeeze(0) for t in y], []
            if integrand.statistics:
                error = [standard_error(t, design.length(integrand)) for t in y]
        else:
            mean, error, count, aux = self._in_chunks(design, integrand)
        return Estimate(integrand.rebuild(mean), integrand.rebuild(error) if integrand.statistics else None,
                        integrand.counts(count), aux)  # fmt: skip

    def _in_chunks(
        self, design: Design, integrand: Integrand
    ) -> tuple[list[Tensor], list[Tensor], int, dict[str, Tensor]]:
        """Mean, standard error, samples and counters, holding the elements of one page and the outputs of one chunk."""
        block, aux = design.length(integrand), Counters()
        blocks, weights = Blocks(block, integrand.statistics), design.weights(integrand)
        for g, counters in design.pages(integrand, self.k):
            for part in slices(g.shape[0], block, self.chunk):  # type: ignore[arg-type]
                blocks.add(integrand.scaled(integrand.run(g.select(part)), weights, part))
            aux.add(counters, g.shape[0])
        return blocks.result(), blocks.error(aux.samples // block), aux.samples, aux.values()


def _mean(y: Tensor) -> Tensor:
    """The mean over axis 0; torch has none of halves of complex numbers."""
    return wide(y).mean(0).to(y.dtype) if y.dtype == torch.complex32 else y.mean(0)


def slices(count: int, block: int, chunk: int) -> Iterator[slice]:
    """Chunks of at most `chunk` samples that are whole blocks, or parts of one.

    >>> [(s.start, s.stop) for s in slices(8, 4, 3)]
    [(0, 3), (3, 4), (4, 7), (7, 8)]
    """
    whole = chunk - chunk % block if chunk >= block else block
    for start in range(0, count, whole):
        stop = min(start + whole, count)
        for first in range(start, stop, chunk):
            yield slice(first, min(first + chunk, stop))
