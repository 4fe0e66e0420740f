"""The fields of the n-body experiment."""

from __future__ import annotations

from dataclasses import dataclass, field

from probsym.distributions import Relaxation

from ..checks import Uses, at_least, noise_enters, positive, samples_evaluated
from ..errors import UserError, choose
from ..few_samples import FewSamples
from ..methods import PAPER
from .data import HORIZONS, System
from .models import BASES, GROUPS, METHODS, PUBLISHED, PUBLISHED_BARE, group_name
from .simulator import STEP

RELAXED = Relaxation()


@dataclass(kw_only=True)
class Config(FewSamples):
    """Which model, how it is symmetrized, how it is trained and tested.

    Args:
        base: gnn and dynamics (S_n-equivariant themselves), egnn and egnn-inverse (to E(d) too), transformer (a token
            each pair of particles), node-transformer and dynamics-transformer (a token each particle; to nothing).
            The dynamics bases see inverse distances and move the particles in every layer, as egnn-inverse does.
        layers: Of the base; null is its own number: 4, 8 of transformer and dynamics, 6 of dynamics-transformer.
        symmetrizer: ps (learned), ga (Haar), fa (frames), canonical, or none, the bare base.
        group: E, SE, O, SO, or with permutations SxE, SxSE, SxO, SxSO; null is SxE, less what the base has by itself.
            For O and SO the data are centred first.
        train_samples: Samples a training step; null is the library's choice: 1, or all frames, or the one pose.
        late_samples: Samples a training step in the last part of training; ps and ga only. Null is no change.
        late_from: Share of the steps after which that part begins.
        valid_samples: Samples at each validation; ps and ga only, as the next four.
        eval_samples: Numbers of samples at which the test error is measured.
        samples: The one of them that is the result.
        repeats: Times that the largest of them is drawn anew.
        tolerances: Standard errors for which the samples needed are measured, in units of the positions.
        published: p with its net, pair features, the base (gnn or transformer) and what it predicts as in the published
            code, to the letter (see docs/reproduction.md); the group is O, with permutations for the transformer. With
            symmetrizer none, gnn or egnn as in the code that was published with the EGNN.
        noise: Where noise enters the net of p: late (its features) or input; ps only, as the next.
        noise_scale: Size of that noise relative to what it is added to; with published, its standard deviation.
        temperature: Of soft permutations; symmetrizers of S_n with ps or canonical only, as the next two. Of ps-score
            with noise at the input, the size of the Gumbel noise on the scores, in standard deviations.
        sinkhorn: Row and column normalisations of soft permutations.
        entropy_weight: Of the entropy of soft permutations in the loss.
        haar_share: Share of each training batch that is averaged over Haar poses; ps and canonical only.
        input_noise: Standard deviation of Gaussian noise on training positions and velocities.
        velocity_weight: Of the velocities' MSE in the loss; above 0 they are predicted too, and a rollout is made.
        system: charged particles, or bodies under gravity.
        horizon: Steps of 0.001 time units from the state that is given to the one that is predicted: 1000, 1500, 2000.
        particles: Number of particles.
        dims: Dimensions of their space.
        train_size: Training simulations used, of 10,000 drawn.
        valid_size: Validation simulations used, of 2,000 drawn.
        test_size: Test simulations used, of 2,000 drawn.
    """

    base: str = "gnn"
    layers: int | None = None
    symmetrizer: str = "ps"
    group: str | None = None
    late_samples: int | None = None
    late_from: float = 0.8
    valid_samples: int = 10
    eval_samples: list[int] = field(default_factory=lambda: [1, 10, 20, 100])
    samples: int = 20
    repeats: int = 5
    tolerances: list[float] = field(default_factory=lambda: [0.02, 0.01, 0.005])
    published: bool = False
    noise: str = "late"
    noise_scale: float = 1.0
    temperature: float = RELAXED.temperature
    sinkhorn: int = RELAXED.sinkhorn
    entropy_weight: float = 0.0
    haar_share: float = 0.0
    input_noise: float = 0.0
    velocity_weight: float = 0.0
    system: str = "charged"
    horizon: int = HORIZONS[0]
    particles: int = 5
    dims: int = 3
    train_size: int = 3_000
    valid_size: int = 2_000
    test_size: int = 2_000

    def __post_init__(self) -> None:
        super().__post_init__()
        choose("base", BASES, self.base)
        choose("symmetrizer", METHODS, self.symmetrizer)
        if self.group is not None:
            choose("group", GROUPS, self.group)
        at_least(self, 1, "valid_samples", "repeats")
        for name in ("layers", "train_samples", "late_samples"):
            if getattr(self, name) is not None:
                at_least(self, 1, name)
        at_least(self, 0, "entropy_weight", "input_noise", "velocity_weight", "haar_share", "late_from", "sinkhorn")
        for name in ("haar_share", "late_from"):
            if getattr(self, name) > 1:
                raise UserError(f"{name}: expected 0 to 1; got {getattr(self, name)}")
        positive(self, "noise_scale", "temperature")
        noise_enters(self)
        samples_evaluated(self)
        for tolerance in self.tolerances:
            if not tolerance > 0:
                raise UserError(f"tolerances: expected positive numbers; got {self.tolerances}")
        self._check_method()
        self._check_published()
        if self.penalised and (self.late_samples is not None or self.entropy):
            raise UserError("variance_weight, identity_weight, grow_samples: not with late_samples or entropy_weight")
        self.simulated()
        if self.velocity_weight and (self.system, self.horizon) != ("charged", HORIZONS[0]):
            raise UserError(
                f"velocity_weight: expected only with system charged and horizon {HORIZONS[0]}; "
                f"got {self.velocity_weight}"
            )

    def _check_method(self) -> None:
        """Refuses parts of the loss that the symmetrizer cannot give."""
        method = METHODS[self.symmetrizer]
        self.check_random(method.random)
        if self.late_samples is not None and not method.random:
            raise UserError(f"late_samples: expected only with symmetrizer ps or ga; got {self.late_samples}")
        if self.haar_share and not method.net:
            raise UserError(f"haar_share: expected only with symmetrizer ps or canonical; got {self.haar_share}")

    def _check_published(self) -> None:
        """Refuses what the published code does not have."""
        if not self.published:
            return
        if self.symmetrizer not in (*PAPER, "none"):
            raise UserError(
                f"published: expected symmetrizer {', '.join(PAPER)} or none with it; got {self.symmetrizer!r}"
            )
        bare = self.symmetrizer == "none"
        bases = PUBLISHED
        if bare:
            bases = PUBLISHED_BARE
        if self.base not in bases:
            raise UserError(
                f"published: expected base {' or '.join(bases)} with symmetrizer {self.symmetrizer}; got {self.base!r}"
            )
        if self.input_noise or self.velocity_weight or self.dims != 3:
            raise UserError("published: expected false with input_noise, velocity_weight or dims other than 3")
        if not bare and not GROUPS[group_name(self)].about_origin:
            raise UserError(f"group: expected O, SO, SxO or SxSO with published; got {group_name(self)!r}")

    def uses(self) -> Uses:
        """What fields belong to, whether this configuration has it, and their names."""
        method = METHODS[self.symmetrizer]
        drawn = ("valid_samples", "samples", "eval_samples", "repeats", "tolerances")
        return {
            "samples that are drawn (symmetrizer ps, ga)": (method.random, drawn),
            "noise (symmetrizer ps)": (method.noisy, ("noise", "noise_scale")),
            "published false": (not self.published, ("noise",)),
            "learned orders (symmetrizer ps, canonical; a group with S)": (
                self.learns_orders,
                ("temperature", "sinkhorn", "entropy_weight"),
            ),
            "more than one pose (symmetrizer ps, ga, fa)": (method.several, ("train_samples",)),
            "late_samples": (self.late_samples is not None, ("late_from",)),
        }

    @property
    def learns_orders(self) -> bool:
        """Whether a net orders the particles."""
        return METHODS[self.symmetrizer].net and GROUPS[group_name(self)].permutes

    @property
    def entropy(self) -> float:
        """Weight of the entropy: none where no order is learned."""
        if self.learns_orders:
            return self.entropy_weight
        return 0.0

    @property
    def time(self) -> float:
        """Time units from the state that is given to the one that is predicted."""
        return self.horizon * STEP

    def simulated(self) -> System:
        """The particles and the sizes of the data."""
        return System(
            particles=self.particles,
            dims=self.dims,
            train=self.train_size,
            valid=self.valid_size,
            test=self.test_size,
            velocity=self.velocity_weight > 0,
            law=self.system,
            horizon=self.horizon,
        )

    def train_samples_at(self, step: int) -> int | None:
        """Samples of one training step; None leaves it to the Symmetrizer."""
        if step >= self.late_from * self.steps:
            return self.late_samples
        return None
