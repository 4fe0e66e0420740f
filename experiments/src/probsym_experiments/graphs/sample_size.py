"""How much an average over k samples varies, before training: learned p (PS) against group averaging (GA).

Both share the base network, EXP graphs, and everything but p. Letters: M initialisations, K samples, B graphs, N nodes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from tqdm import tqdm

import probsym as ps
from probsym.files import write

from ..batches import Batch, reseed, rows, size, stream
from ..checks import Uses, at_least, noise_enters, positive, samples_evaluated
from ..errors import UserError, choose
from ..evaluation import parameters
from ..outcome import Outcome, Place
from ..training import table
from . import published_spread, spread
from .dense import published_features
from .exp_data import load
from .figures import sample_size as draw
from .models import ACTIVATIONS, BASES, Design, build, uses

METHODS = ("ps", "ga")


@dataclass(kw_only=True)
class Config:
    """Which model, on how many graphs, with how many samples.

    Args:
        base: mlp or gin-id.
        seed: Of all weights and samples.
        initialisations: Models drawn; they give the standard errors, of which a single model has none.
        graphs: The first training graphs of EXP; with `published`, the first validation graphs.
        eval_samples: Numbers of samples k.
        samples: The one of them that is the result.
        repeats: Independent averages at the largest k; more at smaller ones, from the same draws. With `published`, at
            each k, from draws of their own.
        gradient_samples: Largest k at which gradients are measured.
        noise: Where noise enters p: late (its scores) or input (node features).
        scale: Of that noise; late, in standard deviations of the scores.
        walks: Steps of random walks whose return probabilities the net of p sees; 0 is none.
        published: p, its net, the node features and what is measured (`published_spread`) as in the published code, to
            the letter; the noise is uniform on [0, scale].
        activation: Of the base network: tanh or relu.
        hidden: Widths of the MLP.
        head: Widths of the MLP after the pooling of GIN-ID.
    """

    base: str = "mlp"
    seed: int = 1
    initialisations: int = 20
    graphs: int = 40
    eval_samples: list[int] = field(default_factory=lambda: [1, 2, 5, 10, 20, 50, 100, 200])
    samples: int = 10
    repeats: int = 5
    gradient_samples: int = 50
    noise: str = "late"
    scale: float = 0.05
    walks: int = 12
    published: bool = False
    activation: str = "tanh"
    hidden: list[int] = field(default_factory=lambda: [512, 512])
    head: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        at_least(self, 2, "repeats")
        least = 2
        if self.published:
            least = 1
        at_least(self, least, "initialisations")
        at_least(self, 1, "graphs", "gradient_samples")
        at_least(self, 0, "seed", "walks")
        choose("base", BASES, self.base)
        choose("activation", ACTIVATIONS, self.activation)
        noise_enters(self)
        positive(self, "scale")
        samples_evaluated(self)

    def uses(self) -> Uses:
        """What fields belong to, whether this configuration has it, and their names."""
        ours: Uses = {"published false": (not self.published, ("walks", "noise"))}
        return uses(self.base, METHODS, vars(self)) | ours

    def model(self, method: str, example: Batch, number: int) -> ps.Symmetrizer:
        """One initialisation; its base network is the same for both methods."""
        torch.manual_seed(stream(self.seed, "initialisation", number))
        design = Design(
            out=1,
            activation=self.activation,
            hidden=tuple(self.hidden),
            head=tuple(self.head),
            walks=self.walks,
            noise=self.noise,
            scale=self.scale,
            published=self.published,
        )
        phi = build(self.base, method, example, design)
        assert isinstance(phi, ps.Symmetrizer)
        return phi.eval()


def run(config: Config, place: Place) -> Outcome:
    """Measures variances, entropies and gradients at every k; the result is the ratio of output variances, PS to GA."""
    # 1. The parts of EXP, and the graphs.
    data = load(place.data)
    if config.published:
        data = published_features(data)
    valid = rows(data, slice(0, 200))
    train = rows(data, slice(400, None))
    measured = train
    names = spread.QUANTITIES
    if config.published:
        measured = valid
        names = published_spread.QUANTITIES
        if not size(train):
            raise UserError(f"--data: expected more than 400 graphs; got {size(data)}")
    if config.graphs > size(measured):
        raise UserError(f"graphs: expected at most {size(measured)}; got {config.graphs}")
    batch = rows(measured, slice(0, config.graphs))

    # 2. Both methods on the same initialisations of the base.
    counts = sorted(set(config.eval_samples))
    few = config.gradient_samples
    quantities = torch.full((len(METHODS), config.initialisations, len(names), len(counts)), torch.nan).double()
    params: dict[str, int] = {}
    for number in tqdm(range(config.initialisations), unit="model", disable=None, dynamic_ncols=True):
        for i, method in enumerate(METHODS):
            phi = config.model(method, batch, number)
            params = params or parameters(phi)
            reseed(stream(config.seed, "samples", number, i))
            if config.published:
                quantities[i, number] = published_spread.measure(phi, batch, train, counts, config.repeats, few)
            else:
                quantities[i, number] = spread.measure(phi, batch, counts, config.repeats, few)

    # 3. The table, the figure, and the result.
    by_samples = summary(quantities, names, counts)
    write(place.out / "sample_size.csv", table(by_samples))
    draw(by_samples, place.name, place.out / "sample_size.png")
    headline = by_samples[counts.index(config.samples)]
    return Outcome(
        value=headline["output_variance_ratio"],
        stderr=headline["output_variance_ratio_stderr"],
        samples=config.samples,
        steps=0,
        params=params,
        details={"by_samples": by_samples},
    )


def summary(quantities: Tensor, names: Sequence[str], counts: Sequence[int]) -> list[dict[str, float]]:
    """Rows by k: each quantity (method, M, quantity, k) of both methods and their ratio, with errors over models."""
    made = []
    for column, k in enumerate(counts):
        row: dict[str, float] = {"samples": k}
        for q, name in enumerate(names):
            learned, haar = quantities[:, :, q, column]
            for method, values in (("ps", learned), ("ga", haar)):
                row[f"{name}_{method}"] = values.mean().item()
                row[f"{name}_{method}_stderr"] = standard_error(values)
            row[f"{name}_ratio"], row[f"{name}_ratio_stderr"] = jackknife_ratio(learned, haar)
        made.append(row)
    return made


def standard_error(values: Tensor) -> float:
    """Of the mean of values (M,); NaN for a single one."""
    if len(values) < 2:
        return math.nan
    return (values.std() / len(values) ** 0.5).item()


def jackknife_ratio(above: Tensor, below: Tensor) -> tuple[float, float]:
    """sum above / sum below for paired values (M,), with its delete-one standard error; NaN for a single pair.

    >>> jackknife_ratio(torch.tensor([1.0, 2.0]), torch.tensor([2.0, 4.0]))
    (0.5, 0.0)
    """
    count = len(above)
    without_one = (above.sum() - above) / (below.sum() - below)
    variance = (without_one - without_one.mean()).square().sum() * (count - 1) / count
    return (above.sum() / below.sum()).item(), variance.sqrt().item()
