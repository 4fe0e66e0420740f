"""Principal axes with exact, finite derivatives: eigenvectors that are sorted into eigenspaces before anything divides.

The first two rules for repeated eigenvalues are here, because they need no choice (see the table in `directions`): what
the points leave equal is told apart by vector inputs, one after the other.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from probsym.distributions.frames.columns import Columns
from probsym.distributions.frames.tolerances import (
    SURE_DISTANCE_IN_ROUNDING_ERRORS,
    is_thin,
    is_zero,
    least_eigenvalue_gap,
    most_turn,
)
from probsym.kernels.values import differentiated


@dataclass(frozen=True, eq=False)
class Axes:
    """Principal axes of every input (B batch, D space).

    Args:
        vectors: (B, D, D), orthonormal columns in ascending order of variance.
        cluster: (B, D), the number of the eigenspace of each axis, ascending.
        null: (B,), how many of the first axes, all of one eigenspace, see no data at all.
        error: (B,), the angle in radians by which the rounding of the coordinates may turn an axis.
        unsure: (B,), whether rounding decides which axes these are.
    """

    vectors: Tensor
    cluster: Tensor
    null: Tensor
    error: Tensor
    unsure: Tensor

    @property
    def unresolved(self) -> Tensor:
        """Inputs with an eigenspace of two or more dimensions (B,)."""
        return _has_wide_cluster(self.cluster)

    @property
    def degenerate(self) -> Tensor:
        """Inputs whose frames are not the signs of their axes alone (B,)."""
        return self.unresolved | (self.null > 0)


def principal_axes(data: Columns) -> Axes:
    """Eigenvectors of sum x x^T over the points; what these leave equal is told apart by the vectors.

    Within an eigenspace the columns are projected and compared anew, relative to their own size there, so a thin cloud
    has accurate axes too. Then the next stage of the data is asked. Axes that nothing tells apart share a cluster.
    """
    count, dim = data.value.shape[:2]
    # all axes are equal until the data has spoken
    vectors = torch.eye(dim, dtype=data.value.dtype, device=data.value.device).expand(count, dim, dim)
    cluster = torch.zeros(count, dim, dtype=torch.long, device=data.value.device)
    error = vectors.new_zeros(count)
    unsure = cluster[:, 0] > 0

    for stage in range(data.stages):
        value, rounding = data.of_stage(stage)
        # an eigenspace of D dimensions can be split D - 1 times
        for _ in range(max(dim - 1, 1)):
            rows = _has_wide_cluster(cluster).nonzero().squeeze(-1)
            if not len(rows):
                break
            before = cluster[rows]
            split = _split_clusters(vectors[rows], before, value[rows], rounding[rows], data.eps)
            error = error.index_put((rows,), torch.maximum(error[rows], split.error))
            unsure = unsure.index_put((rows,), unsure[rows] | split.unsure)
            if len(rows) == count:
                vectors = split.vectors
                cluster = split.cluster
            else:
                vectors = vectors.index_put((rows,), split.vectors)
                cluster = cluster.index_put((rows,), split.cluster)
            if torch.equal(split.cluster, before):
                break

    null = _null_dimension(vectors.detach(), cluster, data)
    return Axes(vectors, cluster, null, error, unsure | (error > most_turn(data.eps)))


def _has_wide_cluster(cluster: Tensor) -> Tensor:
    """Whether two axes share an eigenspace (B,)."""
    return (cluster[:, 1:] == cluster[:, :-1]).any(-1)


@dataclass(frozen=True, eq=False)
class _Split:
    """Axes after one look at the data: as in `Axes`."""

    vectors: Tensor
    cluster: Tensor
    error: Tensor
    unsure: Tensor


def _split_clusters(vectors: Tensor, cluster: Tensor, data: Tensor, rounding: Tensor, eps: float) -> _Split:
    """Split every eigenspace by the eigenvalues of the data (B, D, m) seen in it, each relative to their sum there.

    Eigenvalues closer than `least_eigenvalue_gap` stay together. Lengths are known to a relative error, eigenvalues to
    twice that, eigenvectors to that over the gap.
    """
    least = least_eigenvalue_gap(eps)

    # 1. the covariance within each eigenspace, of trace one; nothing where no data is left there
    seen = vectors.mT @ data
    same = cluster[:, :, None] == cluster[:, None, :]
    moment = (seen @ seen.mT) * same
    size = (same * moment.detach().diagonal(dim1=-2, dim2=-1)[:, None]).sum(-1)
    empty = is_zero(size, rounding[:, None])
    thin = is_thin(size, rounding[:, None], eps)
    size = torch.where(empty, 1.0, size)
    moment = torch.where(empty[..., None], 0.0, moment / size[..., None])

    # 2. its eigenvectors, of all eigenspaces at once: the eigenvalues of eigenspace c lie in [4c, 4c + 1], so that
    #    eigenspaces keep their place, and within one variance ascends
    matrix = torch.diag_embed(4.0 * cluster.to(seen.dtype)) + moment
    eigenvalue, rotation = torch.linalg.eigh(matrix.detach())

    # 3. a new eigenspace begins at every gap above the threshold; an empty one is never split
    gap = eigenvalue.diff(dim=-1)
    threshold = torch.where(empty, torch.inf, least)[:, 1:]
    within = cluster[:, 1:] == cluster[:, :-1]
    begins = ~within | (gap > threshold)
    split = torch.nn.functional.pad(begins.long().cumsum(-1), (1, 0))

    # 4. how much of this is rounding
    length_error = torch.where(empty, 0.0, (rounding[:, None] / size).sqrt())[:, 1:]
    turned = torch.where(within & begins, 2 * length_error / gap.clamp_min(least), 0.0).amax(-1)
    near_threshold = (gap - threshold).abs() <= SURE_DISTANCE_IN_ROUNDING_ERRORS * length_error
    unsure = within & (near_threshold | thin[:, 1:])

    # 5. derivatives, where somebody wants them
    if differentiated(matrix):
        rotation = refine(rotation, matrix, split)
    return _Split(vectors @ rotation, split, turned, unsure.any(-1))


def refine(w: Tensor, matrix: Tensor, cluster: Tensor, steps: int = 2) -> Tensor:
    """Eigenvectors as a differentiable function of the matrix, from detached eigenvectors w.

        w <- w (1 + e),    e_ij = (s_ij + l_j r_ij) / (l_j - l_i),
        s = w^T A w,       r = 1 - w^T w,       l_i = s_ii / (1 - r_ii)

    Newton's step of Ogita and Aishima (Iterative refinement for symmetric eigenvalue decomposition, JJIAM 2018). At the
    solution it changes nothing, but its derivative is that of the eigenvectors: one step is exact to first order, two
    are to third, so forces can be trained on. Within an eigenspace e = r / 2: nothing is divided by a vanishing gap,
    and the eigenspace as a whole turns as it should.

    Args:
        w: (B, D, D), orthonormal columns.
        matrix: (B, D, D), symmetric.
        cluster: (B, D), equal for columns of one eigenspace.
    """
    same = cluster[:, :, None] == cluster[:, None, :]
    one = torch.eye(w.shape[-1], dtype=w.dtype, device=w.device)
    for _ in range(steps):
        r = one - w.mT @ w
        s = w.mT @ matrix @ w
        value = s.diagonal(dim1=-2, dim2=-1) / (1 - r.diagonal(dim1=-2, dim2=-1))
        gap = torch.where(same, 1.0, value[:, None, :] - value[:, :, None])
        w = w + w @ torch.where(same, r / 2, (s + value[:, None, :] * r) / gap)
    return w


def _null_dimension(vectors: Tensor, cluster: Tensor, data: Columns) -> Tensor:
    """Dimension of the first eigenspace where no data has a component in it, else zero (B,)."""
    first = cluster == cluster[:, :1]
    squares = ((vectors.mT @ data.value.detach()).square() * first[..., None]).sum(1)
    empty = is_zero(data.sum_by_argument(squares), data.rounding).all(-1)
    return torch.where(empty, first.sum(-1), 0)


def unit(x: Tensor) -> Tensor:
    """x / |x| (..., D), zero for zero, with a finite gradient."""
    square = x.square().sum(-1, keepdim=True)
    return torch.where(square > 0, x * torch.where(square > 0, square, 1.0).rsqrt(), 0.0)
