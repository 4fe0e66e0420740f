"""How concentrated a distribution is, where that is known."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import probsym as ps
from probsym_experiments.concentration import concentration

NODES = ps.S("nodes")
INPUTS = 256


def measured(group: ps.Group, slot: ps.Group, distribution: str | ps.EquivariantDistribution) -> dict[str, float]:
    """Of a distribution on sets of five points."""
    torch.manual_seed(0)
    call = {"input": torch.randn(INPUTS, 5, 3, dtype=torch.float64)}
    rep = ps.Rep(NODES, slot)
    phi = ps.symmetrize(nn.Identity(), {"input": rep}, rep, distribution).double().eval()
    return concentration(phi, call, seed=1)


def test_uniform_ones_have_none() -> None:
    """Squares scatter about zero with a deviation of 0.001 at most: 0.08 as their root is six deviations away."""
    found = measured(NODES * ps.O(3), ps.O(3), "haar")
    assert set(found) == {"concentration of poses", "concentration of orders"}
    assert max(found.values()) < 0.08


def test_turns_about_an_axis_leave_a_third() -> None:
    """E[R] = diag(0, 0, 1), and |E[R]|^2 / 3 = 1/3."""
    about_z = ps.SO(3, about="z")
    found = measured(NODES * about_z, about_z, "haar")
    assert found["concentration of poses"] == pytest.approx((1 / 3) ** 0.5, abs=0.01)


def test_unitary_matrices_count_with_both_of_their_parts() -> None:
    """As above: nothing for the uniform ones, one for a single one."""
    space = ps.U(2)
    rep = ps.Rep(ps.Axis("points"), space)
    call = {"input": torch.randn(INPUTS, 5, 2, dtype=torch.complex128)}
    net = ps.distributions.DefaultNet({"input": rep}, space)
    found = []
    for distribution in (ps.Haar(space), ps.Learned(net, space, scale=1e-6)):
        phi = ps.symmetrize(nn.Identity(), {"input": rep}, rep, distribution, example=call)
        found.append(concentration(phi.double().eval(), call, seed=1)["concentration of poses"])
    assert found[0] < 0.08
    assert found[1] == pytest.approx(1, abs=1e-3)


def test_a_single_pose_and_order_have_one() -> None:
    """A learned p without noise to speak of."""
    space = ps.SO(3)
    group = NODES * space
    net = ps.distributions.DefaultNet({"input": ps.Rep(NODES, space)}, group)
    call = {"input": torch.randn(4, 5, 3, dtype=torch.float64)}
    p = ps.Learned(net, group, scale=1e-6)
    phi = ps.symmetrize(nn.Identity(), {"input": ps.Rep(NODES, space)}, ps.Rep(NODES, space), p, example=call)
    found = concentration(phi.double().eval(), call, seed=1)
    assert found["concentration of poses"] == pytest.approx(1, abs=1e-3)
    assert found["concentration of orders"] == pytest.approx(1, abs=1e-9)


def test_wider_noise_concentrates_less() -> None:
    """A negative control: the number moves with what it measures."""
    space = ps.SO(3)
    net = ps.distributions.DefaultNet({"input": ps.Rep(NODES, space)}, space)
    call = {"input": torch.randn(64, 5, 3, dtype=torch.float64)}
    found = []
    for scale in (0.1, 0.5, 3.0):
        p = ps.Learned(net, space, scale=scale)
        phi = ps.symmetrize(nn.Identity(), {"input": ps.Rep(None, space)}, ps.Rep(None, space), p, example=call)
        found.append(concentration(phi.double().eval(), call, seed=1)["concentration of poses"])
    assert found[0] > found[1] + 0.05 > found[2] + 0.1
