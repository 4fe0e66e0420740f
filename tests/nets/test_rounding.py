"""Columns that are rounding: their values are taken off, their derivatives stay."""

import pytest
import torch
from torch import Tensor, nn

import probsym as ps
from probsym.nets.rounding import settled

AXIS = ps.Axis("atoms")


class Energy(nn.Module):
    def __init__(self, nodes: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(3 * nodes, 8)
        self.out = nn.Linear(8, 1)

    def forward(self, pos: Tensor, kind: Tensor, bond: Tensor | None = None) -> Tensor:
        return self.out(torch.tanh(self.hidden(pos.flatten(1))))


SHAPES = {
    "a vector": ([[0.3, -1.2, 0.5]], [0], ps.SO(3)),
    "two atoms": ([[-1.0, 0, 0], [0.4, 0, 0]], [0, 1], ps.SE(3)),
    "atoms on a line": ([[-1.0, 0, 0], [0, 0, 0], [1.3, 0, 0]], [0, 1, 2], ps.SE(3)),
    "atoms in a plane": ([[0.0, 0, 0], [1, 0.7, 0], [-1, 0.7, 0]], [1, 0, 0], ps.SE(3)),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("pairs", [False, True])
def test_gradient_of_a_learned_pose_where_the_net_has_dependent_vectors(shape: str, pairs: bool) -> None:
    """The derivative of a sample is that of central differences, which leave the line, or the plane, of the atoms."""
    torch.manual_seed(0)
    places, kinds, space = SHAPES[shape]
    turn = ps.SO(3).haar((), generator=torch.Generator().manual_seed(2)).matrix.double()
    pos = (torch.tensor(places).double() @ turn.mT).unsqueeze(0).requires_grad_()
    x = {"kind": nn.functional.one_hot(torch.tensor([kinds]), 3).double()}
    inputs = {"pos": ps.Rep(AXIS, space), "kind": ps.Rep(AXIS)}
    if pairs:
        inputs["bond"] = ps.Rep(AXIS, AXIS)
        x["bond"] = torch.ones(1, len(kinds), len(kinds), 1).double()
    phi = ps.symmetrize(Energy(len(kinds)).double(), inputs, ps.Rep(), "learned", example={"pos": pos, **x}).double()
    noise = phi.draw_noise(pos=pos, **x, samples=2, generator=torch.Generator().manual_seed(1))

    def energy(pos: Tensor) -> Tensor:
        return phi(pos=pos, **x, noise=noise).sum()

    (gradient,) = torch.autograd.grad(energy(pos), pos)
    step = 1e-4 * torch.randn_like(pos)
    with torch.no_grad():
        change = (energy(pos + step) - energy(pos - step)) / 2
    torch.testing.assert_close((gradient * step).sum(), change, rtol=1e-5, atol=1e-10)
    _, forward = torch.func.jvp(energy, (pos.detach(),), (step,))
    torch.testing.assert_close((gradient * step).sum(), forward)


def momenta() -> Tensor:
    space = torch.randn(2, 2, 3, generator=torch.Generator().manual_seed(3)).double()
    return torch.cat([(space.square().sum(-1, keepdim=True) + 0.02).sqrt(), space], -1)


def state() -> Tensor:
    return torch.randn(2, 1, 3, generator=torch.Generator().manual_seed(3), dtype=torch.complex128)


class Vector(nn.Module):
    """One vector (B, D), in absolute directions."""

    def forward(self, v: Tensor) -> Tensor:
        parts = torch.view_as_real(v) if v.is_complex() else v.unsqueeze(-1)
        bent = torch.tanh(parts * torch.linspace(-1, 2, parts[0].numel()).double().view_as(parts[0])).sum((1, 3))
        return v.sum(1) * bent


@pytest.mark.parametrize(("group", "vectors"), [(ps.Lorentz(), momenta()), (ps.U(3), state())], ids=["Lorentz", "U"])
def test_gradient_where_two_momenta_are_opposite_at_rest_and_of_a_lone_state(group: ps.Group, vectors: Tensor) -> None:
    """The same for the default net of these groups: one direction for several columns."""
    torch.manual_seed(0)
    rep = ps.Rep(None, group)
    phi = ps.symmetrize(Vector(), {"v": rep}, ps.Rep(group), "learned", example={"v": vectors}).double()
    noise = phi.draw_noise(v=vectors, samples=2, generator=torch.Generator().manual_seed(1))

    def size(v: Tensor) -> Tensor:
        return phi(v=v, noise=noise).abs().square().sum()

    step = 1e-5 * torch.randn_like(vectors)
    x = vectors.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(size(x), x)
    expected = (gradient.conj() * step).sum().real
    with torch.no_grad():
        change = (size(vectors + step) - size(vectors - step)) / 2
    torch.testing.assert_close(expected, change, rtol=1e-5, atol=1e-10)


def test_derivative_of_a_dependent_column_turns_with_the_line_that_it_lies_on() -> None:
    """And a projection onto that line as it stands, which is the same number, does not: the control."""
    torch.manual_seed(0)
    v = torch.randn(1, 3, 1).double()
    weights = torch.tensor([[0.7, -1.3, 0.4]]).double()
    whole = v.norm() * weights.abs()

    def frame(v: Tensor) -> Tensor:
        return settled(v @ weights, whole)

    def fixed(v: Tensor) -> Tensor:
        line = nn.functional.normalize(v, dim=1).detach()
        return line @ (line.mT @ (v @ weights))

    torch.testing.assert_close(frame(v), v @ weights)
    torch.testing.assert_close(fixed(v), v @ weights)
    turned = torch.linalg.cross(v, torch.randn(1, 3, 1).double(), dim=1)
    _, change = torch.autograd.functional.jvp(frame, v, turned)
    torch.testing.assert_close(change, turned @ weights)
    _, change = torch.func.jvp(frame, (v,), (turned,))  # in forward mode, which `no_grad` does not stop
    torch.testing.assert_close(change, turned @ weights)
    _, wrong = torch.autograd.functional.jvp(fixed, v, turned)
    assert (wrong - turned @ weights).norm() > 0.1 * change.norm()


def test_vectors_that_cancel_have_no_derivative() -> None:
    """Zero is no direction; a gradient through it would be infinite after it is divided by its size."""
    frame = (1e-17 * torch.randn(2, 3, 3).double()).requires_grad_()
    whole = torch.ones(2, 3).double()
    y = settled(frame, whole)
    assert not y.any()
    (gradient,) = torch.autograd.grad(y.sum(), frame)
    assert not gradient.any()
