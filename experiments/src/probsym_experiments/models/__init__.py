"""The paper's base models, to be symmetrized, and EGNN, the equivariant net beside them."""

from .atoms import AtomPoints, AtomTransformer
from .batch_norm_gin import BatchNormGIN, GraphScores
from .dynamics import ParticleDynamics, ParticleDynamicsTransformer
from .egnn import EGNN
from .gin_id import GINID
from .message_passing import MessagePassing
from .mlp import MLP
from .node_transformer import NodeTransformer
from .packed_gnn import IdentifiedGNN, NodeScores, PackedGNN
from .pair_transformer import PairTransformer
from .particles import GivenPairs, ParticleGNN, ParticleNodeTransformer, ParticleTransformer, published_transformer
from .vector_dgcnn import VectorDGCNN
from .walk_transformer import WalkTransformer

__all__ = [
    "EGNN",
    "GINID",
    "MLP",
    "AtomPoints",
    "AtomTransformer",
    "BatchNormGIN",
    "GivenPairs",
    "GraphScores",
    "IdentifiedGNN",
    "MessagePassing",
    "NodeScores",
    "NodeTransformer",
    "PackedGNN",
    "PairTransformer",
    "ParticleDynamics",
    "ParticleDynamicsTransformer",
    "ParticleGNN",
    "ParticleNodeTransformer",
    "ParticleTransformer",
    "VectorDGCNN",
    "WalkTransformer",
    "published_transformer",
]
