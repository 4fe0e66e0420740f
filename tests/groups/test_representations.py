"""Representations on one axis: irreps against e3nn, rotations as numbers, one's own matrices, products and sums.

`data/e3nn_wigner.npz` holds ten rotations and e3nn's matrices for l = 0 ... 6, of e3nn 0.6.0 in float64:
`o3.wigner_D(l, alpha, beta, gamma)` at `o3.angles_to_matrix(alpha, beta, gamma)`, for no rotation, a quarter and half a
turn, an angle beta of 90 degrees, and six triples of random angles.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import probsym as ps
from probsym.groups.representations import Irrep, MatrixSlot, coupling, wigner
from probsym.saving import register
from probsym.testing import assert_slot

STORED = Path(__file__).parent.parent / "data" / "e3nn_wigner.npz"
SPACES = [ps.O(3), ps.SO(3), ps.E(3), ps.SE(3, "space"), ps.SE(3, about="z"), ps.O(3, about="x")]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def rotations(group, *shape, dtype=torch.float64):
    noise = group.draw_noise(shape, generator=seeded(), dtype=dtype)
    return group.oriented(noise, noise)


# ---------------------------------------------------------------- irreps


def test_wigner_matrices_are_those_of_e3nn():
    stored = np.load(STORED)
    r = torch.from_numpy(stored["rotations"])
    for l in range(7):  # noqa: E741
        expected = torch.from_numpy(stored[f"degree{l}"])
        assert (wigner(r, l) - expected).abs().max() < 1e-12
        for parity, sign in (("even", 1), ("odd", -1)):
            slot = ps.O(3).irrep(l, parity)
            assert (slot.matrix(-r) - sign * expected).abs().max() < 1e-12


def test_a_wrong_order_and_a_transposed_matrix_are_not_those_of_e3nn():
    stored = np.load(STORED)
    r = torch.from_numpy(stored["rotations"])
    expected = torch.from_numpy(stored["degree2"])
    usual = [4, 3, 2, 1, 0]  # the order of m reversed
    assert (wigner(r, 2)[:, usual][:, :, usual] - expected).abs().max() > 0.1
    assert (wigner(r.mT, 2) - expected).abs().max() > 0.1


def test_irreps_of_degree_two_are_harmonics():
    """D^2 moves the polynomials that the docstring lists."""
    x = torch.randn(20, 3, dtype=torch.float64, generator=seeded())

    def harmonics(p):
        x, y, z = p.unbind(-1)
        root = 3**0.5
        return torch.stack(
            [root * x * z, root * x * y, y * y - (x * x + z * z) / 2, root * y * z, root / 2 * (z * z - x * x)], -1
        )

    g = ps.SO(3).haar((), generator=seeded(), dtype=torch.float64)
    moved = ps.Rep(None, ps.SO(3).irrep(2)).act(g, harmonics(x), 0)
    assert torch.allclose(moved, harmonics(x @ g.matrix.mT), atol=1e-12)


def test_wigner_matrices_are_accurate_for_high_degrees_and_have_derivatives():
    r, s = rotations(ps.O(3), 2, 5).unbind(0)
    for l in (3, 12):  # noqa: E741
        d = wigner(r, l)
        assert (d @ d.mT - torch.eye(2 * l + 1)).abs().max() < 1e-12
        assert (wigner(r @ s, l) - d @ wigner(s, l)).abs().max() < 1e-12
    # at the identity and at a half turn, where Euler angles are not smooth
    points = torch.stack([torch.eye(3), torch.diag(torch.tensor([-1.0, 1.0, -1.0]))]).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda r: wigner(r, 3), (points,))


def test_the_coupling_is_an_isometry():
    c = coupling(5)
    assert np.abs(c @ c.T - np.eye(11)).max() < 1e-14


@pytest.mark.parametrize("space", SPACES, ids=repr)
def test_slots_are_actions(space):
    slots = [space.irrep(0), space.irrep(2), space.rotation6d, space.vector * space.vector, space.det * space.vector]
    slots += [space.irrep(1) + 2 + space.rotation6d, (space.irrep(1) + 1) * space.vector]
    slots += [space.linear(3, lambda r: torch.linalg.det(r)[..., None, None] * r)]
    if not space.special:
        slots += [space.irrep(2, "odd"), space.irrep(1, "even")]
    else:
        slots += [space.quaternion, space.quaternion + 1]
    if space.defining != space.vector:
        slots += [space + space.rotation6d + 1, 1 + space.defining]
    for slot in slots:
        assert_slot(slot)


def test_irreps_of_the_plane_are_angular_frequencies():
    turn = ps.SO(2).irrep(3)
    angle = torch.tensor(0.7, dtype=torch.float64)
    r = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()]).reshape(2, 2)
    expected = torch.stack([(3 * angle).cos(), -(3 * angle).sin(), (3 * angle).sin(), (3 * angle).cos()]).reshape(2, 2)
    assert torch.allclose(turn.matrix(r), expected, atol=1e-14)
    for slot in (turn, ps.O(2).irrep(0, "odd"), ps.O(2).irrep(1), ps.E(2).irrep(2), ps.SO(2).irrep(0)):
        assert_slot(slot)
    assert torch.allclose(ps.O(2).irrep(1).matrix(rotations(ps.O(2), 4)), rotations(ps.O(2), 4))


@dataclass(frozen=True, repr=False)
class Transposed(MatrixSlot):
    """A Wigner matrix of the inverse."""

    sizes = (5,)
    suffix = ".transposed"

    def matrix(self, r):
        return wigner(r.mT, 2)


@dataclass(frozen=True, repr=False)
class Reordered(MatrixSlot):
    """The harmonics of degree one in another order on the way back: no action."""

    sizes = (3,)
    suffix = ".reordered"

    def matrix(self, r):
        return r[..., [1, 2, 0], :]


@dataclass(frozen=True, repr=False)
class Signless(MatrixSlot):
    """Quaternions whose signs nobody keeps."""

    sizes = (4,)
    suffix = ".signless"

    def matrix(self, r):
        q = ps.rotations.matrix_to_quaternion(r)
        one = torch.eye(4, dtype=r.dtype)
        return torch.stack([ps.rotations.quaternion_product(q, one[i].expand_as(q)) for i in range(4)], -1)


@pytest.mark.parametrize(
    ("slot", "law"),
    [(Transposed(ps.SO(3)), r"action .ab.x"), (Reordered(ps.SO(3)), "action"), (Signless(ps.SO(3)), r"action .ab.x")],
)
def test_wrong_slots_are_rejected(slot, law):
    with pytest.raises(AssertionError, match=law):
        assert_slot(slot)


def test_half_precision_and_autocast_round_once():
    g = ps.SO(3).haar((4,), generator=seeded(), dtype=torch.float32)
    x = torch.randn(4, 10, generator=seeded(1), dtype=torch.bfloat16)
    rep = ps.Rep(ps.SO(3).irrep(1) + ps.SO(3).rotation6d + 1)
    exact = rep.act(g, x.double())
    with torch.autocast("cpu", torch.bfloat16):
        moved = rep.act(g, x)
    assert moved.dtype == torch.bfloat16
    assert torch.equal(moved, exact.to(torch.bfloat16))


# ---------------------------------------------------------------- rotations as numbers


def test_rotations_as_numbers_move_as_rotations_do():
    g = ps.SO(3).haar((6,), generator=seeded(), dtype=torch.float64)
    r = rotations(ps.SO(3), 6)
    moved = g.matrix @ r
    six = ps.Rep(ps.SO(3).rotation6d).act(g, ps.rotations.matrix_to_rotation6d(r))
    assert torch.allclose(six, ps.rotations.matrix_to_rotation6d(moved))
    for sign in (1, -1):
        q = ps.Rep(ps.SO(3).quaternion).act(g, sign * ps.rotations.matrix_to_quaternion(r))
        assert torch.allclose(q, ps.rotations.matrix_to_quaternion(moved), atol=1e-14)


class Spin(nn.Module):
    """Vectors and orientations of bodies to an orientation, by no rule of symmetry."""

    def __init__(self, entries, out):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3 + entries, 16), nn.Tanh(), nn.Linear(16, out))

    def forward(self, v, r):
        return self.net(torch.cat([v, r], -1))


def test_models_that_see_quaternions_do_not_see_their_sign():
    space = ps.SO(3)
    torch.manual_seed(0)
    reps = {"v": ps.Rep(space), "r": ps.Rep(space.quaternion)}
    phi = ps.symmetrize(Spin(4, 6).double(), reps, ps.Rep(space.rotation6d), "haar", eval_samples=4).eval()
    x = {"v": torch.randn(3, 3, dtype=torch.float64), "r": torch.randn(3, 4, dtype=torch.float64)}
    ps.testing.assert_equivariant(phi, x)
    flipped = {"v": x["v"], "r": -x["r"]}
    assert torch.equal(phi(**x, generator=seeded()), phi(**flipped, generator=seeded()))


def test_quaternions_are_sampled_and_not_averaged():
    space = ps.SO(3)
    torch.manual_seed(0)
    reps = {"v": ps.Rep(space), "r": ps.Rep(space.quaternion)}
    phi = ps.symmetrize(Spin(4, 4).double(), reps, ps.Rep(space.quaternion), "haar").eval()
    x = {"v": torch.randn(3, 3, dtype=torch.float64), "r": torch.randn(3, 4, dtype=torch.float64)}
    with pytest.raises(TypeError, match=r"quaternion cannot be averaged.*mean_quaternion"):
        phi(**x)
    # what is sampled moves with the input, whatever the signs
    noise = phi.draw_noise(**x, samples=5, generator=seeded())
    samples = phi.sample(**x, noise=noise)
    h = space.haar((3,), generator=seeded(1), dtype=torch.float64)
    bound = phi.bind((), x)
    moved = {"v": ps.Rep(space).act(h, x["v"]), "r": ps.Rep(space.quaternion).act(h, x["r"])}
    again = phi.sample(**moved, noise=phi.distribution.move_noise(bound, h, noise))
    mean = ps.rotations.mean_quaternion(samples)
    expected = ps.Rep(space.quaternion).act(h, mean)
    assert torch.allclose(ps.rotations.mean_quaternion(again), expected, atol=1e-10)


# ---------------------------------------------------------------- one's own


@register(name="tests/deviator")
def deviator(r):
    """The action on symmetric matrices, by their six entries xx, yy, zz, yz, xz, xy; not orthogonal."""
    first = [0, 1, 2, 1, 0, 0]
    second = [0, 1, 2, 2, 2, 1]
    rows = []
    for i, j in zip(first, second, strict=True):
        entries = []
        for k, m in zip(first, second, strict=True):
            entry = r[..., i, k] * r[..., j, m]
            if k != m:
                entry = entry + r[..., i, m] * r[..., j, k]
            entries.append(entry)
        rows.append(torch.stack(entries, -1))
    return torch.stack(rows, -2)


def test_a_representation_of_ones_own():
    slot = ps.O(3).linear(6, deviator)
    assert_slot(slot)
    assert not slot.isometric
    assert ps.SO(3).linear(3, lambda r: r).isometric


@pytest.mark.parametrize(
    ("dim", "matrix_of", "message"),
    [
        (3, lambda r: r.mT, "D.R S. = D.S. D.R.: transpose it"),
        (3, lambda r: r[..., [1, 2, 0], :], "expected D.1. = 1"),
        (3, lambda r: r * r, "D.R S. = D.R. D.S. fails"),
        (3, lambda r: r - r.reshape(-1, 3, 3).mean(0) + torch.eye(3, dtype=r.dtype), "depends on the others"),
        (4, lambda r: r, r"expected shape"),
        (3, lambda r: r.float(), "dtype"),
        (3, lambda r: r * torch.nan, "finite"),
        (0, lambda r: r, "dim: expected an integer of at least 1"),
    ],
)
def test_what_is_no_representation_is_refused(dim, matrix_of, message):
    with pytest.raises(ValueError, match=message):
        ps.SO(3).linear(dim, matrix_of)
    with pytest.raises(TypeError, match="expected a function"):
        ps.SO(3).linear(3, "matrix")


def test_saved_models_have_the_same_slots(tmp_path):
    torch.manual_seed(0)
    space = ps.SE(3, "space", about="z")
    inputs = {"v": ps.Rep(space), "r": ps.Rep(space.linear(6, deviator))}
    output = ps.Rep(space + space.irrep(2) + space.vector * space.vector + 2)
    phi = ps.symmetrize(Spin(6, 19), inputs, output, ps.Haar(space, origin="centroid")).eval()
    ps.save(phi, tmp_path / "model")
    again = ps.load(tmp_path / "model", Spin(6, 19)).eval()
    assert again.output == output
    assert again.inputs == inputs
    x = {"v": torch.randn(2, 3), "r": torch.randn(2, 6)}
    assert torch.equal(again(**x, generator=seeded()), phi(**x, generator=seeded()))


def test_functions_without_a_name_are_not_saved(tmp_path):
    space = ps.SO(3)
    phi = ps.symmetrize(nn.Linear(3, 3), ps.Rep(space), ps.Rep(space.linear(3, lambda r: r)), "haar")
    with pytest.raises(ValueError, match="this function is not registered"):
        ps.save(phi, tmp_path / "model")
    assert not (tmp_path / "model").exists()


# ---------------------------------------------------------------- products and sums


def test_products_are_outer_products():
    g = ps.O(3).haar((5,), generator=seeded(), dtype=torch.float64)
    x = torch.randn(5, 2, 3, 3, 4, generator=seeded(1), dtype=torch.float64)
    two_axes = ps.Rep(None, ps.O(3), ps.O(3)).act(g, x)
    one_axis = ps.Rep(None, ps.O(3).vector * ps.O(3).vector).act(g, x.flatten(2, 3))
    assert torch.allclose(one_axis, two_axes.flatten(2, 3), atol=1e-12)


def test_groups_stand_for_their_defining_slots():
    space = ps.O(3)
    assert space * space.vector == space.vector * space == space.vector * space.vector
    assert space + space.det * space.vector == space.vector + space.det * space.vector


def test_sums_act_part_by_part_and_points_move_with_the_origin():
    space = ps.SE(3)
    h = space.project((torch.randn(2, 3).double(), torch.randn(2, 3, 3).double()), torch.zeros(2, 3, 3).double())
    x = torch.randn(2, 10, dtype=torch.float64, generator=seeded())
    moved = ps.Rep(space + space.rotation6d + 1).act(h, x)
    assert torch.allclose(moved[:, :3], ps.Rep(space).act(h, x[:, :3]))
    assert torch.allclose(moved[:, 3:9], ps.Rep(space.rotation6d).act(h, x[:, 3:9]))
    assert torch.equal(moved[:, 9], x[:, 9])
    assert (space + space.rotation6d).differences == space.vector + space.rotation6d


class Poses(nn.Module):
    """Poses of bodies to a pose, by no rule of symmetry."""

    def __init__(self, entries):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(entries, 16), nn.Tanh(), nn.Linear(16, 10))

    def forward(self, pose):
        return self.net(pose.flatten(1))


@pytest.mark.parametrize("distribution", ["haar", "learned", "canonical", "frame", "weighted"])
@pytest.mark.parametrize("bodies", [None, 3])
def test_nets_and_frames_see_the_points_and_vectors_of_a_sum(distribution, bodies):
    """A pose on one axis is all that there is to orient by."""
    space = ps.SE(3, "space")
    slot = space + space.rotation6d + 1
    nodes = ps.S("bodies")
    rep, group, shape = ps.Rep(slot), space, (2, 10)
    if bodies is not None:
        rep, group, shape = ps.Rep(nodes, slot), nodes * space, (2, bodies, 10)
    if distribution == "haar":
        distribution = ps.Haar(group, origin="centroid")
    elif distribution == "weighted":
        distribution = ps.WeightedFrame(space)
        if bodies is not None:
            distribution = distribution * ps.Haar(nodes)
    pose = torch.randn(shape, dtype=torch.float64, generator=seeded())
    call = {"pose": pose}
    phi = ps.symmetrize(Poses(pose[0].numel()), {"pose": rep}, ps.Rep(slot), distribution, example=call)
    phi = phi.double().eval()
    ps.testing.assert_equivariant(phi, call)
    if distribution == "frame" and bodies is None:
        assert (phi.estimate(**call).stderr == 0).all()


def test_a_sum_is_oriented_as_its_parts_are():
    """The same pose, on one axis and on three: the same frames, and the same result."""
    space = ps.SE(3, "space", about="z")
    pose = torch.randn(4, 10, dtype=torch.float64, generator=seeded())

    class Apart(nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, place, columns, opening):
            return self.model(torch.cat([place, columns.flatten(1), opening], 1))

    slot = space + space.rotation6d + 1
    model = Poses(10).double()
    joined = ps.symmetrize(model, {"pose": ps.Rep(slot)}, ps.Rep(slot), "frame").eval()
    reps = {"place": ps.Rep(space), "columns": ps.Rep(None, space.vector), "opening": ps.Rep()}
    parts = ps.symmetrize(Apart(model), reps, ps.Rep(slot), "frame").eval()
    y = parts(place=pose[:, :3], columns=pose[:, 3:9].unflatten(1, (2, 3)), opening=pose[:, 9:])
    assert torch.allclose(joined(pose=pose), y, atol=1e-12)


@pytest.mark.filterwarnings("ignore:1 input")
def test_degenerate_frames_know_the_degree_of_outputs():
    """Collinear points: outputs of degree two are exact, those of degree three are drawn."""
    space = ps.SO(3)
    x = torch.tensor([1.0, 2.0, -1.0]).double() * torch.tensor([[[1.0], [-2.0], [0.5]]]).double()
    for slot, exact in ((space.irrep(2), True), (space.vector * space.vector, True), (space.irrep(3), False)):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Flatten(), nn.Linear(9, 16), nn.Tanh(), nn.Linear(16, slot.sizes[0])).double()
        phi = ps.symmetrize(net, ps.Rep(None, space), ps.Rep(slot), ps.Frame(space)).eval()
        estimate = phi.estimate(x)
        assert bool((estimate.stderr == 0).all()) is exact
        if exact:
            ps.testing.assert_equivariant(phi, x)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: ps.O(4).irrep(1), ValueError, "two and three dimensions, got 4"),
        (lambda: ps.O(3).irrep(-1), ValueError, "l: expected an integer of at least 0"),
        (lambda: ps.O(3).irrep(1, "e"), ValueError, "parity: expected 'even', 'odd'"),
        (lambda: ps.SO(3).irrep(1, "even"), ValueError, "no reflections"),
        (lambda: ps.O(2).irrep(1, "odd"), ValueError, "only l = 0"),
        (lambda: ps.SO(2).rotation6d, ValueError, "expected three dimensions"),
        (lambda: ps.O(3).quaternion, ValueError, "has reflections"),
        (lambda: ps.SE(3).defining * ps.SE(3).vector, ValueError, "points have no products"),
        (lambda: ps.SO(3).quaternion * ps.SO(3).vector, ValueError, "has no products"),
        (lambda: ps.SO(3).vector * ps.SO(2).vector, ValueError, "slots of one group"),
        (lambda: ps.SO(3).vector + 0, ValueError, "at least one invariant entry"),
        (lambda: ps.O(3).vector + ps.O(3).det, ValueError, "one axis of known size"),
        (lambda: ps.S("n").defining + 1, ValueError, "one axis of known size"),
        (lambda: ps.SO(3).vector * 2, TypeError, "unsupported operand"),
        (lambda: ps.SO(3).vector + "1", TypeError, "unsupported operand"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_equal_irreps_are_equal():
    assert ps.O(3).irrep(1, "odd") == ps.O(3).irrep(1)
    assert repr(ps.O(3).irrep(1, "even")) == "O(3).irrep(1, 'even')"
    assert Irrep(ps.O(3), 2) != Irrep(ps.O(3), 2, "odd")
    with pytest.raises(ValueError, match="expected size 5 on axis 1"):
        ps.symmetrize(nn.Identity(), ps.Rep(ps.O(3).irrep(2)), ps.Rep(ps.O(3).irrep(2)), "haar")(torch.zeros(2, 4))
