"""Outputs come back as the model returns them: tuples, lists, dicts, namedtuples, dataclasses, a ModelOutput."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

import probsym as ps

IMAGE = ps.Rep(None, ps.C(4))
Heads = namedtuple("Heads", "logits features")


@dataclass
class Record:
    logits: Tensor
    features: Tensor | None = None


class Returns(nn.Module):
    """Two outputs of an image, invariant and equivariant under quarter turns, put together by `make`."""

    def __init__(self, make) -> None:
        super().__init__()
        self.make = make

    def forward(self, x: Tensor):
        return self.make(x.mean((2, 3)), x)


MAKERS = {
    "tuple": lambda a, b: (a, b),
    "list": lambda a, b: [a, b],
    "namedtuple": Heads,
    "dict": lambda a, b: {"logits": a, "features": b},
    "OrderedDict": lambda a, b: OrderedDict(logits=a, features=b),
    "dataclass": Record,
}
BY_NAME = ("dict", "OrderedDict", "dataclass", "namedtuple")
BY_PLACE = ("tuple", "list", "namedtuple")
ESTIMATORS = [1, ps.MonteCarlo(4), ps.MonteCarlo(4, chunk=1), ps.Exact(), ps.Exact(chunk=1), ps.Adaptive(0.1)]


def entries(y) -> list[Tensor | None]:
    if isinstance(y, dict):
        return list(y.values())
    if isinstance(y, Record):
        return [y.logits, y.features]
    return list(y)


def spec_of(name: str, first, second):
    return {"logits": first, "features": second} if name in BY_NAME and name != "namedtuple" else (first, second)


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=repr)
@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("batch", [1, 3])
def test_outputs_keep_their_type(name, estimator, batch):
    x = torch.randn(batch, 2, 4, 4, dtype=torch.float64)
    model = Returns(MAKERS[name])
    phi = ps.symmetrize(model, IMAGE, spec_of(name, ps.Rep(), IMAGE), "haar").eval()
    expected = model(x)
    estimate = phi.estimate(x, estimator=ps.MonteCarlo(1) if estimator == 1 else estimator)
    for found in (estimate.mean, phi(x, estimator=ps.MonteCarlo(1) if estimator == 1 else estimator)):
        assert type(found) is type(expected)
        for ours, theirs in zip(entries(found), entries(expected), strict=True):
            torch.testing.assert_close(ours, theirs)
    assert type(estimate.stderr) is type(expected)
    drawn = phi.sample(x, samples=5)
    assert type(drawn) is type(expected)
    assert [y.shape for y in entries(drawn)] == [(5, batch, 2), (5, batch, 2, 4, 4)]


@pytest.mark.parametrize("name", MAKERS)
def test_none_leaves_an_output_out(name):
    x = torch.randn(2, 2, 4, 4)
    phi = ps.symmetrize(Returns(MAKERS[name]), IMAGE, spec_of(name, ps.Rep(), None), "haar").eval()
    found = phi(x)
    assert type(found) is type(MAKERS[name](x, x))
    logits, features = entries(found)
    assert features is None
    torch.testing.assert_close(logits, x.mean((2, 3)))


@pytest.mark.parametrize("name", BY_NAME)
def test_names_choose_outputs(name):
    """What is not named is None, and missing from dicts."""
    x = torch.randn(2, 2, 4, 4)
    found = ps.symmetrize(Returns(MAKERS[name]), IMAGE, {"logits": ps.Rep()}, "haar").eval()(x)
    assert type(found) is type(MAKERS[name](x, x))
    logits, *rest = entries(found)
    torch.testing.assert_close(logits, x.mean((2, 3)))
    assert rest in ([], [None])


@pytest.mark.parametrize("name", BY_PLACE)
@pytest.mark.parametrize("key", [0, 1, -1, -2])
def test_numbers_choose_outputs_that_keep_their_place(name, key):
    x = torch.randn(2, 2, 4, 4)
    rep = ps.Rep() if key in (0, -2) else IMAGE
    found = ps.symmetrize(Returns(MAKERS[name]), IMAGE, {key: rep}, "haar").eval()(x)
    whole = MAKERS[name](x.mean((2, 3)), x)
    assert type(found) is type(whole)
    assert len(found) == 2
    torch.testing.assert_close(found[key], whole[key])
    assert found[1 - key % 2] is None


@pytest.mark.parametrize("name", BY_PLACE)
@pytest.mark.parametrize("count", [1, 3])
def test_a_tuple_of_reps_stands_for_all_entries(name, count):
    phi = ps.symmetrize(Returns(MAKERS[name]), IMAGE, (ps.Rep(),) * count, "haar").eval()
    with pytest.raises(ValueError, match=f"output: expected {count} entries as declared, got 2"):
        phi(torch.randn(2, 2, 4, 4))


def test_containers_within_containers():
    model = Returns(lambda a, b: {"heads": Heads(a, b), "more": [a, (b,)]})
    spec = {"heads": (ps.Rep(), IMAGE), "more": (None, (IMAGE,))}
    x = torch.randn(2, 2, 4, 4)
    found = ps.symmetrize(model, IMAGE, spec, "haar").eval()(x)
    assert type(found["heads"]) is Heads
    assert type(found["more"]) is list
    assert found["more"][0] is None
    torch.testing.assert_close(found["more"][1][0], x)


def test_nothing_declared_is_refused():
    for spec in (None, (None,), {}):
        with pytest.raises(ValueError, match="output: expected at least one Rep"):
            ps.symmetrize(nn.Identity(), IMAGE, spec, "haar")


def test_a_missing_output_is_named():
    phi = ps.symmetrize(Returns(MAKERS["dict"]), IMAGE, {"energy": ps.Rep()}, "haar").eval()
    with pytest.raises(ValueError, match=r"output\['energy'\] is missing.*a dict"):
        phi(torch.randn(2, 2, 4, 4))


def test_a_model_output_of_transformers():
    outputs = pytest.importorskip("transformers.modeling_outputs")
    model = Returns(lambda a, b: outputs.ImageClassifierOutput(logits=a, hidden_states=(b, b)))
    x = torch.randn(2, 2, 4, 4)
    found = ps.symmetrize(model, IMAGE, {"logits": ps.Rep()}, "haar").eval()(x)
    assert type(found) is outputs.ImageClassifierOutput
    torch.testing.assert_close(found.logits, x.mean((2, 3)))
    assert found.hidden_states is None
    found = ps.symmetrize(model, IMAGE, {"logits": ps.Rep(), "hidden_states": (IMAGE, None)}, "haar").eval()(x)
    torch.testing.assert_close(found.hidden_states[0], x)
