"""Estimates: what mean, standard error and counts mean; their arguments. Designs are tested in tests/estimators."""

import json
import math

import numpy as np
import pytest
import torch
from torch import nn

import probsym as ps
from cases import NODES, SETTINGS, particles, randn, seeded, sets
from probsym.estimators.designs import Cyclic, Sobol
from probsym.learning import SampleSchedule

LINEAR = nn.Linear(4, 4, bias=False).double()
LINEAR.weight.data = randn(4, 4) / 2
STEPS = ps.symmetrize(LINEAR, ps.Rep(NODES), ps.Rep(NODES), "haar")


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: ps.MonteCarlo(0), "k: expected an integer of at least 1, got 0"),
        (lambda: ps.MonteCarlo(2.0), "k: expected an integer"),
        (lambda: ps.MonteCarlo(True), "k: expected an integer"),
        (lambda: ps.MonteCarlo(4, chunk=0), "chunk: expected an integer of at least 1"),
        (lambda: ps.Exact(chunk=-1), "chunk: expected an integer"),
        (lambda: ps.Adaptive(0.0), "tol: expected a positive number"),
        (lambda: ps.Adaptive(0.1, max_samples=1), "max_samples: expected"),
        (lambda: ps.Adaptive(0.1, pilot=8), "pilot: expected an integer of at least 32"),
        (lambda: ps.MonteCarlo(4, design="heptagonal"), "design.*heptagonal"),
    ],
)
def test_bad_arguments(make, says):
    with pytest.raises(ValueError, match=says):
        make()


INTEGERS = [np.int64, np.int32, np.uint8, lambda n: np.array(n), int]


@pytest.mark.parametrize("integer", INTEGERS)
def test_integers_of_numpy_are_integers(integer):
    """Whatever Python takes for an integer will do, and becomes an int."""
    x = randn(2, 4)
    made = [
        (ps.MonteCarlo(integer(6), integer(2)), ps.MonteCarlo(6, 2)),
        (ps.Exact(integer(5)), ps.Exact(5)),
        (ps.Adaptive(0.5, integer(64), integer(32), integer(8)), ps.Adaptive(0.5, 64, 32, 8)),
        (ps.MonteCarlo(integer(4), design="antithetic"), ps.MonteCarlo(4, design="antithetic")),
    ]
    for found, same in made:
        assert found == same
        assert repr(found) == repr(same)
        a, b = (STEPS.estimate(x, estimator=e, generator=seeded()) for e in (found, same))
        assert torch.equal(a.mean, b.mean)
    assert ps.Hybrid(integer(3), integer(2)) == ps.Hybrid(3, 2)
    assert Sobol(integer(8)) == Sobol(8)
    assert Cyclic(integer(4)) == Cyclic(4)
    assert torch.equal(STEPS(x, samples=integer(3), generator=seeded()), STEPS(x, samples=3, generator=seeded()))
    assert STEPS.sample(x, samples=integer(3)).shape == (3, 2, 4)
    assert len(STEPS.draw_noise(x, samples=integer(3))["features"][NODES]) == 3
    assert STEPS.estimate(x, tol=np.float32(0.5), max_samples=integer(64)).samples.max() <= 64
    made = ps.symmetrize(LINEAR, ps.Rep(NODES), ps.Rep(NODES), "haar", integer(2), integer(5))
    assert (made.train_estimator, made.eval_estimator) == (ps.MonteCarlo(2), ps.MonteCarlo(5))
    assert json.dumps(made.eval_estimator.k) == "5"


@pytest.mark.parametrize("integer", INTEGERS)
def test_groups_and_schedules_take_integers_of_numpy(integer):
    pairs = [
        (ps.S(integer(5)), ps.S(5)), (ps.S("n", integer(5)), ps.S("n", 5)), (ps.Axis("n", integer(2)), ps.Axis("n", 2)),
        (ps.O(integer(3)), ps.O(3)), (ps.SE(integer(2), "space"), ps.SE(2, "space")), (ps.C(integer(4)), ps.C(4)),
        (ps.D(integer(4)), ps.D(4)), (ps.Signs(integer(3)), ps.Signs(3)), (ps.Shift(integer(3)), ps.Shift(3)),
        (ps.Shift((integer(3), 4)), ps.Shift((3, 4))),
        (SampleSchedule(integer(5), last=integer(16)), SampleSchedule(5, last=16)),
    ]  # fmt: skip
    for found, same in pairs:
        assert found == same
        assert hash(found) == hash(same)
        assert repr(found) == repr(same)
    assert ps.S("n").haar((integer(2),), n=integer(5)).index.shape == (2, 5)
    frame = ps.Frame(ps.O(2), integer(8), integer(4))
    assert (type(frame.max_support), frame.samples) == (int, 4)


@pytest.mark.parametrize("bad", [True, np.bool_(True), 2.5, torch.tensor(2), -1])
def test_what_is_no_size_of_a_group(bad):
    for make in (
        ps.S,
        ps.O,
        ps.C,
        ps.D,
        ps.Signs,
        ps.Shift,
        ps.E,
        lambda n: ps.Axis("n", n),
        lambda n: ps.Shift((2, n)),
    ):
        with pytest.raises(ValueError, match="expected an integer of at least"):
            make(bad)


@pytest.mark.parametrize("bad", [True, np.bool_(True), 2.0, np.float64(2), "2", torch.tensor(2), None, 0, np.int64(-1)])
def test_what_is_no_number_of_samples(bad):
    calls = [lambda: ps.MonteCarlo(bad), lambda: ps.Hybrid(bad), lambda: ps.Adaptive(0.1, pilot=bad),
             lambda: Sobol(bad)]  # fmt: skip
    if bad is not None:  # as many as the noise has, or one
        calls.append(lambda: STEPS.sample(randn(2, 4), samples=bad))
    for call in calls:
        with pytest.raises(ValueError, match=r"(k|pilot|samples|block): expected an integer of at least"):
            call()


def test_one_sample_has_infinite_and_exact_zero_standard_error():
    s = sets()
    phi = s.symmetrized("haar")
    one, exact = phi.estimate(**s.call, samples=1), phi.estimate(**s.call, estimator=ps.Exact())
    assert all(torch.isinf(e).all() and e.shape == one.mean[k].shape for k, e in one.stderr.items())
    assert all((e == 0).all() for e in exact.stderr.values())
    chunked = phi.estimate(**s.call, estimator=ps.MonteCarlo(1, chunk=1))
    assert all(torch.isinf(e).all() for e in chunked.stderr.values())


def test_degenerate_canonical_inputs_have_a_standard_error():
    """Equal nodes were drawn once: their error is unknown (inf), that of the others zero, and the count says so."""
    x = torch.cat([torch.ones(1, 4, 2), torch.randn(1, 4, 2)])
    phi = ps.symmetrize(nn.Sequential(nn.Flatten(1), nn.Linear(8, 4)), ps.Rep(NODES), ps.Rep(NODES), "canonical")
    est = phi.estimate(x)
    assert torch.isinf(est.stderr[0]).all()
    assert (est.stderr[1] == 0).all()
    assert est.aux["degenerate"] == 1


def test_standard_errors_are_right():
    """Over 2000 repetitions the variance of the mean agrees with the mean of stderr^2 to six standard deviations."""
    x = torch.randn(2000, 4, generator=seeded()).double() * 0 + torch.arange(4)
    est = STEPS.estimate(x, samples=6, generator=seeded())
    exact = STEPS(x[:1], estimator=ps.Exact())
    spread, claimed = (est.mean - exact).square(), est.stderr.square()
    slack = 6 * ((spread - claimed).std(0) / math.sqrt(2000))
    assert ((spread - claimed).mean(0).abs() < slack).all()
    assert (slack < 0.5 * claimed.mean(0)).all()


@pytest.mark.parametrize("tol", [0.3, 0.1, 0.05])
def test_adaptive_covers(tol):
    """At least 0.98 of 500 inputs end within 3 tol of the exact answer, unbiased to six standard deviations."""
    x = torch.randn(500, 4, generator=seeded()).double()
    est = STEPS.estimate(x, tol=tol, max_samples=4096, generator=seeded(1))
    gap = est.mean - STEPS(x, estimator=ps.Exact())
    assert ((gap.abs() < 3 * tol).all(1)).double().mean() > 0.98
    assert gap.mean(0).abs().max() < 6 * (gap.std(0) / math.sqrt(500)).max()
    assert est.stderr.square().mean().sqrt() <= 1.1 * tol
    assert est.aux["above_tol"] == 0
    assert est.samples.shape == (500,)


def test_adaptive_spends_where_it_is_needed():
    x = torch.cat([torch.full((1, 4), 1e-3), torch.tensor([[5.0, -5.0, 3.0, -1.0]])]).double()
    est = STEPS.estimate(x, tol=0.05, max_samples=300, generator=seeded())
    assert est.samples[1] == 300
    assert est.samples[0] <= 32
    assert est.aux["above_tol"] == 1


def test_adaptive_on_ragged_graphs_and_several_outputs():
    for name in ("ragged S x E(3)", "S"):
        s = SETTINGS[name]()
        phi = s.symmetrized("haar")
        est = phi.estimate(**s.call, tol=0.05, generator=seeded())
        one = est.mean[0] if isinstance(est.mean, tuple) else est.mean["node"]
        assert one.shape == phi(**s.call)[0 if isinstance(est.mean, tuple) else "node"].shape
        assert est.samples.shape == (3,)
        assert len(set(est.samples.tolist())) > 1


def test_exact_averages_every_frame_and_counts_them():
    s = particles(ps.E(3))
    est = s.symmetrized("frame").estimate(**s.call)
    assert est.samples.tolist() == [8, 8, 8]
    assert (est.stderr == 0).all()


def test_estimates_need_no_global_randomness():
    s = particles(ps.E(3))
    phi = s.symmetrized("learned")
    state = torch.get_rng_state()
    for options in ({"samples": 3}, {"tol": 0.5}, {"estimator": ps.MonteCarlo(5, chunk=2)}):
        a, b = (phi.estimate(**s.call, **options, generator=seeded(4)) for _ in range(2))
        assert torch.equal(a.mean, b.mean)
        assert torch.equal(a.stderr, b.stderr)
    assert torch.equal(state, torch.get_rng_state())
