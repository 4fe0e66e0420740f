"""Orthonormalisation: from any vectors, dependent ones and none included, to an orthogonal or unitary matrix."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from probsym.kernels.gram_schmidt import GramSchmidt
from probsym.kernels.precision import wide
from probsym.kernels.values import apply_or, may_peek, readable


def tolerance(dtype: torch.dtype) -> float:
    """Relative length below which a residual counts as rounding."""
    return 100 * torch.finfo(dtype).eps


def extent(x: Tensor) -> Tensor:
    """Largest finite size of the entries along the last axis, which is kept: what rounding is relative to.

    Scores may be -inf, to exclude an element.
    """
    finite = x.detach().nan_to_num(nan=math.nan, posinf=0.0, neginf=0.0)
    return torch.linalg.vector_norm(finite, torch.inf, -1, keepdim=True)


def orthonormalise(z: Tensor, fallback: Tensor, special: bool = False) -> Tensor:
    """Gram-Schmidt with re-orthogonalisation, in at least float32; missing directions come from `fallback`.

    Columns of z that lie in the span of those before them are passed over, relative to the size of z. Where z has too
    few others, columns of `fallback` take their place. The last column is the complement of the others, up to the sign
    that z or `fallback` gives it; for `special` it makes the determinant one. So `fallback` matters exactly where z has
    fewer than D independent columns, D - 1 for `special`: `lacks_columns` says where, by the same steps.
    Covariant: orthonormalise(h z, h fallback) = h orthonormalise(z, fallback).

    Of complex columns the matrix is unitary. Its last column has the phase that z gives it, or for `special` that which
    makes the determinant one.

    Two or three real columns take a closed form. `orthonormalise_reference` is the plain loop.

    Args:
        z: columns (*shape, D, M); fallback: (*shape, D, D).

    Returns: (*shape, D, D) with orthonormal columns; value and gradient are finite at every rank of z.

    >>> z = torch.tensor([[1.0, 1.0], [0.0, 1e-3]])                             # nearly collinear
    >>> Q = orthonormalise(z, torch.eye(2))
    >>> torch.allclose(Q.mT @ Q, torch.eye(2), atol=1e-6)
    True
    """
    z = wide(z)
    fallback = wide(fallback).to(z.dtype)

    # 1. The closed form, where all of z is clearly independent. Shapes are compared first, since `broadcast_shapes`
    #    takes as long as the Gram-Schmidt of a small batch.
    matrix = _closed_form(z, special)
    if matrix is not None:
        if matrix.shape == fallback.shape:
            return matrix
        return matrix.expand(torch.broadcast_shapes(matrix.shape, fallback.shape))

    # 2. The first independent columns, D of them or D - 1. A choice has no derivative.
    dim = z.shape[-2]
    shape = torch.broadcast_shapes(z.shape[:-1], fallback.shape[:-1])
    columns, exists = _columns(z, fallback, _needed(z, special))
    if dim in (2, 3) and not z.is_complex() and readable(columns):
        matrix, _ = apply_or(GramSchmidt, _no_closed_form, columns, special, True)
        if matrix is not None:
            return matrix.expand(*shape, dim)

    # 3. Orthonormal vectors by plain operations. Twice orthogonal: the first time leaves an error of eps / |rest|.
    vectors: list[Tensor] = []
    for k in range(columns.shape[-1]):
        column = columns[..., k]
        for _ in range(2):
            for v in vectors:
                column = column - v * (v.conj() * column).sum(-1, keepdim=True)
        vectors.append(_unit(column, exists[..., k : k + 1]))

    # 4. The last column completes the others; the last vector only chooses its sign. A complex one has a phase, which
    #    is as smooth as the rest.
    vectors = [v.expand(shape) for v in vectors]
    if z.is_complex() and not special:
        return torch.stack(vectors, -1)
    basis = vectors[: dim - 1]
    last = _complement(basis) if basis else z.new_ones(shape)
    if not special:
        height = (last * vectors[-1]).sum(-1, keepdim=True).detach()
        last = torch.where(height < 0, -last, last)
    return torch.stack([*basis, last], -1)


def orthonormalise_reference(z: Tensor, fallback: Tensor, special: bool = False) -> Tensor:
    """What `orthonormalise` computes, for one matrix z (D, M) and fallback (D, D): a plain loop over the columns."""
    dim, basis = z.shape[0], list[Tensor]()
    for columns in (z, fallback):
        size = columns.norm(dim=0).max() if columns.numel() else 0
        for column in columns.mT:
            for _ in range(2):
                for v in basis:
                    column = column - v * torch.vdot(v, column)
            if len(basis) < dim and column.norm() > tolerance(z.dtype) * size:
                basis.append(column / column.norm())
    q = torch.stack(basis, -1)
    if special:
        q = torch.cat([q[:, :-1], q[:, -1:] / torch.linalg.det(q).sgn()], -1)  # by the sign, or the phase
    return q


def lacks_columns(z: Tensor, special: bool = False) -> Tensor:
    """Where `orthonormalise` needs its fallback (*shape): z (*shape, D, M) has too few independent columns."""
    z = wide(z.detach())
    needed = _needed(z, special)
    if not needed or _closed_form(z, special) is not None:
        return torch.zeros(z.shape[:-2], dtype=torch.bool, device=z.device)
    z = _scaled(z)
    _, exists = _independent(z, needed, z.shape[-1])
    return ~exists[..., -1]


def _needed(z: Tensor, special: bool) -> int:
    """How many independent columns determine the matrix."""
    return z.shape[-2] - int(special)


def _closed_form(z: Tensor, special: bool) -> Tensor | None:
    """The matrix of columns that are clearly independent, without fallback; None where it takes the general way."""
    if z.shape[-2] not in (2, 3) or z.shape[-1] < z.shape[-2] or z.is_complex() or not may_peek(z):
        return None
    matrix, generic = apply_or(GramSchmidt, _no_closed_form, z, special, False)
    if generic is None or not bool(generic):
        return None
    return matrix


def _no_closed_form(z: Tensor, special: bool, chosen: bool) -> tuple[None, None]:
    """Under function transforms and in forward mode the general way, by plain operations, is taken."""
    return None, None


def _columns(z: Tensor, fallback: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The first `count` independent columns (*shape, D, count) of z, then of fallback, and which exist (*shape, count).

    Those that do not are zero. Columns of z are divided by its size.
    """
    z = _scaled(z)
    judged = z.shape[-1]
    known: tuple[Tensor, Tensor] | None = None
    if may_peek(z) and 0 < count <= judged:
        # Enough independent columns everywhere: nobody needs the fallback.
        known = _independent(z, count, judged)
        index, exists = known
        if bool(exists[..., -1].all()):
            return z.gather(-1, index.unsqueeze(-2).expand(*z.shape[:-1], count)), exists
    shape = torch.broadcast_shapes(z.shape[:-2], fallback.shape[:-2])
    columns = torch.cat([z.expand(*shape, *z.shape[-2:]), fallback.expand(*shape, *fallback.shape[-2:])], -1)
    index, exists = _independent(columns, count, judged, known)
    found = columns.gather(-1, index.unsqueeze(-2).expand(*columns.shape[:-1], count))
    return found * exists.unsqueeze(-2), exists


@torch.no_grad()
def _independent(
    z: Tensor, count: int, judged: int, known: tuple[Tensor, Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """The places (*shape, count) of the first columns that are independent of those before, and whether they exist.

    Independent are those of which more is left than rounding. After the first one that does not exist none does.

    Args:
        z: columns (*shape, D, M); those after the first `judged` only fill up, and are as exact as they are.
        known: what this function says of the first `judged`.
    """
    if not count:
        return z.new_zeros(*z.shape[:-2], 0, dtype=torch.long), z.new_zeros(*z.shape[:-2], 0, dtype=torch.bool)
    rest = z.detach()
    square = _square(rest).sum(-2)
    # Squared length that rounding may give to what is left of a column: a share of the largest, and more for each
    # vector already there, which rounding has turned as well.
    largest = square[..., :judged].amax(-1, keepdim=True).expand(*square.shape[:-1], judged)
    noise = tolerance(z.dtype) ** 2 * torch.cat([largest, square[..., judged:]], -1)
    places: list[Tensor] = []
    exists: list[Tensor] = []
    if known is not None:
        numbers = torch.arange(z.shape[-1], device=z.device)
    for k in range(count):
        # 1. The first column that is more than noise. Of those before it, and of a chosen one, nothing more is left.
        share = noise / square
        free = share < 1
        if known is not None:
            found, is_found = known[0][..., k : k + 1], known[1][..., k : k + 1]
            free = torch.where(is_found, numbers == found, free & (numbers >= judged))
        place = free.to(torch.uint8).argmax(-1, keepdim=True)
        places.append(place)
        exists.append(free.gather(-1, place))
        if k == count - 1:
            break

        # 2. What its unit vector leaves of the columns, and the squared angle by which rounding may have turned it.
        column = rest.gather(-1, place.unsqueeze(-2).expand(*rest.shape[:-1], 1))
        vector = column / torch.linalg.vector_norm(column, dim=-2, keepdim=True)
        along = (vector.conj() * rest).sum(-2, keepdim=True)
        rest = torch.addcmul(rest, vector, along, value=-1)
        square = _square(rest).sum(-2)
        turned = _square(along.squeeze(-2)[..., :judged])
        grown = torch.addcmul(noise[..., :judged], turned, share.gather(-1, place))
        noise = torch.cat([grown, noise[..., judged:]], -1)
    return torch.cat(places, -1), torch.cat(exists, -1)


def _complement(basis: list[Tensor]) -> Tensor:
    """The unit vector that completes d - 1 orthonormal ones, at least one, to a basis of determinant one."""
    if len(basis) == 1:
        return torch.stack([-basis[0][..., 1], basis[0][..., 0]], -1).conj()
    if len(basis) == 2:
        return torch.linalg.cross(*basis).conj()
    # Any vector outside of their span will do: the coordinate axis that has least of them.
    within = torch.zeros_like(_square(basis[0]))
    for u in basis:
        within = within + _square(u.detach())
    index = within.argmin(-1, keepdim=True)
    axis = torch.zeros_like(basis[0]).scatter(-1, index, 1.0)
    for _ in range(2):
        for u in basis:
            axis = axis - u * (u.conj() * axis).sum(-1, keepdim=True)
    normal = _unit(axis, torch.ones_like(axis[..., :1], dtype=torch.bool))
    if normal.is_complex():
        # The phase moves with the basis, and so has a derivative.
        return normal * torch.linalg.det(torch.stack([*basis, normal], -1)).conj().unsqueeze(-1)
    sign = torch.linalg.det(torch.stack([*basis, normal], -1).detach()).sign()
    return normal * sign.unsqueeze(-1)


def _unit(column: Tensor, keep: Tensor) -> Tensor:
    """column / |column| where `keep`, else zero; the gradient is finite everywhere."""
    square = _square(column).sum(-1, keepdim=True)
    return torch.where(keep, column * torch.where(keep, square, 1.0).rsqrt(), 0.0)


def _square(x: Tensor) -> Tensor:
    """|x|^2, smooth at zero also of complex numbers."""
    if x.is_complex():
        return x.real.square() + x.imag.square()
    return x.square()


def _scaled(z: Tensor) -> Tensor:
    """z divided by its largest entry, so that squares of tiny and huge ones stay in range; with at least one column."""
    if not z.shape[-1]:
        return z.new_zeros(*z.shape[:-1], 1)
    size = torch.linalg.vector_norm(z.detach(), torch.inf, (-2, -1), keepdim=True)
    return z / size.masked_fill(size == 0, 1.0)
