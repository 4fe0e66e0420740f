"""Do two graphs get different embeddings? Tests on paired differences. Letters: Q copies, D numbers an embedding.

The embeddings x_i, y_i of randomly relabelled copies of two graphs differ by d_i = x_i - y_i. If the graphs are
isomorphic, x_i and y_i have the same law and are independent, so that every d_i is symmetric about zero.

- Hotelling's statistic T^2 = Q m' S^-1 m, with the mean m and the covariance S of the d_i, is what BREC compares with a
  quantile of an F law (arXiv 2304.07702, section 4). That is right for normal d_i. BREC adds 1e-7 to the diagonal of S
  for models whose embeddings do not vary; so do we, for all.
- The signs of symmetric d_i are fair coins, whatever else their law is. So the share of random signs under which the
  same statistic is as large is a p-value for any tail: rejecting at p <= a is wrong with probability at most a.
"""

from __future__ import annotations

import torch
from torch import Tensor

RIDGE = 1e-7  # EPSILON_MATRIX of base/test_BREC.py
NEGLIGIBLE = 1e-5  # of the largest singular value: directions below it are rounding


def hotelling(differences: Tensor) -> float:
    """T^2 of differences (Q, D); 0 where all are zero.

    >>> round(hotelling(torch.tensor([[1.0], [2.0], [3.0]])), 3)
    12.0
    """
    mean = differences.double().mean(0)
    covariance = torch.cov(differences.double().T).reshape(len(mean), len(mean))
    covariance.diagonal().add_(RIDGE)
    return len(differences) * float(mean @ torch.linalg.solve(covariance, mean))


def sign_flip_p_value(differences: Tensor, flips: int, generator: torch.Generator) -> float:
    """The p-value of T^2 under random signs of the differences (Q, D): a multiple of 1 / (flips + 1).

    Signs leave M = sum d_i d_i' as it is, and T^2 rises with m' M^+ m. With orthonormal columns U that span those of
    the differences, that is proportional to |U's|^2 for signs s; those observed are all one.

    >>> sign_flip_p_value(torch.ones(20, 1), 99, torch.Generator().manual_seed(0))
    0.01
    """
    columns, sizes, _ = torch.linalg.svd(differences.double(), full_matrices=False)
    columns = columns[:, sizes > NEGLIGIBLE * sizes[0]]
    signs = 2.0 * torch.randint(2, (flips, len(differences)), generator=generator).double() - 1
    observed = columns.sum(0).square().sum()
    flipped = (signs @ columns).square().sum(1)
    as_large = int((flipped >= observed * (1 - 1e-9)).sum())  # equal up to rounding is as large
    return (1 + as_large) / (1 + flips)


def relative_gap(first: Tensor, second: Tensor) -> float:
    """|mean of x - mean of y| over the mean size of embeddings (Q, D); 0 where all are zero."""
    size = torch.cat([first, second]).double().norm(dim=1).mean()
    if size == 0:
        return 0.0
    return float((first - second).double().mean(0).norm() / size)
