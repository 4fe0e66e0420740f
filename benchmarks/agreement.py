"""Times are compared only between functions that compute the same."""

from torch import Tensor


def gap(ours: Tensor, theirs: Tensor, tolerance: float) -> str:
    """The largest difference; ValueError where it is above the tolerance, or no number."""
    found = (ours - theirs).abs().max().item()
    if not found <= tolerance:
        raise ValueError(f"outputs differ by {found:.0e}, more than {tolerance:.0e}: their times say nothing")
    return f"{found:.0e}"
