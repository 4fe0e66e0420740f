"""Base networks, groups and ways to symmetrize, by name: a new one is one line here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from torch import nn

import probsym as ps
from probsym.distributions import DefaultNet, Relaxation, by_name
from probsym.reps import group_of

from ..batches import Batch, rows
from ..methods import METHODS as ALL_METHODS
from ..methods import PAPER, PublishedNoise, Settings
from ..models import (
    EGNN,
    GivenPairs,
    MessagePassing,
    ParticleDynamics,
    ParticleDynamicsTransformer,
    ParticleGNN,
    ParticleNodeTransformer,
    ParticleTransformer,
    VectorDGCNN,
    published_transformer,
)
from .data import centred, published_pairs
from .motion import Motion

if TYPE_CHECKING:
    from .config import Config

INPUTS = ("pos", "vel", "edge")


@dataclass(frozen=True)
class Base:
    """A network for a config, whether it is S_n-equivariant as it is, and what its outputs are changes of."""

    build: Callable[[Config], nn.Module]
    permutes: bool
    motion: Motion = Motion()


@dataclass(frozen=True)
class Acts:
    """A group by what acts: permutations or not, and which motions of space."""

    permutes: bool
    space: type[ps.E | ps.SE | ps.O | ps.SO]

    @property
    def about_origin(self) -> bool:
        """Whether nothing is translated, so that data are to be centred."""
        return issubclass(self.space, ps.O | ps.SO)


FLIGHT = Motion(free_flight=True)
BASES = {
    "gnn": Base(lambda c: ParticleGNN(c.dims, **_options(c)), permutes=True),
    "dynamics": Base(lambda c: ParticleDynamics(c.dims, **_options(c), time=c.time), permutes=True, motion=FLIGHT),
    "egnn": Base(lambda c: EGNN(**_options(c)), permutes=True),
    "egnn-inverse": Base(lambda c: EGNN(**_options(c), inverse=True), permutes=True),
    "transformer": Base(lambda c: ParticleTransformer(c.particles, c.dims, **_options(c)), permutes=False),
    "node-transformer": Base(lambda c: ParticleNodeTransformer(c.particles, c.dims, **_options(c)), permutes=False),
    "dynamics-transformer": Base(
        lambda c: ParticleDynamicsTransformer(c.particles, c.dims, **_options(c), time=c.time),
        permutes=False,
        motion=FLIGHT,
    ),
}


# The same names in the published code: distances are given, the GNN has no residual and predicts about the centroid.
PUBLISHED = {
    "gnn": Base(
        lambda c: GivenPairs(MessagePassing(layers=c.layers or 4, residual=False)),
        permutes=True,
        motion=Motion(about_centroid=True),
    ),
    "transformer": Base(lambda c: GivenPairs(published_transformer(c.particles, layers=c.layers or 8)), permutes=False),
}

# Bare, in the code of the EGNN (github.com/vgsatorras/egnn): its GNN sees no distances and predicts the positions.
PUBLISHED_BARE = {
    "gnn": Base(
        lambda c: GivenPairs(MessagePassing(pair_features=1, hidden=64, layers=c.layers or 4)),
        permutes=True,
        motion=Motion(absolute=True),
    ),
    "egnn": BASES["egnn"],
}


def base_of(config: Config) -> Base:
    """The network that is symmetrized, or is left as it is."""
    if config.published and config.symmetrizer == "none":
        return PUBLISHED_BARE[config.base]
    if config.published:
        return PUBLISHED[config.base]
    return BASES[config.base]


def prepared(config: Config, batch: Batch) -> Batch:
    """The data as the model gets them: centred where nothing is translated, with distances where they are given."""
    if GROUPS[group_name(config)].about_origin:
        batch = centred(batch)
    if config.published and config.symmetrizer != "none":
        batch = published_pairs(batch)
    return batch


def _options(config: Config) -> dict[str, Any]:
    """What all bases understand: their depth, and whether they predict velocities."""
    options: dict[str, Any] = {"velocity": config.velocity_weight > 0}
    if config.layers:
        options["layers"] = config.layers
    return options


GROUPS = {
    "E": Acts(permutes=False, space=ps.E),
    "SE": Acts(permutes=False, space=ps.SE),
    "O": Acts(permutes=False, space=ps.O),
    "SO": Acts(permutes=False, space=ps.SO),
    "SxE": Acts(permutes=True, space=ps.E),
    "SxSE": Acts(permutes=True, space=ps.SE),
    "SxO": Acts(permutes=True, space=ps.O),
    "SxSO": Acts(permutes=True, space=ps.SO),
}
METHODS = {**PAPER, "ps-score": ALL_METHODS["ps-score"], "none": ALL_METHODS["none"]}


def motion(config: Config) -> Motion:
    """What the outputs of the config's base are changes of, over its horizon."""
    return replace(base_of(config).motion, time=config.time)


def group_name(config: Config) -> str:
    """The group that acts: the field, or S_n x E(d) less the S_n of a base that has it; O(d) in the published code."""
    if config.group is not None:
        return config.group
    space = "E"
    if config.published and config.symmetrizer != "none":
        space = "O"
    if BASES[config.base].permutes:
        return space
    return f"Sx{space}"


def reps(config: Config, permuted: bool) -> tuple[dict[str, ps.Rep], Any]:
    """How the config's motions of space, and permutations if asked, act on the inputs and the output."""
    particles: ps.S | ps.Axis = ps.Axis("particles")
    if permuted:
        particles = ps.S("particles")
    space = GROUPS[group_name(config)].space(config.dims, "space")
    points = ps.Rep(particles, space)
    vectors = ps.Rep(particles, space.vector)
    given = {"pos": points, "vel": vectors, "edge": ps.Rep(particles, particles)}
    if config.velocity_weight:
        return given, {"pos": vectors, "vel": vectors}
    if base_of(config).motion.absolute:
        return given, points
    return given, vectors


def claimed(config: Config) -> tuple[dict[str, ps.Rep], Any]:
    """`reps` of all that the whole model should be equivariant to, the S_n of its base included.

    Of a bare base the same group is claimed, so that the result tells how far it is from that.
    """
    return reps(config, GROUPS[group_name(config)].permutes or BASES[config.base].permutes)


def build(config: Config, example: Batch) -> ps.Symmetrizer:
    """The base network, symmetrized; for `none` over the trivial group, which costs nothing and changes nothing.

    Args:
        example: A batch that tells the number of channels.
    """
    base = base_of(config).build(config)
    method = METHODS[config.symmetrizer]
    if method.distribution is None:
        particles = ps.Axis("particles")
        still = ps.Rep(particles, None)
        given = {"pos": still, "vel": still, "edge": ps.Rep(particles, particles)}
        output: Any = still
        if config.velocity_weight:
            output = {"pos": still, "vel": still}
        return ps.symmetrize(base, given, output, "haar", ps.Exact(), ps.Exact())

    # The base first, then the net of p: both take their weights from torch's random state.
    given, output = reps(config, GROUPS[group_name(config)].permutes)
    group = group_of(given, output)
    settings = Settings(
        lambda: DefaultNet(given, group),
        config.noise,
        config.noise_scale,
        Relaxation(config.temperature, config.sinkhorn),
    )
    few: Batch | None = inputs(rows(example, slice(0, 2)))
    if config.published:
        settings = Settings(
            lambda: VectorDGCNN(group),
            scale=config.noise_scale,
            relaxation=Relaxation(config.temperature, config.sinkhorn, softmax=False),
            published=PublishedNoise("normal", ("pos", "vel")),
        )
        few = None  # nothing is lazy, and statistics of the net should see training batches alone
    distribution = method.distribution(group, settings)
    valid_samples = None
    if method.random:
        valid_samples = config.valid_samples
    return ps.symmetrize(
        base,
        given,
        output,
        distribution,
        train_samples=config.train_samples,
        eval_samples=valid_samples,
        example=few,
    )


def haar(phi: ps.Symmetrizer) -> ps.Symmetrizer:
    """The same base network averaged over uniform poses, one a call."""
    distribution = by_name("haar", phi.inputs, phi.distribution.group)
    return ps.symmetrize(phi.model, phi.inputs, phi.output, distribution, train_samples=1, eval_samples=1)


def inputs(batch: Batch) -> Batch:
    """What the model is called with, without the target."""
    return {name: batch[name] for name in INPUTS}
