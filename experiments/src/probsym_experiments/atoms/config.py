"""The fields of the experiment with atoms."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..checks import Uses, at_least, samples_evaluated
from ..errors import UserError, choose
from ..recipe import Recipe
from .data import Frames
from .models import BASES, GROUPS, METHODS, STORAGES
from .systems import members


@dataclass(kw_only=True)
class Config(Recipe):
    """Which atoms, which model, how it is symmetrized, how it is trained and tested.

    Args:
        system: ethanol, malonaldehyde or paracetamol, labelled by GFN2-xTB, or molecules, all three together; or cu8,
            a cluster labelled by EMT.
        storage: Of molecules of different sizes: padded with a mask, or ragged, one after the other without padding
            (base points only).
        base: transformer (a token each atom) or points (sums over the atoms around each): to nothing but S_n and
            translations are they equivariant.
        symmetrizer: none (the bare base), augmented (the same, trained on turned frames), ga (Haar), fa (frames), wf
            (weighted frames), ps (learned, equivariant net), recursive (learned, plain net), or canonical.
        group: SE, or E with reflections.
        layers: Of the transformer.
        width: Of the base.
        train_size: Training frames used of each molecule, evenly spread over the time of the dynamics, as the next two.
        valid_size: Validation frames used.
        test_size: Test frames used; and as many of dynamics at 600 K, from which nothing is learned.
        drawn: Frames for training, validation and testing that the dynamics of each molecule give.
        energy_weight: Of the squared error of the energy, over the number of atoms, in (eV)^2.
        force_weight: Of the mean squared error of a component of the forces, in (eV/Angstrom)^2.
        train_samples: Samples a training step; null is the library's choice: 1, or all frames, or the one pose.
        valid_samples: Samples at each validation; ps, recursive and ga only, as the next two.
        eval_samples: Numbers of samples at which the test error is measured.
        samples: The one of them that is the result.
        fly: Time steps of the dynamics with the model after training, of 0.5 fs; 0 is none. Of several molecules the
            first flies.
    """

    system: str = "ethanol"
    storage: str = "padded"
    base: str = "transformer"
    symmetrizer: str = "ga"
    group: str = "SE"
    layers: int = 3
    width: int = 64
    train_size: int = 1_000
    valid_size: int = 50
    test_size: int = 100
    drawn: list[int] = field(default_factory=lambda: [2_000, 200, 500])
    energy_weight: float = 1.0
    force_weight: float = 1.0
    train_samples: int | None = None
    valid_samples: int = 2
    eval_samples: list[int] = field(default_factory=lambda: [1, 4, 16])
    samples: int = 16
    fly: int = 60

    def __post_init__(self) -> None:
        super().__post_init__()
        members(self.system)
        choose("storage", STORAGES, self.storage)
        choose("base", BASES, self.base)
        choose("symmetrizer", METHODS, self.symmetrizer)
        choose("group", GROUPS, self.group)
        at_least(self, 1, "layers", "width", "train_size", "valid_size", "test_size", "valid_samples")
        at_least(self, 0, "energy_weight", "force_weight", "fly")
        if self.train_samples is not None:
            at_least(self, 1, "train_samples")
        if self.energy_weight + self.force_weight == 0:
            raise UserError("energy_weight, force_weight: expected one of them above 0; got 0 and 0")
        if len(self.drawn) != 3:
            raise UserError(f"drawn: expected three numbers of frames; got {self.drawn}")
        for name, there in zip(("train_size", "valid_size", "test_size"), self.drawn, strict=True):
            if getattr(self, name) > there:
                raise UserError(f"{name}: expected at most the {there} that are drawn; got {getattr(self, name)}")
        if self.base == "transformer" and self.width % 4:
            raise UserError(f"width: expected a multiple of the 4 heads; got {self.width}")
        if self.storage == "ragged" and self.base != "points":
            raise UserError(f"storage: expected padded with base {self.base}; got ragged")
        samples_evaluated(self)

    def uses(self) -> Uses:
        """What fields belong to, whether this configuration has it, and their names."""
        method = METHODS[self.symmetrizer]
        return {
            "samples that are drawn (symmetrizer ps, recursive, ga)": (
                method.random,
                ("valid_samples", "samples", "eval_samples"),
            ),
            "more than one pose (symmetrizer ps, recursive, ga, fa, wf)": (method.several, ("train_samples",)),
            "a group that is averaged over": (method.distribution is not None, ("group",)),
            "several molecules (system molecules)": (len(members(self.system)) > 1, ("storage",)),
            "base transformer": (self.base == "transformer", ("layers",)),
        }

    def frames(self) -> list[Frames]:
        """The data that there are, of each molecule."""
        train, valid, test = self.drawn
        return [Frames(system, train, valid, test) for system in members(self.system)]

    def used(self) -> dict[str, int]:
        """How many frames of each part are used, of each molecule."""
        return {"train": self.train_size, "valid": self.valid_size, "test": self.test_size, "hot": self.test_size}
