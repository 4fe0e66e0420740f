"""Samples of one input that share their origin: the same points, moved to it once."""

from dataclasses import replace

import pytest
import torch

import probsym as ps
from probsym.groups.euclidean import Motion

SPACE = ps.E(3)
POINTS = ps.Rep(None, SPACE)


def motions(samples=4, inputs=2):
    """About one origin per input."""
    z = torch.randn(samples, inputs, 3, 3, dtype=torch.float64)
    return SPACE.project((torch.randn(inputs, 3, dtype=torch.float64), z), torch.randn_like(z))


@pytest.mark.parametrize("inverse", [False, True])
def test_the_same_points(inverse):
    """Bit by bit, for inputs that all samples share and for inputs of every sample, whatever the memory looks like."""
    g = motions().inverse() if inverse else motions()
    apart = g.map(lambda tensor, _: tensor.contiguous())
    assert g.shared == 1
    assert apart.shared == 0
    for x in (torch.randn(2, 5, 3), torch.randn(2, 5, 3, dtype=torch.float64)):
        assert torch.equal(POINTS.act(g, x, 1), POINTS.act(apart, x, 1))
        assert torch.equal(POINTS.act(g, x, 1), POINTS.act(replace(apart, shared=1), x, 1))
    rows = torch.randn(4, 2, 5, 3, dtype=torch.float64)
    assert torch.equal(POINTS.act(g, rows, 2), POINTS.act(apart, rows, 2))


def test_who_keeps_it():
    g, turn = motions(), Motion(SPACE, SPACE.vector.group.project((torch.zeros(3), torch.eye(3)), torch.eye(3)).matrix)
    turn = replace(turn, matrix=turn.matrix.double().expand(4, 2, 3, 3))
    kept = {"inverse": g.inverse(), "slice": g.select(slice(1, 3)), "turned": g @ turn}
    kept["copies"] = g.select(slice(1, 2)).repeat(7)
    for name, h in kept.items():
        assert h.shared == 1, name
        origin = h.source if h.target is None else h.target
        assert (origin == origin[:1]).all(), name
    for h in (g.select(torch.tensor([2, 0])), g.select(0), g.map(lambda tensor, _: tensor.flip(0)), turn @ g, g @ g):
        assert h.shared == 0
    assert (motions(7, 1) @ g.select(slice(0, 1)).repeat(7)).shared == 0


def test_origins_of_their_own():
    """An origin per sample is not shared, and moves each sample about its own."""
    z = torch.randn(4, 2, 3, 3, dtype=torch.float64)
    origin = torch.randn(4, 2, 3, dtype=torch.float64)
    g = SPACE.project((origin, z), torch.randn_like(z)).inverse()
    x = torch.randn(2, 5, 3, dtype=torch.float64)
    expected = torch.einsum("kbij,kbnj->kbni", g.matrix, x - origin[:, :, None])
    assert g.shared == 0
    assert torch.allclose(POINTS.act(g, x, 1), expected)


def test_products_hand_it_on():
    z = torch.randn(4, 2, 5)
    order = ps.S(5).project(z, torch.zeros_like(z))
    g = motions()
    pair = ps.groups.product([SPACE, ps.S(5)]).join(g, order)
    assert pair.select(slice(0, 1)).repeat(3)[SPACE].shared == 1
    assert pair.inverse()[SPACE].shared == 1
