"""Displacements of pairs of particles, and their lengths."""

import torch
from torch import Tensor

SOFTENING = 0.1  # length below which inverse distances level off, in units of the positions


def differences(x: Tensor) -> Tensor:
    """`x_i - x_j`: (R, N, D) to (R, N, N, D)."""
    return x.unsqueeze(2) - x.unsqueeze(1)


def square(x: Tensor) -> Tensor:
    """`|x|^2` along the last axis, which stays with length 1."""
    return x.square().sum(-1, keepdim=True)


def norm(x: Tensor) -> Tensor:
    """`|x|` along the last axis, which stays with length 1; gradient zero at x = 0."""
    s = square(x)
    return torch.where(s > 0, torch.where(s > 0, s, 1.0).sqrt(), 0.0)


def inverse(square: Tensor) -> Tensor:
    """`(|x|^2 + SOFTENING^2)^(-1/2)` of squared lengths."""
    return (square + SOFTENING**2).rsqrt()
