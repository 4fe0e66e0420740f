"""Learned and canonical distributions, their nets, and the inputs that are hard for them."""

import itertools
import math

import pytest
import torch
from torch import nn

import probsym as ps
from cases import NODES, SETTINGS, Base, coupled_error, particles, randn, sets
from probsym.distributions import DefaultNet, Relaxation
from probsym.testing import assert_distribution

SPACE = ps.E(3)


def spec(space):
    return {"x": ps.Rep(NODES, space)}, ps.Rep(NODES, space)


def cycle(n):
    i = torch.arange(n)
    a = torch.zeros(1, n, n).double()
    a[0, i, (i + 1) % n] = 1
    return a + a.mT


ANGLE = torch.arange(5).double() * 2 * math.pi / 5
CLOUDS = {
    "cube": torch.tensor(list(itertools.product([-1.0, 1.0], repeat=3))).double() + 0.5,
    "tetrahedron": torch.tensor([[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]).double(),
    "pentagon": torch.stack([ANGLE.cos(), ANGLE.sin(), 0 * ANGLE], -1),
    "line": torch.linspace(-1, 2, 4).double()[:, None] * torch.tensor([1.0, -2.0, 0.5]).double() + 1,
    "pair": torch.tensor([[1.0, 2, 3], [2.0, 0, 1]]).double(),
    "coincident": torch.full((4, 3), 7.0).double(),
    "point": torch.tensor([[1.0, 2.0, 3.0]]).double(),
    "tiny": randn(4, 3) * 1e-12,
    "huge": randn(4, 3) * 1e12,
}


@pytest.mark.parametrize("cloud", CLOUDS)
@pytest.mark.parametrize("distribution", ["learned", "learned-input", "canonical"])
@pytest.mark.parametrize("kind", [torch.float64, torch.float32])
def test_degenerate_clouds(cloud, distribution, kind):
    """Rounding never takes the place of chance: coupled exactness also where features cancel. Gradients are finite."""
    x = CLOUDS[cloud][None].to(kind)
    scale = float((x - x.mean(1, keepdim=True)).abs().max()) or 1.0
    inputs, output = spec(SPACE)

    class Scaled(Base):
        def forward(self, x):
            return scale * super().forward(x=x / scale)

    model = Scaled(x[0].numel(), output, {(): tuple(x.shape[1:])}).to(kind)
    p = {
        "learned": lambda net: ps.Learned(net, NODES * SPACE),
        "learned-input": lambda net: ps.Learned(net, NODES * SPACE, noise="input"),
        "canonical": lambda net: ps.Canonical(net, NODES * SPACE),
    }[distribution](DefaultNet(inputs, NODES * SPACE))
    phi = ps.symmetrize(model, inputs, output, p).to(kind)
    phi(x=x)
    bound = 1e-10 if kind == torch.float64 else 2e-3
    for seed in range(3):
        assert coupled_error(phi, {"x": x}, seed=seed) <= bound * (
            scale + float(x.abs().max()) * (kind == torch.float32)
        )
    leaf = x.clone().requires_grad_()
    (phi.train()(x=leaf) / scale).square().sum().backward()
    assert leaf.grad.isfinite().all()
    assert all(q.grad is None or q.grad.isfinite().all() for q in phi.parameters())


@pytest.mark.parametrize("distribution", ["learned", "canonical"])
@pytest.mark.parametrize("graph", ["cycle", "empty", "complete", "two cycles"])
def test_vertex_transitive_graphs(distribution, graph):
    """Equal nodes have equal scores up to rounding, so that chance, not input order, sorts them."""
    a = {
        "cycle": cycle(7), "empty": torch.zeros(1, 6, 6).double(), "complete": torch.ones(1, 5, 5).double(),
        "two cycles": torch.block_diag(cycle(3)[0], cycle(3)[0])[None],
    }[graph]  # fmt: skip
    inputs = {"a": ps.Rep(NODES, NODES)}
    make = ps.Learned if distribution == "learned" else ps.Canonical
    p = make(DefaultNet(inputs, NODES), NODES)
    assert_distribution(p, {"a": a}, inputs)
    assert_distribution(p, {"a": a.float()}, inputs)
    net = p.net
    net(a=a.float())
    assert p.relaxation is not None
    phi = ps.symmetrize(Base(a[0].numel(), ps.Rep(NODES), {(): (a.shape[1],)}).float(), inputs, ps.Rep(NODES), p)
    est = phi.estimate(a=a.float(), samples=32)
    assert est.stderr.max() > 0
    if distribution == "canonical":
        assert est.aux["degenerate"] == 1


def test_no_nodes_and_no_edges():
    s = sets(2, 0)
    phi = s.symmetrized("canonical")
    y = phi(**s.call)
    assert y["node"].shape == (2, 0, 2)
    assert y["all"].isfinite().all()
    edgeless = SETTINGS["labels"]()
    edgeless.call["edge_index"] = torch.zeros(3, 2, 0, dtype=torch.long)
    assert_distribution(ps.Learned(DefaultNet(edgeless.inputs, NODES), NODES), edgeless.call, edgeless.inputs)


def test_the_trunk_runs_once_with_late_noise_and_once_a_sample_at_the_input():
    s = particles(ps.E(3))
    seen = []

    class Counting(DefaultNet):
        def forward(self, *args, **kwargs):
            seen.append(len(kwargs["pos"]))
            return super().forward(*args, **kwargs)

    for noise, expected in (("late", 3), ("input", 30)):
        p = ps.Learned(Counting(s.inputs, s.group), s.group, noise=noise)
        phi = s.symmetrized(p)
        seen.clear()
        phi(**s.call, samples=10)
        assert seen == [expected]


def test_noise_has_no_unit():
    """Metres or millimetres: the elements are the same."""
    s = particles(ps.E(3))
    for name in ("learned", "learned-input", "canonical"):
        phi = s.symmetrized(name)
        eps = phi.draw_noise(**s.call, samples=4, generator=torch.Generator().manual_seed(0))
        small = {**s.call, "pos": s.call["pos"] * 1e-3, "vel": s.call["vel"] * 1e-3}
        a, b = (phi.distribution.transport(phi.bind((), call), eps) for call in (s.call, small))
        assert torch.equal(a[NODES].index, b[NODES].index)
        assert torch.allclose(a[ps.E(3)].matrix, b[ps.E(3)].matrix, atol=1e-9)
        assert torch.allclose(a[ps.E(3)].target * 1e-3, b[ps.E(3)].target, atol=1e-12)


def test_scale_concentrates():
    """A small scale makes late noise a canonicalization, a large one uniform."""
    s = sets()
    net = DefaultNet(s.inputs, NODES).double()

    def spread(scale):
        phi = s.symmetrized(ps.Learned(net, NODES, scale=scale))
        g = phi.distribution.transport(phi.bind((), s.call), phi.draw_noise(**s.call, samples=200))
        return (g.index[:, 0] != g.index[:1, 0]).float().mean().item()

    assert spread(1e-9) == 0
    assert spread(1.0) < spread(1e6)
    assert spread(1e6) > 0.5


def test_every_parameter_of_the_default_net_learns():
    for name in ("S", "S x E(3)", "ragged S x E(3)", "padded S x SE(2)", "labels"):
        s = SETTINGS[name]()
        phi = s.symmetrized("learned").train()
        y = phi(**s.call, samples=8, generator=torch.Generator().manual_seed(0))
        from probsym.reps import leaves

        total = 0.0
        for path in leaves(phi.output):
            out = y
            for key in path:
                out = out[key]
            total = total + (out * randn(*out.shape, seed=3)).sum()
        total.backward()
        silent = [
            n for n, q in phi.distribution.named_parameters() if q.grad is None or not bool(q.grad.abs().sum() > 0)
        ]
        assert [n for n in silent if not n.endswith("bias")] == [], name


def test_scores_that_are_zero_send_no_large_gradient():
    """As those of a net whose last layer starts at zero; the second input has scores that differ: the control."""

    class ZeroFirst(nn.Module):
        def __init__(self):
            super().__init__()
            self.scores = nn.Parameter(torch.stack([torch.zeros(5), torch.arange(5.0)]))

        def forward(self, x):
            return {NODES: self.scores + 0 * x.sum(-1)}

    net = ZeroFirst()
    model = nn.Sequential(nn.Flatten(), nn.Linear(15, 4))
    phi = ps.symmetrize(model, ps.Rep(NODES), ps.Rep(), ps.Learned(net, NODES)).train()
    x = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    phi(x, samples=4, generator=torch.Generator().manual_seed(0)).square().sum().backward()
    first, second = net.scores.grad.abs().amax(-1)
    assert first < 1e3
    assert 1e-6 < second < 1e3


# ---------------------------------------------------------------- the default net: rounding, storage, first calls

RING = torch.stack([ANGLE.cos(), ANGLE.sin(), 0 * ANGLE], -1)
SYMMETRIC = {
    "cube": CLOUDS["cube"],
    "tetrahedron": CLOUDS["tetrahedron"],
    "ring": RING,
    "two rings": torch.cat([RING, 1.8 * RING]),
    "linear": torch.tensor([[-1.2, 0, 0], [0, 0, 0], [1.2, 0, 0]]).double(),
    "bipyramid": torch.cat([RING, torch.tensor([[0, 0, 1.3], [0, 0, -1.3]]).double()]),
    "coincident": torch.zeros(6, 3).double(),
}
PLACED = {
    "polar line": torch.tensor([[0.0, 0, 0], [0, 0, 1.27]]).double(),
    "pyramid": torch.cat([RING, RING[:1] * 0 + 1]),
}


def placed(cloud, size, far, kind, seed=0):
    """A cloud of a given size, turned at random, `far` times its size from the origin."""
    g = torch.Generator().manual_seed(seed)
    turn = torch.linalg.qr(torch.randn(3, 3, generator=g).double())[0]
    away = nn.functional.normalize(torch.randn(3, generator=g).double(), dim=0)
    return (size * (cloud @ turn.T + far * away))[None].to(kind)


class Readout(nn.Module):
    """Tells apart every order and every pose; its outputs have the size of the cloud's shape."""

    def __init__(self, size, far):
        super().__init__()
        self.size, self.far = size, far

    def forward(self, pos):
        pos = pos / self.size
        pos = pos - pos.mean(1, keepdim=True)
        weight = torch.linspace(0.3, 1.1, pos[0].numel(), dtype=pos.dtype).view_as(pos[0])
        return (weight * pos).sum((1, 2))[:, None]


def poses(name, size, far, kind, distribution, pairs, labelled=True):
    """A symmetrizer over S_n x SE(3), the call, and the Reps."""
    nodes, space = (ps.S("n") if labelled else ps.Axis("n")), ps.SE(3)
    x = placed({**SYMMETRIC, **PLACED}[name], size, far, kind)
    inputs = {"pos": ps.Rep(nodes, space)}
    call = {"pos": x}
    model = Readout(size, far)
    if pairs:
        inputs["edge"] = ps.Rep(nodes, nodes)
        call["edge"] = torch.ones(1, x.shape[1], x.shape[1], dtype=kind)
        model.forward = lambda pos, edge: Readout.forward(model, pos)
    torch.manual_seed(1)
    phi = ps.symmetrize(model, inputs, ps.Rep(), distribution, example=call).to(kind).eval()
    return phi, call


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("kind", [torch.float64, torch.float32])
@pytest.mark.parametrize(("size", "far"), [(1.0, 0.0), (1.0, 10.0), (1e3, 1e4), (1e-24, 0.0), (1e18, 100.0)])
@pytest.mark.parametrize("name", SYMMETRIC)
def test_rounding_is_no_direction(name, size, far, kind, pairs):
    """Symmetric clouds of any size and place: canonical poses are random and say so."""
    phi, call = poses(name, size, far, kind, "canonical", pairs)
    estimate = phi.estimate(**call)
    assert estimate.aux["degenerate"] == 1
    assert estimate.stderr.isinf().all()


@pytest.mark.parametrize("kind", [torch.float64, torch.float32])
@pytest.mark.parametrize("far", [0.0, 10.0, 1e3])
@pytest.mark.parametrize("name", [*SYMMETRIC, *PLACED])
@pytest.mark.parametrize("distribution", ["learned", "canonical"])
def test_poses_move_with_symmetric_clouds(name, far, kind, distribution):
    """Coupled equivariance up to the rounding of the coordinates, also where one axis is certain and two are not."""
    phi, call = poses(name, 1.0, far, kind, distribution, pairs=False)
    error = torch.finfo(kind).eps * (1 + far)
    assert max(coupled_error(phi, call, samples=8, seed=s) for s in range(3)) <= 300 * error**0.75


@pytest.mark.parametrize("kind", [torch.float64, torch.float32])
@pytest.mark.parametrize("far", [0.0, 30.0])
def test_generic_clouds_are_certain(kind, far):
    """The control: what is rounding stays a small share, so that asymmetric clouds have exact poses."""
    nodes, space = ps.S("n"), ps.SE(3)
    torch.manual_seed(0)
    pos = torch.randn(64, 9, 3).double()
    sphere = torch.randn(64, 9, 3).double()
    sphere = sphere - sphere.mean(1, keepdim=True)
    allowed = 24 if far and kind == torch.float32 else 8
    for x in (pos, nn.functional.normalize(torch.cat([sphere, -sphere[:, :3]], 1), dim=-1)):
        call = {"pos": (x + far / 3**0.5).to(kind)}
        phi = ps.symmetrize(Readout(1.0, far), {"pos": ps.Rep(nodes, space)}, ps.Rep(), "canonical", example=call)
        assert phi.to(kind).eval().estimate(**call).aux["degenerate"] <= allowed


@pytest.mark.parametrize("tiny", [1e-12, 1e-9, 1e-6, 1e-3])
@pytest.mark.parametrize("kind", [torch.float64, torch.float32])
def test_nearly_symmetric_clouds_are_right_or_random(tiny, kind):
    nodes, space = ps.Axis("n"), ps.SE(3)
    for name, cloud in SYMMETRIC.items():
        g = torch.Generator().manual_seed(3)
        x = (cloud + tiny * torch.randn(20, *cloud.shape, generator=g).double()).to(kind)
        torch.manual_seed(1)
        phi = ps.symmetrize(Readout(1.0, 0.0), {"pos": ps.Rep(nodes, space)}, ps.Rep(), "canonical", example={"pos": x})
        phi = phi.to(kind).eval()
        turn = torch.linalg.qr(torch.randn(3, 3, generator=g).double())[0]
        turn = (turn * turn.det().sign()).to(kind)
        certain = [phi.estimate(pos=v).stderr[:, 0] == 0 for v in (x, x @ turn.T)]
        gap = (phi(pos=x) - phi(pos=x @ turn.T))[certain[0] & certain[1]].abs()
        assert gap.numel() == 0 or gap.max() <= 30 * torch.finfo(kind).eps ** 0.25, name


def test_a_net_that_takes_rounding_for_a_direction_is_caught():
    """Negative control: without its rule the coupled error is of order one."""
    phi, call = poses("ring", 1.0, 1e3, torch.float64, "canonical", pairs=False)

    class Careless(nn.Module):
        def __init__(self, net):
            super().__init__()
            self.net = net

        def forward(self, pos):
            v = pos - pos.mean(1, keepdim=True)
            return {f: z for f, z in self.net(pos=pos).items() if isinstance(f, ps.S)} | {
                ps.SE(3): torch.stack([(v * v.square().sum(-1, keepdim=True) ** k).sum(1) for k in (0, 1, 2)], -1)
            }

    careless = ps.Canonical(Careless(phi.distribution.net), phi.group)
    phi = ps.symmetrize(phi.model, phi.inputs, phi.output, careless).double().eval()
    assert max(coupled_error(phi, call, samples=8, seed=s) for s in range(3)) > 1e-2


def ragged_call(sizes, kind=torch.float64):
    g = torch.Generator().manual_seed(sum(sizes))
    total = sum(sizes)
    first = torch.tensor([0, *itertools.accumulate(sizes)][:-1]).repeat_interleave(torch.tensor(sizes))
    count = torch.tensor(sizes).repeat_interleave(torch.tensor(sizes))
    ends = first + (torch.rand(total, generator=g) * count).long()
    return {
        "pos": torch.randn(total, 3, generator=g).to(kind),
        "vel": torch.randn(total, 3, generator=g).to(kind),
        "charge": torch.randn(total, 2, generator=g).to(kind),
        "edge_index": torch.stack([torch.arange(total), ends]),
        "batch": torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes)),
    }


@pytest.mark.parametrize("group", ["S x E", "Axis x E", "S"])
def test_ragged_batches_see_what_each_graph_sees_alone(group):
    """Scores and frames of a ragged batch are those of its graphs as dense batches of one, edges included."""
    sizes = (7, 1, 3, 12)
    call = ragged_call(sizes)
    space = ps.E(3)

    def reps(**kind):
        nodes = ps.Axis("n", **kind) if group == "Axis x E" else ps.S("n", **kind)
        found = {"charge": ps.Rep(nodes), "edge_index": ps.Rep(nodes.labels)}
        if group != "S":
            found |= {"pos": ps.Rep(nodes, space), "vel": ps.Rep(nodes, space.vector)}
        factors = {"S x E": nodes * space, "Axis x E": space, "S": nodes}[group]
        return found, factors, nodes

    spec, factors, nodes = reps(batch="batch")
    net = DefaultNet(spec, factors).double()
    whole = net(**{k: v for k, v in call.items() if k in spec or k == "batch"})
    spec, factors, dense = reps()
    alone = DefaultNet(spec, factors).double()
    start = 0
    for b, n in enumerate(sizes):
        part = {k: call[k][start : start + n][None] for k in spec if k != "edge_index"}
        edges = call["edge_index"][:, start : start + n] - start
        part["edge_index"] = torch.nn.functional.pad(edges, (0, 2), value=-1)[None]
        alone(**part)
        alone.load_state_dict(net.state_dict())
        found = alone(**part)
        if group != "Axis x E":
            torch.testing.assert_close(whole[nodes][start : start + n], found[dense][0], rtol=0, atol=1e-10)
        if group != "S":
            for a, c in zip(whole[space], found[space], strict=True):
                torch.testing.assert_close(a[b], c[0], rtol=0, atol=1e-10)
        start += n


@pytest.mark.parametrize("storage", ["dense", "ragged"])
@pytest.mark.parametrize("group", ["E", "S x E", "S"])
def test_memory_is_linear_in_nodes_and_edges(group, storage):
    """No tensor of the net's own is larger than some hundreds of numbers a node or edge."""
    from torch.utils._python_dispatch import TorchDispatchMode

    n = 3000
    sizes = (n,) if storage == "dense" else (n, *[5] * 31)
    call = ragged_call(sizes, torch.float32)
    total = sum(sizes)
    if storage == "dense":
        call = {k: v[None] for k, v in call.items() if k != "batch"}
    kind = {} if storage == "dense" else {"batch": "batch"}
    nodes, space = (ps.S if "S" in group else ps.Axis)("n", **kind), ps.E(3)
    spec = {"charge": ps.Rep(nodes), "edge_index": ps.Rep(nodes.labels)}
    if "E" in group:
        spec |= {"pos": ps.Rep(nodes, space), "vel": ps.Rep(nodes, space.vector)}
    factors = {"E": space, "S x E": nodes * space, "S": nodes}[group]

    class Largest(TorchDispatchMode):
        seen = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            for t in out if isinstance(out, tuple | list) else (out,):
                if isinstance(t, torch.Tensor):
                    self.seen = max(self.seen, t.numel())
            return out

    net = DefaultNet(spec, factors)
    seen = {k: v for k, v in call.items() if k in spec or k == "batch"}
    with torch.no_grad():
        net(**seen)  # builds it, which a dispatch mode, like a compiler, does not allow
        with Largest() as mode:
            net(**seen)
    assert mode.seen <= 200 * total


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
@pytest.mark.parametrize("distribution", ["learned", "canonical"])
@pytest.mark.parametrize("name", ["S", "S x E(3)", "Axis x E(3)", "ragged S x E(3)", "labels"])
def test_a_first_look_without_gradients_leaves_a_net_that_trains(name, distribution, mode):
    s = SETTINGS[name]()
    p = (ps.Learned if distribution == "learned" else ps.Canonical)(DefaultNet(s.inputs, s.group), s.group)
    phi = ps.symmetrize(s.model, s.inputs, s.output, p).double()
    with mode():
        phi.eval()(**s.call)
    from probsym.reps import leaves

    y = phi.train()(**s.call)
    sum(entry_of(y, path).square().sum() for path in leaves(phi.output)).backward()
    assert any(q.grad is not None and q.grad.abs().sum() > 0 for q in p.parameters())


def entry_of(y, path):
    for key in path:
        y = y[key]
    return y


def test_first_calls_from_several_threads():
    from concurrent.futures import ThreadPoolExecutor

    for _ in range(5):
        s = particles(ps.E(3))
        net = DefaultNet(s.inputs, s.group).double()
        with ThreadPoolExecutor(8) as pool:
            calls = [pool.submit(net, **s.call) for _ in range(8)]
        assert all(torch.equal(calls[0].result()[NODES], call.result()[NODES]) for call in calls)


def test_unknown_versions_are_refused():
    s = sets()
    with pytest.raises(ValueError, match="version"):
        DefaultNet(s.inputs, NODES, version=4)


# ---------------------------------------------------------------- features of one's own net


class Fixed(nn.Module):
    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, **kwargs):
        return self.value


@pytest.mark.parametrize(
    ("value", "error", "says"),
    [
        (torch.zeros(3, 4).double(), TypeError, "net: expected a dict of features by factor"),
        ({NODES: torch.zeros(3, 4).double()}, ValueError, r"net: expected features for E\(3\)"),
        (
            {NODES: torch.zeros(3, 5).double(), SPACE: torch.zeros(3, 3, 3).double()},
            ValueError,
            r"shape \(3, 4\), got \(3, 5\)",
        ),
        (
            {NODES: torch.zeros(3, 4).double(), SPACE: torch.zeros(3, 2, 3).double()},
            ValueError,
            r"features of E\(3\) of shape",
        ),
        (
            {NODES: torch.zeros(3, 4).double(), SPACE: (torch.zeros(3, 3).double(), torch.zeros(3, 3).double())},
            ValueError,
            r"got \(3, 3\)",
        ),
    ],
)
def test_bad_features(value, error, says):
    s = particles(SPACE)
    phi = ps.symmetrize(s.model, s.inputs, s.output, ps.Canonical(Fixed(value), NODES * SPACE))
    with pytest.raises(error, match=says):
        phi(**s.call)


def test_vectors_alone_take_the_centroid():
    s = particles(SPACE)
    z = {NODES: randn(3, 4), SPACE: randn(3, 3, 3)}
    centre = s.call["pos"].mean(1)
    a, b = (ps.symmetrize(s.model, s.inputs, s.output, ps.Canonical(Fixed(v), NODES * SPACE))(**s.call)
            for v in (z, {**z, SPACE: (centre, z[SPACE])}))  # fmt: skip
    assert torch.allclose(a, b, atol=1e-12)


def test_default_net_needs_something_to_orient():
    inputs = {"s": ps.Rep(ps.O(3), ps.O(3))}
    phi = ps.symmetrize(Base(9, ps.Rep(ps.O(3)), {(): (3,)}), inputs, ps.Rep(ps.O(3)), "canonical")
    with pytest.raises(ValueError, match="no input holds points or vectors"):
        phi(s=torch.zeros(2, 3, 3))


# ---------------------------------------------------------------- relaxation


def test_soft_permutations_are_doubly_stochastic_and_sharpen():
    z = randn(5, 6)
    for temperature in (1.0, 0.1):
        P = Relaxation(temperature, sinkhorn=100)(z)
        assert torch.allclose(P.sum(-1), torch.ones(5, 6).double(), atol=1e-3)
        assert torch.allclose(P.sum(-2), torch.ones(5, 6).double(), atol=1e-3)
    sharp = Relaxation(1e-3)(z)
    g = ps.S(6).project(z, torch.zeros_like(z))
    assert torch.allclose(sharp, nn.functional.one_hot(g.index, 6).double(), atol=1e-6)


def test_entropy():
    """Zero for a permutation, 2 log n where all scores are equal; padding does not count."""
    from probsym.reps import Layout

    relaxation = Relaxation()
    assert relaxation.entropy(100 * torch.arange(4.0)[None], Layout(4)) < 1e-6
    assert relaxation.entropy(torch.zeros(2, 4), Layout(4)).item() == pytest.approx(2 * math.log(4), rel=1e-4)
    mask = torch.tensor([[True] * 3 + [False] * 2])
    z = torch.randn(1, 3)
    padded = nn.functional.pad(z, (0, 2), value=5.0)
    assert relaxation.entropy(padded, Layout(5, mask)).item() == pytest.approx(
        relaxation.entropy(z, Layout(3)).item(), rel=1e-4
    )


@pytest.mark.parametrize("bad", [{"temperature": 0.0}, {"sinkhorn": -1}, {"sinkhorn": 0, "softmax": False}])
def test_bad_relaxations(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        Relaxation(**bad)


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("shape", [(2, 4), (0, 4), (2, 0)])
def test_pair_outputs_of_padded_graphs_learn(k, shape):
    """Outputs that are pairs, masks, several samples, empty batches and graphs: the gradient to p exists."""
    b, n = shape
    nodes = ps.S("nodes", mask="mask")

    class Model(nn.Module):
        def forward(self, adj, mask):
            return adj * torch.linspace(0, 1, n * n).view(n, n)

    phi = ps.symmetrize(Model(), {"adj": ps.Rep(nodes, nodes)}, ps.Rep(nodes, nodes), "learned", train_samples=k)
    mask = torch.arange(n) < torch.tensor([n, n - 1])[:b, None]
    adj = torch.randn(b, n, n) * mask[:, None] * mask[..., None]
    phi.train()(adj=adj, mask=mask).square().sum().backward()
    grads = [p.grad for p in phi.distribution.parameters() if p.grad is not None]
    assert all(g.isfinite().all() for g in grads)
    assert not b or not n or any(g.abs().max() > 0 for g in grads)


@pytest.mark.parametrize("distribution", ["learned", "canonical", "frame"])
def test_what_a_model_writes_to_its_padding_stays_there(distribution):
    nodes, space = ps.S("nodes", mask="mask"), ps.E(3, "space")

    class Model(nn.Module):
        def forward(self, pos, mask):
            return (pos.sin() * torch.linspace(0, 1, 4)[:, None]).masked_fill(~mask[..., None], float("nan"))

    phi = ps.symmetrize(Model(), {"pos": ps.Rep(nodes, space)}, ps.Rep(nodes, space.vector), distribution).train()
    mask = torch.arange(4) < torch.tensor([[4], [3]])
    pos = (torch.randn(2, 4, 3) * mask[..., None]).requires_grad_()
    y = phi(pos=pos, mask=mask)
    y.square().sum().backward()
    assert y.isfinite().all()
    assert all(t.grad.isfinite().all() for t in (pos, *phi.parameters()) if t.grad is not None)


def test_pairs_of_vectors_have_finite_gradients():
    """Relative positions vanish on the diagonal."""
    nodes, space = ps.S("nodes"), ps.O(3, "space")

    class Model(nn.Module):
        def forward(self, rel, vel):
            return rel.sum(2) + vel

    reps = {"rel": ps.Rep(nodes, nodes, space), "vel": ps.Rep(nodes, space)}
    phi = ps.symmetrize(Model(), reps, ps.Rep(nodes, space), "learned")
    pos = torch.randn(2, 4, 3, requires_grad=True)
    phi(rel=pos[:, :, None] - pos[:, None], vel=torch.randn(2, 4, 3)).square().sum().backward()
    assert pos.grad.isfinite().all()


class TakesMomenta(nn.Module):
    """A net of p whose argument has another name than that of the model."""

    def forward(self, momenta):
        return momenta


class BreaksInside(nn.Module):
    """A net of p that takes the arguments and raises a TypeError of its own."""

    def forward(self, pos):
        raise TypeError("of its own")


def test_a_net_that_cannot_take_the_arguments_of_the_model_is_named():
    space = ps.SO(3, "space")
    for net, message in [(TakesMomenta(), "TakesMomenta.forward .* by the same names"), (BreaksInside(), "of its own")]:
        p = ps.Canonical(net, space)
        phi = ps.symmetrize(nn.Identity(), {"pos": ps.Rep(space)}, ps.Rep(space), p).eval()
        with pytest.raises(TypeError, match=message):
            phi(pos=torch.randn(2, 3))
