"""Times are compared only between functions that compute the same."""

from torch import Tensor


def gap(ours: Tensor, theirs: Tensor, tolerance: float) -> str:
    """The largest difference; ValueError if it is larger than the tolerance, or NaN."""
    largest = (ours - theirs).abs().max().item()
    if not largest <= tolerance:
        raise ValueError(f"outputs differ by {largest:.0e}, more than {tolerance:.0e}: their times say nothing")
    return f"{largest:.0e}"
