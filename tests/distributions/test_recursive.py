"""g = h gamma(h^-1 x): equivariant whatever the net is, smooth where its head is, and light-tailed forces."""

import math

import pytest
import torch
from torch import nn

import probsym as ps
from cases import SETTINGS, close, coupled_error, randn, seeded
from probsym.distributions import EquivariantDistribution, PlainNet, Recursive, SmallAngle, UnitQuaternion
from probsym.distributions.recursive import quaternion_rotation
from probsym.testing import assert_distribution, assert_equivariant

ATOMS, SPACE = ps.Axis("atoms"), ps.SE(3, "space")


class Flat(nn.Module):
    """Any function of all coordinates: it knows no symmetry."""

    def __init__(self, entries, *shape, seed=0, scale=1.0, dtype=torch.float64):
        super().__init__()
        self.shape = shape
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.inner = nn.Linear(entries, 32, dtype=dtype)
            self.outer = nn.Linear(32, math.prod(shape), dtype=dtype)
        self.scale = scale

    def forward(self, *args, **kwargs):
        rows = torch.cat([t.flatten(1) for t in (*args, *kwargs.values())], 1)
        return self.scale * self.outer(self.inner(rows).tanh()).reshape(-1, *self.shape)


# ---------------------------------------------------------------- the law


HEADS = {"small-angle": 3, "quaternion": 4, SmallAngle(1.0): 3}


@pytest.mark.parametrize("group", [ps.O(3), ps.SO(3), ps.E(3), ps.SE(3)], ids=repr)
@pytest.mark.parametrize("head", HEADS, ids=repr)
def test_heads_in_space(group, head):
    x = randn(3, 4, 3) + 2
    p = Recursive(Flat(12, HEADS[head]), group, head)
    assert_distribution(p, x, ps.Rep(None, group))


@pytest.mark.parametrize("dim", [1, 2, 4])
def test_other_dimensions(dim):
    x = randn(3, 5, dim)
    numbers = dim * (dim - 1) // 2
    shape = (numbers,) if numbers else (1, 1)
    assert_distribution(Recursive(Flat(5 * dim, *shape), ps.E(dim)), x, ps.Rep(None, ps.E(dim)))
    assert_distribution(Recursive(Flat(5 * dim, dim, dim), ps.O(dim), "project"), x, ps.Rep(None, ps.O(dim)))


FINITE = {
    repr(group): (group, rep, shape, x)
    for group, rep, shape, x in [
        (ps.C(4), ps.Rep(None, ps.C(4)), (4,), randn(3, 2, 3, 3)),
        (ps.D(4), ps.Rep(None, ps.D(4)), (8,), randn(3, 2, 3, 3)),
        (ps.Shift((2, 3)), ps.Rep(None, ps.Shift((2, 3))), (2, 3), randn(3, 2, 2, 3)),
        (ps.Signs(3), ps.Rep(None, ps.Signs(3)), (3,), randn(3, 2, 3)),
        (ps.Tetrahedral(), ps.Rep(None, ps.Tetrahedral()), (12,), randn(3, 4, 3)),
        (ps.O(1), ps.Rep(None, ps.O(1)), (1, 1), randn(3, 4, 1)),
        (ps.S("nodes"), ps.Rep(ps.S("nodes"), None), (4,), randn(3, 4, 2)),
    ]
}


@pytest.mark.parametrize("name", FINITE)
def test_finite_groups_are_listed(name):
    """`Exact` is the average over all h, by hand."""
    group, rep, shape, x = FINITE[name]
    p = Recursive(Flat(x[0].numel(), *shape), group).eval()
    assert_distribution(p, x, rep)
    phi = ps.symmetrize(Flat(x[0].numel(), 5), rep, ps.Rep(), p, eval_samples=ps.Exact()).eval()
    assert_equivariant(phi, x)
    bound = phi.bind((x,), {})
    h = ps.Haar(group).support(bound).element
    moved = rep.act(h.inverse(), x, 1)
    outputs = []
    for number in range(h.shape[0]):
        z = p.net(moved[number])
        gamma = bound.stored(group).project(z, torch.zeros_like(z))
        outputs.append(phi.model(rep.act(gamma.inverse(), moved[number])))
    assert torch.allclose(phi(x), torch.stack(outputs).mean(0), atol=1e-12)
    assert (phi.estimate(x).stderr == 0).all()


def test_complex_groups():
    """U(2) acts on complex columns, which `project` orthonormalises."""
    group = ps.U(2)
    x = torch.complex(randn(3, 4, 2), randn(3, 4, 2, seed=2))

    class Columns(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = Flat(16, 2, 2, 2)

        def forward(self, x):
            return torch.view_as_complex(self.net(torch.view_as_real(x)))

    assert_distribution(Recursive(Columns(), group), x, ps.Rep(None, group))


def test_ties_are_drawn_and_counted():
    """A net that tells nothing apart leaves the fallback to decide: a uniform order, which is one draw."""

    class Zero(nn.Module):
        def forward(self, x):
            return torch.zeros_like(x[..., 0])

    nodes = ps.S("nodes")
    x, rep = randn(3, 4, 2), ps.Rep(nodes)
    p = Recursive(Zero(), nodes)
    assert_distribution(p, x, rep)
    phi = ps.symmetrize(Flat(8, 2), rep, ps.Rep(), p).eval()
    estimate = phi.estimate(x, estimator=ps.Exact())
    assert not estimate.stderr.isfinite().any()
    assert estimate.diagnostics["degenerate"] == 3


class Twin(EquivariantDistribution):
    """Built from the parts of a right one, in some order."""

    def __init__(self, p, order):
        super().__init__(p.group)
        self.p, self.order = p, order

    def noise(self, x, shape=(), generator=None):
        return self.p.noise(x, shape, generator)

    def noise_rep(self, x):
        return self.p.noise_rep(x)

    def transport(self, x, noise, diagnostics=None):
        h = self.p.uniform.transport(x, noise["features"])
        gamma = h.inverse() @ self.p.transport(x, noise)
        if self.order == "h gamma":
            return h @ gamma
        if self.order == "gamma h":
            return gamma @ h
        # gamma(x): the net at the input itself, instead of at the pose
        (pos,) = x.args
        matrix = SmallAngle().rotation(self.p.net(pos), 3)
        return h @ self.group.identity(h.shape, dtype=pos.dtype).map(lambda *_: matrix.expand(*h.shape, 3, 3))


def test_the_wrong_side_is_rejected():
    group = ps.SO(3)
    x, rep = randn(3, 4, 3), ps.Rep(None, group)
    p = Recursive(Flat(12, 3, scale=5.0), group)
    assert_distribution(Twin(p, "h gamma"), x, rep)
    for wrong in ("gamma h", "gamma(x)"):
        with pytest.raises(AssertionError, match="transport"):
            assert_distribution(Twin(p, wrong), x, rep)


def test_noise_that_is_declared_to_stay_is_rejected():
    group = ps.SO(3)

    class Still(Twin):
        def noise_rep(self, x):
            reps = self.p.noise_rep(x)
            still = {group: ps.Rep(None, None)}
            return {**reps, "features": {"features": still, "fallback": still}}

    with pytest.raises(AssertionError, match="transport"):
        assert_distribution(Still(Recursive(Flat(12, 3), group), "h gamma"), randn(3, 4, 3), ps.Rep(None, group))


# ---------------------------------------------------------------- storage, sizes, products


def test_a_factor_that_the_net_leaves_alone_stays_uniform():
    s = SETTINGS["S x E(3)"]()
    nodes, space = ps.S("nodes"), ps.E(3)

    class Orders(nn.Module):
        """Scores that know the whole pose, rotations included."""

        def __init__(self):
            super().__init__()
            self.flat = Flat(4 * 3 * 2 + 16, 4)

        def forward(self, **kwargs):
            return {nodes: self.flat(**kwargs), space: None}

    p = Recursive(Orders(), nodes * space)
    assert_distribution(p, s.call, s.inputs)
    phi = s.symmetrized(p)
    x = phi.bind((), s.call)
    noise = p.noise(x, (5,), seeded())
    g, h = p.transport(x, noise), p.uniform.transport(x, noise["features"])
    assert torch.allclose(g[space].matrix, h[space].matrix, atol=1e-12)
    assert not torch.equal(g[nodes].index, h[nodes].index)


@pytest.mark.parametrize("setting", ["padded S x E(3)", "ragged S x E(3)"])
def test_products_with_an_invariant_net(setting):
    """A net over the order alone, which must not see how space is turned, beside uniform rotations."""
    s = SETTINGS[setting]()
    nodes = next(f for f in s.group.factors if isinstance(f, ps.S))
    space = ps.E(3)
    p = Recursive(PlainNet({"charge": s.inputs["charge"]}, nodes), nodes)

    class OnCharges(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = p.net

        def forward(self, pos, charge, edge_index=None, **marker):
            return self.net(charge=charge, **marker)

    joint = Recursive(OnCharges(), nodes) * ps.Haar(space, origin="centroid")
    assert_distribution(joint, s.call, s.inputs)
    assert coupled_error(s.symmetrized(joint), s.call) < 1e-10


@pytest.mark.parametrize("setting", ["S x E(3)", "padded S x E(3)", "ragged S x E(3)"])
def test_rotations_of_the_default_net_beside_any_order(setting):
    """Where p does not cover the order of the nodes, its default net does not see it."""
    s = SETTINGS[setting]()
    nodes = next(f for f in s.group.factors if isinstance(f, ps.S))
    space = ps.E(3)
    assert_distribution(Recursive(PlainNet(s.inputs, space), space) * ps.Haar(nodes), s.call, s.inputs)


@pytest.mark.parametrize("setting", ["S x E(3)", "padded S x E(3)", "ragged S x E(3)"])
def test_one_input_is_the_same_alone(setting):
    """B = 1 and k = 1: what an input gets does not depend on its batch."""
    s = SETTINGS[setting]()
    phi = s.symmetrized("recursive")
    for samples in (1, 3):
        x = phi.bind((), s.call)
        first = torch.arange(x.count) == 0
        alone = x.select(first)
        noise = phi.distribution.noise(x, (samples,), seeded())
        own = phi.distribution.noise(alone, (samples,), seeded())
        g = phi.distribution.transport(x, noise)
        assert g.shape == (samples, x.count)
        assert phi.distribution.transport(alone, own).shape == (samples, 1)
    for space in (f for f in s.group.factors if f.isometric):
        kept = {f: eps[:, :1] for f, eps in noise["features"]["features"].items() if f == space}
        assert kept[space].shape == own["features"]["features"][space].shape


def test_noise_of_any_sample_shape():
    p = Recursive(Flat(12, 3), SPACE)
    phi = ps.symmetrize(Flat(12, 2), ps.Rep(None, SPACE), ps.Rep(), p)
    x = phi.bind((randn(2, 4, 3),), {})
    noise = p.noise(x, (2, 3), seeded())
    g = p.transport(x, noise)
    assert g.shape == (2, 3, 2)
    flat = {
        "features": {key: {SPACE: eps[SPACE].flatten(0, 1)} for key, eps in noise["features"].items()},
        "fallback": {SPACE: noise["fallback"][SPACE].flatten(0, 1)},
    }
    assert torch.equal(g.matrix.flatten(0, 1), p.transport(x, flat).matrix)
    one = p.transport(x, p.noise(x, (), seeded()))
    assert one.shape == (2,)


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_precision(kind):
    """Elements are at least float32, outside of autocast; outputs come in the dtype of the inputs."""
    inputs = {"pos": ps.Rep(None, SPACE)}
    pos = randn(2, 5, 3).to(kind)

    class Far(nn.Module):
        def forward(self, pos):
            return pos.float().square().sum((1, 2))[:, None].to(pos.dtype)

    phi = ps.symmetrize(Far(), inputs, ps.Rep(), "recursive", example={"pos": pos}).eval()
    with torch.autocast("cpu", torch.bfloat16):
        y = phi(pos=pos, generator=seeded())
        x = phi.bind((), {"pos": pos})
        g = phi.distribution.transport(x, phi.distribution.noise(x, (3,), seeded()))
    assert y.dtype == kind
    assert g.matrix.dtype == torch.float32
    assert SPACE.violation(g).max() < 1e-5


def test_estimators_and_designs():
    phi = ps.symmetrize(Flat(12, 2), ps.Rep(None, ps.SO(3)), ps.Rep(), Recursive(Flat(12, 3), ps.SO(3)))
    phi = phi.double().eval()
    x = randn(2, 4, 3)
    plain = phi(x, estimator=ps.MonteCarlo(3), generator=seeded())
    assert torch.equal(phi(x, estimator=ps.MonteCarlo(3), generator=seeded()), plain)
    assert close(phi(x, estimator=ps.MonteCarlo(6, chunk=2), generator=seeded()), phi(x, samples=6, generator=seeded()))
    assert phi.estimate(x, tol=0.2, generator=seeded()).stderr.max() < 0.25
    in_cosets = ps.symmetrize(phi.model, ps.Rep(None, ps.SO(3)), ps.Rep(), phi.distribution)
    in_cosets.eval_estimator = ps.MonteCarlo(24, design="octahedral")
    assert_equivariant(in_cosets.eval(), x)


# ---------------------------------------------------------------- saving


@pytest.mark.parametrize("head", ["small-angle", "quaternion", SmallAngle(1.5)], ids=repr)
def test_saving(head, tmp_path):
    s = SETTINGS["S x E(3)"]()
    phi = s.symmetrized(Recursive(PlainNet(s.inputs, s.group, head, hidden=8), s.group, head))
    ps.save(phi, tmp_path)
    again = ps.load(tmp_path, SETTINGS["S x E(3)"]().model).eval()
    assert again.distribution.head == head
    assert torch.equal(again(**s.call, generator=seeded()), phi(**s.call, generator=seeded()))


# ---------------------------------------------------------------- derivatives


def test_cayley_and_quaternions():
    a = randn(5, 3)
    turn = SmallAngle(2.5).rotation(a, 3)
    one = torch.eye(3).double()
    assert torch.allclose(turn @ turn.mT, one.expand_as(turn), atol=1e-14)
    assert torch.allclose((turn @ a.unsqueeze(-1)).squeeze(-1), a, atol=1e-13)  # about the axis a
    vector = randn(5, 3, seed=2)
    small = SmallAngle(2.5).rotation(1e-8 * a, 3)
    turned = ((small - one) @ vector.unsqueeze(-1)).squeeze(-1) / 1e-8
    assert torch.allclose(turned, torch.linalg.cross(a, vector), atol=1e-4)
    for dim in (2, 4):
        numbers = randn(5, dim * (dim - 1) // 2)
        turn = SmallAngle(2.5).rotation(numbers, dim)
        assert torch.allclose(turn @ turn.mT, torch.eye(dim).double().expand_as(turn), atol=1e-13)
        assert torch.allclose(torch.linalg.det(turn), torch.ones(5).double())
    q = randn(5, 4)
    for factor in (-1.0, 1e-30, 1e30):
        assert torch.allclose(quaternion_rotation(factor * q), quaternion_rotation(q), atol=1e-12)
    zero = torch.zeros(1, 4, requires_grad=True)
    UnitQuaternion().rotation(zero, 3).sum().backward()
    assert torch.equal(UnitQuaternion().rotation(zero, 3)[0], torch.eye(3))
    assert zero.grad.isfinite().all()


def energy(dtype=torch.float64):
    return Flat(12, 1, seed=3, scale=3.0, dtype=dtype)


@pytest.mark.parametrize(("head", "numbers"), [("small-angle", (3,)), ("quaternion", (4,)), ("project", (3, 3))])
def test_forces_and_force_training(head, numbers):
    """First and second derivatives of a frozen energy are those of finite differences, in x and in all parameters."""
    p = Recursive(Flat(12, *numbers, scale=2.0), SPACE, head)
    phi = ps.symmetrize(energy(), {"pos": ps.Rep(ATOMS, SPACE)}, ps.Rep(), p).double().train()
    pos, target, direction = randn(2, 4, 3), randn(2, 4, 3, seed=5), randn(2, 4, 3, seed=6)
    noise = phi.draw_noise(pos=pos, samples=2, generator=seeded())

    def force(at, trains=True):
        at = at.detach().requires_grad_()
        return -torch.autograd.grad(phi(pos=at, noise=noise).sum(), at, create_graph=trains)[0]

    def slope(fn, step=1e-5):
        return (fn(step) - fn(-step)) / (2 * step)

    with torch.no_grad():
        by_hand = slope(lambda step: phi(pos=pos + step * direction, noise=noise).sum())
    assert torch.allclose(-(force(pos) * direction).sum(), by_hand, atol=1e-8)

    loss = (force(pos) - target).square().sum()
    parameters = [q for name, q in phi.named_parameters() if name != "model.outer.bias"]  # no force has it
    found = torch.autograd.grad(loss, parameters)
    steps = [randn(*q.shape, seed=7) for q in parameters]

    def moved(step):
        for q, way in zip(parameters, steps, strict=True):
            q.data += step * way
        value = (force(pos, trains=False) - target).square().sum()
        for q, way in zip(parameters, steps, strict=True):
            q.data -= step * way
        return value

    along = sum((g * way).sum() for g, way in zip(found, steps, strict=True))
    assert torch.allclose(along, slope(moved), rtol=1e-6)
    assert all((g != 0).any() for g in found)


def test_function_transforms_agree():
    """Forward mode and vmap, with the noise held."""
    pos, way = randn(2, 4, 3), randn(2, 4, 3, seed=6)
    phi = ps.symmetrize(energy(), {"pos": ps.Rep(None, SPACE)}, ps.Rep(), "recursive", example={"pos": pos})
    phi = phi.double().eval()
    noise = phi.draw_noise(pos=pos, samples=2, generator=seeded())

    def total(at):
        return phi(pos=at, noise=noise).sum()

    slope = torch.func.jvp(total, (pos,), (way,))[1]
    assert torch.allclose(slope, (torch.func.grad(total)(pos) * way).sum(), atol=1e-12)
    # one noise for all rows
    lifted = {
        "features": {key: {SPACE: eps[SPACE][:, :1]} for key, eps in noise["features"].items()},
        "fallback": {SPACE: noise["fallback"][SPACE][:, :1]},
    }
    rows = torch.vmap(lambda at: phi(pos=at[None], noise=lifted).squeeze(0))(pos)
    assert torch.allclose(rows[:1], phi(pos=pos[:1], noise=lifted), atol=1e-12)


def test_symmetric_clouds_train():
    """Second derivatives are finite where all points are in one place, or in line."""
    line = torch.tensor([[-1.0, 0, 0], [0, 0, 0], [1, 0, 0], [2, 0, 0]])
    pos = torch.stack([torch.ones(4, 3), line]).double().requires_grad_()
    phi = ps.symmetrize(energy(), {"pos": ps.Rep(ATOMS, SPACE)}, ps.Rep(), "recursive").double().train()
    (force,) = torch.autograd.grad(phi(pos=pos).sum(), pos, create_graph=True)
    force.square().sum().backward()
    assert pos.grad.isfinite().all()
    for name, parameter in phi.named_parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all(), name


def test_energies_are_continuous_along_a_path():
    """Through a tetrahedron, next to which frames jump: equal steps of x give nearly equal steps of a frozen energy."""
    corners = torch.tensor([[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]).double()
    way = randn(4, 3)
    phi = ps.symmetrize(energy(), {"pos": ps.Rep(None, SPACE)}, ps.Rep(), "recursive").double().eval()
    path = corners + torch.linspace(-0.1, 0.1, 401).double()[:, None, None] * way
    one = phi.draw_noise(pos=path[:1], samples=8, generator=seeded())
    turns = {key: {SPACE: eps[SPACE].expand(8, 401, 3, 3)} for key, eps in one["features"].items()}
    noise = {"features": turns, "fallback": {SPACE: one["fallback"][SPACE].expand(8, 401, 3, 3)}}
    with torch.no_grad():
        steps = phi(pos=path, noise=noise).diff(dim=0).abs()
    assert steps.max() < 1.5 * steps.median()


def hill(norms, top):
    """Hill's estimate of the tail index from the largest `top` values."""
    ordered = norms.sort(descending=True).values
    return float(1 / (ordered[:top] / ordered[top]).log().mean())


def test_tails_of_forces():
    """Hill's estimate from the top 200 of 20,000 forces of one sample at one geometry.

    In the limit 200 / estimate is Gamma(200) over the tail index: with index 2 (`Learned`) an estimate above 3 has
    probability 5e-7; with index 4 or less, one above 6 has probability 5e-7.
    """
    torch.manual_seed(0)
    pos = 1.5 * torch.randn(1, 4, 3)
    indices = {}
    for name in ("learned", "recursive"):
        model = energy(torch.float32)
        phi = ps.symmetrize(model, {"pos": ps.Rep(ATOMS, SPACE)}, ps.Rep(), name, example={"pos": pos})
        norms = []
        for seed in range(4):
            at = pos.expand(5000, 4, 3).clone().requires_grad_()
            (gradient,) = torch.autograd.grad(phi(pos=at, generator=seeded(seed)).sum(), at)
            norms.append(gradient.flatten(1).norm(dim=1))
        indices[name] = hill(torch.cat(norms), 200)
    assert indices["learned"] < 3
    assert indices["recursive"] > 6


def test_a_quaternion_head_has_finite_variance():
    """Numbers that surround zero: the derivative grows as 1/r in four dimensions, tail index 4; 3 and 5.5 are 1e-6."""
    z = torch.randn(200_000, 4, generator=seeded(), dtype=torch.float64).requires_grad_()
    w = randn(3, 3)
    (gradient,) = torch.autograd.grad((UnitQuaternion().rotation(z, 3) * w).sum(), z)
    assert 3 < hill(gradient.norm(dim=1), 300) < 5.5


# ---------------------------------------------------------------- gradients of orders, refusals


def test_orders_learn_and_forces_stay_clean():
    """The relaxation reaches the net of the scores; positions get no gradient through it."""
    nodes = ps.S("nodes")
    inputs = {"pos": ps.Rep(nodes, None)}
    pos = randn(3, 4, 3).requires_grad_()
    grads = []
    for frozen in (False, True):
        p = Recursive(Flat(12, 4), nodes)
        p.net.requires_grad_(not frozen)
        phi = ps.symmetrize(energy(), inputs, ps.Rep(), p).train()
        pos.grad = None
        phi(pos=pos, samples=3, generator=seeded()).sum().backward()
        grads.append(pos.grad.clone())
        if not frozen:
            assert all((q.grad != 0).any() for q in p.net.parameters())
    assert torch.equal(*grads)


def test_p_can_concentrate():
    """Uniform at first; trained towards one pose it gets there, though no net here is equivariant."""
    group = ps.SO(3)
    cloud, wanted = randn(1, 4, 3), group.haar((1,), generator=seeded(), dtype=torch.float64).matrix
    p = Recursive(Flat(12, 3), group)
    x = ps.symmetrize(Flat(12, 1), ps.Rep(None, group), ps.Rep(), p).bind((cloud,), {})
    generator = seeded()
    optimizer = torch.optim.Adam(p.parameters(), 2e-2)

    def resultant():
        """|E R| / sqrt 3: 0 for the uniform distribution, 1 for a point; 1/sqrt(2000) by chance."""
        with torch.no_grad():
            matrices = p.transport(x, p.noise(x, (2000,), seeded(1))).matrix
        return float(matrices.mean(0).norm()) / 3**0.5

    assert resultant() < 0.15
    for _ in range(120):
        g = p.transport(x, p.noise(x, (128,), generator))
        loss = (g.matrix - wanted).square().sum((-2, -1)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert resultant() > 0.6


@pytest.mark.parametrize("name", [name for name in FINITE if name != repr(ps.S("nodes"))])
def test_training_without_a_gradient_is_refused(name):
    group, rep, shape, x = FINITE[name]
    phi = ps.symmetrize(Flat(x[0].numel(), 1), rep, ps.Rep(), Recursive(Flat(x[0].numel(), *shape), group)).double()
    with pytest.raises(ValueError, match="carry no gradient") as caught:
        phi.train()(x)
    assert repr(group) in str(caught.value)
    phi.distribution.net.requires_grad_(False)
    phi(x).sum().backward()


def test_bad_arguments():
    net = Flat(12, 3)
    with pytest.raises(ValueError, match="head: expected one of 'small-angle', 'quaternion', 'project'"):
        Recursive(net, ps.SO(3), "angle")
    with pytest.raises(TypeError, match=r"head: expected one of .* got float"):
        Recursive(net, ps.SO(3), 1.0)
    with pytest.raises(ValueError, match="space of 3 dimensions, got 2"):
        Recursive(net, ps.SO(2), "quaternion")
    with pytest.raises(TypeError, match=r"net: expected an nn\.Module"):
        Recursive(torch.tanh, ps.SO(3))
    with pytest.raises(ValueError, match="not compact and has no uniform distribution"):
        Recursive(net, ps.Lorentz())
    for limit in (0.0, 4.0, math.nan):
        with pytest.raises(ValueError, match="limit: expected an angle between 0 and pi"):
            SmallAngle(limit)
    with pytest.raises(ValueError, match=r"no default net orients by C\(4\)"):
        PlainNet(ps.Rep(ps.C(4)), ps.C(4))
    phi = ps.symmetrize(Flat(12, 1), ps.Rep(None, ps.SO(3)), ps.Rep(), Recursive(net, ps.SO(3)))
    with pytest.raises(TypeError, match="infinite or too large support"):
        phi(randn(2, 4, 3), estimator=ps.Exact())


@pytest.mark.parametrize(
    ("value", "error", "says"),
    [
        (torch.zeros(6, 4), ValueError, r"shape \(6, 3\) for head='small-angle', got \(6, 4\)"),
        (torch.zeros(3), ValueError, r"shape \(6, 3\)"),
        (torch.zeros(6, 3, dtype=torch.long), TypeError, "expected real features of SO"),
        ([0.0], TypeError, "expected real features of SO.*list"),
        ({}, ValueError, "or None to leave it uniform"),
    ],
)
def test_features_that_do_not_fit(value, error, says):
    class Fixed(nn.Module):
        def forward(self, x):
            return value

    group = ps.SO(3)
    phi = ps.symmetrize(Flat(12, 1), ps.Rep(None, group), ps.Rep(), Recursive(Fixed(), group))
    with pytest.raises(error, match=says):
        phi(randn(2, 4, 3), samples=3)


def test_two_factors_need_a_dict():
    s = SETTINGS["S x E(3)"]()
    with pytest.raises(TypeError, match="expected a dict of features by factor, got Tensor"):
        s.symmetrized(Recursive(Flat(40, 3), s.group))
