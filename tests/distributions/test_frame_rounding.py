"""Frames of rounded coordinates: all poses of an input get the same average, or it is counted as not exact.

Poses of one cloud in float32 differ by rounding. What the frames decide (which axes, which nodes are equal, which
order) must not depend on it; where a cloud is so close to a border that it does, the standard error is infinite.
"""

import itertools
import math
import warnings

import pytest
import torch

import probsym as ps
from probsym.distributions.frames import tolerances
from probsym.distributions.frames.views import view_inputs
from probsym.reps import Inputs, Rep

POSES = 40


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed):
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def ring(n, radius, height=0.0, turn=0.0):
    angles = 2 * math.pi / n * torch.arange(n).double() + turn
    return torch.stack([radius * angles.cos(), radius * angles.sin(), torch.full_like(angles, height)], 1)


def points(*rows):
    return torch.tensor(rows, dtype=torch.float64)


def chain(heavy, seed):
    """Atoms 1.5 apart, a methyl group at every end; and their kinds."""
    generator = seeded(seed)
    pos = [torch.zeros(3, dtype=torch.float64)]
    while len(pos) < heavy:
        start = pos[int(torch.randint(len(pos), (1,), generator=generator))]
        new = start + 1.5 * torch.nn.functional.normalize(
            torch.randn(3, generator=generator, dtype=torch.float64), dim=0
        )
        if min((new - other).norm() for other in pos) > 1.3:
            pos.append(new)
    hydrogens = []
    for atom in pos:
        near = [other for other in pos if 0 < (other - atom).norm() < 1.6]
        if len(near) == 1:
            axis = torch.nn.functional.normalize(atom - near[0], dim=0)
            side = torch.nn.functional.normalize(torch.linalg.cross(axis, points(0.3, -0.5, 0.8)), dim=0)
            up = torch.linalg.cross(axis, side)
            for angle in (0.0, 2 * math.pi / 3, 4 * math.pi / 3):
                out = math.cos(angle) * side + math.sin(angle) * up
                hydrogens.append(atom + 1.09 * (0.36 * axis + 0.93 * out))
    kinds = points(*[0.6] * len(pos), *[0.1] * len(hydrogens))
    return torch.stack([*pos, *hydrogens]), kinds


SYMMETRIC = {
    "water": (points((0, 0, 0.12), (0, 0.76, -0.48), (0, -0.76, -0.48)), points(0.8, 0.1, 0.1)),
    "ammonia": (torch.cat([points((0, 0, 0.1)), ring(3, 0.94, -0.27)]), points(0.7, 0.1, 0.1, 0.1)),
    "methane": (
        torch.cat([points((0, 0, 0)), 0.63 * points((1, 1, 1), (1, -1, -1), (-1, 1, -1), (-1, -1, 1))]),
        points(0.6, 0.1, 0.1, 0.1, 0.1),
    ),
    "benzene": (torch.cat([ring(6, 1.39), ring(6, 2.48)]), points(*[0.6] * 6, *[0.1] * 6)),
    "ethane": (
        torch.cat([points((0, 0, 0.77), (0, 0, -0.77)), ring(3, 1.02, 1.16), ring(3, 1.02, -1.16, math.pi / 3)]),
        points(0.6, 0.6, *[0.1] * 6),
    ),
    "cyclopropane": (
        torch.cat([ring(3, 0.87), ring(3, 1.46, 0.91), ring(3, 1.46, -0.91)]),
        points(*[0.6] * 3, *[0.1] * 6),
    ),
    "cube": (points(*itertools.product((-1, 1), repeat=3)), torch.ones(8, dtype=torch.float64)),
    "carbon dioxide": (points((0, 0, -1.16), (0, 0, 0), (0, 0, 1.16)), points(0.8, 0.6, 0.8)),
}  # fmt: skip


class Net(torch.nn.Module):
    """An MLP that sees order, axes and signs; one invariant and one vector a node come out."""

    def __init__(self, n, d):
        super().__init__()
        torch.manual_seed(0)
        self.shape = (n, d)
        self.net = torch.nn.Sequential(
            torch.nn.Linear(n * (d + 1), 32), torch.nn.Tanh(), torch.nn.Linear(32, 1 + n * d)
        )

    def forward(self, pos, kind):
        y = self.net(torch.cat([pos, kind], -1).flatten(1))
        return y[:, :1], y[:, 1:].reshape(-1, *self.shape)


def poses_of(pos, first, family, far, count=POSES):
    """Turned, permuted if the group does, and moved: (K, N, D), with what undoes it on vectors."""
    n, d = pos.shape
    turn = torch.linalg.qr(normal(count, d, d, seed=1))[0]
    if family in (ps.SO, ps.SE):
        turn = torch.cat([turn[..., :-1], turn[..., -1:] * torch.linalg.det(turn)[:, None, None]], -1)
    order = torch.arange(n).expand(count, n)
    if first is ps.S:
        order = torch.stack([torch.randperm(n, generator=seeded(i)) for i in range(count)])
    each = torch.arange(count)[:, None]
    back = order.argsort(1)
    moved = (pos @ turn.mT)[each, order] + far
    return moved, order, lambda vectors: vectors[each, back] @ turn


def averages(pos, kind, first, family=ps.E, dtype=torch.float32, far=0.0, count=POSES):
    """The averages of all poses, turned back: (K, 1 + N D), and which of them are said to be exact (K,)."""
    nodes, space = first("nodes"), family(pos.shape[1])
    spec = {"pos": Rep(nodes, space), "kind": Rep(nodes)}
    phi = ps.symmetrize(Net(*pos.shape).to(dtype), spec, (Rep(), Rep(nodes, space.vector)), "frame").eval()
    moved, order, undo = poses_of(pos, first, family, far, count)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        estimate = phi.estimate(pos=moved.to(dtype), kind=kind[order][..., None].to(dtype))
    scalar, vectors = (part.double() for part in estimate.mean)
    exact = (estimate.stderr[0] == 0).flatten()
    assert estimate.aux["unsure"] + estimate.aux["sampled"] >= (~exact).sum()
    return torch.cat([scalar, undo(vectors).flatten(1)], 1), exact


def spread(values):
    return (values.amax(0) - values.amin(0)).max().item() if len(values) > 1 else 0.0


@pytest.mark.parametrize("first", [ps.S, ps.Axis])
@pytest.mark.parametrize("family", [ps.E, ps.SE])
def test_molecules_do_not_move(family, first):
    """Random chains with methyl groups: every one exact in float32, the same as in float64."""
    for seed in range(12):
        pos, kind = chain(3 + seed % 7, seed)
        values, exact = averages(pos, kind, first, family)
        assert exact.all()
        assert spread(values) < 1e-5
        wide, sure = averages(pos, kind, first, family, torch.float64, count=3)
        assert sure.all()
        assert (values[:3] - wide).abs().max() < 1e-5


@pytest.mark.parametrize("first", [ps.S, ps.Axis])
@pytest.mark.parametrize("family", [ps.E, ps.SE])
@pytest.mark.parametrize("name", SYMMETRIC)
def test_nearly_symmetric_molecules_do_not_move_or_are_counted(name, family, first):
    pos, kind = SYMMETRIC[name]
    counted = 0
    changes = (0.0, 1e-8, 1e-7, 1e-6, 3e-6, 1e-5, 1e-3, 1e-2)
    for change, far in itertools.product(changes, (0.0, 30.0)):
        values, exact = averages(pos + change * normal(*pos.shape, seed=3), kind, first, family, far=far, count=12)
        assert spread(values[exact]) < 2e-4
        counted += int(not exact.all())
        if far == 0.0 and change in (0.0, 1e-8, 1e-2):
            assert exact.all()
    assert counted < 10


@pytest.mark.parametrize("family", [ps.O, ps.SO, ps.E, ps.SE])
@pytest.mark.parametrize("dim", [2, 3])
def test_nearly_equal_eigenvalues(dim, family):
    """Relative gaps from 1e-9 to 1e-2: the axes turn by rounding over the gap, or the average is counted."""
    base = torch.linalg.qr(normal(9, dim + 1, seed=dim))[0]
    base = torch.linalg.qr(base - base.mean(0))[0][:, :dim] * 3
    counted = 0
    for step in range(30):
        gap = 10 ** (-9 + step / 4)
        stretch = torch.ones(dim, dtype=torch.float64)
        stretch[0] += gap
        values, exact = averages(base * stretch, torch.arange(9.0).double() / 9, ps.Axis, family, count=24)
        assert spread(values[exact]) < 2e-3
        counted += int(not exact.all())
    assert counted <= 1


def mirrored(change):
    """A cloud with a mirror plane, which `change` breaks at one node: keys differ by about that."""
    half = normal(4, 3, seed=7)
    pos = torch.cat([half, half * points(1, 1, -1)])
    pos[0, 0] = pos[0, 0] + change
    return pos


def mirror_gap(pos, kind):
    """The largest difference between the keys of mirror images."""
    nodes, space = ps.S("nodes"), ps.E(3)
    spec = {"pos": Rep(nodes, space), "kind": Rep(nodes)}
    x = Inputs.bind(spec, (), {"pos": pos[None], "kind": kind[None, :, None]})
    keys = view_inputs(x, [space], [nodes]).nodes[nodes].keys[0]
    return (keys[:4] - keys[4:]).abs().max().item()


def change_at(gap, kind):
    """The change that makes the largest gap between mirror images `gap`, by bisection."""
    low, high = 0.0, 1e-1
    for _ in range(60):
        middle = (low + high) / 2
        if mirror_gap(mirrored(middle), kind) < gap:
            low = middle
        else:
            high = middle
    return low


@pytest.mark.parametrize("slack", [True, False])
def test_keys_at_the_border_are_counted(slack, monkeypatch):
    """At the tolerance all poses are counted, away from it none; without the slack some move and say exact."""
    if not slack:
        for error in ("KEY_ERROR_OF_FLOAT64", "KEY_GAP_PER_ROUNDING", "SURE_DISTANCE_IN_ROUNDING_ERRORS"):
            monkeypatch.setattr(tolerances, error, 0.0)
    kind = torch.zeros(8, dtype=torch.float64)
    border = change_at(tolerances.ROUNDED_KEY_GAP, kind)
    for factor, sure in ((0.9, True), (0.96, True), (1.0, False), (1.04, True), (1.1, True)):
        values, exact = averages(mirrored(factor * border), kind, ps.S, ps.E)
        if not slack and not sure:
            assert exact.all()
            assert spread(values) > 1e-3
            continue
        assert bool(exact.all()) == sure
        assert sure or not exact.any()
        assert spread(values[exact]) < 1e-5


def test_permutations_alone_do_not_round():
    """In float32 values that differ by little are different, whatever the order they come in."""
    nodes = ps.S("nodes")
    value = torch.tensor([[0.5, 0.5 + 1e-7, 0.25, 0.1, 0.1 + 1e-8]])
    edge = torch.rand(1, 5, 5, generator=seeded(0))
    support = ps.Frame(nodes).support(
        Inputs.bind({"v": Rep(nodes), "e": Rep(nodes, nodes)}, (), {"v": value, "e": edge})
    )
    assert support.exact.all()
    assert len(support.weight) == 1


@pytest.mark.parametrize("thickness", [1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2])
def test_needles_do_not_move_or_are_counted(thickness):
    """Across a needle rounding turns the axes: far below its coordinates nothing is seen, in between it is counted."""
    needle = normal(7, 3, seed=4) * points(1.0, thickness, 0.6 * thickness)
    values, exact = averages(needle, torch.zeros(7).double(), ps.Axis)
    assert spread(values[exact]) < 2e-3
    assert exact.all() == (thickness < 1e-5 or thickness > 1e-4)


def test_unsure_inputs_warn_once_and_leave_the_others_exact():
    border = change_at(tolerances.ROUNDED_KEY_GAP, torch.zeros(8, dtype=torch.float64))
    nodes, space = ps.S("nodes"), ps.E(3)
    spec = {"pos": Rep(nodes, space), "kind": Rep(nodes)}
    phi = ps.symmetrize(Net(8, 3), spec, (Rep(), Rep(nodes, space.vector)), "frame").eval()
    pos = torch.stack([mirrored(border), mirrored(0.5), mirrored(0.0)]).float()
    with pytest.warns(UserWarning, match="rounding of their coordinates decides"):
        estimate = phi.estimate(pos=pos, kind=torch.zeros(3, 8, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        phi(pos=pos, kind=torch.zeros(3, 8, 1))
    assert estimate.stderr[0].flatten().tolist() == [math.inf, 0, 0]
    assert estimate.stderr[1].flatten(1).isinf().all(1).tolist() == [True, False, False]
    assert estimate.aux["unsure"] == 1


@pytest.mark.parametrize("first", [ps.S, ps.Axis])
@pytest.mark.parametrize("family", [ps.E, ps.SE])
def test_decisions_are_the_same_wherever_a_cloud_is(family, first):
    """Eigenvalues 1e-3 to 1e-2 apart, at distances of up to 30: more rounding makes it less sure, not different."""
    base = torch.linalg.qr(normal(9, 4, seed=2))[0]
    base = torch.linalg.qr(base - base.mean(0))[0][:, :3] * points(3.0, 3.0, 8.0)
    counted = 0
    for step in range(20):
        pos = base * points(1.0, 1 + 10 ** (-3 + step / 20), 1.0) + points(0.4, 0.3, -0.2)
        found = [averages(pos, torch.zeros(9).double(), first, family, far=far, count=12) for far in (0.0, 3.0, 30.0)]
        values, exact = (torch.cat(part) for part in zip(*found, strict=True))
        assert spread(values[exact]) < 2e-3
        counted += int(not exact.all())
    assert counted < 10


def test_tolerances_do_not_depend_on_the_place():
    for eps in (2e-16, 1.2e-7):
        tolerance, slack = tolerances.key_tolerance(torch.tensor([0.0, eps, 100 * eps]), eps)
        assert tolerance[1] == tolerance[2] >= 4 * slack[1] - 1e-10
        assert 2 * eps / tolerances.least_eigenvalue_gap(eps) < tolerances.MOST_TURN_IN_RADIANS


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_generic_clouds_of_half_precision_are_still_exact(dtype):
    """Rounding to 1e-3 turns axes by a few 1e-3 at any gap: that alone does not make an input unsure."""
    pos = torch.linalg.qr(normal(8, 3, seed=1))[0] * points(1.0, 2.0, 4.0)
    values, exact = averages(pos, torch.arange(8.0).double() / 8, ps.Axis, dtype=dtype)
    assert exact.all()
    assert spread(values) < (0.1 if dtype == torch.float16 else 1e-5)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("storage", ["dense", "padded", "ragged", "ordered"])
@pytest.mark.parametrize("family", [ps.E, ps.SO])
def test_a_bad_input_spoils_its_own_rows_only(family, storage, bad, monkeypatch):
    """One coordinate of one input is not a number: the others get what they get without it; padding may hold it.

    Such inputs are refused by name where values are looked at; a training step on a GPU does not look.
    """
    monkeypatch.setattr(Inputs, "check_values", lambda self: None)
    space, pos = family(3), normal(3, 5, 3, seed=0)
    marks = {}
    nodes = {"dense": ps.S("n"), "padded": ps.S("n", mask="mask"), "ragged": ps.S("n", batch="batch"), "ordered": None}
    nodes = nodes[storage]
    phi = ps.symmetrize(torch.nn.Tanh(), {"input": Rep(nodes, space)}, Rep(nodes, space.vector), "frame").eval()
    if storage in ("padded", "ragged"):
        phi.model = Marked()
    if storage == "padded":
        marks = {"mask": torch.arange(5) < torch.tensor([5, 4, 3])[:, None]}
    if storage == "ragged":
        marks = {"batch": torch.arange(3).repeat_interleave(5)}
    shape = (15, 3) if storage == "ragged" else (3, 5, 3)
    clean = phi(input=pos.reshape(shape), **marks).reshape(3, 5, 3)
    spoilt = pos.clone()
    spoilt[1, 2, 0] = bad
    if storage == "padded":
        spoilt[2, 4] = bad
    found = phi(input=spoilt.reshape(shape), **marks).reshape(3, 5, 3)
    torch.testing.assert_close(found[[0, 2]], clean[[0, 2]], rtol=0, atol=1e-12)
    if math.isnan(bad):
        assert found[1].isnan().any()


class Marked(torch.nn.Module):
    def forward(self, input, mask=None, batch=None):
        return torch.tanh(input)
