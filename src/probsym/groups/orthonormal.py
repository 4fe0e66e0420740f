"""Orthonormalisation: from any vectors, dependent ones and none included, to an orthogonal matrix."""

from __future__ import annotations

import torch
from torch import Tensor

from probsym.groups.gram_schmidt import GramSchmidt
from probsym.groups.peek import applied, may_peek


def tolerance(dtype: torch.dtype) -> float:
    """Relative length below which a residual counts as rounding."""
    return 100 * torch.finfo(dtype).eps


def orthonormalise(z: Tensor, tie: Tensor, special: bool = False) -> Tensor:
    """Gram-Schmidt with re-orthogonalisation, in at least float32; missing directions come from `tie`.

    Columns of z that lie in the span of those before them are passed over, relative to the size of z, and replaced by
    the columns of tie. The last column is the complement of the others, up to the sign that z or tie gives it; for
    `special` it makes the determinant one. Covariant: orthonormalise(h z, h tie) = h orthonormalise(z, tie).
    Two or three independent columns on a CPU take a closed form.

    Args:
        z: columns (*shape, D, M), of which the first D count; tie: (*shape, D, D).

    Returns: (*shape, D, D) with orthonormal columns; value and gradient are finite at every rank of z.

    >>> z = torch.tensor([[1.0, 1.0], [0.0, 1e-3]])                             # nearly collinear
    >>> Q = orthonormalise(z, torch.eye(2))
    >>> torch.allclose(Q.mT @ Q, torch.eye(2), atol=1e-6)
    True
    """
    z, tie = wide(z), wide(tie)
    if z.shape[-2] in (2, 3) and z.shape[-1] >= z.shape[-2] and may_peek(z):
        matrix, generic = applied(GramSchmidt, z, special)
        if bool(generic):
            alike = matrix.shape == tie.shape  # `broadcast_shapes` takes as long as the Gram-Schmidt of a small batch
            return matrix if alike else matrix.expand(torch.broadcast_shapes(matrix.shape, tie.shape))
    z = _scaled(z) if z.shape[-1] else torch.zeros_like(tie[..., :1])
    dim, count = z.shape[-2], min(z.shape[-1], z.shape[-2] - 1)
    floor = z.detach().square().sum(-2).amax(-1, keepdim=True) * tolerance(z.dtype) ** 2
    basis: list[Tensor] = []
    found: list[Tensor] = []
    errors: list[Tensor] = []  # squared angle by which rounding may have turned each basis vector
    for j in range(dim - 1):
        column = _residual(z[..., j], basis) if j < count else torch.zeros_like(z[..., 0])
        square, noise = column.detach().square().sum(-1, keepdim=True), _noise(z, j, basis, errors, floor)
        found.append((square > noise) & (square > 0))
        errors.append(torch.where(found[j], noise / torch.where(found[j], square, 1.0), 0.0))
        basis.append(_unit(column, found[j]))
    for j in range(dim - 1):
        spare = _residual(tie[..., j], basis)
        basis[j] = torch.where(found[j], basis[j], _unit(spare, ~found[j]))
    last = z[..., dim - 1] if z.shape[-1] >= dim else torch.zeros_like(z[..., 0])
    noise = _noise(z, dim - 1, basis, errors, floor)
    return torch.stack([*basis, _completion(basis, last, tie[..., -1], noise, special)], -1)


def _noise(z: Tensor, j: int, basis: list[Tensor], errors: list[Tensor], floor: Tensor) -> Tensor:
    """Squared length that rounding may give the residual of column j: a small basis vector is an inaccurate one."""
    if j >= z.shape[-1]:
        return floor
    column = z[..., j].detach()
    return floor + sum(
        (u.detach() * column).sum(-1, keepdim=True).square() * error for u, error in zip(basis, errors, strict=True)
    )


def _completion(basis: list[Tensor], column: Tensor, tie: Tensor, floor: Tensor, special: bool) -> Tensor:
    """The unit vector orthogonal to d - 1 others: turned towards the column, else the tie, or so that det = 1."""
    normal = _normal(basis, column, tie)
    if special:
        return normal
    height = (normal * column).sum(-1, keepdim=True).detach()
    height = torch.where(height.square() > floor, height, (normal * tie).sum(-1, keepdim=True).detach())
    return torch.where(height < 0, -normal, normal)


def _normal(basis: list[Tensor], column: Tensor, tie: Tensor) -> Tensor:
    """The unit vector that completes d - 1 orthonormal ones to a basis of determinant one."""
    if not basis:
        return torch.ones_like(tie + column)
    if len(basis) == 1:
        return torch.stack([-basis[0][..., 1], basis[0][..., 0]], -1)
    if len(basis) == 2:
        return torch.linalg.cross(*torch.broadcast_tensors(*basis))
    spare = _residual(tie, basis)
    normal = _unit(spare, torch.ones_like(spare[..., :1], dtype=torch.bool))
    sign = torch.linalg.det(torch.stack([*torch.broadcast_tensors(*basis, normal)], -1).detach()).sign()
    return normal * sign.unsqueeze(-1)


def _residual(column: Tensor, basis: list[Tensor]) -> Tensor:
    """Remove the components along the basis, twice: once leaves an error of eps / |residual|."""
    for _ in range(2):
        for u in basis:
            column = column - u * (u * column).sum(-1, keepdim=True)
    return column


def _unit(column: Tensor, keep: Tensor) -> Tensor:
    """column / |column| where `keep`, else zero; the gradient is finite everywhere."""
    square = column.square().sum(-1, keepdim=True)
    return torch.where(keep, column * torch.where(keep, square, 1.0).rsqrt(), 0.0)


def _scaled(z: Tensor) -> Tensor:
    """z divided by its largest entry, so that the squares of tiny and huge clouds stay in range."""
    if not z.shape[-1]:
        return z
    size = z.detach().abs().amax((-2, -1), keepdim=True)
    return z / torch.where(size > 0, size, 1.0)


def wide(x: Tensor) -> Tensor:
    """x in at least float32, or complex64."""
    if x.dtype in (torch.bfloat16, torch.float16):
        return x.float()
    return x.to(torch.complex64) if x.dtype == torch.complex32 else x


def rank(z: Tensor) -> Tensor:
    """Number of independent columns of z (*shape, D, M), judged relative to its size."""
    singular = torch.linalg.svdvals(_scaled(wide(z.detach())))
    return (singular > tolerance(singular.dtype)).sum(-1)
