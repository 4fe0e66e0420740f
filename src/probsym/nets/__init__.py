"""Equivariant networks that feed `project`, and base models to symmetrize. Floor 0: torch only."""

from .deepsets import DeepSets
from .dynamics import ParticleDynamics
from .egnn import EGNN
from .gin import GIN
from .gin_id import GINID
from .message_passing import MessagePassing
from .mlp import MLP
from .node_transformer import NodeTransformer
from .pair_transformer import PairTransformer
from .particles import ParticleGNN, ParticleNodeTransformer, ParticleTransformer
from .vector_neurons import VectorNeurons

__all__ = [
    "EGNN",
    "GIN",
    "GINID",
    "MLP",
    "DeepSets",
    "MessagePassing",
    "NodeTransformer",
    "PairTransformer",
    "ParticleDynamics",
    "ParticleGNN",
    "ParticleNodeTransformer",
    "ParticleTransformer",
    "VectorNeurons",
]
