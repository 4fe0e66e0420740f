"""Dense, padded, ragged, PyG; rows and containers: one function, however it is stored and called."""

import pytest
import torch
from torch import nn

import probsym as ps
from cases import NODES, PADDED, RAGGED, SETTINGS, close, entry, randn, seeded
from probsym.distributions import DefaultNet
from probsym.reps import build, leaves
from probsym.testing import equivariance_error

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
    p = {"canonical": lambda: ps.Canonical(Scores(axis, space), axis * space), "frame": lambda: ps.Frame(axis * space)}[
        kind
    ]()
    return ps.symmetrize(Pooled(), spec(axis), (ps.Rep(axis, space), ps.Rep()), p).double()


@pytest.mark.parametrize("kind", ["canonical", "frame"])
def test_padded_ragged_and_single_graphs_agree(kind):
    """One function, three layouts, and no trace of the rest of the batch."""
    sizes = (4, 6, 5)
    space, spec, calls = clouds(sizes)
    alone = [stored(NODES, space, spec, kind)(**call) for call in calls]
    width = 7
    mask = torch.arange(width) < torch.tensor(sizes)[:, None]
    fill = {
        k: torch.cat([nn.functional.pad(c[k], (0, 0, 0, width - c[k].shape[1]), value=9.0) for c in calls])
        for k in calls[0]
    }
    y, pooled = stored(PADDED, space, spec, kind)(**fill, mask=mask)
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
    pad = {
        k: torch.cat([nn.functional.pad(c[k], (0, 0, 0, 6 - c[k].shape[1]), value=9.0) for c in calls])
        for k in calls[0]
    }
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
@pytest.mark.parametrize("distribution", ["recursive", "learned", "learned-input", "canonical", "frame", "haar"])
def test_outputs_do_not_depend_on_the_rest_of_the_batch(setting, distribution):
    s = SETTINGS[setting]()
    phi = s.symmetrized(distribution)
    x = phi.bind((), s.call)
    eps = phi.draw_noise(**s.call, samples=2, generator=seeded())
    whole = phi.sample(**s.call, noise=eps)
    cut = {k: v[1:2] for k, v in s.call.items()}
    own = {path: entry(eps, path)[:, 1:2] for path in leaves(phi.distribution.noise_rep(x))}

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
    base = lambda a, b: a.flatten(1).cumsum(1).tanh().view_as(a) + b * torch.arange(4)[:, None]  # noqa: E731

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
        graphs.append(
            geometric.Data(pos=s.call["pos"][own], charge=s.call["charge"][own], edge_index=torch.tensor(edges))
        )
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
        assert close(
            phi.sample(data, samples=3, generator=seeded()), flat.sample(**s.call, samples=3, generator=seeded())
        )
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
