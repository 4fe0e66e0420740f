"""Clouds so far from the origin that rounding hides a part of them: that part is drawn, and reported as drawn."""

import pytest
import torch
from torch import nn

import probsym as ps
from cases import randn, seeded
from probsym.nets.rounding import settled
from probsym.testing import assert_distribution


@pytest.mark.parametrize("group", [ps.O(3), ps.SO(3)], ids=repr)
@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_no_other_column_takes_the_place_of_an_uncertain_one(kind, group):
    """Near the origin the second column is certain and used; far from it the pose must not come from the third."""
    first, second, third = randn(3, 5, 3, seed=1).to(kind)
    frame = torch.stack([first, first + 1e-3 * second, third], -1)
    whole = frame.norm(dim=-2)
    near = settled(frame, whole, torch.full((5,), 1e-7, dtype=kind))
    far = settled(frame, whole, torch.full((5,), 1e-2, dtype=kind))
    assert torch.equal(near, frame)
    assert not group.degenerate(near).any()
    assert group.degenerate(far).all()
    torch.testing.assert_close(far[..., 0], first)


class Ignored(nn.Module):
    def forward(self, pos, batch=None):
        return pos


@pytest.mark.parametrize("far", [0.0, 1.0, 1e3])
@pytest.mark.parametrize("storage", ["dense", "ragged"])
@pytest.mark.parametrize("permuted", [False, True])
@pytest.mark.parametrize("family", [ps.E, ps.SE])
def test_noise_at_coincident_points(family, permuted, storage, far):
    """Points in one place have no size to which noise could be relative: it is one, and not the rounding of it."""
    name = {"batch": "batch"} if storage == "ragged" else {}
    nodes = ps.S("nodes", **name) if permuted else ps.Axis("nodes", **name)
    space = family(3, "space")
    points = ps.Rep(nodes, space)
    place = torch.full((2, 6, 3), far, dtype=torch.float64) + far * randn(2, 1, 3, seed=3)
    call = {"pos": place}
    if storage == "ragged":
        call = {"pos": place.flatten(0, 1), "batch": torch.arange(2).repeat_interleave(6)}
    learned = ps.symmetrize(Ignored(), {"pos": points}, points, "learned").distribution
    net = next(part.net for part in learned.modules() if hasattr(part, "net"))
    p = ps.Learned(net, nodes * space if permuted else space, noise="input")
    phi = ps.symmetrize(Ignored(), {"pos": points}, points, p)
    assert_distribution(phi, call, tolerance=1e-8, generator=seeded(0))
