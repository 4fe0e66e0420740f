"""Backbones that no family knows: a row of one's own, and an Encoder of one's own blocks."""

from __future__ import annotations

import pytest
import torch
from backbones import CALL, CHANNELS, graphs
from torch import nn

from cases import coupled_error
from probsym.integrations.transformers import (
    FAMILIES,
    Encoder,
    Family,
    GraphHead,
    GraphTransformer,
    ImagePatches,
    NodeHead,
    NodeTokens,
    symmetrized,
)


class Block(nn.Module):
    """Attention of one head that takes a mask by another name than its layer's."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attention, self.linear = nn.MultiheadAttention(width, 1, batch_first=True), nn.Linear(width, width)

    def forward(self, h: torch.Tensor, attention_mask: torch.Tensor | None = None) -> torch.Tensor:
        mask = None if attention_mask is None else attention_mask.squeeze(1)
        return h + self.linear(self.attention(h, h, h, attn_mask=mask)[0])


def blocks(layers: int = 2, width: int = 16) -> list[nn.Module]:
    torch.manual_seed(0)
    return [Block(width) for _ in range(layers)]


def test_a_family_of_ones_own(monkeypatch):
    """One more row, and its models work."""

    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trunk = nn.ModuleList([nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)])
            self.places = nn.Embedding(5, 16)

    monkeypatch.setitem(FAMILIES, "own", Family(blocks=("trunk",), positions="places"))
    with pytest.warns(UserWarning, match="the blocks of Own take no mask"):
        f = GraphTransformer(Own(), NodeTokens(12), NodeHead(2), **CHANNELS)
    assert f(**CALL).shape == (2, 9, 2)
    with pytest.raises(ValueError, match="no Hugging Face config"):
        f.save_pretrained("nowhere")


@pytest.mark.parametrize("tokens", [ImagePatches(12, 4), NodeTokens(12)], ids=repr)
@pytest.mark.parametrize("tables", [{"width": 16}, {"position": torch.randn(12, 16), "prefix": torch.randn(1, 16)}])
def test_an_encoder_of_ones_own(tables, tokens):
    """Any blocks, with tables of positions or without: copied, padded, cut, equivariant once symmetrized."""
    encoder = Encoder(blocks(), **{"position": None, **tables})
    f = GraphTransformer(encoder, tokens, GraphHead(2), **CHANNELS, layers=1).eval()
    assert (len(f.encoder.blocks), len(encoder.blocks)) == (1, 2)
    assert torch.equal(f.encoder.blocks[0].linear.weight, encoder.blocks[0].linear.weight)
    assert {id(p) for p in f.parameters()}.isdisjoint(map(id, encoder.parameters()))
    alone = f(x=CALL["x"][1:, :4], edge=CALL["edge"][1:, :4, :4])
    assert torch.allclose(f(**CALL)[1], alone[0], atol=1e-5)
    phi = symmetrized(GraphTransformer(encoder, tokens, GraphHead(2), **CHANNELS, dtype=torch.float64)).double()
    assert coupled_error(phi.eval(), graphs((9, 4), 9, torch.float64), seed=2) <= 1e-10


def test_low_rank_updates_of_ones_own_encoder():
    """Which linear maps they adapt only its owner knows."""
    pytest.importorskip("peft")
    encoder = Encoder(blocks(), None, width=16)
    f = GraphTransformer(encoder, NodeTokens(9), NodeHead(2), **CHANNELS, lora={"r": 2, "target_modules": ["linear"]})
    assert len([name for name, p in f.encoder.named_parameters() if p.requires_grad]) == 4
    with pytest.raises(ValueError, match="lora: expected target_modules"):
        GraphTransformer(encoder, NodeTokens(9), NodeHead(2), **CHANNELS, lora=2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Encoder(blocks(), None), r"width: expected one size, .* got \[\]"),
        (
            lambda: Encoder(blocks(), torch.zeros(3, 16), torch.zeros(1, 8)),
            r"width: expected one size, .* got \[8, 16\]",
        ),
        (lambda: Encoder(blocks(), torch.zeros(3, 16), width=8), r"width: expected one size, .* got \[8, 16\]"),
        (lambda: Encoder(blocks(), None, width=0), "width: expected a whole number from 1 on, got 0"),
        (lambda: Encoder([], None, width=16), "blocks: expected at least one"),
        (
            lambda: GraphTransformer(Encoder(blocks(), torch.zeros(11, 16)), NodeTokens(12), GraphHead(1), **CHANNELS),
            "backbone: expected positions of 12 tokens, got 11",
        ),
    ],
)
def test_encoders_that_do_not_fit(make, message):
    with pytest.raises(ValueError, match=message):
        make()
