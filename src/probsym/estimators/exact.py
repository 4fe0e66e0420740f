"""Averages over finite supports: exact, and hybrid with samples of the rest."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from probsym.distributions.base import Support
from probsym.distributions.diagnostics import merged
from probsym.estimators.base import Blocks, Counters, Estimate, Estimator, Integrand, Moments, positive
from probsym.estimators.designs import Design, as_design, check_sampling
from probsym.groups import Element
from probsym.groups.base import ProductElement
from probsym.members import register

CACHED = 2**16


@register
@dataclass(frozen=True)
class Exact(Estimator):
    """The weighted mean over all elements of a finite distribution.

        mean = sum_m w_m g_m f(g_m^-1 x)

    Poses g_m^-1 x of weight zero are never evaluated, so that neither cost nor the statistics of BatchNorm depend on
    them. In evaluation mode, under a finite group, equal ones are evaluated once (unless a gradient flows to the
    inputs). Inputs that only sampling can serve (a continuous stabilizer, too many elements)
    are sampled, counted in `aux`, and have a standard error. It is infinite where the rounding of the input decides
    which elements there are; for all others it is zero.

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

    def __call__(self, integrand: Integrand) -> Estimate:
        support = integrand.p.support(integrand.x, integrand.generator)
        moments = weighted(integrand, support, self.chunk, support.element.group.finite)
        samples = support.count
        if not integrand.statistics:
            return Estimate(integrand.rebuild(moments.result()), None, samples, support.diagnostics)
        # pairs of a product share draws; their spread, that of the exact factors included, bounds that of the draws
        free = (support.independent - 1).clamp_min(0).to(support.weight.dtype)
        scale = torch.where(support.exact, 0.0, free.reciprocal())
        if support.unsure is not None:
            scale = scale.masked_fill(support.unsure, math.inf)
        scales = integrand.align(scale[None], [s[None] for s in moments.square])
        error = moments.narrow_errors([_error(s, c[0]) for s, c in zip(moments.square, scales, strict=True)])
        return Estimate(integrand.rebuild(moments.result()), integrand.rebuild(error), samples, support.diagnostics)


def weighted(integrand: Integrand, support: Support, chunk: int | None, alike: bool) -> Moments:
    """Weighted mean and spread over the elements of a support; `alike` where they may make equal poses."""
    count, moments, equal = len(support.weight), Moments(), support.uniform
    step = chunk or _fitting(integrand, max(count, 1))
    # in training equal poses have noise of their own (dropout), and each its share in the statistics of BatchNorm
    alike = alike and not integrand.training
    evaluate = integrand.run if step < count else integrand.evaluate
    for start in range(0, count, step):
        part = slice(start, start + step)
        every = equal and not (alike and step > 1)
        needed = None if every else support.weight[part] > 0
        if start and needed is not None and not torch.compiler.is_compiling() and not needed.any():
            continue  # no input has these elements: of products, and where padding is wider than the largest
        y = evaluate(support.element if step >= count else support.element.select(part), needed, alike)
        if equal and not integrand.statistics:
            moments.add_equal(y, 1 / count)
            continue
        weights = integrand.align(support.weight[part], y)
        moments.add(y, weights, True) if integrand.statistics else moments.add_shares(y, weights)
    return moments


def _fitting(integrand: Integrand, count: int) -> int:
    """Elements at once: all where gradients keep their memory anyway, on a CPU about `CACHED` entries of input."""
    if torch.is_grad_enabled() or integrand.x.device.type != "cpu" or torch.compiler.is_compiling():
        return count
    entries = sum(leaf.value.numel() for leaf in integrand.x.leaves.values())
    return max(1, min(count, CACHED // max(entries, 1)))


def _error(square: Tensor, scale: Tensor) -> Tensor:
    """Of equal weights 1/m: sum of squares / m / (m - 1) has the weights in it already; inf for one sample."""
    scale = scale.expand_as(square)
    return torch.where(scale.isinf(), math.inf, (square * torch.where(scale.isinf(), 0, scale)).sqrt())


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
    design: str | Design | tuple[str | Design, ...] | None = None

    def __post_init__(self) -> None:
        check_sampling(self)

    def __call__(self, integrand: Integrand) -> Estimate:
        if integrand.noise is not None:
            raise ValueError("noise: Hybrid draws its own; pass a generator instead")
        finite, rest = integrand.p.enumerable_part(integrand.x)
        if finite is None:
            raise TypeError(f"{integrand.p.brief} has no finite factor to enumerate: use MonteCarlo(k)")
        if rest is None:
            return Exact(self.chunk)(integrand)
        support = finite.support(integrand.x, integrand.generator)
        design, rest_alone = as_design(self.design), replace(integrand, p=rest)
        blocks, aux = Blocks(design.length(rest_alone), integrand.statistics), Counters()
        size, alike, weights = len(support.weight), support.element.group.finite, design.weights(rest_alone)
        for drawn, counters in design.pages(rest_alone, self.k):
            for i in range(drawn.shape[0]):
                g = drawn.select(slice(i, i + 1)).map(lambda t, _: t.expand(size, *t.shape[1:]))
                joined = _join(integrand, support.element, g)
                pairs = Support(joined, support.weight, support.exact, {}, uniform=support.uniform)
                y = [m[None] for m in weighted(integrand, pairs, self.chunk, alike).result()]
                blocks.add(integrand.scaled(y, weights, slice(i, i + 1)))
            aux.add(counters, drawn.shape[0])
        samples = support.count * self.k
        errors = blocks.error(self.k // blocks.block)
        error = [self._sampled(integrand, e, ~support.exact, j) for j, e in enumerate(errors)]
        return Estimate(integrand.rebuild(blocks.result()), integrand.rebuild(error), samples,
                        merged(support.diagnostics, aux.values()))  # fmt: skip

    def _sampled(self, integrand: Integrand, error: Tensor, loose: Tensor, i: int) -> Tensor:
        """Where even the finite factors were sampled, once for all k, the spread over k does not tell: inf."""
        rows = integrand.spread(loose, i, len(error))
        return error.masked_fill(rows.reshape(-1, *[1] * (error.ndim - 1)), math.inf)


def _join(integrand: Integrand, *elements: Element) -> Element:
    group = integrand.p.group
    return ProductElement(group, {f: g[f] for g in elements for f in g.group.factors})
