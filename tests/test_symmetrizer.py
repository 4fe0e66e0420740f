"""The Symmetrizer: exact equivariance by coupled noise, layouts that agree, gradients, and one clear error for bad input."""

import copy

import pytest
import torch
from cases import (
    DISTRIBUTIONS, NODES, PADDED, RAGGED, SETTINGS, Base, coupled_error, entry, padded, particles, randn, seeded, sets,
)  # fmt: skip
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import probsym as ps
from probsym.distributions import DefaultNet
from probsym.reps import leaves
from probsym.testing import equivariance_error


def close(a, b, tolerance=1e-10):
    if isinstance(a, dict | tuple):
        keys = a if isinstance(a, dict) else range(len(a))
        return all(close(a[k], b[k], tolerance) for k in keys)
    return a.shape == b.shape and bool(((a - b).abs() <= tolerance).all())


# ---------------------------------------------------------------- equivariance


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_coupled_exactness(setting, distribution):
    """At most 1e-10 in float64, for a base model whose own error is above 1e-2."""
    s = SETTINGS[setting]()
    phi = s.symmetrized(distribution)
    for seed in range(3):
        assert coupled_error(phi, s.call, seed=seed) <= 1e-10
    assert equivariance_error(phi.model, s.call, s.inputs, s.output).error > 1e-2


@settings(max_examples=15, deadline=None, derandomize=True)
@given(st.sampled_from(sorted(DISTRIBUTIONS)), st.integers(1, 3), st.integers(1, 6), st.integers(1, 4), st.booleans())
def test_coupled_exactness_at_any_size(distribution, batch, n, d, special):
    group = ps.SE(d) if special else ps.O(d)
    s = particles(group, batch, n)
    assert coupled_error(s.symmetrized(distribution), s.call) <= 1e-10


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


def test_group_average_by_hand():
    """Exact Haar over S_n is the mean over all permutations, written out."""
    from itertools import permutations

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


# ---------------------------------------------------------------- layouts


class Pooled(nn.Module):
    """Not symmetric at all, and the same function of one graph however it is stored; for at most 7 places."""

    def __init__(self, d=3):
        super().__init__()
        self.a, self.b = (nn.Parameter(randn(7, seed=i)) for i in (1, 2))
        self.w = nn.Parameter(randn(d, d, seed=3))

    def dense(self, pos, charge):
        n = pos.shape[1]
        mixed = torch.einsum("n,bnd,de->be", self.a[:n], pos.tanh(), self.w)
        return pos * charge + self.b[:n, None] * mixed[:, None], (mixed * self.w[0]).sum(-1, keepdim=True)

    def forward(self, pos, charge, mask=None, batch=None):
        if batch is not None:
            count = int(batch.max()) + 1
            own = [self.dense(pos[batch == b][None], charge[batch == b][None]) for b in range(count)]
            y = torch.zeros_like(pos)
            for b in range(count):
                y = y.index_put(((batch == b).nonzero()[:, 0],), own[b][0][0])
            return y, torch.cat([o[1] for o in own])
        if mask is not None:
            y, pooled = self.dense(pos * mask[..., None], charge * mask[..., None])
            return y * mask[..., None], pooled
        return self.dense(pos, charge)


class Scores(nn.Module):
    """Ambient features of one graph, alike in every layout: scores and a frame."""

    def __init__(self, nodes, space):
        super().__init__()
        self.nodes, self.space = nodes, space

    def forward(self, pos, charge, mask=None, batch=None):
        ones = torch.ones_like(charge) if mask is None else mask[..., None].to(pos)
        if batch is None:
            centre = (pos * ones).sum(1) / ones.sum(1)
            v = (pos - centre[:, None]) * ones
            frame = torch.stack([(v * charge).sum(1), (v * charge**2).sum(1), (v * charge**3).sum(1)], -1)
            return {self.nodes: (charge.squeeze(-1) + v.square().sum(-1)), self.space: (centre, frame)}
        parts = [self.forward(pos[batch == b][None], charge[batch == b][None]) for b in range(int(batch.max()) + 1)]
        scores = torch.zeros_like(charge[:, 0])
        for b, part in enumerate(parts):
            scores[batch == b] = part[self.nodes][0]
        return {self.nodes: scores, self.space: tuple(torch.cat([p[self.space][i] for p in parts]) for i in (0, 1))}


def clouds(sizes=(4, 2, 3)):
    space = ps.E(3)
    spec = lambda axis: {"pos": ps.Rep(axis, space), "charge": ps.Rep(axis)}  # noqa: E731
    calls = [{"pos": randn(1, n, 3, seed=n) + 1, "charge": randn(1, n, 1, seed=n)} for n in sizes]
    return space, spec, calls


def stored(axis, space, spec, kind):
    p = {"canonical": lambda: ps.Canonical(Scores(axis, space), axis * space), "frame": lambda: ps.Frame(axis * space)}[kind]()
    return ps.symmetrize(Pooled(), spec(axis), (ps.Rep(axis, space), ps.Rep()), p).double()


@pytest.mark.parametrize("kind", ["canonical", "frame"])
def test_padded_ragged_and_single_graphs_agree(kind):
    """One function, three layouts, and no trace of the rest of the batch."""
    sizes = (4, 6, 5)
    space, spec, calls = clouds(sizes)
    alone = [stored(NODES, space, spec, kind)(**call) for call in calls]
    width = 7
    mask = torch.arange(width) < torch.tensor(sizes)[:, None]
    pad = lambda key: torch.cat([nn.functional.pad(c[key], (0, 0, 0, width - c[key].shape[1]), value=9.0) for c in calls])  # noqa: E731
    y, pooled = stored(PADDED, space, spec, kind)(pos=pad("pos"), charge=pad("charge"), mask=mask)
    assert (y[~mask] == 0).all()
    for b, n in enumerate(sizes):
        assert torch.allclose(y[b, :n], alone[b][0][0], atol=1e-10)
        assert torch.allclose(pooled[b], alone[b][1][0], atol=1e-10)
    batch = torch.repeat_interleave(torch.arange(3), torch.tensor(sizes))
    call = {key: torch.cat([c[key][0] for c in calls]) for key in ("pos", "charge")}
    z, total = stored(RAGGED, space, spec, kind)(**call, batch=batch)
    assert torch.allclose(z, torch.cat([a[0][0] for a in alone]), atol=1e-10)
    assert torch.allclose(total, pooled, atol=1e-10)
    shuffled = torch.randperm(len(batch), generator=seeded())
    z2, total2 = stored(RAGGED, space, spec, kind)(**{k: v[shuffled] for k, v in call.items()}, batch=batch[shuffled])
    assert torch.allclose(total2, total, atol=1e-10)
    assert torch.allclose(z2, z[shuffled], atol=1e-10)


def test_default_nets_agree_over_layouts():
    """The scores and frames of the default net do not feel padding, packing or neighbours."""
    sizes = (4, 2, 3)
    space, spec, calls = clouds(sizes)
    nets = {axis: DefaultNet(spec(axis), axis * space).double() for axis in (NODES, PADDED, RAGGED)}
    alone = [nets[NODES](**call) for call in calls]
    mask = torch.arange(6) < torch.tensor(sizes)[:, None]
    pad = {k: torch.cat([nn.functional.pad(c[k], (0, 0, 0, 6 - c[k].shape[1]), value=9.0) for c in calls]) for k in calls[0]}
    batch = torch.repeat_interleave(torch.arange(3), torch.tensor(sizes))
    pack = {k: torch.cat([c[k][0] for c in calls]) for k in calls[0]}
    for axis, call in ((PADDED, {**pad, "mask": mask}), (RAGGED, {**pack, "batch": batch})):
        nets[axis](**call)
        nets[axis].load_state_dict(nets[NODES].state_dict())
        found = nets[axis](**call)
        for b, n in enumerate(sizes):
            own = found[axis][b, :n] if axis == PADDED else found[axis][batch == b]
            assert torch.allclose(own, alone[b][NODES][0], atol=1e-9)
            assert torch.allclose(found[space][0][b], alone[b][space][0][0], atol=1e-9)
            assert torch.allclose(found[space][1][b], alone[b][space][1][0], atol=1e-9)


@pytest.mark.parametrize("setting", ["S x E(3)", "padded S x E(3)", "S", "labels"])
@pytest.mark.parametrize("distribution", ["learned", "learned-input", "canonical", "frame", "haar"])
def test_outputs_do_not_depend_on_the_rest_of_the_batch(setting, distribution):
    s = SETTINGS[setting]()
    phi = s.symmetrized(distribution)
    x = phi.bind((), s.call)
    eps = phi.draw_noise(**s.call, samples=2, generator=seeded())
    whole = phi.sample(**s.call, noise=eps)
    cut = {k: v[1:2] for k, v in s.call.items()}
    own = {path: entry(eps, path)[:, 1:2] for path in leaves(phi.distribution.noise_rep(x))}
    from probsym.reps import build

    alone = phi.sample(**cut, noise=build(phi.distribution.noise_rep(x), lambda path, _: own[path]))
    for path in leaves(phi.output):
        assert torch.allclose(entry(whole, path)[:, 1], entry(alone, path)[:, 0], atol=1e-10)


# ---------------------------------------------------------------- rows, containers, arguments


class Spy(nn.Module):
    def __init__(self):
        super().__init__()
        self.seen = None

    def forward(self, x):
        self.seen = x
        return x


def test_rows_are_sample_major():
    """row = k B + b; where nothing acts the copies are plain."""
    x = torch.arange(6.0).view(3, 2)
    phi = ps.symmetrize(Spy(), ps.Rep(ps.Axis("n")), ps.Rep(ps.Axis("n")), "haar")
    phi(x, samples=4)
    assert torch.equal(phi.model.seen, x.repeat(4, 1))
    phi = ps.symmetrize(Spy(), ps.Rep(ps.S("n")), ps.Rep(ps.S("n")), "haar")
    g = phi.distribution.transport(phi.bind((x,), {}), phi.draw_noise(x, samples=4, generator=seeded()))
    phi(x, samples=4, generator=seeded())
    for k in range(4):
        for b in range(3):
            assert torch.equal(phi.model.seen[3 * k + b], ps.Rep(ps.S("n")).act(g.inverse().select(k), x)[b])


def test_structured_inputs_and_outputs():
    """dict, tuple, a structured single argument: the same numbers."""
    rep = ps.Rep(NODES, None)
    a, b = randn(3, 4, 2), randn(3, 4, 2, seed=5)
    base = lambda a, b: (a.flatten(1).cumsum(1).tanh().view_as(a) + b * torch.arange(4)[:, None])  # noqa: E731

    class ByName(nn.Module):
        def forward(self, a, b, flag=True):
            assert flag is True
            return {"y": base(a, b), "s": (a[:, 0] * b[:, 1],)}

    class ByData(nn.Module):
        def forward(self, data):
            return {"y": base(data["a"], data["b"]), "s": (data["a"][:, 0] * data["b"][:, 1],)}

    output = {"y": rep, "s": (ps.Rep(None),)}
    found = []
    for model, inputs, args, kwargs in [
        (ByName(), {"a": rep, "b": rep}, (), {"a": a, "b": b, "flag": True}),
        (ByName(), {"a": rep, "b": rep}, (a, b), {}),
        (ByName(), (rep, rep), (a, b), {"flag": True}),
        (ByData(), ({"a": rep, "b": rep},), ({"a": a, "b": b, "name": "kept"},), {}),
    ]:
        phi = ps.symmetrize(model, inputs, output, "haar")
        found.append(phi(*args, samples=5, generator=seeded(), **kwargs))
        assert isinstance(found[-1]["s"], tuple)
        assert close(found[-1], found[0])


def test_pyg_batches():
    geometric = pytest.importorskip("torch_geometric.data")
    s = SETTINGS["ragged S x E(3)"]()
    nodes = ps.S("nodes", batch="batch")
    graphs, place = [], 0
    for n, edges in ((4, [[0, 1, 2], [1, 2, 3]]), (2, [[0], [1]]), (3, [[0, 1], [1, 2]])):
        own = slice(place, place + n)
        graphs.append(geometric.Data(pos=s.call["pos"][own], charge=s.call["charge"][own], edge_index=torch.tensor(edges)))
        place += n
    data = geometric.Batch.from_data_list(graphs)

    class ByData(nn.Module):
        def __init__(self, base):
            super().__init__()
            self.base, self.graphs = base, None

        def forward(self, data):
            self.graphs = data.num_graphs
            assert torch.equal(data.ptr, nn.functional.pad(torch.bincount(data.batch).cumsum(0), (1, 0)))
            return self.base(pos=data.pos, charge=data.charge, edge_index=data.edge_index, batch=data.batch)

    inputs = ({"pos": ps.Rep(nodes, ps.E(3)), "charge": ps.Rep(nodes), "edge_index": nodes.labels},)
    for name in ("haar", "frame", "canonical"):
        flat = s.symmetrized(name)
        phi = ps.symmetrize(ByData(s.model), inputs, s.output, name).double()
        phi(data)
        if name == "canonical":
            phi.distribution.net.load_state_dict(flat.distribution.net.state_dict())
        assert close(phi.sample(data, samples=3, generator=seeded()), flat.sample(**s.call, samples=3, generator=seeded()))
        assert phi.model.graphs == 9
    assert torch.equal(data.pos, s.call["pos"])
    assert data.num_graphs == 3
    assert equivariance_error(phi, (data,), samples=64, elements=2).passed


def test_axis_declares_nodes_without_averaging():
    s = SETTINGS["Axis x E(3)"]()
    phi = s.symmetrized("learned")
    assert ps.Axis("atoms") in phi.distribution.group.factors
    g = phi.distribution.transport(phi.bind((), s.call), phi.draw_noise(**s.call))
    kind = s.call["kind"]
    assert torch.equal(ps.Rep(ps.Axis("atoms")).act(g, kind, 1), kind[None])
    only_space = ps.symmetrize(s.model, s.inputs, s.output, ps.Haar(ps.E(3), origin="centroid"))
    assert equivariance_error(only_space, s.call).passed


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


@pytest.mark.parametrize(("name", "train", "evaluation"), [("haar", 1, 10), ("learned", 1, 10), ("canonical", 1, 1), ("frame", None, None)])
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
    assert all(t.dtype in (torch.float32, torch.int64) for f in g.group.factors for t in vars(g[f]).values() if isinstance(t, torch.Tensor))
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
    """The gradient to the scores equals that of dense P^T f(P x, P a P^T) with P = hard + soft - detach(soft), twice."""
    s = sets()
    relaxation = ps.Relaxation(0.3, sinkhorn=4)
    net = Weighted(NODES)
    phi = ps.symmetrize(s.model, s.inputs, s.output, ps.Learned(net, NODES, relaxation=relaxation)).train()
    eps = phi.draw_noise(**s.call, samples=3, generator=seeded())
    weights = {path: randn(*shape, seed=9) for path, shape in s.model.shapes.items()}

    y = phi(**s.call, noise=eps, estimator=ps.MonteCarlo(3, chunk=chunk))
    (slope,) = torch.autograd.grad(sum((y[k[0]] * w).sum() for k, w in weights.items()), net.w)

    x = phi.bind((), s.call)
    soft = relaxation(phi.distribution.ambient(x, eps["z"])[NODES])
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
    fresh = ps.symmetrize(Base(s.model.layers[0].in_features, s.output, s.model.shapes, seed=5), s.inputs, s.output, DISTRIBUTIONS[distribution](s)).double().eval()
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


# ---------------------------------------------------------------- bad input


def flawed(**changes):
    s = particles(ps.E(3))
    return {**s.call, **changes}


POS = particles(ps.E(3)).call["pos"]


@pytest.mark.parametrize(("changes", "error", "says"), [
    ({"pos": POS[0, 0]}, ValueError, r"pos: expected at least 3 axes.*\(3,\)"),
    ({"pos": POS[..., :2]}, ValueError, r"pos: expected size 3 on axis 2.*\(3, 4, 2\)"),
    ({"pos": POS[:, :3]}, ValueError, r"expected size 3 on axis 1.*vel|vel: expected size 3|expected size"),
    ({"pos": POS[:2]}, ValueError, "expected batch size 2|expected batch size 3"),
    ({"pos": POS.long()}, TypeError, "pos: expected a floating dtype.*int64"),
    ({"pos": POS.tolist()}, TypeError, "pos: expected a tensor.*list"),
    ({"pos": POS * float("nan")}, ValueError, "pos: expected finite values, got NaN"),
    ({"pos": POS / 0}, ValueError, "pos: expected finite values, got infinite"),
    ({"pos": None}, ValueError, "pos is missing"),
    ({"scale": torch.ones(3)}, ValueError, "'scale'.*declare it Rep()"),
])  # fmt: skip
def test_bad_arguments(changes, error, says):
    s = particles(ps.E(3))
    phi = s.symmetrized("haar")
    with pytest.raises(error, match=says):
        phi.estimate(**flawed(**changes), samples=2)


def test_bad_values_are_found_at_the_first_call():
    s = particles(ps.E(3))
    phi = ps.symmetrize(s.model, s.inputs, s.output, "haar")
    with pytest.raises(ValueError, match="got NaN"):
        phi(**flawed(pos=POS * float("nan")))


def test_bad_masks_batches_and_labels():
    s = padded(ps.E(3))
    phi = s.symmetrized("haar")
    holes = s.call["mask"].flip(1)
    for changes, says in [
        ({"mask": holes}, "'mask': expected the nodes first"),
        ({"mask": s.call["mask"].float()}, "'mask': expected a bool mask"),
        ({"mask": s.call["mask"][:, :3]}, "'mask': expected a bool mask of shape .B, 4."),
        ({"mask": None}, "'mask' is missing"),
    ]:
        with pytest.raises(ValueError, match=says):
            phi.estimate(**{**s.call, **changes})
    s = SETTINGS["ragged S x E(3)"]()
    phi = s.symmetrized("haar")
    for changes, says in [
        ({"batch": s.call["batch"].double()}, "'batch': expected the graph of each of 9 nodes"),
        ({"batch": s.call["batch"][:-1]}, "'batch': expected the graph of each of 9 nodes"),
        ({"edge_index": s.call["edge_index"] + 5}, "edge_index: expected node numbers below 9, got 13"),
    ]:
        with pytest.raises(ValueError, match=says):
            phi.estimate(**{**s.call, **changes})
    with pytest.raises(TypeError, match="edge_index: expected integer node numbers"):
        phi.estimate(**{**s.call, "edge_index": s.call["edge_index"].double()})


def test_a_missing_argument_is_named():
    s = particles(ps.E(3))
    phi = s.symmetrized("haar")
    with pytest.raises(ValueError, match="vel is missing: it is declared"):
        phi(pos=POS)


class Bad(nn.Module):
    def __init__(self, output):
        super().__init__()
        self.output = output

    def forward(self, **kwargs):
        return self.output


@pytest.mark.parametrize(("output", "error", "says"), [
    (torch.zeros(3, 4, 3).double(), ValueError, r"expected 6 rows.*\(3, 4, 3\)"),
    (torch.zeros(6).double(), ValueError, r"expected 6 rows and the axes"),
    ([1.0], TypeError, "output.*expected a tensor.*list"),
])  # fmt: skip
def test_bad_outputs(output, error, says):
    s = particles(ps.E(3))
    with pytest.raises(error, match=says):
        ps.symmetrize(Bad(output), s.inputs, s.output, "haar")(**s.call, samples=2)


REP = ps.Rep(ps.S("n"), ps.O(3))


@pytest.mark.parametrize(("make", "error", "says"), [
    (lambda m: ps.symmetrize(lambda x: x, REP, REP), TypeError, "model: expected an nn.Module"),
    (lambda m: ps.symmetrize(m, "pos", REP), TypeError, "inputs: expected a Rep"),
    (lambda m: ps.symmetrize(m, REP, 3), TypeError, "output: expected a Rep"),
    (lambda m: ps.symmetrize(m, REP, REP, "uniform"), ValueError, "expected one of 'learned', 'haar', 'frame', 'canonical', got 'uniform'"),
    (lambda m: ps.symmetrize(m, ps.Rep(), ps.Rep(None), "haar"), ValueError, "no group acts on any declared axis"),
    (lambda m: ps.symmetrize(m, REP, REP, 3), TypeError, "distribution: expected one of"),
    (lambda m: ps.symmetrize(m, REP, REP, ps.Haar(ps.O(3))), ValueError, r"S\('n'\) acts on the declared axes"),
    (lambda m: ps.symmetrize(m, ps.Rep(ps.O(3)), ps.Rep(ps.O(3)), ps.Haar(ps.O(3) * ps.S("n"))), ValueError, "acts on no declared axis"),
    (lambda m: ps.symmetrize(m, REP, REP, "haar", train_samples=0), ValueError, "train_samples: expected an integer of at least 1, got 0"),
    (lambda m: ps.symmetrize(m, REP, REP, "haar", eval_samples=2.5), ValueError, "eval_samples: expected an integer"),
    (lambda m: ps.symmetrize(m, REP, REP, "haar")(torch.zeros(1, 2, 3), samples=0), ValueError, "samples: expected an integer of at least 1"),
    (lambda m: ps.symmetrize(m, REP, REP, "haar").sample(torch.zeros(1, 2, 3), samples=-1), ValueError, "samples: expected"),
    (lambda m: ps.symmetrize(m, REP, REP, "haar")(torch.zeros(1, 2, 3), tol=-1.0), ValueError, "tol: expected a positive"),
    (lambda m: ps.symmetrize(m, REP, REP, "haar")(torch.zeros(1, 2, 3), estimator=ps.Exact()), TypeError, "MonteCarlo"),
    (lambda m: ps.Haar(ps.E(3)), ValueError, "not compact.*origin='centroid'"),
    (lambda m: ps.Haar(ps.E(3), origin="corner"), ValueError, "origin: expected None or 'centroid'"),
    (lambda m: ps.Haar("O(3)"), TypeError, "expected a group"),
    (lambda m: ps.Learned(m, ps.O(3), noise="early"), ValueError, "noise: expected one of 'late', 'input', got 'early'"),
    (lambda m: ps.Learned(m, ps.O(3), scale=0), ValueError, "scale: expected a positive number"),
    (lambda m: ps.Learned(lambda x: x, ps.O(3)), TypeError, "net: expected an nn.Module"),
    (lambda m: ps.Haar(ps.O(3)) * ps.Haar(ps.O(3)), ValueError, "a product needs different groups"),
    (lambda m: ps.symmetrize(m, ps.Rep(ps.E(3).vector), ps.Rep(ps.E(3).vector), "haar")(torch.zeros(1, 3)), ValueError, "no input is declared as points"),
])  # fmt: skip
def test_one_error_that_says_what_was_expected(make, error, says):
    with pytest.raises(error, match=says):
        make(nn.Identity())
