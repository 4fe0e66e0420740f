"""Equivariant networks that feed `project`, and base models to symmetrize. Floor 0: torch only."""

from .deepsets import DeepSets
from .gin import GIN
from .gin_id import GINID
from .message_passing import MessagePassing
from .mlp import MLP
from .pair_transformer import PairTransformer
from .particles import ParticleGNN, ParticleTransformer
from .vector_neurons import VectorNeurons

__all__ = [
    "GIN",
    "GINID",
    "MLP",
    "DeepSets",
    "MessagePassing",
    "PairTransformer",
    "ParticleGNN",
    "ParticleTransformer",
    "VectorNeurons",
]
