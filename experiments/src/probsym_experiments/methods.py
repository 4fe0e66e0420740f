"""Ways to symmetrize, by name, for all experiments: a new one is one entry here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

import probsym as ps
from probsym.distributions import NetDistribution, by_name

from .as_published import AsPublished
from .fixed_noise import FixedNoise


@dataclass(frozen=True)
class PublishedNoise:
    """Noise as in the published code, of absolute size at the input.

    Args:
        law: uniform or normal. inputs: Names of the arguments that it is added to.
    """

    law: str
    inputs: tuple[str, ...]


@dataclass(frozen=True)
class Settings:
    """What a distribution is made from, besides its group.

    Args:
        net: Makes the net of p, with weights that follow torch's present random state.
        noise: Where noise enters p: "late" (what the net gives) or "input".
        scale: Of that noise.
        relaxation: Of orders of nodes, while they are learned.
        max_support: Most frames of an input that are listed.
        seed: Of fixed noise. index: Name of the argument that numbers the inputs, each of which then has fixed noise of
            its own; None where nothing does, and all have the same.
        plain_net: Makes a net of p that need not be equivariant, likewise; None where no method wants one.
        published: p as the published code has it, with this noise; None is the library's own.
    """

    net: Callable[[], nn.Module]
    noise: str = "late"
    scale: float = 1.0
    relaxation: ps.Relaxation = ps.Relaxation()
    max_support: int = 64
    seed: int = 0
    index: str | None = None
    plain_net: Callable[[], nn.Module] | None = None
    published: PublishedNoise | None = None


@dataclass(frozen=True)
class Method:
    """A distribution over a group, and what the experiments have to know of it.

    Args:
        distribution: None is the bare base model.
        random: Whether its average is an estimate that more samples improve, unless it is asked to be exact.
        net: Whether a net gives its elements.
        noisy: Whether noise is added to what the net gives.
        several: Whether an input has more than one element.
        exact: Whether its average over permutations can be listed: where not, a number of samples is needed.
        soft: Whether nodes are mixed instead of permuted.
        fixed: Whether the samples are the same at every call.
    """

    distribution: Callable[[ps.Group, Settings], ps.EquivariantDistribution] | None
    random: bool = False
    net: bool = False
    noisy: bool = False
    several: bool = True
    exact: bool = False
    soft: bool = False
    fixed: bool = False


def learned(group: ps.Group, settings: Settings) -> NetDistribution:
    if settings.published is not None:
        return as_published(group, settings, settings.published, settings.scale)
    return ps.Learned(settings.net(), group, settings.noise, settings.scale, settings.relaxation)


def learned_by_score(group: ps.Group, settings: Settings) -> ps.Learned:
    """Orders whose gradient is that of their law: by Gumbel noise of the same scale; or, with noise at the input, given
    that noise, by Gumbel noise of the size of the temperature, in standard deviations of the scores."""
    if settings.noise == "input":
        gradient = ps.ScoreFunction(settings.relaxation.temperature)
        return ps.Learned(settings.net(), group, "input", settings.scale, gradient)
    return ps.Learned(settings.net(), group, "gumbel", settings.scale, ps.ScoreFunction())


def haar(group: ps.Group, settings: Settings) -> ps.EquivariantDistribution:
    return by_name("haar", None, group)


def frame(group: ps.Group, settings: Settings) -> ps.Frame:
    return ps.Frame(group, settings.max_support)


def as_published(group: ps.Group, settings: Settings, noise: PublishedNoise, scale: float) -> AsPublished:
    return AsPublished(settings.net(), group, noise.inputs, noise.law, scale, settings.relaxation)


def canonical(group: ps.Group, settings: Settings) -> NetDistribution:
    if settings.published is not None:
        return as_published(group, settings, settings.published, 0.0)
    return ps.Canonical(settings.net(), group, settings.relaxation)


def recursive(group: ps.Group, settings: Settings) -> ps.Recursive:
    assert settings.plain_net is not None  # who offers the method says so
    return ps.Recursive(settings.plain_net(), group)


def weighted_frame(group: ps.Group, settings: Settings) -> ps.WeightedFrame:
    return ps.WeightedFrame(group)


def fixed_noise(group: ps.Group, settings: Settings) -> FixedNoise:
    return FixedNoise(learned(group, settings), settings.seed, settings.index)


METHODS = {
    "ps": Method(learned, random=True, net=True, noisy=True),
    "ps-score": Method(learned_by_score, random=True, net=True, noisy=True),
    "ga": Method(haar, random=True, exact=True),
    "fa": Method(frame, exact=True),
    "canonical": Method(canonical, net=True, several=False, exact=True),
    "none": Method(None, several=False),
    "ps-fixed-noise": Method(fixed_noise, random=True, net=True, noisy=True, fixed=True),
    "recursive": Method(recursive, random=True, net=True),
    "wf": Method(weighted_frame, exact=True),
    "ps-soft": Method(learned, random=True, net=True, noisy=True, soft=True),
}

# The four ways of the paper, which every experiment offers.
PAPER = {name: METHODS[name] for name in ("ps", "ga", "fa", "canonical")}
