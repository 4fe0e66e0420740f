"""The estimate of phi(x)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Estimate:
    """The estimate of phi(x).

    Args:
        mean: structure and shape of the model's output.
        stderr: elementwise standard error of `mean`, same structure; 0 where exact, inf for a single block of samples.
            Of complex outputs z with mean m it is real, sqrt(E|z - m|^2 / k). None where no statistics were wanted.
        samples: samples used for each input (B,).
        diagnostics: scalars: counts of degenerate inputs, entropy of soft permutations (of the first samples, at most
            64 or a block of a design). Under a learned p both are computed when they are read, of these samples.
    """

    mean: Any
    stderr: Any
    samples: Tensor
    diagnostics: dict[str, Tensor] = field(default_factory=dict)

    @property
    def aux(self) -> dict[str, Tensor]:
        """The same as `diagnostics`."""
        return self.diagnostics
