"""n-body dynamics (arXiv 2306.02866, section 4.2): positions of charged particles one time unit ahead."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

import probsym as ps

from ..batches import Batch, rows, stream
from ..errors import UserError, choose
from ..evaluation import Score, errors_by_samples, exact_errors
from ..figures import error_by_samples
from ..published import published
from ..recipe import Recipe, at_least
from ..runner import Outcome, Place
from ..training import Problem, fit
from .data import System, load
from .models import BASES, METHODS, build, inputs


@dataclass(kw_only=True)
class Config(Recipe):
    """Which model, how it is symmetrized, how it is trained and tested.

    Args:
        base: gnn (S_n-equivariant itself) or transformer (plain).
        symmetrizer: ps (learned), ga (Haar), fa (frames) or canonical.
        train_samples: Samples a training step; null is the library's choice: 1, or all frames, or the one pose.
        valid_samples: Samples at each validation; ps and ga only, as the next three.
        eval_samples: Numbers of samples at which the test error is measured.
        samples: The one of them that is the result.
        repeats: Times that the largest of them is drawn anew.
        entropy_weight: Of the entropy of soft permutations in the loss; symmetrizers of S_n with ps only.
        particles: Number of particles.
        dims: Dimensions of their space.
        train_size: Training simulations used, of 10,000 drawn.
        valid_size: Validation simulations used, of 2,000 drawn.
        test_size: Test simulations used, of 2,000 drawn.
    """

    base: str = "gnn"
    symmetrizer: str = "ps"
    train_samples: int | None = None
    valid_samples: int = 10
    eval_samples: list[int] = field(default_factory=lambda: [1, 10, 20, 100])
    samples: int = 20
    repeats: int = 5
    entropy_weight: float = 0.0
    particles: int = 5
    dims: int = 3
    train_size: int = 3_000
    valid_size: int = 2_000
    test_size: int = 2_000

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 1, "valid_samples", "repeats", *(["train_samples"] if self.train_samples is not None else []))
        at_least(self, 0, "entropy_weight")
        choose("base", BASES, self.base)
        choose("symmetrizer", METHODS, self.symmetrizer)
        if self.samples not in self.eval_samples or min(self.eval_samples) < 1:
            raise UserError(
                f"eval_samples: expected positive numbers, {self.samples} among them; got {self.eval_samples}"
            )
        self.system()

    def system(self) -> System:
        """The particles and the sizes of the data."""
        return System(self.particles, self.dims, self.train_size, self.valid_size, self.test_size)


def run(config: Config, place: Place) -> Outcome:
    """Trains on 30 -> 40 and tests; the figure shows test error against the number of samples."""
    data = load(config.system(), place.data)
    torch.manual_seed(config.seed)
    phi = build(
        config.base, config.symmetrizer, config.system(), data["train"], (config.train_samples, config.valid_samples)
    )
    problem = Problem(phi, Loss(config.entropy_weight), errors, data["train"], data["valid"])
    progress = fit(problem, config, place.out, place.resume)
    ps.save(phi, place.out / "model", overwrite=True)
    scores = test(phi, data["test"], config)
    lines = [row for row in published("nbody") if row.figure]
    error_by_samples({place.preset: scores}, place.out / "error_by_samples.png", "test MSE", lines)
    headline = next((s for s in scores if s.samples == config.samples), scores[-1])
    few = inputs(rows(data["test"], slice(0, 8)))
    generator = torch.Generator().manual_seed(stream(config.seed, "equivariance"))
    report = ps.testing.equivariance_error(phi.cpu(), few, samples=128, generator=generator)
    return Outcome(
        value=headline.value,
        stderr=headline.stderr,
        samples=headline.samples,
        steps=config.steps,
        params={"base": parameters(phi.model), "distribution": parameters(phi.distribution)},
        earlier_s=progress.earlier,
        details={
            "stderr_test": headline.stderr_test,
            "by_samples": [s.row() for s in scores],
            "best_valid": progress.best,
            "equivariance": {key: float(getattr(report, key)) for key in ("error", "stderr", "p_value")},
        },
    )


@dataclass(frozen=True)
class Loss:
    """MSE of one batch, plus the weighted entropy of the soft permutations (arXiv 2306.02866, appendix A.1)."""

    entropy_weight: float

    def __call__(self, phi: torch.nn.Module, batch: Batch) -> Tensor:
        if not self.entropy_weight:
            return mse(phi(**inputs(batch)), batch).mean()
        estimate = phi(**inputs(batch), return_estimate=True)
        return mse(estimate.mean, batch).mean() + self.entropy_weight * estimate.aux["entropy"]


def errors(phi: torch.nn.Module, batch: Batch) -> Tensor:
    """Squared error of each sample of a batch (B,)."""
    return mse(phi(**inputs(batch)), batch)


def mse(predicted: Tensor, batch: Batch) -> Tensor:
    """Predictions (..., B, N, D) to mean squared errors (..., B)."""
    return (predicted - batch["target"]).square().mean((-2, -1))


def test(phi: ps.Symmetrizer, data: Batch, config: Config) -> list[Score]:
    """Test errors at each number of samples; a single one where the average is exact."""
    if METHODS[config.symmetrizer].random:
        return errors_by_samples(phi, data, inputs, mse, config.eval_samples, config.repeats, config.seed)
    return [exact_errors(phi, data, inputs, mse)]


def parameters(module: torch.nn.Module) -> int:
    """How many numbers are trained."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)
