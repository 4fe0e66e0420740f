"""From samples to a mean with its standard error: Monte Carlo, adaptive, exact."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from probsym.distributions import EquivariantDistribution, Noise
from probsym.groups import Element
from probsym.reps import Inputs


@dataclass(frozen=True, eq=False)
class Estimate:
    """The estimate of phi(x).

    Args:
        mean: structure and shape of the model's output.
        stderr: elementwise standard error of `mean`, same structure; 0 where exact, inf for a single block of samples.
        samples: samples used for each input (B,).
        aux: scalars: entropy of soft permutations, counts of degenerate inputs.
    """

    mean: Any
    stderr: Any
    samples: Tensor
    aux: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Integrand:
    """What an estimator averages: the model seen through group elements.

    Args:
        p, x: the distribution and the bound inputs.
        evaluate: elements of batch shape (K, B) -> output tensors (K, B, ...), in a ragged batch (K, sum N, ...).
        spread: (values (..., B), i) -> the values for every row of output i: as they are, or (..., sum N).
        rebuild: output tensors -> the output's structure.
        generator: source of all randomness; None is torch's own.
        noise: noise already drawn, of sample shape (K,).
        statistics: whether standard errors and counters are wanted.
        recompute: whether chunks are evaluated again in backward, to bound memory.
    """

    p: EquivariantDistribution
    x: Inputs
    evaluate: Callable[[Element], list[Tensor]]
    spread: Callable[[Tensor, int], Tensor]
    rebuild: Callable[[list[Tensor]], Any]
    generator: torch.Generator | None = None
    noise: Noise = None
    statistics: bool = True
    recompute: bool = False

    def draw(self, k: int) -> tuple[Element, dict[str, Tensor]]:
        noise = self.p.noise(self.x, (k,), self.generator) if self.noise is None else self.noise
        return self.p.push(self.x, noise, diagnose=self.statistics)

    def run(self, g: Element) -> list[Tensor]:
        """`evaluate`, under activation checkpointing if memory is to be bounded."""
        if not (self.recompute and torch.is_grad_enabled()):
            return self.evaluate(g)
        return checkpoint(self.evaluate, g, use_reentrant=False)  # type: ignore[return-value]

    def align(self, value: Tensor, outputs: list[Tensor]) -> list[Tensor]:
        """Values (K, B) of the inputs, shaped to broadcast on each of the outputs (K, rows, ...)."""
        rows = [self.spread(value, i) for i in range(len(outputs))]
        return [r.reshape(*r.shape, *[1] * (y.ndim - 2)) for r, y in zip(rows, outputs, strict=True)]

    def counts(self, k: int) -> Tensor:
        return torch.full((self.x.count,), k, dtype=torch.long, device=self.x.device)


class Estimator(ABC):
    """Turns an `Integrand` into an `Estimate`."""

    @abstractmethod
    def __call__(self, integrand: Integrand) -> Estimate:
        """The estimate for all inputs of the batch."""


class Moments:
    """Running weighted mean and spread over the sample axis, merged chunk by chunk (Chan et al.)."""

    def __init__(self) -> None:
        self.mean: list[Tensor] = []
        self.square: list[Tensor] = []
        self.total: list[Tensor] = []

    def add(self, outputs: list[Tensor], weights: list[Tensor], spread: bool) -> None:
        """Add outputs (K, ...) with weights (K, ...) that broadcast on them."""
        for i, (y, w) in enumerate(zip(outputs, weights, strict=True)):
            total = w.sum(0)
            mean = (w * y).sum(0) / torch.where(total > 0, total, 1)
            square = (w * (y - mean).detach().square()).sum(0) if spread else torch.zeros_like(mean)
            if i == len(self.mean):
                self.mean.append(mean)
                self.square.append(square)
                self.total.append(total)
                continue
            joint = self.total[i] + total
            share = total / torch.where(joint > 0, joint, 1)
            delta = mean - self.mean[i]
            self.mean[i] = self.mean[i] + delta * share
            self.square[i] = self.square[i] + square + delta.detach().square() * self.total[i] * share
            self.total[i] = joint


@dataclass(frozen=True)
class MonteCarlo(Estimator):
    """The mean of k independent samples.

        mean = 1/k sum_k g_k f(g_k^-1 x),    stderr = s / sqrt(k)

    Args:
        k: number of samples.
        chunk: samples evaluated at once; bounds memory, in training by recomputing chunks in backward. The result does
            not depend on it.

    Raises:
        ValueError: k or chunk below one.
    """

    k: int
    chunk: int | None = None

    def __post_init__(self) -> None:
        positive("k", self.k)
        if self.chunk is not None:
            positive("chunk", self.chunk)

    def __call__(self, integrand: Integrand) -> Estimate:
        g, aux = integrand.draw(self.k)
        count = g.shape[0]
        if self.chunk is None or self.chunk >= count:
            y = integrand.evaluate(g)
            mean = [t.mean(0) if count > 1 else t.squeeze(0) for t in y]
            error = [standard_error(t.detach()) for t in y] if integrand.statistics else []
        else:
            moments = Moments()
            for start in range(0, count, self.chunk):
                y = integrand.run(g.select(slice(start, start + self.chunk)))
                ones = torch.ones(len(y[0]), integrand.x.count, dtype=integrand.x.dtype, device=y[0].device)
                moments.add(y, integrand.align(ones, y), integrand.statistics)
            mean = moments.mean
            error = [(s / max(count - 1, 1) / count).sqrt() for s in moments.square]
        return Estimate(integrand.rebuild(mean), integrand.rebuild(error) if integrand.statistics else None,
                        integrand.counts(count), aux)  # fmt: skip


@dataclass(frozen=True)
class Exact(Estimator):
    """The weighted mean over all elements of a finite distribution.

    Inputs that only sampling can serve (a continuous stabilizer, too many elements) are sampled, counted in `aux`, and
    have a standard error; for all others it is zero.

    Args:
        chunk: elements evaluated at once.

    Raises:
        TypeError: at the call, the distribution has no finite support.
    """

    chunk: int | None = None

    def __post_init__(self) -> None:
        if self.chunk is not None:
            positive("chunk", self.chunk)

    def __call__(self, integrand: Integrand) -> Estimate:
        support = integrand.p.support(integrand.x, integrand.generator)
        count = len(support.weight)
        step = self.chunk or max(count, 1)
        evaluate = integrand.run if step < count else integrand.evaluate
        moments = Moments()
        for start in range(0, count, step):
            part = slice(start, start + step)
            y = evaluate(support.element.select(part))
            moments.add(y, integrand.align(support.weight[part], y), integrand.statistics)
        samples = (support.weight > 0).sum(0)
        if not integrand.statistics:
            return Estimate(integrand.rebuild(moments.mean), None, samples, support.counters)
        scale = torch.where(support.exact, 0.0, (samples - 1).clamp_min(0).to(support.weight.dtype).reciprocal())
        scales = integrand.align(scale[None], [s[None] for s in moments.square])
        error = [self._error(s, c[0]) for s, c in zip(moments.square, scales, strict=True)]
        return Estimate(integrand.rebuild(moments.mean), integrand.rebuild(error), samples, support.counters)

    def _error(self, square: Tensor, scale: Tensor) -> Tensor:
        """Of equal weights 1/m: sum of squares / m / (m - 1) has the weights in it already; inf for one sample."""
        scale = scale.expand_as(square)
        return torch.where(scale.isinf(), math.inf, (square * torch.where(scale.isinf(), 0, scale)).sqrt())


@dataclass(frozen=True)
class Adaptive(Estimator):
    """As many samples as each input needs for a standard error below `tol`.

    Two stages (Stein): a pilot of independent samples measures the spread, then fresh samples give the answer, so that
    stopping does not bias it. The spread is the root mean square over all entries of an input's output, a quantity
    that an orthogonal group leaves alone, so that equivalent inputs get equally many samples.

    Args:
        tol: wanted root-mean-square standard error of each input, in units of the output.
        max_samples: largest number of fresh samples an input.
        pilot: samples of the pilot, at least 32.
        chunk: samples evaluated at once.

    Raises:
        ValueError: tol not positive, max_samples below 2 or pilot below 32.
    """

    tol: float
    max_samples: int = 1024
    pilot: int = 32
    chunk: int = 32

    def __post_init__(self) -> None:
        if not self.tol > 0:
            raise ValueError(f"tol: expected a positive number, got {self.tol}")
        if self.max_samples < 2 or self.pilot < 32:
            raise ValueError(f"expected max_samples >= 2 and pilot >= 32, got {self.max_samples} and {self.pilot}")
        positive("chunk", self.chunk)

    def __call__(self, integrand: Integrand) -> Estimate:
        variance = self._pilot(integrand)
        wanted = (variance / self.tol**2).ceil().clamp(2, self.max_samples).long()
        moments, start, most = Moments(), 0, int(wanted.max()) if wanted.numel() else 0
        aux: dict[str, Tensor] = {}
        while start < most:
            step = min(self.chunk, most - start)
            g, aux = integrand.draw(step)
            y = integrand.evaluate(g)
            used = (start + torch.arange(step, device=wanted.device)[:, None] < wanted).to(integrand.x.dtype)
            moments.add(y, integrand.align(used, y), True)
            start += step
        counts = integrand.align(wanted[None], [s[None] for s in moments.square])
        error = [(s / (n[0] - 1) / n[0]).sqrt() for s, n in zip(moments.square, counts, strict=True)]
        short = (variance / wanted > self.tol**2).sum()
        return Estimate(integrand.rebuild(moments.mean), integrand.rebuild(error), wanted, {**aux, "above_tol": short})

    def _pilot(self, integrand: Integrand) -> Tensor:
        """Mean over the entries of each input of the variance of one sample (B,)."""
        g, _ = integrand.draw(self.pilot)
        outputs = [y.detach() for y in integrand.evaluate(g)]
        ones = torch.zeros(integrand.x.count, dtype=integrand.x.dtype, device=integrand.x.device)
        total, entries = ones.clone(), ones.clone()
        for i, y in enumerate(outputs):
            rows = integrand.spread(torch.arange(integrand.x.count, device=y.device), i).reshape(-1)
            flat = y.var(0).reshape(len(rows), math.prod(y.shape[2:]))
            total = total.index_add(0, rows, flat.sum(-1).to(total.dtype))
            entries = entries.index_add(0, rows, torch.full_like(total[rows], flat.shape[1]))
        return total / entries.clamp_min(1)


def standard_error(y: Tensor) -> Tensor:
    """Standard error of the mean over axis 0; inf for one sample."""
    if len(y) < 2:
        return torch.full_like(y[0], math.inf)
    return y.std(0) / math.sqrt(len(y))


def positive(name: str, value: Any) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name}: expected an integer of at least 1, got {value!r}")
