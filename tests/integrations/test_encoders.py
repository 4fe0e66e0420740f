"""Encoders against the models that they were taken from: same tokens, same output."""

from __future__ import annotations

import pytest
import torch
from backbones import BACKBONES, backbone

from probsym.integrations.transformers import ImagePatches
from probsym.integrations.transformers.families import family_of

TEXT = {"bert", "roberta", "distilbert"}
VISION = sorted(set(BACKBONES) - TEXT)


@torch.no_grad()
def both(name: str, side: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The last hidden state of the model, and of its encoder on the same embedded tokens."""
    model = backbone(name)
    if name in TEXT:
        words = torch.arange(side * side).reshape(1, -1) % 9 + 2
        expected = model(words, attention_mask=torch.ones_like(words)).last_hidden_state
        tokens = model.embeddings.word_embeddings(words)
    else:
        image = torch.randn(2, 3, 4 * side, 4 * side)
        options = {} if "dinov2" in name or (side, name) == (5, "beit-shared") else {"interpolate_pos_encoding": True}
        expected = model(image, **({} if name.startswith("beit") else options)).last_hidden_state
        if name == "beit":
            expected = model.pooler.layernorm(expected)
        tokens = model.embeddings.patch_embeddings(image)
    encoder = family_of(model).encoder(model, ImagePatches(side, 1), None).eval()
    return expected, torch.cat(encoder(tokens), 1)


@pytest.mark.parametrize("side", [5, 3, 6])
@pytest.mark.parametrize("name", sorted(BACKBONES))
def test_same_output_on_the_same_tokens(name, side):
    """Also on other grids than the model's own 5 x 5, where positions are interpolated."""
    expected, found = both(name, side)
    assert expected.shape == found.shape
    assert (expected - found).abs().max() < 1e-5
    assert expected.std() > 0.1
