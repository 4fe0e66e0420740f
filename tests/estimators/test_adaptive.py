"""Adaptive: calibrated, invariant, and cheap: converged inputs leave the batch."""

import math

import pytest
import torch
from torch import nn

import probsym as ps
from cases import SETTINGS, Base, seeded
from probsym.estimators.adaptive import Adaptive
from probsym.reps import leaves


class Counted(nn.Module):
    """A model that notes how many rows it sees."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.rows = model, []

    def forward(self, **kwargs):
        self.rows.append(len(kwargs["mask"]) if "mask" in kwargs else len(next(iter(kwargs.values()))))
        return self.model(**kwargs)


class Signed(nn.Module):
    """f(v) = scale tanh(3 v_1): known mean zero, known spread."""

    def forward(self, v, scale):
        return torch.stack([scale * (3 * v[:, 0]).tanh(), scale * (v[:, 1] > 0.5)], 1)


class Rough(nn.Module):
    """scale (e^(2 v_1), e^v_2), of the known mean (sinh(2) / 2, sinh(1)) scale on the sphere."""

    mean = torch.tensor([math.sinh(2) / 2, math.sinh(1)], dtype=torch.float64)

    def forward(self, v, scale):
        return scale[:, None] * torch.stack([(2 * v[:, 0]).exp(), v[:, 1].exp()], 1)


def test_calibration_on_a_thousand_inputs():
    """The truth lies within 1.96 stated errors in 95 % of cases, on inputs that stop at different times."""
    space = ps.SO(3)
    v = torch.nn.functional.normalize(torch.randn(1000, 3, dtype=torch.float64), dim=-1)
    scale = torch.linspace(0.1, 2, 1000, dtype=torch.float64)
    phi = ps.symmetrize(Signed(), {"v": ps.Rep(space), "scale": ps.Rep()}, ps.Rep(), "haar").eval()
    estimate = phi.estimate(v=v, scale=scale, tol=0.05, max_samples=4096, generator=torch.Generator().manual_seed(0))
    truth = torch.stack([0 * scale, scale / 4], 1)
    gap = (estimate.mean - truth).abs() / estimate.stderr
    for level, share in ((1.0, 0.6827), (1.96, 0.95), (2.58, 0.99)):
        covered = (gap < level).double().mean(0)
        sigma = (share * (1 - share) / 1000) ** 0.5
        assert ((covered - share).abs() < 5 * sigma).all(), (level, covered)
    bias = (estimate.mean - truth) / estimate.stderr
    assert (bias.mean(0).abs() < 5 / 1000**0.5).all()
    assert estimate.aux["above_tol"] == 0
    assert (estimate.stderr.amax(1) < 0.05).double().mean() > 0.9
    assert estimate.samples.min() < 20 < 800 < estimate.samples.max()


def test_calibration_of_a_design():
    """The same from block means; taken for independent samples their errors would be five times as large."""
    v = torch.nn.functional.normalize(torch.randn(400, 3, dtype=torch.float64), dim=-1)
    scale = torch.linspace(0.5, 2, 400, dtype=torch.float64)
    phi = ps.symmetrize(Rough(), {"v": ps.Rep(ps.SO(3)), "scale": ps.Rep()}, ps.Rep(), "haar").eval()
    estimator = Adaptive(0.01, max_samples=4800, pilot=384, chunk=30, design="tetrahedral")
    with torch.no_grad():
        estimate = phi.estimate(v=v, scale=scale, estimator=estimator, generator=seeded())
    gap = (estimate.mean - scale[:, None] * Rough.mean).abs() / estimate.stderr
    for level, share in ((1.0, 0.6827), (1.96, 0.95)):
        covered = (gap < level).double().mean(0)
        assert ((covered - share).abs() < 5 * (share * (1 - share) / 400) ** 0.5).all(), (level, covered)
    assert (estimate.stderr.amax(1) < 0.01).double().mean() > 0.9
    assert (estimate.samples % 12 == 0).all()
    assert estimate.samples.min() < estimate.samples.max() / 4
    with torch.no_grad():
        plain = phi.estimate(v=v, scale=scale, estimator=Adaptive(0.1, 4800), generator=seeded())
    assert (100 * plain.samples > 10 * estimate.samples).all()


@pytest.mark.parametrize("design", ["shifts", ("shifts", "signs")])
@pytest.mark.parametrize("setting", ["S x E(3)", "padded S x E(3)", "ragged S x E(3)"])
def test_whole_blocks_are_drawn(setting, design):
    """Blocks longer than a chunk are evaluated in parts, and those of a ragged batch stay as long as its largest."""
    s = SETTINGS[setting]()
    phi = ps.symmetrize(Counted(s.model), s.inputs, s.output, ps.Haar(s.group, origin="centroid")).eval()
    block = 4 if design == "shifts" else 32
    truth = phi.estimate(**s.call, samples=8000, generator=seeded(1))
    phi.model.rows.clear()
    estimator = Adaptive(0.03, max_samples=640, chunk=6, design=design)
    with torch.no_grad():
        estimate = phi.estimate(**s.call, estimator=estimator, generator=seeded(2))
    assert (estimate.samples % block == 0).all()
    assert len(set(estimate.samples.tolist())) > 1
    assert max(phi.model.rows) <= 6 * len(next(iter(s.call.values())))
    pilot = max(32, 2 * block)
    sizes = torch.bincount(s.call["batch"]) if "batch" in s.call else 1
    assert sum(phi.model.rows) == int((sizes * (pilot + estimate.samples)).sum())
    for path in leaves(phi.output):
        a, b, ea, eb = (_at(y, path) for y in (estimate.mean, truth.mean, estimate.stderr, truth.stderr))
        assert ((a - b).abs() <= 6 * (ea**2 + eb**2).sqrt() + 1e-9).all()


def test_a_batch_stays_together_for_the_length_of_its_blocks():
    """The largest graph has converged first, but without it blocks of shifts would be shorter."""

    class Places(nn.Module):
        def forward(self, x, batch):
            sizes = torch.bincount(batch)
            rank = torch.cat([torch.arange(int(n)) for n in sizes])
            return torch.zeros(len(sizes), dtype=x.dtype).index_add(0, batch, x * rank).pow(3)[:, None]

    nodes, batch = ps.S(batch="batch"), torch.tensor([0, 0, 0, 0, 1, 1, 1, 2, 2, 2])
    x = torch.tensor([0.1, 0.2, 0.0, 0.3, 1.0, 2.0, -1.0, 0.1, 0.0, 0.2], dtype=torch.float64)
    phi = ps.symmetrize(Places(), {"x": ps.Rep(nodes)}, ps.Rep(), "haar").eval()
    found = phi.estimate(x=x, batch=batch, estimator=Adaptive(0.5, design="shifts"), generator=seeded())
    apart = phi.estimate(
        x=x[:4], batch=batch[:4], estimator=Adaptive(0.5, chunk=4, design="shifts"), generator=seeded()
    )
    assert found.samples.unique().tolist() == [int(found.samples[1])]
    assert 10 * int(apart.samples) < int(found.samples[1]) < 1024
    truth = phi.estimate(x=x, batch=batch, estimator=ps.Exact()).mean
    assert ((found.mean - truth).abs() < 6 * found.stderr).all()
    assert (found.stderr < 0.6).all()


@pytest.mark.parametrize("setting", ["S x E(3)", "padded S x E(3)", "ragged S x E(3)", "labels"])
def test_converged_inputs_leave_the_batch(setting):
    """The rows that the model sees are those that the estimate states, and the mean is right, in every layout."""
    s = SETTINGS[setting]()
    call = {
        k: (v * (1 + 5 * (torch.arange(len(v)) == 0).to(v)).reshape(-1, *[1] * (v.ndim - 1)) if k == "x" else v)
        for k, v in s.call.items()
    }
    counted = Counted(s.model)
    phi = ps.symmetrize(counted, s.inputs, s.output, ps.Haar(s.group, origin="centroid")).eval()
    phi(**call)
    truth = phi.estimate(**call, samples=4000, generator=torch.Generator().manual_seed(1))
    x = phi.bind((), call)
    noise = phi.draw_noise(**call, samples=200, generator=torch.Generator().manual_seed(3))
    drawn = phi.orbit(x, phi.distribution.transport(x, noise))
    size = drawn.structure.largest_variance([y.detach().var(0) for y in drawn.tensors])
    estimator = Adaptive(float((size.sum() / 600).sqrt()), max_samples=600, chunk=8)
    counted.rows.clear()
    with torch.no_grad():
        estimate = phi.estimate(**call, estimator=estimator, generator=torch.Generator().manual_seed(2))
    for path in leaves(phi.output):
        a, b, ea, eb = (_at(y, path) for y in (estimate.mean, truth.mean, estimate.stderr, truth.stderr))
        assert a.shape == b.shape == ea.shape
        assert ((a - b).abs() <= 6 * (ea**2 + eb**2).sqrt() + 1e-9).all()
    assert len(set(estimate.samples.tolist())) > 1
    if "ragged" not in setting:
        assert sum(counted.rows) == 32 * len(estimate.samples) + int(estimate.samples.sum())
    else:
        sizes = torch.bincount(call["batch"])
        assert sum(counted.rows) == int((sizes * (32 + estimate.samples)).sum())


def _at(value, path):
    for key in path:
        value = value[key]
    return value.detach()


def test_size_is_invariant():
    """Rotated and permuted inputs with coupled noise have the same size of the error, to rounding."""
    s = SETTINGS["S x E(3)"]()
    phi = s.symmetrized("haar")
    x = phi.bind((), s.call)
    eps = phi.draw_noise(**s.call, samples=16)
    h = ps.testing.elements.random_elements(phi.group, x, torch.Generator().manual_seed(2))
    y = phi.sample(**s.call, noise=eps)
    moved = phi.sample(**x.act(h).kwargs, noise=phi.distribution.move_noise(x, h, eps))
    structure = phi.orbit(x, phi.distribution.transport(x, eps)).structure
    sizes = [structure.largest_variance([t.var(0)]) for t in (y, moved)]
    assert torch.allclose(*sizes, rtol=1e-9)
    assert (sizes[0][:, None, None] >= y.var(0)).all()


def test_smaller_batches_hold_the_same_inputs():
    """Dropping inputs from a batch leaves the others as they are, in every layout."""
    for setting in SETTINGS:
        s = SETTINGS[setting]()
        phi = s.symmetrized("canonical")
        x = phi.bind((), s.call)
        keep = torch.tensor([True, False, True])
        small = x.select(keep)
        whole, part = (x.map(lambda leaf: leaf.value), small)
        assert part.count == 2
        for leaf, old in zip(part.leaves.values(), whole.leaves.values(), strict=True):
            if leaf.rep.batch_dims:
                assert torch.equal(leaf.value, old.value[keep])
        again = type(x).bind(phi.inputs, small.args, small.kwargs)
        for axis, layout in small.layouts.items():
            other = again.layouts[axis]
            for name in ("size", "count") if layout.ragged else ("size",):
                assert getattr(layout, name) == getattr(other, name)
            for name in ("mask", "batch"):
                a, b = getattr(layout, name), getattr(other, name)
                assert (a is None and b is None) or torch.equal(a, b)


class Broken(nn.Module):
    """f(v) = v_1, and for a quarter of all rotations of inputs 1, 2 and 3 of a batch NaN, inf and -inf."""

    def forward(self, v, number):
        y, wrong = v[:, :1], torch.tensor([0, math.nan, math.inf, -math.inf], dtype=v.dtype)[number, None]
        return torch.where((number > 0)[:, None] & (y > 0.5**0.5), wrong, y)


def test_outputs_that_are_not_finite_take_all_samples():
    """They are counted as above tol, and the other input of the batch does not notice."""
    space = ps.SO(2)
    v, number = torch.tensor([[1.0, 0.0]]).expand(4, 2), torch.arange(4)
    phi = ps.symmetrize(Broken(), {"v": ps.Rep(space), "number": ps.Rep()}, ps.Rep(), "haar").eval()
    estimate = phi.estimate(v=v, number=number, tol=0.1, max_samples=200, generator=seeded())
    assert estimate.samples[0] < 200
    assert estimate.samples[1:].tolist() == [200] * 3
    assert estimate.aux["above_tol"] == 3
    assert estimate.mean.isfinite().flatten().tolist() == [True, False, False, False]
    assert estimate.stderr[0] < 0.1


@pytest.mark.parametrize("distribution", ["learned", "frame"])
def test_an_empty_batch(distribution):
    s = SETTINGS["padded S x E(3)"]()
    call = {key: value[:0] for key, value in s.call.items()}
    estimate = s.symmetrized(distribution).estimate(**call, tol=0.1)
    assert [t.shape for t in estimate.mean] == [t.shape for t in estimate.stderr] == [(0, 4, 3), (0, 2)]
    assert estimate.samples.shape == (0,)


def test_what_is_refused():
    for bad in ({"tol": 0.0}, {"tol": 1.0, "pilot": 31}, {"tol": 1.0, "max_samples": 1}, {"tol": 1.0, "chunk": 0}):
        with pytest.raises(ValueError, match=next(k for k in reversed(bad))):
            Adaptive(**bad)
    with pytest.raises(TypeError, match="tol: expected a positive number, got 'a'"):
        Adaptive("a")


def test_tol_is_an_option_of_the_call():
    s = SETTINGS["SO(3)"]()
    phi = s.symmetrized("haar")
    with pytest.raises(ValueError, match=r"two blocks of 24, got 47"):
        phi(**s.call, estimator=Adaptive(1.0, max_samples=47, design="octahedral"))
    with pytest.raises(ValueError, match="fits no factor"):
        phi(**s.call, estimator=Adaptive(1.0, design="shifts"))
    with pytest.raises(ValueError, match="'octahedral'"):
        Adaptive(1.0, design="oktahedral")
    estimate = phi.estimate(**s.call, tol=1e-3, max_samples=64)
    assert estimate.samples.tolist() == [64] * 3
    assert estimate.aux["above_tol"] == 3
    assert isinstance(s.model, Base)
