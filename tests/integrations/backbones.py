"""Small random backbones of each family, and graphs to feed them; tests of them skip without transformers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

hf = pytest.importorskip("transformers")

SIZE = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
IMAGE = {"image_size": 20, "patch_size": 4}
TEXT = {"vocab_size": 11, "max_position_embeddings": 40}

BACKBONES = {
    "vit": lambda: hf.ViTModel(hf.ViTConfig(**SIZE, **IMAGE)),
    "deit": lambda: hf.DeiTModel(hf.DeiTConfig(**SIZE, **IMAGE)),
    "dinov2": lambda: hf.Dinov2Model(hf.Dinov2Config(**SIZE, **IMAGE, mlp_ratio=2)),
    "dinov2-registers": lambda: hf.Dinov2WithRegistersModel(hf.Dinov2WithRegistersConfig(**SIZE, **IMAGE, mlp_ratio=2)),
    "beit": lambda: hf.BeitModel(hf.BeitConfig(**SIZE, **IMAGE, drop_path_rate=0.0, use_relative_position_bias=True)),
    "beit-shared": lambda: hf.BeitModel(
        hf.BeitConfig(
            **SIZE, **IMAGE, use_shared_relative_position_bias=True, use_absolute_position_embeddings=True,
            use_mean_pooling=False,
            drop_path_rate=0.0,
        )
    ),
    "data2vec": lambda: hf.Data2VecVisionModel(
        hf.Data2VecVisionConfig(
            **SIZE, **IMAGE, drop_path_rate=0.0, use_relative_position_bias=True, use_mean_pooling=False
        )
    ),
    "data2vec-shared": lambda: hf.Data2VecVisionModel(
        hf.Data2VecVisionConfig(
            **SIZE, **IMAGE, drop_path_rate=0.0, use_shared_relative_position_bias=True, use_mean_pooling=False
        )
    ),
    "clip": lambda: hf.CLIPVisionModel(hf.CLIPVisionConfig(**SIZE, **IMAGE)),
    "siglip": lambda: hf.SiglipVisionModel(hf.SiglipVisionConfig(**SIZE, **IMAGE)),
    "bert": lambda: hf.BertModel(hf.BertConfig(**SIZE, **TEXT)),
    "roberta": lambda: hf.RobertaModel(hf.RobertaConfig(**SIZE, **TEXT)),
    "roberta-prelayernorm": lambda: hf.RobertaPreLayerNormModel(hf.RobertaPreLayerNormConfig(**SIZE, **TEXT)),
    "distilbert": lambda: hf.DistilBertModel(
        hf.DistilBertConfig(dim=16, n_layers=2, n_heads=2, hidden_dim=32, vocab_size=11, max_position_embeddings=40)
    ),
}  # fmt: skip


def backbone(name: str, seed: int = 0) -> nn.Module:
    """Random weights everywhere, tables that start at zero included, and no dropout."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = BACKBONES[name]().eval()
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.3)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model


def graphs(sizes: tuple[int, ...], n: int, kind: torch.dtype = torch.float32, seed: int = 0) -> dict[str, Tensor]:
    """Directed graphs with 3 node and 2 edge channels, padded to n nodes."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.arange(n) < torch.tensor(sizes)[:, None]
    x = torch.randn(len(sizes), n, 3, generator=generator, dtype=torch.float64) * mask[..., None]
    edge = torch.randn(len(sizes), n, n, 2, generator=generator, dtype=torch.float64)
    edge = edge * (mask[:, :, None] & mask[:, None])[..., None]
    return {"x": x.to(kind), "edge": edge.to(kind), "mask": mask}


CHANNELS = {"node_channels": 3, "edge_channels": 2}
CALL = graphs((9, 4), 9)
