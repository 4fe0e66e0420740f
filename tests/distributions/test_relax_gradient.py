"""The gradient that a relaxed order sends to the net of p; its numbers are tested with kernels/sinkhorn."""

import pytest
import torch

import probsym as ps
from probsym.kernels.sinkhorn import soft_permutation


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


def test_a_relaxation_is_its_soft_permutation():
    """P, its gradient and its entropy are those of the kernels at its temperature and number of passes."""
    relaxation, z = ps.Relaxation(0.3, 4), torch.randn(2, 5, dtype=torch.float64)
    grad, soft = torch.randn(2, 5, 5, dtype=torch.float64), soft_permutation(z, None, 0.3, 4)
    assert torch.equal(relaxation(z), soft)
    leaf = z.clone().requires_grad_()
    (expected,) = torch.autograd.grad(relaxation(leaf), leaf, grad)
    assert torch.allclose(relaxation.pull(z, None, grad), expected, atol=1e-12)
    for temperature, sinkhorn, message in (
        (0.0, 2, "temperature: expected a positive"),
        (0.1, -1, "sinkhorn: expected"),
    ):
        with pytest.raises(ValueError, match=message):
            ps.Relaxation(temperature, sinkhorn)
