"""Forward mode, Hessians and vmap agree with reverse mode, in float64, for inputs and for parameters."""

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad
from torch.utils._pytree import tree_map

import probsym as ps

NODES, AXIS = ps.S("n"), ps.Axis("n")
REPS = {
    "O(3)": ps.Rep(None, ps.O(3)), "SE(3)": ps.Rep(None, ps.SE(3)), "O(4)": ps.Rep(None, ps.O(4)),
    "SO(2)": ps.Rep(None, ps.SO(2)), "S": ps.Rep(NODES, None), "S x E(3)": ps.Rep(NODES, ps.E(3)),
    "Axis x SO(3)": ps.Rep(AXIS, ps.SO(3)), "S x S": ps.Rep(NODES, NODES),
}  # fmt: skip
WIDTH = {"O(4)": 4, "SO(2)": 2, "S x S": 5}


class Mixer(nn.Module):
    """A base model without symmetry, smooth enough for second derivatives."""

    def __init__(self, size):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(1), nn.Linear(size, 8), nn.Tanh(), nn.Linear(8, size))

    def forward(self, x):
        return self.layers(x).view_as(x)


def prepared(name, distribution):
    """A symmetrized model with fixed noise as a function of the inputs, and inputs."""
    torch.manual_seed(1)
    width = WIDTH.get(name, 3)
    x = torch.randn(2, 5, width, dtype=torch.float64)
    phi = ps.symmetrize(Mixer(5 * width), REPS[name], REPS[name], distribution, example=x.float()).double().eval()
    phi(x)
    fixed = {"noise": phi.draw_noise(x, samples=2)} if distribution in ("learned", "haar") else {}
    return phi, x, fixed


def dual(f, x, v):
    with forward_ad.dual_level():
        return forward_ad.unpack_dual(f(forward_ad.make_dual(x, v))).tangent


CASES = [(name, p) for name in REPS for p in ("canonical", "learned", "frame", "haar")]


@pytest.mark.parametrize(("name", "distribution"), CASES)
def test_forward_mode_is_reverse_mode(name, distribution):
    phi, x, fixed = prepared(name, distribution)
    v = torch.randn_like(x)

    def f(x):
        return phi(x, **fixed)

    jacobian = torch.autograd.functional.jacobian(f, x)
    expected = torch.einsum("abcdef,def->abc", jacobian, v)
    for found in (dual(f, x, v), torch.func.jvp(f, (x,), (v,))[1]):
        assert torch.allclose(found, expected, atol=1e-9)
    assert torch.allclose(torch.func.jacfwd(f)(x), jacobian, atol=1e-9)
    assert torch.allclose(torch.func.jacrev(f)(x), jacobian, atol=1e-9)


@pytest.mark.parametrize(("name", "distribution"), CASES)
def test_hessians(name, distribution):
    phi, x, fixed = prepared(name, distribution)

    def f(x):
        return phi(x, **fixed).square().sum()

    expected = torch.autograd.functional.hessian(f, x)
    assert torch.allclose(torch.func.hessian(f)(x), expected, atol=1e-8 * float(1 + expected.abs().max()))


@pytest.mark.parametrize(("name", "distribution"), CASES)
def test_vmap_is_a_batch(name, distribution):
    phi, x, fixed = prepared(name, distribution)

    def one(x, noise):
        return phi(x[None], **({"noise": tree_map(lambda t: t.unsqueeze(1), noise)} if noise else {}))[0]

    def run():
        if fixed:
            return torch.func.vmap(one, in_dims=(0, 1))(x, fixed["noise"])
        return torch.func.vmap(lambda x: one(x, None))(x)

    if distribution == "frame":
        with pytest.raises(ValueError, match=r"torch\.vmap hides: give the inputs as one batch"):
            run()
        return
    assert torch.allclose(run(), phi(x, **fixed), atol=1e-12)


@pytest.mark.parametrize(("name", "distribution"), [c for c in CASES if c[1] in ("canonical", "learned")])
def test_parameters_have_the_straight_through_gradient_forwards(name, distribution):
    """The derivative along w of the parameters is <gradient, w>, also through the relaxed order of nodes."""
    phi, x, fixed = prepared(name, distribution)
    values = {key: p.detach() for key, p in phi.named_parameters()}
    w = {key: torch.randn_like(p) for key, p in values.items()}
    weight = torch.randn_like(x)
    slope = torch.func.jvp(lambda q: torch.func.functional_call(phi, q, (x,), fixed), (values,), (w,))[1]
    (phi(x, **fixed) * weight).sum().backward()
    expected = sum((p.grad * w[key]).sum() for key, p in phi.named_parameters() if p.grad is not None)
    assert torch.allclose((slope * weight).sum(), expected, rtol=1e-8)


@pytest.mark.parametrize("storage", ["padded", "ragged"])
def test_uneven_batches(storage):
    """The relaxed order of padded and ragged graphs, forwards and backwards."""
    torch.manual_seed(0)
    if storage == "padded":
        nodes = ps.S("n", mask="mask")
        mask = torch.arange(4) < torch.tensor([[4], [2]])
        call = {"x": torch.randn(2, 4, 3, dtype=torch.float64) * mask[..., None], "mask": mask}
    else:
        nodes = ps.S("n", batch="batch")
        batch = torch.tensor([0, 0, 0, 0, 1, 1])
        call = {"x": torch.randn(6, 3, dtype=torch.float64), "batch": batch}

    class Ramp(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, x, mask=None, batch=None):
            rows = torch.linspace(0, 1, x.shape[-2], dtype=x.dtype)[:, None]
            return self.layer(x).tanh() * rows

    phi = ps.symmetrize(Ramp(), {"x": ps.Rep(nodes)}, ps.Rep(nodes), "learned", example=call).double()
    noise = phi.draw_noise(**call, samples=2)
    values = {key: p.detach() for key, p in phi.named_parameters()}
    w = {key: torch.randn_like(p) for key, p in values.items()}
    run = lambda q: torch.func.functional_call(phi, q, (), {**call, "noise": noise})  # noqa: E731
    slope = torch.func.jvp(run, (values,), (w,))[1]
    y = phi(**call, noise=noise)
    weight = torch.randn_like(y)
    (y * weight).sum().backward()
    expected = sum((p.grad * w[key]).sum() for key, p in phi.named_parameters() if p.grad is not None)
    learned = [p.grad for p in phi.distribution.parameters() if p.grad is not None]
    assert any(g.abs().max() > 0 for g in learned)
    assert torch.allclose((slope * weight).sum(), expected, rtol=1e-8)
