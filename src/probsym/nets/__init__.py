"""Equivariant networks that feed `project`. Floor 0: torch only."""

from .deepsets import DeepSets
from .form_weights import FormWeights
from .gin import GIN
from .invariant_weights import InvariantWeights
from .moment_weights import MomentWeights

__all__ = ["GIN", "DeepSets", "FormWeights", "InvariantWeights", "MomentWeights"]
