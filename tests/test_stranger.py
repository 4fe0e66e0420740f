"""A stranger's file: eight members that somebody outside of the library adds, from its public modules alone.

Each takes under 60 lines. Each passes the checker of its kind, is averaged by `Exact` or `Adaptive` where that applies,
trains, and comes back from a folder.
"""

from __future__ import annotations

import copy
import inspect
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

import probsym as ps
from probsym.distributions import DefaultNet, EquivariantDistribution, Support
from probsym.groups import Element, FiniteGroup, Group, Slot
from probsym.groups.orthogonal import rotate
from probsym.kernels.gathers import gather_nodes
from probsym.reps import Inputs
from probsym.saving import register
from probsym.testing import (
    assert_distribution,
    assert_equivariant,
    assert_estimator,
    assert_group,
    assert_slot,
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 1, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed), dtype=dtype)


class Base(nn.Module):
    """Any function of the flattened inputs."""

    def __init__(self, entries: int, *shape: int, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.shape = shape
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.inner = nn.Linear(entries, 16, dtype=dtype)
            self.outer = nn.Linear(16, torch.Size(shape).numel(), dtype=dtype)

    def forward(self, *inputs: Tensor) -> Tensor:
        rows = torch.cat([tensor.flatten(1) for tensor in inputs], 1)
        return self.outer(bounded(self.inner(rows))).reshape(-1, *self.shape)


def bounded(x: Tensor) -> Tensor:
    """tanh, of both parts of complex numbers."""
    return torch.complex(x.real.tanh(), x.imag.tanh()) if x.is_complex() else x.tanh()


def trains(phi: ps.Symmetrizer, *inputs: Tensor) -> None:
    """The loss falls, and the gradient reaches every parameter, those of a net of p included."""
    phi = copy.deepcopy(phi).train()
    target = normal(*phi(*inputs).shape, seed=9)
    optimizer = torch.optim.Adam(phi.parameters(), 1e-2)
    losses = []
    for step in range(40):
        optimizer.zero_grad()
        loss = (phi(*inputs, generator=seeded(step % 4)) - target).abs().square().mean()
        loss.backward()
        for name, parameter in phi.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            assert step or (parameter.grad != 0).any(), name
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-4:]) < 0.95 * sum(losses[:4])


def comes_back(phi: ps.Symmetrizer, model: nn.Module, folder: Any, *inputs: Tensor) -> None:
    """`load` makes the same Symmetrizer around a model with other weights, without help."""
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    ps.save(phi, folder)
    again = ps.load(folder, model).eval()
    assert (again.inputs, again.output) == (phi.inputs, phi.output)
    assert again.eval_estimator == phi.eval_estimator
    assert torch.equal(again(*inputs, generator=seeded()), phi.eval()(*inputs, generator=seeded()))


# ---------------------------------------------------------------- 1. a finite group: exchanges of three colours


@dataclass(frozen=True, eq=False)
class Exchange(Element):
    """Colour i becomes colour i + steps."""

    steps: Tensor
    trailing_dims: ClassVar[dict[str, int]] = {"steps": 0}


@register(name="stranger/Channels")
@dataclass(frozen=True)
class Channels(Slot):
    """One entry per colour."""

    sizes = (3,)

    def act(self, g: Exchange, x: Tensor, axis: int, shared_dims: int) -> Tensor:
        return gather_nodes(x, (torch.arange(3) - g.steps.unsqueeze(-1)) % 3, axis, shared_dims)


@register(name="stranger/Colours")
@dataclass(frozen=True)
class Colours(FiniteGroup):
    """Cyclic exchanges of red, green and blue."""

    name: str | None = None

    @property
    def defining(self) -> Slot:
        return Channels(self)

    def elements(self, device: Any = None) -> Exchange:
        return Exchange(self, torch.arange(3, device=device))

    def compose(self, g: Exchange, h: Exchange) -> Exchange:
        return Exchange(self, (g.steps + h.steps) % 3)


def test_a_finite_group(tmp_path):
    colours = Colours()
    assert_group(colours)
    assert_slot(colours.defining)
    image = normal(4, 3, 2, 2)
    model = Base(12, 3, 5)
    phi = ps.symmetrize(model, ps.Rep(colours), ps.Rep(colours), "haar", ps.Exact(), ps.Exact()).eval()
    assert_distribution(phi, image)
    assert_equivariant(phi, image)
    by_hand = torch.stack([model(image.roll(-i, 1)).roll(i, 1) for i in range(3)]).mean(0)
    assert torch.allclose(phi(image), by_hand, atol=1e-12)
    assert (phi.estimate(image).stderr == 0).all()
    trains(phi, image)
    comes_back(phi, Base(12, 3, 5), tmp_path, image)


# ---------------------------------------------------------------- 2. a group that is not compact: boosts


@dataclass(frozen=True, eq=False)
class Boost(Element):
    """t + x grows by exp(rapidity), t - x shrinks by it."""

    rapidity: Tensor
    trailing_dims: ClassVar[dict[str, int]] = {"rapidity": 0}


@register(name="stranger/Event")
@dataclass(frozen=True)
class Event(Slot):
    """A time and a place."""

    sizes = (2,)

    def act(self, g: Boost, x: Tensor, axis: int, shared_dims: int) -> Tensor:
        cosh, sinh = g.rapidity.cosh(), g.rapidity.sinh()
        matrix = torch.stack([cosh, sinh, sinh, cosh], -1).unflatten(-1, (2, 2))
        return rotate(matrix, x, axis, shared_dims)


@register(name="stranger/Boosts")
@dataclass(frozen=True)
class Boosts(Group):
    """SO+(1, 1)."""

    name: str | None = None
    compact = False
    noise_slots = ()  # a boost leaves the noise alone: one number per element

    @property
    def defining(self) -> Slot:
        return Event(self)

    @property
    def feature_slots(self) -> tuple[Slot, ...]:
        return (self.defining,)

    def identity(self, shape: tuple[int, ...] = (), *, n: Any = None, dtype: Any = None, device: Any = None) -> Boost:
        return Boost(self, torch.zeros(shape, dtype=dtype, device=device))

    def compose(self, g: Boost, h: Boost) -> Boost:
        return Boost(self, g.rapidity + h.rapidity)

    def inverse(self, g: Boost) -> Boost:
        return Boost(self, -g.rapidity)

    def project(self, z: Tensor, fallback: Tensor) -> Boost:
        """The boost that takes rest to the velocity of z (*shape, 2); outside of the light cone there is none."""
        none = self.degenerate(z)
        velocity = z[..., 1] / torch.where(none, 1, z[..., 0])
        return Boost(self, torch.where(none, fallback, torch.where(none, 0, velocity).atanh()))

    def degenerate(self, z: Tensor) -> Tensor:
        return z[..., 1].abs() >= z[..., 0].abs() * (1 - 1e-9)

    def draw_features(self, shape: tuple[int, ...], **options: Any) -> Tensor:
        z = torch.randn(*shape, 2, **{key: value for key, value in options.items() if key != "n"})
        return torch.stack([z[..., 0].abs() + z[..., 1].abs() + 0.1, z[..., 1]], -1)


@register(name="stranger/NearRest")
class NearRest(EquivariantDistribution):
    """Frames about that in which a weighted total momentum rests; the noise is a boost that nothing moves."""

    def __init__(self, group: Boosts, spread: float) -> None:
        super().__init__(group)
        self.spread = spread
        self.weight = nn.Linear(1, 1, dtype=torch.float64)

    def noise(self, x: Inputs, shape: tuple[int, ...] = (), generator: torch.Generator | None = None) -> Tensor:
        return torch.randn(*shape, x.count, generator=generator, dtype=x.dtype)

    def noise_rep(self, x: Inputs) -> ps.Rep:
        return ps.Rep()

    def transport(self, x: Inputs, noise: Tensor, diagnostics: Any = None) -> Boost:
        (momenta,) = x.args
        mass = momenta[..., :1].square() - momenta[..., 1:].square()
        total = (self.weight(mass).exp() * momenta).sum(1)
        return self.group.project(total, noise) @ Boost(self.group, self.spread * noise)


def test_a_group_that_is_not_compact(tmp_path):
    boosts = Boosts()
    assert_group(boosts)
    assert_slot(boosts.defining)
    momenta = boosts.draw_features((4, 3), generator=seeded(), dtype=torch.float64)
    rep = ps.Rep(None, boosts)
    p = NearRest(boosts, 0.3)
    assert_distribution(p, momenta, rep)
    with pytest.raises(ValueError, match="compact"):
        ps.Haar(boosts)
    phi = ps.symmetrize(Base(6, 3, 2), rep, rep, p, 2, ps.Adaptive(0.05)).eval()
    assert_equivariant(phi, momenta)
    estimate = phi.estimate(momenta, generator=seeded())
    assert estimate.stderr.max() < 0.06
    trains(phi, momenta)
    comes_back(phi, Base(6, 3, 2), tmp_path, momenta)


# ---------------------------------------------------------------- 3. a complex group: U(n)


@dataclass(frozen=True, eq=False)
class UnitaryElement(Element):
    """x -> U x."""

    matrix: Tensor
    trailing_dims: ClassVar[dict[str, int]] = {"matrix": 2}


@register(name="stranger/Spinor")
@dataclass(frozen=True)
class Spinor(Slot):
    """n complex numbers."""

    is_complex = True

    @property
    def sizes(self) -> tuple[int, ...]:
        return (self.group.n,)

    def act(self, g: UnitaryElement, x: Tensor, axis: int, shared_dims: int) -> Tensor:
        return rotate(g.matrix, x, axis, shared_dims)


@register(name="stranger/Unitary")
@dataclass(frozen=True)
class Unitary(Group):
    """The unitary n x n matrices."""

    n: int
    name: str | None = None

    @property
    def defining(self) -> Slot:
        return Spinor(self)

    @property
    def noise_slots(self) -> tuple[Slot | None, ...]:
        return (self.defining, None)  # n columns, each moved

    def draw_noise(self, shape: tuple[int, ...], *, n: Any = None, dtype: Any = None, **options: Any) -> Tensor:
        return torch.randn(*shape, self.n, self.n, dtype=(dtype or torch.get_default_dtype()).to_complex(), **options)

    def identity(self, shape: tuple[int, ...] = (), *, n: Any = None, dtype: Any = None, device: Any = None):
        matrix = torch.eye(self.n, dtype=(dtype or torch.get_default_dtype()).to_complex(), device=device)
        return UnitaryElement(self, matrix.expand(*shape, -1, -1))

    def compose(self, g: UnitaryElement, h: UnitaryElement) -> UnitaryElement:
        return UnitaryElement(self, g.matrix @ h.matrix)

    def inverse(self, g: UnitaryElement) -> UnitaryElement:
        return UnitaryElement(self, g.matrix.mH)

    def violation(self, g: UnitaryElement) -> Tensor:
        return (g.matrix.mH @ g.matrix - torch.eye(self.n)).abs().amax((-2, -1))

    def project(self, z: Tensor, fallback: Tensor) -> UnitaryElement:
        """Gram-Schmidt of the columns; one that depends on those before is that of the fallback."""
        return UnitaryElement(self, self.orthonormal(z, fallback)[0])

    def degenerate(self, z: Tensor) -> Tensor:
        return self.orthonormal(z, torch.eye(self.n, dtype=z.dtype).expand_as(z))[1]

    def orthonormal(self, z: Tensor, fallback: Tensor) -> tuple[Tensor, Tensor]:
        size = z.detach().abs().amax((-2, -1), keepdim=True)
        z, fallback = torch.broadcast_tensors(z / torch.where(size > 0, size, 1), fallback)
        columns: list[Tensor] = []
        dependent = torch.zeros(z.shape[:-2], dtype=torch.bool)
        for i in range(self.n):
            rest, spare = z[..., i], fallback[..., i]
            for column in (*columns, *columns):  # twice: once leaves what rounding adds
                rest = rest - (column.conj() * rest).sum(-1, keepdim=True) * column
                spare = spare - (column.conj() * spare).sum(-1, keepdim=True) * column
            lost = rest.detach().abs().amax(-1, keepdim=True) < torch.finfo(z.dtype).eps ** 0.625
            dependent = dependent | lost.squeeze(-1)
            chosen = torch.where(lost, spare, rest)
            columns.append(chosen / chosen.abs().square().sum(-1, keepdim=True).sqrt())
        return torch.stack(columns, -1), dependent


def test_a_complex_group(tmp_path):
    unitary = Unitary(2)
    assert_group(unitary)
    assert_slot(unitary.defining)
    x = normal(3, 4, 2, dtype=torch.complex128)
    rep = ps.Rep(None, unitary)

    def base() -> nn.Module:
        return Base(8, 4, 2, dtype=torch.complex128)

    phi = ps.symmetrize(base(), rep, rep, "haar", 4, ps.Adaptive(0.1)).eval()
    assert_distribution(phi, x)
    assert_equivariant(phi, x, samples=64)
    estimate = phi.estimate(x, generator=seeded())
    assert estimate.mean.is_complex()
    assert not estimate.stderr.is_complex()
    assert estimate.stderr.max() < 0.12
    trains(phi, x)
    comes_back(phi, base(), tmp_path, x)


# ---------------------------------------------------------------- 4. a slot of another length: a symmetric matrix

ROWS, COLUMNS = torch.triu_indices(3, 3)


@register(name="stranger/SymmetricMatrix")
@dataclass(frozen=True)
class SymmetricMatrix(Slot):
    """The six entries of a symmetric 3 x 3 matrix, such as a stress: S -> R S R^T."""

    sizes = (6,)
    isometric = False  # entries beside the diagonal, which stand for two each, are written once

    def act(self, g: Element, x: Tensor, axis: int, shared_dims: int) -> Tensor:
        basis = torch.zeros(6, 3, 3, dtype=g.matrix.dtype)
        basis[range(6), ROWS, COLUMNS] = 1
        basis[range(6), COLUMNS, ROWS] = 1
        turn = g.matrix.unsqueeze(-3)
        matrix = (turn @ basis @ turn.mT)[..., ROWS, COLUMNS].mT
        return rotate(matrix, x, axis, shared_dims)


@pytest.mark.parametrize("distribution", ["haar", "frame", "learned"])
def test_a_slot_of_another_length(distribution, tmp_path):
    space = ps.O(3)
    assert_slot(SymmetricMatrix(space))
    rep, stress = ps.Rep(None, space), ps.Rep(SymmetricMatrix(space))
    x, h = normal(3, 4, 3), space.haar((3,), generator=seeded(), dtype=torch.float64)
    outer = (x.unsqueeze(-1) * x.unsqueeze(-2)).sum(1)[:, ROWS, COLUMNS]
    turned = rep.act(h, x)
    expected = (turned.unsqueeze(-1) * turned.unsqueeze(-2)).sum(1)[:, ROWS, COLUMNS]
    assert torch.allclose(stress.act(h, outer), expected, atol=1e-12)

    estimator = ps.Exact() if distribution == "frame" else ps.Adaptive(0.05)
    phi = ps.symmetrize(Base(12, 6), rep, stress, distribution, None, estimator, example=x).double().eval()
    assert_equivariant(phi, x, samples=64)
    assert phi.estimate(x, generator=seeded()).stderr.max() < 0.06
    with pytest.raises(ValueError, match="expected size 6"):
        ps.symmetrize(Base(12, 5), rep, stress, "haar")(x)
    trains(phi, x)
    comes_back(phi, Base(12, 6), tmp_path, x)


# ---------------------------------------------------------------- 5. a distribution: a mixture of two


@register(name="stranger/Mixture")
class Mixture(EquivariantDistribution):
    """A draw of p with probability `share`, else one of q."""

    def __init__(self, p: EquivariantDistribution, q: EquivariantDistribution, share: float) -> None:
        super().__init__(p.group)
        self.p, self.q, self.share = p, q, share

    def noise(self, x: Inputs, shape: tuple[int, ...] = (), generator: torch.Generator | None = None) -> Any:
        choice = torch.rand(*shape, x.count, generator=generator, dtype=x.dtype)
        return {"choice": choice, "p": self.p.noise(x, shape, generator), "q": self.q.noise(x, shape, generator)}

    def noise_rep(self, x: Inputs) -> Any:
        return {"choice": ps.Rep(), "p": self.p.noise_rep(x), "q": self.q.noise_rep(x)}

    def transport(self, x: Inputs, noise: Any, diagnostics: Any = None) -> Element:
        first, second = self.p.transport(x, noise["p"]), self.q.transport(x, noise["q"])
        others = iter(second.tensors.values())

        def chosen(tensor: Tensor, trailing: int) -> Tensor:
            where = (noise["choice"] < self.share).reshape(*first.shape, *[1] * trailing)
            return torch.where(where, tensor, next(others))

        return first.map(chosen)


def test_a_distribution(tmp_path):
    space = ps.SO(3)
    rep, x = ps.Rep(None, space), normal(3, 4, 3)
    p = Mixture(ps.Learned(DefaultNet(rep, space), space, scale=0.1), ps.Haar(space), 0.7)
    phi = ps.symmetrize(Base(12, 4, 3), rep, rep, p, 4, ps.Adaptive(0.1), example=x).double().eval()
    assert_distribution(phi, x)
    assert_equivariant(phi, x, samples=64)
    g = p.transport(phi.bind((x,), {}), p.draw(phi.bind((x,), {}), 400, seeded()))
    near = (g.matrix - g.matrix.median(0).values).square().sum((-2, -1)) < 0.5
    assert 0.6 < near.double().mean() < 0.85
    trains(phi, x)
    comes_back(phi, Base(12, 4, 3), tmp_path, x)


# ---------------------------------------------------------------- 6. a weighted frame: one pose per point


@register(name="stranger/PointFrame")
class PointFrame(EquivariantDistribution):
    """A pose of the plane for each point, which it puts on the first axis, weighted by its squared distance."""

    has_enumerate_support = True
    default_samples = (None, None)

    def support(self, x: Inputs, generator: torch.Generator | None = None) -> Support:
        points = x.args[0].movedim(1, 0)  # (N, B, 2): one element per point
        square = points.square().sum(-1)
        size = torch.where(square > 0, square, 1).sqrt().unsqueeze(-1)
        along = torch.where(square.unsqueeze(-1) > 0, points / size, torch.eye(2, dtype=x.dtype)[0])
        across = torch.stack([-along[..., 1], along[..., 0]], -1)
        matrix = torch.stack([along, across], -1)
        element = self.group.identity(dtype=x.dtype).map(lambda *_: matrix)
        return Support(element, square / square.sum(0), torch.ones(x.count, dtype=torch.bool), {})

    def noise(self, x: Inputs, shape: tuple[int, ...] = (), generator: torch.Generator | None = None) -> Tensor:
        return torch.rand(*shape, x.count, generator=generator, dtype=x.dtype)

    def noise_rep(self, x: Inputs) -> ps.Rep:
        return ps.Rep()

    def transport(self, x: Inputs, noise: Tensor, diagnostics: Any = None) -> Element:
        listed = self.support(x)
        number = (noise.unsqueeze(-1) > listed.weight.cumsum(0).T).sum(-1).clamp_max(len(listed.weight) - 1)
        return listed.element.map(lambda matrix, _: matrix[number, torch.arange(x.count)])


def test_a_weighted_frame(tmp_path):
    space = ps.SO(2)
    rep, x = ps.Rep(None, space), normal(3, 4, 2)
    phi = ps.symmetrize(Base(8, 4, 2), rep, rep, PointFrame(space)).eval()
    assert_distribution(phi, x)
    assert_equivariant(phi, x)
    assert (phi.estimate(x).stderr == 0).all()
    assert phi.estimate(x).samples.tolist() == [4, 4, 4]
    steps = []
    for offset in (-1e-5, 0.0, 1e-5):  # its pose jumps where the first point crosses the origin, the average does not
        x[:, 0] = torch.tensor([offset, 0.0])
        steps.append(phi(x))
    assert (steps[2] - steps[0]).abs().max() < 1e-4
    assert (steps[1] - steps[0]).abs().max() < 1e-4
    trains(phi, x)
    comes_back(phi, Base(8, 4, 2), tmp_path, x)


# ---------------------------------------------------------------- 7. an estimator: pilots of twice as many samples


@register(name="stranger/Doubling")
@dataclass(frozen=True)
class Doubling(ps.Estimator):
    """As many samples as the first pilot of 4, 8, 16, ... had whose standard errors are all below `tol`.

    The answer is of fresh samples: that the pilot looked good does not bias it.
    """

    tol: float
    most: int = 4096

    def __call__(self, p: EquivariantDistribution, x: Inputs, orbit: Any, source: Any) -> ps.Estimate:
        source.refuse_noise(self)
        k = 4
        while k < self.most and self.drawn(k, p, x, orbit, source).standard_error().max() >= self.tol:
            k *= 2
        samples = self.drawn(k, p, x, orbit, source)
        return ps.Estimate(samples.mean(), samples.standard_error(), samples.counts)

    def drawn(self, k: int, p: EquivariantDistribution, x: Inputs, orbit: Any, source: Any) -> Any:
        return orbit(x, p.transport(x, source.draw(p, x, k)))


@pytest.mark.parametrize("distribution", ["haar", "learned"])
def test_an_estimator(distribution, tmp_path):
    space = ps.SO(3)
    rep, x = ps.Rep(None, space), normal(3, 4, 3)
    phi = ps.symmetrize(Base(12, 4, 3), rep, rep, distribution, 4, Doubling(0.05), example=x).double().eval()
    assert_equivariant(phi, x, samples=64)
    estimate = phi.estimate(x, generator=seeded())
    assert estimate.stderr.max() < 2 * 0.05
    assert estimate.samples.tolist() == [int(estimate.samples[0])] * 3
    assert estimate.samples[0] > 4
    assert_estimator(Doubling(0.2), phi, x, repeats=64)
    trains(ps.Symmetrizer(phi.model, rep, rep, phi.distribution, Doubling(1.0)), x)
    comes_back(phi, Base(12, 4, 3), tmp_path, x)


# ---------------------------------------------------------------- 8. a design: four phases of every unitary matrix


@register(name="stranger/Phases")
@dataclass(frozen=True)
class Phases(ps.designs.Design):
    """U, iU, -U and -iU for every U drawn: exact for polynomials of degree below four in x (and its conjugate)."""

    size = 4

    def samples_per_draw(self, p: EquivariantDistribution, x: Inputs) -> int:
        return 4

    def transport(self, p: EquivariantDistribution, x: Inputs, noise: Any, diagnostics: Any = None) -> Element:
        g = p.transport(x, noise, diagnostics)
        phases = torch.tensor([1, 1j, -1, -1j])

        def turned(matrix: Tensor, trailing: int) -> Tensor:
            factors = phases.to(matrix.dtype).reshape(4, *[1] * (matrix.ndim - 1))
            return (matrix.unsqueeze(1) * factors).flatten(0, 1)

        return g.map(turned)


def test_a_design(tmp_path):
    unitary = Unitary(2)
    x = normal(3, 2, dtype=torch.complex128)

    class Affine(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[:, :1] + 3 * x[:, 1:] ** 2 + 2

    estimator = ps.MonteCarlo(8, design=Phases())
    exact = ps.symmetrize(Affine(), ps.Rep(unitary), ps.Rep(), "haar", eval_samples=estimator).eval()
    estimate = exact.estimate(x, generator=seeded())
    assert torch.allclose(estimate.mean, torch.full((3, 1), 2.0, dtype=torch.complex128), atol=1e-12)
    assert estimate.stderr.max() < 1e-12

    model = Base(2, 2, dtype=torch.complex128)
    phi = ps.symmetrize(model, ps.Rep(unitary), ps.Rep(unitary), "haar", estimator, estimator).eval()
    truth = phi(x, samples=40_000, generator=seeded(1))
    many = phi.estimate(x, estimator=ps.MonteCarlo(4000, design=Phases()), generator=seeded())
    assert ((many.mean - truth).abs() < 6 * many.stderr + 0.02).all()
    assert torch.allclose(
        phi(x, estimator=ps.MonteCarlo(8, 4, Phases()), generator=seeded()), phi(x, generator=seeded())
    )
    trains(phi, x)
    comes_back(phi, Base(2, 2, dtype=torch.complex128), tmp_path, x)


# ---------------------------------------------------------------- how much it takes

MEMBERS = {
    "a finite group": (Exchange, Channels, Colours),
    "a group that is not compact": (Boost, Event, Boosts),
    "its distribution": (NearRest,),
    "a complex group": (UnitaryElement, Spinor, Unitary),
    "a slot": (SymmetricMatrix,),
    "a distribution": (Mixture,),
    "a weighted frame": (PointFrame,),
    "an estimator": (Doubling,),
    "a design": (Phases,),
}


@pytest.mark.parametrize("name", MEMBERS)
def test_each_takes_less_than_sixty_lines(name):
    lines = "".join(inspect.getsource(cls) for cls in MEMBERS[name]).splitlines()
    assert sum(bool(line.strip()) for line in lines) < 60


PUBLIC = {"distributions", "groups", "groups.orthogonal", "kernels.gathers", "reps", "saving", "testing"}


def test_public_modules_alone():
    """Those that the guides use, and no name with an underscore."""
    lines = inspect.getsource(inspect.getmodule(seeded)).splitlines()
    imported = [line.split() for line in lines if line.startswith("from probsym")]
    assert {words[1] for words in imported} == {f"probsym.{name}" for name in PUBLIC}
    assert not any(name.startswith("_") for words in imported for name in words[3:])
