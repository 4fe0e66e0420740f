"""Backbones of timm: a stand-in with its interface, and the library itself where it is installed."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable

import pytest
import torch
from backbones import CALL, CHANNELS
from torch import nn

from probsym.integrations.transformers import GraphHead, GraphTransformer, ImagePatches, NodeHead


def opened(name: str = "timm:vit_x", **options):
    return GraphTransformer.from_pretrained(name, ImagePatches(12, 4), NodeHead(2), **CHANNELS, **options)


class TimmBlock(nn.Module):
    """The interface of timm.models.vision_transformer.Block."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.attn = nn.LayerNorm(width), nn.MultiheadAttention(width, 1, batch_first=True)
        self.qkv = nn.Linear(width, width)

    def forward(self, x: torch.Tensor, attn_mask: torch.Tensor | None = None) -> torch.Tensor:
        h = self.norm(x)
        mask = None if attn_mask is None else attn_mask.squeeze(1)
        return x + self.qkv(self.attn(h, h, h, attn_mask=mask)[0])


class TimmViT(nn.Module):
    """The attributes of a timm VisionTransformer that an encoder reads."""

    def __init__(self, width: int = 16, registers: int = 2) -> None:
        super().__init__()
        self.patch_embed = types.SimpleNamespace(num_patches=25)
        self.cls_token = nn.Parameter(torch.randn(1, 1, width))
        self.reg_token = nn.Parameter(torch.randn(1, registers, width))
        self.pos_embed = nn.Parameter(torch.randn(1, 25, width))  # no_embed_class
        self.pos_drop, self.norm_pre = nn.Dropout(0.0), nn.Identity()
        self.blocks = nn.Sequential(TimmBlock(width), TimmBlock(width))
        self.norm, self.fc_norm, self.head = nn.LayerNorm(width), nn.Identity(), nn.Linear(width, 10)


def stand_in(monkeypatch: pytest.MonkeyPatch, create_model: Callable[..., nn.Module]) -> None:
    monkeypatch.setitem(sys.modules, "timm", types.SimpleNamespace(create_model=create_model))


def test_by_name(monkeypatch, tmp_path):
    """Opened by name, masked, saved and rebuilt."""
    asked = []

    def create_model(name, pretrained, num_classes):
        asked.append((name, pretrained))
        return TimmViT()

    stand_in(monkeypatch, create_model)
    f = opened().eval()
    assert len(f.encoder.prefix) == 3
    alone = f(x=CALL["x"][1:, :4], edge=CALL["edge"][1:, :4, :4])
    assert torch.allclose(f(**CALL)[1, :4], alone[0], atol=1e-5)
    f.save_pretrained(tmp_path)
    again = GraphTransformer.from_pretrained(tmp_path).eval()
    assert torch.equal(f(**CALL), again(**CALL))
    assert asked == [("vit_x", True), ("vit_x", False)]


@pytest.mark.parametrize("error", [RuntimeError("Unknown model (vit_x)"), FileNotFoundError("no network, no cache")])
def test_names_and_weights_that_are_not_there(monkeypatch, error):
    """timm raises the first for a name, the hub the second for weights: both become what a wrong folder gives."""

    def create_model(*args, **options):
        raise error

    stand_in(monkeypatch, create_model)
    with pytest.raises(FileNotFoundError, match=r"source: timm cannot open 'vit_x', .*: (Unknown|no network)"):
        opened()


def test_without_timm(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ImportError, match=r"timm:vit_x needs timm: pip install \"probsym\[timm\]\""):
        opened()


# ---------------------------------------------------------------- the library itself


@torch.no_grad()
def test_a_vit_of_timm():
    """The encoder gives what the model gives for the same patches; padding is hidden; unknown names are told."""
    timm = pytest.importorskip("timm")
    vit = timm.create_model("vit_tiny_patch16_224", num_classes=0).eval()
    f = GraphTransformer(vit, ImagePatches(14, 1), GraphHead(2), **CHANNELS).eval()
    image = torch.randn(2, 3, 224, 224)
    expected = vit.forward_features(image)
    assert torch.allclose(torch.cat(f.encoder(vit.patch_embed(image)), 1), expected, atol=1e-4)
    assert expected.std() > 0.1
    f.encoder.blocks = f.encoder.blocks[:-1]
    assert (torch.cat(f.encoder(vit.patch_embed(image)), 1) - expected).abs().max() > 1e-2
    alone = f(x=CALL["x"][1:, :4], edge=CALL["edge"][1:, :4, :4])
    assert torch.allclose(f(**CALL)[1], alone[0], atol=1e-4)
    with pytest.raises(FileNotFoundError, match="timm cannot open 'vit_of_nobody'"):
        opened("timm:vit_of_nobody")
