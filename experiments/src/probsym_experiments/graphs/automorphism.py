"""Do nodes that a symmetry of the graph exchanges get equal outputs? Five graphs, from no symmetry to 720 of them.

The output y_i of a node is an average over k samples y_ki, so within an orbit it varies; the measure is

    share = sum_i (y_i - mean over the orbit of i)^2 / mean_k sum_i (y_ki - mean_j y_kj)^2,

0 for an equivariant output, and 1 for one sample if orbits explain nothing of it. Letters: K samples, N nodes.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

import probsym as ps
from probsym.files import write

from ..batches import Batch, reseed, stream
from ..checks import Uses, at_least, positive, samples_evaluated
from ..errors import choose
from ..evaluation import parameters
from ..methods import PAPER
from ..outcome import Outcome, Place
from .figures import orbits as draw
from .models import BASES, Design, build, inputs, uses
from .symmetric import GRAPHS, Example


@dataclass(kw_only=True)
class Config:
    """Which models are drawn, and how many samples.

    Args:
        base: mlp or gin-id.
        symmetrizer: ps (learned), ga (Haar), fa (frames) or canonical.
        against: Others that the figure and the table show beside it.
        seed: Of all weights and samples.
        initialisations: Models drawn; they give the standard errors.
        eval_samples: Numbers of samples k, ps and ga only; fa is exact and canonical is one pose.
        samples: The one of them that is the result.
        hidden: Widths of the MLP.
        scale: Of the noise of p, relative to its standardised scores.
    """

    base: str = "mlp"
    symmetrizer: str = "ps"
    against: list[str] = field(default_factory=list)
    seed: int = 1
    initialisations: int = 20
    eval_samples: list[int] = field(default_factory=lambda: [1, 3, 10, 30, 100, 300, 1000])
    samples: int = 100
    hidden: list[int] = field(default_factory=lambda: [128, 64])
    scale: float = 0.1

    def __post_init__(self) -> None:
        at_least(self, 2, "initialisations")
        at_least(self, 0, "seed")
        choose("base", BASES, self.base)
        for name in (self.symmetrizer, *self.against):
            choose("symmetrizer", PAPER, name)
        positive(self, "scale")
        samples_evaluated(self)

    def uses(self) -> Uses:
        """What fields belong to, whether this configuration has it, and their names."""
        methods = [self.symmetrizer, *self.against]
        random = any(PAPER[name].random for name in methods)
        drawn = {"samples that are drawn (symmetrizer ps, ga)": (random, ("samples", "eval_samples"))}
        return uses(self.base, methods, vars(self)) | drawn

    def model(self, method: str, example: Batch, number: int) -> ps.Symmetrizer:
        """One initialisation with one output a node."""
        torch.manual_seed(stream(self.seed, "initialisation", number))
        nodes = example["adjacency"].shape[-1]
        design = Design(nodes, hidden=tuple(self.hidden), scale=self.scale, max_support=1024, by_node=True)
        phi = build(self.base, method, example, design)
        assert isinstance(phi, ps.Symmetrizer)
        return phi.eval()


@dataclass(frozen=True)
class Curve:
    """Shares of each model (model, graph, k) of one method, and of the last model what the figure shows.

    Args:
        shown: Outputs at the largest k. sizes: Root mean square deviation of a node in one sample.
    """

    method: str
    samples: list[int]
    shares: Tensor
    shown: list[Tensor]
    sizes: list[float]

    @property
    def share(self) -> Tensor:
        """Means over models (graph, k)."""
        return self.shares.mean(0)

    @property
    def stderr(self) -> Tensor:
        """Their standard errors."""
        return standard_error(self.shares)


def run(config: Config, place: Place) -> Outcome:
    """The result is the share at k samples, averaged over the four graphs that have symmetries."""
    # 1. The curves of all methods.
    curves = [curve_of(method, config) for method in (config.symmetrizer, *config.against)]
    write(place.out / "automorphism.csv", as_csv(curves))
    draw(curves, GRAPHS, place.name, place.out / "automorphism.png")

    # 2. The result, of the first method. An exact average has one number only.
    own = curves[0]
    column = -1
    if config.samples in own.samples:
        column = own.samples.index(config.samples)
    symmetric = []
    for number, graph in enumerate(GRAPHS):
        if len(graph.orbits) < len(graph.places):
            symmetric.append(number)
    shares = own.shares[:, symmetric, column].mean(1)
    phi = config.model(config.symmetrizer, batch_of(GRAPHS[0]), 0)
    return Outcome(
        value=shares.mean().item(),
        stderr=standard_error(shares).item(),
        samples=own.samples[column],
        steps=0,
        params=parameters(phi),
        details={"by_samples": rows_of(curves)},
    )


def curve_of(method: str, config: Config) -> Curve:
    """Shares at every k of one method."""
    counts = []  # none where the average is exact
    if PAPER[method].random:
        counts = sorted(set(config.eval_samples))
    samples = counts or [1]
    shares = torch.zeros(config.initialisations, len(GRAPHS), len(samples))
    for number in range(config.initialisations):
        shown = []
        sizes = []
        for i, graph in enumerate(GRAPHS):
            batch = batch_of(graph)
            phi = config.model(method, batch, number)
            reseed(stream(config.seed, "samples", number, i))
            outputs, pool = averages(phi, batch, counts)
            for column, y in enumerate(outputs):
                shares[number, i, column] = share(y, pool, graph.orbits)
            shown.append(outputs[-1])
            sizes.append((spread(pool).mean() / pool.shape[-1]).sqrt().item())
    return Curve(method, samples, shares, shown, sizes)


def standard_error(values: Tensor) -> Tensor:
    """Of the mean over the first axis."""
    return values.std(0) / len(values) ** 0.5


@torch.no_grad()
def averages(phi: ps.Symmetrizer, batch: Batch, counts: Sequence[int]) -> tuple[list[Tensor], Tensor]:
    """Outputs of the nodes (N,) at every k, from the first k of the same samples, and the samples (K, N).

    Without any k it is the method's own average, which is then also the one sample.
    """
    if not counts:
        y = phi(**inputs(batch))
        return [y[0]], y
    y = phi.sample(**inputs(batch), samples=counts[-1])[:, 0]
    return [y[:k].mean(0) for k in counts], y


def share(y: Tensor, pool: Tensor, orbits: Sequence[Sequence[int]]) -> Tensor:
    """Sum of squares within orbits of y (N,), relative to that over all nodes of a sample (K, N); 0 for rounding."""
    within = torch.stack([spread(y[list(orbit)]) for orbit in orbits]).sum()
    rounding = 1e-10 * y.double().square().sum()
    relative = within / spread(pool).mean().clamp_min(1e-30)
    return torch.where(within > rounding, relative, 0.0)


def spread(y: Tensor) -> Tensor:
    """Sum of squares about the mean over the last axis."""
    y = y.double()
    return (y - y.mean(-1, keepdim=True)).square().sum(-1)


def batch_of(graph: Example) -> Batch:
    """The graph as a batch of one."""
    return {"adjacency": torch.from_numpy(graph.adjacency.astype(np.float32))[None]}


def rows_of(curves: Sequence[Curve]) -> list[dict[str, str | float]]:
    """One row for every method, graph and k."""
    rows: list[dict[str, str | float]] = []
    for curve in curves:
        share = curve.share
        stderr = curve.stderr
        for i, graph in enumerate(GRAPHS):
            for j, k in enumerate(curve.samples):
                rows.append(
                    {
                        "method": curve.method,
                        "graph": graph.name,
                        "samples": k,
                        "share": share[i, j].item(),
                        "stderr": stderr[i, j].item(),
                    }
                )
    return rows


def as_csv(curves: Sequence[Curve]) -> str:
    """The rows as text."""
    text = io.StringIO()
    writer = csv.DictWriter(text, ["method", "graph", "samples", "share", "stderr"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows_of(curves))
    return text.getvalue()
