"""What is trained and how fast; checkpointing, precision, gradients; backbones of other libraries."""

from __future__ import annotations

import sys

import pytest
import torch
from backbones import BACKBONES, CALL, CHANNELS, backbone, graphs
from torch import nn

import probsym as ps
from probsym.integrations.transformers import (
    GraphHead,
    GraphTransformer,
    ImagePatches,
    NodeHead,
    NodeTokens,
    PairHead,
    parameter_groups,
    symmetrized,
)


def model(name="vit", tokens=ImagePatches(12, 4), head=NodeHead(2), **options):  # noqa: B008
    torch.manual_seed(1)
    return GraphTransformer(backbone(name), tokens, head, **CHANNELS, **options)


@pytest.mark.parametrize("name", sorted(BACKBONES))
def test_every_weight_learns(name):
    """Nothing of the backbone is carried along unused (which DDP would refuse), nor is the net of p."""
    for tokens, head in (
        (ImagePatches(12, 4), PairHead(1)),
        (NodeTokens(12), NodeHead(2)),
        (NodeTokens(9), GraphHead(3)),
    ):
        phi = symmetrized(model(name, tokens, head)).train()
        phi(**CALL).square().sum().backward()
        assert [n for n, p in phi.named_parameters() if p.grad is None] == []


def test_parameter_groups():
    phi = symmetrized(model())
    groups = {g["name"]: g for g in parameter_groups(phi, lr=1e-3, backbone_lr=1e-6)}
    assert {name: g["lr"] for name, g in groups.items()} == {"new": 1e-3, "backbone": 1e-6}
    assert {id(p) for p in groups["backbone"]["params"]} == {id(p) for p in phi.model.encoder.parameters()}
    assert sum(len(g["params"]) for g in groups.values()) == len(list(phi.parameters()))
    assert torch.optim.AdamW(phi.model.parameter_groups())
    (alone,) = model(frozen=True).parameter_groups()
    assert alone["name"] == "new"
    for rates in ({"lr": "a"}, {"lr": True}, {"backbone_lr": -1e-5}, {"backbone_lr": float("nan")}):
        with pytest.raises((TypeError, ValueError), match=rf"^{next(iter(rates))}: expected"):
            parameter_groups(phi, **rates)


def test_frozen_backbones_stay():
    f = model(frozen=True)
    before = {n: p.clone() for n, p in f.named_parameters()}
    optimizer = torch.optim.SGD(f.parameter_groups(lr=1.0))
    f(**CALL).square().sum().backward()
    optimizer.step()
    moved = {n.split(".")[0] for n, p in f.named_parameters() if not torch.equal(p, before[n])}
    assert moved == {"embedding", "decoder"}


@pytest.mark.parametrize("name", sorted(BACKBONES))
def test_lora(name):
    """Zero updates change nothing at first; then they alone of the backbone learn."""
    pytest.importorskip("peft")
    plain, f = model(name), model(name, lora=2)
    plain.embedding, plain.decoder = f.embedding, f.decoder
    with torch.no_grad():  # where biases learn, attention takes another kernel
        assert torch.equal(plain.eval()(**CALL), f.eval()(**CALL))
    trained = {n for n, p in f.encoder.named_parameters() if p.requires_grad}
    assert trained
    assert all("lora_" in n for n in trained)
    assert len(trained) == 2 * 2 * 2  # two layers, query and value, A and B
    before = {n: p.clone() for n, p in f.named_parameters()}
    f(**CALL).square().sum().backward()
    torch.optim.SGD(f.parameter_groups(lr=1.0, backbone_lr=1.0)).step()
    moved = {n for n, p in f.named_parameters() if not torch.equal(p, before[n])}
    assert {n for n in moved if n.startswith("encoder")} == {f"encoder.{n}" for n in trained if "lora_B" in n}
    assert {n.split(".")[0] for n in moved} == {"encoder", "embedding", "decoder"}


@pytest.mark.parametrize(
    ("lora", "message"),
    [
        (0, "lora: expected a whole number from 1 on, got 0"),
        (True, "lora: expected a whole number from 1 on, got True"),
        (2.5, "lora: expected a rank, or arguments of peft.LoraConfig as in JSON; got 2.5"),
        ({"r": 2, "target_modules": {"query"}}, "lora: .* as in JSON"),
        ({"r": 2, "target_modules": ["zzz"]}, "lora: peft cannot use .*zzz.* not found"),
        ({"ranks": 2}, "lora: peft cannot use .*ranks"),
    ],
)
def test_lora_out_of_range(lora, message):
    pytest.importorskip("peft")
    with pytest.raises((TypeError, ValueError), match=message):
        model(lora=lora)


def test_frozen_backbones_do_not_learn_low_rank_updates():
    with pytest.raises(ValueError, match=r"lora: expected None for a frozen backbone, .* got 2"):
        model(frozen=True, lora=2)


def test_lora_without_peft(monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ImportError, match=r"probsym\[lora\]"):
        model(lora=2)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("name", ["vit", "beit", "bert"])
def test_checkpointing_changes_nothing_but_runs_blocks_twice(name, dropout):
    """Also where the second run must drop what the first dropped."""
    found = {}
    for checkpointing in (False, True):
        f, calls = model(name, checkpointing=checkpointing), []
        for module in f.modules():
            if isinstance(module, nn.Dropout):
                module.p = dropout
        f.encoder.blocks[0].register_forward_pre_hook(lambda *_, calls=calls: calls.append(1))
        y = f(**CALL)
        y.square().sum().backward()
        found[checkpointing] = y, [p.grad for p in f.parameters()], len(calls)
    (y, slopes, once), (again, same, twice) = found[False], found[True]
    assert torch.equal(y, again)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(slopes, same, strict=True))
    assert (once, twice) == (1, 2)


def test_the_first_layers_alone():
    f = model(layers=1)
    assert len(f.encoder.blocks) == 1
    for layers in (0, 3, 1.0, True):
        with pytest.raises(ValueError, match=f"layers: expected a whole number from 1 to 2, .* got {layers}"):
            model(layers=layers)


@pytest.mark.parametrize("name", ["vit", "beit", "bert"])
def test_bfloat16_autocast_and_chunks(name):
    """Half precision stays near; chunks change neither the mean nor the gradients."""
    phi = symmetrized(model(name), train_samples=4)
    noise = phi.draw_noise(**CALL, samples=4)
    full = phi(**CALL, noise=noise)
    with torch.autocast("cpu", torch.bfloat16):
        half = phi(**CALL, noise=noise)
    assert (half.float() - full).abs().max() < 0.1 * full.abs().max()
    slopes = []
    for chunk in (None, 3):
        phi.zero_grad()
        phi(**CALL, noise=noise, estimator=ps.MonteCarlo(4, chunk=chunk)).square().sum().backward()
        slopes.append([p.grad.clone() for p in phi.parameters()])
    assert all(torch.allclose(a, b, rtol=1e-3, atol=1e-4 * (1 + a.abs().max())) for a, b in zip(*slopes, strict=True))


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: graphs((13, 4), 13), "x: expected at most max_nodes = 12 nodes, got 13"),
        (lambda c: {**c, "x": c["x"][..., :2]}, r"x: expected shape \(2, 9, 3\), got \(2, 9, 2\)"),
        (lambda c: {**c, "edge": c["edge"][..., 0]}, r"edge: expected shape \(2, 9, 9, 2\), got \(2, 9, 9\)"),
        (lambda c: {**c, "mask": c["mask"][:, :8]}, r"mask: expected shape \(2, 9\), got \(2, 8\)"),
        (lambda c: {**c, "mask": c["mask"].float()}, r"mask: expected torch\.bool, got torch\.float32"),
        (lambda c: {**c, "x": c["x"][0, 0]}, r"x: expected shape \(B, N, 3\), got \(3,\)"),
    ],
)
def test_inputs_that_do_not_fit(change, message):
    with pytest.raises((TypeError, ValueError), match=message):
        model()(**change(CALL))


def test_inputs_of_other_types():
    call = {**CALL, "edge": CALL["edge"] > 0}
    assert torch.equal(model()(**call), model()(**{**call, "edge": call["edge"].float()}))


def test_empty_graphs_are_finite():
    for head in (GraphHead(2), NodeHead(2), PairHead(2)):
        for name, tokens in (("vit", ImagePatches(12, 4)), ("bert", ImagePatches(12, 4)), ("bert", NodeTokens(9))):
            y = model(name, tokens, head)(**graphs((9, 0), 9))
            assert y.isfinite().all()
            assert isinstance(head, GraphHead) or (y[1] == 0).all()


def test_batches_without_graphs():
    for head, shape in ((GraphHead(2), (0, 2)), (NodeHead(2), (0, 9, 2)), (PairHead(2), (0, 9, 9, 2))):
        for tokens in (ImagePatches(12, 4), NodeTokens(12)):
            assert model(tokens=tokens, head=head)(**{k: v[:0] for k, v in CALL.items()}).shape == shape


def test_unknown_interfaces_say_what_was_looked_for():
    with pytest.raises(TypeError, match=r"Linear has the interface of no known family") as error:
        GraphTransformer(nn.Linear(3, 3), NodeTokens(3), GraphHead(1), **CHANNELS)
    for path in (
        "layers or encoder.layer",
        "embeddings.position_embeddings",
        "embeddings.word_embeddings",
        "pos_embed",
    ):
        assert path in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"backbone": "vit"}, r"backbone: expected .*Module.*, got 'vit'"),
        ({"tokens": 3}, "tokens: expected .*ImagePatches.*NodeTokens, got 3"),
        ({"head": "graph"}, "head: expected .*PairHead, got 'graph'"),
        ({"edge_channels": 0}, "edge_channels: expected a whole number from 1 on, got 0"),
        ({"dtype": "bfloat16"}, "dtype: expected .*torch.dtype.*, got 'bfloat16'"),
        ({"frozen": "no"}, "frozen: expected .*bool.*, got 'no'"),
        ({"checkpointing": 1}, "checkpointing: expected .*bool.*, got 1"),
    ],
)
def test_arguments_of_the_wrong_kind(change, message):
    given = {"backbone": backbone("vit"), "tokens": NodeTokens(3), "head": GraphHead(1), **CHANNELS}
    with pytest.raises((TypeError, ValueError), match=message):
        GraphTransformer(**{**given, **change})


def test_more_tokens_than_positions_that_cannot_be_interpolated():
    vit = backbone("vit")
    vit.embeddings.position_embeddings = nn.Parameter(torch.randn(1, 1 + 24, 16))  # an image of 4 x 6 patches
    vit.embeddings.patch_embeddings.num_patches = 24
    GraphTransformer(vit, NodeTokens(16), GraphHead(1), **CHANNELS)
    with pytest.raises(ValueError, match=r"expected at most 24 tokens.* no square grid .* got 25"):
        GraphTransformer(vit, NodeTokens(25), GraphHead(1), **CHANNELS)
