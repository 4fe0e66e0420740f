"""The checker of distributions: coupled noise, exact."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from probsym.distributions import EquivariantDistribution, Support
from probsym.groups import Element, product
from probsym.reps import Inputs, as_spec, leaves
from probsym.symmetrizer import Symmetrizer
from probsym.testing.elements import (
    as_real,
    bind,
    distance,
    doubled,
    expand_samples,
    identity_element,
    images,
    probes,
    random_elements,
    seeded,
    slots_of,
    stored_factors,
)  # fmt: skip
from probsym.testing.statistics import two_sample

COSINES = 8  # random functions of each image whose means are compared


@torch.no_grad()
def assert_distribution(
    p: EquivariantDistribution | Symmetrizer,
    inputs: Any,
    reps: Any = None,
    *,
    samples: int = 4,
    elements: int = 3,
    tolerance: float = 1e-10,
    alpha: float = 1e-9,
    generator: torch.Generator | None = None,
) -> None:
    """Check that a distribution moves with its input, on a copy in float64.

        transport(h x, h eps) = h transport(x, eps)                                         (docs/theory.md, eq. 5)

    for random h of the whole group of the inputs, where factors that p does not cover must leave its elements alone:
    that is what products of distributions need. Further, elements are finite and of shape (samples, B), `transport` is
    deterministic, and a finite `support` moves along. These are exact. Two are statistical, with a false-alarm rate of
    at most `alpha` each: the noise has the law of the moved noise (for each h), and `support` agrees with `transport`.
    Any noise will do whose law the group leaves alone: Gaussian vectors that turn, or numbers that stay (`Rep(None)`).

    Args:
        p: the distribution, or a Symmetrizer with its own Reps.
        inputs: as the model is called: a dict of keywords, a tuple of positions, or the single argument.
        reps: Reps of the inputs, as for `symmetrize`.

    Raises:
        AssertionError: names the law that fails. TypeError: no reps.

    >>> import torch, probsym as ps
    >>> nodes, space = ps.S("nodes"), ps.E(3)
    >>> p = ps.Haar(nodes * space, origin="centroid")
    >>> assert_distribution(p, {"pos": torch.randn(2, 5, 3)}, {"pos": ps.Rep(nodes, space)})
    """
    if isinstance(p, Symmetrizer):
        if reps is None:
            reps = p.inputs
        p = p.distribution
    if reps is None:
        raise TypeError("assert_distribution: expected reps, the Reps of the inputs, got None")
    given = bind(as_spec(reps, "reps", untouched=True), inputs)
    generator = seeded(generator, given.device)
    p = _doubled(p, given)
    x = given.map(lambda leaf: doubled(leaf.value))
    checks = _Checks(p, x, tolerance, alpha, generator)
    noise = p.noise(x, (samples,), generator)
    g = checks.transported(noise)
    for _ in range(elements):
        h = random_elements(product((*x.group.factors, *p.group.factors)), x, generator)
        checks.coupling(h, noise, g)
        checks.noise_law(h)
        if p.has_enumerate_support:
            checks.support_moves(h)
    if p.has_enumerate_support:
        checks.support_agrees()


def _doubled(p: EquivariantDistribution, x: Inputs) -> EquivariantDistribution:
    """A copy in float64, its lazy nets materialised; the global random state is left alone."""
    p = copy.deepcopy(p)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        p.transport(x, p.noise(x, (1,), torch.Generator(x.device).manual_seed(0)))
    return p._apply(doubled)  # not `double`, which leaves complex parameters as they are


class _Checks:
    """The laws of one distribution at one input."""

    def __init__(
        self, p: EquivariantDistribution, x: Inputs, tolerance: float, alpha: float, generator: torch.Generator
    ) -> None:
        self.p = p
        self.x = x
        self.tolerance = tolerance
        self.alpha = alpha
        self.generator = generator
        self.seen = probes(slots_of(p.group), stored_factors(p.group, x), generator)

    def fail(self, law: str) -> None:
        raise AssertionError(f"{self.p.brief}: {law}")

    def own(self, h: Element, k: int) -> Element:
        """The part of h in the group of p, (k, B)."""
        parts = [h[f] for f in self.p.group.factors]
        return expand_samples(self.p.group.join(*parts), k)

    def others(self) -> str:
        """The factors of the inputs that p does not cover, for messages."""
        uncovered = [repr(f) for f in self.x.group.factors if f not in self.p.group.factors]
        if not uncovered:
            return ""
        return f" (invariance to {', '.join(uncovered)} included)"

    def transported(self, noise: Any) -> Element:
        g = self.p.transport(self.x, noise)
        if g.group != self.p.group:
            self.fail(f"expected elements of {self.p.group!r}, got {g.group!r}")
        once = images(g, self.seen)
        twice = images(self.p.transport(self.x, noise), self.seen)
        for image in once:
            if not bool(image.isfinite().all()):
                self.fail("elements must be finite")
        if distance(once, twice) > 0:
            self.fail("transport must be deterministic: draw all randomness in noise")
        if len(g.shape) != 2 or g.shape[1] != self.x.count:
            self.fail(f"expected elements of shape (samples, {self.x.count}), got {tuple(g.shape)}")
        return g

    def coupling(self, h: Element, noise: Any, g: Element) -> None:
        moved = self.p.transport(self.x.act(h), self.p.move_noise(self.x, h, noise))
        gap = distance(images(moved, self.seen), images(self.own(h, g.shape[0]) @ g, self.seen))
        if not gap <= self.tolerance:
            self.fail(
                f"transport(hx, h eps) = h transport(x, eps) fails{self.others()}: "
                f"difference {gap:.1e}, tolerance {self.tolerance:.0e}"
            )

    def noise_law(self, h: Element, samples: int = 1024) -> None:
        """noise(hx) and h noise(x) have the same coordinate means, squares and cosines."""
        # 1. both sides: the noise at hx, which the identity only masks, and the moved noise at x
        identity = identity_element(h.group, self.x)
        moved = self.x.act(h)
        a = self.p.move_noise(moved, identity, self.p.noise(moved, (samples,), self.generator))
        b = self.p.move_noise(self.x, h, self.p.noise(self.x, (samples,), self.generator))

        # 2. the same means of some functions of every coordinate
        reps = self.p.noise_rep(self.x)
        p = two_sample(_statistics(_flat(a, reps)), _statistics(_flat(b, reps)), self.tolerance)
        if p < self.alpha:
            self.fail(f"noise has not the law of noise_rep: p = {p:.1e}, false-alarm rate {self.alpha:.0e}")

    def support(self, x: Inputs) -> Support | None:
        """None where the elements are too many to be listed."""
        try:
            support = self.p.support(x, self.generator)
        except TypeError:
            return None
        total = support.weight.sum(0)
        if not torch.allclose(total, torch.ones_like(total), atol=self.tolerance):
            self.fail(f"the weights of support must sum to one, got {total.tolist()}")
        element = support.element.map(lambda tensor, _: doubled(tensor))
        return replace(support, element=element)

    def support_moves(self, h: Element) -> None:
        """support(hx) = h support(x) as measures, on the inputs where both list all elements."""
        here = self.support(self.x)
        there = self.support(self.x.act(h))
        if here is None or there is None:
            return
        if not bool((here.exact == there.exact).all()):
            self.fail(f"support(hx) is exact for {there.exact.tolist()}, but support(x) for {here.exact.tolist()}")
        moved = self.own(h, len(here.weight)) @ here.element
        for left, right in zip(self.means(there), self.means(here, moved), strict=True):
            gap = _largest(left - right)
            if not gap <= self.tolerance:
                self.fail(f"support(hx) = h support(x) fails{self.others()}: difference {gap:.1e}")

    def support_agrees(self, samples: int = 1024) -> None:
        """`support` and `transport` have the same means of random cosines (Hoeffding's inequality)."""
        support = self.support(self.x)
        if support is None or _degenerate(support):
            return

        # 1. the same number of equally likely draws
        g = self.p.transport(self.x, self.p.noise(self.x, (samples,), self.generator))
        weight = torch.full((samples, self.x.count), 1 / samples, dtype=torch.float64)
        uniform = Support(g, weight, support.exact, {})

        # 2. Hoeffding for each coordinate, with a union bound over all of them
        for listed, drawn in zip(self.means(support), self.means(uniform), strict=True):
            comparisons = len(self.seen) * max(listed.numel(), 1)
            limit = math.sqrt(2 * math.log(2 * comparisons / self.alpha) / samples)
            gap = _largest(listed - drawn)
            if gap > limit:
                self.fail(f"support and transport disagree: difference {gap:.2f}, allowed {limit:.2f} by chance")

    def means(self, support: Support, element: Element | None = None) -> list[Tensor]:
        """Means of `COSINES` random cosines of the images of each probe, for every exact input (ragged: node).

        Where anything is degenerate, of the images themselves: a finite set may stand for a continuous stabilizer.
        """
        g = support.element
        if element is not None:
            g = element
        linear = _degenerate(support)
        means: list[Tensor] = []
        for rep, probe in self.seen.items():
            # 1. nothing acts on edges, and node numbers of a ragged batch belong to no input
            slot = rep.slots[0]
            if slot is not None and slot.role == "edges":
                continue
            if rep.labelled is not None and rep.batch_dims == 0:
                continue

            # 2. one weight per input, or per node of a ragged batch
            weight = support.weight.double()
            exact = support.exact
            if rep.ragged is not None:
                layout = self.x.layouts[rep.ragged]
                weight = layout.spread(weight, weight.ndim - 1)
                exact = layout.spread(exact, exact.ndim - 1)

            # 3. the mean of the images, or of cosines of them
            y = as_real(rep.act(g, probe, 0)).flatten(2)
            if not linear:
                generator = torch.Generator().manual_seed(len(means))
                mix = torch.randn(y.shape[-1], COSINES, dtype=torch.float64, generator=generator)
                y = (y @ mix.to(y.device)).cos()
            means.append((weight[..., None] * y).sum(0)[exact])
        return means


def _degenerate(support: Support) -> bool:
    """Whether a support counts inputs that were degenerate in any way."""
    for name in support.diagnostics:
        if name != "entropy" and bool(support.diagnostics[name]):
            return True
    return False


def _largest(difference: Tensor) -> float:
    """The largest absolute value; zero where there is none."""
    if not difference.numel():
        return 0.0
    return float(difference.abs().max())


def _statistics(eps: Tensor) -> Tensor:
    """Coordinates of noise (S, F), their squares and cosines."""
    return torch.cat([eps, eps.square(), (2 * eps).cos()], -1)


def _flat(noise: Any, reps: Any) -> Tensor:
    """Noise of sample shape (S,) as one tensor (S, F)."""
    parts: list[Tensor] = []
    for path in leaves(reps):
        eps = noise
        for key in path:
            eps = eps[key]
        parts.append(as_real(eps).flatten(1))
    return torch.cat(parts, -1)
