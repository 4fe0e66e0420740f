"""How many Sinkhorn passes the gradient of a soft permutation needs. Directions, not times."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from timing import table

import probsym as ps

LIMIT = 200


def passes(quick: bool) -> None:
    """Angle between the gradient after few Sinkhorn passes and its limit, random scores and random slopes of P."""
    count_of_largest = 200
    if quick:
        count_of_largest = 50

    def rows() -> Iterator[list[object]]:
        for n, count in ((5, 2000), (20, 500), (64, count_of_largest)):
            generator = torch.Generator().manual_seed(n)
            z = torch.randn(count, n, generator=generator, dtype=torch.float64)
            slopes = torch.randn(count, n, n, generator=generator, dtype=torch.float64)
            limit = ps.Relaxation(sinkhorn=LIMIT).pull(z, None, slopes)
            for s in (0, 1, 2, 3, 5, 10):
                gradient = ps.Relaxation(sinkhorn=s).pull(z, None, slopes)
                cosine = torch.cosine_similarity(gradient, limit, -1)
                yield [n, s, f"{cosine.mean():.4f}", f"{cosine.quantile(0.05):.4f}"]

    title = f"Gradient of the relaxation at temperature {ps.Relaxation().temperature}, beside {LIMIT} passes"
    table(title, ["n", "passes", "mean cosine", "5 % quantile"], rows())
