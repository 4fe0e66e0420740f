"""Equivariant networks that feed `project`, and base models to symmetrize. Floor 0: torch only."""

from .deepsets import DeepSets
from .dynamics import ParticleDynamics, ParticleDynamicsTransformer
from .egnn import EGNN
from .gin import GIN
from .gin_id import GINID
from .invariant_weights import InvariantWeights
from .message_passing import MessagePassing
from .mlp import MLP
from .moment_weights import MomentWeights
from .node_transformer import NodeTransformer
from .packed_gnn import IdentifiedGNN, NodeScores, PackedGNN
from .pair_transformer import PairTransformer
from .particles import ParticleGNN, ParticleNodeTransformer, ParticleTransformer
from .walk_transformer import WalkTransformer

__all__ = [
    "EGNN",
    "GIN",
    "GINID",
    "MLP",
    "DeepSets",
    "IdentifiedGNN",
    "InvariantWeights",
    "MessagePassing",
    "MomentWeights",
    "NodeScores",
    "NodeTransformer",
    "PackedGNN",
    "PairTransformer",
    "ParticleDynamics",
    "ParticleDynamicsTransformer",
    "ParticleGNN",
    "ParticleNodeTransformer",
    "ParticleTransformer",
    "WalkTransformer",
]
