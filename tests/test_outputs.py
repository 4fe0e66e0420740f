"""What may come out of a model: numbers that have a mean, in every container; and what one bad row does to others."""

from collections import OrderedDict, defaultdict
from functools import partial
from typing import NamedTuple

import pytest
import torch
from torch import nn

import probsym as ps
from cases import PADDED, RAGGED, randn

KINDS = [torch.int64, torch.int32, torch.uint8, torch.bool]
ESTIMATORS = {
    "default": None,
    "1": ps.MonteCarlo(1),
    "8": ps.MonteCarlo(8),
    "8 by 1": ps.MonteCarlo(8, chunk=1),
    "design": ps.MonteCarlo(8, design="antithetic"),
    "exact": ps.Exact(),
    "exact by 1": ps.Exact(chunk=1),
    "hybrid": ps.Hybrid(2),
    "adaptive": ps.Adaptive(0.1),
}


class Pair(NamedTuple):
    score: torch.Tensor
    label: torch.Tensor


class Labels(nn.Module):
    """A score for each node, and a label of some dtype that says whether it is positive."""

    def __init__(self, kind, wrap):
        super().__init__()
        self.kind, self.wrap = kind, wrap

    def forward(self, x, **kwargs):
        return self.wrap(x, (x > 0).to(self.kind))


WRAPS = {
    "tensor": (lambda rep: rep, lambda score, label: label, "output"),
    "dict": (
        lambda rep: {"score": rep, "label": rep},
        lambda score, label: {"score": score, "label": label},
        r"output\['label'\]",
    ),
    "tuple": (lambda rep: (rep, rep), lambda score, label: (score, label), r"output\[1\]"),
    "namedtuple": (lambda rep: (rep, rep), Pair, r"output\[1\]"),
    "nested": (lambda rep: {"a": (rep,)}, lambda score, label: {"a": (label,)}, r"output\['a'\]\[0\]"),
}
AXES = {"dense": ps.S("nodes"), "padded": PADDED, "ragged": RAGGED}


def call(storage):
    if storage == "ragged":
        return {"x": randn(5), "batch": torch.tensor([0, 0, 1, 1, 1])}
    marks = {"mask": torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]]).bool()} if storage == "padded" else {}
    return {"x": randn(2, 4), **marks}


def refused(kind, name):
    return pytest.raises(TypeError, match=rf"^{name}: expected a floating or complex dtype, got {kind}.*one-hot")


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("storage", AXES)
@pytest.mark.parametrize("wrap", WRAPS)
def test_integers_are_refused_by_name(kind, storage, wrap):
    declare, give, name = WRAPS[wrap]
    axis = AXES[storage]
    for distribution in ("haar", "frame", "learned", "canonical"):
        phi = ps.symmetrize(Labels(kind, give), {"x": axis}, declare(ps.Rep(axis)), distribution)
        phi.double()
        for mode in (True, False):
            with refused(kind, name):
                phi.train(mode)(**call(storage))
        with refused(kind, name):
            phi.estimate(**call(storage), samples=1)


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_every_estimator_refuses_them(estimator, kind):
    for group, shape in ((ps.S("n"), (2, 4)), (ps.C(4), (2, 4, 4)), (ps.Shift(4), (2, 4, 4))):
        if estimator == "design" and group != ps.S("n"):
            continue
        rep = ps.Rep(group)
        phi = ps.symmetrize(Labels(kind, lambda score, label: label), {"x": rep}, rep, "haar").eval()
        with refused(kind, "output"):
            phi(x=torch.randn(shape), estimator=ESTIMATORS[estimator])


def test_the_rest_is_averaged():
    """A negative control: floating, half and complex outputs pass, and so do undeclared integers."""
    rep = ps.Rep(ps.S("n"))
    for kind in (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64):
        phi = ps.symmetrize(Labels(kind, lambda score, label: label), {"x": rep}, rep, "haar").eval()
        assert phi(x=torch.randn(2, 4), samples=3).dtype == kind
    give = WRAPS["dict"][1]
    phi = ps.symmetrize(Labels(torch.long, give), {"x": rep}, {"score": rep}, "haar").eval()
    assert phi(x=torch.randn(2, 4), samples=3)["score"].is_floating_point()


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_samples_are_not_averaged(kind):
    """Labels that the group only moves may be drawn; what it would add up or negate is refused."""
    x = torch.randn(2, 4)
    rep = ps.Rep(ps.S("n"))
    phi = ps.symmetrize(Labels(kind, lambda score, label: label), {"x": rep}, rep, "haar").eval()
    drawn = phi.sample(x=x, samples=3)
    assert drawn.dtype == kind
    assert torch.equal(drawn, (x > 0).to(kind).expand(3, 2, 4))
    for rep, shape in ((ps.Rep(ps.O(3)), (2, 3)), (ps.Rep(ps.C(8)), (2, 4, 4)), (ps.Rep(ps.Signs(4)), (2, 4))):
        phi = ps.symmetrize(Labels(kind, lambda score, label: label), {"x": rep}, rep, "haar").eval()
        with pytest.raises(TypeError, match=f"^output: expected a floating or complex dtype for Rep.*got {kind}"):
            phi.sample(x=torch.randn(shape))


@pytest.mark.parametrize(
    ("kind", "kept"), [(dict, dict), (OrderedDict, OrderedDict), (partial(defaultdict, list), dict)]
)
def test_mappings_keep_their_kind_where_it_can_be_made_of_entries(kind, kept):
    """A defaultdict begins with its factory: its average is a plain dict."""
    rep = ps.Rep(None, ps.O(3))
    phi = ps.symmetrize(
        Labels(torch.double, lambda score, label: kind(score=score, label=label)), {"x": rep}, {"score": rep}, "haar"
    )
    x = randn(2, 4, 3)
    for y in (phi(x=x), phi.sample(x=x), phi.estimate(x=x, samples=2).stderr):
        assert type(y) is kept
        assert list(y) == ["score"]
    assert torch.allclose(phi(x=x)["score"], x)
