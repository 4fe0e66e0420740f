"""What is refused when a model is declared, or at its first call: names, groups and channels that would mislead."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import probsym as ps

OWN = ("samples", "estimator", "tol", "max_samples", "noise", "generator", "return_estimate")
IMAGES = [ps.D(1), ps.C(2), ps.C(4), ps.D(4), ps.C(8), ps.Shift(8)]


def model_with(name: str) -> nn.Module:
    """A model whose forward takes x and an argument of that name."""
    namespace: dict = {"nn": nn}
    exec(f"class Model(nn.Module):\n    def forward(self, x, {name}):\n        return x + {name}\n", namespace)
    return namespace["Model"]()


@pytest.mark.parametrize("name", OWN)
def test_names_that_the_symmetrizer_takes_are_refused_when_it_is_made(name):
    rep = ps.Rep(ps.O(3))
    for inputs in ({"x": rep, name: rep}, {"x": rep}, rep):
        with pytest.raises(ValueError, match=f"argument '{name}' of the model"):
            ps.symmetrize(model_with(name), inputs, rep, "haar")


@pytest.mark.parametrize("name", OWN)
def test_the_same_names_by_position_reach_the_model(name):
    rep, x = ps.Rep(ps.O(3)), torch.randn(4, 3)
    phi = ps.symmetrize(model_with(name), (rep, rep), rep, "haar").eval()
    torch.testing.assert_close(phi(x, 2 * x), 3 * x)


def test_every_own_keyword_is_looked_for():
    """A negative control: the list above is that of the call, and another name is no clash."""
    from probsym.symmetrizer import Symmetrizer

    assert set(OWN) == set(Symmetrizer.forward.__kwdefaults__)
    ps.symmetrize(model_with("noise_level"), {"x": ps.Rep(ps.O(3)), "noise_level": ps.Rep()}, ps.Rep(ps.O(3)), "haar")


class Anything(nn.Module):
    def forward(self, *args, **kwargs):
        return next(iter([*args, *kwargs.values()]))


def test_a_model_that_hides_its_arguments_is_judged_by_what_is_declared():
    ps.symmetrize(Anything(), {"x": ps.Rep(ps.O(3))}, ps.Rep(ps.O(3)), "haar")
    with pytest.raises(ValueError, match="argument 'tol'"):
        ps.symmetrize(Anything(), {"tol": ps.Rep(ps.O(3))}, ps.Rep(ps.O(3)), "haar")


@pytest.mark.parametrize("distribution", ["haar", "learned", "frame", "canonical"])
@pytest.mark.parametrize(
    ("inputs", "output"),
    [
        (ps.Rep(ps.S("n"), None), ps.Rep(ps.O(3))),
        (ps.Rep(None, ps.O(3)), ps.Rep(ps.S("n"), ps.O(3))),
        (ps.Rep(ps.S("n"), ps.E(3, "space")), ps.Rep(ps.S("n"), ps.E(3, "other"))),
        (ps.Rep(ps.S("n"), ps.E(3)), {"energy": ps.Rep(), "forces": ps.Rep(ps.S("n"), ps.O(3))}),
    ],
    ids=repr,
)
def test_a_group_on_the_output_alone_is_refused(inputs, output, distribution):
    with pytest.raises(ValueError, match=r"output: .* acts on the output but on no input"):
        ps.symmetrize(nn.Identity(), inputs, output, distribution)


def test_a_finite_group_on_the_output_alone_is_refused():
    with pytest.raises(ValueError, match=r"output: D\(4\) acts on the output but on no input \(there act C\(4\)\)"):
        ps.symmetrize(nn.Identity(), ps.Rep(None, ps.C(4)), ps.Rep(ps.D(4)), "haar")


def test_nodes_on_which_nothing_acts_may_be_on_the_output_alone():
    class Spread(nn.Module):
        def forward(self, x):
            return x.sum(1, keepdim=True).expand(-1, 6, -1)

    x = torch.randn(2, 4, 3)
    phi = ps.symmetrize(Spread(), ps.Rep(ps.S("n"), None), ps.Rep(ps.Axis("m", 6), None), "haar").eval()
    torch.testing.assert_close(phi(x), Spread()(x))


@pytest.mark.parametrize("group", IMAGES, ids=repr)
@pytest.mark.parametrize("channels", [1, 3, 8, 64])
def test_channels_that_come_first_are_refused(group, channels):
    """Square images: whatever the number of channels, Rep(G) would turn channels and rows."""
    x = torch.randn(2, channels, 8, 8)
    phi = ps.symmetrize(nn.Identity(), ps.Rep(group), ps.Rep(group), "haar").eval()
    with pytest.raises(ValueError, match=r"channels came first: declare Rep\(None, "):
        phi(x)
    phi = ps.symmetrize(nn.Identity(), ps.Rep(None, group), ps.Rep(None, group), "haar").eval()
    assert phi(x).shape == x.shape


@pytest.mark.parametrize("shape", [(2, 3, 6, 8), (2, 1, 28, 20), (2, 5, 3, 8, 8)])
def test_channels_that_come_first_are_refused_for_images_that_are_not_square(shape):
    phi = ps.symmetrize(nn.Identity(), ps.Rep(ps.D(1)), ps.Rep(ps.D(1)), "haar").eval()
    with pytest.raises(ValueError, match=r"argument .*channels came first"):
        phi(torch.randn(shape))


@pytest.mark.parametrize("shape", [(2, 8, 8), (2, 8, 6, 3), (2, 8, 8, 3), (2, 6, 8, 1), (2, 6, 8, 4)])
def test_channels_that_come_last_pass(shape):
    """A negative control: no channels, and fewer of them than columns and rows."""
    x = torch.randn(shape)
    phi = ps.symmetrize(nn.Identity(), ps.Rep(ps.D(1)), ps.Rep(ps.D(1)), "haar", eval_samples=ps.Exact()).eval()
    torch.testing.assert_close(phi(x), x)


def test_a_named_axis_of_channels_settles_it():
    """Channels last, as many as columns: declared by name they are what they are said to be."""
    seen = []

    class Spy(nn.Module):
        def forward(self, x):
            seen.append(x.clone())
            return x

    x = torch.randn(1, 4, 8, 8)
    rep = ps.Rep(ps.D(1), None)
    ps.symmetrize(Spy(), rep, rep, "haar", eval_samples=ps.Exact()).eval()(x)
    assert torch.equal(seen[0], torch.cat([x, x.flip(2)]))  # columns of (B, H, W, C)


def test_outputs_whose_channels_come_first_are_refused():
    group = ps.C(4)
    conv = nn.Conv2d(3, 5, 3, padding=1)
    phi = ps.symmetrize(conv, ps.Rep(None, group), ps.Rep(group), "haar").eval()
    with pytest.raises(ValueError, match=r"output: .*channels came first"):
        phi(torch.randn(2, 3, 8, 8))
