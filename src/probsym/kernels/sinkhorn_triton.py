"""SoftSort and Sinkhorn of many small matrices on a GPU: a kernel that keeps each matrix in the registers of one block.

Written with torch, every normalisation reads and writes all matrices. The arithmetic is that of `sinkhorn._slopes`.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

LARGEST_NODES = 128  # larger matrices do not fit the registers


@triton.jit
def _start(z, ordered, scale, least, row, i, j, n):  # type: ignore[no-untyped-def]
    """exp(-|z_i - ordered_j| scale) of one matrix, 0 below exp(least); the sign of the difference."""
    zi = tl.load(z + row * n + i, mask=i < n, other=0.0)
    oj = tl.load(ordered + row * n + j, mask=j < n, other=0.0)
    away = zi[:, None] - oj[None, :]
    log_p = -tl.abs(away) * scale
    inside = (i < n)[:, None] & (j < n)[None, :]
    p = tl.where(inside & (log_p > least), tl.exp(tl.maximum(log_p, least)), 0.0)
    return p, tl.where(away > 0, 1.0, tl.where(away < 0, -1.0, 0.0))


@triton.jit
def _over_nodes(p, taken, i, n):  # type: ignore[no-untyped-def]
    total = tl.sum(p, 0)
    total = tl.where(i < n, total, 1.0)
    tl.store(taken + i, total)
    return p / total[None, :]


@triton.jit
def _over_poses(p, taken, i, n):  # type: ignore[no-untyped-def]
    total = tl.sum(p, 1)
    total = tl.where(i < n, total, 1.0)
    tl.store(taken + i, total)
    return p / total[:, None]


@triton.jit
def _normalised(p, taken, i, j, n, passes, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    p = _over_nodes(p, taken, j, n)
    for s in range(passes):
        p = _over_poses(p, taken + (2 * s + 1) * BLOCK, i, n)
        p = _over_nodes(p, taken + (2 * s + 2) * BLOCK, j, n)
    return p


@triton.jit
def _matrix_kernel(z, ordered, taken, out, scale, least, n, passes, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    row = tl.program_id(0).to(tl.int64)
    i, j = tl.arange(0, BLOCK), tl.arange(0, BLOCK)
    p, _ = _start(z, ordered, scale, least, row, i, j, n)
    p = _normalised(p, taken + row * (2 * passes + 1) * BLOCK, i, j, n, passes, BLOCK)
    place = row * n * n + i[:, None] * n + j[None, :]
    tl.store(out + place, p, mask=(i < n)[:, None] & (j < n)[None, :])


@triton.jit
def _slopes_kernel(  # type: ignore[no-untyped-def]
    z, ordered, grad, taken, by_node, by_pose, scale, least, n, passes, stride_row, stride_i, stride_j,
    BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    i, j = tl.arange(0, BLOCK), tl.arange(0, BLOCK)
    inside = (i < n)[:, None] & (j < n)[None, :]
    taken += row * (2 * passes + 1) * BLOCK
    p, slant = _start(z, ordered, scale, least, row, i, j, n)
    p = _normalised(p, taken, i, j, n, passes, BLOCK)
    tl.debug_barrier()  # the sums are read by other threads than wrote them
    place = row * stride_row + i[:, None] * stride_i + j[None, :] * stride_j
    slope = p * tl.load(grad + place, mask=inside, other=0.0)
    for back in range(passes):
        s = passes - 1 - back
        slope -= p * tl.sum(slope, 0)[None, :]
        p *= tl.load(taken + (2 * s + 2) * BLOCK + j)[None, :]
        slope -= p * tl.sum(slope, 1)[:, None]
        p *= tl.load(taken + (2 * s + 1) * BLOCK + i)[:, None]
    slope -= p * tl.sum(slope, 0)[None, :]
    slope *= slant
    tl.store(by_node + row * n + i, tl.sum(slope, 1), mask=i < n)
    tl.store(by_pose + row * n + j, tl.sum(slope, 0), mask=j < n)


def matrix(z: Tensor, ordered: Tensor, temperature: float, passes: int, least: float) -> Tensor:
    """The soft permutations (*shape, N, N), node by pose slot, of scores and sorted scores (*shape, N) in float32."""
    z, ordered, taken, block, warps = _prepared(z, ordered, passes)
    out = z.new_empty(*z.shape, z.shape[-1])
    with torch.cuda.device_of(z):
        _matrix_kernel[(len(taken),)](
            z, ordered, taken, out, 1 / temperature, least, z.shape[-1], passes, BLOCK=block, num_warps=warps
        )
    return out


def slopes(
    z: Tensor, ordered: Tensor, grad: Tensor, temperature: float, passes: int, least: float
) -> tuple[Tensor, Tensor]:
    """What `sinkhorn._slopes` gives, (*shape, N) each, for the gradient (*shape, N, N)."""
    z, ordered, taken, block, warps = _prepared(z, ordered, passes)
    n = z.shape[-1]
    grad = grad.reshape(len(taken), n, n)
    by_node, by_pose = torch.empty_like(z), torch.empty_like(z)
    with torch.cuda.device_of(z):
        _slopes_kernel[(len(taken),)](
            z, ordered, grad, taken, by_node, by_pose, 1 / temperature, least, n, passes, *grad.stride(),
            BLOCK=block, num_warps=warps,
        )  # fmt: skip
    return by_node, by_pose


def _prepared(z: Tensor, ordered: Tensor, passes: int) -> tuple[Tensor, Tensor, Tensor, int, int]:
    """Both laid out plainly, room for the sums, the side of a block and its warps."""
    block = max(16, triton.next_power_of_2(z.shape[-1]))
    taken = z.new_empty(math.prod(z.shape[:-1]), 2 * passes + 1, block)
    return z.contiguous(), ordered.contiguous(), taken, block, 4 if block <= 32 else 8 if block <= 64 else 16
