"""Orthonormalisation: from any vectors, dependent ones and none included, to an orthogonal matrix."""

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
    Two or three independent columns on a CPU take a closed form.

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
    matrix = _closed(z, special)
    if matrix is not None:
        alike = matrix.shape == fallback.shape  # `broadcast_shapes` takes as long as the Gram-Schmidt of a small batch
        return matrix if alike else matrix.expand(torch.broadcast_shapes(matrix.shape, fallback.shape))
    vectors = _vectors(z, fallback, _needed(z, special))
    shape = torch.broadcast_shapes(z.shape[:-1], fallback.shape[:-1])
    vectors = [v.expand(shape) for v in vectors]
    basis = vectors[: z.shape[-2] - 1]
    last = _complement(basis) if basis else z.new_ones(shape)
    if not special:
        height = (last * vectors[-1]).sum(-1, keepdim=True).detach()
        last = torch.where(height < 0, -last, last)
    return torch.stack([*basis, last], -1)


def lacks_columns(z: Tensor, special: bool = False) -> Tensor:
    """Where `orthonormalise` needs its fallback (*shape): z (*shape, D, M) has too few independent columns."""
    z = wide(z.detach())
    needed = _needed(z, special)
    if not needed or _closed(z, special) is not None:
        return torch.zeros(z.shape[:-2], dtype=torch.bool, device=z.device)
    places = _independent(_scaled(z), needed)[1]
    return (places[-1] == NONE).squeeze(-1)


def _needed(z: Tensor, special: bool) -> int:
    """How many independent columns determine the matrix."""
    return z.shape[-2] - int(special)


def _closed(z: Tensor, special: bool) -> Tensor | None:
    """The matrix of columns that are clearly independent, without fallback; None where it takes the general way."""
    if z.shape[-2] not in (2, 3) or z.shape[-1] < z.shape[-2] or not may_peek(z):
        return None
    found = apply_or(GramSchmidt, lambda z, special: None, z, special)
    if found is None:
        return None
    matrix, generic = found
    return matrix if bool(generic) else None


def _vectors(z: Tensor, fallback: Tensor, count: int) -> list[Tensor]:
    """`count` orthonormal vectors (*shape, D) from the first independent columns of z, then of fallback."""
    z = _scaled(z)
    places: list[Tensor] = []
    if may_peek(z) and 0 < count <= z.shape[-1]:
        vectors, places = _independent(z, count)
        if bool((places[-1] != NONE).all()):
            return vectors
    shape = torch.broadcast_shapes(z.shape[:-2], fallback.shape[:-2])
    columns = torch.cat([t.expand(*shape, *t.shape[-2:]) for t in (z, fallback)], -1)
    return _independent(columns, count, z.shape[-1], places)[0]


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
    square = z.detach().square().sum(-2)
    # squared length that rounding may give to what is left of a column: a share of the largest, and more for each
    # vector already found, which rounding has turned as well
    least = tolerance(z.dtype) ** 2
    noise = torch.where(own, square.masked_fill(~own, 0).amax(-1, keepdim=True) * least, square * least)
    rest = z
    vectors: list[Tensor] = []
    found: list[Tensor] = []
    for k in range(count):
        # 1. the first column that is independent of those before it
        free = square > noise
        if vectors:
            free = free & (place > found[-1])
        if places:
            free = torch.where(places[k] == NONE, free & ~own, place == places[k])
        here = free.any(-1, keepdim=True)
        index = free.to(torch.uint8).argmax(-1, keepdim=True)
        column = rest.gather(-1, index.unsqueeze(-2).expand(*rest.shape[:-1], 1)).squeeze(-1)
        # once more: the first time leaves an error of eps / |rest|
        for v in vectors:
            column = column - v * (v * column).sum(-1, keepdim=True)
        vector = _unit(column, here)
        vectors.append(vector)
        found.append(torch.where(here, index, NONE))
        if k == count - 1:
            break
        # 2. what it leaves of the columns, and the squared angle by which rounding may have turned it
        along = (vector.unsqueeze(-1) * rest).sum(-2)
        rest = rest - vector.unsqueeze(-1) * along.unsqueeze(-2)
        ratio = noise.gather(-1, index) / torch.where(here, square.gather(-1, index), 1.0)
        error = torch.where(here, ratio, 0.0)
        noise = noise + along.detach().square() * error * own
        square = rest.detach().square().sum(-2)
    return vectors, found


def _complement(basis: list[Tensor]) -> Tensor:
    """The unit vector that completes d - 1 orthonormal ones, at least one, to a basis of determinant one."""
    if len(basis) == 1:
        return torch.stack([-basis[0][..., 1], basis[0][..., 0]], -1)
    if len(basis) == 2:
        return torch.linalg.cross(*basis)
    # any vector outside of their span will do: the coordinate axis that has least of them
    within = sum(u.detach().square() for u in basis)
    index = within.argmin(-1, keepdim=True)  # type: ignore[union-attr]
    axis = torch.zeros_like(basis[0]).scatter(-1, index, 1.0)
    for _ in range(2):
        for u in basis:
            axis = axis - u * (u * axis).sum(-1, keepdim=True)
    normal = _unit(axis, torch.ones_like(axis[..., :1], dtype=torch.bool))
    sign = torch.linalg.det(torch.stack([*basis, normal], -1).detach()).sign()
    return normal * sign.unsqueeze(-1)


def _unit(column: Tensor, keep: Tensor) -> Tensor:
    """column / |column| where `keep`, else zero; the gradient is finite everywhere."""
    square = column.square().sum(-1, keepdim=True)
    return torch.where(keep, column * torch.where(keep, square, 1.0).rsqrt(), 0.0)


def _scaled(z: Tensor) -> Tensor:
    """z divided by its largest entry, so that squares of tiny and huge ones stay in range; with at least one column."""
    if not z.shape[-1]:
        return z.new_zeros(*z.shape[:-1], 1)
    size = z.detach().abs().amax((-2, -1), keepdim=True)
    return z / torch.where(size > 0, size, 1.0)
