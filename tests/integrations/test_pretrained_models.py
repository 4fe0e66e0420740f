"""Real pretrained backbones, where PROBSYM_MODELS holds them: the weights are used as their own library uses them."""

from __future__ import annotations

import pytest
import torch
from backbones import graphs

from probsym.integrations.transformers import (
    GraphHead,
    GraphTransformer,
    ImagePatches,
    NodeHead,
    NodeTokens,
    symmetrize_transformer,
)
from shared import MODELS


def original(folder: str) -> torch.nn.Module:
    from transformers import AutoModel

    if not (MODELS / folder).is_dir():
        pytest.skip(f"no {folder} in PROBSYM_MODELS")
    return AutoModel.from_pretrained(MODELS / folder, dtype=torch.float32).eval()


def same(f: GraphTransformer, tokens: torch.Tensor, expected: torch.Tensor) -> None:
    """All blocks give what the model gives; without the last one they do not."""
    encoder = f.eval().encoder
    scale = expected.abs().max()
    assert (torch.cat(encoder(tokens), 1) - expected).abs().max() < 1e-4 * scale
    encoder.blocks = encoder.blocks[:-1]
    assert (torch.cat(encoder(tokens), 1) - expected).abs().max() > 0.1 * scale


@torch.no_grad()
def test_dinov2_small():
    """A ViT-S/14: 12 layers, 37 x 37 positions brought to 14 x 14."""
    model, image = original("dinov2-small"), torch.randn(2, 3, 196, 196, generator=torch.Generator().manual_seed(0))
    source, tokens = MODELS / "dinov2-small", ImagePatches(188, patch=14)
    f = GraphTransformer.from_pretrained(source, tokens, NodeHead(2), node_channels=3, edge_channels=1)
    assert len(f.encoder.blocks) == 12
    same(f, model.embeddings.patch_embeddings(image), model(image).last_hidden_state)
    phi = symmetrize_transformer(source, tokens, NodeHead(2), node_channels=3, edge_channels=1, layers=2)
    call = graphs((188, 70), 188)
    y = phi.eval()(x=call["x"], edge=call["edge"][..., :1], mask=call["mask"], samples=1)
    assert y.shape == (2, 188, 2)
    assert (y[1, 70:] == 0).all()


@torch.no_grad()
def test_minilm():
    """A BERT of 6 layers: the first of its 512 positions, token type 0."""
    model = original("all-MiniLM-L6-v2")
    words = torch.arange(1000, 1050).unsqueeze(0)
    source, tokens = MODELS / "all-MiniLM-L6-v2", NodeTokens(50)
    f = GraphTransformer.from_pretrained(source, tokens, GraphHead(2), node_channels=3, edge_channels=1)
    assert len(f.encoder.blocks) == 6
    same(f, model.embeddings.word_embeddings(words), model(words).last_hidden_state)
