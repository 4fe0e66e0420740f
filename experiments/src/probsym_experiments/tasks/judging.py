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
        found: dict[int, list[Tensor]] = {k: [] for k in counts}
        for page, batch in enumerate(self._pages(phi, data, largest)):
            of_page: dict[int, list[Tensor]] = {k: [] for k in counts}
            for repeat in range(self.repeats):
                reseed(stream(self.seed, "test", page, repeat))
                outputs = self._outputs(phi, batch, largest)
                for k in counts:
                    of_page[k].append(self.goal.rows(means(outputs, k), batch).cpu())
            for k in counts:
                found[k].append(torch.cat(of_page[k]))
        rows = {k: torch.cat(pages, 1) for k, pages in found.items()}
        return [self.score(rows[k], k) for k in counts], rows[largest][0]

    @torch.no_grad()
    def exact(self, phi: ps.Symmetrizer, data: Source) -> tuple[list[Score], Tensor]:
        """The metric of a method whose average is finite, with the largest number of elements averaged as `samples`."""
        found = []
        most = 1
        exact = True
        for page, batch in enumerate(self._pages(phi, data, 1)):
            reseed(stream(self.seed, "test", page))
            estimate = phi.estimate(**arguments(batch))
            found.append(self.goal.rows(estimate.mean[None], batch).cpu())
            most = max(most, int(estimate.samples.max()))
            exact = exact and is_exact(estimate)
        rows = torch.cat(found, 1)
        return [self.score(rows, most, exact)], rows[0]

    def score(self, rows: Tensor, samples: int, exact: bool = False) -> Score:
        """Of rows (draws, graphs, P): Monte Carlo error from the draws, error over the test set from its bootstrap."""
        values = torch.stack([self.goal.total(draw) for draw in rows])
        draws, graphs = rows.shape[:2]
        generator = torch.Generator().manual_seed(stream(self.seed, "bootstrap"))
        index = torch.randint(graphs, (self.resamples, graphs), generator=generator)
        again = torch.stack([self.goal.total(rows[0, chosen]) for chosen in index])
        stderr_test = float(again.std()) if len(again) > 1 else 0.0
        return Score(samples, float(values.mean()), monte_carlo_error(values, exact), stderr_test, draws)

    def _pages(self, phi: ps.Symmetrizer, data: Source, samples: int) -> Iterator[Batch]:
        device = next(phi.parameters()).device
        return (to(batch, device) for batch in Pages(data, max(1, self.rows // samples)))

    @torch.no_grad()
    def _outputs(self, phi: ps.Symmetrizer, batch: Batch, samples: int) -> Tensor:
        """One output a sample (K, ...), no more than `rows` rows at a time."""
        graphs = len(batch["x"] if "mask" in batch else batch["size"])
        step = max(1, self.rows // graphs)
        parts = [min(step, samples - done) for done in range(0, samples, step)]
        return torch.cat([phi.sample(**arguments(batch), samples=part) for part in parts])
