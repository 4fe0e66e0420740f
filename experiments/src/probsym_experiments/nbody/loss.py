"""What is minimised, and what is measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

import probsym as ps

from ..batches import Batch, rows, size
from ..evaluation import add_entropy
from ..few_samples import FewSamples
from .models import inputs
from .motion import Motion


@dataclass
class Loss:
    """Mean of `errors` over a batch, and what a recipe adds; the defaults add nothing.

    Args:
        motion: What the outputs of the model are changes of.
        entropy_weight: Of the mean entropy of soft permutations (arXiv 2306.02866, appendix A.1).
        velocity_weight: Of the velocities' MSE, for models that predict them.
        input_noise: Standard deviation of Gaussian noise on positions and velocities; targets stay.
        haar_share: Share of the batch that goes to `haar`, the same base network averaged over uniform poses.
        samples: A step's number of samples; None is the model's own.
        penalties: Of a recipe that wants more than the error of the mean.
    """

    motion: Motion = field(default_factory=Motion)
    entropy_weight: float = 0.0
    velocity_weight: float = 0.0
    input_noise: float = 0.0
    haar_share: float = 0.0
    haar: ps.Symmetrizer | None = None
    samples: Callable[[int], int | None] = lambda step: None
    penalties: FewSamples | None = None
    step: int = 0

    def begin(self, step: int) -> None:
        """Told the number of each step before it."""
        self.step = step

    def __call__(self, phi: nn.Module, batch: Batch) -> Tensor:
        if self.input_noise:
            batch = dict(batch)
            for name in ("pos", "vel"):
                batch[name] = batch[name] + self.input_noise * torch.randn_like(batch[name])

        # The first rows go to the average over uniform poses, the others to the model itself.
        count = size(batch)
        cut = round(self.haar_share * count)
        loss = batch["pos"].new_zeros(())
        if cut and self.haar is not None:
            few = rows(batch, slice(0, cut))
            loss = loss + cut / count * self.error(self.haar(**inputs(few)), few)
        if cut < count:
            loss = loss + self.symmetrized(phi, rows(batch, slice(cut, None))) * (1 - cut / count)
        return loss

    def symmetrized(self, phi: nn.Module, batch: Batch) -> Tensor:
        """The loss of the rows that the model itself sees."""
        if self.penalties is not None:
            assert isinstance(phi, ps.Symmetrizer)
            mean, extra = self.penalties.outputs(phi, inputs(batch), self.step)
            return self.error(mean, batch) + extra
        options: dict[str, Any] = {}
        samples = self.samples(self.step)
        if samples is not None:
            options["samples"] = samples
        if not self.entropy_weight:
            return self.error(phi(**inputs(batch), **options), batch)
        estimate = phi(**inputs(batch), **options, return_estimate=True)
        return add_entropy(self.error(estimate.mean, batch), estimate, self.entropy_weight)

    def error(self, change: Any, batch: Batch) -> Tensor:
        """MSE of positions, plus the weighted one of velocities."""
        loss = self.motion.mse(change, batch).mean()
        if self.velocity_weight:
            off = self.motion.velocities(change, batch) - batch["target_vel"]
            loss = loss + self.velocity_weight * off.square().mean()
        return loss

    def errors(self, phi: nn.Module, batch: Batch) -> Tensor:
        """Squared error of the positions of each sample of a batch (B,)."""
        return self.motion.mse(phi(**inputs(batch)), batch)
