"""Orthonormalisation: from any vectors, dependent ones and none included, to an orthogonal or unitary matrix."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from probsym.kernels.gram_schmidt import GramSchmidt
from probsym.kernels.precision import wide
from probsym.kernels.values import apply_or, may_peek

NONE = 2**31  # the place of a column that is not there, behind all that are


def tolerance(dtype: torch.dtype) -> float:
    """Relative length below which a residual counts as rounding."""
    return 100 * torch.finfo(dtype).eps


def extent(x: Tensor) -> Tensor:
    """Largest finite size of the entries along the last axis, which is kept: what rounding is relative to.

    Scores may be -inf, to exclude an element.
    """
    size = x.detach().abs()
    return size.masked_fill(size == torch.inf, 0).amax(-1, keepdim=True)


def orthonormalise(z: Tensor, fallback: Tensor, special: bool = False) -> Tensor:
    """Gram-Schmidt with re-orthogonalisation, in at least float32; missing directions come from `fallback`.

    Columns of z that lie in the span of those before them are passed over, relative to the size of z. Where z has too
    few others, columns of `fallback` take their place. The last column is the complement of the others, up to the sign
    that z or `fallback` gives it; for `special` it makes the determinant one. So `fallback` matters exactly where z has
    fewer than D independent columns, D - 1 for `special`: `lacks_columns` says where, by the same steps.
    Covariant: orthonormalise(h z, h fallback) = h orthonormalise(z, fallback).

    Of complex columns the matrix is unitary. Its last column has the phase that z gives it, or for `special` that which
    makes the determinant one.

    Two or three independent real columns on a CPU take a closed form. `orthonormalise_reference` is the plain loop.

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

    # 2. Orthonormal vectors from the first independent columns: D of them, or D - 1.
    dim = z.shape[-2]
    shape = torch.broadcast_shapes(z.shape[:-1], fallback.shape[:-1])
    vectors = [v.expand(shape) for v in _vectors(z, fallback, _needed(z, special))]

    # 3. The last column completes the others; the last vector only chooses its sign. A complex one has a phase, which
    #    is as smooth as the rest.
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
    _, places = _independent(_scaled(z), needed)
    return (places[-1] == NONE).squeeze(-1)


def _needed(z: Tensor, special: bool) -> int:
    """How many independent columns determine the matrix."""
    return z.shape[-2] - int(special)


def _closed_form(z: Tensor, special: bool) -> Tensor | None:
    """The matrix of columns that are clearly independent, without fallback; None where it takes the general way."""
    if z.shape[-2] not in (2, 3) or z.shape[-1] < z.shape[-2] or z.is_complex() or not may_peek(z):
        return None
    matrix, generic = apply_or(GramSchmidt, _no_closed_form, z, special)
    if generic is None or not bool(generic):
        return None
    return matrix


def _no_closed_form(z: Tensor, special: bool) -> tuple[None, None]:
    """Under function transforms and in forward mode the general way, by plain operations, is taken."""
    return None, None


def _vectors(z: Tensor, fallback: Tensor, count: int) -> list[Tensor]:
    """`count` orthonormal vectors (*shape, D) from the first independent columns of z, then of fallback."""
    z = _scaled(z)
    places: list[Tensor] = []
    if may_peek(z) and 0 < count <= z.shape[-1]:
        # Enough independent columns everywhere: nobody needs the fallback.
        vectors, places = _independent(z, count)
        if bool((places[-1] != NONE).all()):
            return vectors
    shape = torch.broadcast_shapes(z.shape[:-2], fallback.shape[:-2])
    columns = torch.cat([z.expand(*shape, *z.shape[-2:]), fallback.expand(*shape, *fallback.shape[-2:])], -1)
    vectors, _ = _independent(columns, count, z.shape[-1], places)
    return vectors


def _independent(
    z: Tensor, count: int, judged: int | None = None, places: Sequence[Tensor] = ()
) -> tuple[list[Tensor], list[Tensor]]:
    """`count` orthonormal vectors (*shape, D) and the places (*shape, 1) in z of the columns that they are made of.

    They are the first columns that are independent of those before: what is left of them is more than rounding.
    Where there are too few, vectors are zero and places NONE.

    Args:
        z: columns (*shape, D, M); those after the first `judged` only fill up, and are as exact as they are.
        places: the places among the first `judged` where they are known already.
    """
    judged = z.shape[-1] if judged is None else judged
    place = torch.arange(z.shape[-1], device=z.device)
    own = place < judged
    square = _square(z.detach()).sum(-2)
    # Squared length that rounding may give to what is left of a column: a share of the largest, and more for each
    # vector already there, which rounding has turned as well.
    least = tolerance(z.dtype) ** 2
    largest = square.masked_fill(~own, 0).amax(-1, keepdim=True)
    noise = torch.where(own, largest * least, square * least)
    rest = z
    vectors: list[Tensor] = []
    chosen: list[Tensor] = []
    for k in range(count):
        # 1. The first column that is independent of those before it.
        free = square > noise
        if vectors:
            free = free & (place > chosen[-1])
        if places:
            free = torch.where(places[k] == NONE, free & ~own, place == places[k])
        here = free.any(-1, keepdim=True)
        index = free.to(torch.uint8).argmax(-1, keepdim=True)
        column = rest.gather(-1, index.unsqueeze(-2).expand(*rest.shape[:-1], 1)).squeeze(-1)

        # 2. Its unit vector; orthogonal once more, since the first time leaves an error of eps / |rest|.
        for v in vectors:
            column = column - v * (v.conj() * column).sum(-1, keepdim=True)
        vector = _unit(column, here)
        vectors.append(vector)
        chosen.append(torch.where(here, index, NONE))
        if k == count - 1:
            break

        # 3. What it leaves of the columns, and the squared angle by which rounding may have turned it.
        along = (vector.conj().unsqueeze(-1) * rest).sum(-2)
        rest = rest - vector.unsqueeze(-1) * along.unsqueeze(-2)
        ratio = noise.gather(-1, index) / torch.where(here, square.gather(-1, index), 1.0)
        error = torch.where(here, ratio, 0.0)
        noise = noise + _square(along.detach()) * error * own
        square = _square(rest.detach()).sum(-2)
    return vectors, chosen


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
    size = z.detach().abs().amax((-2, -1), keepdim=True)
    return z / torch.where(size > 0, size, 1.0)
