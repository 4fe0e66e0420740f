"""The public suites over the library's own members, of which none is left out; and each rejects what is broken."""

from dataclasses import dataclass, replace

import pytest
import torch
from torch import nn

import probsym as ps
from cases import SETTINGS, seeded
from estimators.test_designs import FITTING, blocks
from probsym import designs
from probsym.estimators.design import Design, map_noise
from probsym.groups import Slot, SymmetricGroup
from probsym.reps import FAMILIES
from probsym.testing import assert_design, assert_estimator, assert_slot
from probsym.testing.elements import slots_of

GROUPS = [
    SymmetricGroup(4), ps.S(4), ps.S("nodes"), ps.Axis("nodes", 3), ps.O(1), ps.O(3), ps.SO(2), ps.SO(3), ps.E(2),
    ps.SE(3), ps.C(4), ps.C(5), ps.D(2), ps.D(4), ps.Shift((2, 3)), ps.Shift((4,)), ps.Signs(3),
    ps.SO(3, about="x"), ps.E(3, about="z"),
    ps.Finite([[1, 2, 0], [1, 0, 2]]), ps.Tetrahedral(reflections=True), ps.Octahedral(), ps.Icosahedral(),
    ps.U(2), ps.SU(3),
    ps.Lorentz(), ps.Lorentz("beam"),
]  # fmt: skip
REPRESENTATIONS = [
    ps.O(3).irrep(3), ps.SE(3).irrep(2), ps.O(3).irrep(1, "even"), ps.SO(2).irrep(2), ps.SE(3).rotation6d,
    ps.SO(3, about="z").quaternion, ps.O(2).vector * ps.O(2).det * ps.O(2).vector,
    ps.SE(3).defining + ps.SE(3).rotation6d + 1,
]  # fmt: skip
# Rotations of pixels by other angles than quarter turns are no exact action; what else a slot owes is asked of them.
INTERPOLATED = [ps.C(5).image, ps.D(8, mask="disc").image, ps.SO(2).image, ps.O(2).image_with(mask="disc")]


def test_every_family_is_here():
    assert {type(group) for group in GROUPS} == set(FAMILIES)


@pytest.mark.parametrize("slot", [s for group in GROUPS for s in slots_of(group)] + INTERPOLATED, ids=repr)
def test_slots(slot):
    assert_slot(slot)


@pytest.mark.parametrize("slot", REPRESENTATIONS, ids=repr)
def test_representations(slot):
    assert_slot(slot)


# ---------------------------------------------------------------- slots that are broken


@dataclass(frozen=True)
class Vectors(Slot):
    """Vectors of O(d), right but for what subclasses break."""

    @property
    def sizes(self):
        return (self.group.dim,)

    def act(self, g, x, axis, shared_dims):
        return ps.groups.orthogonal.rotate(g.matrix, x, axis, shared_dims)


@dataclass(frozen=True)
class Backwards(Vectors):
    def act(self, g, x, axis, shared_dims):
        return ps.groups.orthogonal.rotate(g.matrix.mT, x, axis, shared_dims)


@dataclass(frozen=True)
class Doubled(Vectors):
    def act(self, g, x, axis, shared_dims):
        return torch.linalg.det(g.matrix).abs().mean() * 2 * super().act(g, x, axis, shared_dims)


@dataclass(frozen=True)
class FirstOnly(Vectors):
    """Moves all samples by the first element."""

    def act(self, g, x, axis, shared_dims):
        first = g.matrix[(0,) * len(g.shape)].expand(g.matrix.shape)
        return ps.groups.orthogonal.rotate(first, x, axis, shared_dims)


@dataclass(frozen=True)
class Crossed(Vectors):
    """Moves the first channel alone."""

    def act(self, g, x, axis, shared_dims):
        moved = super().act(g, x, axis, shared_dims)
        if moved.ndim > len(g.shape) + axis - shared_dims + 1:
            moved[..., 1:] = x.expand(*g.shape, *x.shape[shared_dims:])[..., 1:]
        return moved


@dataclass(frozen=True)
class Careless(Vectors):
    """Accepts every size."""

    def misfit(self, sizes):
        return None


@dataclass(frozen=True)
class Scaled(Vectors):
    """A representation that changes lengths, and says that it does not."""

    def act(self, g, x, axis, shared_dims):
        stretch = torch.tensor([[1.0, 1.0], [0.0, 1.0]], dtype=g.matrix.dtype)
        return ps.groups.orthogonal.rotate(stretch @ g.matrix @ torch.linalg.inv(stretch), x, axis, shared_dims)


@dataclass(frozen=True)
class Blurred(FirstOnly):
    """Interpolates, it says: no reason to move all samples by the first element."""

    interpolates = True


@pytest.mark.parametrize(
    ("slot", "law"),
    [
        (Blurred(ps.O(3)), "by its own element"),
        (Backwards(ps.O(3)), r"action .ab.x"),
        (Doubled(ps.O(3)), "action"),
        (FirstOnly(ps.O(3)), "by its own element"),
        (Crossed(ps.O(3)), "channels"),
        (Careless(ps.O(3)), "misfit must refuse"),
        (Scaled(ps.O(2)), "isometric"),
    ],
)
def test_broken_slots_are_rejected(slot, law):
    assert_slot(Vectors(slot.group))
    with pytest.raises(AssertionError, match=law):
        assert_slot(slot)


# ---------------------------------------------------------------- estimators and designs


TWINS = {"icosahedral-6", "full-icosahedral-5"}  # of the same class as their neighbours, and slow: 360 and 600 a block


@pytest.mark.parametrize("name", [name for name in designs.DESIGNS if name not in TWINS])
def test_designs(name):
    s = SETTINGS[FITTING[name]]()
    repeats = 16 if blocks(name) >= 300 else 64
    assert_design(name, s.symmetrized("haar"), s.call, repeats=repeats)


def signal():
    """A model on sets of three numbers, whose average over six orders is known."""
    torch.manual_seed(0)
    rep = ps.Rep(ps.S("nodes"))
    model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 3))
    return ps.symmetrize(model, rep, rep, "haar"), torch.randn(3, 3, generator=seeded())


def pairs():
    """The same on vectors, of which a sign is finite and a rotation is not."""
    torch.manual_seed(0)
    rep = ps.Rep(ps.S("nodes"), ps.SO(2))
    model = nn.Sequential(nn.Flatten(), nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 6), nn.Unflatten(1, (3, 2)))
    return ps.symmetrize(model, rep, rep, "haar"), torch.randn(2, 3, 2, generator=seeded())


@pytest.mark.parametrize(
    "estimator",
    [ps.MonteCarlo(4), ps.MonteCarlo(6, chunk=4), ps.MonteCarlo(4, design="antithetic"), ps.Exact(), ps.Exact(2),
     ps.Adaptive(0.1, max_samples=64), ps.Hybrid(2)],
    ids=repr,
)  # fmt: skip
def test_estimators(estimator):
    phi, x = pairs() if isinstance(estimator, ps.Hybrid) else signal()
    assert_estimator(estimator, phi, x)


def test_frames_and_learned_distributions_in_the_suites():
    s = SETTINGS["S x E(3)"]()
    assert_estimator(ps.Exact(), s.symmetrized("frame"), s.call, repeats=8)
    assert_estimator(ps.MonteCarlo(4), s.symmetrized("learned"), s.call, repeats=64)


@dataclass(frozen=True)
class Broken(ps.Estimator):
    """Samples, right but for what subclasses break."""

    k: int = 4

    def __call__(self, p, x, orbit, source):
        return self.spoilt(ps.MonteCarlo(self.k)(p, x, orbit, source))

    def spoilt(self, estimate):
        return estimate


class Off(Broken):
    def spoilt(self, estimate):
        return replace(estimate, mean=estimate.mean + 0.02)


class Bold(Broken):
    def spoilt(self, estimate):
        return replace(estimate, stderr=estimate.stderr / 2)


class Certain(Broken):
    def spoilt(self, estimate):
        return replace(estimate, stderr=torch.zeros_like(estimate.stderr))


class Flat(Broken):
    def spoilt(self, estimate):
        return replace(estimate, mean=estimate.mean.flatten(1).sum(1))


class Countless(Broken):
    def spoilt(self, estimate):
        return replace(estimate, samples=estimate.samples.sum())


class Unseeded(Broken):
    """Draws from torch's own generator."""

    def __call__(self, p, x, orbit, source):
        return ps.MonteCarlo(self.k)(p, x, orbit, replace(source, generator=None))


class OneInput(Broken):
    """Takes the first input's average for that of all where the batch is small."""

    def __call__(self, p, x, orbit, source):
        found = super().__call__(p, x, orbit, source)
        if x.count > 2:
            return found
        return replace(found, mean=found.mean[:1].expand_as(found.mean))


@pytest.mark.parametrize(
    ("estimator", "law"),
    [
        (Off(), "not the average over p"),
        (Bold(8), "stderr is too small"),
        (Certain(), "stderr is zero"),
        (Flat(), "must be as the output is"),
        (Countless(), "samples must be"),
        (Unseeded(), "same seed"),
        (OneInput(), "part of the batch"),
    ],
)
def test_broken_estimators_are_rejected(estimator, law):
    phi, x = signal()
    assert_estimator(Broken(estimator.k), phi, x)
    with pytest.raises(AssertionError, match=law):
        assert_estimator(estimator, phi, x, repeats=512)


@dataclass(frozen=True)
class Upper(Design):
    """Noise of one sign: the elements are not those of p."""

    size = 1

    def arrange(self, p, x, noise, generator):
        return map_noise(p, x, noise, lambda path, rep, eps: eps.sort(-1).values)


@dataclass(frozen=True)
class Copies(Design):
    """Every sample twice, as if they were independent."""

    size = 1

    def transport(self, p, x, noise, diagnostics=None):
        def doubled(path, rep, eps):
            return eps[: (len(eps) + 1) // 2].repeat_interleave(2, 0)[: len(eps)]

        return p.transport(x, map_noise(p, x, noise, doubled), diagnostics)


@dataclass(frozen=True)
class Weighted(Design):
    """Weights that do not average to one."""

    size = 2

    def weights(self, p, x):
        return torch.tensor([[1.0], [2.0]], dtype=x.dtype).expand(2, x.count)


@pytest.mark.parametrize(
    ("design", "law"),
    [(Upper(), "not the average over p"), (Copies(), "stderr is too small"), (Weighted(), "mean one")],
)
def test_broken_designs_are_rejected(design, law):
    phi, x = signal()
    with pytest.raises(AssertionError, match=law):
        assert_design(design, phi, x)


def test_arguments_of_the_suites():
    phi, x = signal()
    with pytest.raises(TypeError, match="phi: expected a Symmetrizer"):
        assert_estimator(ps.Exact(), phi.model, x)
    with pytest.raises(ValueError, match="inputs: expected at least two"):
        assert_estimator(ps.Exact(), phi, x[:1])
    before = {key: value.clone() for key, value in phi.train().state_dict().items()}
    assert_estimator(ps.Exact(), phi, x, repeats=4)
    assert phi.training
    assert all(torch.equal(value, before[key]) for key, value in phi.state_dict().items())
