"""Training that needs fewer samples afterwards, as fields of a recipe: `probsym.learning` for experiments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

import probsym as ps
from probsym import learning

from .batches import Batch
from .checks import at_least
from .errors import UserError
from .recipe import Recipe


@dataclass(kw_only=True)
class FewSamples(Recipe):
    """What a recipe may add; off by default.

    Args:
        variance_weight: Of the variance over the samples of a training step, in the loss; needs two or more of them.
        identity_weight: Of the mean distance of p's elements from the identity, in the loss.
        grow_samples: Samples a training step at the end of training, from `train_samples` at its start.
    """

    train_samples: int | None = None
    variance_weight: float = 0.0
    identity_weight: float = 0.0
    grow_samples: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 0, "variance_weight", "identity_weight")
        first = self.train_samples or 1
        if self.grow_samples is not None and self.grow_samples < first:
            raise UserError(f"grow_samples: expected at least train_samples, {first}; got {self.grow_samples}")
        if self.variance_weight and (self.grow_samples or first) < 2:
            raise UserError(f"variance_weight: expected train_samples of 2 or more with it; got {self.train_samples}")

    @property
    def penalised(self) -> bool:
        """Whether the loss is more than that of the mean of `train_samples` samples."""
        return bool(self.variance_weight or self.identity_weight or self.grow_samples)

    def check_random(self, random: bool) -> None:
        """Raises if the fields are used where nothing is sampled."""
        if self.penalised and not random:
            raise UserError("variance_weight, identity_weight, grow_samples: expected only with symmetrizer ps or ga")

    def samples_at(self, step: int) -> int:
        """Samples of one training step."""
        first = self.train_samples or 1
        if self.grow_samples is None:
            return first
        schedule = learning.SampleSchedule(self.steps, first, self.grow_samples)
        return schedule(step)

    def outputs(self, phi: ps.Symmetrizer, x: Batch, step: int) -> tuple[Any, Tensor]:
        """The mean over the samples of one training step, and what is added to its loss."""
        call: dict[str, Any] = dict(x)
        noise = phi.draw_noise(**call, samples=self.samples_at(step))
        outputs = phi.sample(**call, noise=noise)
        extra = self.variance_weight * learning.variance(outputs)
        if self.identity_weight:
            extra = extra + self.identity_weight * learning.identity_distance(phi, call, noise)
        return learning.mean(outputs), extra
