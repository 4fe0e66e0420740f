"""Padded batches: zero what is masked, and average over what is not. All that the nets know of masks."""

from torch import Tensor, nn


def keep(x: Tensor, mask: Tensor | None) -> Tensor:
    """`x` with zeros (never NaN) where `mask` is false; `mask` covers the leading axes of `x`.

    >>> import torch
    >>> keep(torch.tensor([[1.0, float("nan")]]), torch.tensor([[True, False]]))
    tensor([[1., 0.]])
    """
    return x if mask is None else x.masked_fill(~mask[(...,) + (None,) * (x.ndim - mask.ndim)], 0)


def pairwise(mask: Tensor | None) -> Tensor | None:
    """The mask of pairs: (B, N) to (B, N, N), `m_ij = m_i and m_j`."""
    return None if mask is None else mask.unsqueeze(2) & mask.unsqueeze(1)


def mean(x: Tensor, mask: Tensor | None) -> Tensor:
    """`sum_j m_j x_j / max(1, sum_j m_j)`: (B, N, ...) to (B, ...), 0 where nothing is left.

    >>> import torch
    >>> mean(torch.tensor([[1.0, 3.0, 9.0]]), torch.tensor([[True, True, False]]))
    tensor([2.])
    """
    total = keep(x, mask).sum(1)
    return total / max(x.shape[1], 1) if mask is None else total / size(mask)[(...,) + (None,) * (x.ndim - 2)]


def lifted(head: nn.Linear, h: Tensor, mask: Tensor | None) -> Tensor:
    """`W h_i + b + mean_j |W| |h_j|`: scores to sort by, which a common shift leaves alone.

    The shift is the size of what was added up. Whoever asks whether two scores are equal up to rounding, relative to
    their size, then asks for the right size also where the sum cancels: (B, N, F) to (B, N, outputs).
    """
    return head(h) + mean(h.abs() @ head.weight.abs().mT, mask).unsqueeze(1)


def size(mask: Tensor) -> Tensor:
    """Nodes per graph, at least 1: (B, N) to (B,)."""
    return mask.sum(1).clamp(min=1)


def channels(pairs: Tensor) -> Tensor:
    """Pair features with a channel axis: (B, N, N) to (B, N, N, 1), (B, N, N, P) as it is."""
    return pairs.unsqueeze(-1) if pairs.ndim == 3 else pairs
