"""Four-vectors (E, px, py, pz) and boosts, with the metric eta = diag(1, -1, -1, -1)."""

from __future__ import annotations

import torch
from torch import Tensor


def minkowski(p: Tensor, q: Tensor) -> Tensor:
    """p_0 q_0 - p_1 q_1 - p_2 q_2 - p_3 q_3 of four-vectors (*shape, 4).

    >>> float(minkowski(torch.tensor([5.0, 0.0, 0.0, 4.0]), torch.tensor([5.0, 0.0, 0.0, 4.0])))
    9.0
    """
    product = p * q
    return product[..., 0] - product[..., 1:].sum(-1)


def four_velocity(u: Tensor) -> Tensor:
    """The four-velocity (*shape, 4) with the space part u (*shape, 3): (sqrt(1 + u^2), u)."""
    return torch.cat([(1 + u.square().sum(-1, keepdim=True)).sqrt(), u], -1)


def boost_to(velocity: Tensor) -> Tensor:
    """The boost (*shape, 4, 4) without rotation that takes (1, 0, 0, 0) to a four-velocity (*shape, 4).

    B = [[gamma, u^T], [u, 1 + u u^T / (1 + gamma)]]
    """
    gamma = velocity[..., :1].unsqueeze(-1)
    u = velocity[..., 1:].unsqueeze(-1)
    one = torch.eye(3, dtype=velocity.dtype, device=velocity.device)
    space = one + u * u.mT / (1 + gamma)
    return torch.cat([torch.cat([gamma, u.mT], -1), torch.cat([u, space], -1)], -2)


def reflected(matrix: Tensor) -> Tensor:
    """eta L^T eta: the inverse of a Lorentz transformation."""
    sign = matrix.new_tensor([1.0, -1.0, -1.0, -1.0])
    return sign.unsqueeze(-1) * matrix.mT * sign
