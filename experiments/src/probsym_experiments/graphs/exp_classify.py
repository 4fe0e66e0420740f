"""EXP-classify (arXiv 2306.02866, section 4.1): which graph of a pair that 1-WL cannot tell apart is satisfiable?"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

import probsym as ps

from ..batches import Batch, Tensors, reseed, rows, size, stream, to
from ..checks import Uses, at_least, noise_enters, positive, samples_evaluated
from ..cost import training_flops
from ..errors import UserError, choose
from ..evaluation import (
    Score,
    add_entropy,
    equivariance,
    errors_by_samples,
    exact_errors,
    parameters,
    trained,
)
from ..few_samples import FewSamples
from ..outcome import Outcome, Place
from ..published import published
from ..training import Problem, fit
from . import published_spread
from .dense import published_features
from .exp_data import load
from .figures import accuracy_by_samples
from .identifiers import estimate as identified
from .logits import correct, cross_entropy
from .models import ACTIVATIONS, BASES, METHODS, NETS, Design, build, inputs, uses
from .soft import Soft
from .spread import measure, summary

# What the spread of a trained model is measured from.
SPREAD_GRAPHS = 40  # of the test set
SPREAD_SAMPLES = 50  # at most
SPREAD_DRAWS = 8  # measurements


@dataclass(kw_only=True)
class Config(FewSamples):
    """Which model, how it is symmetrized, how it is trained and tested.

    Args:
        base: mlp or gin-id.
        symmetrizer: ps (learned), ps-score (its orders learn by their law), ga (Haar), fa (frames), canonical, and two
            ablations: ps-fixed-noise (of each graph; with the net gin the same for all), ps-soft.
        train_samples: Samples a training step; null is the method's own choice (fa: all frames, canonical: one pose).
        valid_samples: Samples at each validation; ps and ga only, as the next three.
        eval_samples: Numbers of samples at which the test accuracy is measured.
        samples: The one of them that is the result.
        repeats: Times that the largest of them is drawn anew.
        published: p, its net, the node features and the entropy as in the published code, to the letter (see
            docs/reproduction.md); the noise is uniform on [0, scale].
        entropy_weight: Of the entropy of the soft permutations in the loss; ps and canonical only, as the next two.
        temperature: Of the relaxation; with late noise in standard deviations of the scores, else in their units. Of
            ps-score with noise at the input, the size of the Gumbel noise on the scores, in standard deviations.
        sinkhorn: Normalisations of the relaxation.
        noise: Where noise enters p: late (its scores) or input (node features).
        scale: Of the noise of p; late, in standard deviations of the scores.
        net: Of p: gin, or batch-norm-gin, the paper's, with BatchNorm and a virtual node. Graphs then have the paper's
            node features, type and degree.
        walks: Steps of random walks whose return probabilities the net of p sees; 0 is none. Of the net gin alone.
        activation: Of the base network: tanh or relu.
        hidden: Widths of the MLP.
        width: Of GIN-ID.
        layers: Of GIN-ID.
        head: Widths of the MLP after its pooling.
        valid_size: Graphs of the validation set, the first ones.
        test_size: Graphs of the test set, the next ones; the others are trained on.
    """

    base: str = "mlp"
    symmetrizer: str = "ps"
    valid_samples: int = 10
    eval_samples: list[int] = field(default_factory=lambda: [1, 2, 5, 10, 20, 50, 100, 200])
    samples: int = 10
    repeats: int = 5
    published: bool = False
    entropy_weight: float = 0.1
    temperature: float = 0.05
    sinkhorn: int = 1
    noise: str = "late"
    scale: float = 0.05
    net: str = "gin"
    walks: int = 12
    activation: str = "tanh"
    hidden: list[int] = field(default_factory=lambda: [512, 512])
    width: int = 64
    layers: int = 3
    head: list[int] = field(default_factory=list)
    valid_size: int = 200
    test_size: int = 200

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 1, "valid_samples", "repeats", "width", "layers", "valid_size", "test_size")
        if self.train_samples is not None:
            at_least(self, 1, "train_samples")
        at_least(self, 0, "entropy_weight", "sinkhorn", "walks")
        choose("base", BASES, self.base)
        choose("symmetrizer", METHODS, self.symmetrizer)
        choose("activation", ACTIVATIONS, self.activation)
        choose("net", NETS, self.net)
        if self.net != "gin" and self.walks:
            raise UserError(f"walks: the net {self.net} reads none; expected 0, got {self.walks}")
        noise_enters(self)
        self.check_random(METHODS[self.symmetrizer].random)
        if self.published and self.symmetrizer == "ps-score":
            raise UserError("symmetrizer: the published code has no ps-score; expected another, or published false")
        if self.penalised and self.through_identifiers:
            raise UserError("published: expected false with variance_weight, identity_weight or grow_samples")
        if self.penalised and self.entropy:
            raise UserError("entropy_weight: expected 0 with variance_weight, identity_weight or grow_samples")
        positive(self, "temperature", "scale")
        if not self.hidden or min([*self.hidden, *self.head]) < 1:
            raise UserError(f"hidden, head: expected positive widths; got {self.hidden}, {self.head}")
        samples_evaluated(self)

    def uses(self) -> Uses:
        """What fields belong to, whether this configuration has it, and their names."""
        drawn = ("valid_samples", "eval_samples", "samples", "repeats")
        random = {"samples that are drawn (symmetrizer ps, ga)": (METHODS[self.symmetrizer].random, drawn)}
        ours = {"published false": (not self.published, ("net", "walks", "noise"))}
        return uses(self.base, [self.symmetrizer], vars(self)) | random | ours

    @property
    def entropy(self) -> float:
        """Weight of the entropy: none where nothing is relaxed."""
        if METHODS[self.symmetrizer].net:
            return self.entropy_weight
        return 0.0

    @property
    def through_identifiers(self) -> bool:
        """Whether the gradient of p goes through the identifiers of GIN-ID alone, as in the published code."""
        return self.published and self.base == "gin-id" and METHODS[self.symmetrizer].net

    def graphs(self, data: Batch) -> Batch:
        """The data set with the node features that this configuration asks for, and numbers where noise needs them."""
        if not self.published and self.net == "gin":
            return data
        data = published_features(data)
        if METHODS[self.symmetrizer].fixed:
            data["index"] = torch.arange(size(data))
        return data

    def split(self, data: Batch) -> dict[str, Batch]:
        """The published parts: [0:200] for validation, [200:400] for testing, the rest for training."""
        end_of_valid = self.valid_size
        end_of_test = self.valid_size + self.test_size
        if end_of_test >= size(data):
            raise UserError(f"valid_size, test_size: expected a sum below {size(data)} graphs; got {end_of_test}")
        return {
            "valid": rows(data, slice(0, end_of_valid)),
            "test": rows(data, slice(end_of_valid, end_of_test)),
            "train": rows(data, slice(end_of_test, None)),
        }

    def model(self, example: Batch) -> ps.Symmetrizer | Soft:
        """The model to train, with weights of the seed."""
        torch.manual_seed(self.seed)
        design = Design(
            out=1,
            activation=self.activation,
            hidden=tuple(self.hidden),
            width=self.width,
            layers=self.layers,
            head=tuple(self.head),
            net=self.net,
            walks=self.walks,
            noise=self.noise,
            scale=self.scale,
            temperature=self.temperature,
            sinkhorn=self.sinkhorn,
            seed=self.seed,
            published=self.published,
        )
        valid_samples = None
        if METHODS[self.symmetrizer].random:
            valid_samples = self.valid_samples
        return build(self.base, self.symmetrizer, example, design, (self.train_samples, valid_samples))


def run(config: Config, place: Place) -> Outcome:
    """Trains and tests; the figure shows test accuracy against the number of samples."""
    # 1. Train.
    parts = config.split(config.graphs(load(place.data)))
    phi = config.model(parts["train"])
    loss = Loss(config.entropy)
    if config.through_identifiers:
        loss.identified = config.train_samples or 1
    if config.penalised:
        loss.penalties = config
    problem = Problem(phi, loss, losses, Tensors(parts["train"]), Tensors(parts["valid"]), loss.begin)
    cost = training_flops(problem, config)
    progress = fit(problem, config, place.out, place.resume)
    if isinstance(phi, ps.Symmetrizer):
        ps.save(phi, place.out / "model", overwrite=True)

    # 2. Test.
    scores = test(phi, parts["test"], config)
    lines = [row for row in published("exp-classify") if row.figure and row.preset]
    accuracy_by_samples({place.name: scores}, place.out / "accuracy_by_samples.png", lines)

    # 3. Measure how the trained model varies, and whether it is invariant.
    details: dict[str, Any] = {"spread_by_samples": spread(phi, parts, config), "equivariance": None}
    if isinstance(phi, ps.Symmetrizer):
        few = inputs(parts["test"], slice(0, 8))
        details["equivariance"] = equivariance(phi, few, 128, config.seed)
    return trained(scores, config.samples, config, progress, cost, parameters(phi), details)


@dataclass
class Loss:
    """Cross-entropy of one batch, plus the weighted entropy of the soft permutations (appendix A.1), or penalties.

    Args:
        identified: Samples of a step whose orders get their gradient through identifiers alone; 0 is the usual way.
    """

    entropy_weight: float
    penalties: FewSamples | None = None
    step: int = 0
    identified: int = 0

    def begin(self, step: int) -> None:
        """Told the number of each step before it."""
        self.step = step

    def __call__(self, phi: nn.Module, batch: Batch) -> Tensor:
        if self.penalties is not None:
            assert isinstance(phi, ps.Symmetrizer)
            mean, extra = self.penalties.outputs(phi, inputs(batch), self.step)
            return cross_entropy(mean, batch).mean() + extra
        if self.identified:
            assert isinstance(phi, ps.Symmetrizer)
            estimate = identified(phi, inputs(batch), self.identified)
        elif self.entropy_weight:
            estimate = phi(**inputs(batch), return_estimate=True)
        else:
            return losses(phi, batch).mean()
        return add_entropy(cross_entropy(estimate.mean, batch).mean(), estimate, self.entropy_weight)


def losses(phi: nn.Module, batch: Batch) -> Tensor:
    """Cross-entropy of each graph of a batch (B,)."""
    return cross_entropy(phi(**inputs(batch)), batch)


def test(phi: ps.Symmetrizer | Soft, data: Batch, config: Config) -> list[Score]:
    """Test accuracies at each number of samples; a single one where the average is exact."""
    method = METHODS[config.symmetrizer]
    if method.random:
        return errors_by_samples(
            phi, data, inputs, correct, config.eval_samples, config.repeats, config.seed, method.fixed
        )
    assert isinstance(phi, ps.Symmetrizer)
    return [exact_errors(phi, data, inputs, correct)]


def spread(phi: nn.Module, parts: dict[str, Batch], config: Config) -> list[dict[str, float]]:
    """Variances, entropy and mean gradient of the trained model, a row for each k.

    Of a few test graphs, with standard errors over `SPREAD_DRAWS` independent measurements; or once, of the graphs and
    in the way of the published code.
    """
    if not isinstance(phi, ps.Symmetrizer) or not METHODS[config.symmetrizer].random:
        return []
    device = next(phi.parameters()).device
    reseed(stream(config.seed, "spread"))
    counts = sorted(set(config.eval_samples))
    if config.published:
        valid = to(parts["valid"], device)
        train = to(parts["train"], device)
        trials = published_spread.TRIALS
        return published_spread.summary(
            published_spread.measure(phi, valid, train, counts, trials, SPREAD_SAMPLES), counts
        )
    counts = [k for k in counts if k <= SPREAD_SAMPLES]
    if not counts:
        return []
    few = to(rows(parts["test"], slice(0, SPREAD_GRAPHS)), device)
    measurements = []
    for _ in range(SPREAD_DRAWS):
        measurements.append(measure(phi, few, counts, 2, counts[-1]))
    return summary(torch.stack(measurements), counts)
