"""Frames of O, SO, E and SE by number and law, and principal axes as functions with derivatives."""

import itertools
import math

import pytest
import torch

import probsym as ps
from probsym.distributions import Frame
from probsym.distributions.frames.distinct_axes import distinct_axes
from probsym.distributions.frames.principal_axes import refine
from probsym.distributions.frames.signs import signed, signs_of_pattern
from probsym.distributions.frames.views import view_inputs
from probsym.groups import product
from probsym.reps import Inputs, Rep


def points(*rows):
    return torch.tensor(rows, dtype=torch.float64)


GOLDEN = (1 + math.sqrt(5)) / 2
CUBE = points(*itertools.product((-1, 1), repeat=3))
SQUARE = points((1, 1), (1, -1), (-1, -1), (-1, 1))
RANDOM = torch.randn(5, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
CLOUDS = {
    "random": RANDOM,
    "cube": CUBE,
    "tetrahedron": points((1, 1, 1), (1, -1, -1), (-1, 1, -1), (-1, -1, 1)),
    "icosahedron": torch.cat(
        [points(*((0, s, t * GOLDEN) for s in (-1, 1) for t in (-1, 1))).roll(k, 1) for k in range(3)]
    ),
    "square": SQUARE,
    "square in space": torch.nn.functional.pad(SQUARE, (0, 1), value=0.3),
    "pentagon": points(*((math.cos(0.4 * math.pi * k), math.sin(0.4 * math.pi * k)) for k in range(5))),
    "line": points(-1.0, 0.0, 0.5, 2.0)[:, None] * points(0.3, -0.5, 0.7) + 0.2,
    "plane": RANDOM * points(1, 1, 0),
    "one dimension": RANDOM[:, :1],
    "four dimensions": torch.cat([RANDOM, RANDOM[:, :1].square()], 1),
}


def frames(space, pos, first=None, **options):
    """The support for one cloud and its weights."""
    x = Inputs.bind({"pos": Rep(first, space)}, (), {"pos": pos[None]})
    group = product([space, *([] if first is None else [first])])
    return Frame(group, **options).support(x), x


@pytest.mark.parametrize(
    ("name", "d", "full", "proper"),
    [
        ("random", 3, 8, 4), ("cube", 3, 48, 24), ("tetrahedron", 3, 24, 12), ("square", 2, 8, 4),
        ("pentagon", 2, 10, 5), ("icosahedron", 3, 120, 60), ("square in space", 3, 16, 8), ("plane", 3, 8, 4),
        ("line", 3, 8, 4), ("one dimension", 1, 2, 1), ("four dimensions", 4, 16, 8),
    ],
)  # fmt: skip
def test_number_of_frames(name, d, full, proper):
    for family, count in ((ps.E, full), (ps.SE, proper)):
        for first in (ps.Axis("nodes"), ps.S("nodes")):
            support, _ = frames(family(d), CLOUDS[name], first, max_support=120)
            assert len(support.weight) == count
            torch.testing.assert_close(support.weight, torch.full_like(support.weight, 1 / count))
            matrix = support.element[family(d)].matrix[:, 0]
            distance = torch.cdist(matrix.flatten(1), matrix.flatten(1)) + 9 * torch.eye(count)
            assert distance.min() > 1e-3, "frames are distinct"
            if family is ps.SE:
                torch.testing.assert_close(torch.linalg.det(matrix), torch.ones(count).double())


def test_ordered_points_leave_one_frame_of_a_cube():
    support, _ = frames(ps.E(3), CUBE)
    assert len(support.weight) == 1
    proper, _ = frames(ps.SE(3), CUBE)
    assert len(proper.weight) == 1
    assert torch.linalg.det(proper.element.matrix).item() == pytest.approx(1)


def test_coinciding_points_count_once():
    support, _ = frames(ps.E(3), torch.cat([CUBE, CUBE]), ps.Axis("nodes"))
    assert len(support.weight) == 48
    support, _ = frames(ps.E(3), torch.ones(3, 3).double(), ps.S("nodes"))
    assert len(support.weight) == 6 * 8


def test_sampled_frames_are_uniform_over_the_listed_ones():
    """Chi-square, at a false-alarm rate of about 1e-6."""
    for space, first, expected in ((ps.E(3), ps.Axis("nodes"), 48), (ps.SE(3), ps.S("nodes"), 24)):
        support, x = frames(space, CUBE, first)
        p = Frame(x.group)
        draws = 4800
        g = p.transport(x, p.noise(x, (draws,), torch.Generator().manual_seed(0)))
        listed, drawn = (e[space].matrix[:, 0].flatten(1) for e in (support.element, g))
        distance, index = torch.cdist(drawn, listed).min(1)
        assert distance.max() < 1e-7
        counts = torch.bincount(index, minlength=expected)
        chi = ((counts - draws / expected).square() / (draws / expected)).sum().item()
        assert chi < expected - 1 + 7 * math.sqrt(2 * (expected - 1))


def test_large_sets_are_sampled_and_told():
    hypercube = points(*itertools.product((-1, 1), repeat=4))
    with pytest.warns(UserWarning, match="max_support=64"):
        support, x = frames(ps.E(4), hypercube, ps.Axis("n"))
    assert support.diagnostics["sampled"] == 1
    assert len(support.weight) == 16
    assert len(Frame(x.group, max_support=800).support(x).weight) == 16 * 6 * 4 * 2
    wide = torch.randn(1, 30, 20).double()
    with pytest.warns(UserWarning, match="drawn"):
        assert frames(ps.O(20), wide[0])[0].element.matrix.shape == (16, 1, 20, 20)


def test_refine_has_the_second_derivative_of_eigenvectors():
    def top(a):
        """The projector on the two largest of four eigenvalues, of which each pair is equal at the start."""
        matrix = (a + a.mT) / 2
        w = torch.linalg.eigh(matrix.detach())[1]
        w = refine(w[None], matrix[None], torch.tensor([[0, 0, 1, 1]]))[0, :, 2:]
        return w @ w.mT

    q = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64))[0]
    a = (q @ torch.diag(points(1, 1, 3, 3)) @ q.mT).requires_grad_()
    assert torch.autograd.gradcheck(top, (a,), atol=1e-6)
    assert torch.autograd.gradgradcheck(top, (a,), atol=1e-5)


def published_poses(pos, affine, proper):
    """Puny et al., written anew: eigenvectors in ascending order, all signs, (M, N, D)."""
    centre = pos.mean(0) if affine else torch.zeros(pos.shape[1], dtype=pos.dtype)
    axes = torch.linalg.eigh((pos - centre).T @ (pos - centre))[1]
    signs = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=pos.shape[1])), dtype=pos.dtype)
    frames = axes * signs[:, None]
    if proper:
        frames = frames[torch.linalg.det(frames) > 0]
    return (pos - centre) @ frames


@pytest.mark.parametrize("storage", ["dense", "padded", "ragged"])
@pytest.mark.parametrize("family", [ps.O, ps.SO, ps.E, ps.SE])
@pytest.mark.parametrize("name", ["random", "plane", "four dimensions", "one dimension"])
def test_the_model_sees_what_the_code_of_the_authors_shows_it(name, family, storage):
    """The same set of poses, so that a net trained there gives the same output here."""
    pos = CLOUDS[name]
    size, dim = pos.shape
    space = family(dim)
    seen = []

    class Spy(torch.nn.Module):
        def forward(self, pos, **rest):
            seen.append(pos.clone())
            return pos

    if storage == "dense":
        nodes, given, marks = ps.Axis("n"), pos[None], {}
    elif storage == "padded":
        nodes, given = ps.Axis("n", mask="mask"), torch.cat([pos, torch.full((2, dim), 7.0)])[None]
        marks = {"mask": torch.arange(size + 2)[None] < size}
    else:
        nodes, given, marks = ps.Axis("n", batch="batch"), pos, {"batch": torch.zeros(size).long()}
    phi = ps.symmetrize(Spy(), {"pos": Rep(nodes, space)}, Rep(nodes, space), "frame").eval()
    phi(pos=given, **marks)
    poses = torch.cat([part.reshape(-1, *(given.shape[-2:] if storage != "ragged" else (size, dim))) for part in seen])
    want = published_poses(pos, family in (ps.E, ps.SE), family in (ps.SO, ps.SE))
    assert len(poses) == len(want)
    distance = torch.cdist(poses[:, :size].flatten(1), want.flatten(1))
    assert distance.min(0).values.max() < 1e-12
    assert distance.min(1).values.max() < 1e-12
    # negative control: descending order is another set
    if dim > 1:
        assert torch.cdist(poses[:, :size].flip(-1).flatten(1), want.flatten(1)).min(0).values.max() > 1e-2


THIN = (1.0, 0.1, 1e-3, 1e-5, 1e-7, 1e-10, 0.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("family", [ps.E, ps.SE, ps.O, ps.SO])
@pytest.mark.parametrize("d", [1, 2, 3, 4])
def test_the_usual_case_is_the_general_one(d, family, dtype):
    """Where one look settles all axes they are those of the general search, and it finds nothing degenerate."""
    space, generator = family(d), torch.Generator().manual_seed(d)
    cloud = torch.randn(5, 6, d, generator=generator, dtype=torch.float64)
    turn = ps.SO(d).haar((5,), generator=generator, dtype=torch.float64).matrix
    far = 3.0 if space.anchored else 0.0
    answers = dict.fromkeys(itertools.product(THIN, (1.0, 1e-30, 1e30)), 0)
    for thin, size in answers:
        pos = (((cloud * torch.linspace(1, thin, d, dtype=torch.float64)) @ turn + far) * size).to(dtype)
        for part in pos.split(1):
            x = Inputs.bind({"pos": Rep(None, space)}, (), {"pos": part})
            found, view = distinct_axes(x, space), view_inputs(x, [space], []).spaces[space]
            if found is None:
                continue
            answers[thin, size] += 1
            assert not view.axes.degenerate.any()
            projectors = [v.mT[..., None] * v.mT[..., None, :] for v in (found[0], view.axes.vectors)]
            assert torch.allclose(*projectors, atol=1e-5 if dtype == torch.float32 else 1e-9)
            assert torch.allclose(found[1], view.origin, rtol=1e-12)
    for size in (1.0, 1e-30, 1e30):
        assert answers[1.0, size] >= 4
        assert answers[0.0, size] == (5 if d == 1 else 0)


@pytest.mark.parametrize("size", [0.0, 1e-160, 1e-110, 1e200])
def test_the_usual_case_leaves_sizes_whose_squares_are_lost(size):
    x = Inputs.bind({"pos": Rep(None, ps.E(3))}, (), {"pos": size * RANDOM[None]})
    assert distinct_axes(x, ps.E(3)) is None


def test_the_usual_case_leaves_what_it_does_not_know():
    """Equal eigenvalues in one input of a batch, derivatives, padding, two clouds; vectors have no centroid."""
    space, nodes = ps.E(2), ps.S("nodes", mask="mask")
    square = torch.stack([SQUARE, SQUARE + torch.tensor([[2.0, 1], [0, 0], [0, 0], [0, 0]])])
    cloud, learnt = square[1:], square[1:].clone().requires_grad_()
    cases = [
        ({"pos": Rep(None, space)}, {"pos": square}),
        ({"pos": Rep(None, space)}, {"pos": learnt}),
        ({"pos": Rep(None, space), "v": Rep(None, space.vector)}, {"pos": cloud, "v": learnt}),
        ({"pos": Rep(nodes, space)}, {"pos": cloud, "mask": torch.ones(1, 4, dtype=torch.bool)}),
        ({"pos": Rep(None, space), "other": Rep(None, space)}, {"pos": cloud, "other": cloud}),
        ({"v": Rep(None, space.vector)}, {"v": cloud}),
    ]
    for spec, values in cases:
        assert distinct_axes(Inputs.bind(spec, (), values), space) is None
    assert distinct_axes(Inputs.bind({"pos": Rep(None, space)}, (), {"pos": cloud}), space) is not None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_usual_case_decides_by_the_worst_input(dtype):
    """One input with nearly equal axes, or too flat for its rounding, sends the whole batch the long way."""
    space, generator = ps.E(3), torch.Generator().manual_seed(0)
    scale = torch.tensor([3.0, 2.0, 1.0], dtype=torch.float64)
    cloud = torch.linalg.qr(torch.randn(6, 7, 3, generator=generator, dtype=torch.float64))[0]
    cloud = torch.linalg.qr(cloud - cloud.mean(1, keepdim=True))[0]
    turn = ps.SO(3).haar((6,), generator=generator, dtype=torch.float64)
    eps = torch.finfo(dtype).eps

    def settled(last: torch.Tensor, size: float, shift: float) -> tuple | None:
        pos = ((cloud * last) @ turn.matrix.mT + shift) * size
        return distinct_axes(Inputs.bind({"pos": Rep(None, space)}, (), {"pos": pos.to(dtype)}), space)

    for size, shift in ((1.0, 0.0), (1e-30, 1.0), (1e30, -1.0), (1.0, 100.0)):
        found = settled(scale, size, shift)
        assert found is not None
        overlap = (found[0].flip(-1).mT @ turn.matrix).abs()
        assert torch.allclose(
            overlap, torch.eye(3, dtype=torch.float64).expand(6, 3, 3), atol=1e3 * eps * (1 + abs(shift))
        )
        near, flat = scale.expand(6, 1, 3).clone(), scale.expand(6, 1, 3).clone()
        near[4, 0, 1] = 3.0 - 1e-4
        flat[2, 0, 2] = 10 * eps * (1 + abs(shift))
        assert settled(near, size, shift) is None
        assert settled(flat, size, shift) is None


@pytest.mark.parametrize("special", [False, True])
@pytest.mark.parametrize("d", [1, 2, 3, 4])
def test_listed_signs_keep_their_order(d, special):
    frame = ps.O(d).haar((5,), generator=torch.Generator().manual_seed(d), dtype=torch.float64).matrix
    signs = signs_of_pattern(torch.arange(2**d), torch.ones(d, dtype=torch.bool))
    if special:
        frame[..., -1] *= torch.linalg.det(frame).sign()[:, None]
        signs = signs[signs.prod(-1) > 0]
    assert torch.equal(signed(frame, special), frame * signs[:, None, None])
