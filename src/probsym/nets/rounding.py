"""Vectors that cancelled. What rounding leaves of them is not a direction."""

from __future__ import annotations

import torch
from torch import Tensor

from probsym.kernels.precision import real_dtype
from probsym.kernels.values import may_peek

# Points are taken to lie at their centroid if they are closer to it than this many times the rounding of coordinates.
NOISE = 100
# The largest share of what was added up that counts as rounding, unless rounding itself is larger. Without a limit no
# frame in half precision would have a certain column.
LARGEST = 1 / 128


def settled(frame: Tensor, whole: Tensor, rounding: Tensor | None = None) -> Tensor:
    """A frame (B, D, M) whose columns span no more than what is certain.

    The part of a column beyond the span of those before it is noise where it is small next to `whole`: symmetric clouds
    leave such parts, and orthonormalisation would take them for directions. The column is then projected onto the span
    of those before, which is zero for the first one.

    So is every column after it. A pose made of later columns would be called exact, but the same cloud nearer to the
    origin, where rounding is less and the column is certain, would have another one.

    The derivative is that of the frame itself, wherever the first column is certain: rounding was taken off, and no
    more. That of a projection onto a fixed span would leave out that the span turns with the input, which is all that
    happens to a lone vector or to atoms on a line. Where the first column is noise, all are zero and so are their
    derivatives: a direction that does not exist does not turn.

    Args:
        whole: the lengths of the vectors that were added up to a column, times the magnitudes of their weights (B, M).
        rounding: relative rounding of the vectors (B,), beyond that of the sums.
    """
    fixed = frame.detach()  # `no_grad` does not stop derivatives in forward mode
    with torch.no_grad():
        if _all_certain(fixed, whole, rounding):
            return frame
        noise = whole * uncertain(whole, rounding).unsqueeze(-1)
        columns = fixed
        if frame.dtype in (torch.bfloat16, torch.float16):
            columns = fixed.float()

        # Gram-Schmidt on all columns at once, that carries along their errors. What follows an uncertain column is
        # uncertain too, so that its numbers, NaN or infinite ones included, mean nothing.
        rest = columns
        error = noise.to(real_dtype(columns.dtype))
        basis = [rest[..., :0]]
        lengths: list[Tensor] = []
        errors: list[Tensor] = []
        for j in range(frame.shape[-1]):
            column = rest[..., :1]
            length = torch.linalg.vector_norm(column, dim=1)
            lengths.append(length)
            errors.append(error[:, :1])
            if j == frame.shape[-1] - 1:
                break
            unit = column / length.unsqueeze(-1)
            basis.append(unit)
            along = (unit.conj() * rest[..., 1:]).sum(1, keepdim=True)
            rest = torch.addcmul(rest[..., 1:], unit, along, value=-1)
            turned = error[:, :1] / length  # how far rounding may have turned the vector
            error = torch.addcmul(error[:, 1:], along.squeeze(1).abs(), turned)
        margins = torch.cat(lengths, -1) - torch.cat(errors, -1)
        lost = (margins > 0).logical_not()  # NaN too
        keeps = (lost.cumsum(-1) == 0).unsqueeze(1)
        span = torch.where(keeps[..., :-1], torch.cat(basis, -1), 0.0).to(frame.dtype)
        # Column j projected onto the basis before it: the strict upper triangle of the coefficients.
        within = span @ (span.mH @ fixed).triu(1)

    # Zero, with the derivative of the frame.
    derivative = torch.where(keeps[..., :1], frame - fixed, 0.0)
    return torch.where(keeps, frame, within + derivative)


def _all_certain(frame: Tensor, whole: Tensor, rounding: Tensor | None) -> bool:
    """Whether every column of every frame is certain, by a few operations; False where values may not be inspected."""
    if not may_peek(frame, whole):
        return False
    if frame.dtype not in (torch.float32, torch.float64):
        return False
    if frame.shape[-1] > frame.shape[-2] or frame.numel() == 0:
        return False
    worst = 0.0
    if rounding is not None:
        worst = float(rounding.max())
    if not worst < 1:  # NaN too
        return False
    # The loop of `settled` as one decomposition, Q R = frame. The length of what column j has beyond those before it
    # is |R_jj|. The errors solve a triangular system: error_j = noise_j + sum_{k < j} |R_kj| error_k / |R_kk|, with the
    # share of `whole` that is noise as a factor.
    above = torch.linalg.qr(frame, mode="r").R.abs()
    height = above.diagonal(dim1=-2, dim2=-1)
    lower = (above / height.unsqueeze(-1)).mT.neg()
    error = torch.linalg.solve_triangular(lower, whole.unsqueeze(-1), upper=False, unitriangular=True)
    noise = share(worst + torch.finfo(frame.dtype).eps)
    return float(torch.sub(height, error.squeeze(-1), alpha=noise).min()) > 0


def uncertain(like: Tensor, rounding: Tensor | None) -> Tensor:
    """`share` of the rounding of the vectors and of their dtype (B,)."""
    eps = torch.finfo(like.dtype).eps
    if rounding is None:
        error = like.new_full(like.shape[:1], eps)
    else:
        error = rounding.to(like.dtype) + eps
    return torch.maximum(error, (error**0.75).clamp_max(LARGEST))


def share(error: float) -> float:
    """The share of what was added up that counts as rounding: error^(3/4).

    What is left of cancelled sums was measured to be at most 1.4 error. A column that is just large enough to count has
    a direction accurate to error^(1/4). A larger share would make directions more accurate and call more of them
    uncertain. The power is lenient where digits are few (6 error at 1e-3) and strict where there are many.
    """
    return max(error, min(error**0.75, LARGEST))
