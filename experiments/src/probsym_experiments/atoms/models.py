"""Base networks, groups and ways to symmetrize, by name: a new one is one line here."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from torch import Tensor, nn

import probsym as ps
from probsym.distributions import DefaultNet, PlainNet

from ..batches import Batch, rows
from ..methods import METHODS as ALL_METHODS
from ..methods import PAPER, Method, Settings
from ..models import AtomPoints, AtomTransformer
from .systems import members

if TYPE_CHECKING:
    from .config import Config

INPUTS = ("pos", "kinds", "mask")
# How molecules of different sizes reach the network. The bases treat all atoms of a kind alike.
STORAGES = {"padded": ps.Axis("atoms", mask="mask"), "ragged": ps.Axis("atoms", batch="batch")}
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


def axis(config: Config) -> ps.Axis:
    """The atoms: as many in every frame of a single system."""
    if len(members(config.system)) == 1:
        return ps.Axis("atoms")
    return STORAGES[config.storage]


def claimed(config: Config) -> tuple[dict[str, ps.Rep], ps.Rep]:
    """Reps of what the whole model should be equivariant to: energies are invariant, forces turn with the positions.

    Of a bare base the same group is claimed, so that the result tells how far it is from that.
    """
    atoms = axis(config)
    space = GROUPS[config.group](3, "space")
    return {"pos": ps.Rep(atoms, space), "kinds": ps.Rep(atoms)}, ps.Rep()


def build(config: Config, example: Batch) -> ps.Symmetrizer:
    """The base network, symmetrized; bare ones over the trivial group, which costs nothing and changes nothing.

    Args:
        example: A batch that tells the number of kinds of atoms.
    """
    base = BASES[config.base](config, example["kinds"].shape[-1])
    method = METHODS[config.symmetrizer]
    if method.distribution is None:
        atoms = axis(config)
        still = {"pos": ps.Rep(atoms, None), "kinds": ps.Rep(atoms)}
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
        example=stored(rows(example, slice(0, 2)), given["pos"].ragged is not None),
    )


def inputs(phi: nn.Module, batch: Batch) -> Batch:
    """What a Symmetrizer is called with: frames without their labels, stored as it declares them."""
    assert isinstance(phi, ps.Symmetrizer)
    return stored(batch, phi.inputs["pos"].ragged is not None)


def stored(batch: Batch, ragged: bool) -> Batch:
    """The inputs of a batch, as they are (B, N, ...) or with the atoms of all frames in a row (sum N, ...)."""
    given = {name: batch[name] for name in INPUTS if name in batch}
    if not ragged:
        return given
    frame, atom = given.pop("mask").nonzero(as_tuple=True)
    flat = {name: values[frame, atom] for name, values in given.items()}
    return flat | {"batch": frame}


def padded(forces: Tensor, batch: Batch) -> Tensor:
    """Forces as the model gave them, (B, N, 3) or (sum N, 3), in the places of the atoms of a batch (B, N, 3)."""
    if forces.ndim == 3:
        return forces
    mask = batch["mask"][:, :, None]
    return forces.new_zeros(batch["pos"].shape).masked_scatter(mask, forces)
