"""Rotations about one axis of space, as where gravity tells up from down: `SE(3, about="z")` and its family."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

import probsym as ps
from probsym import learning
from probsym.estimators.cosets import MatrixCoset
from probsym.testing import assert_distribution, assert_equivariant, assert_group

ALL = [ps.SO(3, about="x"), ps.O(3, about="y"), ps.SE(3, "space", about="z"), ps.E(3, about="z")]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


class Arms(nn.Module):
    """Displacements of five points, by no rule of symmetry."""

    def __init__(self, points=5):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(6 * points, 32), nn.Tanh(), nn.Linear(32, 3 * points))

    def forward(self, pos, vel):
        return self.net(torch.cat([pos.flatten(1), vel.flatten(1)], 1)).view_as(pos)


def scene(batch=3, points=5):
    pos, vel = torch.randn(2, batch, points, 3, dtype=torch.float64, generator=seeded())
    return {"pos": pos, "vel": vel}


def column():
    """Points above each other, with vertical velocities: nothing tells north from east."""
    x = scene()
    x["pos"][..., :2] = x["pos"][:, :1, :2]
    x["vel"][..., :2] = 0
    return x


def model(distribution, space=None, nodes=None, **options):
    space = ps.SE(3, "space", about="z") if space is None else space
    nodes = ps.S("nodes") if nodes is None else nodes
    if distribution == "haar":
        distribution = ps.Haar(nodes * space, origin="centroid")
    inputs = {"pos": ps.Rep(nodes, space), "vel": ps.Rep(nodes, space.vector)}
    phi = ps.symmetrize(Arms().double(), inputs, ps.Rep(nodes, space.vector), distribution, example=scene(), **options)
    return phi.double().eval()


@pytest.mark.parametrize("group", ALL, ids=repr)
def test_groups(group):
    assert_group(group)


def test_elements_keep_the_axis_and_turn_uniformly_about_it():
    for axis, group in enumerate([ps.SO(3, about="x"), ps.SO(3, about="y"), ps.SO(3, about="z")]):
        matrix = group.haar((4000,), generator=seeded(), dtype=torch.float64).matrix
        one = torch.eye(3, dtype=torch.float64)
        assert torch.equal(matrix[:, axis], one[axis].expand(4000, 3))
        assert torch.equal(matrix[..., axis], one[axis].expand(4000, 3))
        assert torch.allclose(torch.linalg.det(matrix), torch.ones(4000, dtype=torch.float64))
        # the mean of 4,000 uniform angles' cosines has a spread of 0.011: six times that is 1e-9
        assert matrix[:, (axis + 1) % 3, (axis + 1) % 3].mean().abs() < 0.068
        assert matrix[:, (axis + 1) % 3, (axis + 2) % 3].mean().abs() < 0.068


def test_a_tilt_is_a_violation():
    group = ps.SO(3, about="z")
    turn = group.haar((), generator=seeded(), dtype=torch.float64)
    assert group.violation(turn) < 1e-14
    tilted = turn.map(lambda matrix, _: ps.SO(3).haar((), generator=seeded(1), dtype=torch.float64).matrix)
    assert group.violation(tilted) > 0.1
    assert ps.SO(3).violation(tilted) < 1e-14


def test_the_distance_is_one_at_half_a_turn():
    group = ps.SE(3, about="y")
    half = group.identity((), dtype=torch.float64).map(
        lambda t, dims: torch.diag(torch.tensor([-1.0, 1.0, -1.0]).double())
    )
    assert learning.distance(half) == 1
    assert learning.distance(group.identity()) == 0


@pytest.mark.parametrize("distribution", ["haar", "learned", "canonical", "frame"])
@pytest.mark.parametrize("make", [scene, column])
def test_models_are_equivariant_to_yaw(distribution, make):
    assert_equivariant(model(distribution), make())


def tilted(phi, x, turn):
    """How far phi is from moving with a rotation of all inputs, relative to its output."""
    with torch.no_grad():
        y = phi(**x)
        moved = {name: value @ turn.mT for name, value in x.items()}
        return float((phi(**moved) - y @ turn.mT).norm() / y.norm())


@pytest.mark.parametrize("distribution", ["canonical", "frame"])
def test_models_are_not_equivariant_to_tilts(distribution):
    phi = model(distribution)
    x = scene()
    yaw = ps.SO(3, about="z").haar((), generator=seeded(), dtype=torch.float64).matrix
    tilt = ps.SO(3, about="x").haar((), generator=seeded(), dtype=torch.float64).matrix
    assert tilted(phi, x, yaw) < 1e-10
    assert tilted(phi, x, tilt) > 0.1
    # a mirror is no rotation: E has the mirrors of vertical planes, SE has not, and up stays up for both
    mirror = torch.diag(torch.tensor([-1.0, 1.0, 1.0])).double()
    flip = torch.diag(torch.tensor([1.0, 1.0, -1.0])).double()
    both = model(distribution, ps.E(3, "space", about="z"))
    assert tilted(phi, x, mirror) > 0.1
    assert tilted(both, x, mirror) < 1e-10
    assert tilted(both, x, flip) > 0.1


@pytest.mark.parametrize("make", [ps.SE, ps.E])
def test_weighted_frames_are_those_of_the_plane(make):
    space = make(3, "space", about="z")
    phi = model(ps.WeightedFrame(space), space, nodes=ps.Axis("nodes"))
    for x in (scene(), column()):
        assert_equivariant(phi, x)
    # continuous where a point crosses the vertical line through the centroid
    x = scene()
    x["pos"][:, 0, :2] = 0
    x["pos"][:, 1:, :2] -= x["pos"][:, 1:, :2].mean(1, keepdim=True)
    step = torch.tensor([1e-7, 0.0, 0.0]).double()
    sides = []
    for sign in (-1, 1):
        pos = x["pos"].clone()
        pos[:, 0] += sign * step
        sides.append(phi(pos=pos, vel=x["vel"]))
    assert torch.allclose(sides[0], sides[1], atol=1e-5)


def test_recursive_laws_turn_about_the_axis():
    class Head(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(1)
            self.net = nn.Linear(30, 1)

        def forward(self, pos, vel):
            return self.net(torch.cat([pos, vel], -1).flatten(1))

    space = ps.SE(3, "space", about="z")
    phi = model(ps.Recursive(Head().double(), space), nodes=ps.Axis("nodes"))
    assert_equivariant(phi, scene())
    x = phi.bind((), scene())
    g = phi.distribution.transport(x, phi.distribution.noise(x, (5,), seeded()))[space]
    assert space.violation(g).max() < 1e-12
    assert_equivariant(model("recursive"), scene())
    with pytest.raises(ValueError, match="quaternion"):
        ps.Recursive(Head(), space, head="quaternion")


def test_translations_along_the_axis_count():
    phi = model("canonical")
    x = scene()
    y = phi(**x)
    for shift in torch.eye(3).double():
        assert torch.allclose(phi(pos=x["pos"] + 3 * shift, vel=x["vel"]), y, atol=1e-10)


def test_the_default_net_sees_heights():
    """Scenes that differ by heights alone have other poses, which a net of horizontal parts would not tell apart."""
    phi = model("canonical", nodes=ps.Axis("nodes"))
    x = scene()
    flat = {"pos": x["pos"] * torch.tensor([1.0, 1.0, 0.0]), "vel": x["vel"]}
    first = phi.distribution.support(phi.bind((), x)).element[ps.SE(3, "space", about="z")]
    second = phi.distribution.support(phi.bind((), flat)).element[ps.SE(3, "space", about="z")]
    assert (first.matrix - second.matrix).abs().max() > 1e-3


@pytest.mark.parametrize("storage", ["padded", "ragged"])
@pytest.mark.parametrize("distribution", ["learned", "frame"])
def test_storage(storage, distribution):
    space = ps.SE(3, "space", about="z")
    x = scene()
    keep = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0]]).bool()

    class Sums(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.net = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3))

        def forward(self, pos, vel, where):
            y = self.net(torch.cat([pos, vel], -1))
            if where.dtype == torch.bool:
                return y * where[..., None]
            return y

    if storage == "padded":
        nodes = ps.S("nodes", mask="where")
        call = {**x, "where": keep}
    else:
        nodes = ps.S("nodes", batch="where")
        call = {name: value[keep] for name, value in x.items()}
        call["where"] = torch.arange(3)[:, None].expand(3, 5)[keep]
    inputs = {"pos": ps.Rep(nodes, space), "vel": ps.Rep(nodes, space.vector)}
    phi = ps.symmetrize(Sums(), inputs, ps.Rep(nodes, space.vector), distribution, example=call).double().eval()
    assert_equivariant(phi, call)


def test_distributions_move_with_the_input():
    space = ps.SE(3, "space", about="z")
    inputs = {"pos": ps.Rep(ps.S("nodes"), space), "vel": ps.Rep(ps.S("nodes"), space.vector)}
    for name in ("learned", "frame"):
        phi = model(name)
        assert_distribution(phi.distribution, scene(), inputs)
    assert_distribution(model("frame").distribution, column(), inputs)


def test_a_net_of_ones_own_may_return_columns_of_space():
    class Difference(nn.Module):
        reads_only = True

        def forward(self, pos, vel):
            return torch.stack([pos[:, 0] - pos[:, 1], vel[:, 2]], -1)

    space = ps.SE(3, "space", about="z")
    p = ps.Canonical(Difference(), space)
    phi = model(p, nodes=ps.Axis("nodes"))
    assert_equivariant(phi, scene())
    # columns along the axis have no direction in the plane, whatever rounding says
    upright = torch.tensor([[[1e-17, 0.0], [0.0, 1e-17], [3.0, -2.0]]]).double()
    assert bool(space.degenerate((torch.zeros(1, 3).double(), upright)))


# ---------------------------------------------------------------- designs


@pytest.mark.parametrize("name", ["cyclic", "signs", "signed-permutations", "antithetic", "sobol"])
def test_designs_of_the_plane(name):
    phi = model("haar", nodes=ps.Axis("nodes"), eval_samples=ps.MonteCarlo(32, design=name))
    assert_equivariant(phi, scene())


def test_eight_turns_are_exact_for_what_is_quadratic():
    class Cross(nn.Module):
        def forward(self, v):
            return v.roll(1, -1) * v.sum(-1, keepdim=True)

    space = ps.SO(3, about="z")
    v = torch.randn(4, 3, dtype=torch.float64, generator=seeded())
    phi = ps.symmetrize(Cross(), ps.Rep(space), ps.Rep(space), "haar").eval()
    first = phi(v, estimator=ps.MonteCarlo(8, design="cyclic"), generator=seeded(1))
    second = phi(v, estimator=ps.MonteCarlo(8, design="cyclic"), generator=seeded(2))
    assert torch.allclose(first, second, atol=1e-12)
    plain = phi(v, estimator=ps.MonteCarlo(8), generator=seeded(1))
    assert (plain - first).abs().max() > 1e-3


@dataclass(frozen=True)
class Prism(MatrixCoset):
    """The rotations of a prism, half turns about a horizontal axis included."""

    size = 4

    def matrices(self, factor):
        signs = [[1, 1, 1], [-1, -1, 1], [1, -1, -1], [-1, 1, -1]]
        return np.stack([np.diag(row) for row in signs]).astype(float)


def test_designs_that_tilt_are_refused():
    phi = model("haar")
    with pytest.raises(ValueError, match="matrix 2 moves axis 2 of space"):
        phi(**scene(), estimator=ps.MonteCarlo(4, design=Prism()))
    for name in ("octahedral", "tetrahedral", "icosahedral", "icosahedral-5"):
        with pytest.raises(ValueError, match="fits no factor"):
            phi(**scene(), estimator=ps.MonteCarlo(600, design=name))


# ---------------------------------------------------------------- saving, training, errors


def test_saved_models_are_bit_equal(tmp_path):
    phi = model("learned")
    ps.save(phi, tmp_path / "model")
    again = ps.load(tmp_path / "model", Arms()).eval()
    x = scene()
    assert torch.equal(again(**x, generator=seeded()), phi(**x, generator=seeded()))
    assert again.group == phi.group
    assert "about='z'" in repr(again.group)


def test_the_learned_law_trains_and_is_regularised():
    phi = model("learned").train()
    x = scene()
    noise = phi.draw_noise(**x, samples=2, generator=seeded())
    loss = learning.variance(phi.sample(**x, noise=noise)) + learning.identity_distance(phi, x, noise)
    loss.backward()
    gradients = [p.grad for p in phi.distribution.parameters()]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)
    assert max(float(gradient.abs().max()) for gradient in gradients) > 0


def test_half_precision_and_one_input():
    phi = model("learned", eval_samples=1).float()
    x = {name: value[:1].to(torch.bfloat16) for name, value in scene().items()}
    with torch.autocast("cpu", torch.bfloat16):
        y = phi(**x, generator=seeded())
    assert y.shape == (1, 5, 3)
    assert y.dtype == torch.bfloat16
    assert y.isfinite().all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ps.SO(3, about="w"), "expected 'x', 'y', 'z' or None, got 'w'"),
        (lambda: ps.SE(2, about="z"), "expected three dimensions, got 2"),
        (lambda: ps.E(4, about="x"), "expected three dimensions, got 4"),
        (lambda: ps.SE(3, about=2), "expected 'x', 'y', 'z' or None, got 2"),
        (lambda: ps.SE(3, about="z").haar((2,)), "not compact"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_groups_about_different_axes_are_different():
    assert ps.SO(3, about="z") != ps.SO(3)
    assert ps.SO(3, about="z") != ps.SO(3, about="x")
    assert repr(ps.SE(3, "space", about="z")) == "SE(3, 'space', about='z')"
