"""Base networks, groups and ways to symmetrize, by name: a new one is one line here."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from torch import nn

import probsym as ps
from probsym.distributions import DefaultNet, PlainNet

from ..batches import Batch, rows
from ..methods import METHODS as ALL_METHODS
from ..methods import PAPER, Method, Settings
from ..models import AtomPoints, AtomTransformer

if TYPE_CHECKING:
    from .config import Config

INPUTS = ("pos", "kinds")
ATOMS = ps.Axis("atoms")  # the bases treat all atoms of a kind alike
BASES: dict[str, Callable[[Config, int], nn.Module]] = {
    "transformer": lambda c, kinds: AtomTransformer(kinds, width=c.width, layers=c.layers),
    "points": lambda c, kinds: AtomPoints(kinds, width=c.width),
}
GROUPS: dict[str, type[ps.SE | ps.E]] = {"SE": ps.SE, "E": ps.E}
METHODS = {
    **PAPER,
    "recursive": ALL_METHODS["recursive"],
    "wf": ALL_METHODS["wf"],
    "none": ALL_METHODS["none"],
    "augmented": Method(None, several=False),  # what it trains on is turned: loss.py
}


def claimed(config: Config) -> tuple[dict[str, ps.Rep], ps.Rep]:
    """Reps of what the whole model should be equivariant to: energies are invariant, forces turn with the positions.

    Of a bare base the same group is claimed, so that the result tells how far it is from that.
    """
    space = GROUPS[config.group](3, "space")
    return {"pos": ps.Rep(ATOMS, space), "kinds": ps.Rep(ATOMS)}, ps.Rep()


def build(config: Config, example: Batch) -> ps.Symmetrizer:
    """The base network, symmetrized; bare ones over the trivial group, which costs nothing and changes nothing.

    Args:
        example: A batch that tells the number of kinds of atoms.
    """
    base = BASES[config.base](config, example["kinds"].shape[-1])
    method = METHODS[config.symmetrizer]
    if method.distribution is None:
        still = {"pos": ps.Rep(ATOMS, None), "kinds": ps.Rep(ATOMS)}
        return ps.symmetrize(base, still, ps.Rep(), "haar", ps.Exact(), ps.Exact())

    # The base first, then the net of p: both take their weights from torch's random state.
    given, output = claimed(config)
    group = GROUPS[config.group](3, "space")
    settings = Settings(lambda: DefaultNet(given, group), plain_net=lambda: PlainNet(given, group))
    valid_samples = None
    if method.random:
        valid_samples = config.valid_samples
    return ps.symmetrize(
        base,
        given,
        output,
        method.distribution(group, settings),
        train_samples=config.train_samples,
        eval_samples=valid_samples,
        example=inputs(rows(example, slice(0, 2))),
    )


def inputs(batch: Batch) -> Batch:
    """What the model is called with, without the labels."""
    return {name: batch[name] for name in INPUTS}
