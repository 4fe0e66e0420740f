"""Encoders against the models that they were taken from: same tokens, same output."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from backbones import BACKBONES, backbone

from probsym.integrations.transformers import Encoder, GraphHead, GraphTransformer, ImagePatches, NodeTokens
from probsym.integrations.transformers.families import family_of

TEXT = {"bert", "roberta", "roberta-prelayernorm", "distilbert"}
LAST = {"beit": "pooler.layernorm", "clip": "post_layernorm"}  # of models that norm the pooled token alone
GRIDS_OF_ANY_SIZE = {"beit", "beit-shared", "data2vec", "data2vec-shared"}


def unchanged(encoder: Encoder) -> None:
    """Leaves an encoder as it was taken."""


def pixels(model: torch.nn.Module, image: torch.Tensor) -> torch.Tensor:
    """Patches of an image (B, 3, H, W) as the model embeds them, (B, T, W)."""
    if hasattr(model.embeddings, "patch_embedding"):
        return model.embeddings.patch_embedding(image).flatten(2).mT
    tokens = model.embeddings.patch_embeddings(image)
    return tokens[0] if isinstance(tokens, tuple) else tokens


@torch.no_grad()
def both(name: str, side: int, change: Callable[[Encoder], None] = unchanged) -> tuple[torch.Tensor, torch.Tensor]:
    """The last hidden state of the model, and of its encoder on the same embedded tokens."""
    model = backbone(name)
    if name in TEXT:
        words = torch.arange(side * side).reshape(1, -1) % 9 + 2
        expected = model(words, attention_mask=torch.ones_like(words)).last_hidden_state
        tokens = model.embeddings.word_embeddings(words)
    else:
        image = torch.randn(2, 3, 4 * side, 4 * side)
        options = {} if "dinov2" in name or name in GRIDS_OF_ANY_SIZE else {"interpolate_pos_encoding": True}
        expected = model(image, **options).last_hidden_state
        if name in LAST:
            expected = model.get_submodule(LAST[name])(expected)
        tokens = pixels(model, image)
    encoder = family_of(model).encoder(model, ImagePatches(side, 1), None).eval()
    change(encoder)
    return expected, torch.cat(encoder(tokens), 1)


@pytest.mark.parametrize("side", [5, 3, 6])
@pytest.mark.parametrize("name", sorted(BACKBONES))
def test_same_output_on_the_same_tokens(name, side):
    """Also on other grids than the model's own 5 x 5, where positions are interpolated."""
    expected, found = both(name, side)
    assert expected.shape == found.shape
    assert (expected - found).abs().max() < 1e-5
    assert expected.std() > 0.1


def without_positions(encoder: Encoder) -> None:
    encoder.position = None
    encoder.biases = torch.nn.ModuleList()


def without_last_block(encoder: Encoder) -> None:
    encoder.blocks = encoder.blocks[:-1]


def without_norm(encoder: Encoder) -> None:
    encoder.norm = torch.nn.Sequential()


@pytest.mark.parametrize("change", [without_positions, without_last_block, without_norm])
@pytest.mark.parametrize("name", sorted(BACKBONES))
def test_a_missing_part_is_noticed(name, change):
    """The comparison above can fail: without its positions, a block or the last norm an encoder is another one."""
    expected, found = both(name, 5, change)
    if change is without_norm and name in {"bert", "roberta", "distilbert"}:
        assert torch.allclose(expected, found, atol=1e-5)  # these end with a block
    else:
        assert (expected - found).abs().max() > 1e-3


@pytest.mark.parametrize("name", sorted(BACKBONES))
def test_the_backbone_stays_as_it_was(name):
    """Freezing, other precision and training mode are those of a copy; two models of one backbone are the same."""
    model, again = backbone(name), backbone(name)
    make = {"tokens": ImagePatches(6, 2), "head": GraphHead(1), "node_channels": 1, "edge_channels": 1}
    first = GraphTransformer(model, **make, frozen=True, dtype=torch.bfloat16)
    second = GraphTransformer(model, **make)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    assert [n for n, _ in model.named_parameters()] == [n for n, _ in again.named_parameters()]
    assert all(p.requires_grad and p.dtype == torch.float32 for p in model.parameters())
    assert not model.training
    assert all(p.requires_grad for p in second.parameters())
    assert [n for n, _ in first.named_parameters()] == [n for n, _ in second.named_parameters()]
    parts = {id(p) for f in (first, second) for p in f.parameters()}
    assert parts.isdisjoint(map(id, model.parameters()))


def look_alikes() -> dict[str, tuple[Callable[[], torch.nn.Module], str]]:
    """Models that have the attributes of a family and compute something else; what the refusal says."""
    import transformers as hf

    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    text = {**size, "vocab_size": 9}
    return {
        "a bias": (lambda: hf.MPNetModel(hf.MPNetConfig(**text)), r"no encoder\.relative_attention_bias"),
        "a wider trunk": (
            lambda: hf.RemBertModel(hf.RemBertConfig(**text, input_embedding_size=8)),
            r"no encoder\.embedding_hidden_mapping_in",
        ),
        "more tokens": (
            lambda: hf.YolosModel(hf.YolosConfig(**size, image_size=[8, 8], patch_size=4)),
            r"no embeddings\.detection_tokens",
        ),
        "positions resized in another way": (
            lambda: hf.Siglip2VisionModel(hf.Siglip2VisionConfig(**size, num_patches=4, patch_size=4)),
            r"no embeddings\.position_embedding_size",
        ),
        "another table": (
            lambda: hf.IBertModel(hf.IBertConfig(**text)),
            r"embeddings\.position_embeddings as a tensor",
        ),
        "a mask the other way round": (lambda: hf.DebertaModel(hf.DebertaConfig(**text)), "with tokens and a mask"),
        "landmarks that see all": (
            lambda: hf.NystromformerModel(hf.NystromformerConfig(**text)),
            "NystromformerModel see masked tokens",
        ),
        "causal attention": (lambda: hf.BertModel(hf.BertConfig(**text, is_decoder=True)), "attend causally"),
        "other arguments": (lambda: hf.XmodModel(hf.XmodConfig(**text)), "cannot be called with tokens and a mask"),
    }


@pytest.mark.parametrize("name", look_alikes())
def test_look_alikes_are_refused(name):
    make, message = look_alikes()[name]
    model = make()
    torch.manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    with pytest.raises(TypeError, match=message):
        GraphTransformer(model, NodeTokens(3), GraphHead(1), node_channels=1, edge_channels=1)
