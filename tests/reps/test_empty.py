"""Batches of no inputs, of no nodes and of no edges, and graphs without nodes among others."""

import pytest
import torch
from torch import nn

import probsym as ps
from cases import close, randn, seeded

SPACE = ps.O(3, "space")


class Sums(nn.Module):
    """Twice the vectors on the edges, what arrives at the nodes, and one number per input."""

    def forward(self, pos, e, v, t, batch=None, mask=None):
        if batch is not None:
            node = torch.zeros_like(pos).index_add(0, e[1], v)
            return {"node": node, "edge": 2 * v, "all": t[:, None]}
        return {"node": pos, "edge": 2 * v, "all": t[:, None]}


def declared(nodes):
    spec = {
        "pos": ps.Rep(nodes, SPACE),
        "e": ps.Rep(nodes.labels),
        "v": ps.Rep(nodes.edges, SPACE),
        "t": ps.Rep(),
    }
    return spec, {"node": ps.Rep(nodes, SPACE), "edge": ps.Rep(nodes.edges, SPACE), "all": ps.Rep()}


def ragged(batch, edges, count):
    e = torch.tensor(edges, dtype=torch.long).reshape(2, -1)
    pos = randn(len(batch), 3)
    batch = torch.tensor(batch, dtype=torch.long)
    return {"pos": pos, "e": e, "v": pos[e[0]] - pos[e[1]], "t": randn(count), "batch": batch}


def dense(count, nodes, edges, padded=False):
    e = torch.randint(0, max(nodes, 1), (count, 2, edges), generator=seeded())
    call = {"pos": randn(count, nodes, 3), "e": e, "v": randn(count, edges, 3), "t": randn(count)}
    return {**call, "mask": torch.ones(count, nodes, dtype=torch.bool)} if padded else call


CALLS = {
    "ragged, no inputs": (ragged([], [], 0), "batch"),
    "ragged, no nodes": (ragged([], [], 2), "batch"),
    "ragged, no edges": (ragged([0, 0, 1], [], 2), "batch"),
    "ragged, a graph without nodes": (ragged([0, 0, 2], [[0, 1], [1, 0]], 3), "batch"),
    "ragged, the last without nodes": (ragged([0, 0, 1], [[0, 1], [1, 0]], 4), "batch"),
    "dense, no inputs": (dense(0, 3, 2), None),
    "dense, no nodes": (dense(2, 0, 0), None),
    "dense, no edges": (dense(2, 3, 0), None),
    "padded, no inputs": (dense(0, 3, 2, padded=True), "mask"),
    "padded, no edges": (dense(2, 3, 0, padded=True), "mask"),
}


@pytest.mark.parametrize("distribution", ["haar", "frame", "learned", "canonical"])
@pytest.mark.parametrize("kind", [ps.S, ps.Axis])
@pytest.mark.parametrize("name", CALLS)
def test_nothing_is_a_batch_too(name, kind, distribution):
    """The base is equivariant, so phi = f, of any shape."""
    call, marker = CALLS[name]
    nodes = kind("nodes", **({marker: marker} if marker else {}))
    phi = ps.symmetrize(Sums(), *declared(nodes), distribution).double().eval()
    right = Sums()(**call)
    for options in ({}, {"samples": 1}, {"samples": 3}):
        assert close(phi(**call, generator=seeded(), **options), right)


ORDERS, CUBE, UPRIGHT = ps.S("orders"), ps.Octahedral(), ps.SE(3, about="z")


def scores():
    """One number for each of no inputs."""
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 1))


LAWS = {
    "WeightedFrame": (lambda: ps.WeightedFrame(SPACE), ps.Rep(None, SPACE)),
    "WeightedFrame about z": (lambda: ps.WeightedFrame(UPRIGHT), ps.Rep(None, UPRIGHT)),
    "Scored": (lambda: ps.Scored(scores(), CUBE), ps.Rep(None, CUBE.vector)),
    "Scored, the best pose": (lambda: ps.Scored(scores(), CUBE, temperature=0), ps.Rep(None, CUBE.vector)),
    "ScoreFunction": (
        lambda: ps.Learned(ColumnSums(), ORDERS, noise="gumbel", relaxation=ps.ScoreFunction()),
        ps.Rep(ORDERS),
    ),
}


class ColumnSums(nn.Linear):
    """A score for each node."""

    def __init__(self):
        super().__init__(3, 1)

    def forward(self, x):
        return super().forward(x)[..., 0]


@pytest.mark.parametrize("name", LAWS)
def test_no_inputs_under_laws_with_weights(name):
    """An empty batch comes out empty, from samples and in a training step too."""
    law, rep = LAWS[name]
    phi = ps.symmetrize(nn.Identity(), rep, rep, law().double())
    x = torch.zeros(0, 4, 3, dtype=torch.float64, requires_grad=True)
    phi(x, samples=2).sum().backward()
    assert phi.eval()(x).shape == (0, 4, 3)
    assert phi.estimate(x, samples=3).stderr.shape == (0, 4, 3)
