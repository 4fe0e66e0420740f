"""GraphTransformer: shapes, padding, equivariance once symmetrized, precision, what is trained, bad input."""

from __future__ import annotations

import pytest
import torch
from backbones import BACKBONES, backbone, graphs
from torch.utils._pytree import tree_map

import probsym as ps
from cases import coupled_error, seeded
from probsym.integrations.transformers import (
    GraphHead,
    GraphTransformer,
    ImagePatches,
    NodeHead,
    NodeTokens,
    PairHead,
    symmetrized,
)

TOKENS = {
    "patches": ImagePatches(12, patch=3),
    "patches, margin": ImagePatches(11, patch=4, grid=4),
    "nodes": NodeTokens(12),
}
HEADS = {"graph": GraphHead(4), "node": NodeHead(2), "pair": PairHead(1)}
SHAPES = {"graph": (3, 4), "node": (3, 11, 2), "pair": (3, 11, 11, 1)}


def model(name="vit", tokens="patches", head="graph", **options):
    torch.manual_seed(1)
    return GraphTransformer(
        backbone(name), TOKENS[tokens], HEADS[head], node_channels=3, edge_channels=2, **options
    ).eval()


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("tokens", TOKENS)
@pytest.mark.parametrize("distribution", ["learned", "haar", "canonical"])
def test_coupled_exactness(tokens, head, distribution):
    """At most 1e-10 in float64 for graphs of different sizes; the bare model's own error is above 1e-2."""
    f = model(tokens=tokens, head=head, dtype=torch.float64)
    call = graphs((11, 4, 7), 11, torch.float64)
    phi = symmetrized(f, distribution).double().eval()
    assert coupled_error(phi, call, seed=2) <= 1e-10
    if distribution == "learned":
        nodes = ps.S("nodes", mask="mask")
        report = ps.testing.equivariance_error(f, call, f.inputs(nodes), f.output(nodes), generator=seeded())
        assert not report.passed
        assert report.error > 1e-2


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("distribution", ["learned", "haar"])
def test_rows_of_several_samples_do_not_mix(distribution, head):
    """Each graph alone, with its own noise, gives what it gives in the batch."""
    phi = symmetrized(model(head=head, dtype=torch.float64), distribution).double().eval()
    call = graphs((11, 4, 7), 11, torch.float64)
    noise = phi.draw_noise(**call, samples=3)
    y = phi(**call, noise=noise)
    for b in range(3):
        own = tree_map(lambda z, b=b: z[:, b : b + 1], noise)
        assert torch.allclose(phi(**{k: v[b : b + 1] for k, v in call.items()}, noise=own)[0], y[b], atol=1e-10)
    others = tree_map(lambda z: z.roll(1, 1), noise)
    assert (phi(**call, noise=others) - y).abs().max() > 1e-3


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("tokens", TOKENS)
@pytest.mark.parametrize("name", sorted(BACKBONES))
def test_padding_is_invisible(name, tokens, head):
    """A batch of uneven graphs, each graph alone, and a wider padding give the same; padded outputs are zero."""
    f = model(name, tokens, head, dtype=torch.float64)
    call = graphs((9, 3, 1), 11, torch.float64)
    y = f(**call)
    assert y.shape == SHAPES[head]
    for b, n in enumerate((9, 3, 1)):
        alone = f(x=call["x"][b : b + 1, :n], edge=call["edge"][b : b + 1, :n, :n])[0]
        part = y[b] if head == "graph" else y[b][(slice(n),) * (y.ndim - 2)]
        assert (part - alone).abs().max() < 1e-8
        assert alone.numel() == 1 or alone.std() > 1e-3
        assert head == "graph" or (y[b].abs().sum() - alone.abs().sum()).abs() < 1e-8


@pytest.mark.parametrize("name", sorted(BACKBONES))
def test_padding_is_seen_without_the_mask(name, monkeypatch):
    """Negative control of the test above: a mask that hides nothing."""
    f, call = model(name, dtype=torch.float64), graphs((9, 3, 1), 11, torch.float64)
    hidden = f(**call)
    monkeypatch.setattr("probsym.integrations.transformers.encoder.MASKED", 0.0)
    assert not f.encoder.reads_masks(4)
    assert (f(**call) - hidden)[1:].abs().max() > 1e-3


@pytest.mark.parametrize(("n", "patch"), [(188, 14), (444, 32), (53, 4)])
def test_published_sizes(n, patch):
    """14 x 14 tokens each; an input of the largest size, and one of half of it."""
    call = graphs((n, n // 2), n)
    for head, shape in (GraphHead(2), (2, 2)), (NodeHead(2), (2, n, 2)), (PairHead(1), (2, n, n, 1)):
        f = GraphTransformer(backbone("vit"), ImagePatches(n, patch), head, node_channels=3, edge_channels=2)
        y = f(**call)
        assert y.shape == shape
        assert f.encoder.position.shape == (196, 16)
        assert isinstance(head, GraphHead) or (y[1, n // 2 :] == 0).all()


def test_compiles_as_one_graph():
    phi = symmetrized(model(head="node"))
    call = graphs((11, 4, 7), 11)
    noise = phi.draw_noise(**call)
    compiled = torch.compile(phi, fullgraph=True, backend="aot_eager")
    assert torch.allclose(compiled(**call, noise=noise), phi(**call, noise=noise), atol=1e-6)
