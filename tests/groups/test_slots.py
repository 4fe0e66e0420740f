"""Slots of one's own: of any size, in any precision, in every estimator; integers of any kind as arguments."""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn

import probsym as ps
from probsym.groups import Slot
from probsym.groups.orthogonal import rotate


@dataclass(frozen=True)
class Pair(Slot):
    """Two vectors, one after the other: the 6-d representation of a rotation."""

    def act(self, g, x, axis, shared_dims):
        x = x.expand(*g.matrix.shape[:-2], *x.shape[shared_dims:])
        axis += g.matrix.ndim - 2 - shared_dims
        x = x.movedim(axis, -1)
        matrix = g.matrix.reshape(*g.matrix.shape[:-2], *[1] * (x.ndim - g.matrix.ndim + 1), *g.matrix.shape[-2:])
        return (x.unflatten(-1, (2, -1)) @ matrix.mT).flatten(-2).movedim(-1, axis)


@dataclass(frozen=True)
class Sized(Pair):
    """The same, telling its size."""

    def misfit(self, sizes):
        return None if sizes == (2 * self.group.dim,) else f"size {2 * self.group.dim}"


@dataclass(frozen=True)
class Arrow(Slot):
    """Components (x, y) of a vector in an image that C(n) or D(n) turns."""

    suffix: ClassVar[str] = ".arrow"

    def act(self, g, x, axis, shared_dims):
        angle, sign = 2 * math.pi / self.group.n * g.turns.double(), 1.0 - 2 * g.flips.double()
        rows = [[angle.cos() * sign, angle.sin()], [-angle.sin() * sign, angle.cos()]]
        matrix = torch.stack([torch.stack(row, -1) for row in rows], -2)
        return rotate(matrix.to(x.dtype), x, axis, shared_dims)


@dataclass(frozen=True)
class Kind(Slot):
    """A label of the handedness, 0 or 1, that a reflection exchanges: integers."""

    num_axes: ClassVar[int] = 0

    @property
    def requires_float(self):
        return False

    def act(self, g, x, axis, shared_dims):
        flipped = (torch.linalg.det(g.matrix) < 0).reshape(*g.matrix.shape[:-2], *[1] * (x.ndim - shared_dims))
        return torch.where(flipped, 1 - x, x)


class Base(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(1), nn.Linear(size, 12), nn.Tanh(), nn.Linear(12, size))

    def forward(self, x):
        return self.layers(x.float()).to(x.dtype).view_as(x)


SPACES = [ps.O(3), ps.SO(3), ps.E(3), ps.SE(3), ps.SO(2), ps.O(4)]


@pytest.mark.parametrize("slot", [Pair, Sized])
@pytest.mark.parametrize("group", SPACES, ids=repr)
def test_other_sizes_than_that_of_the_space(group, slot):
    rep = ps.Rep(None, slot(group))
    x = torch.randn(4, 5, 2 * group.dim)
    g = group.project((x.new_zeros(4, group.dim), torch.randn(4, group.dim, group.dim)) if group.anchored else
                      torch.randn(4, group.dim, group.dim), torch.randn(4, group.dim, group.dim))  # fmt: skip
    expected = ps.Rep(None, None, group.vector).act(g, x.unflatten(-1, (2, -1))).flatten(-2)
    assert torch.allclose(rep.act(g, x), expected, atol=1e-5)
    if group.anchored:
        return
    phi = ps.symmetrize(Base(10 * group.dim), rep, rep, "haar").eval()
    assert ps.testing.equivariance_error(phi, x, generator=torch.Generator().manual_seed(0)).passed


def test_sizes_that_a_slot_tells_are_checked_by_name():
    group = ps.SO(3)
    for wrong in (torch.randn(4, 3), torch.randn(4, 7)):
        with pytest.raises(ValueError, match=r"x: expected size 6 on axis 1 for Sized.* of Rep\(Sized"):
            ps.symmetrize(Base(6), {"x": ps.Rep(Sized(group))}, ps.Rep(Sized(group)), "haar")(x=wrong)
    with pytest.raises(ValueError, match=r"x: expected size 3 on axis 2 for SO\(3\) of Rep\(None, SO\(3\)\)"):
        ps.symmetrize(Base(6), {"x": ps.Rep(None, group)}, ps.Rep(None, group), "haar")(x=torch.randn(2, 3, 4))


@pytest.mark.parametrize(
    ("rep", "shape", "says"),
    [
        (ps.Rep(ps.C(4)), (2, 4, 5), "expected square images on axes 1 to 2"),
        (ps.Rep(ps.C(4).regular), (2, 5), "expected 4 entries, one an element, on axis 1"),
        (ps.Rep(ps.Shift((2, 3))), (2, 3, 3), "expected 2 x 3 pixels on axes 1 to 2"),
        (ps.Rep(ps.Signs(3)), (2, 4), "expected 3 entries on axis 1"),
        (ps.Rep(None, ps.O(2)), (2, 4, 3), "expected size 2 on axis 2"),
    ],
    ids=repr,
)
def test_wrong_sizes_name_the_argument_or_the_output(rep, shape, says):
    with pytest.raises(ValueError, match=f"x: {says}.*of Rep"):
        ps.symmetrize(nn.Identity(), {"x": rep}, ps.Rep(), "haar")(x=torch.randn(shape))

    class Wrong(nn.Module):
        def forward(self, x):
            return torch.randn(len(x), *shape[1:])

    group = rep.group
    fine = ps.Rep(group.defining) if not group.isometric else ps.Rep(None, group)
    sizes = {ps.C: (4, 4), ps.Shift: (2, 3), ps.Signs: (3,), ps.O: (5, 2)}[type(group)]
    with pytest.raises(ValueError, match=f"output: {says}.*of Rep"):
        ps.symmetrize(Wrong(), {"x": fine}, rep, "haar")(x=torch.randn(2, *sizes))


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("group", [ps.O(3), ps.C(8), ps.D(4)], ids=repr)
def test_precision_of_own_slots(group, kind, autocast):
    """Half-precision tensors arrive in float32, outside of autocast, and go back rounded once."""
    slot, width = (Pair(group), 6) if group.isometric else (Arrow(group), 2)
    g = group.haar((4,), generator=torch.Generator().manual_seed(0))
    x = (torch.randn(4, 5, width, generator=torch.Generator().manual_seed(1)) * 30).to(kind)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        wide = g.map(lambda t, _: t.to(kind) if t.is_floating_point() and kind == torch.float64 else t)
        y = ps.Rep(None, slot).act(wide, x)
    exact = ps.Rep(None, slot).act(g.map(lambda t, _: t.double() if t.is_floating_point() else t), x.double())
    assert y.dtype == kind
    assert ((y.double() - exact).abs() <= torch.finfo(kind).eps / 2 * exact.abs() + 1e-5 * 30).all()


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_half_precision_calls_with_own_slots(kind):
    rep = ps.Rep(Pair(ps.SO(3)))
    for estimator in (ps.MonteCarlo(3), ps.Adaptive(0.3, pilot=32)):
        phi = ps.symmetrize(Base(6), rep, rep, "haar").eval()
        assert (
            phi(torch.randn(4, 6).to(kind), **({"samples": 3} if estimator == 3 else {"estimator": estimator})).dtype
            == kind
        )


def test_integers_through_own_slots():
    """A slot that combines entries refuses integers, by name; one that says it does not gets them."""
    group = ps.O(3)
    with pytest.raises(TypeError, match=r"x: expected a floating dtype for Rep\(Pair"):
        ps.symmetrize(Base(6), {"x": ps.Rep(Pair(group))}, ps.Rep(Pair(group)), "haar")(x=torch.ones(2, 6).long())

    class Look(nn.Module):
        def forward(self, v, label):
            self.seen = v, label
            return v

    reps = {"v": ps.Rep(None, group), "label": ps.Rep(Kind(group))}
    phi = ps.symmetrize(Look(), reps, ps.Rep(None, group), "haar").eval()
    v, label = torch.randn(2, 3, 3), torch.tensor([0, 1])
    phi(v=v, label=label, samples=16)
    moved, labels = phi.model.seen
    assert labels.dtype == torch.long
    flipped = torch.linalg.det(moved) * torch.linalg.det(v).repeat(16) < 0
    assert torch.equal(labels, torch.where(flipped, 1 - label.repeat(16), label.repeat(16)))
    with pytest.raises(TypeError, match="numbers with a sign for Signs"):
        ps.Rep(ps.Signs(3)).act(ps.Signs(3).haar((2,)), torch.ones(2, 3, dtype=torch.uint8))
    with pytest.raises(TypeError, match="floating dtype on axis 1"):
        ps.Rep(group).act(group.haar((2,)), torch.ones(2, 3, dtype=torch.long))


@pytest.mark.parametrize("group", [ps.SO(3), ps.O(3)], ids=repr)
def test_adaptive_measures_what_no_pose_changes(group):
    """The spread over the axis of an own slot is a trace: the size is the same in every pose."""
    rep = ps.Rep(None, Pair(group))
    phi = ps.symmetrize(Base(12), rep, rep, "haar").eval()
    x = torch.randn(2, 2, 6)
    structure = phi.orbit(phi.bind((x,), {}), group.identity((1, 2))).structure
    y = torch.randn(50, 2, 2, 6, dtype=torch.float64)
    h = group.haar((2,), dtype=torch.float64)
    turned = torch.stack([rep.act(h, row) for row in y])
    a, b = (structure.largest_variance([(t - t.mean(0)).square().sum(0)]) for t in (y, turned))
    assert torch.allclose(a, b, rtol=1e-5)
    assert phi(x, estimator=ps.Adaptive(0.5, pilot=32)).isfinite().all()


def test_frames_do_not_take_own_slots_for_vectors():
    """Inputs that only an own slot turns orient nothing: the basis is drawn, and the estimate says so."""
    group = ps.SO(3)
    for rep, shape in ((ps.Rep(Pair(group)), (3, 6)), (ps.Rep(group, Pair(group)), (3, 3, 6))):
        size = math.prod(shape[1:])
        phi = ps.symmetrize(Base(size), rep, rep, "frame").eval()
        with pytest.warns(UserWarning, match="drawn at random"):
            estimate = phi.estimate(torch.randn(shape))
        assert (estimate.stderr > 0).any()
        assert estimate.aux["sampled"] == 3


# ---------------------------------------------------------------- integers


@pytest.mark.parametrize("integer", [np.int64, np.int32, np.uint8, int], ids=lambda t: t.__name__)
def test_integers_of_any_kind(integer):
    made = {
        ps.O(integer(3)): ps.O(3), ps.SE(integer(2), "s"): ps.SE(2, "s"), ps.C(integer(4)): ps.C(4),
        ps.D(n=integer(3)): ps.D(3), ps.Signs(integer(5)): ps.Signs(5), ps.Shift(integer(3)): ps.Shift(3),
        ps.Shift((integer(2), integer(3))): ps.Shift((2, 3)), ps.S(integer(4)): ps.S(4),
        ps.S("n", size=integer(4)): ps.S("n", size=4), ps.Axis("n", size=integer(4)): ps.Axis("n", size=4),
    }  # fmt: skip
    for group, plain in made.items():
        assert group == plain
        assert repr(group) == repr(plain)
        assert hash(group) == hash(plain)
        n = getattr(group, "dim", getattr(group, "n", getattr(group, "size", None)))
        assert type(n) is type(getattr(plain, "dim", getattr(plain, "n", getattr(plain, "size", None))))
    assert ps.S("n").haar((2,), n=integer(3)).index.shape == (2, 3)
    frame = ps.Frame(ps.O(2), max_support=integer(8), samples=integer(4))
    assert (type(frame.max_support), type(frame.samples)) == (int, int)


@pytest.mark.parametrize("bad", [True, np.bool_(True), 2.0, np.float64(2), torch.tensor(2)], ids=repr)
def test_what_is_no_integer(bad):
    numbered = [lambda n: ps.S("n", size=n), lambda n: ps.Shift((n, 2))]
    for make in (ps.O, ps.SE, ps.C, ps.D, ps.Signs, ps.Shift, ps.S, *numbered):
        with pytest.raises(ValueError, match="expected an integer of at least"):
            make(bad)
    with pytest.raises(ValueError, match="a string as the name"):
        ps.Axis(bad)


@pytest.mark.parametrize(("former", "name"), [("width", "num_axes"), ("mixes", "requires_float")])
def test_names_of_the_first_edition_are_refused(former, name):
    """They would be ignored, and the slot taken for one on a single axis."""
    with pytest.raises(TypeError, match=f"Former.{former}: this is called {name} now"):
        type("Former", (ps.groups.Slot,), {former: 0})


def test_elements_of_the_first_edition_are_refused():
    with pytest.raises(TypeError, match=r"Former.event: this is called trailing_dims now"):
        type("Former", (ps.Element,), {"event": {"matrix": 2}})
