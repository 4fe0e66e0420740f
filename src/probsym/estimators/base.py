"""What estimators share: the integrand, the estimate, and running moments over the sample axis."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils.checkpoint import checkpoint

from probsym.distributions import EquivariantDistribution, Noise
from probsym.distributions.diagnostics import Diagnostics, gathered, merged
from probsym.groups import Element, Slot
from probsym.groups.whole import positive
from probsym.kernels.precision import wide
from probsym.kernels.values import traced
from probsym.reps import Inputs, Rep

LARGE = 2**18  # entries of a buffer that is worth a look whether a copy of it is needed


@dataclass(frozen=True, eq=False)
class Estimate:
    """The estimate of phi(x).

    Args:
        mean: structure and shape of the model's output.
        stderr: elementwise standard error of `mean`, same structure; 0 where exact, inf for a single block of samples.
            Of complex outputs z with mean m it is real, sqrt(E|z - m|^2 / k).
        samples: samples used for each input (B,).
        diagnostics: scalars: counts of degenerate inputs, entropy of soft permutations (of the first samples, at most
            64 or a block of a design). Under a learned p both are computed when they are read, of these samples.
    """

    mean: Any
    stderr: Any
    samples: Tensor
    diagnostics: dict[str, Tensor] = field(default_factory=dict)

    @property
    def aux(self) -> dict[str, Tensor]:
        """Another name of `diagnostics`."""
        return self.diagnostics


@dataclass(frozen=True, eq=False)
class Integrand:
    """What an estimator averages: the model seen through group elements.

    Args:
        p, x: the distribution and the bound inputs.
        evaluate: (elements (K, B), rows that matter (K, B) bool or None for all, whether to look for equal ones of
            them) -> output tensors (K, B, ...), in a ragged batch (K, sum N, ...). Rows that do not matter are zero.
        reps: Reps of the outputs.
        rebuild: output tensors -> the output's structure.
        restrict: inputs to keep (B,) bool -> the integrand of the smaller batch.
        generator: source of all randomness; None is torch's own.
        noise: noise already drawn, of sample shape (K,).
        statistics: whether standard errors and counters are wanted.
        training: whether the model trains: then chunks are evaluated again in backward, to bound memory.
        model: the model behind `evaluate`, whose buffers the second evaluation leaves alone.
    """

    p: EquivariantDistribution
    x: Inputs
    evaluate: Callable[..., list[Tensor]]
    reps: tuple[Rep, ...]
    rebuild: Callable[[list[Tensor]], Any]
    restrict: Callable[[Tensor], Integrand]
    generator: torch.Generator | None = None
    noise: Noise = None
    statistics: bool = True
    training: bool = False
    model: nn.Module | None = None

    def draw(self, k: int) -> tuple[Element, dict[str, Tensor]]:
        """Elements (K, B) from independent noise, and counters."""
        return self.push(self.p.draw(self.x, k, self.generator) if self.noise is None else self.noise)

    def push(self, noise: Noise) -> tuple[Element, dict[str, Tensor]]:
        if not self.statistics:
            return self.p.transport(self.x, noise), {}
        diagnostics = {} if traced() else Diagnostics()
        g = self.p.transport(self.x, noise, diagnostics)
        return g, merged(diagnostics)

    def run(self, g: Element, needed: Tensor | None = None, alike: bool = False) -> list[Tensor]:
        """`evaluate` of a chunk, under activation checkpointing if memory is to be bounded."""
        if not (self.training and torch.is_grad_enabled()):
            return self.evaluate(g, needed, alike)
        if torch.compiler.is_compiling():
            # a compiler cannot follow the context below, and without it buffers would count twice where its graph
            # breaks; what backward needs it keeps or computes again as it sees fit
            return self.evaluate(g, needed, alike)
        again = Recomputation(self.model)
        return checkpoint(  # type: ignore[return-value]
            self.evaluate, g, needed, alike, use_reentrant=False, context_fn=lambda: (again.first(), again)
        )

    def spread(self, value: Tensor, i: int, rows: int) -> Tensor:
        """Values (..., B) of the inputs for every one of the rows of output i: as they are, or (..., sum N)."""
        rep = self.reps[i]
        if rep.ragged is None:
            return value
        layout = self.x.layouts[rep.ragged]
        return layout.spread(value, value.ndim - 1, layout.owner(rep.slots[0], rows))

    def align(self, value: Tensor, outputs: list[Tensor]) -> list[Tensor]:
        """Values (K, B) of the inputs, shaped to broadcast on each of the outputs (K, rows, ...)."""
        rows = [self.spread(value, i, y.shape[1]) for i, y in enumerate(outputs)]
        return [r.reshape(*r.shape, *[1] * (y.ndim - 2)) for r, y in zip(rows, outputs, strict=True)]

    def scaled(self, outputs: list[Tensor], weights: Tensor | None, part: slice) -> list[Tensor]:
        """Outputs (K, ...) of part of the samples times their weights, (M, B) the same in every block.

        Those of weight zero are zero, even if they are not finite.
        """
        if weights is None:
            return outputs
        number = torch.arange(part.start, part.stop, device=weights.device) % len(weights)
        aligned = self.align(weights[number], outputs)
        return [(w * y.masked_fill(w == 0, 0)).to(y.dtype) for w, y in zip(aligned, outputs, strict=True)]

    def counts(self, k: int) -> Tensor:
        return torch.full((self.x.count,), k, dtype=torch.long, device=self.x.device)

    def size(self, variances: list[Tensor]) -> Tensor:
        """A size (B,) of the variances (rows, ...) of the outputs that no group element changes.

        max over outputs, nodes and channels of the trace of the covariance over the space axes
        """
        found = torch.zeros(self.x.count, dtype=self.x.dtype, device=self.x.device)
        for i, (v, rep) in enumerate(zip(variances, self.reps, strict=True)):
            axes = [
                rep.batch_dims() + place + i for slot, place in rep.axes if _turns(slot) for i in range(slot.num_axes)
            ]
            rows = (v.sum(axes) if axes else v).to(found.dtype)
            if rows.numel():
                owner = self.spread(torch.arange(self.x.count, device=v.device), i, len(rows))
                found = found.scatter_reduce(0, owner, rows.reshape(len(rows), -1).amax(1), "amax")
        return found


def _turns(slot: Slot) -> bool:
    """Whether entries along its axes are combined, so that only their sum is the same in every pose.

    Pixels of an interpolated image are not: each is as good as another. What a slot of one's own does is not known.
    """
    return (slot.requires_float and slot.num_axes == 1) or not slot.precise


class Recomputation:
    """A context in which a model in training sees the buffers that it had when this was made, and changes copies.

    Chunks are evaluated twice, and only the first time may count: statistics of BatchNorm, momentum averages, the
    vectors of spectral norms. (Dropout: the checkpoint itself restores torch's random state.)
    Buffers of lazy layers, which the first evaluation makes, are seen as it leaves them.
    """

    def __init__(self, model: nn.Module | None) -> None:
        self.kept: list[tuple[nn.Module, str, Tensor | None]] = []
        self.current: list[Tensor | None] = []
        for module in [] if model is None else model.modules():
            if not module.training:
                continue
            for name, buffer in module._buffers.items():
                if buffer is not None:
                    self.kept.append((module, name, None if is_lazy(buffer) else buffer.detach().clone()))

    @contextmanager
    def first(self) -> Iterator[None]:
        """The first evaluation. Of large buffers that it leaves alone, such as masks, no copy is held until backward.

        Values are compared: the statistics of BatchNorm change without a new version of the tensor.
        """
        yield
        changed = []
        for module, name, before in self.kept:
            current = module._buffers[name]
            known = before is not None and current is not None
            if known and before.numel() >= LARGE and torch.equal(before, current):  # type: ignore[union-attr, arg-type]
                continue
            changed.append((module, name, before))
        self.kept = changed

    def __enter__(self) -> None:
        self.current = [module._buffers[name] for module, name, _ in self.kept]
        for (module, name, before), current in zip(self.kept, self.current, strict=True):
            seen = current if before is None else before
            module._buffers[name] = None if seen is None else seen.clone()

    def __exit__(self, *error: Any) -> None:
        for (module, name, _), current in zip(self.kept, self.current, strict=True):
            module._buffers[name] = current
        self.current = []


class Estimator(ABC):
    """Turns an `Integrand` into an `Estimate`."""

    @abstractmethod
    def __call__(self, integrand: Integrand) -> Estimate:
        """The estimate for all inputs of the batch."""


class Widened:
    """Sums in at least single precision of outputs in any; `narrow` gives the precision of the outputs back."""

    def __init__(self) -> None:
        self.kinds: list[torch.dtype] = []

    def widen(self, outputs: list[Tensor]) -> list[Tensor]:
        self.kinds = [y.dtype for y in outputs]
        return [wide(y) for y in outputs]

    def narrow(self, values: list[Tensor]) -> list[Tensor]:
        return [v.to(kind) for v, kind in zip(values, self.kinds, strict=True)]

    def narrow_errors(self, errors: list[Tensor]) -> list[Tensor]:
        """Standard errors in the precision of the outputs: real, also for complex outputs."""
        return [e.to(real_kind(kind)) for e, kind in zip(errors, self.kinds, strict=True)]


class Moments(Widened):
    """Running weighted mean and spread over the sample axis, merged chunk by chunk (Chan et al.)."""

    def __init__(self) -> None:
        super().__init__()
        self.mean: list[Tensor] = []
        self.square: list[Tensor] = []
        self.total: list[Tensor] = []

    def result(self) -> list[Tensor]:
        """The mean, in the precision of the outputs."""
        return self.narrow(self.mean)

    def add_shares(self, outputs: list[Tensor], weights: list[Tensor]) -> None:
        """Add outputs (K, ...) whose weights (K, ...) sum to one over all that will be added; no spread."""
        pairs = list(zip(self.widen(outputs), weights, strict=True))
        if self.mean and len(pairs[0][0]) == 1:
            self.mean = [torch.addcmul(a, w[0], y[0]) for a, (y, w) in zip(self.mean, pairs, strict=True)]
            return
        parts = [(w * y).sum(0) if len(y) > 1 else w[0] * y[0] for y, w in pairs]
        self.mean = [a + b for a, b in zip(self.mean, parts, strict=True)] if self.mean else parts

    def add_equal(self, outputs: list[Tensor], share: float) -> None:
        """Add outputs (K, ...) that all have one weight; no spread."""
        sums = [y.sum(0) if len(y) > 1 else y[0] for y in self.widen(outputs)]
        if self.mean:
            self.mean = [a.add_(s, alpha=share) for a, s in zip(self.mean, sums, strict=True)]
        else:
            self.mean = [s * share for s in sums]

    def add(self, outputs: list[Tensor], weights: list[Tensor], spread: bool) -> None:
        """Add outputs (K, ...) with weights (K, ...) that broadcast on them."""
        for i, (y, w) in enumerate(zip(self.widen(outputs), weights, strict=True)):
            total = w.sum(0)
            mean = (w * y).sum(0) / torch.where(total > 0, total, 1)
            square = (w * square_size((y - mean).detach())).sum(0) if spread else torch.zeros_like(total)
            if i == len(self.mean):
                self.mean.append(mean)
                self.square.append(square)
                self.total.append(total)
                continue
            joint = self.total[i] + total
            share = total / torch.where(joint > 0, joint, 1)
            delta = mean - self.mean[i]
            if spread:
                self.square[i] = self.square[i] + square + square_size(delta.detach()) * self.total[i] * share
            self.mean[i] = self.mean[i] + delta * share
            self.total[i] = joint


class Blocks(Widened):
    """Running mean and spread of block means, from chunks that end with blocks or lie within one.

    Args:
        block: samples in a block. spread: whether the spread is wanted.
    """

    def __init__(self, block: int, spread: bool) -> None:
        super().__init__()
        self.block, self.spread = block, spread
        self.moments = Moments()
        self.sums: list[Tensor] = []
        self.filled = 0

    def add(self, outputs: list[Tensor]) -> None:
        """Add outputs (K, ...) of equal weight."""
        outputs, count = self.widen(outputs), len(outputs[0])
        if count % self.block:
            self.sums = [y.sum(0) + (self.sums[i] if self.filled else 0) for i, y in enumerate(outputs)]
            self.filled += count
            if self.filled < self.block:
                return
            self.filled = 0
            means = [s[None] / self.block for s in self.sums]
        else:
            means = block_means(outputs, self.block)
        ones = [torch.ones(len(m), *[1] * (m.ndim - 1), dtype=real_kind(m.dtype), device=m.device) for m in means]
        self.moments.add(means, ones, self.spread)

    def result(self) -> list[Tensor]:
        """The mean, in the precision of the outputs."""
        return self.narrow(self.moments.mean)

    def error(self, blocks: int) -> list[Tensor]:
        """Standard errors of the mean; inf for one block."""
        if blocks < 2:
            return self.narrow_errors([torch.full_like(s, math.inf) for s in self.moments.square])
        return self.narrow_errors([(s / (blocks - 1) / blocks).sqrt() for s in self.moments.square])


class Counters:
    """Scalars about the elements, page by page: means of shares, of counts of inputs the largest.

    What is computed only when it is read stays that of the first page: for later ones their scores would be held.
    """

    def __init__(self) -> None:
        self.parts: list[tuple[dict[str, Tensor], int]] = []

    def add(self, counters: dict[str, Tensor], samples: int) -> None:
        if self.parts and isinstance(counters, Diagnostics):
            counters = counters.computed()
        self.parts.append((counters, samples))

    @property
    def samples(self) -> int:
        return sum(samples for _, samples in self.parts)

    def values(self) -> dict[str, Tensor]:
        found: dict[str, Any] = {}
        total, page = self.samples, self.parts[0][0]
        for key in page:
            first = page.later(key) if isinstance(page, Diagnostics) else page[key]
            if callable(first):
                found[key] = first
                continue
            pages = torch.stack([counters[key] for counters, _ in self.parts])
            weight = torch.tensor([samples / total for _, samples in self.parts], device=first.device)
            found[key] = (pages * weight).sum(0).to(pages.dtype) if first.is_floating_point() else pages.amax(0)
        return gathered(found)


def block_means(outputs: list[Tensor], block: int) -> list[Tensor]:
    """Means over blocks of consecutive samples: (K, ...) -> (K / block, ...)."""
    return outputs if block == 1 else [y.unflatten(0, (-1, block)).mean(1) for y in outputs]


def standard_error(y: Tensor, block: int) -> Tensor:
    """Standard error of the mean over axis 0, from the means of blocks; inf for one of them."""
    (means,) = block_means([wide(y.detach())], block)
    kind = real_kind(y.dtype)
    if len(means) < 2:
        return torch.full_like(y[0], math.inf, dtype=kind)
    return (means.std(0) / math.sqrt(len(means))).to(kind)


def real_kind(kind: torch.dtype) -> torch.dtype:
    """The dtype of the parts of complex numbers, and of real ones."""
    return kind.to_real() if kind.is_complex else kind  # `to_real` of a real one stops compilers


def square_size(y: Tensor) -> Tensor:
    """|y|^2, elementwise and real: y^2, or for complex y the squares of both parts added up."""
    return torch.view_as_real(y).square().sum(-1) if y.is_complex() else y.square()


__all__ = [
    "Blocks", "Counters", "Estimate", "Estimator", "Integrand", "Moments", "Widened", "block_means", "positive",
    "square_size", "standard_error",
]  # fmt: skip
