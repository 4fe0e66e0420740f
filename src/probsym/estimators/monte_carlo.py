"""The mean of k samples: independent ones, or designs that share the error out among a block of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from torch import Tensor

from probsym.distributions import EquivariantDistribution, Noise
from probsym.distributions.base import joined, map_tensors, sliced
from probsym.distributions.diagnostics import Diagnostics, merged
from probsym.estimators.design import repeat
from probsym.estimators.designs import DesignLike, as_design, checked_sampling
from probsym.estimators.estimate import Estimate
from probsym.estimators.estimator import Estimator, IndependentPart, OrbitMap, Source
from probsym.estimators.moments import BlockMoments
from probsym.estimators.pages import PagedDiagnostics
from probsym.estimators.recomputation import Recomputed
from probsym.estimators.samples import sample_counts
from probsym.members import register
from probsym.reps import Inputs


@register
@dataclass(frozen=True)
class MonteCarlo(Estimator):
    """The mean of k samples.

        mean = 1/k sum_k g_k f(g_k^-1 x),    stderr = s / sqrt(k)

    With a design the samples come in blocks of size m (cosets, pairs, scrambles); s is then the spread of the k / m
    block means, and m takes the place of one sample. With a learned p, a design of cosets of a finite group H averages
    over p * Unif(H) instead of p: a different model, equivariant as well, so train and evaluate with the same design.

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
    design: DesignLike = None

    def __post_init__(self) -> None:
        k, chunk = checked_sampling(self.k, self.chunk, self.design)
        object.__setattr__(self, "k", k)
        object.__setattr__(self, "chunk", chunk)

    def __call__(self, p: EquivariantDistribution, x: Inputs, orbit: OrbitMap, source: Source) -> Estimate:
        if self.chunk is not None and self.chunk < self.k:
            return self._in_chunks(p, x, orbit, source, self.chunk)
        if self.design is not None:
            return self._in_blocks(p, x, orbit, source)
        diagnostics = Diagnostics() if source.statistics else None
        noise = source.draw(p, x, self.k)  # all randomness, (K, B, ...)
        g = p.transport(x, noise, diagnostics)  # elements g_k ~ p(g|x), batch shape (K, B)
        samples = orbit(x, g)  # g_k f(g_k^-1 x)
        if diagnostics is None:
            return Estimate(samples.mean(), None, samples.counts)
        return Estimate(samples.mean(), samples.standard_error(), samples.counts, merged(diagnostics))

    def _in_blocks(self, p: EquivariantDistribution, x: Inputs, orbit: OrbitMap, source: Source) -> Estimate:
        """The same with a design: blocks of samples take the place of samples."""
        design = as_design(self.design)
        diagnostics = Diagnostics() if source.statistics else None
        g = design.elements(p, x, self.k, source, diagnostics)
        samples = orbit(x, g).weighted(design.weights(p, x))
        if diagnostics is None:
            return Estimate(samples.mean(), None, samples.counts)
        error = samples.standard_error(design.block_size(p, x))
        return Estimate(samples.mean(), error, samples.counts, merged(diagnostics))

    def _in_chunks(
        self, p: EquivariantDistribution, x: Inputs, orbit: OrbitMap, source: Source, chunk: int
    ) -> Estimate:
        """The same, holding the elements of one page and the outputs of one chunk at a time."""
        design = as_design(self.design)
        block = design.block_size(p, x)
        weights = design.weights(p, x)
        blocks = BlockMoments(block, source.statistics)
        pages = PagedDiagnostics()
        recomputed = Recomputed(orbit)
        for g, diagnostics in design.element_pages(p, x, self.k, source):
            for part in slices(g.shape[0], block, chunk):
                blocks.add(recomputed(x, g.select(part)).weighted(weights, part.start))
            pages.add(diagnostics, g.shape[0])
        error = blocks.standard_error() if source.statistics else None
        return Estimate(blocks.mean(), error, sample_counts(x, self.k), pages.merged())

    def draw(self, p: EquivariantDistribution, x: Inputs, source: Source) -> Noise:
        """All noise of an estimate, of sample shape (k,), as a call takes it by `noise=`.

        Where the design makes several samples of a draw, it takes the first of each block of what is given, so that
        draws stand here as often as they are used.
        """
        design = as_design(self.design)
        drawn = joined(list(design.noise_pages(p, x, self.k, source)))
        times = design.samples_per_draw(p, x)
        return map_tensors(drawn, lambda tensor: repeat(tensor, times))

    def independent_parts(self, p: EquivariantDistribution, x: Inputs, source: Source) -> Iterator[IndependentPart]:
        """The k / m blocks of the design, with the samples of a call, as many at once as `chunk` allows."""
        block = as_design(self.design).block_size(p, x)
        noise = self.draw(p, x, source)
        count = self.k // block
        at_once = count
        of_one = self.chunk
        if self.chunk is not None:
            at_once = max(self.chunk // block, 1)
            of_one = min(self.chunk, block)
        part = MonteCarlo(block, of_one, self.design)

        for start in range(0, count, at_once):
            times = min(at_once, count - start)

            # (times * block, B, ...) -> (block, times * B, ...): a block belongs to a copy of the inputs
            def beside(tensor: Tensor, times: int = times) -> Tensor:
                return tensor.unflatten(0, (times, block)).transpose(0, 1).flatten(1, 2)

            own = sliced(noise, slice(start * block, (start + times) * block))
            yield IndependentPart(part, times, replace(source, noise=map_tensors(own, beside)))


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
