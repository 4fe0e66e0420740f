"""From the change that a model predicts to the positions and velocities that are compared with the true ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..batches import Batch


@dataclass(frozen=True)
class Motion:
    """What the outputs of a base are changes of; it is added to the average, never inside it.

        positions = pos + change        or, with free flight,        pos + time vel + change
                                        or, about the centroid,      mean of pos + change
                                        or, absolute,                change

    Outputs are tensors (..., B, N, D), or dicts of them with "pos" and "vel".

    Args:
        free_flight: Whether the base tells how far particles are from where they would fly without forces. Otherwise it
            tells how far they are from where they start.
        about_centroid: Whether it tells how far they are from the centroid of all where they start.
        absolute: Whether it tells where they are.
        time: Units of it that are predicted.
    """

    free_flight: bool = False
    about_centroid: bool = False
    absolute: bool = False
    time: float = 1.0

    def positions(self, change: Any, start: Batch) -> Tensor:
        """Predicted positions (..., B, N, D)."""
        if self.absolute:
            return displacement(change)
        known = start["pos"]
        if self.about_centroid:
            known = known.mean(-2, keepdim=True)
        if self.free_flight:
            known = known + self.time * start["vel"]
        return known + displacement(change)

    def velocities(self, change: Any, start: Batch) -> Tensor:
        """Predicted velocities (..., B, N, D), of outputs that have them."""
        return start["vel"] + change["vel"]

    def mse(self, change: Any, batch: Batch) -> Tensor:
        """Mean squared errors (..., B) of the predicted positions."""
        return (self.positions(change, batch) - batch["target"]).square().mean((-2, -1))


def displacement(change: Any) -> Any:
    """What an output, or its Rep, says of the positions, where velocities may come with them."""
    if isinstance(change, dict):
        return change["pos"]
    return change
