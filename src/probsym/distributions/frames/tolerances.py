"""What counts as equal, as zero and as certain: every threshold of the frames, with its unit.

`eps` is always the relative rounding of the coarsest dtype in which the coordinates came, and `rounding` the sum of
squares that this rounding leaves where there should be zero.

A decision (are these eigenvalues equal? is this direction empty?) has a threshold, which is the same for all poses of
an input, and a band around it in which the rounding of the pose may decide. Inputs within the band are `unsure`.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Eigenvalues of the covariance whose gap, relative to the trace, is smaller count as equal.
EIGENVALUE_GAP_OF_TRACE = 1e-3

# Lengths below so many times eps of the coordinates as they came count as zero.
ZERO_LENGTH_IN_EPS = 100

# Frames are unsure where rounding may turn an axis by more radians (a bound, mostly ten times the truth) ...
MOST_TURN_IN_RADIANS = 5e-3

# ... and where data is so small that its relative rounding is larger than this.
MOST_RELATIVE_ROUNDING = 1e-3

# Decisions so many rounding errors away from their threshold are the same for all poses of an input.
SURE_DISTANCE_IN_ROUNDING_ERRORS = 8

# Columns whose directions (unit vectors) are closer than this count as one direction.
EQUAL_DIRECTIONS_DISTANCE = 1e-3

# Columns of an ordered input count as long from this fraction of the longest on.
LONG_FRACTION_OF_LONGEST = 0.1

# Sums of squares below this lose digits in float64 unless the coordinates are scaled first.
LEAST_SUM_OF_SQUARES = 1e-200

# Keys of nodes are of order one. Gaps below this count as equal where no coordinates have a share in the keys ...
EXACT_KEY_GAP = 1e-9

# ... and gaps below this where they do: far above what float32 makes of them.
ROUNDED_KEY_GAP = 1e-3

# By how much float64 itself moves a key, at most.
KEY_ERROR_OF_FLOAT64 = 1e-12

# The gap of two keys moves by at most so many times the relative rounding of the coordinates.
KEY_GAP_PER_ROUNDING = 16

FLOAT64_EPS = torch.finfo(torch.float64).eps


def least_eigenvalue_gap(eps: float) -> float:
    """Eigenvalues, relative to their sum, that are closer than this count as equal.

    The same for all poses, wherever they are: only how sure a decision is depends on the rounding of an input.
    """
    return max(EIGENVALUE_GAP_OF_TRACE, 16 * eps)


def most_turn(eps: float) -> float:
    """The angle in radians above which frames are unsure; half precision turns all axes by more than the usual one."""
    return max(MOST_TURN_IN_RADIANS, 64 * eps)


def is_zero(size: Tensor, rounding: Tensor) -> Tensor:
    """Whether data of this size (sums of squares) is nothing but rounding."""
    return size <= ZERO_LENGTH_IN_EPS**2 * rounding


def is_thin(size: Tensor, rounding: Tensor, eps: float) -> Tensor:
    """Whether data of this size (sums of squares) is so small that rounding turns it, or decides if it is data."""
    may_be_data = size > (ZERO_LENGTH_IN_EPS / 2) ** 2 * rounding
    turned_by_rounding = size < rounding / max(MOST_RELATIVE_ROUNDING, 8 * eps) ** 2
    return may_be_data & turned_by_rounding


def key_tolerance(error: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Gaps (R,) below which keys are equal, and how close to that a gap must be for rounding to decide (R,).

    Permutations do not round: without coordinates, equal is equal to the precision of float64. Points and vectors are
    known to a relative `error` (R,) only. It moves a key by up to three times its size in all that was measured (the
    operator Lipschitz constant of h bounds it by 16 times that of the matrix M in `node_keys`), and the gap of two keys
    by less than `KEY_GAP_PER_ROUNDING` times it. A tie costs little, because coordinates in the frame resolve it, so
    the tolerance is far above the rounding and the same for all poses, near the origin and far.
    """
    return _key_tolerance(error, eps, KEY_GAP_PER_ROUNDING)


def coordinate_tolerance(error: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """The same as `key_tolerance` for coordinates in a frame, which move by the rounding itself."""
    return _key_tolerance(error, eps, SURE_DISTANCE_IN_ROUNDING_ERRORS)


def _key_tolerance(error: Tensor, eps: float, gap_per_rounding: float) -> tuple[Tensor, Tensor]:
    rounded_gap = max(ROUNDED_KEY_GAP, 4 * gap_per_rounding * eps)
    tolerance = torch.where(error > 0, rounded_gap, EXACT_KEY_GAP)
    slack = KEY_ERROR_OF_FLOAT64 + gap_per_rounding * error
    return tolerance, slack
