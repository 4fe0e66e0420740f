"""What integrations of interatomic potentials share: which groups turn a structure, and how its poses are averaged."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from probsym.distributions import EquivariantDistribution
from probsym.estimators import Adaptive, Estimator, Exact, MonteCarlo, OrbitMap, OutputSamples, Source
from probsym.estimators.designs import as_design
from probsym.estimators.moments import Moments
from probsym.groups import Element, Group, Slot
from probsym.reps import Inputs, Rep

# The first that fits the group is what is averaged over unless told otherwise.
DESIGNS = ("full-octahedral", "octahedral", "dihedral", "cyclic")


@dataclass(frozen=True)
class Space:
    """How a group acts on vectors, on signs and on the atoms.

    Args:
        vector: on vectors. sign: the determinant, which pseudovectors such as magnetic moments have too; None for one.
        atoms: on an axis of atoms; None where it leaves their order alone.
    """

    vector: Slot
    sign: Slot | None = None
    atoms: Slot | None = None

    @staticmethod
    def of(group: Group) -> Space:
        """Of a group that turns three-dimensional space about the origin.

        Raises:
            TypeError: not a group. ValueError: another one; names it.
        """
        if not isinstance(group, Group):
            raise TypeError(f"group: expected a group such as SO(3) or O(3), got {group!r}")
        expected = f"group: expected one that turns space about the origin, such as SO(3) or O(3), got {group!r}"
        if not group.compact:
            raise ValueError(f"{expected}: a structure is not shifted, so take the group without translations")
        try:
            vector = group.vector  # type: ignore[attr-defined]
        except (TypeError, AttributeError) as error:
            raise ValueError(f"{expected}: {error}") from None
        if vector.sizes != (3,):
            raise ValueError(f"{expected}, whose vectors have {vector.sizes[0]} components")
        return Space(vector, None if group.special else group.det)  # type: ignore[attr-defined]


def estimator_for(
    p: EquivariantDistribution, estimator: Estimator | None, tol: float | None, chunk: int | None
) -> Estimator:
    """What averages: what was asked for, all elements of a finite group, or one block of a design.

    Raises:
        TypeError: no estimator. ValueError: one beside `tol`, or one that takes no chunk.
    """
    if estimator is not None and not isinstance(estimator, Estimator):
        raise TypeError(f"estimator: expected one such as ps.MonteCarlo(24), got {estimator!r}")
    if estimator is not None and tol is not None:
        raise ValueError("tol, estimator: expected one of them; ps.Adaptive(tol, ...) is an estimator")

    # 1. What was asked for, or what suits the group.
    chosen = estimator
    if chosen is None and tol is not None:
        chosen = Adaptive(tol)
    elif chosen is None and p.group.finite:
        chosen = Exact()
    elif chosen is None:
        for name in DESIGNS:
            design: Any = as_design(name)
            if design.fits(p.group):
                chosen = MonteCarlo(design.size or 8, design=name)
                break
    if chosen is None:
        raise ValueError(f"estimator: none suits {p.group!r} by itself; give one such as ps.MonteCarlo(24)")

    # 2. In chunks.
    if chunk is not None:
        if not hasattr(chosen, "chunk"):
            raise ValueError(f"chunk: {chosen!r} takes none")
        chosen = replace(chosen, chunk=chunk)  # type: ignore[type-var]
    return chosen


def refuse_one_handed(p: EquivariantDistribution, space: Space, estimator: Any) -> None:
    """Refuse a design that does not fit the group, or whose block has no inversion where the group has it.

    All poses of such a block would have the same handedness, which a single block never averages over.

    Raises:
        ValueError: names the estimator and the designs that will do.
    """
    design = as_design(getattr(estimator, "design", None))
    vectors = Rep(None, space.vector)
    x = Inputs.bind({"frame": vectors}, (), {"frame": torch.eye(3, dtype=torch.float64)[None]})
    block = design.block_size(p, x)
    if block == 1 or p.group.special or p.group.finite:
        return
    g = design.elements(p, x, block, Source(torch.Generator().manual_seed(0)))
    frames = vectors.act(g, x.kwargs["frame"], 1)
    if torch.linalg.det(frames)[:, 0].sign().unique().numel() == 1:
        raise ValueError(
            f"estimator: {design!r} lacks the inversion, which {p.group!r} has: take 'full-octahedral', "
            "'full-icosahedral' or another design with it, or SO(3)"
        )


class WatchedOrbit:
    """An orbit that keeps the spread of single samples as they come, so that no estimator has to hold them together.

    Args:
        orbit: what makes the samples.
    """

    def __init__(self, orbit: OrbitMap) -> None:
        self.orbit = orbit
        self.spread = Moments()

    @property
    def model(self) -> nn.Module:
        """The model whose orbit it is."""
        return self.orbit.model

    @property
    def training(self) -> bool:
        """Whether the model trains."""
        return self.orbit.training

    def __call__(self, x: Inputs, g: Element, active: Tensor | None = None, deduplicate: bool = False) -> OutputSamples:
        """The samples of the orbit."""
        samples = self.orbit(x, g, active, deduplicate)
        seen = OutputSamples([tensor.detach() for tensor in samples.tensors], samples.structure)
        weights = None if active is None else active.to(seen.tensors[0].dtype)
        self.spread.add(seen, weights, spread=True)
        return samples

    def deviations(self) -> dict[str, Tensor]:
        """The standard deviation of single samples, by output."""
        squares: list[Tensor] = []
        for square, total in zip(self.spread.squares, self.spread.totals, strict=True):
            squares.append((square / total).sqrt())
        return self.spread.structure.build(squares)
