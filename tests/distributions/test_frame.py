"""Frames of space, alone and with S_n: coupled noise, exact averages on generic and degenerate inputs, counts."""

import itertools
import math
import warnings

import pytest
import torch

import probsym as ps
from probsym.distributions import Frame
from probsym.groups import product
from probsym.reps import Inputs, Rep

SPACES = [ps.O, ps.SO, ps.E, ps.SE]


def points(*rows):
    return torch.tensor(rows, dtype=torch.float64)


CUBE = points(*itertools.product((-1, 1), repeat=3))
TETRAHEDRON = points((1, 1, 1), (1, -1, -1), (-1, 1, -1), (-1, -1, 1))
SQUARE = points((1, 1), (1, -1), (-1, -1), (-1, 1))
RANDOM = torch.randn(5, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
LINE = points(-1.0, 0.0, 0.5, 2.0)[:, None] * points(0.3, -0.5, 0.7) + 0.2
PLANE = torch.cat([RANDOM[:, :2], torch.zeros(5, 1)], 1)
CLOUDS = {
    "random": RANDOM,
    "cube": CUBE,
    "tetrahedron": TETRAHEDRON,
    "square": SQUARE,
    "square in space": torch.nn.functional.pad(SQUARE, (0, 1), value=0.3),
    "pentagon": torch.stack([torch.arange(5) * 2 * math.pi / 5 + s for s in (0, math.pi / 2)], 1).double().cos(),
    "line": LINE,
    "plane": PLANE,
    "coincident": torch.ones(3, 3, dtype=torch.float64).mul(0.7),
    "single": points((0.3, -0.2, 0.9)),
    "tiny": 1e-8 * RANDOM,
    "huge": 1e8 * RANDOM,
    "thin": RANDOM * points(1.0, 1e-3, 1e-5),
    "tiny cube": 1e-8 * CUBE,
    "one dimension": RANDOM[:, :1],
    "four dimensions": torch.cat([RANDOM, RANDOM[:, :1].square()], 1),
}


class Base(torch.nn.Module):
    """An MLP on everything that it gets, at unit size, with an output for every leaf of `shapes`."""

    def __init__(self, inputs, outputs, scale=1.0):
        super().__init__()
        torch.manual_seed(0)
        self.scale, self.outputs = scale, outputs
        width = sum(math.prod(s) for s in outputs.values())
        self.net = torch.nn.Sequential(torch.nn.Linear(inputs, 24), torch.nn.Tanh(), torch.nn.Linear(24, width))

    def forward(self, **x):
        rows = torch.cat([v.flatten(1) / (self.scale if k == "pos" else 1) for k, v in x.items()], 1)
        y = self.net(rows).split([math.prod(s) for s in self.outputs.values()], -1)
        return {k: v.view(len(v), *s) for v, (k, s) in zip(y, self.outputs.items(), strict=True)}


def make(space, first, pos, vel=None, degrees=(1, 0), distribution=None, scale=1.0):
    """A symmetrized MLP on a cloud (N, D) whose first axis is `first`: S, Axis or None."""
    n, d = pos.shape
    inputs = {"pos": Rep(first, space)} | ({} if vel is None else {"vel": Rep(first, space.vector)})
    outputs = {f"y{k}": (n, *[d] * k) for k in degrees}
    spec = {f"y{k}": Rep(first, *[space.vector] * k) for k in degrees}
    model = Base(n * d * len(inputs), outputs, scale).to(pos.dtype)
    group = product([space, *([] if first is None else [first])])
    frame = (distribution or Frame(group)).for_output(spec)
    data = {"pos": pos[None]} | ({} if vel is None else {"vel": vel[None]})
    return ps.symmetrize(model, inputs, spec, frame), data


def space_is_affine(family):
    """About the origin a single point is a vector; about its centroid it is nothing."""
    return family in (ps.E, ps.SE)


def element(x, group, seed=0, scale=1.0):
    """A random element h of batch shape (B,)."""
    generator = torch.Generator().manual_seed(seed)
    parts = {}
    for f in group.factors:
        shape = (x.count,)
        z = [x.stored(f).draw_noise(shape, generator=generator, dtype=x.dtype) for _ in range(2)]
        shift = scale * torch.randn(x.count, getattr(f, "dim", 1), generator=generator, dtype=x.dtype)
        parts[f] = x.stored(f).project((shift, z[0]) if f.anchored else z[0], z[1])
    return group.join(*parts.values())


def exact_error(phi, data, seed=0, scale=1.0):
    """|phi(h x) - h phi(x)| and that of the bare model, in units of the outputs."""
    x = phi.bind((), data)
    h = element(x, phi.group, seed, phi.model.scale)
    moved = x.act(h).kwargs
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        left, right, bare = phi(**moved), phi(**data), (phi.model(**moved), phi.model(**data))
    errors = []
    for a, b in ((left, right), bare):
        errors.append(max((a[k] - rep.act(h, b[k])).abs().max().item() for k, rep in phi.output.items()))
    return errors


@pytest.mark.parametrize("kind", [None, ps.Axis, ps.S])
@pytest.mark.parametrize("family", SPACES)
@pytest.mark.parametrize("name", CLOUDS)
def test_exact_on_every_cloud(name, family, kind):
    pos = CLOUDS[name]
    scale = pos.abs().max()
    phi, data = make(family(pos.shape[1]), kind("nodes") if kind else None, pos, scale=scale)
    for seed in range(2):
        error, bare = exact_error(phi, data, seed)
        assert error < 1e-10
    if pos.shape[1] > 1 and len(pos) > 1 and name != "coincident":
        assert bare > 1e-2


@pytest.mark.parametrize("family", SPACES)
@pytest.mark.parametrize("name", [name for name in CLOUDS if name != "thin"])  # 1e-5 is what float32 cannot turn
def test_float32(name, family):
    pos = CLOUDS[name].float()
    phi, data = make(family(pos.shape[1]), ps.S("nodes"), pos, scale=pos.abs().max())
    assert exact_error(phi, data)[0] < 1e-5


VELOCITIES = torch.randn(5, 3, generator=torch.Generator().manual_seed(6), dtype=torch.float64)


@pytest.mark.parametrize("kind", [None, ps.Axis, ps.S])
@pytest.mark.parametrize("family", SPACES)
@pytest.mark.parametrize("name", ["random", "line", "cube", "square in space", "coincident", "single", "zero"])
def test_velocities_resolve_what_points_leave_open(name, family, kind):
    pos = torch.zeros(4, 3, dtype=torch.float64) if name == "zero" else CLOUDS[name]
    vel = VELOCITIES.repeat(2, 1)[: len(pos)]
    phi, data = make(family(3), kind("nodes") if kind else None, pos, vel)
    error, bare = exact_error(phi, data)
    assert error < 1e-10 < 1e-2 < bare
    counters = phi.estimate(**data).aux
    assert counters["sampled"] == 0
    assert counters["continuous_stabilizer"] == (name == "single" and space_is_affine(family))


@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
@pytest.mark.parametrize("kind", [None, ps.Axis, ps.S])
@pytest.mark.parametrize("family", SPACES)
@pytest.mark.parametrize("name", ["random", "cube", "square", "line", "coincident", "single", "four dimensions"])
def test_transport_moves_with_input_and_noise(name, family, kind, shape):
    pos = CLOUDS[name]
    space, first = family(pos.shape[1]), kind("nodes") if kind else None
    assert coupling_error(pos, space, first, shape) < 1e-10


def coupling_error(pos, space, first, shape=(5,), frame=None):
    """transport(h x, h eps) against h transport(x, eps), seen by a generic tensor that both act on."""
    x = Inputs.bind({"pos": Rep(first, space)}, (), {"pos": torch.stack([pos, pos.flip(0)])})
    p = (frame or Frame)(x.group)
    noise = p.noise(x, shape, torch.Generator().manual_seed(1))
    h = element(x, x.group)
    left = p.transport(x.act(h), p.move_noise(x, h, noise))
    right = p.transport(x, noise).map(lambda t, _: t)
    assert right.shape == (*shape, 2) if first is None or not first.batch else True
    probe = torch.randn(*shape, 2, *pos.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    rep = Rep(first, space.vector)
    spread = h.map(lambda t, _: t.expand(*shape, *t.shape))
    return (rep.act(left, probe) - rep.act(spread, rep.act(right, probe))).abs().max().item()


def test_inputs_of_a_batch_are_independent():
    clouds = torch.stack([RANDOM, torch.zeros(5, 3).double(), LINE[[0, 1, 2, 3, 0]], PLANE, 1e-8 * RANDOM])
    space, nodes = ps.E(3), ps.Axis("nodes")
    phi, _ = make(space, nodes, RANDOM)
    together = phi(pos=clouds)
    for i, cloud in enumerate(clouds):
        alone = phi(pos=cloud[None])
        for key in alone:
            torch.testing.assert_close(together[key][i], alone[key][0], rtol=0, atol=1e-12)
    assert phi.estimate(pos=clouds).samples.tolist() == [8] * 5


@pytest.mark.parametrize("kind", [None, ps.S])
@pytest.mark.parametrize("family", SPACES)
@pytest.mark.parametrize("name", ["line", "coincident", "single"])
def test_outputs_of_degree_two_do_not_feel_a_continuous_stabilizer(name, family, kind):
    phi, data = make(family(3), kind("nodes") if kind else None, CLOUDS[name][:2], degrees=(2, 1, 0))
    assert exact_error(phi, data)[0] < 1e-10
    aux = phi.estimate(**data).aux
    assert aux["continuous_stabilizer"] == (name != "line" or space_is_affine(family))
    assert aux["sampled"] == 0


def test_outputs_of_degree_three_are_sampled_counted_and_told():
    phi, data = make(ps.E(3), ps.Axis("nodes"), LINE, degrees=(3,))
    with pytest.warns(UserWarning, match="drawn at random"):
        estimate = phi.estimate(**data)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        phi(**data)
    assert estimate.aux["sampled"] == 1
    assert estimate.samples.tolist() == [16]
    assert (estimate.stderr["y3"] > 0).all()
    assert make(ps.E(3), None, RANDOM, degrees=(3,))[0].estimate(pos=RANDOM[None]).aux["sampled"] == 0


@pytest.mark.parametrize("kind", [None, ps.Axis, ps.S])
@pytest.mark.parametrize("name", CLOUDS)
def test_gradients_are_finite(name, kind):
    phi, data = make(ps.SE(CLOUDS[name].shape[1]), kind("nodes") if kind else None, CLOUDS[name])
    pos = data["pos"].requires_grad_()
    y = phi(pos=pos)
    (grad,) = torch.autograd.grad(y["y1"].square().sum() + y["y0"].sin().sum(), pos, create_graph=True)
    (second,) = torch.autograd.grad(grad.square().sum(), pos)
    assert grad.isfinite().all()
    assert second.isfinite().all()


@pytest.mark.parametrize("name", ["random", "cube ordered", "line with velocities", "isotropic"])
def test_gradients_agree_with_finite_differences(name):
    """Also along changes that keep a degenerate input degenerate: its group and its size."""
    if name == "random":
        phi, data = make(ps.E(3), ps.S("nodes"), RANDOM, VELOCITIES)
        flat = tuple(v.requires_grad_() for v in data.values())
        run = lambda *v: phi(**dict(zip(data, v, strict=True)))["y1"]  # noqa: E731
        assert torch.autograd.gradcheck(run, flat, atol=1e-6)
        short = lambda pos: phi(pos=pos, vel=data["vel"])["y1"].square().sum()  # noqa: E731
        assert torch.autograd.gradgradcheck(short, (data["pos"],), atol=1e-5)
        return
    vel = VELOCITIES[:4] if "velocities" in name else None
    pos = {"cube ordered": CUBE, "line with velocities": LINE, "isotropic": TETRAHEDRON}[name]
    phi, data = make(ps.E(3), None if "ordered" in name else ps.Axis("nodes"), pos, vel)
    skew = torch.randn(3, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    skew = skew - skew.mT

    def run(t):
        turned = pos @ torch.matrix_exp(t[0] * skew) * (1 + t[1]) + t[2]
        return phi(**{**data, "pos": turned[None]})["y1"]

    assert torch.autograd.gradcheck(run, (torch.zeros(3).double().requires_grad_(),), atol=1e-6)


def test_masked_nodes_do_not_matter():
    nodes, space = ps.S("nodes", mask="mask"), ps.SE(3)
    p = Frame(nodes * space)
    sizes = [0, 1, 4, 8, 5]
    clouds = [torch.zeros(0, 3).double(), CLOUDS["single"], TETRAHEDRON, CUBE, RANDOM]
    padded = torch.stack([torch.nn.functional.pad(c, (0, 0, 0, 9 - len(c))) for c in clouds])
    mask = torch.arange(9) < torch.tensor(sizes)[:, None]
    spec = {"pos": Rep(nodes, space)}
    x = Inputs.bind(spec, (), {"pos": padded, "mask": mask})
    support = p.support(x)
    assert (support.weight > 0).sum(0).tolist() == [4, 4, 12, 24, 4]
    for i, cloud in enumerate(clouds[1:], 1):
        alone = p.support(Inputs.bind(spec, (), {"pos": cloud[None], "mask": torch.ones(1, len(cloud)).bool()}))
        g, one = support.element.inverse(), alone.element.inverse()
        seen = Rep(nodes, space).act(g, padded, 1)[: len(alone.weight), i, : len(cloud)]
        want = Rep(nodes, space).act(one, cloud[None], 1)[:, 0]
        if i not in (1,):  # a single point has no axes: the basis is drawn
            torch.testing.assert_close(seen.sum(0), want.sum(0), rtol=0, atol=1e-10)
        assert support.element[nodes].index[:, i].sort(-1).values.equal(torch.arange(9).expand(len(support.weight), 9))


@pytest.mark.parametrize(("dtype", "shift"), [(torch.float64, 1e4), (torch.float32, 1e2)])
@pytest.mark.parametrize("name", ["random", "cube", "square in space", "line", "coincident", "plane"])
def test_far_from_the_origin(name, dtype, shift):
    phi, data = make(ps.E(3), ps.S("nodes"), (CLOUDS[name] + shift).to(dtype), scale=shift)
    assert exact_error(phi, data)[0] < (1e-10 if dtype == torch.float64 else 1e-5)


class Flat(torch.nn.Module):
    """An MLP on all inputs, with one output of the given shape."""

    def __init__(self, width, *shape):
        super().__init__()
        torch.manual_seed(0)
        self.net = torch.nn.Sequential(
            torch.nn.Linear(width, 16), torch.nn.Tanh(), torch.nn.Linear(16, math.prod(shape))
        )
        self.shape, self.scale = shape, 1.0

    def forward(self, **x):
        return {"y": self.net(torch.cat([v.flatten(1) for v in x.values()], 1)).view(-1, *self.shape)}


NODES, ITEMS, SPACE, SHEET = ps.S("nodes"), ps.S("items"), ps.E(3), ps.O(2, "sheet")
GENERATOR = torch.Generator().manual_seed(8)


def normal(*shape):
    return torch.randn(*shape, generator=GENERATOR, dtype=torch.float64)


@pytest.mark.parametrize(
    ("spec", "data"),
    [
        ({"pos": Rep(NODES, SPACE)}, {"pos": torch.stack([normal(4, 3, 2), torch.stack([TETRAHEDRON] * 2, -1)])}),
        ({"pos": Rep(NODES, SPACE), "edge": Rep(NODES, NODES)}, {"pos": TETRAHEDRON[None], "edge": normal(1, 4, 4)}),
        (
            {"bi": Rep(NODES, ITEMS), "pos": Rep(NODES, SPACE), "w": Rep(ITEMS, SHEET), "u": Rep(ITEMS)},
            {"bi": normal(2, 4, 3), "pos": torch.stack([normal(4, 3), TETRAHEDRON]), "w": normal(2, 3, 2),
             "u": torch.tensor([[1.0, 1, 1], [0, 2, 5]], dtype=torch.float64)},
        ),
        (
            {"bi": Rep(NODES, ITEMS), "pos": Rep(NODES, SPACE), "w": Rep(ITEMS, SHEET)},
            {"bi": torch.zeros(1, 4, 3).double(), "pos": TETRAHEDRON[None], "w": normal(1, 3, 2)},
        ),
        (
            {"pos": Rep(NODES, SPACE), "t": Rep(NODES, SPACE.vector, SPACE.vector), "chi": Rep(SPACE.det)},
            {"pos": normal(2, 4, 3), "t": normal(2, 4, 3, 3), "chi": normal(2, 1)},
        ),
    ],
)  # fmt: skip
def test_products_channels_and_other_slots(spec, data):
    x = Inputs.bind(spec, (), data)
    model = Flat(sum(v[0].numel() for v in data.values()), 4, 3).double()
    phi = ps.symmetrize(model, spec, {"y": Rep(NODES, SPACE)}, Frame(x.group, max_support=128))
    error, bare = exact_error(phi, data)
    assert error < 1e-10 < 1e-2 < bare


def test_product_of_two_frames():
    phi = ps.symmetrize(Flat(12, 4, 3).double(), {"pos": Rep(NODES, SPACE)}, {"y": Rep(NODES, SPACE)},
                        Frame(NODES) * Frame(SPACE))  # fmt: skip
    for pos in (normal(2, 4, 3), TETRAHEDRON[None]):
        assert exact_error(phi, {"pos": pos})[0] < 1e-10


def test_no_nodes_and_no_inputs():
    p = Frame(NODES * SPACE)
    for shape, frames_each in (((2, 0, 3), 8), ((0, 4, 3), 1), ((0, 0, 3), 1)):
        x = Inputs.bind({"pos": Rep(NODES, SPACE)}, (), {"pos": torch.zeros(shape)})
        assert p.support(x).element.shape == (frames_each, shape[0])
        assert p.transport(x, p.noise(x, (3,))).shape == (3, shape[0])


def test_options_and_errors():
    with pytest.raises(ValueError, match="max_support"):
        Frame(ps.O(3), max_support=0)
    with pytest.raises(ValueError, match="samples"):
        Frame(ps.O(3), samples=True)
    with pytest.raises(ValueError, match="declared as points"):
        Frame(ps.E(3)).support(Inputs.bind({"v": Rep(None, ps.E(3).vector)}, (), {"v": RANDOM[None]}))


class TiesByOrder(Frame):
    """A frame that is wrong on purpose: equal nodes keep the order in which they came."""

    def transport(self, x, noise, diagnostics=None):
        fallback = {f: torch.arange(float(t.shape[-1])).expand_as(t) if isinstance(f, ps.S) else t
                    for f, t in noise["fallback"].items()}  # fmt: skip
        return super().transport(x, {**noise, "fallback": fallback}, diagnostics)


def test_negative_control_ties_broken_by_input_order():
    pos = torch.ones(4, 3).double()
    assert coupling_error(pos, ps.E(3), ps.S("nodes")) < 1e-10
    assert coupling_error(pos, ps.E(3), ps.S("nodes"), frame=TiesByOrder) > 1e-2


def test_a_frame_beside_an_axis_stays_exact():
    """Nodes that a model treats alike have nothing to average, so they do not turn a frame into samples of it."""
    nodes, space = ps.Axis("nodes"), ps.SO(2, "space")
    for p in (ps.Frame(space), ps.Canonical(torch.nn.Identity(), space)):
        phi = ps.symmetrize(torch.nn.Identity(), ps.Rep(nodes, space), ps.Rep(nodes, space), p)
        assert phi.eval_estimator == ps.Exact()
