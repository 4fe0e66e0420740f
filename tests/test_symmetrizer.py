"""The Symmetrizer: samples and means, estimators at the call, precision, gradients, bookkeeping.

Its equivariance is tested in test_equivariance.py.
"""

import copy
import pickle
from itertools import permutations

import pytest
import torch
import torch.utils.checkpoint
from torch import nn

import probsym as ps
from cases import (
    DISTRIBUTIONS,
    NODES,
    SETTINGS,
    Base,
    close,
    entry,
    particles,
    randn,
    seeded,
    sets,
)
from probsym.reps import leaves

# ---------------------------------------------------------------- samples and their mean


@pytest.mark.parametrize("distribution", ["haar", "learned"])
def test_sample_is_what_the_mean_averages(distribution):
    s = SETTINGS["S"]()
    phi = s.symmetrized(distribution)
    eps = phi.draw_noise(**s.call, samples=6, generator=seeded())
    ys = phi.sample(**s.call, noise=eps)
    est = phi.estimate(**s.call, noise=eps)
    for key, y in ys.items():
        assert torch.allclose(est.mean[key], y.mean(0))
        assert torch.allclose(est.stderr[key], y.std(0) / 6**0.5)
    assert close(phi(**s.call, noise=eps), est.mean)
    assert est.samples.tolist() == [6, 6, 6]
    assert close(ys, phi.sample(**s.call, samples=6, generator=seeded()))
    assert close(est.mean, phi(**s.call, samples=6, generator=seeded()))


def test_samples_are_those_of_the_noise() -> None:
    """Another number beside the noise was ignored by `sample`, where a call refuses it."""
    s = SETTINGS["S"]()
    phi = s.symmetrized("haar")
    eps = phi.draw_noise(**s.call, samples=3, generator=seeded())
    assert close(phi.sample(**s.call, samples=3, noise=eps), phi.sample(**s.call, noise=eps))
    with pytest.raises(ValueError, match="samples: expected 3, as many as the noise has, got 5"):
        phi.sample(**s.call, samples=5, noise=eps)
    with pytest.raises(ValueError, match="noise: expected 5 samples"):
        phi(**s.call, samples=5, noise=eps)


def test_group_average_by_hand():
    """Exact Haar over S_n is the mean over all permutations, written out."""
    s = sets()
    phi = s.symmetrized("haar")
    total = 0.0
    for order in permutations(range(4)):
        order = torch.tensor(order)
        back = torch.argsort(order)
        y = phi.model(x=s.call["x"][:, order], a=s.call["a"][:, order][:, :, order])
        total = total + y["node"][:, back] / 24
    est = phi.estimate(**s.call, estimator=ps.Exact())
    assert torch.allclose(est.mean["node"], total)
    assert (est.stderr["node"] == 0).all()
    assert est.samples.tolist() == [24] * 3


# ---------------------------------------------------------------- estimators at the call


def test_one_way_to_say_how_many():
    s = SETTINGS["S"]()
    phi = s.symmetrized("haar", train_samples=2, eval_samples=ps.MonteCarlo(5))
    assert phi.estimate(**s.call).samples.tolist() == [5] * 3
    assert phi.train().estimate(**s.call).samples.tolist() == [2] * 3
    assert phi.estimate(**s.call, samples=3).samples.tolist() == [3] * 3
    assert phi.estimate(**s.call, estimator=ps.MonteCarlo(4)).samples.tolist() == [4] * 3
    assert phi.estimate(**s.call, tol=1e6).samples.max() <= 32
    both = phi(**s.call, samples=4, generator=seeded(), return_estimate=True)
    assert close(both.mean, phi(**s.call, samples=4, generator=seeded()))
    for given_twice in ({"samples": 2, "tol": 0.1}, {"samples": 2, "estimator": ps.Exact()}):
        with pytest.raises(ValueError, match="at most one of samples, estimator and tol"):
            phi(**s.call, **given_twice)


@pytest.mark.parametrize(
    ("name", "train", "evaluation"), [("haar", 1, 10), ("learned", 1, 10), ("canonical", 1, 1), ("frame", None, None)]
)
def test_default_samples(name, train, evaluation):
    s = particles(ps.E(3))
    phi = s.symmetrized(name)
    for mode, expected in ((True, train), (False, evaluation)):
        used = phi.train(mode).estimate(**s.call).samples
        assert expected is None or used.tolist() == [expected] * 3
        assert expected is not None or (used > 1).all()


@pytest.mark.parametrize("setting", ["S x E(3)", "ragged S x E(3)", "S"])
@pytest.mark.parametrize("distribution", ["haar", "learned"])
@pytest.mark.parametrize("chunk", [1, 3, 7])
def test_chunks_change_neither_values_nor_gradients(setting, distribution, chunk):
    s = SETTINGS[setting]()
    phi = s.symmetrized(distribution).train()

    def run(estimator):
        phi.zero_grad()
        est = phi.estimate(**s.call, estimator=estimator, generator=seeded(3))
        sum(entry(est.mean, path).square().sum() for path in leaves(phi.output)).backward()
        return est, {n: p.grad.clone() for n, p in phi.named_parameters() if p.grad is not None}

    (whole, slopes), (parts, again) = run(ps.MonteCarlo(7)), run(ps.MonteCarlo(7, chunk=chunk))
    assert close(whole.mean, parts.mean)
    assert close(whole.stderr, parts.stderr)
    assert slopes.keys() == again.keys()
    assert all(torch.allclose(again[n], g, rtol=1e-6, atol=1e-8 * (1 + g.abs().max())) for n, g in slopes.items())
    if distribution == "learned":
        assert any(n.startswith("distribution") and bool(g.abs().max() > 0) for n, g in slopes.items())


def test_exact_in_chunks():
    s = particles(ps.E(3))
    phi = s.symmetrized("frame")
    assert close(phi.estimate(**s.call, estimator=ps.Exact(chunk=3)).mean, phi.estimate(**s.call).mean)


# ---------------------------------------------------------------- precision


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_float32_and_bfloat16_autocast(distribution):
    s = particles(ps.E(3), kind=torch.float32)
    phi = s.symmetrized(distribution)
    full = phi(**s.call, samples=4, generator=seeded())
    assert full.dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        noise = phi.draw_noise(**s.call, samples=4, generator=seeded())
        g = phi.distribution.transport(phi.bind((), s.call), noise)
        half = phi(**s.call, noise=noise)
    assert all(
        t.dtype in (torch.float32, torch.int64)
        for f in g.group.factors
        for t in vars(g[f]).values()
        if isinstance(t, torch.Tensor)
    )
    assert (half.float() - full).abs().max() < 0.1 * full.abs().max()
    double = particles(ps.E(3))
    twin = double.symmetrized(distribution)
    twin.load_state_dict(phi.state_dict())
    if distribution in ("haar", "frame"):
        exact = twin(**{k: v.double() for k, v in s.call.items()}, samples=4, generator=seeded())
        noise = phi.draw_noise(**s.call, samples=4, generator=seeded())
        wide = torch.utils._pytree.tree_map(lambda t: t.double(), noise)
        exact = twin(**{k: v.double() for k, v in s.call.items()}, noise=wide)
        assert (exact - phi(**s.call, noise=noise)).abs().max() < 1e-4


# ---------------------------------------------------------------- gradients


class Weighted(nn.Module):
    """Scores w . x for S_n."""

    def __init__(self, axis):
        super().__init__()
        self.w, self.axis = nn.Parameter(torch.tensor([1.0, -0.5]).double()), axis

    def forward(self, x, a):
        return {self.axis: x @ self.w}


@pytest.mark.parametrize("chunk", [None, 2])
def test_straight_through_gradient_is_that_of_the_soft_matrix(chunk):
    """The gradient of the scores is that of dense P f(P^T x, P^T a P), P = hard + soft - detach(soft)."""
    s = sets()
    relaxation = ps.Relaxation(0.3, sinkhorn=4)
    net = Weighted(NODES)
    phi = ps.symmetrize(s.model, s.inputs, s.output, ps.Learned(net, NODES, relaxation=relaxation)).train()
    eps = phi.draw_noise(**s.call, samples=3, generator=seeded())
    weights = {path: randn(*shape, seed=9) for path, shape in s.model.shapes.items()}

    y = phi(**s.call, noise=eps, estimator=ps.MonteCarlo(3, chunk=chunk))
    (slope,) = torch.autograd.grad(sum((y[k[0]] * w).sum() for k, w in weights.items()), net.w)

    x = phi.bind((), s.call)
    soft = relaxation(phi.distribution.features(x, eps["features"])[NODES])
    index = phi.distribution.transport(x, eps).index
    hard = nn.functional.one_hot(index, 4).double()
    P = hard + soft - soft.detach()
    assert (soft.sum(-1) - 1).abs().max() < 0.2
    total = 0.0
    for k in range(3):
        back = P[k].mT
        out = s.model(x=back @ s.call["x"], a=back @ s.call["a"] @ P[k])
        moved = {"node": P[k] @ out["node"], "pair": P[k] @ out["pair"] @ back, "all": out["all"]}
        total = total + sum((moved[key[0]] * w).sum() for key, w in weights.items()) / 3
    (dense,) = torch.autograd.grad(total, net.w)
    assert dense.abs().min() > 1e-3
    assert torch.allclose(slope, dense, rtol=1e-9)


def test_forces_do_not_pass_through_the_relaxation():
    """d phi / d x of a canonical S_n is that of the sorted model alone."""
    s = sets()
    x = s.call["x"].clone().requires_grad_()
    phi = ps.symmetrize(s.model, s.inputs, s.output, ps.Canonical(Weighted(NODES), NODES)).eval()
    (force,) = torch.autograd.grad(phi(x=x, a=s.call["a"])["all"].sum(), x)
    index = phi.distribution.transport(phi.bind((), s.call), phi.draw_noise(**s.call)).index[0]
    back = torch.argsort(index, -1)
    take = lambda t, b: t[b][back[b]]  # noqa: E731
    rows = torch.stack([take(x, b) for b in range(3)])
    pairs = torch.stack([s.call["a"][b][back[b]][:, back[b]] for b in range(3)])
    (plain,) = torch.autograd.grad(s.model(x=rows, a=pairs)["all"].sum(), x)
    assert torch.allclose(force, plain, atol=1e-12)


def test_gradients_of_rotations_by_finite_differences():
    s = particles(ps.E(3), 2, 3)
    phi = s.symmetrized("canonical")
    pos = s.call["pos"].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda p: phi(**{**s.call, "pos": p}), pos, atol=1e-4, rtol=1e-3)


# ---------------------------------------------------------------- bookkeeping


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_copies_and_state(distribution):
    s = particles(ps.E(3))
    phi = s.symmetrized(distribution)
    y = phi(**s.call, samples=3, generator=seeded())
    twin = copy.deepcopy(phi)
    assert torch.equal(twin(**s.call, samples=3, generator=seeded()), y)
    fresh = (
        ps.symmetrize(
            Base(s.model.layers[0].in_features, s.output, s.model.shapes, seed=5),
            s.inputs,
            s.output,
            DISTRIBUTIONS[distribution](s),
        )
        .double()
        .eval()
    )
    fresh(**s.call)
    assert not torch.allclose(fresh(**s.call, samples=3, generator=seeded()), y)
    fresh.load_state_dict(phi.state_dict())
    assert torch.equal(fresh(**s.call, samples=3, generator=seeded()), y)


def test_example_fixes_lazy_nets_and_leaves_the_random_state_alone():
    s = particles(ps.E(3), kind=torch.float32)
    lazy = ps.symmetrize(s.model, s.inputs, s.output)
    assert any(isinstance(p, nn.UninitializedParameter) for p in lazy.parameters())
    phi = ps.symmetrize(s.model, s.inputs, s.output, example=s.call)
    assert not any(isinstance(p, nn.UninitializedParameter) for p in phi.parameters())
    assert torch.optim.Adam(phi.parameters()).param_groups[0]["params"]
    assert phi.model is s.model


def test_nothing_is_kept_on_self():
    s = particles(ps.E(3))
    phi = s.symmetrized("learned")
    before = {name: set(vars(m)) for name, m in phi.named_modules()}
    phi.estimate(**s.call, samples=3)
    assert {name: set(vars(m)) for name, m in phi.named_modules()} == before
    assert not [t for m in phi.modules() for t in vars(m).values() if isinstance(t, torch.Tensor)]


# ---------------------------------------------------------------- attributes and options that are refused, or followed


def plain(**options: object) -> ps.Symmetrizer:
    space = ps.O(3)
    rep = ps.Rep(None, space)
    return ps.symmetrize(nn.Linear(3, 3).double(), rep, rep, "haar", **options).eval()


@pytest.mark.parametrize("distribution", ["haar", "learned", "canonical", "frame"])
@pytest.mark.parametrize(("drawn", "called"), [(1, 4), (4, 1), (2, 4)])
def test_noise_of_another_batch_is_refused(distribution: str, drawn: int, called: int) -> None:
    """Broadcast, the noise of four inputs made four outputs of one, and that of one the same pose of four."""
    x = torch.randn(4, 5, 3).double()
    rep = ps.Rep(ps.S("n"), ps.O(3))
    phi = ps.symmetrize(nn.Tanh(), rep, rep, distribution, example=x)
    noise = phi.draw_noise(x[:drawn], samples=2)
    for call in (phi, phi.sample):
        with pytest.raises(ValueError, match=rf"noise\[.*expected shape \(K, {called}, .* got \(2, {drawn}"):
            call(x[:called], noise=noise)
        assert call(x[:drawn], noise=noise).shape[-3:] == (drawn, 5, 3)


def test_noise_for_other_nodes_or_of_another_distribution_is_refused() -> None:
    rep = ps.Rep(ps.S("n"), ps.O(3))
    x = torch.randn(2, 5, 3).double()
    phi = ps.symmetrize(nn.Tanh(), rep, rep, "haar")
    with pytest.raises(ValueError, match="expected size 4 on axis 1"):
        phi(x[:, :4], noise=phi.draw_noise(x, samples=3))
    frames = ps.symmetrize(nn.Tanh(), rep, rep, "frame")
    with pytest.raises(ValueError, match=r"noise\['features'\]: missing"):
        phi(x, noise=frames.draw_noise(x, samples=3))
    with pytest.raises(ValueError, match="expected shape"):
        phi(
            x,
            noise={
                **phi.draw_noise(x, samples=3),
                "fallback": phi.distribution.noise(x=phi.bind((x,), {}))["fallback"],
            },
        )


@pytest.mark.parametrize("noise", [{}, (), "noise", [1], {"features": 2.0}, torch.tensor(1.0)])
def test_what_is_no_noise_is_refused(noise: object) -> None:
    """By name. A string was searched for tensors for ever."""
    x = torch.randn(2, 4, 3).double()
    with pytest.raises(ValueError, match=r"noise: expected what phi\.draw_noise gives"):
        plain()(x, noise=noise)


def test_noise_of_a_ragged_batch_has_as_many_nodes() -> None:
    nodes, space = ps.S("n", batch="batch"), ps.SO(3)

    class Twice(nn.Module):
        def forward(self, pos: torch.Tensor, batch: torch.Tensor) -> torch.Tensor:
            return 2 * pos

    rep = ps.Rep(nodes, space)
    phi = ps.symmetrize(Twice(), {"pos": rep}, rep, "haar")
    pos = torch.randn(6, 3).double()
    batch = torch.tensor([0, 0, 0, 1, 1, 1])
    noise = phi.draw_noise(pos=pos, batch=batch, samples=2)
    assert torch.allclose(phi(pos=pos, batch=batch, noise=noise), 2 * pos)
    with pytest.raises(ValueError, match=r"as drawn for 5 nodes, got \(2, 6\)"):
        phi(pos=pos[:5], batch=batch[:5], noise=noise)


def test_checkpoint_around_phi_takes_noise() -> None:
    """A generator goes on in the recomputation, as the documentation says: with one, the gradient is another."""
    torch.manual_seed(0)
    rep = ps.Rep(ps.O(3))
    phi = ps.symmetrize(nn.Sequential(nn.Linear(3, 3), nn.Tanh()).double(), rep, rep, "haar", train_samples=2)
    x = torch.randn(2, 3).double().requires_grad_()

    def gradient(through: bool, **options: object) -> torch.Tensor:
        def call(x: torch.Tensor) -> torch.Tensor:
            return phi(x, **options)

        y = torch.utils.checkpoint.checkpoint(call, x, use_reentrant=False) if through else call(x)
        return torch.autograd.grad(y.square().sum(), x)[0]

    noise = phi.draw_noise(x, samples=2)
    torch.testing.assert_close(gradient(True, noise=noise), gradient(False, noise=noise))
    seeds = [torch.Generator().manual_seed(1), torch.Generator().manual_seed(1)]
    assert not torch.allclose(gradient(True, generator=seeds[0]), gradient(False, generator=seeds[1]))
    torch.manual_seed(3)
    with_own = gradient(True)
    torch.manual_seed(3)
    torch.testing.assert_close(with_own, gradient(False))


def test_seed_where_a_generator_is_expected() -> None:
    x = torch.randn(2, 4, 3).double()
    phi = plain()
    for call in (phi, phi.sample, phi.draw_noise, phi.estimate):
        with pytest.raises(TypeError, match=r"generator: expected a torch\.Generator"):
            call(x, generator=3)
        call(x, generator=torch.Generator())


def test_number_of_samples_can_be_changed_by_the_name_it_was_given_by() -> None:
    x = torch.randn(2, 4, 3).double()
    phi = plain(eval_samples=3)
    assert phi.estimate(x).samples.tolist() == [3, 3]
    phi.eval_samples = 5
    assert phi.eval_estimator == ps.MonteCarlo(5)
    assert phi.estimate(x).samples.tolist() == [5, 5]
    phi.eval_estimator = 7
    assert phi.estimate(x).samples.tolist() == [7, 7]
    phi.train_samples = ps.MonteCarlo(6, design="antithetic")
    assert phi.train().estimate(x).samples.tolist() == [6, 6]
    phi.eval()
    assert phi.estimate(x).samples.tolist() == [7, 7]
    with pytest.raises(ValueError, match="eval_samples: expected an integer"):
        phi.eval_samples = 0


def test_reps_are_fixed_and_distributions_fit() -> None:
    phi = plain()
    with pytest.raises(AttributeError, match="output: fixed when phi was made"):
        phi.output = ps.Rep()
    with pytest.raises(ValueError, match="distribution: O\\(3\\) acts on the declared axes"):
        phi.distribution = ps.Haar(ps.S("n"))
    with pytest.raises(TypeError, match=r"distribution: expected .* got Linear"):
        phi.distribution = nn.Linear(3, 3)
    assert phi.distribution.group == ps.O(3)
    phi.distribution = torch.compile(phi.distribution, backend="eager")  # a wrapper around it
    assert phi(torch.randn(2, 4, 3).double()).shape == (2, 4, 3)
    phi.distribution = ps.Frame(ps.O(3))
    x = torch.randn(2, 4, 3).double()
    ps.testing.assert_equivariant(phi, (x,))
    again = pickle.loads(pickle.dumps(phi))
    assert again.eval_estimator == phi.eval_estimator
    assert again.output == phi.output
