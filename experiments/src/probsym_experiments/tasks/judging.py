"""Metrics of a whole test set against the number of samples, with two standard errors that are kept apart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

import probsym as ps

from ..batches import Batch, Pages, Source, reseed, stream, to
from ..evaluation import Score, is_exact, means, monte_carlo_error
from .build import arguments
from .goals import Goal


@dataclass(frozen=True)
class Judge:
    """How a trained model is judged.

    Args:
        goal: What is asked. rows: Samples times graphs that the base sees at once.
        repeats: Times that the largest number of samples is drawn anew.
        resamples: Of the test set, for its standard error. seed: Of all draws.
    """

    goal: Goal
    rows: int
    repeats: int
    resamples: int
    seed: int

    def by_samples(self, phi: ps.Symmetrizer, data: Source, samples: Sequence[int]) -> tuple[list[Score], Tensor]:
        """The metric at each k in `samples`, from means of disjoint groups of k outputs, and the rows at the largest k.

        What is averaged is the output (logits), as in training; the metric follows.
        """
        counts = sorted(set(samples))
        largest = counts[-1]
        rows_by_k: dict[int, list[Tensor]] = {k: [] for k in counts}
        for page, batch in enumerate(self._pages(phi, data, largest)):
            of_page: dict[int, list[Tensor]] = {k: [] for k in counts}
            for repeat in range(self.repeats):
                reseed(stream(self.seed, "test", page, repeat))
                outputs = self._outputs(phi, batch, largest)
                for k in counts:
                    of_page[k].append(self.goal.rows(means(outputs, k), batch).cpu())
            for k in counts:
                rows_by_k[k].append(torch.cat(of_page[k]))

        scores = []
        for k in counts:
            rows = torch.cat(rows_by_k[k], 1)
            scores.append(self.score(rows, k))
        return scores, rows[0]  # counts rise, so these are the rows at the largest k

    @torch.no_grad()
    def exact(self, phi: ps.Symmetrizer, data: Source) -> tuple[list[Score], Tensor]:
        """The metric of a method whose average is finite, with the largest number of elements averaged as `samples`."""
        of_pages = []
        most = 1
        exact = True
        for page, batch in enumerate(self._pages(phi, data, 1)):
            reseed(stream(self.seed, "test", page))
            estimate = phi.estimate(**arguments(batch))
            of_pages.append(self.goal.rows(estimate.mean[None], batch).cpu())
            most = max(most, int(estimate.samples.max()))
            exact = exact and is_exact(estimate)
        rows = torch.cat(of_pages, 1)
        return [self.score(rows, most, exact)], rows[0]

    def score(self, rows: Tensor, samples: int, exact: bool = False) -> Score:
        """Of rows (draws, graphs, P): Monte Carlo error from the draws, error over the test set from its bootstrap."""
        # 1. The metric of each draw.
        draws, graphs = rows.shape[:2]
        values = torch.stack([self.goal.total(draw) for draw in rows])

        # 2. The metric of the first draw on test sets drawn anew from its graphs.
        generator = torch.Generator().manual_seed(stream(self.seed, "bootstrap"))
        index = torch.randint(graphs, (self.resamples, graphs), generator=generator)
        resampled = torch.stack([self.goal.total(rows[0, chosen]) for chosen in index])
        stderr_test = 0.0
        if len(resampled) > 1:
            stderr_test = float(resampled.std())
        return Score(samples, float(values.mean()), monte_carlo_error(values, exact), stderr_test, draws)

    def _pages(self, phi: ps.Symmetrizer, data: Source, samples: int) -> Iterator[Batch]:
        """The test set in batches for which `samples` samples are within the rows that the base may see at once."""
        device = next(phi.parameters()).device
        for batch in Pages(data, max(1, self.rows // samples)):
            yield to(batch, device)

    @torch.no_grad()
    def _outputs(self, phi: ps.Symmetrizer, batch: Batch, samples: int) -> Tensor:
        """One output a sample (K, ...), no more than `rows` rows at a time."""
        if "mask" in batch:
            graphs = len(batch["mask"])
        else:
            graphs = len(batch["size"])
        step = max(1, self.rows // graphs)
        parts = []
        for done in range(0, samples, step):
            parts.append(phi.sample(**arguments(batch), samples=min(step, samples - done)))
        return torch.cat(parts)
