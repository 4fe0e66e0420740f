"""Rotations in other coordinates, and averages of them: quaternions, six numbers, the nearest rotation to a matrix.

An average of rotation matrices is no rotation: `nearest_rotation` takes it back to one. An average of quaternions means
nothing, since q and -q are the same rotation: `mean_quaternion` averages what they stand for.
"""

from __future__ import annotations

import torch
from torch import Tensor

from probsym.kernels.precision import matmul, wide
from probsym.kernels.values import differentiated, readable

CERTAIN = 1e-6  # least gap that makes the nearest rotation certain, relative to the largest singular value
NEWTON_STEPS = 2


def nearest_rotation(matrix: Tensor, *, reflections: bool = False, return_certain: bool = False) -> Tensor:
    """The rotation R that is nearest to a matrix M: the one of largest tr(R^T M), the polar factor of M.

        M = U S V^T  (singular values),        R = U diag(1, ..., 1, det U V^T) V^T

    Use it on averages: the mean of rotation matrices is no rotation, and R of it is their mean (arXiv 2006.14616). The
    derivative is that of the polar factor, also where singular values are equal, as those of a rotation are; the
    derivative of a singular value decomposition is not finite there.

    R is not determined where the last singular values vanish or cancel, s_(D-1) + s_D det(U V^T) = 0. So it is for
    the mean of rotations that point everywhere: such an average is refused, unless you ask for the flag.

    Args:
        matrix: (*shape, D, D), D > 1.
        reflections: whether R may have determinant -1; then it is U V^T, undetermined where s_D = 0.
        return_certain: return (R, certain) with a flag (*shape) instead of an error; where it is false R is one of
            several and has no gradient.

    Returns: (*shape, D, D), in the dtype of the matrix.

    Raises:
        ValueError: not square, or a matrix to which several rotations are nearest. While a compiler or a function
            transform follows, no values are looked at, and nothing is raised.

    >>> turns = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.0, -1.0], [1.0, 0.0]]])     # by 0 and by 90 degrees
    >>> nearest_rotation(turns.mean(0))
    tensor([[ 0.7071, -0.7071],
            [ 0.7071,  0.7071]])
    """
    if matrix.ndim < 2 or matrix.shape[-1] != matrix.shape[-2] or matrix.shape[-1] < 2:
        raise ValueError(f"matrix: expected square matrices (*shape, D, D) with D > 1, got shape {tuple(matrix.shape)}")
    if not matrix.is_floating_point():
        raise TypeError(f"matrix: expected a real floating dtype, got {matrix.dtype}")
    dtype = matrix.dtype
    m = wide(matrix)

    # 1. The value. A decomposition of NaN would be an error of all rows, so that these are left out.
    fixed = m.detach()  # `no_grad` does not stop derivatives in forward mode, and those of svd may be NaN
    with torch.no_grad():
        finite = fixed.isfinite().all(-1).all(-1)
        one = torch.eye(m.shape[-1], dtype=m.dtype, device=m.device)
        u, s, vh = torch.linalg.svd(torch.where(finite[..., None, None], fixed, one))
        sign = torch.ones_like(s[..., 0])
        if not reflections:
            sign = torch.linalg.det(matmul(u, vh)).sign()
        last = torch.cat([u[..., :-1], u[..., -1:] * sign[..., None, None]], -1)
        rotation = matmul(last, vh)
        gap = s[..., -1] if reflections else s[..., -2] + sign * s[..., -1]
        certain = finite & (gap > CERTAIN * s[..., 0])
    if not return_certain and readable(certain):
        _refuse_uncertain(certain, finite)

    # 2. Its derivative, by steps of Newton's method that start at the solution.
    if differentiated(m):
        safe = torch.where(certain[..., None, None], m, rotation)
        for _ in range(NEWTON_STEPS):
            rotation = _newton_step(rotation, safe)
    rotation = torch.where(finite[..., None, None], rotation, torch.nan).to(dtype)
    if return_certain:
        return rotation, certain  # type: ignore[return-value]
    return rotation


def _refuse_uncertain(certain: Tensor, finite: Tensor) -> None:
    vague = finite & ~certain
    if not bool(vague.any()):
        return
    first = tuple(vague.nonzero()[0].tolist())
    raise ValueError(
        f"matrix: {int(vague.sum())} of {vague.numel()} have no nearest rotation, the first at {first}: what was "
        "averaged points everywhere; average more similar rotations, or pass return_certain=True for a flag"
    )


def _newton_step(r: Tensor, m: Tensor) -> Tensor:
    """R exp(W) for the antisymmetric W that makes exp(W)^T R^T M symmetric to first order.

        W P + P W = A - A^T,    A = R^T M,    P = (A + A^T) / 2

    At the polar factor R^T M is symmetric: there W is zero, and its derivative is that of the polar factor. The second
    step makes second derivatives exact as well.
    """
    a = matmul(r.mT, m)
    p = (a + a.mT) / 2
    basis = _antisymmetric(r.shape[-1], r)
    # <E_k, E_l P + P E_l> and <E_k, A - A^T>, for a basis E_k of the antisymmetric matrices
    rows = p.unsqueeze(-3)
    products = matmul(basis, rows) + matmul(rows, basis)
    system = (basis[:, None] * products.unsqueeze(-4)).sum((-2, -1))
    right = (basis * (a - a.mT).unsqueeze(-3)).sum((-2, -1))
    weights = torch.linalg.solve(system, right.unsqueeze(-1))
    w = (weights.unsqueeze(-1) * basis).sum(-3)
    one = torch.eye(r.shape[-1], dtype=r.dtype, device=r.device)
    # exp(W) up to third order, which is enough where W is zero up to rounding
    square = matmul(w, w)
    return matmul(r, one + w + square / 2 + matmul(square, w) / 6)


def _antisymmetric(dim: int, like: Tensor) -> Tensor:
    """A basis (D (D - 1) / 2, D, D) of the antisymmetric matrices."""
    parts = []
    for i in range(dim):
        for j in range(i + 1, dim):
            part = torch.zeros(dim, dim, dtype=like.dtype, device=like.device)
            part[i, j] = 1.0
            part[j, i] = -1.0
            parts.append(part)
    return torch.stack(parts)


# ---------------------------------------------------------------- quaternions


def quaternion_to_matrix(quaternion: Tensor) -> Tensor:
    """The rotation (*shape, 3, 3) of quaternions (*shape, 4) = (w, x, y, z) of any length but zero; q and -q are equal.

    >>> quaternion_to_matrix(torch.tensor([0.0, 0.0, 0.0, 1.0])).diagonal().tolist()        # half a turn about z
    [-1.0, -1.0, 1.0]
    """
    _check_last(quaternion, 4, "quaternion")
    q = wide(quaternion)
    w, x, y, z = q.unbind(-1)
    s = 2 / q.square().sum(-1)
    rows = [
        1 - s * (y * y + z * z), s * (x * y - w * z), s * (x * z + w * y),
        s * (x * y + w * z), 1 - s * (x * x + z * z), s * (y * z - w * x),
        s * (x * z - w * y), s * (y * z + w * x), 1 - s * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(rows, -1).unflatten(-1, (3, 3)).to(quaternion.dtype)


def matrix_to_quaternion(matrix: Tensor) -> Tensor:
    """Unit quaternions (*shape, 4) = (w, x, y, z) of rotations (*shape, 3, 3), with the sign of `canonical_quaternion`.

    Accurate and with a finite gradient for all rotations: of four formulas, each row takes the one that divides by the
    largest entry.

    >>> matrix_to_quaternion(torch.eye(3)).tolist()
    [1.0, 0.0, 0.0, 0.0]
    """
    if matrix.shape[-2:] != (3, 3):
        raise ValueError(f"matrix: expected rotations (*shape, 3, 3), got shape {tuple(matrix.shape)}")
    m = wide(matrix)
    a, b, c = m.diagonal(dim1=-2, dim2=-1).unbind(-1)

    # 1. 4 q q^T: row k is q times 4 q_k.
    wx = m[..., 2, 1] - m[..., 1, 2]
    wy = m[..., 0, 2] - m[..., 2, 0]
    wz = m[..., 1, 0] - m[..., 0, 1]
    xy = m[..., 0, 1] + m[..., 1, 0]
    xz = m[..., 0, 2] + m[..., 2, 0]
    yz = m[..., 1, 2] + m[..., 2, 1]
    rows = [
        1 + a + b + c, wx, wy, wz,
        wx, 1 + a - b - c, xy, xz,
        wy, xy, 1 - a + b - c, yz,
        wz, xz, yz, 1 - a - b + c,
    ]  # fmt: skip
    outer = torch.stack(rows, -1).unflatten(-1, (4, 4))

    # 2. The row of the largest entry of q, which is at least one half, over its length.
    largest = outer.detach().diagonal(dim1=-2, dim2=-1).argmax(-1)
    row = outer.take_along_dim(largest[..., None, None], -2).squeeze(-2)
    return canonical_quaternion(row / torch.linalg.vector_norm(row, dim=-1, keepdim=True)).to(matrix.dtype)


def canonical_quaternion(quaternion: Tensor, dim: int = -1) -> Tensor:
    """Of q and -q, which are the same rotation, the one whose first entry that is not zero is positive.

    Exactly one of both is canonical, so a model that sees canonical quaternions sees one for each rotation. At half a
    turn, w = 0, the sign jumps; no continuous choice exists for all rotations.

    >>> canonical_quaternion(torch.tensor([0.0, -0.6, 0.8, 0.0])).tolist()
    [0.0, 0.6000000238418579, -0.800000011920929, 0.0]
    """
    known = quaternion.detach()
    # what is zero up to rounding does not decide, so that half turns have one sign
    rounding = 100 * torch.finfo(known.dtype).eps * known.abs().amax(dim, keepdim=True)
    w, x, y, z = torch.where(known.abs() <= rounding, 0, known).unbind(dim)
    sign = torch.where(w != 0, w, torch.where(x != 0, x, torch.where(y != 0, y, z))).sign()
    return quaternion * torch.where(sign == 0, 1, sign).unsqueeze(dim) + 0.0  # no zero with a sign


def mean_quaternion(quaternions: Tensor, weights: Tensor | None = None) -> Tensor:
    """The mean rotation of quaternions (K, *shape, 4), whatever their signs: (*shape, 4), canonical.

    The one whose matrix is nearest to the mean of their matrices; equally, the largest eigenvector of the mean of
    q q^T (Markley et al., J. Guid. Control Dyn. 30, 2007). Has a finite gradient.

    Args:
        quaternions: such as those of `phi.sample`, of any length but zero.
        weights: (K,) or (K, *shape), none negative; equal ones unless given.

    Raises:
        ValueError: no four entries, or rotations that have no mean, since they point everywhere.

    >>> q = torch.tensor([[1.0, 0.0, 0.0, 0.0], [-0.8, 0.0, 0.0, -0.6]])          # the second by about 74 degrees
    >>> mean_quaternion(q)
    tensor([0.9487, 0.0000, 0.0000, 0.3162])
    """
    matrices = quaternion_to_matrix(quaternions)
    if weights is None:
        mean = matrices.mean(0)
    else:
        weights = weights.to(matrices.dtype).reshape(*weights.shape, *[1] * (matrices.ndim - weights.ndim))
        mean = (weights * matrices).sum(0) / weights.sum(0)
    return matrix_to_quaternion(nearest_rotation(mean))


def quaternion_product(p: Tensor, q: Tensor) -> Tensor:
    """p q, of quaternions (*shape, 4): first the rotation of q, then that of p."""
    a, b, c, d = p.unbind(-1)
    w, x, y, z = q.unbind(-1)
    parts = [
        a * w - b * x - c * y - d * z,
        a * x + b * w + c * z - d * y,
        a * y - b * z + c * w + d * x,
        a * z + b * y - c * x + d * w,
    ]
    return torch.stack(parts, -1)


# ---------------------------------------------------------------- six numbers


def matrix_to_rotation6d(matrix: Tensor) -> Tensor:
    """The first two columns of matrices (*shape, 3, 3), one after the other: (*shape, 6), as in arXiv 1812.07035.

    pytorch3d writes the first two *rows*: pass it `matrix.mT`, or swap the two axes of its numbers. Rows of a rotation
    do not turn with it, so they have no slot.

    >>> matrix_to_rotation6d(torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])).tolist()
    [0.0, 1.0, 0.0, -1.0, 0.0, 0.0]
    """
    if matrix.shape[-2:] != (3, 3):
        raise ValueError(f"matrix: expected (*shape, 3, 3), got shape {tuple(matrix.shape)}")
    return matrix[..., :2].mT.flatten(-2)


def rotation6d_to_matrix(numbers: Tensor) -> Tensor:
    """The rotation (*shape, 3, 3) nearest to two columns (*shape, 6), as a model or an average of rotations gives them.

    Both columns count alike; Gram-Schmidt, as in arXiv 1812.07035, keeps the direction of the first. For two orthogonal
    columns of one length both are the same.

    Raises:
        ValueError: no six entries, or columns that determine no rotation, parallel or zero.

    >>> rotation6d_to_matrix(torch.tensor([0.0, 2.0, 0.0, -2.0, 0.0, 0.0])).round().abs().tolist()
    [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
    """
    _check_last(numbers, 6, "numbers")
    columns = numbers.unflatten(-1, (2, 3)).mT
    return nearest_rotation(torch.cat([columns, torch.zeros_like(columns[..., :1])], -1))


def _check_last(x: Tensor, size: int, name: str) -> None:
    if not x.ndim or x.shape[-1] != size:
        raise ValueError(f"{name}: expected shape (*shape, {size}), got {tuple(x.shape)}")
    if not x.is_floating_point():
        raise TypeError(f"{name}: expected a real floating dtype, got {x.dtype}")


__all__ = [
    "canonical_quaternion", "matrix_to_quaternion", "matrix_to_rotation6d", "mean_quaternion", "nearest_rotation",
    "quaternion_product", "quaternion_to_matrix", "rotation6d_to_matrix",
]  # fmt: skip
