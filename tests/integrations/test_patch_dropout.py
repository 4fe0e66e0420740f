"""Patch dropout: a share of the tokens is left out while training, as if it were not there, and never in evaluation."""

from __future__ import annotations

import pytest
import torch
from backbones import CALL, CHANNELS, backbone
from torch import nn

from probsym.integrations.transformers import (
    Encoder,
    GraphHead,
    GraphTransformer,
    ImagePatches,
    NodeHead,
    NodeTokens,
    symmetrized,
)
from probsym.integrations.transformers.tokens import kept


def pair(name: str = "vit", head=GraphHead(2), share: float = 0.5):  # noqa: B008
    """The same model with and without."""
    models = []
    for patch_dropout in (share, 0.0):
        torch.manual_seed(1)
        models.append(
            GraphTransformer(backbone(name), ImagePatches(12, 3), head, **CHANNELS, patch_dropout=patch_dropout)
        )
    return models


@pytest.mark.parametrize("share", [0.3, 0.5, 0.9])
def test_as_many_tokens_as_are_said_are_left_out_of_those_that_count(share):
    """Of each row, anew for each row and call, and each token as often as any other."""
    torch.manual_seed(0)
    counting = (torch.arange(16) < torch.tensor([[16], [10], [1], [0]])).roll(3, 1)
    seen = kept(counting.expand(4, 16), share)
    assert not (seen & ~counting).any()
    assert seen.sum(1).tolist() == [n - int(share * n) for n in (16, 10, 1, 0)]
    rows = kept(torch.ones(4000, 16, dtype=torch.bool), share).float()
    assert (rows.mean(0) - rows.mean()).abs().max() < 0.05
    assert len(rows.unique(dim=0)) > 15


@pytest.mark.parametrize("head", [GraphHead(2), NodeHead(2)], ids=repr)
@pytest.mark.parametrize("name", ["vit", "siglip", "bert"])
def test_training_only(name, head):
    """Evaluation is that of the model without, training is not, and draws anew; without, no numbers are drawn."""
    f, plain = pair(name, head)
    assert torch.equal(f.eval()(**CALL), plain.eval()(**CALL))
    one, other = (f.train()(**CALL) for _ in range(2))
    assert (one - other).abs().max() > 1e-3
    before = torch.get_rng_state()
    assert torch.equal(plain.train()(**CALL), plain.eval()(**CALL))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", ["vit", "siglip", "bert"])
def test_tokens_that_are_left_out_are_not_seen(name, monkeypatch):
    """The output is that of the other tokens alone, whatever the ones that are left out hold."""
    f = pair(name)[0].train()
    seen = torch.arange(16) % 3 > 0
    monkeypatch.setattr("probsym.integrations.transformers.model.kept", lambda counting, share: seen & counting)
    tokens = torch.randn(2, 16, 16)
    other = torch.where(seen.unsqueeze(-1), tokens, torch.randn(2, 16, 16))
    outputs = []
    for given in (tokens, other):
        monkeypatch.setattr(f.embedding, "forward", lambda x, edge, mask, given=given: (given, None))
        outputs.append((f(**CALL), f.eval()(**CALL)))
        f.train()
    (trained, evaluated), (again, otherwise) = outputs
    assert torch.allclose(trained, again, atol=1e-5)
    assert (evaluated - otherwise).abs().max() > 1e-3


def test_symmetrized_models_learn_and_come_back(tmp_path):
    f = pair()[0]
    phi = symmetrized(f, train_samples=2).train()
    phi(**CALL).square().sum().backward()
    assert [n for n, p in phi.named_parameters() if p.grad is None] == []
    f.save_pretrained(tmp_path)
    assert GraphTransformer.from_pretrained(tmp_path).patch_dropout == 0.5


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan"), "half", True])
def test_shares_out_of_range(share):
    with pytest.raises((TypeError, ValueError), match="patch_dropout: expected"):
        pair(share=share)


def test_blocks_without_masks_cannot_leave_tokens_out():
    encoder = Encoder([nn.Linear(16, 16)], None, width=16)
    with pytest.warns(UserWarning, match="take no mask"), pytest.raises(ValueError, match="patch_dropout: expected 0"):
        GraphTransformer(encoder, NodeTokens(12), GraphHead(2), **CHANNELS, patch_dropout=0.5)
