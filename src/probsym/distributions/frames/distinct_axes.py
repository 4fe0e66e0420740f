"""The usual case of `principal_axes`, for a fifth of its operations: one dense cloud with distinct eigenvalues.

A fast twin: it answers only where the general way would find the same axes, and a test holds the two against each
other (`test_the_usual_case_is_the_general_one`).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from probsym.distributions.frames.columns import oriented
from probsym.distributions.frames.tolerances import (
    FLOAT64_EPS,
    LEAST_SUM_OF_SQUARES,
    SURE_DISTANCE_IN_ROUNDING_ERRORS,
    ZERO_LENGTH_IN_EPS,
    least_eigenvalue_gap,
    most_turn,
)
from probsym.distributions.geometry import is_point, node_axes
from probsym.groups import IsometryGroup
from probsym.groups.orthogonal import turned_axes
from probsym.kernels.values import differentiated, may_peek
from probsym.reps import Inputs, Leaf


def distinct_axes(x: Inputs, space: IsometryGroup) -> tuple[Tensor, Tensor] | None:
    """Principal axes (B, m, m) and origin (B, D) where one look at one dense cloud settles all inputs; else None.

    Decides by the worst input of the batch, under the tolerances of `principal_axes`. Only where values may be read
    and no derivative is wanted. In numpy, whose calls cost half of torch's.
    """
    leaf = _only_cloud(x, space)
    if leaf is None:
        return None

    # 1. the covariance about the origin
    raw = _columns(leaf, space)
    with np.errstate(over="ignore", invalid="ignore"):
        if space.anchored:
            origin = raw.mean(-1)
            value = raw - origin[..., None]
        else:
            origin = np.zeros(raw.shape[:2])
            value = raw
        if space.kept_axes:
            value = value[:, list(turned_axes(space))]
        moment = value @ value.transpose(0, 2, 1)
    size = moment.trace(axis1=1, axis2=2)
    if not (size.min() > LEAST_SUM_OF_SQUARES and size.max() < math.inf):
        return None

    # 2. all gaps of its eigenvalues far enough above what counts as equal, and above what would turn the axes
    variance, vectors = np.linalg.eigh(moment)
    share = variance / size[:, None]
    eps = torch.finfo(leaf.value.dtype).eps
    offset = raw.shape[-1] * float((np.square(origin).sum(-1) / size).max())
    if space.kept_axes:
        offset = float((np.square(raw).sum((1, 2)) / size).max())
    rounding = float(eps**2 * (1 + offset))
    error = math.sqrt(rounding)
    least_sure = max(
        least_eigenvalue_gap(eps) + SURE_DISTANCE_IN_ROUNDING_ERRORS * error,
        2 * error / most_turn(eps),
    )
    if not (share[:, 1:] - share[:, :-1]).min(initial=1.0) > least_sure:
        return None

    # 3. data along the first axis. Eigenvalues are known to eps of the largest only, projections to eps of themselves
    zero = ZERO_LENGTH_IN_EPS**2 * rounding
    least = float(share[:, 0].min()) - (16 + raw.shape[-1]) * FLOAT64_EPS
    if not least > zero:
        seen = np.square(vectors[:, None, :, 0] @ value).sum((1, 2))
        least = float((seen / size).min())
    if not least > zero:
        return None
    return torch.from_numpy(vectors), torch.from_numpy(origin)


def _columns(leaf: Leaf, space: IsometryGroup) -> NDArray[np.float64]:
    """A dense input as columns (B, D, M)."""
    axis = 1 + next(place for slot, place in leaf.rep.axes if slot.group == space)
    value = leaf.value.detach().double().resolve_neg().numpy()
    others = [i for i in range(1, value.ndim) if i != axis]
    value = value.transpose(0, axis, *others)
    return value.reshape(*value.shape[:2], -1)


def _only_cloud(x: Inputs, space: IsometryGroup) -> Leaf | None:
    """The points, or without points the first vectors, if they are one dense input and nobody follows the values."""
    leaves = oriented(x, space)
    if not leaves:
        return None
    if len(leaves) > 1 and is_point(leaves[1], space):
        return None  # two clouds
    leaf = leaves[0]
    if space.anchored and not is_point(leaf, space):
        return None  # vectors have no centroid
    if not may_peek(leaf.value) or not leaf.value.numel():
        return None
    if any(x.layouts[axis].uneven for axis, _ in node_axes(leaf)):
        return None
    if any(differentiated(other.value) for other in x.leaves.values()):
        return None
    return leaf
