"""The gradient of the soft permutation in closed form, against autograd through the logarithms."""

import pytest
import torch

import probsym as ps
from probsym.distributions import Relaxation

MASK = torch.tensor([[True, True, True, True, False, False], [True] * 6, [True] + [False] * 5, [False] * 6])


@pytest.mark.parametrize("relaxation", [Relaxation(), Relaxation(1.0, 0), Relaxation(0.02, 30)], ids=repr)
@pytest.mark.parametrize("mask", [None, MASK], ids=["dense", "padded"])
@pytest.mark.parametrize("kind", ["generic", "tied", "constant", "wide"])
def test_closed_form_is_autograd(relaxation, mask, kind):
    z = torch.randn(3, 4, 6, dtype=torch.float64)
    if kind == "tied":
        z[..., 1] = z[..., 0]
    z = {"constant": 0 * z, "wide": 30 * z}.get(kind, z).requires_grad_()
    grad = torch.randn(3, 4, 6, 6, dtype=torch.float64)
    grad = grad if mask is None else grad * (mask[..., None] & mask[..., None, :])
    (expected,) = torch.autograd.grad(relaxation(z, mask), z, grad)
    assert torch.allclose(relaxation.pull(z.detach(), mask, grad), expected, atol=1e-9)


@pytest.mark.parametrize("n", [0, 1, 2, 500])
def test_float32_is_finite_and_near(n):
    z, grad = 5 * torch.randn(2, n), torch.randn(2, n, n)
    found, wide = Relaxation().pull(z, None, grad), Relaxation().pull(z.double(), None, grad.double())
    assert found.isfinite().all()
    assert n == 0 or (found - wide).abs().max() <= 1e-3 * wide.abs().max()


def test_pages_of_padded_scores_are_autograd():
    """Enough matrices for several pages, of different sizes; scores as large as the distance of the padding, too."""
    mask = torch.arange(40) < torch.randint(0, 41, (60, 1))
    grad = torch.randn(2, 60, 40, 40, dtype=torch.float64) * (mask[..., None] & mask[..., None, :])
    z = torch.randn(2, 60, 40, dtype=torch.float64)
    for shift in (0.0, 5e9):
        z = (z + shift).requires_grad_()
        (expected,) = torch.autograd.grad(Relaxation(sinkhorn=3)(z, mask), z, grad)
        found = Relaxation(sinkhorn=3).pull(z.detach(), mask, grad)
        assert torch.allclose(found, expected, atol=1e-9)
        assert found[:, ~mask].eq(0).all()
        z = z.detach()
        largest, n = int(mask.sum(-1).argmax()), int(mask.sum(-1).max())
        alone, padded = Relaxation(sinkhorn=3)(z[0, largest, :n]), Relaxation(sinkhorn=3)(z[0], mask)[largest]
        assert torch.allclose(padded[:n, :n], alone)


class Degrees(torch.nn.Module):
    """d^-1/2 of the degrees, zero where there is none: NaN flows back to padded pairs."""

    def __init__(self, on_nodes: bool) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(6, dtype=torch.float64))
        self.on_nodes = on_nodes

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        if self.on_nodes:
            d = torch.where(mask, x.square().sum(-1).sqrt(), 0)
        else:
            d = x.sum(-1).pow(-0.5)
            d = d.masked_fill(d.isinf(), 0)
        return d @ self.weight


@pytest.mark.parametrize("on_nodes", [True, False])
@pytest.mark.parametrize("padding", [0.0, float("nan")])
def test_padding_sends_nothing_back_to_the_order(on_nodes, padding):
    """The net of p has the gradient that each graph gives it alone, whatever lies in the padding."""
    nodes = ps.S("nodes", mask="mask")
    rep = ps.Rep(nodes) if on_nodes else ps.Rep(nodes, nodes)
    mask = torch.arange(6) < torch.tensor([[6], [4], [3]])
    x = torch.rand(3, 6, 3 if on_nodes else 6, dtype=torch.float64)
    hidden = ~mask[..., None].expand_as(x) if on_nodes else ~(mask[..., None] & mask[..., None, :])
    phi = ps.symmetrize(Degrees(on_nodes), {"x": rep}, ps.Rep(), "learned", example={"x": x, "mask": mask}).double()
    noise = phi.draw_noise(x=x.masked_fill(hidden, 0), mask=mask, samples=2)

    def pulled(filled: torch.Tensor) -> torch.Tensor:
        phi.zero_grad()
        phi(x=filled, mask=mask, noise=noise).sum().backward()
        return torch.cat([p.grad.flatten() for p in phi.distribution.parameters() if p.grad is not None])

    clean = pulled(x.masked_fill(hidden, 0))
    assert clean.isfinite().all()
    assert clean.abs().max() > 0
    assert torch.equal(pulled(x.masked_fill(hidden, padding)), clean)


def test_backward_within_autocast():
    """The net of p has its gradient in single precision, up to the rounding of bfloat16."""
    nodes, x = ps.S("nodes"), torch.rand(2, 5, 5)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(25, 1))
    phi = ps.symmetrize(net, ps.Rep(nodes, nodes), ps.Rep(), "learned", example=x)
    noise, found = phi.draw_noise(x, samples=4), []
    for enabled in (False, True):
        phi.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            phi(x, noise=noise).sum().backward()
        found.append(torch.cat([p.grad.flatten() for p in phi.distribution.parameters() if p.grad is not None]))
    exact, rounded = found
    assert exact.norm() > 0
    assert (rounded - exact).norm() < 0.1 * exact.norm()
