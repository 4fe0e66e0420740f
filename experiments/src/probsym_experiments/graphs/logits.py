"""What a binary graph classifier is scored by: functions of logits (..., B, 1) and a batch with a target (B,)."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits
from torchmetrics.functional.classification import binary_accuracy

from ..batches import Batch


def cross_entropy(logits: Tensor, batch: Batch) -> Tensor:
    """Logits (..., B, 1) to cross-entropies (..., B)."""
    return binary_cross_entropy_with_logits(logits[..., 0], batch["target"].expand(logits.shape[:-1]), reduction="none")


def correct(logits: Tensor, batch: Batch) -> Tensor:
    """Logits (..., B, 1) to 1 where the label is right and 0 where not (..., B).

    Probabilities, not logits, go into torchmetrics: it applies a sigmoid only if some value lies outside [0, 1].
    """
    guess = logits.sigmoid().reshape(-1, 1)
    target = batch["target"].long().expand(logits.shape[:-1]).reshape(-1, 1)
    return binary_accuracy(guess, target, multidim_average="samplewise").reshape(logits.shape[:-1])
