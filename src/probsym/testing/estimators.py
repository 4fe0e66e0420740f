"""The checkers of estimators and designs: is the mean right, and is the standard error honest?"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from probsym.estimators import Design, Estimate, Estimator, Exact, MonteCarlo
from probsym.estimators.designs import as_design
from probsym.reps import Inputs, leaves
from probsym.reps.containers import lookup
from probsym.symmetrizer import Symmetrizer
from probsym.testing.elements import doubled, precise, seeded
from probsym.testing.statistics import family_wise

COORDINATES = 64  # of the outputs, drawn at random, on which an estimator is judged
REFERENCE_SAMPLES = 20_000  # where no exact reference is known
SAMPLES_AT_ONCE = 500
LARGEST_VARIANCE_RATIO = 1.5  # of the variance of an estimate to its squared standard error
STDERR_TOLERANCE = 1e-6  # absolute, between standard errors of the same samples in other chunks
BLOCKS = 4  # of a design in each estimate


@torch.no_grad()
def assert_estimator(
    estimator: Estimator,
    phi: Symmetrizer,
    inputs: Any,
    *,
    repeats: int = 256,
    alpha: float = 1e-6,
    tolerance: float = 1e-9,
    generator: torch.Generator | None = None,
) -> None:
    """Check an estimator on a small symmetrized model, on a copy in float64 and evaluation mode.

        shapes   the mean has the shape and dtype of the model's output, the standard error that shape, real and not
                 negative, `samples` is a positive integer per input; the same seed gives the same estimate
        mean     E[estimate] is the average over p: `Exact` where it applies, else 20,000 samples of plain Monte Carlo
        stderr   the variance of the estimate is at most 1.5 E[stderr^2]; where the standard error is zero, the estimate
                 is not random; infinite ones promise nothing. An estimator without standard errors is not asked
        parts    the same for a part of the batch, which an estimator may meet on its own

    The mean and the standard error are judged on at most 64 coordinates of the output over `repeats` estimates. The
    false-alarm rate of both is at most `alpha` together, in the normal approximation for the mean of `repeats` terms;
    an honest standard error is far below the limit of 1.5. A standard error at half of the right size is found.

    Args:
        estimator: any estimator, also a user's own.
        phi: a Symmetrizer, small, since it runs `repeats` times; a distribution with finite support gives the sharper
            test.
        inputs: as the model is called: a dict of keywords, a tuple of positions, or the single argument. At least two.

    Raises:
        AssertionError: names the law that fails.

    >>> import torch, probsym as ps
    >>> rep = ps.Rep(ps.S("nodes"))
    >>> model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Tanh())
    >>> phi = ps.symmetrize(model, rep, rep, "haar")
    >>> assert_estimator(ps.MonteCarlo(4), phi, torch.randn(2, 3), repeats=64)
    """
    runs = _Runs(phi, inputs, seeded(generator), tolerance, repr(estimator))
    whole = runs.x
    first_half = torch.arange(whole.count, device=whole.device) < (whole.count + 1) // 2
    part = whole.select(first_half)
    for x, of in ((whole, ""), (part, " on a part of the batch")):
        runs.shapes(estimator, x, of)
        runs.mean_and_error(estimator, x, repeats, alpha / 2, of)


@torch.no_grad()
def assert_design(
    design: Design | str | tuple[Design | str, ...],
    phi: Symmetrizer,
    inputs: Any,
    *,
    repeats: int = 256,
    alpha: float = 1e-6,
    tolerance: float = 1e-9,
    generator: torch.Generator | None = None,
) -> None:
    """Check a design of samples on a small symmetrized model, on a copy in float64 and evaluation mode.

        blocks    whole blocks of samples are taken as they are, any other number is refused; weights have mean one
        chunks    the estimate does not depend on how many samples are evaluated at once
        unbiased  and with an honest standard error: `assert_estimator` of four blocks

    Args:
        design: a name of `probsym.designs.DESIGNS`, a `Design`, also a user's own, or a tuple of cosets.
        phi: a Symmetrizer whose group the design fits. Cosets are unbiased under Haar; under a learned p they average
            over another distribution.
        inputs, repeats, alpha: as for `assert_estimator`.

    Raises:
        AssertionError: names the law that fails.

    >>> import torch, probsym as ps
    >>> model = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
    >>> phi = ps.symmetrize(model, ps.Rep(ps.O(3)), ps.Rep(), "haar")
    >>> assert_design("antithetic", phi, torch.randn(2, 3), repeats=64)
    """
    runs = _Runs(phi, inputs, seeded(generator), tolerance, repr(design))
    block = runs.blocks(design)
    runs.chunks(design, block)
    k = BLOCKS * block
    assert_estimator(
        MonteCarlo(k, design=design),
        phi,
        inputs,
        repeats=repeats,
        alpha=alpha,
        tolerance=tolerance,
        generator=generator,
    )


class _Runs:
    """Estimates of one symmetrized model, and what they should be."""

    def __init__(self, phi: Symmetrizer, inputs: Any, generator: torch.Generator, tolerance: float, name: str) -> None:
        if not isinstance(phi, Symmetrizer):
            raise TypeError(f"phi: expected a Symmetrizer, got {type(phi).__name__}")
        if isinstance(inputs, dict) and isinstance(phi.inputs, dict):
            bound = phi.bind((), inputs)
        elif isinstance(inputs, tuple):
            bound = phi.bind(inputs, {})
        else:
            bound = phi.bind((inputs,), {})
        if bound.count < 2:
            raise ValueError(f"inputs: expected at least two, so that they have parts, got {bound.count}")

        # lazy nets see the inputs as they were given; a copy leaves the caller's precision and mode alone
        self.phi = copy.deepcopy(phi).eval()
        self.phi.sample(*bound.args, generator=seeded(None, bound.device), **bound.kwargs)
        self.phi._apply(doubled)
        self.x = bound.map(lambda leaf: doubled(leaf.value))
        self.generator = generator
        self.tolerance = tolerance
        self.name = name
        self.paths = list(leaves(phi.output))

    def fail(self, law: str) -> None:
        raise AssertionError(f"{self.name}: {law}")

    def estimate(self, estimator: Estimator, x: Inputs, generator: torch.Generator) -> Estimate:
        return self.phi.estimate(*x.args, estimator=estimator, generator=generator, **x.kwargs)

    def outputs(self, values: Any) -> list[Tensor]:
        return [lookup(values, path, "output ") for path in self.paths]

    def flat(self, values: Any) -> Tensor:
        """All outputs as one vector."""
        return torch.cat([precise(y.flatten()) for y in self.outputs(values)])

    def seeds(self, count: int) -> Iterator[torch.Generator]:
        for _ in range(count):
            seed = int(torch.randint(2**62, (), generator=self.generator, device=self.generator.device))
            yield torch.Generator(self.x.device).manual_seed(seed)

    # ------------------------------------------------------------ shapes

    def shapes(self, estimator: Estimator, x: Inputs, of: str) -> None:
        first = self.estimate(estimator, x, seeded(None, x.device))
        again = self.estimate(estimator, x, seeded(None, x.device))
        samples = self.phi.sample(*x.args, generator=seeded(None, x.device), **x.kwargs)
        for path in self.paths:
            # 1. the mean: as one sample, and the same for the same seed
            mean = lookup(first.mean, path, "output ")
            sample = lookup(samples, path, "output ")[0]
            if mean.shape != sample.shape or mean.dtype != sample.dtype:
                self.fail(
                    f"the mean must be as the output is{of}: expected {sample.dtype} {tuple(sample.shape)}, "
                    f"got {mean.dtype} {tuple(mean.shape)}"
                )
            if not torch.equal(mean, lookup(again.mean, path, "output ")):
                self.fail(f"the same seed must give the same estimate{of}")

            # 2. the standard error, where there is one
            if first.stderr is None:
                continue
            error = lookup(first.stderr, path, "output ")
            if error.shape != mean.shape or error.is_complex():
                self.fail(
                    f"stderr must be real and of the shape of the mean{of}: got {error.dtype} {tuple(error.shape)}"
                )
            if not bool((error >= 0).all()):
                self.fail(f"stderr must not be negative or NaN{of}")

        # 3. how many samples each input took
        counts = first.samples
        if tuple(counts.shape) != (x.count,) or counts.is_floating_point() or bool((counts < 1).any()):
            self.fail(f"samples must be a positive integer for each of the {x.count} inputs{of}, got {counts}")

    # ------------------------------------------------------------ mean and standard error

    def reference(self, x: Inputs) -> tuple[Tensor, Tensor]:
        """The average over p and the variance of what is known of it."""
        estimate: Estimate | None
        try:
            estimate = self.estimate(Exact(), x, seeded(None, x.device))
        except TypeError:  # the support is infinite
            estimate = None
        if estimate is None or bool((self.flat(estimate.stderr) > 0).any()):
            estimate = self.estimate(MonteCarlo(REFERENCE_SAMPLES, SAMPLES_AT_ONCE), x, next(self.seeds(1)))
        return self.flat(estimate.mean), self.flat(estimate.stderr).square()

    def mean_and_error(self, estimator: Estimator, x: Inputs, repeats: int, alpha: float, of: str) -> None:
        truth, doubt = self.reference(x)
        count = len(truth)
        chosen = torch.randperm(count, generator=self.generator, device=self.generator.device)[:COORDINATES]
        chosen = chosen.to(truth.device)
        truth, doubt = truth[chosen], doubt[chosen]

        # 1. the estimates (repeats, F) and their standard errors
        means: list[Tensor] = []
        errors: list[Tensor] = []
        for generator in self.seeds(repeats):
            estimate = self.estimate(estimator, x, generator)
            means.append(self.flat(estimate.mean)[chosen])
            if estimate.stderr is not None:
                errors.append(self.flat(estimate.stderr)[chosen])
        gap = torch.stack(means) - truth
        slack = self.tolerance * (1 + truth.abs())

        # 2. their mean is the average
        if gap.is_complex():
            parts = torch.view_as_real(gap)
        else:
            parts = gap.unsqueeze(-1)
        variance = parts.var(0) / repeats + doubt.unsqueeze(-1)
        p = _tail((parts.mean(0).abs() - slack.unsqueeze(-1)).clamp_min(0), variance)
        if family_wise(p) < alpha:
            worst = float((parts.mean(0).abs() / variance.sqrt().clamp_min(1e-300)).max())
            self.fail(
                f"the mean of {repeats} estimates is not the average over p{of}: {worst:.1f} standard errors away, "
                f"false-alarm rate {alpha:.0e}"
            )

        # 3. their standard errors cover their spread; `promised` is what the squared deviations may be
        if not errors:
            return
        stderr = torch.stack(errors)
        deviation = (gap - gap.mean(0)).abs().square() * (repeats / (repeats - 1))
        promised = LARGEST_VARIANCE_RATIO * stderr.square() + slack.square()
        excess = torch.where(stderr.isfinite(), deviation - promised, 0.0)
        claimed_exact = (stderr == 0).all(0)
        if bool((excess.mean(0)[claimed_exact] > 0).any()):
            self.fail(f"stderr is zero, but the estimate is random{of}")
        p = _tail(excess.mean(0).clamp_min(0), excess.var(0) / repeats)
        if family_wise(p) < alpha:
            ratio = float((deviation.mean(0) / stderr.square().mean(0)).nan_to_num().max())
            self.fail(
                f"stderr is too small{of}: the variance is up to {ratio:.1f} times its square, "
                f"false-alarm rate {alpha:.0e}"
            )

    # ------------------------------------------------------------ designs

    def blocks(self, design: Any) -> int:
        made = as_design(design)

        # 1. whole blocks
        block = made.block_size(self.phi.distribution, self.x)
        if not isinstance(block, int) or block < 1:
            self.fail(f"block_size must be a positive integer, got {block!r}")
        for count in (1, 2):
            samples = self.estimate(MonteCarlo(count * block, design=design), self.x, next(self.seeds(1))).samples
            if not bool((samples == count * block).all()):
                self.fail(f"{count} blocks must take {count * block} samples, got {samples.tolist()}")

        # 2. nothing else
        if block > 1:
            try:
                self.estimate(MonteCarlo(block + 1, design=design), self.x, next(self.seeds(1)))
            except ValueError:
                pass
            else:
                self.fail(f"{block + 1} samples are not whole blocks of {block}, and must be refused")

        # 3. weights
        weights = made.weights(self.phi.distribution, self.x)
        if weights is not None:
            if bool((weights < 0).any()) or not torch.allclose(weights.mean(0), torch.ones_like(weights[0])):
                self.fail("weights must not be negative and have mean one in every block")
        return block

    def chunks(self, design: Any, block: int) -> None:
        k = 2 * block
        whole = self.estimate(MonteCarlo(k, design=design), self.x, seeded(None, self.x.device))
        for chunk in sorted({1, block, max(k - 1, 1)}):
            parts = self.estimate(MonteCarlo(k, chunk, design), self.x, seeded(None, self.x.device))
            # the standard error is a root, which makes more of rounding
            comparisons = (
                ("mean", whole.mean, parts.mean, self.tolerance),
                ("stderr", whole.stderr, parts.stderr, STDERR_TOLERANCE),
            )
            for name, all_at_once, in_chunks, tolerance in comparisons:
                if not torch.allclose(self.flat(all_at_once), self.flat(in_chunks), atol=tolerance, equal_nan=True):
                    self.fail(f"the {name} must not depend on the chunk: {chunk} samples at once differ from {k}")


def _tail(value: Tensor, variance: Tensor) -> Tensor:
    """Two-sided normal p-values of values that should be zero; zero where a value has no variance."""
    t = value / variance.sqrt().clamp_min(torch.finfo(torch.float64).tiny)
    return torch.special.erfc(t / math.sqrt(2))
