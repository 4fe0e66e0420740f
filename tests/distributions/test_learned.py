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
        (torch.zeros(3, 4).double(), TypeError, "net: expected a dict of ambient features by factor"),
        ({NODES: torch.zeros(3, 4).double()}, ValueError, r"net: expected ambient features for E\(3\)"),
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
    phi = ps.symmetrize(Base(4, ps.Rep(ps.O(3)), {(): (3,)}), {"s": ps.Rep()}, ps.Rep(ps.O(3)), "canonical")
    with pytest.raises(ValueError, match="no input holds points or vectors"):
        phi(s=torch.zeros(2, 4))


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
    from probsym.groups import Layout

    relaxation = Relaxation()
    assert relaxation.entropy(100 * torch.arange(4.0)[None], Layout(4)) < 1e-6
    assert relaxation.entropy(torch.zeros(2, 4), Layout(4)).item() == pytest.approx(2 * math.log(4), rel=1e-4)
    mask = torch.tensor([[True] * 3 + [False] * 2])
    z = torch.randn(1, 3)
    padded = nn.functional.pad(z, (0, 2), value=5.0)
    assert relaxation.entropy(padded, Layout(5, mask)).item() == pytest.approx(
        relaxation.entropy(z, Layout(3)).item(), rel=1e-4
    )


@pytest.mark.parametrize("bad", [{"temperature": 0.0}, {"sinkhorn": -1}])
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
