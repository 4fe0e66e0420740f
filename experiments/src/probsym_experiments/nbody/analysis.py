"""How a trained model behaves with the number of samples: equivariance, and samples needed for a tolerance."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import probsym as ps
from probsym.estimators import OrbitMap, Source
from probsym.groups import Element
from probsym.reps import Inputs
from probsym.testing.elements import random_elements

from ..batches import Batch, Pages, Tensors, reseed, rows, stream
from ..evaluation import ROWS, means
from .config import Config
from .models import METHODS, claimed, inputs
from .motion import displacement

MOVED = 16  # test inputs whose equivariance is measured
MEASURED = 256  # test inputs whose variance is
POOL = 256  # samples of an input from which its variance is estimated
BINS = 21  # powers of two, up to a million samples
ELEMENTS = 4  # group elements an input


@torch.no_grad()
def equivariance_by_samples(phi: ps.Symmetrizer, data: Batch, config: Config) -> list[dict[str, float]]:
    """Root-mean-square of phi_k(h x) - h phi_k(x), one coordinate, at each k; independent samples on both sides.

    The outputs are displacements; with the positions added to both sides the differences would be the same.

    h is uniform over the claimed group, translations of the size of the data. One entry where the average is exact.
    `stderr_test` is the standard error over test inputs, each with its own h.
    """
    spec, output = claimed(config)
    rep = displacement(output)
    x = Inputs.bind(spec, (), inputs(rows(data, slice(0, MOVED))))
    counts = [1]
    drawn = None  # the average is exact
    if METHODS[config.symmetrizer].random:
        counts = sorted(set(config.eval_samples))
        drawn = counts[-1]

    # 1. Squared differences of each input, at each k and for each h.
    squares: dict[int, list[Tensor]] = {k: [] for k in counts}
    for i in range(ELEMENTS):
        reseed(stream(config.seed, "moved", i))
        h = random_elements(rep.group, x, torch.Generator().manual_seed(stream(config.seed, "element", i)))
        samples_of_x = _draws(phi, x.kwargs, drawn)
        samples_of_hx = _draws(phi, x.act(h).kwargs, drawn)
        for k in counts:
            h_for_each = _repeated(h, len(samples_of_x) // k)
            moved = rep.act(h_for_each, means(samples_of_x, k))
            squares[k].append((means(samples_of_hx, k) - moved).square().mean((0, 2, 3)))

    # 2. Their mean over h.
    by_samples = []
    for k in counts:
        by_samples.append({"samples": k, **root_mean_square(torch.stack(squares[k]).mean(0))})
    return by_samples


def root_mean_square(squares: Tensor) -> dict[str, float]:
    """Root of the mean of squares (B,), and its standard error to first order."""
    error = squares.mean().sqrt()
    if error == 0:
        return {"error": 0.0, "stderr_test": 0.0}
    stderr_of_mean_square = squares.std() / len(squares) ** 0.5
    return {"error": float(error), "stderr_test": float(stderr_of_mean_square / (2 * error))}


def _draws(phi: ps.Symmetrizer, x: dict[str, Any], samples: int | None) -> Tensor:
    """Displacements (K, B, N, D) of single samples, a page of inputs at a time; None is the exact average, K = 1."""
    if samples is None:
        return displacement(phi(**x))[None]
    of_pages = []
    pages: Iterable[dict[str, Any]] = Pages(Tensors(x), max(1, ROWS // samples))
    for page in pages:
        of_pages.append(displacement(phi.sample(**page, samples=samples)))
    return torch.cat(of_pages, 1)


def _repeated(h: Element, times: int) -> Element:
    return h.map(lambda tensor, _: tensor.expand(times, *tensor.shape))


@torch.no_grad()
def samples_for_tolerance(phi: ps.Symmetrizer, data: Batch, config: Config) -> list[dict[str, Any]]:
    """Samples with which each of 256 test inputs meets a tolerance: the least k with s / sqrt(k) <= tol.

    s^2 is the variance of one sample, estimated from a `pool` of 256: the trace of the covariance of a particle's
    displacement, which is that of its position, over the axes of space, the largest of all particles, as `ps.Adaptive`
    measures it; s and tol are in units of the positions. One entry a tolerance: the `median` of k, and a `histogram`
    over the bins (0, 1], (1, 2], (2, 4], ..., the last of which holds all that is larger, too.

    Results without `pool` are older: what `ps.Adaptive` drew after its pilot, in chunks of 16, for 64 inputs, and at
    most 1024; `above` is the share of inputs in their last bin that needed more.
    """
    # 1. The variance of one sample, for each input.
    reseed(stream(config.seed, "tolerance"))
    few = Tensors(inputs(rows(data, slice(0, MEASURED))))
    of_pages = []
    for page in Pages(few, ROWS // POOL):
        estimate = phi.estimate(**page, estimator=Pool(POOL))
        of_pages.append(estimate.aux["square"])
    variance = torch.cat(of_pages).double()

    # 2. The samples that bring it down to each tolerance.
    entries = []
    for tolerance in config.tolerances:
        samples = (variance / tolerance**2).ceil().clamp_min(1)
        bins = torch.bucketize(samples, 2.0 ** torch.arange(BINS - 1, dtype=samples.dtype))
        entries.append(
            {
                "tolerance": tolerance,
                "pool": POOL,
                "median": float(samples.median()),
                "histogram": torch.bincount(bins, minlength=BINS).tolist(),
            }
        )
    return entries


@dataclass(frozen=True)
class Pool(ps.Estimator):
    """A mean of independent samples with aux["square"] (B,), the size of the variance of one of its displacements."""

    samples: int

    def __call__(self, p: ps.EquivariantDistribution, x: Inputs, orbit: OrbitMap, source: Source) -> ps.Estimate:
        g = p.transport(x, source.draw(p, x, self.samples))
        samples = orbit(x, g)
        displacements = samples.tensors[0]  # they lead the outputs
        square = samples.structure.largest_variance([displacements.var(0)])
        return ps.Estimate(samples.mean(), samples.standard_error(), samples.counts, {"square": square})
