"""The straight-through functions against plain operations: values and gradients, in every storage."""

import pytest
import torch

from probsym.kernels.gathers import gather_nodes, gather_pairs, inverse_index
from probsym.kernels.straight_through import AttachNodes, AttachPairs, attach_nodes_reference, attach_pairs_reference
from probsym.reps import Layout

MASK = torch.arange(5) < torch.tensor([[5], [3], [0]])
BATCH = torch.tensor([0, 0, 0, 0, 0, 1, 1, 1])
LAYOUTS = {"dense": Layout(5), "padded": Layout(5, MASK), "ragged": Layout(8, batch=BATCH, count=3)}
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-12}
KINDS = pytest.mark.parametrize("kind", TOLERANCE, ids=str)


def gradients(attach, y, x, token, *rest):
    """The value, and the gradients to y and to the token."""
    y, token = y.clone().requires_grad_(), token.clone().requires_grad_()
    out = attach(y, x, token, *rest)
    weight = torch.linspace(-1, 2, out.numel(), dtype=out.dtype).reshape(out.shape)
    return out.detach(), *torch.autograd.grad((out * weight).sum(), (y, token))


def agree(found, expected, kind):
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == b.dtype
        assert torch.allclose(a, b, atol=TOLERANCE[kind])


@KINDS
@pytest.mark.parametrize("storage", LAYOUTS)
@pytest.mark.parametrize("samples", [(), (2,), (4, 2)], ids=str)
@pytest.mark.parametrize("channels", [(), (3,), (3, 2)], ids=str)
def test_nodes(channels, samples, storage, kind):
    layout = LAYOUTS[storage]
    lead = (3,) if storage != "ragged" else ()
    x = torch.randn(*lead, layout.size, *channels, dtype=kind)
    x = layout.clear(x, 1, 1)
    y = torch.randn(*samples, *x.shape, dtype=kind)
    token = torch.zeros(*samples, 3, 5, 5, dtype=kind)
    rest = (layout, len(samples) + len(lead))
    found = gradients(AttachNodes.apply, y, x, token, *rest)
    expected = gradients(attach_nodes_reference, y, x, token, *rest)
    assert torch.equal(found[0], y)
    if storage == "padded":  # what comes from padding, the function does not send on to y either
        real = MASK.reshape(3, 5, *[1] * len(channels))
        expected = (expected[0], expected[1] * real, expected[2])
    agree(found, expected, kind)
    assert found[2].abs().max() > 0


@KINDS
@pytest.mark.parametrize("storage", ["dense", "padded"])
@pytest.mark.parametrize("samples", [(), (2,), (4, 2)], ids=str)
@pytest.mark.parametrize("channels", [(), (3,), (3, 2)], ids=str)
@pytest.mark.parametrize("symmetric", [False, True])
def test_pairs(symmetric, channels, samples, storage, kind):
    layout = LAYOUTS[storage]
    x = layout.clear(torch.randn(3, 5, 5, *channels, dtype=kind), 1, 1, 2)
    if symmetric:
        x = x + x.transpose(1, 2)
    index = torch.rand(*samples, 3, 5).argsort(-1)
    token = torch.zeros(*samples, 3, 5, 5, dtype=kind)
    y = gather_pairs(x, index, 1, 1)
    found = gradients(AttachPairs.apply, y, x, token, inverse_index(index), layout)
    expected = gradients(attach_pairs_reference, y, x, token, index, layout)
    agree(found, expected, kind)
    assert found[2].abs().max() > 0


@KINDS
def test_gradients_are_those_of_a_soft_matrix(kind):
    """P x and P x P^T for any matrix that has the value of the permutation: what the token stands for."""
    x = torch.randn(3, 5, 2, dtype=kind)
    pairs = torch.randn(3, 5, 5, 2, dtype=kind)
    index = torch.rand(3, 5).argsort(-1)
    hard = torch.nn.functional.one_hot(index, 5).to(kind)
    token = torch.zeros_like(hard)

    def soft(y, x, token, *_):
        return y * 0 + (hard + token) @ x

    def soft_pairs(y, x, token, *_):
        return y * 0 + torch.einsum("bim,bjn,bmnc->bijc", hard + token, hard + token, x)

    y = gather_nodes(x, index, 1, 1)
    _, _, found = gradients(AttachNodes.apply, y, x, token, LAYOUTS["dense"], 1)
    assert torch.allclose(found, gradients(soft, y, x, token)[2], atol=TOLERANCE[kind])
    y = gather_pairs(pairs, index, 1, 1)
    _, _, found = gradients(AttachPairs.apply, y, pairs, token, inverse_index(index), LAYOUTS["dense"])
    assert torch.allclose(found, gradients(soft_pairs, y, pairs, token)[2], atol=TOLERANCE[kind])


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16], ids=str)
def test_sums_of_half_precision(kind):
    """Sums that leave the range of float16, from inputs and gradients in it, into a token in float32."""
    x, y = torch.full((1, 5, 300), 100.0, dtype=kind), torch.zeros(1, 5, 300, dtype=kind, requires_grad=True)
    token = torch.zeros(1, 5, 5, requires_grad=True)
    out = AttachNodes.apply(y, x, token, LAYOUTS["dense"], 1)
    (found,) = torch.autograd.grad(out, token, torch.full_like(out, 100.0))
    assert found.dtype == torch.float32
    assert torch.allclose(found, torch.tensor(3e6), rtol=1e-2)


def test_nan_in_padding_goes_nowhere():
    """What a model sends back to its padding reaches no row of the token."""
    layout, token = LAYOUTS["padded"], torch.zeros(3, 5, 5, requires_grad=True)
    x = torch.randn(3, 5, 2)
    out = AttachNodes.apply(x.clone().requires_grad_(), x, token, layout, 1)
    grad = torch.ones_like(out).masked_fill(~MASK[..., None], torch.nan)
    assert torch.autograd.grad(out, token, grad)[0].isfinite().all()


def test_only_what_is_asked_for():
    """A token without gradient costs no products, and the result is no view of y: a model may write into it."""
    y = torch.randn(3, 5, 2, requires_grad=True)
    out = AttachNodes.apply(y, y.detach(), torch.zeros(3, 5, 5), LAYOUTS["dense"], 1)
    assert torch.equal(torch.autograd.grad(out.sum(), y)[0], torch.ones_like(y))
    out = AttachNodes.apply(y.clone(), y.detach(), torch.zeros(3, 5, 5, requires_grad=True), LAYOUTS["dense"], 1)
    assert torch.equal(torch.autograd.grad(out.mul_(2).sum(), y)[0], torch.full_like(y, 2))
