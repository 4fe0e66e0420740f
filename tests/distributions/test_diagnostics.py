"""The entropy of a learned p is computed when somebody reads it, and only then."""

import copy
import pickle
import time

import pytest
import torch
from torch import nn

import probsym as ps
from cases import NODES, SETTINGS, seeded
from probsym.distributions import Relaxation
from probsym.distributions.diagnostics import Diagnostics, added, merged


@pytest.fixture
def computed(monkeypatch):
    """The scores of which an entropy was computed."""
    seen, entropy = [], Relaxation.entropy
    monkeypatch.setattr(Relaxation, "entropy", lambda self, z, layout: seen.append(z) or entropy(self, z, layout))
    return seen


ESTIMATORS = {
    "samples": ps.MonteCarlo(6), "chunks": ps.MonteCarlo(150, chunk=40), "design": ps.MonteCarlo(48, 5, "octahedral"),
    "adaptive": ps.Adaptive(0.3, max_samples=64),
}  # fmt: skip


@pytest.mark.parametrize("setting", ["S x E(3)", "padded S x E(3)", "ragged S x E(3)"])
@pytest.mark.parametrize("name", ["learned", "learned-input", "canonical"])
@pytest.mark.parametrize("estimator", [*ESTIMATORS, "exact"])
def test_nothing_is_computed_until_it_is_read(setting, name, estimator, computed):
    s = SETTINGS[setting]()
    phi = s.symmetrized(name)
    if (estimator == "exact") != (name == "canonical"):
        return
    found = phi.estimate(**s.call, estimator=ESTIMATORS.get(estimator), generator=seeded())
    assert "entropy" in found.aux
    assert {"degenerate", "entropy"} <= set(found.aux)
    assert found.aux["degenerate"] <= 3
    assert computed == []
    value = found.aux["entropy"]
    assert 0 <= value < 4
    assert len(computed) == 1
    assert found.aux["entropy"] is value
    assert len(computed) == 1


def test_products_and_hybrids_wait_as_well(computed):
    nodes, turns = ps.S("images"), ps.C(4)
    rep, x = ps.Rep(nodes, turns), torch.randn(3, 4, 2, 2, generator=seeded())

    class Scores(nn.Linear):
        def forward(self, x):
            return super().forward(x.flatten(2)).squeeze(-1)

    f = nn.Sequential(nn.Flatten(1), nn.Linear(16, 1))
    p = ps.Learned(Scores(4, 1), nodes) * ps.Haar(turns)
    phi = ps.symmetrize(f, rep, ps.Rep(), p).eval()
    estimators = ps.MonteCarlo(5), ps.Hybrid(5), ps.Hybrid(5, 1)
    alone = [phi.estimate(x, estimator=estimator, generator=seeded()) for estimator in estimators]
    assert computed == []
    assert all(0 < estimate.aux["entropy"] < 4 for estimate in alone)
    assert len(computed) == 3


def test_the_value_is_that_of_the_samples(computed):
    """In chunks and at once, read early and late: the entropy of at most the first 64 samples."""
    s = SETTINGS["S x E(3)"]()
    phi = s.symmetrized("learned")
    p, x = phi.distribution, phi.bind((), s.call)
    for k in (5, 64, 150):
        noise = phi.draw_noise(**s.call, samples=k, generator=seeded())
        z = p.features(x, noise["features"])[NODES][:64]
        right = p.relaxation.entropy(z, x.layouts[NODES])
        with torch.no_grad():
            for estimator in (ps.MonteCarlo(k), ps.MonteCarlo(k, chunk=7), ps.MonteCarlo(k, chunk=100)):
                found = phi.estimate(**s.call, estimator=estimator, generator=seeded()).aux["entropy"]
                assert torch.allclose(found, right, atol=1e-12)
        assert all(len(seen) <= 64 for seen in computed)


def test_it_trains_the_net():
    """In the gradient mode of the call, wherever it is read."""
    s = SETTINGS["S x E(3)"]()
    phi = s.symmetrized("learned").train()
    found = phi.estimate(**s.call, samples=3, generator=seeded())
    with torch.no_grad():
        assert found.aux["entropy"].requires_grad
    found.aux["entropy"].backward()
    assert any(q.grad is not None and q.grad.abs().sum() > 0 for q in phi.distribution.parameters())
    with torch.no_grad():
        found = phi.estimate(**s.call, samples=3)
    assert not found.aux["entropy"].requires_grad


def test_copies_and_pickles_are_plain_dicts():
    s = SETTINGS["S x E(3)"]()
    phi = s.symmetrized("learned")
    with torch.no_grad():
        found = phi.estimate(**s.call, samples=3)
    for twin in (copy.deepcopy(found.aux), copy.copy(found.aux), pickle.loads(pickle.dumps(found.aux)), {**found.aux},
                 dict(found.aux), found.aux.copy(), found.aux | {}, {} | found.aux):  # fmt: skip
        assert type(twin) is dict
        assert twin == found.aux
        assert all(isinstance(value, torch.Tensor) for value in twin.values())
    again = pickle.loads(pickle.dumps(found))
    assert torch.equal(again.mean, found.mean)
    assert again.aux == found.aux


def test_a_dict_in_every_way():
    calls = []

    def made():
        return Diagnostics(a=1, b=lambda: calls.append(1) or 2)

    for read in (
        lambda d: d["b"], lambda d: d.get("b"), lambda d: dict(d.items())["b"], lambda d: list(d.values())[1],
        lambda d: {**d}["b"], lambda d: d.copy()["b"], lambda d: d.pop("b"), lambda d: d.setdefault("b", 7),
        lambda d: (d | {})["b"], lambda d: ({} | d)["b"], lambda d: merged(d, {"c": 3})["b"],
        lambda d: merged({"b": 0}, d)["b"], lambda d: added([d])["b"], lambda d: dict(**d)["b"],
        lambda d: 2 if d == {"a": 1, "b": 2} else 0,
        lambda d: int(repr(d) == "{'a': 1, 'b': 2}") * 2,
    ):  # fmt: skip
        calls.clear()
        assert read(made()) == 2
        assert len(calls) == 1
    calls.clear()
    d = made()
    assert (list(d), len(d), "b" in d, list(d.keys())) == (["a", "b"], 2, True, ["a", "b"])
    assert d.get("c", 5) == 5
    assert d.pop("c", 6) == 6
    assert d.computed() == {"a": 1}
    assert list(merged(d, {"c": 3})) == ["a", "b", "c"]
    assert calls == []
    with pytest.raises(KeyError):
        d["c"]
    two = added([Diagnostics(b=lambda: torch.tensor(2.0)), {"b": torch.tensor(3.0), "c": torch.tensor(1)}])
    assert two == {"b": torch.tensor(5.0), "c": torch.tensor(1)}
    assert type(added([{"b": torch.tensor(1)}, {"b": torch.tensor(2)}])) is dict


def test_an_estimate_costs_little_more_than_a_call():
    """Without a look at the entropy: a bound far above the few percent it takes, far below the factor three it took."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(90, 64), nn.SiLU(), nn.Linear(64, 1))
    rep, x = ps.Rep(ps.S("atoms"), ps.E(3, "space")), torch.randn(100, 30, 3)
    phi = ps.symmetrize(net, rep, ps.Rep(), "learned", example=x[:2]).eval()

    def seconds(f):
        start = time.process_time()
        f()
        return time.process_time() - start

    with torch.no_grad():
        pairs = [(seconds(lambda: phi(x)), seconds(lambda: phi.estimate(x))) for _ in range(9)]
    ratio = sorted(b / a for a, b in pairs)[4]
    assert ratio < 1.5
