"""Gram-Schmidt in closed form for two and three independent columns, with its derivative."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class GramSchmidt(torch.autograd.Function):
    """z (*shape, D, M) -> Q (*shape, D, D) and whether all columns are independent, for D = 2, 3 and M >= D.

    Q R = z with D - 1 columns; the last column is their complement, turned towards that of z or so that det Q = 1.
    Q turns as a rigid body, dQ = w x Q, by an angular velocity that the columns of z give one after the other, so the
    gradient G = dL/dQ acts by its torque alone:

        t = sum_c q_c x G_c,    dL/dz_2 = n b,    dL/dz_1 = q_2 <n, t> / r_11 - n (<q_2, t> + r_12 b) / r_11
        b = <q_1, t> / r_22,    n = q_1 x q_2

    Tensors are turned so that the batch runs fastest and a sum over space is one vectorised pass.
    """

    @staticmethod
    def forward(ctx: Any, z: Tensor, special: bool) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        dim = z.shape[-2]
        x = z[..., :dim].movedim((-1, -2), (0, 1)).contiguous()  # (column, coordinate, *shape)
        squares = x.square().sum(1)
        largest = squares.amax(0)
        floor = largest * (100 * torch.finfo(z.dtype).eps) ** 2
        first = x[0] * squares[0].rsqrt()
        # rounding may turn the first vector by floor / square, and what is left of the second by that times its length
        noise = torch.addcmul(floor, floor, largest / squares[0])
        if dim == 2:
            last = torch.stack([-first[1], first[0]])
            basis, fine = [first], noise < largest
        else:
            rest = x[1]
            for _ in range(2):
                rest = torch.addcmul(rest, first, (first * rest).sum(0), value=-1)
            square = rest.square().sum(0)
            second = rest * square.rsqrt()
            last = torch.linalg.cross(first, second, dim=0)
            error = noise / square
            basis, fine = [first, second], error < 1
            noise = torch.addcmul(noise, largest, error)
        if not special:
            height = (last * x[-1]).sum(0)
            fine = fine & (height.square() > noise)
            last = last * height.sign()
        q = torch.stack([*basis, last]).movedim((0, 1), (-1, -2))
        generic = (fine & (floor > torch.finfo(z.dtype).tiny)).all()
        ctx.save_for_backward(z, q)
        ctx.mark_non_differentiable(generic)
        return q, generic

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Any) -> tuple[Tensor, None]:  # type: ignore[override]
        z, q = ctx.saved_tensors
        dim = z.shape[-2]
        x, q, grad = (t.movedim((-1, -2), (0, 1)).contiguous() for t in (z[..., : dim - 1], q, grad))
        along = (q[0] * x).sum(1)  # the first row of R
        if dim == 2:
            torque = (q[1] * grad[0] - q[0] * grad[1]).sum(0)
            columns = [q[1] * (torque / along[0])]
        else:
            normal = torch.linalg.cross(q[0], q[1], dim=0)
            torque = torch.linalg.cross(q, grad, dim=1).sum(0)
            t = (torch.stack([q[0], q[1], normal]) * torque).sum(1)
            b = t[0] / (q[1] * x[1]).sum(0)
            a = torch.addcmul(t[1], along[1], b) / along[0]
            columns = [torch.addcmul(q[1] * (t[2] / along[0]), normal, a, value=-1), normal * b]
        pulled = torch.stack(columns).movedim((0, 1), (-1, -2))
        return torch.nn.functional.pad(pulled, (0, z.shape[-1] - dim + 1)), None
