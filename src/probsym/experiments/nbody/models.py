"""Base networks and ways to symmetrize them, by name: a new one is one line here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

import probsym as ps
from probsym.nets import ParticleGNN, ParticleTransformer

from ..batches import Batch, rows
from ..errors import choose
from .data import System

INPUTS = ("pos", "vel", "edge")


@dataclass(frozen=True)
class Base:
    """A network and what acts on its particles: S_n, or nothing where the network is S_n-equivariant as it is."""

    build: Callable[[System], nn.Module]
    particles: ps.S | ps.Axis


@dataclass(frozen=True)
class Method:
    """A distribution by the library's name; `random` if its average is an estimate that more samples improve."""

    distribution: str
    random: bool


BASES = {
    "gnn": Base(lambda system: ParticleGNN(system.dims), ps.Axis("particles")),
    "transformer": Base(lambda system: ParticleTransformer(system.particles, system.dims), ps.S("particles")),
}

METHODS = {
    "ps": Method("learned", random=True),
    "ga": Method("haar", random=True),
    "fa": Method("frame", random=False),
    "canonical": Method("canonical", random=False),
}


def build(base: str, method: str, system: System, example: Batch, samples: tuple[int | None, int]) -> ps.Symmetrizer:
    """The base network, equivariant to E(d) and, unless it already is, to permutations of the particles.

    Args:
        base, method: Names in BASES and METHODS.
        example: A batch that tells the number of channels.
        samples: Drawn in training (None: the method's own number) and in evaluation (methods that are random).
    """
    chosen, how = choose("base", BASES, base), choose("symmetrizer", METHODS, method)
    particles, space = chosen.particles, ps.E(system.dims, "space")
    return ps.symmetrize(
        chosen.build(system),
        inputs={
            "pos": ps.Rep(particles, space),
            "vel": ps.Rep(particles, space.vector),
            "edge": ps.Rep(particles, particles),
        },
        output=ps.Rep(particles, space),
        distribution=how.distribution,
        train_samples=samples[0],
        eval_samples=samples[1] if how.random else None,
        example=inputs(rows(example, slice(0, 2))),
    )


def inputs(batch: Batch) -> Batch:
    """What the model is called with, without the target."""
    return {name: batch[name] for name in INPUTS}
