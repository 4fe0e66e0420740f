"""How a trained model behaves with the number of samples: equivariance, and samples needed for a tolerance."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

import probsym as ps
from probsym.groups import Element
from probsym.reps import Inputs
from probsym.testing.elements import moving

from ..batches import Batch, Pages, Tensors, reseed, rows, stream
from ..evaluation import ROWS
from .config import Config
from .loss import positions
from .models import METHODS, claimed, inputs

MOST = 1024  # samples of one input
MOVED, MEASURED = 16, 64  # test inputs of the two measurements
ELEMENTS = 4  # group elements an input


@torch.no_grad()
def equivariance_by_samples(phi: ps.Symmetrizer, data: Batch, config: Config) -> list[dict[str, float]]:
    """Root-mean-square of phi_k(h x) - h phi_k(x), one coordinate, at each k; independent samples on both sides.

    h is uniform over the claimed group, translations of the size of the data. One entry where the average is exact.
    """
    spec, output = claimed(config)
    rep = positions(output)
    x = Inputs.bind(spec, (), inputs(rows(data, slice(0, MOVED))))
    random = METHODS[config.symmetrizer].random
    counts = sorted(set(config.eval_samples)) if random else [1]
    squares: dict[int, list[Tensor]] = {k: [] for k in counts}
    for i in range(ELEMENTS):
        reseed(stream(config.seed, "moved", i))
        h = moving(rep.group, x, torch.Generator().manual_seed(stream(config.seed, "element", i)))
        one, other = (_draws(phi, y.kwargs, counts[-1] if random else None) for y in (x, x.act(h)))
        for k in counts:
            moved = rep.act(_repeated(h, len(one) // k), _means(one, k))
            squares[k].append((_means(other, k) - moved).square().mean())
    return [{"samples": k, "error": float(torch.stack(squares[k]).mean().sqrt())} for k in counts]


def _draws(phi: ps.Symmetrizer, x: dict[str, Any], samples: int | None) -> Tensor:
    """Positions (K, B, N, D) of single samples, a page of inputs at a time; None is the exact average, K = 1."""
    if samples is None:
        return positions(phi(**x))[None]
    pages: Iterable[dict[str, Any]] = Pages(Tensors(x), max(1, ROWS // samples))
    return torch.cat([positions(phi.sample(**page, samples=samples)) for page in pages], 1)


def _means(draws: Tensor, k: int) -> Tensor:
    """(K, ...) to the means of disjoint groups of k, (K // k, ...)."""
    return draws[: len(draws) // k * k].unflatten(0, (-1, k)).mean(1)


def _repeated(h: Element, times: int) -> Element:
    return h.map(lambda tensor, _: tensor.expand(times, *tensor.shape))


@torch.no_grad()
def samples_for_tolerance(phi: ps.Symmetrizer, data: Batch, config: Config) -> list[dict[str, Any]]:
    """Samples with which each of 64 test inputs meets a tolerance (`ps.Adaptive`, its pilot not counted).

    One entry a tolerance: `median`, `above` (share of inputs for which 1024 are not enough), and a `histogram` of
    counts over the bins (0, 1], (1, 2], (2, 4], ..., (512, 1024].
    """
    found = []
    for tol in config.tolerances:
        reseed(stream(config.seed, "tolerance", round(1e6 * tol)))
        needed, above = [], 0
        for page in Pages(Tensors(inputs(rows(data, slice(0, MEASURED)))), MEASURED):
            estimate = phi.estimate(**page, tol=tol, max_samples=MOST)
            needed.append(estimate.samples)
            above += int(estimate.aux["above_tol"])
        samples = torch.cat(needed)
        edges = 2.0 ** torch.arange(11)
        bins = torch.bucketize(samples.float(), edges)
        found.append(
            {
                "tolerance": tol,
                "median": float(samples.median()),
                "above": above / len(samples),
                "histogram": torch.bincount(bins, minlength=len(edges)).tolist(),
            }
        )
    return found
