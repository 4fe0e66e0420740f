"""Transformers for other data as graph models: `GraphTransformer`, made equivariant by `symmetrize_transformer`.

>>> from transformers import ViTConfig, ViTModel
>>> config = ViTConfig(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32)
>>> f = GraphTransformer(ViTModel(config), ImagePatches(30, patch=8), GraphHead(5), node_channels=3, edge_channels=1)
>>> phi = symmetrized(f)
>>> import torch
>>> mask = torch.arange(25) < torch.tensor([[25], [11]])
>>> x, edge = torch.randn(2, 25, 3) * mask[..., None], torch.zeros(2, 25, 25, 1)
>>> phi(x=x, edge=edge, mask=mask).shape
torch.Size([2, 5])
"""

from probsym.integrations.transformers.adaptation import parameter_groups
from probsym.integrations.transformers.encoder import Encoder
from probsym.integrations.transformers.families import FAMILIES, Family
from probsym.integrations.transformers.heads import GraphHead, NodeHead, PairHead
from probsym.integrations.transformers.model import GraphTransformer
from probsym.integrations.transformers.symmetrization import (
    load_pretrained,
    save_pretrained,
    symmetrize_transformer,
    symmetrized,
)
from probsym.integrations.transformers.tokens import ImagePatches, NodeTokens

__all__ = [
    "FAMILIES", "Encoder", "Family", "GraphHead", "GraphTransformer", "ImagePatches", "NodeHead", "NodeTokens",
    "PairHead", "load_pretrained", "parameter_groups", "save_pretrained", "symmetrize_transformer", "symmetrized",
]  # fmt: skip
