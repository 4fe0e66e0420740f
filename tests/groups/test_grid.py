"""Groups that act on images: exact where pixels move to pixels, interpolated elsewhere."""

import pytest
import torch
from torch import nn

import probsym as ps
from probsym.testing import assert_distribution, assert_equivariant, assert_group

EXACT = [
    ps.C(1),
    ps.C(2),
    ps.C(4),
    ps.D(1),
    ps.D(2),
    ps.D(4, "image"),
    ps.Shift(3),
    ps.Shift((2, 5), "torus"),
    ps.Shift((5,)),
]


def images(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64)


class Net(nn.Module):
    """A channels-first image net without symmetry."""

    def __init__(self, size: int, dense: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, padding=1).double()
        self.head = nn.Linear(4 * size * size, 2 * size * size if dense else 3).double()
        self.dense = dense

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.head(self.conv(x).tanh().flatten(1))
        return y.view_as(x) if self.dense else y


@pytest.mark.parametrize("group", EXACT, ids=repr)
def test_axioms(group):
    assert_group(group)


def test_turns_are_torch_rot90():
    x = images(2, 3, 5, 5)
    for k in range(4):
        for flip in (0, 1):
            g = ps.D(4).numbered(torch.tensor([k + 4 * flip] * 2))
            expected = (x.flip(-1) if flip else x).rot90(k, (-2, -1))
            assert torch.equal(ps.Rep(None, ps.D(4)).act(g, x), expected)
    g = ps.C(2).numbered(torch.tensor([1]))
    assert torch.equal(ps.Rep(ps.C(2)).act(g, x[:1, 0, :3]), x[:1, 0, :3].rot90(2, (-2, -1)))
    assert torch.equal(
        ps.Rep(None, ps.Shift(5)).act(ps.Shift(5).numbered(torch.tensor([7, 7])), x), x.roll((1, 2), (-2, -1))
    )


def test_samples_share_one_image():
    """Elements (K, B) on images (B, ...): one new axis, as for every action."""
    x, group = images(2, 3, 4, 4), ps.D(4)
    g = group.haar((6, 2))
    y = ps.Rep(None, group).act(g, x, 1)
    assert y.shape == (6, 2, 3, 4, 4)
    for k in range(6):
        assert torch.equal(y[k], ps.Rep(None, group).act(g.select(k), x))


def test_regular_axis_is_the_group_itself():
    """A function on the group moves as the elements do; so does the evaluation of any net on all poses."""
    group = ps.D(4)
    every = group.elements()
    g, net, x = group.haar((3,)), Net(4), images(3, 2, 4, 4)

    def orbit(x: torch.Tensor) -> torch.Tensor:
        poses = ps.Rep(None, group).act(every.inverse().map(lambda t, _: t[:, None].expand(-1, len(x))), x, 1)
        return net(poses.flatten(0, 1)).unflatten(0, (8, len(x))).movedim(0, 1)

    moved = ps.Rep(group.regular).act(g, orbit(x))
    assert torch.allclose(orbit(ps.Rep(None, group).act(g, x)), moved, atol=1e-12)


@pytest.mark.parametrize("border", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("n", [3, 8])
def test_other_angles_interpolate(n, border):
    """n steps of a smooth image come back; quarter turns among the eighths are exact; rotation is counterclockwise."""
    group, size = ps.C(n, border=border), 41
    line = torch.linspace(-1, 1, size, dtype=torch.float64)
    up, right = torch.meshgrid(-line, line, indexing="ij")
    bump = lambda a, b: (-20 * ((right - a) ** 2 + (up - b) ** 2)).exp()  # noqa: E731
    rep, angle = ps.Rep(group), torch.tensor(2 * torch.pi / n, dtype=torch.float64)
    step = group.numbered(torch.tensor([1]))
    turned = rep.act(step, bump(0.4, 0.0)[None])[0]
    inside = right**2 + up**2 < 0.8
    assert (turned - bump(0.4 * angle.cos(), 0.4 * angle.sin()))[inside].abs().max() < 0.02
    around = bump(0.4, 0.0)[None]
    for _ in range(n):
        around = rep.act(step, around)
    assert (around[0] - bump(0.4, 0.0))[inside].abs().max() < 0.2
    if n == 8:
        quarter = group.numbered(torch.tensor([2, 1]))
        x = images(2, 5, 5)
        assert torch.equal(rep.act(quarter, x)[0], x[0].rot90(1))


def test_border_policy():
    x = torch.ones(1, 8, 8, dtype=torch.float64)
    corner = {
        b: float(ps.Rep(ps.C(8, border=b)).act(ps.C(8, border=b).numbered(torch.tensor([1])), x)[0, 0, 0])
        for b in ("zeros", "border", "reflection")
    }
    assert corner["zeros"] == 0
    assert corner["border"] == pytest.approx(1)
    assert corner["reflection"] == pytest.approx(1)


def test_what_is_refused():
    for make in (
        lambda: ps.C(0),
        lambda: ps.D(2.0),
        lambda: ps.C(4, border="wrap"),
        lambda: ps.Shift(0),
        lambda: ps.Shift((1, 2, 3)),
    ):
        with pytest.raises(ValueError, match=r"expected|integer"):
            make()
    with pytest.raises(ValueError, match="square"):
        ps.Rep(ps.C(4)).act(ps.C(4).haar((1,)), images(1, 4, 5))
    with pytest.raises(ValueError, match="3 x 3"):
        ps.Rep(ps.Shift(3)).act(ps.Shift(3).haar((1,)), images(1, 4, 3))
    with pytest.raises(TypeError, match="listed"):
        ps.O(3).elements()
    with pytest.raises(TypeError, match="listed"):
        ps.S(20).elements()
    with pytest.raises(ValueError, match="at most 40320 elements to score"):
        ps.symmetrize(Net(4), ps.Rep(None, ps.Shift(224)), ps.Rep())


@pytest.mark.parametrize("group", [*EXACT, ps.S(4), ps.O(1), ps.SO(1), ps.Signs(3), ps.D(4) * ps.S(3)], ids=repr)
def test_elements_are_all_and_distinct(group):
    every = group.elements()
    stored = ps.testing.elements.stored_alone(group, {f: getattr(f, "size", None) for f in group.factors})
    seen = ps.testing.elements.probes(ps.testing.elements.slots_of(group), stored, torch.Generator().manual_seed(0))
    where = torch.cat(ps.testing.elements.images(every, seen), -1)
    assert len(where) == group.order() == every.shape[0]
    assert len(where.unique(dim=0)) == len(where)
    e = group.identity((1,), dtype=torch.float64)
    assert torch.allclose(where[:1], torch.cat(ps.testing.elements.images(e, seen), -1))


@pytest.mark.parametrize("group", [ps.C(4), ps.D(4), ps.C(2)], ids=repr)
@pytest.mark.parametrize("dense", [False, True])
def test_exact_average_is_equivariant(group, dense):
    phi = ps.symmetrize(
        Net(6, dense), ps.Rep(None, group), ps.Rep(None, group) if dense else ps.Rep(), "haar", eval_samples=ps.Exact()
    ).eval()
    x = images(3, 2, 6, 6)
    report = assert_equivariant(phi, x, generator=torch.Generator().manual_seed(0))
    assert report.error < 1e-12
    estimate = phi.estimate(x)
    assert (estimate.stderr == 0).all()
    assert estimate.samples.tolist() == [group.order()] * 3


def test_d4_average_is_the_mean_over_the_eight_poses():
    """What ttach calls d4_transform with merge_mode="mean": for labels and for dense outputs."""
    x, group = images(3, 2, 6, 6), ps.D(4)
    poses = [(q, flip) for q in range(4) for flip in (False, True)]
    pose = lambda x, q, flip: (x.flip(-1) if flip else x).rot90(q, (-2, -1))  # noqa: E731
    back = lambda y, q, flip: (lambda z: z.flip(-1) if flip else z)(y.rot90(-q, (-2, -1)))  # noqa: E731
    label, dense = Net(6), Net(6, True)
    phi = ps.symmetrize(label, ps.Rep(None, group), ps.Rep(), "haar", eval_samples=ps.Exact()).eval()
    assert torch.allclose(phi(x), torch.stack([label(pose(x, *p)) for p in poses]).mean(0), atol=1e-12)
    phi = ps.symmetrize(dense, ps.Rep(None, group), ps.Rep(None, group), "haar", eval_samples=ps.Exact(chunk=3)).eval()
    assert torch.allclose(phi(x), torch.stack([back(dense(pose(x, *p)), *p) for p in poses]).mean(0), atol=1e-12)


class Scores(nn.Module):
    """Equivariant scores over the elements of D(4): a net seen on all poses."""

    def __init__(self, group: ps.Group) -> None:
        super().__init__()
        self.group, self.net = group, Net(6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        every = self.group.elements().inverse().map(lambda t, _: t[:, None].expand(-1, len(x)))
        return self.net(ps.Rep(None, self.group).act(every, x, 1).flatten(0, 1))[:, 0].reshape(-1, len(x)).T


@pytest.mark.parametrize("kind", ["canonical", "learned", "haar"])
def test_distributions_on_images(kind):
    group, x = ps.D(4), images(3, 2, 6, 6)
    x[0] = (x[0] + x[0].flip(-1)) / 2
    p = {
        "canonical": lambda: ps.Canonical(Scores(group), group),
        "learned": lambda: ps.Learned(Scores(group), group),
        "haar": lambda: ps.Haar(group),
    }[kind]()
    assert_distribution(p, (x,), (ps.Rep(None, group),))
    phi = ps.symmetrize(Net(6), ps.Rep(None, group), ps.Rep(), p).eval()
    assert phi.estimate(x).mean.isfinite().all()
    if kind == "canonical":
        assert phi.estimate(x).aux["degenerate"] == 1


def test_shifts_of_a_net_are_a_convolution_of_poses():
    group, x = ps.Shift((3, 4)), images(2, 2, 3, 4)
    net = nn.Sequential(nn.Flatten(), nn.Linear(24, 24), nn.Tanh(), nn.Unflatten(1, (2, 3, 4))).double()
    phi = ps.symmetrize(net, ps.Rep(None, group), ps.Rep(None, group), "haar", eval_samples=ps.Exact()).eval()
    assert torch.allclose(phi(x.roll((1, 3), (-2, -1))), phi(x).roll((1, 3), (-2, -1)), atol=1e-12)


def test_shifts_along_one_axis():
    """Signals (B, C, N) and panoramas (B, C, H, W): `torch.roll` along the last axis, by any distribution."""
    ring, x = ps.Shift((6,), "ring"), images(3, 2, 6)
    rep = ps.Rep(None, ring)
    for steps in range(6):
        g = ring.numbered(torch.full((3,), steps))
        assert torch.equal(rep.act(g, x), x.roll(steps, -1))
    panorama = images(2, 3, 4, 6)
    turned = ps.Rep(None, None, ring).act(ring.numbered(torch.tensor([1, 4])), panorama)
    assert torch.equal(turned, torch.stack([panorama[0].roll(1, -1), panorama[1].roll(4, -1)]))

    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 12), nn.Tanh(), nn.Unflatten(1, (2, 6))).double()
    phi = ps.symmetrize(net, rep, rep, "haar", eval_samples=ps.Exact()).eval()
    by_hand = torch.stack([net(x.roll(-steps, -1)).roll(steps, -1) for steps in range(6)]).mean(0)
    assert torch.allclose(phi(x), by_hand, atol=1e-12)
    for p in (ps.Canonical(FirstChannel(), ring), ps.Learned(FirstChannel(), ring)):
        assert_distribution(p, (x,), (rep,))
        assert_equivariant(ps.symmetrize(net, rep, rep, p, eval_samples=4).eval(), x, samples=64)
    with pytest.raises(ValueError, match="expected size 6 on axis 2"):
        phi(images(2, 2, 5))
    with pytest.raises(ValueError, match=r"or \(N,\) for one axis"):
        ps.Shift(())


class FirstChannel(nn.Module):
    """Scores of the places of a signal (B, C, N), which shift with it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, 0]


def test_saved_and_loaded(tmp_path):
    for group, size in ((ps.D(4, "image", border="border"), 6), (ps.C(8, mask="disc"), 6), (ps.Shift(6), 6)):
        phi = ps.symmetrize(Net(size), ps.Rep(None, group), ps.Rep(), "haar", eval_samples=ps.Exact()).eval()
        ps.save(phi, tmp_path, overwrite=True)
        x = images(2, 2, size, size)
        again = ps.load(tmp_path, model=Net(size)).eval()
        assert torch.equal(again(x), phi(x))
        assert again.inputs == phi.inputs
    ring = ps.Shift((3,))
    ps.save(ps.symmetrize(nn.Identity(), ps.Rep(ring), ps.Rep(ring), "haar"), tmp_path, overwrite=True)
    assert ps.load(tmp_path, model=nn.Identity()).inputs == ps.Rep(ring)


class Viewed(nn.Linear):
    """A linear map of an image seen as a vector."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return super().forward(image.view(len(image), -1))


@pytest.mark.parametrize("elements", [1, 8])
def test_base_models_may_view_their_images(elements):
    """Turned images reach the base model with their pixels in order in memory, one pose at a time and all at once."""
    group, x = ps.D(4), images(2, 3, 4, 4)
    f = Viewed(48, 5).double()
    phi = ps.symmetrize(f, ps.Rep(None, group), ps.Rep(), "haar", eval_samples=ps.Exact(chunk=elements)).eval()
    poses = torch.stack([(x.flip(-1) if flip else x).rot90(k, (-2, -1)) for k in range(4) for flip in (0, 1)])
    torch.testing.assert_close(phi(x), torch.stack([f(pose.contiguous()) for pose in poses]).mean(0))


@pytest.mark.parametrize("group", [ps.D(4), ps.C(3)], ids=repr)
@pytest.mark.parametrize("estimator", [2, ps.Exact(), ps.Exact(chunk=1)], ids=repr)
def test_no_images(group, estimator):
    phi = ps.symmetrize(Net(4, True), ps.Rep(None, group), ps.Rep(None, group), "haar", eval_samples=estimator).eval()
    assert phi(images(0, 2, 4, 4)).shape == (0, 2, 4, 4)


def test_outputs_lie_in_memory_the_same_in_every_pose():
    x, group = images(1, 2, 4, 4), ps.D(4)
    phi = ps.symmetrize(nn.Identity(), ps.Rep(None, group), ps.Rep(None, group), "haar", eval_samples=1).eval()
    assert all(phi(x).is_contiguous() for _ in range(20))


def test_traced_models_draw_a_pose_a_call():
    """`torch.jit.trace` sees one pose and must not keep it; of 30 draws one of four is left out once in 1,400 times."""
    x, group = images(1, 2, 4, 4), ps.C(4)
    phi = ps.symmetrize(Net(4), ps.Rep(None, group), ps.Rep(), "haar", eval_samples=1).eval()
    phi(x)
    traced = torch.jit.trace(phi, x, check_trace=False)
    assert len({round(float(traced(x)[0, 0]), 9) for _ in range(30)}) == 4
