"""Principal axes with exact, finite derivatives: eigenvectors that are sorted into clusters before anything divides."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from probsym.distributions.geometry import centred, centroid, columns, exists, is_point, node_axes, spatial
from probsym.groups import E, IsometryGroup
from probsym.groups.axis import Edges
from probsym.kernels.values import differentiated, may_peek
from probsym.reps import Inputs, Leaf

GAP = 1e-3  # eigenvalues this close, relative to their sum, count as equal
NOISE = 100  # lengths below NOISE * eps of the coordinates as they came are rounding
TURN = 5e-3  # where rounding may turn an axis by more (a bound, mostly ten times the truth), the frames are unsure
THIN = 1e-3  # the same for data that is thin: relative to its size rounding is more than this
SURE = 8  # decisions this many rounding errors from their threshold are the same for all poses of an input
EPS = torch.finfo(torch.float64).eps
SMALL = 1e-200  # sums of squares below it lose digits in float64 unless coordinates are scaled first


@dataclass(frozen=True, eq=False)
class Columns:
    """Points (first) and vectors of one space as columns, each kind divided by its size.

    Args:
        value: (B, D, M) in float64, zero where `present` (B, M) is false.
        block: the input that each column comes from (M,), numbered 0 ... L-1.
        stage: the same number for all inputs of points, one for each of vectors (L,): what is compared together.
        ordered: whether the order of the columns of an input has a meaning (L,).
        rounding: sum of squares that rounding leaves where there should be zero (B, L).
        eps: relative rounding of the coarsest dtype among them.
    """

    value: Tensor
    present: Tensor
    block: Tensor
    stage: Tensor
    ordered: Tensor
    rounding: Tensor
    eps: float

    @property
    def stages(self) -> int:
        return int(self.stage[-1]) + 1

    def of_stage(self, number: int) -> tuple[Tensor, Tensor]:
        """The columns of one stage (B, D, m) and their rounding (B,)."""
        blocks = self.stage == number
        return self.value[..., blocks[self.block]], self.rounding[:, blocks].sum(-1)

    def energy(self, squares: Tensor, block: Tensor | None = None) -> Tensor:
        """Sums over the columns of each input: (..., M) -> (..., L); `block` where these are not all columns."""
        block = self.block if block is None else block
        share = block[:, None] == torch.arange(len(self.stage), device=block.device)
        return squares @ share.to(squares.dtype)


def oriented(x: Inputs, space: IsometryGroup) -> list[Leaf]:
    """The points, then the vectors of an input; those on the edges of a ragged batch have no fixed number."""
    loose = [leaf for leaf in spatial(x, space) if not _on_ragged_edges(leaf)]
    return sorted(loose, key=lambda leaf: not is_point(leaf, space))


def is_ordered(leaf: Leaf, space: IsometryGroup) -> bool:
    """Whether nothing but `None` axes and channels number the columns: the order of an `Axis` means nothing."""
    return all(slot.group == space for slot, _ in leaf.rep.axes)


def _on_ragged_edges(leaf: Leaf) -> bool:
    return any(isinstance(slot, Edges) and slot.group.batch is not None for slot, _ in leaf.rep.axes)


def read_columns(x: Inputs, space: IsometryGroup, eps: dict[str, float]) -> tuple[Columns, Tensor]:
    """The columns of a space and its origin (B, D): the centroid for E and SE, zero for O and SO.

    Args:
        x: the inputs in float64; eps: relative rounding of every leaf, by name.
    """
    origin = centroid(x, space) if isinstance(space, E) else None
    stage: list[int] = []
    parts: list[tuple[Tensor, Tensor, Tensor, bool]] = []
    for leaf in oriented(x, space):
        raw, present = columns(x, leaf, space)
        value, _ = centred(x, leaf, space, origin)
        present = exists(raw, present)
        noise = eps[leaf.name] ** 2 * (raw * present[:, None]).detach().square().sum((1, 2))
        stage.append(0 if is_point(leaf, space) or not stage else stage[-1] + 1)
        parts.append((value, present, noise, is_ordered(leaf, space)))
    if origin is None:
        origin = torch.zeros(x.count, space.dim, dtype=torch.float64, device=x.device)
    if not any(value.shape[-1] for value, *_ in parts):
        nothing = origin.new_zeros(x.count, space.dim, 1)
        stage, parts = [0], [(nothing, nothing[:, 0] > 0, nothing[:, 0, 0], True)]
    coarsest = max((eps[leaf.name] for leaf in oriented(x, space)), default=EPS)
    return _joined(stage, parts, coarsest), origin


def _joined(stage: list[int], parts: list[tuple[Tensor, Tensor, Tensor, bool]], eps: float) -> Columns:
    device = parts[0][0].device
    sizes = [_largest([v for (v, *_), s in zip(parts, stage, strict=True) if s == t]) for t in range(max(stage) + 1)]
    scale = [sizes[s] for s in stage]
    widths = torch.tensor([value.shape[-1] for value, *_ in parts], device=device)
    return Columns(
        value=torch.cat([v / s[:, None, None] for (v, *_), s in zip(parts, scale, strict=True)], -1),
        present=torch.cat([present for _, present, *_ in parts], -1),
        block=torch.repeat_interleave(torch.arange(len(parts), device=device), widths),
        stage=torch.tensor(stage, device=device),
        ordered=torch.tensor([ordered for *_, ordered in parts], device=device),
        rounding=torch.stack([n / s.square() for (_, _, n, _), s in zip(parts, scale, strict=True)], -1),
        eps=eps,
    )


def _largest(values: list[Tensor]) -> Tensor:
    """Largest coordinate (B,), so that squares neither vanish nor overflow; one where all are zero."""
    flat = torch.cat([value.detach().flatten(1) for value in values], 1).abs()
    top = flat.amax(1) if flat.shape[1] else flat.sum(1)
    return torch.where(top > 0, top, 1.0)


@dataclass(frozen=True, eq=False)
class Axes:
    """Principal axes of every input.

    Args:
        vectors: orthonormal columns (B, D, D) in ascending order of variance.
        cluster: number of the eigenspace of each axis (B, D), ascending.
        null: how many of the first axes, all of one cluster, see no data at all (B,).
        error: angle by which the rounding of the coordinates may turn an axis (B,).
        unsure: whether rounding decides which axes these are (B,).
    """

    vectors: Tensor
    cluster: Tensor
    null: Tensor
    error: Tensor
    unsure: Tensor

    @property
    def unresolved(self) -> Tensor:
        """Inputs with an eigenspace of two or more dimensions (B,)."""
        return (self.cluster[:, 1:] == self.cluster[:, :-1]).any(-1)

    @property
    def degenerate(self) -> Tensor:
        return self.unresolved | (self.null > 0)


def principal_axes(data: Columns) -> Axes:
    """Eigenvectors of sum x x^T over the points; what these leave equal is told apart by the vectors (B inputs).

    Within an eigenspace the columns are projected and compared anew, relative to their own size there, so a thin cloud
    has accurate axes too; then the next kind of data is asked. Axes that nothing tells apart share a cluster.
    """
    count, dim = data.value.shape[:2]
    vectors = torch.eye(dim, dtype=data.value.dtype, device=data.value.device).expand(count, dim, dim)
    cluster = torch.zeros(count, dim, dtype=torch.long, device=data.value.device)
    error, unsure = vectors.new_zeros(count), cluster[:, 0] > 0
    for stage in range(data.stages):
        value, rounding = data.of_stage(stage)
        for _ in range(max(dim - 1, 1)):
            open_ = (cluster[:, 1:] == cluster[:, :-1]).any(-1).nonzero().squeeze(-1)
            if not len(open_):
                break
            v, c, e, u = _split(vectors[open_], cluster[open_], value[open_], rounding[open_], data.eps)
            settled = torch.equal(c, cluster[open_])
            error = error.index_put((open_,), torch.maximum(error[open_], e))
            unsure = unsure.index_put((open_,), unsure[open_] | u)
            whole = len(open_) == count
            vectors = v if whole else vectors.index_put((open_,), v)
            cluster = c if whole else cluster.index_put((open_,), c)
            if settled:
                break
    null = _null(vectors.detach(), cluster, data)
    return Axes(vectors, cluster, null, error, unsure | (error > most_turn(data.eps)))


def least_gap(eps: float) -> float:
    """Eigenvalues, relative to their sum, that are closer than this count as equal.

    The same for all poses, wherever they are: only how sure a decision is depends on the rounding of an input.
    """
    return max(GAP, 16 * eps)


def most_turn(eps: float) -> float:
    """Where rounding may turn an axis by more, frames are unsure; half precision turns all axes by more than `TURN`."""
    return max(TURN, 64 * eps)


def distinct_axes(x: Inputs, space: IsometryGroup) -> tuple[Tensor, Tensor] | None:
    """Principal axes (B, D, D) and origin (B, D) where one look at one dense cloud settles all inputs; None elsewhere.

    The usual case of `read_columns` and `principal_axes` under the same tolerances, for a fifth of their operations;
    only where values may be read and no derivative is wanted. In numpy, whose calls cost half of torch's.
    """
    leaf = _only_cloud(x, space)
    if leaf is None:
        return None
    raw = _columns(leaf, space)
    with np.errstate(over="ignore", invalid="ignore"):
        origin = raw.mean(-1) if isinstance(space, E) else np.zeros(raw.shape[:2])
        value = raw - origin[..., None] if isinstance(space, E) else raw
        moment = value @ value.transpose(0, 2, 1)
    size = moment.trace(axis1=1, axis2=2)  # bounds for the worst input of the batch from here on
    if not (size.min() > SMALL and size.max() < math.inf):
        return None
    variance, vectors = np.linalg.eigh(moment)
    share = variance / size[:, None]
    rounding = _rounding(leaf, raw.shape[-1] * float((np.square(origin).sum(-1) / size).max()))
    error = math.sqrt(rounding)
    eps = torch.finfo(leaf.value.dtype).eps
    least_sure = max(least_gap(eps) + SURE * error, 2 * error / most_turn(eps))
    if not (share[:, 1:] - share[:, :-1]).min(initial=1.0) > least_sure:
        return None
    # eigenvalues are known to eps of the largest only, projections to eps of themselves
    least = float(share[:, 0].min()) - (16 + raw.shape[-1]) * EPS
    if not least > NOISE**2 * rounding:
        seen = np.square(vectors[:, None, :, 0] @ value).sum((1, 2))
        least = float((seen / size).min())
    return (torch.from_numpy(vectors), torch.from_numpy(origin)) if least > NOISE**2 * rounding else None


def _columns(leaf: Leaf, space: IsometryGroup) -> NDArray[np.float64]:
    """A dense leaf as columns (B, D, M)."""
    axis = 1 + next(place for slot, place in leaf.rep.axes if slot.group == space)
    value = leaf.value.detach().double().resolve_neg().numpy()
    value = value.transpose(0, axis, *(i for i in range(1, value.ndim) if i != axis))
    return value.reshape(*value.shape[:2], -1)


def _rounding(leaf: Leaf, offset: float) -> float:
    """Sum of squares that rounding leaves, relative to that about the origin, for a squared offset relative to it."""
    return float(torch.finfo(leaf.value.dtype).eps ** 2 * (1 + offset))


def _only_cloud(x: Inputs, space: IsometryGroup) -> Leaf | None:
    """The points, or without points the first vectors, if they are one dense leaf and nobody follows the values."""
    found = oriented(x, space)
    if not found or (len(found) > 1 and is_point(found[1], space)):
        return None
    leaf = found[0]
    if (isinstance(space, E) and not is_point(leaf, space)) or not may_peek(leaf.value) or not leaf.value.numel():
        return None
    if any(x.layouts[axis].uneven for axis, _ in node_axes(leaf)):
        return None
    return None if any(differentiated(other.value) for other in x.leaves.values()) else leaf


def _split(
    v: Tensor, cluster: Tensor, x: Tensor, rounding: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Split every cluster by the eigenvalues of the data x (B, D, m) seen in it, each relative to their sum there.

    Eigenvalues closer than `least_gap` stay together. Lengths are known to a relative error, eigenvalues to twice that,
    eigenvectors to that over the gap.

    Returns the axes, their clusters, and as in `Axes` the error and whether rounding decided.
    """
    least = least_gap(eps)
    y = v.mT @ x
    same = cluster[:, :, None] == cluster[:, None, :]
    moment = (y @ y.mT) * same
    size = (same * moment.detach().diagonal(dim1=-2, dim2=-1)[:, None]).sum(-1)
    empty = size <= NOISE**2 * rounding[:, None]
    thin = is_thin(size, rounding[:, None], eps)
    size = torch.where(empty, 1.0, size)
    moment = torch.where(empty[..., None], 0.0, moment / size[..., None])
    # eigenvalues of cluster c lie in [4c, 4c + 1]: clusters keep their place, and within one variance ascends
    matrix = torch.diag_embed(4.0 * cluster.to(y.dtype)) + moment
    value, w = torch.linalg.eigh(matrix.detach())
    length_error = torch.where(empty, 0.0, (rounding[:, None] / size).sqrt())
    tolerance = torch.where(empty, torch.inf, least)
    gap = value.diff(dim=-1)
    within = cluster[:, 1:] == cluster[:, :-1]
    new = ~within | (gap > tolerance[:, 1:])
    turned = torch.where(within & new, 2 * length_error[:, 1:] / gap.clamp_min(least), 0.0).amax(-1)
    unsure = within & ((gap - tolerance[:, 1:]).abs() <= SURE * length_error[:, 1:])
    unsure = unsure | (within & thin[:, 1:])
    split = torch.nn.functional.pad(new.long().cumsum(-1), (1, 0))
    w = refine(w, matrix, split) if differentiated(matrix) else w
    return v @ w, split, turned, unsure.any(-1)


def is_thin(size: Tensor, rounding: Tensor, eps: float) -> Tensor:
    """Whether data of this size (sums of squares) is so small that rounding turns it, or decides if it is data."""
    return (size > (NOISE / 2) ** 2 * rounding) & (size < rounding / max(THIN, 8 * eps) ** 2)


def refine(w: Tensor, matrix: Tensor, cluster: Tensor, steps: int = 2) -> Tensor:
    """Eigenvectors as a differentiable function of the matrix, from detached eigenvectors w.

        w <- w (1 + e),    e_ij = (s_ij + l_j r_ij) / (l_j - l_i),
        s = w^T A w,       r = 1 - w^T w,       l_i = s_ii / (1 - r_ii)

    Newton's step of Ogita and Aishima (Iterative refinement for symmetric eigenvalue decomposition, JJIAM 2018). At the
    solution it changes nothing, but its derivative is that of the eigenvectors: one step is exact to first order, two
    are to third, so forces can be trained on. Within a cluster e = r / 2: nothing is divided by a vanishing gap, and
    the eigenspace as a whole turns as it should.
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


def _null(v: Tensor, cluster: Tensor, data: Columns) -> Tensor:
    """Dimension of the first eigenspace where no data has a component in it, else zero (B,)."""
    first = cluster == cluster[:, :1]
    squares = ((v.mT @ data.value.detach()).square() * first[..., None]).sum(1)
    empty = (data.energy(squares) <= NOISE**2 * data.rounding).all(-1)
    return torch.where(empty, first.sum(-1), 0)


def unit(x: Tensor) -> Tensor:
    """x / |x| (..., D), zero for zero, with a finite gradient."""
    square = x.square().sum(-1, keepdim=True)
    return torch.where(square > 0, x * torch.where(square > 0, square, 1.0).rsqrt(), 0.0)
