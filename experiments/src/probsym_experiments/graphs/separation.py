"""Which pairs of graphs a model tells apart, under the published rule and with the control that it lacks.

The rule: a pair is separated when the L1 distance of its two outputs exceeds 1e-3 for any of 100 random
initialisations. An output that is a Monte Carlo average differs between two calls, so the rule also separates a graph
from itself. The control counts that: the share of isomorphic pairs (a graph and a random relabelling) called different.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor
from tqdm import tqdm

import probsym as ps

from ..batches import Batch, reseed, rows, size, stream
from ..checks import Uses, at_least, positive
from ..errors import UserError, choose
from ..evaluation import parameters
from ..methods import PAPER
from ..outcome import Outcome, Place
from .dense import published_features, relabelled
from .distance import apart, close_pairs, nearest
from .figures import distances
from .models import BASES, Design, build, inputs, uses

ROWS = 1_000  # samples times graphs that the base network sees at once
EXACT_NODES = 8  # all orders of so many are listed


@dataclass(kw_only=True)
class Protocol:
    """Which untrained model, and when two of its outputs count as different.

    Args:
        base: mlp or gin-id.
        symmetrizer: ps (learned), ga (Haar), fa (frames) or canonical.
        seed: Of all weights, relabellings and samples.
        initialisations: Models drawn; a pair is separated if any of them does.
        threshold: Outputs are different when their L1 distance is above it.
        samples: Drawn for each graph, ps and ga only; null is the exact average, which ga has for up to 8 nodes.
        controls: Graphs that are compared with a relabelling of themselves; null is all.
        hidden: Widths of the MLP.
        published: p, its net and the node features as in the published code, to the letter; the noise is uniform on
            [0, scale].
        scale: Of the noise of p, relative to its standardised scores.
        max_support: Most frames of a graph that fa lists; of more it samples 16.
        double: Compute in float64.
        chunk: Group elements evaluated at once in an exact average; null is all.
        page: Graphs in a batch; null fits the number of samples.
    """

    base: str = "mlp"
    symmetrizer: str = "ps"
    seed: int = 1
    initialisations: int = 100
    threshold: float = 1e-3
    samples: int | None = 10
    controls: int | None = None
    hidden: list[int] = field(default_factory=lambda: [128, 64])
    published: bool = False
    scale: float = 1.0
    max_support: int = 64
    double: bool = False
    chunk: int | None = None
    page: int | None = None

    def __post_init__(self) -> None:
        given = [name for name in ("samples", "controls", "chunk", "page") if getattr(self, name) is not None]
        at_least(self, 1, "initialisations", "max_support", *given)
        at_least(self, 0, "seed", "threshold")
        positive(self, "scale")
        if not self.hidden or min(self.hidden) < 1:
            raise UserError(f"hidden: expected positive widths; got {self.hidden}")
        choose("base", BASES, self.base)
        how = choose("symmetrizer", PAPER, self.symmetrizer)
        if self.samples is None and not how.exact:
            raise UserError(f"samples: {self.symmetrizer} has no exact average; expected a number, got null")

    sees_nodes: ClassVar[bool] = True  # whether an MLP of the published code sees features of the nodes

    def uses(self) -> Uses:
        """What fields belong to, whether this configuration has it, and their names."""
        random = PAPER[self.symmetrizer].random
        owners: Uses = {
            "samples that are drawn (symmetrizer ps, ga)": (random, ("samples",)),
            "exact averages (symmetrizer fa, canonical; samples null)": (self.drawn is None, ("chunk",)),
        }
        return uses(self.base, [self.symmetrizer], vars(self)) | owners

    @property
    def drawn(self) -> int | None:
        """Samples a graph; None where the average is exact."""
        if PAPER[self.symmetrizer].random:
            return self.samples
        if self.published and PAPER[self.symmetrizer].net:
            return 1  # one order, in which ties are broken by noise
        return None

    def model(self, example: Batch, number: int) -> ps.Symmetrizer:
        """One of the initialisations, in evaluation mode."""
        torch.manual_seed(stream(self.seed, "initialisation", number))
        design = Design(
            hidden=tuple(self.hidden),
            bounded=True,
            scale=self.scale,
            max_support=self.max_support,
            sinkhorn=1,  # nothing is trained
            published=self.published,
            adjacency_alone=self.published and not self.sees_nodes,
        )
        in_evaluation = self.drawn or ps.Exact(self.chunk)
        phi = build(self.base, self.symmetrizer, example, design, samples=(None, in_evaluation))
        assert isinstance(phi, ps.Symmetrizer)
        if self.double:
            phi = phi.double()
        return phi.eval()


@torch.no_grad()
def outputs(phi: ps.Symmetrizer, graphs: Batch, page: int, samples: int | None) -> tuple[Tensor, int]:
    """phi of every graph (B, 10), in float64, and the largest number of samples or elements that one took."""
    dtype = next(phi.parameters()).dtype
    of_pages = []
    most = samples or 0
    for start in tqdm(range(0, size(graphs), page), unit="page", leave=False, disable=None, dynamic_ncols=True):
        call = inputs(graphs, slice(start, start + page))
        for name, value in call.items():
            if value.is_floating_point():
                call[name] = value.to(dtype)
        if samples:
            of_pages.append(phi(**call, samples=samples))
            continue
        estimate = phi.estimate(**call)
        of_pages.append(estimate.mean)
        most = max(most, int(estimate.samples.max()))
    return torch.cat(of_pages).double(), most


@dataclass
class Tally:
    """What is not yet decided after some initialisations, and what the first one showed.

    Args:
        pairs: Not isomorphic and not separated (2, P); None stands for all pairs of the first `graphs` graphs.
        controls: Isomorphic and not yet called different (2, C).
    """

    graphs: int
    pairs: Tensor | None
    controls: Tensor
    first: dict[str, float] = field(default_factory=dict)
    largest: float = 0.0  # distance of isomorphic graphs; where some were called different, that of those not yet

    def needed(self) -> Tensor:
        """The graphs whose outputs could still change the count."""
        if self.pairs is None:
            undecided = torch.arange(self.graphs)
        else:
            undecided = self.pairs.flatten()
        return torch.cat([undecided, self.controls.flatten()]).unique()

    def update(self, y: Tensor, threshold: float) -> None:
        """Drops the pairs that outputs (2B, 10) tell apart; rows of graphs that are not needed are not read."""
        if self.pairs is None:
            self.pairs = close_pairs(y[: self.graphs], threshold)
        else:
            self.pairs = self.pairs[:, apart(y, self.pairs) <= threshold]
        gap = apart(y, self.controls)
        if len(gap):
            self.largest = max(self.largest, gap.max().item())
        self.controls = self.controls[:, gap <= threshold]


def compare(config: Protocol, graphs: Batch, pairs: Tensor | None, place: Place) -> Outcome:
    """Counts the pairs that no initialisation separates, and the isomorphic pairs that some initialisation does.

    Exact, though most graphs are evaluated for the first few models only: what is decided stays decided. Once nothing
    is left to decide, no more models are drawn; `initialisations` of the result counts those that were.

    Args:
        graphs: adjacency (B, N, N) and perhaps nodes and mask. pairs: Compared (2, P); None is all pairs.
    """
    if config.published:
        graphs = published_features(graphs)
    count = size(graphs)
    nodes = graphs["adjacency"].shape[-1]
    if config.drawn is None and PAPER[config.symmetrizer].random and nodes > EXACT_NODES:
        raise UserError(f"samples: {config.symmetrizer} is exact for up to {EXACT_NODES} nodes; got null for {nodes}")

    # 1. Beside the graphs, some of them relabelled: pairs that no model should tell apart.
    generator = torch.Generator().manual_seed(stream(config.seed, "relabelling"))
    chosen = torch.randperm(count, generator=generator)[: config.controls]
    copies = relabelled(rows(graphs, chosen), generator)
    both = {}
    for name, values in graphs.items():
        both[name] = torch.cat([values, copies[name]])
    controls = torch.stack([chosen, count + torch.arange(len(chosen))])
    tally = Tally(count, pairs, controls)

    # 2. One model after the other, on those graphs only whose pairs are not decided.
    page = config.page or max(1, ROWS // (config.drawn or 1))
    y = torch.full((size(both), 10), torch.nan, dtype=torch.float64)
    drawn = 0
    for number in tqdm(range(config.initialisations), unit="model", disable=None, dynamic_ncols=True):
        needed = tally.needed()
        if not len(needed):
            break
        phi = config.model(graphs, number)
        reseed(stream(config.seed, "outputs", number))
        y[needed], used = outputs(phi, rows(both, needed), page, config.drawn)
        if number == 0:
            samples = used
            tally.first = _first(y, pairs, controls, config, count, place)
        tally.update(y, config.threshold)
        drawn += 1

    # 3. What is left.
    assert tally.pairs is not None
    return Outcome(
        value=tally.pairs.shape[1],
        stderr=0.0,
        samples=samples,
        steps=0,
        params=parameters(phi),
        details={
            "isomorphic called different": 1 - tally.controls.shape[1] / controls.shape[1],
            "controls": controls.shape[1],
            "isomorphic_largest": tally.largest,
            "initialisations": drawn,
            "first": tally.first,
            "unseparated": tally.pairs.T[:100].tolist(),
        },
    )


def _first(
    y: Tensor, pairs: Tensor | None, controls: Tensor, config: Protocol, count: int, place: Place
) -> dict[str, float]:
    """What the first initialisation alone says, and the figure of its distances."""
    same = apart(y, controls)
    if pairs is None:
        # There are too many for a figure: it shows some, drawn at random.
        other = apart(y, _some_pairs(count))
        smallest = nearest(y[:count])
    else:
        other = apart(y, pairs)
        smallest = other.min().item()
    distances(other, same, config.threshold, place.name, place.out / "distances.png")
    return {
        "isomorphic": (same > config.threshold).double().mean().item(),
        "isomorphic_median": same.median().item(),
        "isomorphic_largest": same.max().item(),
        "other_median": other.median().item(),
        "other_smallest": smallest,
    }


def _some_pairs(count: int, most: int = 1_000_000) -> Tensor:
    """Pairs of different graphs, drawn at random."""
    i, j = torch.randint(count, (2, most), generator=torch.Generator().manual_seed(0))
    return torch.stack([i, j])[:, i != j]
