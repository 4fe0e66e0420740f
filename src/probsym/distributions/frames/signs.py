"""The signs of the axes: all that is left to choose for a generic cloud (Puny et al., arXiv 2110.03336).

F(x) = { (a_1 u_1, ..., a_D u_D) : a_i in {-1, 1} },    for SO and SE those of determinant one
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import torch
from torch import Tensor

from probsym.distributions.frames.search import Listing, Paths
from probsym.groups import IsometryGroup


def signed(matrix: Tensor, special: bool) -> Tensor:
    """Axes (B, D, D) with all their signs, or with those of determinant one: (2^D, B, D, D) or (2^(D-1), B, D, D).

    >>> signed(torch.eye(2)[None], special=True)[:, 0].tolist()
    [[[1.0, 0.0], [0.0, 1.0]], [[-1.0, -0.0], [-0.0, -1.0]]]
    """
    if special:
        # right-handed first, so that patterns of product one are those of determinant one
        parity = torch.linalg.det(matrix.detach()).sign()
        matrix = _times_last_axis(matrix, parity)
    return matrix * torch.from_numpy(_all_signs(matrix.shape[-1], special)).to(matrix)


@cache
def _all_signs(dim: int, special: bool) -> np.ndarray:
    """Signs of the columns (M, 1, D, D) in the order of `signs_of_pattern`, for `special` those of product one.

    Every row has its copy, so that a product runs over whole matrices. In numpy: a tensor that a compiler, an exporter
    or inference mode made must not outlive its call in a cache.
    """
    pattern = np.arange(2**dim)[:, None]
    signs = 1.0 - 2.0 * (pattern >> np.arange(dim) & 1)
    if special:
        signs = signs[signs.prod(-1) > 0]
    return signs[:, None, None].repeat(dim, 2)


def signs_of_pattern(pattern: Tensor, free: Tensor) -> Tensor:
    """Signs of the axes (..., D): minus where the bit of a free axis is set; pattern (...), free (..., D).

    >>> signs_of_pattern(torch.tensor(2), torch.tensor([True, False, True])).tolist()
    [1.0, 1.0, -1.0]
    """
    bit = (free.cumsum(-1) - 1).clamp_min(0)
    is_set = ((pattern[..., None] >> bit) & 1).bool()
    return torch.where(free & is_set, -1.0, 1.0).double()


def choose_signs(paths: Paths, space: IsometryGroup) -> None:
    """Choose the signs of all free axes; for SO and SE those of determinant one."""
    state = paths.spaces[space]
    matrix = state.matrix
    parity = torch.ones_like(paths.weight)
    if space.special:
        parity = torch.linalg.det(matrix.detach()).sign()
        # with no axis free to be turned, the last one follows from the others
        turn = torch.where(state.free.any(-1), 1.0, parity)
        matrix = _times_last_axis(matrix, turn)
        parity = parity * turn
        paths.spaces[space] = replace(state, matrix=matrix)

    if isinstance(paths, Listing):
        signs = _listed_signs(paths, space, parity)
    else:
        noise = paths.noise_of(space).signs[paths.draw]
        signs = _drawn_signs(matrix.detach(), state.free, parity, noise, space.special)

    state = paths.spaces[space]
    paths.spaces[space] = replace(state, matrix=state.matrix * signs[:, None])


def _listed_signs(paths: Listing, space: IsometryGroup, parity: Tensor) -> Tensor:
    """All signs of the free axes that give determinant one if the group is special, one path each (R, D)."""
    # 1. inputs that have more patterns than may be listed are given up before anybody makes a table of them
    number = paths.spaces[space].free.sum(-1)
    too_many = number - int(space.special) >= paths.rounds
    if bool(too_many.any()):
        kept = paths.give_up(torch.zeros_like(paths.overflow).index_fill(0, paths.owner[too_many], True))
        parity = parity[kept]
    free = paths.spaces[space].free
    number = free.sum(-1)

    # 2. the patterns of each path: one bit per free axis
    most = int(number.max()) if len(number) else 0
    pattern = torch.arange(2**most, device=number.device)
    options = pattern < 2 ** number[:, None]
    if space.special:
        determinant = signs_of_pattern(pattern, free[:, None]).prod(-1) * parity[:, None]
        options = options & (determinant > 0)

    # 3. one path per pattern
    choice = paths.choose(options)
    return signs_of_pattern(choice.option, paths.spaces[space].free)


def _drawn_signs(matrix: Tensor, free: Tensor, parity: Tensor, noise: Tensor, special: bool) -> Tensor:
    """sign <u, noise> of every free axis (R, D); a wrong determinant is mended at the least decided one."""
    along = (noise.unsqueeze(1) @ matrix).squeeze(1)
    signs = torch.where(free & (along < 0), -1.0, 1.0).to(matrix.dtype)
    if special:
        weakest = along.abs().masked_fill(~free, torch.inf).argmin(-1, keepdim=True)
        wrong = signs.prod(-1, keepdim=True) * parity[:, None] < 0
        is_weakest = torch.arange(matrix.shape[-1], device=free.device) == weakest
        signs = torch.where(wrong & is_weakest, -signs, signs)
    return signs


def _times_last_axis(matrix: Tensor, factor: Tensor) -> Tensor:
    """Matrices (R, D, D) whose last column is multiplied by a factor (R,)."""
    return torch.cat([matrix[..., :-1], matrix[..., -1:] * factor[:, None, None]], -1)
