"""Averages over finite supports: exact, and hybrid with samples of the rest."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from probsym.distributions import EquivariantDistribution
from probsym.distributions.base import Support
from probsym.distributions.diagnostics import merged
from probsym.estimators.designs import DesignLike, as_design, checked_sampling
from probsym.estimators.estimate import Estimate
from probsym.estimators.estimator import Estimator, IndependentPart, OrbitMap, Source
from probsym.estimators.moments import BlockMoments, Moments
from probsym.estimators.pages import PagedDiagnostics
from probsym.estimators.recomputation import Recomputed
from probsym.groups.whole import positive
from probsym.members import register
from probsym.reps import Inputs

CPU_CHUNK_ENTRIES = 2**16  # numbers of input evaluated at once on a CPU, so that its caches hold what a model makes


@register
@dataclass(frozen=True)
class Exact(Estimator):
    """The weighted mean over all elements of a finite distribution.

        mean = sum_m w_m g_m f(g_m^-1 x)

    Poses g_m^-1 x of weight zero are never evaluated, so that neither cost nor the statistics of BatchNorm depend on
    them. In evaluation mode, under a finite group, equal ones are evaluated once (unless a gradient flows to the
    inputs). Inputs that only sampling can serve (a continuous stabilizer, too many elements) are sampled, counted in
    `diagnostics`, and have a standard error. It is infinite where the rounding of the input decides which elements
    there are; for all others it is zero.

    Args:
        chunk: elements evaluated at once, in training as in `MonteCarlo`. None is all, but on a CPU without gradients
            as many as suit its caches.

    Raises:
        TypeError: at the call, the distribution has no finite support; `Hybrid` samples the infinite factors.
    """

    chunk: int | None = None

    def __post_init__(self) -> None:
        if self.chunk is not None:
            object.__setattr__(self, "chunk", positive("chunk", self.chunk))

    def __call__(self, p: EquivariantDistribution, x: Inputs, orbit: OrbitMap, source: Source) -> Estimate:
        support = p.support(x, source.generator)
        moments = weighted_moments(
            x, orbit, support, self.chunk, deduplicate=p.group.finite, statistics=source.statistics
        )
        error = moments.standard_error(_error_scale(support)) if source.statistics else None
        return Estimate(moments.mean(), error, support.count, support.diagnostics)

    def independent_parts(self, p: EquivariantDistribution, x: Inputs, source: Source) -> Iterator[IndependentPart]:
        """The one estimate that it is."""
        yield IndependentPart(self, 1, source)


def _error_scale(support: Support) -> Tensor:
    """What turns the weighted squares into a variance of the mean (B,): 1 / (draws - 1), zero where nothing was drawn.

    Pairs of a product share draws; their spread, that of the exact factors included, bounds that of the draws.
    """
    degrees_of_freedom = (support.independent - 1).clamp_min(0).to(support.weight.dtype)
    scale = torch.where(support.exact, 0.0, degrees_of_freedom.reciprocal())  # inf for one draw
    if support.unsure is not None:
        scale = scale.masked_fill(support.unsure, math.inf)
    return scale


def weighted_moments(
    x: Inputs, orbit: OrbitMap, support: Support, chunk: int | None, deduplicate: bool, statistics: bool
) -> Moments:
    """The weighted mean over the elements of a support.

    Args:
        chunk: elements evaluated at once; None for a number that suits the machine.
        deduplicate: whether to look for equal poses, which elements of a finite group may make.
        statistics: whether the weighted squares are wanted, too.
    """
    count = len(support.weight)
    step = chunk or _fitting_chunk(x, max(count, 1))
    evaluate: OrbitMap = Recomputed(orbit) if step < count else orbit

    # In training equal poses have noise of their own (dropout), and each its share in the statistics of BatchNorm.
    deduplicate = deduplicate and not orbit.training

    moments = Moments()
    for start in range(0, count, step):
        part = slice(start, start + step)

        # 1. Which elements of this chunk count for which input; None for all.
        active = None
        if not support.uniform or (deduplicate and step > 1):
            active = support.weight[part] > 0
        if start and active is not None and not torch.compiler.is_compiling() and not active.any():
            continue  # no input has these elements: of products, and where padding is wider than the largest

        # 2. The samples of the others, added up as cheaply as can be.
        g = support.element if step >= count else support.element.select(part)
        samples = evaluate(x, g, active, deduplicate)
        if statistics:
            moments.add(samples, support.weight[part], spread=True)
        elif support.uniform:
            moments.add_equal(samples, 1 / count)
        else:
            moments.add_shares(samples, support.weight[part])
    return moments


def _fitting_chunk(x: Inputs, count: int) -> int:
    """Elements at once: all where gradients keep their memory anyway, on a CPU about `CPU_CHUNK_ENTRIES` of input."""
    if torch.is_grad_enabled() or x.device.type != "cpu" or torch.compiler.is_compiling():
        return count
    entries = sum(leaf.value.numel() for leaf in x.leaves.values())
    return max(1, min(count, CPU_CHUNK_ENTRIES // max(entries, 1)))


@register
@dataclass(frozen=True)
class Hybrid(Estimator):
    """Finite factors enumerated, the others sampled k times; each sample meets all elements.

        mean = 1/k sum_k sum_m w_m (a_m b_k) f((a_m b_k)^-1 x),    a_m all of the finite factors, b_k samples

    What depends on the finite factors is exact: the estimate is equivariant to them at every k. The standard error is
    the spread over k, or over the blocks of a design; zero if nothing had to be sampled.

    Args:
        k: samples of the factors that are not finite; the model is called on k times as many rows as the finite factors
            have elements.
        chunk: elements evaluated at once, in training as in `MonteCarlo`.
        design: of the samples, as in `MonteCarlo`.

    Raises:
        ValueError: k or chunk below one, an unknown design, k no multiple of its block; at the call, a design that
            fits none of the sampled factors.
        TypeError: at the call, no factor is finite.
    """

    k: int
    chunk: int | None = None
    design: DesignLike = None

    def __post_init__(self) -> None:
        k, chunk = checked_sampling(self.k, self.chunk, self.design)
        object.__setattr__(self, "k", k)
        object.__setattr__(self, "chunk", chunk)

    def __call__(self, p: EquivariantDistribution, x: Inputs, orbit: OrbitMap, source: Source) -> Estimate:
        source.refuse_noise(self)

        # 1. The two parts of p: a finite one that is listed, and the rest, which is sampled.
        finite, rest = p.enumerable_part(x)
        if finite is None:
            raise TypeError(f"{p.brief} has no finite factor to enumerate: use MonteCarlo(k)")
        if rest is None:
            return Exact(self.chunk)(p, x, orbit, source)
        support = finite.support(x, source.generator)
        size = len(support.weight)

        # 2. Each sample b_k meets all a_m: the exact mean over m is one sample of the average over k.
        design = as_design(self.design)
        weights = design.weights(rest, x)
        blocks = BlockMoments(design.block_size(rest, x), source.statistics)
        pages = PagedDiagnostics()
        for drawn, diagnostics in design.element_pages(rest, x, self.k, source):
            for i in range(drawn.shape[0]):
                sampled = drawn.select(slice(i, i + 1)).repeat(size)
                pairs = replace(support, element=p.group.join(support.element, sampled))
                exact = weighted_moments(
                    x, orbit, pairs, self.chunk, deduplicate=finite.group.finite, statistics=source.statistics
                )
                blocks.add(exact.as_sample().weighted(weights, start=i))
            pages.add(diagnostics, drawn.shape[0])

        # 3. The spread over k does not tell where even the finite part was sampled, once for all k: there it is inf.
        error = None
        if source.statistics:
            errors = []
            for i, known in enumerate(blocks.errors()):
                unknown = blocks.structure.per_row(~support.exact, i, len(known))
                errors.append(known.masked_fill(unknown.reshape(-1, *[1] * (known.ndim - 1)), math.inf))
            error = blocks.structure.build(errors)
        return Estimate(blocks.mean(), error, support.count * self.k, merged(support.diagnostics, pages.merged()))

    def independent_parts(self, p: EquivariantDistribution, x: Inputs, source: Source) -> Iterator[IndependentPart]:
        """Each sample, or block of a design, with all elements of the finite factors."""
        source.refuse_noise(self)
        _, rest = p.enumerable_part(x)
        if rest is None:
            yield IndependentPart(Exact(self.chunk), 1, source)
            return
        block = as_design(self.design).block_size(rest, x)
        yield IndependentPart(replace(self, k=block), self.k // block, source)
