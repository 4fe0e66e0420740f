"""Vectors that cancelled: what rounding leaves of them is no direction."""

from __future__ import annotations

import torch
from torch import Tensor

from probsym.kernels.values import may_peek

NOISE = 100  # points closer to their centroid than so many times the rounding of their coordinates are rounding
LARGEST = 1 / 128  # of what was added up, unless rounding itself is larger: in half precision whole frames would go


def settled(frame: Tensor, whole: Tensor, rounding: Tensor | None = None) -> Tensor:
    """A frame (B, D, M) whose columns span no more than what is certain.

    Each column was added up from vectors whose lengths, times the magnitudes of their weights, add up to `whole`
    (B, M). What a column has beyond the span of those before it is noise where it is small next to that: symmetric
    clouds leave it, and whoever normalises it would take it for a direction. Such a column is put back into the span;
    zero, if there is none. So are those after it: a pose from other columns would be called exact, and would not be the
    one of the same cloud nearer to the origin, where rounding is less and the column is certain.

    Args:
        rounding: relative rounding of the vectors (B,), beyond that of the sums.
    """
    with torch.no_grad():
        if _all_certain(frame.detach(), whole, rounding):
            return frame
        noise = whole * uncertain(whole, rounding).unsqueeze(-1)
        columns = frame.float() if frame.dtype in (torch.bfloat16, torch.float16) else frame
        basis: list[Tensor] = []
        angles: list[Tensor] = []  # by which rounding may have turned each vector of the basis
        real: list[Tensor] = []
        for j in range(frame.shape[-1]):
            rest, error = columns[..., j], noise[:, j : j + 1].to(columns.dtype)
            for unit, angle in zip(basis, angles, strict=True):
                along = (unit * rest).sum(-1, keepdim=True)
                rest = rest - along * unit
                error = error + along.abs() * angle
            length = torch.linalg.vector_norm(rest, dim=-1, keepdim=True)
            found = length > error
            if real:
                found = found & real[-1]
            safe = torch.where(found, length, 1.0)
            basis.append(torch.where(found, rest / safe, 0.0))
            angles.append(torch.where(found, error / safe, 0.0))
            real.append(found)
        certain = torch.stack(real, -1)
        span = torch.stack(basis, -1).to(frame.dtype)
    within = span @ (span.mT @ frame).triu(1)
    return torch.where(certain, frame, within)


def _all_certain(frame: Tensor, whole: Tensor, rounding: Tensor | None) -> bool:
    """Whether no column of any frame is in doubt, told by few operations; false where it may not be asked."""
    if not may_peek(frame, whole):
        return False
    if frame.dtype not in (torch.float32, torch.float64) or frame.shape[-1] > frame.shape[-2] or not frame.numel():
        return False
    worst = 0.0 if rounding is None else float(rounding.max())
    if not worst < 1:
        return False
    noise = whole * share(worst + torch.finfo(frame.dtype).eps)
    # Q R = frame: the heights of the columns over those before are on the diagonal, and what each error
    # adds to those after it, error_j = noise_j + sum_k |R_kj| error_k / height_k, is a triangular system
    above = torch.linalg.qr(frame, mode="r").R.abs()
    height = above.diagonal(dim1=-2, dim2=-1)
    lower = (above / height.unsqueeze(-1)).mT.neg()
    error = torch.linalg.solve_triangular(lower, noise.unsqueeze(-1), upper=False, unitriangular=True)
    return bool((height > error.squeeze(-1)).all())


def uncertain(like: Tensor, rounding: Tensor | None) -> Tensor:
    """`share` of the rounding of the vectors and of their dtype (B,)."""
    eps = torch.finfo(like.dtype).eps
    error = like.new_full(like.shape[:1], eps) if rounding is None else rounding.to(like.dtype) + eps
    return torch.maximum(error, (error**0.75).clamp_max(LARGEST))


def share(error: float) -> float:
    """The share of what was added up that counts as rounding: error^(3/4).

    What is left of cancelled sums was measured to be at most 1.4 error. A column that is just large enough to count has
    a direction accurate to error^(1/4); a larger share would be more accurate and call more directions uncertain. The
    power leaves few of them where there are few digits to spare, 6 error at 1e-3, and is strict where there are many.
    """
    return max(error, min(error**0.75, LARGEST))
