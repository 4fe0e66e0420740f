"""Gram-Schmidt in closed form for two and three independent columns, with its derivative."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from probsym.kernels.precision import matmul


class GramSchmidt(torch.autograd.Function):
    """z (*shape, D, M) -> Q (*shape, D, D) and whether the columns it needs are independent, for D = 2, 3 and M >= D.

    Q R = z with D - 1 columns; the last column is their complement, turned towards that of z or so that det Q = 1.
    Q turns as a rigid body, dQ = Q W with W antisymmetric, and what turns it is the part of Q^T dz R^-1 below the
    diagonal. So of the gradient G = dL/dQ only the antisymmetric part of Q^T G acts:

        dL/dz = Q L R^-T,    L = the part of Q^T G - G^T Q below the diagonal

    Args:
        chosen: whether columns are independent already or zero, and of moderate size; those that are zero are so in Q.
    """

    @staticmethod
    def forward(ctx: Any, z: Tensor, special: bool, chosen: bool) -> tuple[Tensor, Tensor | None]:  # type: ignore[override]
        q, generic = _orthonormal(z, special, chosen)
        ctx.chosen = chosen
        ctx.set_materialize_grads(False)  # no zeros for `generic`
        ctx.save_for_backward(z, q)
        if generic is not None:
            ctx.mark_non_differentiable(generic)
        return q, generic

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, _: None) -> tuple[Tensor | None, None, None]:  # type: ignore[override]
        if grad is None:
            return None, None, None
        z, q = ctx.saved_tensors
        return _pulled(z, q, grad, ctx.chosen), None, None


def _pulled(z: Tensor, q: Tensor, grad: Tensor, chosen: bool) -> Tensor:
    """Q L R^-T, and zeros for the columns of z that only choose signs or nothing."""
    dim = z.shape[-2]
    torque, r = matmul(q.mT, torch.cat([grad, z[..., : dim - 1]], -1)).tensor_split([dim], -1)
    heights = r.diagonal(dim1=-2, dim2=-1)
    if chosen:
        heights = heights.clamp_min(torch.finfo(r.dtype).tiny)  # those of zero columns
    below = (torque - torque.mT).tril(-1)
    if dim == 2:
        scaled = below[..., :1] / heights.unsqueeze(-1)
    else:
        second = below[..., 1] / heights[..., 1:]
        first = torch.addcmul(below[..., 0], second, r[..., 0, 1, None], value=-1) / heights[..., :1]
        scaled = torch.stack([first, second], -1)
    return torch.nn.functional.pad(matmul(q, scaled), (0, z.shape[-1] - dim + 1))


def _orthonormal(x: Tensor, special: bool, chosen: bool) -> tuple[Tensor, Tensor | None]:
    """Q of columns x (*shape, D, M) and whether it is generic; the batch runs fastest, so that sums are vectorised.

    It is generic if no height h of a column over those before it is within its rounding, for none of `shape`. What
    rounding leaves of a column is 100 eps of the largest one L, times (1 + (L / h)^2)^(1/2) for each basis vector
    before it, which rounding has turned as well. Since h <= L, the product of all h / (2^(1/2) L) is a bound for each.
    Twice that length is asked for: near the bound itself rounding decides, and the general way is to decide, here and
    for `lacks_columns`. It is None of chosen columns.
    """
    dim = x.shape[-2]
    x = x.movedim((-1, -2), (0, 1)).contiguous()  # (column, coordinate, *shape)
    # Lengths of all columns: the largest tells what rounding may be, whether it is used or not.
    lengths = torch.linalg.vector_norm(x, dim=1)
    if chosen:
        lengths = lengths.clamp_min(torch.finfo(x.dtype).tiny)
    basis, heights = [x[0] / lengths[0]], [lengths[0]]
    if dim == 3:
        # The part of the second column across the first, as a double cross product: that is orthogonal to the first
        # up to rounding of itself, however small it is.
        rest = torch.linalg.cross(torch.linalg.cross(basis[0], x[1], dim=0), basis[0], dim=0)
        height = torch.linalg.vector_norm(rest, dim=0)
        if chosen:
            height = height.clamp_min(torch.finfo(x.dtype).tiny)
        heights.append(height)
        basis.append(rest / height)
    last = _complement(basis, 0)
    count = dim - 1
    if not special:
        height = (last * x[dim - 1]).sum(0)
        heights.append(height)
        last = last * height.sign()
        count = dim
    if chosen:
        return torch.stack([*basis, last]).movedim((0, 1), (-1, -2)), None

    product = heights[0]
    for height in heights[1:]:
        product = product * height
    # Columns whose squares leave the range are not generic either: small ones by the second bound, others as NaN.
    least = 200 * torch.finfo(x.dtype).eps * 2 ** (count / 2)
    tiny = torch.finfo(x.dtype).tiny
    smallest = max(tiny, (tiny**0.5 / least) ** count)
    generic = (torch.sub(product.abs(), lengths.amax(0).pow(count), alpha=least) > smallest).all()
    return torch.stack([*basis, last]).movedim((0, 1), (-1, -2)), generic


def _complement(basis: Sequence[Tensor], axis: int) -> Tensor:
    """The vector that completes one or two orthonormal ones, with space along `axis`, to determinant one."""
    if len(basis) == 1:
        x, y = basis[0].unbind(axis)
        return torch.stack([-y, x], axis)
    return torch.linalg.cross(*basis, dim=axis)
