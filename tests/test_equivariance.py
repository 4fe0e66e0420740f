"""One grid for coupled exactness: every group and storage, every distribution, every way of averaging.

phi(h x, h eps) = h phi(x, eps)        to 1e-10 in float64, for one random h per input and the same noise eps
"""

from __future__ import annotations

import copy
import inspect
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import probsym as ps
from cases import (
    DISTRIBUTIONS,
    NODES,
    PADDED,
    RAGGED,
    SETTINGS,
    Base,
    Setting,
    coupled_error,
    entry,
    make_setting,
    particles,
    randn,
    seeded,
)  # fmt: skip
from probsym.distributions import EquivariantDistribution, Support
from probsym.groups import Element, FiniteGroup
from probsym.reps import Inputs, leaves
from probsym.testing import assert_distribution, equivariance_error
from probsym.testing.elements import random_elements
from test_every_symmetry import SYMMETRIES

TOLERANCE = 1e-10

# ---------------------------------------------------------------- the grid


class Averaged(nn.Module):
    """An equivariant net for any finite group: the exact average of one without symmetry, as features of p."""

    def __init__(self, s: Setting) -> None:
        super().__init__()
        (self.group,) = s.group.factors
        features = ps.Rep(*self.group.noise_slots)
        sizes = self.group.draw_noise(()).shape
        net = Base(s.model.layers[0].in_features, features, {(): tuple(sizes)}, seed=1).double()
        self.inner = ps.symmetrize(net, s.inputs, features, "haar", ps.Exact(), ps.Exact())

    def forward(self, **kwargs: torch.Tensor) -> dict[ps.Group, torch.Tensor]:
        return {self.group: self.inner(**kwargs)}


def on_axis(group: ps.Group, *shape: int) -> Setting:
    """Two channels of something that the group acts on, and all of it together."""
    call = {"x": randn(3, 2, *shape)}
    output = {"all": ps.Rep(), "each": ps.Rep(None, group)}
    return make_setting({"x": ps.Rep(None, group)}, output, call, [(2,), (2, *shape)])


def with_vectors(group: ps.Group, space: ps.Group, *shape: int) -> Setting:
    """A finite group beside a space."""
    call = {"x": randn(3, *shape), "v": randn(3, 4, space.dim)}
    inputs = {"x": ps.Rep(group), "v": ps.Rep(None, space)}
    return make_setting(inputs, (ps.Rep(group), ps.Rep(space)), call, [shape, (space.dim,)])


def on_nodes(group: ps.Group, nodes: ps.S, **storage: torch.Tensor) -> Setting:
    """A finite group beside few nodes, in any storage, so that all elements of both can be listed."""
    width = group.dim
    rows = (9,) if "batch" in storage else (3, 3)
    x = randn(*rows, width)
    if "mask" in storage:
        x = x * storage["mask"].unsqueeze(-1)
    output = (ps.Rep(nodes, group), ps.Rep())
    return make_setting({"x": ps.Rep(nodes, group)}, output, {"x": x, **storage}, [(3, width), (2,)], width=3)


# Groups without a default net: images, shifts and signs. Rotations by other angles than quarter turns interpolate.
FINITE = {
    "C(4)": lambda: on_axis(ps.C(4), 4, 4),
    "C(2)": lambda: on_axis(ps.C(2), 3, 4),
    "C(1)": lambda: on_axis(ps.C(1), 3, 4),
    "D(4)": lambda: on_axis(ps.D(4), 4, 4),
    "D(4) on odd images": lambda: on_axis(ps.D(4), 5, 5),
    "Shift": lambda: on_axis(ps.Shift((3, 4)), 3, 4),
    "Signs": lambda: on_axis(ps.Signs(3), 3),
}
MIXED = {
    "D(4) x SO(3)": lambda: with_vectors(ps.D(4), ps.SO(3), 4, 4),
    "Shift x O(2)": lambda: with_vectors(ps.Shift((2, 3)), ps.O(2), 2, 3),
    "Signs x S": lambda: on_nodes(ps.Signs(2), NODES),
    "Signs x padded S": lambda: on_nodes(ps.Signs(2), PADDED, mask=torch.arange(3) < torch.tensor([[3], [1], [2]])),
    "Signs x ragged S": lambda: on_nodes(ps.Signs(2), RAGGED, batch=torch.arange(3).repeat_interleave(3)),
    "O(1) x S": lambda: on_nodes(ps.O(1), NODES),
}
GRID = {**SETTINGS, **FINITE, **MIXED}
ESTIMATORS: dict[str, ps.Estimator] = {
    "plain": ps.MonteCarlo(4),
    "chunks": ps.MonteCarlo(5, chunk=2),
    "antithetic": ps.MonteCarlo(4, design="antithetic"),
    "octahedral": ps.MonteCarlo(24, design="octahedral"),
    "cyclic": ps.MonteCarlo(5, design=ps.designs.Cyclic(5)),
    "shifts": ps.MonteCarlo(12, chunk=5, design="shifts"),
    "exact": ps.Exact(),
    "exact in chunks": ps.Exact(chunk=3),
    "hybrid": ps.Hybrid(2, chunk=7),
    "adaptive": ps.Adaptive(1e-12, max_samples=16, chunk=16),  # so small that every input takes 16
}


def applies(setting: str, distribution: str, estimator: str) -> bool:
    """Whether an estimator averages over this distribution: a design needs its factor, `Exact` a finite support."""
    s = GRID[setting]()
    p = distribution_of(s, distribution)
    factors = s.group.factors
    if estimator == "octahedral":
        return any(f.isometric and f.dim == 3 for f in factors)
    if estimator == "cyclic":
        return any(f.isometric and f.dim == 2 for f in factors)
    if estimator == "shifts":
        return any(isinstance(f, ps.S) for f in factors)
    if estimator.startswith("exact"):
        return p.has_enumerate_support
    if estimator == "hybrid":
        x = Inputs.bind(s.inputs, (), s.call)
        return None not in p.enumerable_part(x)
    return True


def distribution_of(s: Setting, name: str) -> EquivariantDistribution:
    """A distribution by name; for groups without a default net with one that any group may have."""
    (factor, *others) = s.group.factors
    if not others and isinstance(factor, FiniteGroup) and name in ("learned", "canonical"):
        return {"learned": ps.Learned, "canonical": ps.Canonical}[name](Averaged(s), factor)
    return DISTRIBUTIONS[name](s)


PAIRS = [(setting, distribution) for setting in SETTINGS for distribution in DISTRIBUTIONS]
PAIRS += [(setting, distribution) for setting in FINITE for distribution in ("haar", "learned", "canonical")]
PAIRS += [(setting, distribution) for setting in MIXED for distribution in ("haar",)]
TRIPLES = [(*pair, estimator) for pair in PAIRS for estimator in ESTIMATORS if applies(*pair, estimator)]


# ---------------------------------------------------------------- what is compared


class MovedNoise(EquivariantDistribution):
    """p, with all noise moved by h: in place of p on h x it draws h eps where p on x draws eps.

    So an estimator that draws its own noise is coupled, too.
    """

    def __init__(self, p: EquivariantDistribution, h: Element) -> None:
        super().__init__(p.group)
        self.p, self.h = p, h
        self.has_enumerate_support = p.has_enumerate_support

    def noise(self, x: Inputs, shape: tuple[int, ...] = (), generator: torch.Generator | None = None) -> Any:
        return self.p.move_noise(x, self.h, self.p.noise(x, shape, generator))

    def noise_rep(self, x: Inputs) -> Any:
        return self.p.noise_rep(x)

    def transport(self, x: Inputs, noise: Any, diagnostics: dict[str, torch.Tensor] | None = None) -> Element:
        return self.p.transport(x, noise, diagnostics)

    def support(self, x: Inputs, generator: torch.Generator | None = None) -> Support:
        moved = copy.copy(self.p)
        moved.noise = self.noise  # a symmetric input of a canonical p is given a random pose
        return moved.support(x, generator)

    def enumerable_part(self, x: Inputs) -> Any:
        finite, rest = self.p.enumerable_part(x)
        return finite, None if rest is None else MovedNoise(rest, self.h)


def averaged_error(s: Setting, phi: ps.Symmetrizer, estimator: ps.Estimator, seed: int = 0) -> float:
    """Largest |phi(h x, h eps) - h phi(x, eps)| over the outputs of an estimator."""
    x = phi.bind((), s.call)
    h = random_elements(phi.group, x, seeded(seed))
    moved = ps.symmetrize(s.model, s.inputs, s.output, MovedNoise(phi.distribution, h)).eval()
    left = moved(**x.act(h).kwargs, estimator=estimator, generator=seeded(seed))
    right = phi(**s.call, estimator=estimator, generator=seeded(seed))
    gaps = []
    for path, rep in leaves(phi.output).items():
        gap = entry(left, path) - rep.act(h, entry(right, path))
        gaps.append(gap.abs().max().item())
    return max(gaps)


# ---------------------------------------------------------------- tests


def symmetrized(setting: str, distribution: str) -> tuple[Setting, ps.Symmetrizer]:
    s = GRID[setting]()
    return s, s.symmetrized(distribution_of(s, distribution))


@pytest.mark.parametrize(("setting", "distribution"), PAIRS)
def test_samples(setting, distribution):
    """Each sample alone, for a base model whose own error is above 1e-2."""
    s, phi = symmetrized(setting, distribution)
    for seed in range(3):
        assert coupled_error(phi, s.call, seed=seed) <= TOLERANCE
    assert setting == "C(1)" or equivariance_error(phi.model, s.call, s.inputs, s.output).error > 1e-2


@pytest.mark.parametrize(("setting", "distribution"), PAIRS)
def test_distributions(setting, distribution):
    """The elements themselves: they move with input and noise, the noise has its law, and supports move along."""
    s = GRID[setting]()
    assert_distribution(distribution_of(s, distribution), s.call, s.inputs)


@pytest.mark.parametrize(("setting", "distribution", "estimator"), TRIPLES)
def test_averages(setting, distribution, estimator):
    s, phi = symmetrized(setting, distribution)
    assert averaged_error(s, phi, ESTIMATORS[estimator]) <= TOLERANCE


@settings(max_examples=15, deadline=None, derandomize=True)
@given(st.sampled_from(sorted(DISTRIBUTIONS)), st.integers(1, 3), st.integers(1, 6), st.integers(1, 4), st.booleans())
def test_samples_of_any_size(distribution, batch, n, d, special):
    group = ps.SE(d) if special else ps.O(d)
    s = particles(group, batch, n)
    assert coupled_error(s.symmetrized(distribution), s.call) <= TOLERANCE


@pytest.mark.parametrize("estimator", ["plain", "shifts", "hybrid", "adaptive"])
def test_noise_that_is_not_moved_is_seen(estimator):
    """Negative control: without the moved noise both sides are two estimates of one mean."""
    s, phi = symmetrized("S x E(3)", "haar")
    x = phi.bind((), s.call)
    h = random_elements(phi.group, x, seeded())
    left = phi(**x.act(h).kwargs, estimator=ESTIMATORS[estimator], generator=seeded())
    right = phi.output.act(h, phi(**s.call, estimator=ESTIMATORS[estimator], generator=seeded()))
    assert (left - right).abs().max() > 1e-3


def test_every_group_and_distribution_of_the_library_is_in_the_grid():
    factors = {type(factor) for make in GRID.values() for factor in make().group.factors}
    factors |= {type(symmetry.group) for symmetry in SYMMETRIES.values()}  # the grid of test_every_symmetry.py
    public = {value for value in vars(ps).values() if isinstance(value, type) and issubclass(value, ps.Group)}
    assert {group for group in public if not inspect.isabstract(group)} <= factors
