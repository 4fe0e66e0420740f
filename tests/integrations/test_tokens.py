"""Tokens of graphs against plain loops."""

from __future__ import annotations

import pytest
import torch
from backbones import graphs

from probsym.integrations.transformers import ImagePatches, NodeTokens, PairHead

CASES = [ImagePatches(12, 3), ImagePatches(11, 4), ImagePatches(11, 4, grid=4), ImagePatches(7, 5, grid=2)]


@pytest.mark.parametrize(("nodes", "patch", "grid", "margin"), [(188, 14, 14, 4), (444, 32, 14, 2), (53, 4, 14, 1)])
def test_published_grids(nodes, patch, grid, margin):
    spec = ImagePatches(nodes, patch)
    assert (spec.grid, spec.margin) == (grid, margin)


@pytest.mark.parametrize("spec", CASES, ids=repr)
def test_patches_by_hand(spec):
    """Token (r, c) is the patch's weighted sum of pixels plus that of its own nodes."""
    call = graphs((6, 2), 7, torch.float64)
    embed = spec.embedding(5, 3, 2).double()
    tokens, counting = embed(**call)
    for b, n in enumerate((6, 2)):
        for r in range(spec.rows(7)):
            for c in range(spec.grid):
                token, shows = embed.pairs.bias.clone(), False
                for i, j in ((i, j) for i in range(n) for j in range(n)):
                    row, column = i + spec.margin, j + spec.margin
                    if (row // spec.patch, column // spec.patch) == (r, c):
                        weight = embed.pairs.weight[:, :, row % spec.patch, column % spec.patch]
                        token, shows = token + weight @ call["edge"][b, i, j], True
                for i in range(n):
                    row, place = divmod(i + spec.margin, spec.patch)
                    if (row, place // spec.share) == (r, c):
                        weight = embed.nodes.weight[:, :, place % spec.share]
                        token, shows = token + weight @ call["x"][b, i], True
                assert torch.allclose(tokens[b, r * spec.grid + c], token)
                assert bool(counting[b, r * spec.grid + c]) == shows


@pytest.mark.parametrize("spec", CASES, ids=repr)
def test_outputs_come_from_the_tokens_that_the_inputs_went_to(spec):
    """The transposed convolutions are the transposes of the convolutions, margins and cuts included."""
    call = graphs((7, 7), 7, torch.float64)
    embed = spec.embedding(5, 3, 2).double()
    node, pair = spec.node_decoder(5, 3).double(), spec.pair_decoder(5, 2).double()
    node.nodes.weight.data, pair.pairs.weight.data = embed.nodes.weight.data, embed.pairs.weight.data
    for module in (node.nodes, pair.pairs, embed.pairs):
        torch.nn.init.zeros_(module.bias)
    tokens = torch.randn(2, spec.rows(7) * spec.grid, 5, dtype=torch.float64)
    zero = {"x": torch.zeros_like(call["x"]), "edge": torch.zeros_like(call["edge"])}
    for key, decoder in (("x", node), ("edge", pair)):
        forward = embed(**{**zero, key: call[key]}, mask=None)[0]
        assert torch.allclose((forward * tokens).sum(), (decoder(tokens, 7) * call[key]).sum())


@pytest.mark.parametrize("channels", [1, 2])
def test_gradients_lie_in_memory_as_the_weights_do(channels):
    """Also along axes of size 1, where DistributedDataParallel compares strides and copies if they differ."""
    spec = ImagePatches(12, 4)
    node, pair = spec.node_decoder(5, channels), spec.pair_decoder(5, channels)
    tokens = torch.randn(2, 9, 5)
    (node(tokens, 12).square().sum() + pair(tokens, 12).square().sum()).backward()
    for weight in (node.nodes.weight, pair.pairs.weight):
        assert weight.grad.stride() == weight.stride()


def test_node_tokens_by_hand():
    spec, call = NodeTokens(9), graphs((6, 2), 7, torch.float64)
    embed, pair = spec.embedding(5, 3, 2).double(), spec.pair_decoder(5, 2).double()
    tokens, counting = embed(**call)
    weight = embed.rows.weight.unflatten(1, (9, 2))
    expected = embed.nodes(call["x"]) + torch.einsum("wjc,bijc->biw", weight[:, :7], call["edge"])
    assert torch.allclose(tokens, expected)
    assert torch.equal(counting, call["mask"])
    rows = pair.rows(tokens).unflatten(-1, (9, 2))
    assert torch.allclose(pair(tokens, 7), rows[:, :, :7])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ImagePatches(0, 3), "max_nodes: expected a whole number from 1 on, got 0"),
        (lambda: ImagePatches(10, 2.5), "patch: expected a whole number"),
        (lambda: ImagePatches(10, 3, grid=3), "grid: expected at least 4 patches of 3 for 10 nodes, got 3"),
        (lambda: ImagePatches(10, 4, grid=2.5), "grid: expected a whole number from 1 on, got 2.5"),
        (lambda: NodeTokens(-1), "max_nodes"),
        (lambda: NodeTokens(True), "max_nodes: expected a whole number from 1 on, got True"),
        (lambda: PairHead(0), "channels: expected a whole number from 1 on, got 0"),
    ],
)
def test_sizes_out_of_range(make, message):
    with pytest.raises(ValueError, match=message):
        make()
