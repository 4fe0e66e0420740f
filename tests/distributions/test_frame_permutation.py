"""Sort frames of S_n: graphs of every symmetry, padded and ragged, alone and with points."""

import itertools
import math
import warnings

import pytest
import torch

import probsym as ps
from probsym.distributions import Frame
from probsym.distributions.frames.node_keys import view_nodes
from probsym.distributions.frames.partitions import split, tied
from probsym.reps import Inputs, Rep

NODES = ps.S("nodes")


def graph(n, *edges):
    a = torch.zeros(n, n, dtype=torch.float64)
    for i, j in edges:
        a[i, j] = a[j, i] = 1
    return a


def cycle(n):
    return graph(n, *((i, (i + 1) % n) for i in range(n)))


def weighted(n, seed=0):
    return torch.randn(n, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


GRAPHS = {
    "empty": (graph(0), 1),
    "one node": (graph(1), 1),
    "weighted": (weighted(6), 1),
    "weighted undirected": (weighted(6) + weighted(6).T, 1),
    "asymmetric": (graph(6, (0, 1), (1, 2), (2, 3), (3, 4), (2, 4), (4, 5), (1, 4)), None),
    "path": (graph(6, *((i, i + 1) for i in range(5))), 2),
    "star": (graph(5, *((0, i) for i in range(1, 5))), 24),
    "cycle": (cycle(12), 24),
    "directed cycle": (torch.eye(7, dtype=torch.float64).roll(1, 1), 7),
    "complete": (1 - torch.eye(4, dtype=torch.float64), 24),
    "edgeless": (graph(4), 24),
    "two triangles": (torch.block_diag(cycle(3), cycle(3)), 72),
    "cube": (graph(8, *((i, i ^ b) for i in range(8) for b in (1, 2, 4))), 48),
}  # fmt: skip


class Base(torch.nn.Module):
    """A node-wise MLP on flattened rows: sees the order of the nodes."""

    def __init__(self, width, n):
        super().__init__()
        torch.manual_seed(0)
        self.net = torch.nn.Sequential(
            torch.nn.Linear(max(width, 1), 24), torch.nn.Tanh(), torch.nn.Linear(24, n + n * n)
        )
        self.n = n

    def forward(self, edge, **rest):
        rows = torch.cat([v.flatten(1) for v in (edge, *rest.values())], 1)
        y = self.net(rows if rows.shape[1] else rows.new_zeros(len(rows), 1))
        return y[:, : self.n], y[:, self.n :].reshape(len(y), self.n, self.n)


def make(a, axis=NODES, max_support=100):
    n = len(a)
    return ps.symmetrize(
        Base(n * n, n).to(a.dtype), {"edge": Rep(axis, axis)}, (Rep(axis), Rep(axis, axis)), Frame(axis, max_support)
    )


def shuffled(a, seed=0):
    index = torch.randperm(len(a), generator=torch.Generator().manual_seed(seed))
    return a[index][:, index], index


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", GRAPHS)
def test_exact_on_every_graph(name, dtype):
    a, count = GRAPHS[name]
    a = a.to(dtype)
    phi = make(a)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        estimate = phi.estimate(edge=a[None])
    if count is not None:
        assert estimate.samples.tolist() == [count]
    node, pair = estimate.mean
    largest = 0.0
    for seed in range(3):
        b, index = shuffled(a, seed)
        moved = phi(edge=b[None])
        tolerance = 1e-10 if dtype == torch.float64 else 1e-5
        torch.testing.assert_close(moved[0], node[:, index], rtol=0, atol=tolerance)
        torch.testing.assert_close(moved[1], pair[:, index][:, :, index], rtol=0, atol=tolerance)
        bare = phi.model(edge=b[None])[0] - phi.model(edge=a[None])[0][:, index]
        largest = max(largest, bare.abs().max().item() if len(a) else 0)
    assert largest > 1e-2 or len(a) < 2


@pytest.mark.parametrize("name", ["edgeless", "complete", "two triangles"])
def test_too_many_orders_are_sampled_and_told(name):
    a, _ = GRAPHS[name]
    phi = make(torch.block_diag(a, a) if name == "edgeless" else a, max_support=16)
    with pytest.warns(UserWarning, match="drawn at random"):
        estimate = phi.estimate(edge=(torch.block_diag(a, a) if name == "edgeless" else a)[None])
    assert estimate.aux["sampled"] == 1
    assert estimate.samples.tolist() == [16]
    assert (estimate.stderr[0] > 0).all()


@pytest.mark.parametrize("name", GRAPHS)
def test_transport_moves_with_input_and_noise(name):
    a, _ = GRAPHS[name]
    x = Inputs.bind({"edge": Rep(NODES, NODES)}, (), {"edge": torch.stack([a, shuffled(a)[0]])})
    p = Frame(NODES)
    noise = p.noise(x, (5,), torch.Generator().manual_seed(1))
    z = torch.randn(2, len(a), generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    h = x.stored(NODES).project(z, z)
    left = p.transport(x.act(h), p.move_noise(x, h, noise))
    right = h.map(lambda t, _: t.expand(5, *t.shape)) @ p.transport(x, noise)
    assert torch.equal(left.index, right.index)


def test_sampled_orders_are_uniform_over_the_listed_ones():
    """Chi-square over the 24 orders of a star and of a cycle, at a false-alarm rate of about 1e-6."""
    for name in ("star", "cycle"):
        a, count = GRAPHS[name]
        x = Inputs.bind({"edge": Rep(NODES, NODES)}, (), {"edge": a[None]})
        p = Frame(NODES)
        listed = {tuple(i): 0 for i in p.support(x).element.index[:, 0].tolist()}
        assert len(listed) == count
        for index in p.transport(x, p.noise(x, (2400,), torch.Generator().manual_seed(0))).index[:, 0].tolist():
            listed[tuple(index)] += 1
        chi = sum((v - 100) ** 2 / 100 for v in listed.values())
        assert chi < 23 + 7 * math.sqrt(2 * 23)


def test_scalars_channels_and_labels_tell_nodes_apart():
    edge_index = torch.tensor([[[0, 1, 2, 3], [1, 2, 3, 0]]])
    for extra, rep in (
        (torch.tensor([[0.0, 1, 1, 3]]), Rep(NODES)),
        (torch.eye(4)[None, :, :, None], Rep(NODES, NODES)),
    ):
        spec = {"e": Rep(NODES.labels), "v": rep}
        x = Inputs.bind(spec, (), {"e": edge_index, "v": extra})
        support = Frame(NODES).support(x)
        assert len(support.weight) == (1 if rep.ndim == 1 else 4)
    x = Inputs.bind({"e": Rep(NODES.labels), "v": Rep(NODES)}, (), {"e": edge_index, "v": torch.zeros(1, 4, 2)})
    assert len(Frame(NODES).support(x).weight) == 4


def test_padding_does_not_matter():
    axis = ps.S("nodes", mask="mask")
    graphs = [a for a, _ in GRAPHS.values()]
    edge = torch.stack([torch.nn.functional.pad(a, (0, 13 - len(a), 0, 13 - len(a)), value=7.0) for a in graphs])
    mask = torch.arange(13) < torch.tensor([len(a) for a in graphs])[:, None]
    x = Inputs.bind({"edge": Rep(axis, axis)}, (), {"edge": edge, "mask": mask})
    support = Frame(axis, 100).support(x)
    assert support.exact.all()
    for i, a in enumerate(graphs):
        alone = Frame(NODES, 100).support(Inputs.bind({"edge": Rep(NODES, NODES)}, (), {"edge": a[None]}))
        used = support.weight[:, i] > 0
        assert int(used.sum()) == len(alone.weight)
        index = support.element.index[used, i]
        assert torch.equal(index[:, : len(a)].sort(0).values, alone.element.index[:, 0].sort(0).values)
        assert torch.equal(index[:, len(a) :], torch.arange(len(a), 13).expand(int(used.sum()), -1))


class Ragged(torch.nn.Module):
    """Reads its nodes in the order in which they come, within each graph."""

    def forward(self, x, edge_index, batch):
        place = torch.arange(len(x)) - torch.searchsorted(batch, batch)
        start, end = edge_index
        message = torch.zeros_like(x).index_add(0, end, x[start] * (1 + 0.3 * place[start].to(x))[:, None])
        return torch.tanh(x * (1 + place.to(x))[:, None] + 0.5 * message)


def test_ragged_batches():
    axis = ps.S("nodes", batch="batch")
    graphs = [a for name, (a, _) in GRAPHS.items() if name not in ("weighted", "weighted undirected")]
    spec = {"x": Rep(axis), "edge_index": axis.labels}
    phi = ps.symmetrize(Ragged(), spec, Rep(axis), Frame(axis, 100))

    def bound(parts, seed=0):
        sizes = [len(a) for a in parts]
        first = [0, *itertools.accumulate(sizes)]
        edges = torch.cat([a.nonzero().T + f for a, f in zip(parts, first, strict=False)], 1)
        batch = torch.repeat_interleave(torch.arange(len(parts)), torch.tensor(sizes))
        values = torch.cat([a.sum(1, keepdim=True) for a in parts]) if parts else torch.zeros(0, 1).double()
        return {"x": values, "edge_index": edges, "batch": batch}, first

    graphs = graphs[1:]  # the number of graphs is read from the batch vector: the last may not be empty
    together, first = bound(graphs)
    y = phi(**together)
    for i, a in enumerate(graphs):
        alone = phi(**bound([a])[0])
        torch.testing.assert_close(y[first[i] : first[i + 1]], alone, rtol=0, atol=1e-12)
        b, index = shuffled(a)
        torch.testing.assert_close(phi(**bound([b])[0]), alone[index], rtol=0, atol=1e-12)
    middle, first = bound([graphs[1], graph(0), graphs[2]])
    torch.testing.assert_close(phi(**middle)[: first[1]], y[1 : 1 + first[1]], rtol=0, atol=1e-12)


def test_coupling_in_ragged_batches_with_points():
    axis, space = ps.S("nodes", batch="batch"), ps.E(3)
    pos = torch.randn(9, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    pos[:3] = pos[0]
    data = {"pos": pos, "batch": torch.tensor([0, 0, 0, 1, 1, 1, 1, 2, 2])}
    x = Inputs.bind({"pos": Rep(axis, space)}, (), data)
    p = Frame(x.group)
    noise = p.noise(x, (4,), torch.Generator().manual_seed(1))
    z = torch.randn(9, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    fallback = torch.randn(3, 3, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    h = x.group.join(x.stored(axis).project(z, z), space.project((fallback[:, 0], fallback), fallback))
    left, right = p.transport(x.act(h), p.move_noise(x, h, noise)), p.transport(x, noise)
    probe = torch.randn(4, 9, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    rep = Rep(axis, space.vector)
    moved = rep.act(h.map(lambda t, _: t.expand(4, *t.shape)), rep.act(right, probe))
    torch.testing.assert_close(rep.act(left, probe), moved, rtol=0, atol=1e-10)


def test_keys_are_continuous_across_equal_eigenvalues():
    """A cycle has doubly degenerate eigenvalues: a small change of the graph changes the keys a little."""

    def relation(a):
        x = Inputs.bind({"edge": Rep(NODES, NODES)}, (), {"edge": a[None]})
        return view_nodes(x, NODES, {"edge": 1e-16}).relations[0].value

    a, change = cycle(8), weighted(8)
    assert (relation(a + 1e-9 * change) - relation(a)).abs().max() < 1e-7


def test_split_and_tied():
    classes = split(torch.zeros(2, 4).long(), torch.tensor([[3.0, 1, 3, 2], [0, 0, 0, 5e-2]]), torch.tensor([0.1, 0.1]))
    assert classes.tolist() == [[2, 0, 2, 1], [0, 0, 0, 0]]
    assert tied(classes).tolist() == [True, True]
    assert tied(split(classes, torch.arange(4.0).expand(2, 4), torch.zeros(2))).tolist() == [False, False]
    assert tied(torch.zeros(3, 0).long()).tolist() == [False] * 3


def test_negative_control_listing_one_order_of_equal_nodes():
    """Without branching over equal nodes the average of a cycle is not equivariant."""

    class First(Frame):
        def support(self, x, generator=None):
            full = super().support(x, generator)
            index = torch.arange(full.element.index.shape[-1]).expand_as(full.element.index)
            return type(full)(NODES.stored(full.element.layout).permutation(index), full.weight, full.exact, {})

    a, _ = GRAPHS["cycle"]
    phi = ps.symmetrize(
        Base(144, 12).double(), {"edge": Rep(NODES, NODES)}, (Rep(NODES), Rep(NODES, NODES)), First(NODES)
    )
    b, index = shuffled(a)
    assert (phi(edge=b[None])[0] - phi(edge=a[None])[0][:, index]).abs().max() > 1e-2


def test_features_of_edges_do_not_disturb_the_frames_of_a_ragged_batch():
    """More edges than nodes: the frames are those of the same graphs without features on their edges."""
    nodes = ps.S("nodes", batch="batch")
    batch = torch.tensor([0, 0, 0, 1, 1, 1, 1])
    edges = torch.tensor([[0, 1, 1, 2, 3, 4, 4, 5, 5, 6, 6, 3], [1, 0, 2, 1, 4, 3, 5, 4, 6, 5, 3, 6]])
    given = {"x": torch.randn(7, 2), "edge_index": edges, "batch": batch}
    spec = {"x": ps.Rep(nodes), "edge_index": ps.Rep(nodes.labels)}
    plain = Inputs.bind(spec, (), given)
    rich = Inputs.bind(spec | {"bonds": ps.Rep(nodes.edges)}, (), given | {"bonds": torch.randn(12, 3)})
    found = [ps.Frame(nodes).support(x).element for x in (plain, rich)]
    assert torch.equal(found[0].index, found[1].index)


@pytest.mark.parametrize("points", [False, True])
def test_a_large_graph_does_not_make_room_for_itself_in_the_small_ones(points):
    """N^2 numbers a graph, whatever the largest of the batch; and the frames are those of the graphs alone."""
    axis, space = ps.S("nodes", batch="batch"), ps.E(3)
    sizes = [5, 60, 5, 1, 0, 7, 12, 5]
    batch = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    nodes = [torch.arange(n) + sum(sizes[:i]) for i, n in enumerate(sizes)]
    edges = torch.stack([torch.cat(nodes), torch.cat([part.roll(1) for part in nodes])])
    spec = {"x": Rep(axis, space) if points else Rep(axis), "e": Rep(axis.labels)}
    values = torch.randn(len(batch), *([3] if points else []), generator=torch.Generator().manual_seed(0)).double()
    given = {"x": values, "e": edges, "batch": batch}
    x = Inputs.bind(spec, (), given)
    view = view_nodes(x, axis, {leaf.name: 1e-16 for leaf in x.leaves.values()})
    held = sum(part.value.numel() for part in view.relations)
    assert held <= sum((2 * n) ** 2 for n in sizes)
    assert held < 0.2 * len(sizes) * max(sizes) ** 2
    for i, n in enumerate(sizes):
        if n == 0:
            continue
        keep = torch.arange(len(sizes)) == i
        same = view_nodes(x.select(keep), axis, {leaf.name: 1e-16 for leaf in x.leaves.values()})
        assert torch.equal(view.classes[i, :n], same.classes[0])
        assert torch.equal(view.classes[i, n:], torch.arange(n, max(sizes)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.long])
@pytest.mark.parametrize("channels", [(), (1,)])
@pytest.mark.parametrize("storage", ["dense", "padded", "ragged"])
def test_a_set_of_numbers_is_sorted(storage, channels, dtype):
    """Ascending, also numbers that differ in the last digit; equal numbers in all orders, which are one pose."""
    values = [[0.3, -1.2, 2.0, 0.7, -0.1], [1.0, 1 + 2e-7, 1e-12, 2e-12, -1e-12], [1.0, 2.0, 1.0, 0.0, 2.0]]
    values = (torch.tensor(values, dtype=torch.float64) * (10 if dtype == torch.long else 1)).to(dtype)
    seen = []

    class Spy(torch.nn.Module):
        def forward(self, v, **marks):
            seen.extend(v.reshape(-1, 5).unbind())
            return v.to(torch.float64)

    axis = {
        "dense": ps.S("n"), "padded": ps.S("n", mask="mask"), "ragged": ps.S("n", batch="batch")
    }[storage]  # fmt: skip
    phi = ps.symmetrize(Spy(), {"v": Rep(axis)}, Rep(axis), "frame").eval()
    for row in values:
        marks, shape = {}, (1, 5, *channels)
        if storage == "padded":
            marks = {"mask": torch.ones(1, 5, dtype=torch.bool)}
        if storage == "ragged":
            marks, shape = {"batch": torch.zeros(5).long()}, (5, *channels)
        seen.clear()
        estimate = phi.estimate(v=row.reshape(shape), **marks)
        assert all(torch.equal(v, row.sort().values) for v in seen)
        assert estimate.samples.item() == math.prod(math.factorial(int(n)) for n in row.unique(return_counts=True)[1])
        torch.testing.assert_close(estimate.mean.flatten(), row.double(), rtol=1e-6, atol=1e-6)
