"""Errors of a trained Symmetrizer against the number of samples, with two standard errors that are kept apart."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

import probsym as ps

from .batches import Batch, Pages, Tensors, reseed, stream, to
from .outcome import Outcome
from .recipe import Recipe

if TYPE_CHECKING:
    from .training import Progress

ROWS = 5_000  # samples times inputs that the base network sees at once
LEAST_DRAWS = 3  # two numbers are no error bar


class Sampled(Protocol):
    """A Symmetrizer, or what draws outputs as one does."""

    def sample(self, *, samples: int = 1, **call: Any) -> Any: ...

    def parameters(self) -> Iterator[nn.Parameter]: ...


@dataclass(frozen=True)
class Score:
    """An error at one number of samples.

    Args:
        samples: k. value: Mean error over draws and test inputs. draws: Independent estimates it is the mean of.
        stderr: Monte Carlo standard error of `value`: how much it would differ for other draws on the same inputs. 0 if
            nothing is drawn, NaN if there are too few draws to tell.
        stderr_test: Its standard error over test inputs, each averaged over the draws first.
    """

    samples: int
    value: float
    stderr: float
    stderr_test: float
    draws: int

    def row(self) -> dict[str, float]:
        return asdict(self)


def monte_carlo_error(values: Tensor, exact: bool) -> float:
    """Standard error of the mean of independent draws (S,); 0 where nothing was drawn, NaN for fewer than three.

    >>> monte_carlo_error(torch.tensor([1.0]), exact=True), monte_carlo_error(torch.tensor([1.0, 2.0]), exact=False)
    (0.0, nan)
    """
    if exact:
        return 0.0
    if len(values) < LEAST_DRAWS:
        return math.nan
    return float(values.std()) / len(values) ** 0.5


def is_exact(estimate: ps.Estimate) -> bool:
    """Whether no part of an estimate was drawn: a canonical pose of a symmetric input was."""
    errors = [estimate.stderr]
    if isinstance(estimate.stderr, dict):
        errors = list(estimate.stderr.values())
    for error in errors:
        if error.any():
            return False
    return True


def score(errors: Tensor, samples: int, exact: bool = False) -> Score:
    """Of errors (draws, inputs).

    Args:
        exact: Whether other draws would give the same.
    """
    draws, count = errors.shape
    by_draw = errors.double().mean(1)
    by_input = errors.double().mean(0)
    return Score(
        samples,
        by_draw.mean().item(),
        monte_carlo_error(by_draw, exact),
        (by_input.std() / count**0.5).item(),
        draws,
    )


def trained(
    scores: Sequence[Score],
    samples: int,
    recipe: Recipe,
    progress: Progress,
    train_flops: int,
    params: dict[str, int],
    details: dict[str, Any],
) -> Outcome:
    """What a training reports: the score at `samples`, or the only one if exact, with the others and its course.

    Args:
        train_flops: Operations of all steps of the recipe; what is reported is that of the steps that were made.
    """
    headline = scores[-1]
    for at_k in scores:
        if at_k.samples == samples:
            headline = at_k
    course = {
        "stderr_test": headline.stderr_test,
        "by_samples": [at_k.row() for at_k in scores],
        "best_valid": progress.best,
        "learning_curve": progress.history,
    }
    return Outcome(
        value=headline.value,
        stderr=headline.stderr,
        samples=headline.samples,
        steps=progress.steps,
        params=params,
        earlier=progress.earlier,
        train_flops=train_flops // recipe.steps * progress.steps,
        details=course | details,
    )


@torch.no_grad()
def errors_by_samples(
    phi: Sampled,
    data: Batch,
    inputs: Callable[[Batch], dict[str, Any]],
    error: Callable[[Any, Batch], Tensor],
    samples: Iterable[int],
    repeats: int,
    seed: int,
    fixed: bool = False,
) -> list[Score]:
    """Error at each k in `samples`, from `repeats` times max(k) outputs an input, each k from its disjoint groups of k.

    Args:
        inputs: A batch to the keyword arguments of phi.
        error: Outputs (..., B, ...) and the batch to errors (..., B).
        fixed: Whether every call has the same samples: then an average of k is that of the first k, once.
    """
    counts = sorted(set(samples))
    largest = counts[-1]
    pages = Pages(Tensors(to(data, _device(phi))), max(1, ROWS // largest))
    if fixed:
        repeats = 1

    # Errors (draws, inputs) at each k, page by page.
    errors: dict[int, list[Tensor]] = {k: [] for k in counts}
    for page, batch in enumerate(pages):
        of_page: dict[int, list[Tensor]] = {k: [] for k in counts}
        for repeat in range(repeats):
            reseed(stream(seed, "test", page, repeat))
            outputs = phi.sample(**inputs(batch), samples=largest)  # (K, B, ...)
            for k in counts:
                averaged = outputs
                if fixed:
                    averaged = outputs[:k]
                of_page[k].append(error(means(averaged, k), batch))
        for k in counts:
            errors[k].append(torch.cat(of_page[k]))
    return [score(torch.cat(errors[k], dim=1), k, exact=fixed) for k in counts]


@torch.no_grad()
def exact_errors(
    phi: ps.Symmetrizer,
    data: Batch,
    inputs: Callable[[Batch], dict[str, Any]],
    error: Callable[[Any, Batch], Tensor],
) -> Score:
    """The error of a method whose average is finite, with the number of elements averaged as `samples`.

    Where a pose was drawn after all, as a canonical one of a symmetric input is, one draw tells no Monte Carlo error.
    """
    errors = []
    most = 0
    exact = True
    for batch in Pages(Tensors(to(data, _device(phi))), 100):
        estimate = phi.estimate(**inputs(batch))
        errors.append(error(estimate.mean, batch))
        most = max(most, int(estimate.samples.max()))
        exact = exact and is_exact(estimate)
    return score(torch.cat(errors)[None], most, exact)


def means(outputs: Any, k: int) -> Any:
    """Outputs (K, ...), or a dict of them, to the means of disjoint groups of k, (K // k, ...)."""
    if isinstance(outputs, dict):
        return {name: means(value, k) for name, value in outputs.items()}
    in_whole_groups = len(outputs) // k * k
    return outputs[:in_whole_groups].unflatten(0, (-1, k)).mean(1)


def parameters(phi: nn.Module) -> dict[str, int]:
    """How many numbers of a Symmetrizer, or of what has its parts, are trained, by part."""
    parts = {"base": phi.model, "distribution": phi.distribution}
    counts = {}
    for name, part in parts.items():
        assert isinstance(part, nn.Module)
        counts[name] = 0
        for parameter in part.parameters():
            if parameter.requires_grad:
                counts[name] += parameter.numel()
    return counts


def equivariance(
    phi: ps.Symmetrizer, call: dict[str, Any], samples: int, seed: int, reps: Any = None, output: Any = None
) -> dict[str, float]:
    """A test of a trained model on a few inputs, on the CPU.

    Args:
        call: Its keyword arguments.
        reps, output: What it should be equivariant to; what it declares unless given.
    """
    generator = torch.Generator().manual_seed(stream(seed, "equivariance"))
    report = ps.testing.equivariance_error(phi.cpu(), call, reps, output, samples=samples, generator=generator)
    return {"error": float(report.error), "stderr": float(report.stderr), "p_value": float(report.p_value)}


def add_entropy(loss: Tensor, estimate: ps.Estimate, weight: float) -> Tensor:
    """A loss plus the weighted entropy of the soft permutations (arXiv 2306.02866, appendix A.1), if there are any."""
    if "entropy" not in estimate.aux:
        return loss
    return loss + weight * estimate.aux["entropy"]


def _device(phi: Sampled) -> torch.device:
    return next(phi.parameters()).device
