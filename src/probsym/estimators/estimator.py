"""What an estimator is given and what it gives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from probsym.distributions import EquivariantDistribution, Noise
from probsym.distributions.base import samples_of
from probsym.estimators.estimate import Estimate
from probsym.estimators.samples import OutputSamples
from probsym.groups import Element
from probsym.reps import Inputs


class OrbitMap(Protocol):
    """g -> g f(g^-1 x), the model f moved by g; `probsym.symmetrizer.Orbit` is the one that estimators are given."""

    @property
    def model(self) -> nn.Module:
        """f."""

    @property
    def training(self) -> bool:
        """Whether f trains: then no row is left out as equal to another, and chunks bound the memory of backward."""

    def __call__(self, x: Inputs, g: Element, active: Tensor | None = None, deduplicate: bool = False) -> OutputSamples:
        """The samples g_k f(g_k^-1 x) for elements g of batch shape (K, B).

        Args:
            active: (K, B) bool, the samples that matter: others are not evaluated, and zero. None for all.
            deduplicate: whether to evaluate equal poses g_k^-1 x only once; asks for `active`.
        """


@dataclass(frozen=True, eq=False)
class Source:
    """Where the randomness of one estimate comes from.

    Args:
        generator: source of all randomness; None is torch's own.
        noise: noise drawn beforehand, of sample shape (K,), instead of the generator's.
        statistics: whether standard errors and diagnostics are wanted, or only the mean.
    """

    generator: torch.Generator | None = None
    noise: Noise = None
    statistics: bool = True

    def draw(self, p: EquivariantDistribution, x: Inputs, k: int) -> Noise:
        """The noise of k samples of p(g|x): fresh, or what was given.

        Raises:
            ValueError: noise was given for another number of samples, or for other inputs.
        """
        if self.noise is None:
            return p.draw(x, k, self.generator)
        self.check_noise(p, x, k)
        return self.noise

    def check_noise(self, p: EquivariantDistribution, x: Inputs, k: int) -> None:
        """Refuse noise that was given for another number of samples than k, or for other inputs."""
        if x.readable:  # sizes that a compiler follows are no numbers
            p.check_noise(x, self.noise)
        given = samples_of(self.noise)
        if given != k:
            raise ValueError(f"noise: expected {k} samples, as many as the estimator takes, got {given}")

    def refuse_noise(self, estimator: Estimator) -> None:
        """Refuse noise that was given to an estimator whose number of draws is its own affair."""
        if self.noise is not None:
            raise ValueError(
                f"noise: {type(estimator).__name__} draws its own; pass a generator instead, or freeze phi without an "
                "example, for which noise is kept"
            )


class IndependentPart(NamedTuple):
    """Some of the independent estimates whose mean an estimate is.

    Args:
        estimator: makes one of them for each input of `x.tile(times)`. times: how many there are.
        source: of their randomness.
    """

    estimator: Estimator
    times: int
    source: Source


class Estimator(ABC):
    """An estimate of phi(x) = E_{g ~ p(g|x)} [ g f(g^-1 x) ] from samples, or from all elements.

    An estimator of one's own is a class with `__call__`. It draws noise from `source`, lets `p` make elements of the
    noise, lets `orbit` make outputs of the elements, and puts these together. `ps.save` writes a frozen dataclass once
    it is registered (`probsym.saving.register`). The median of samples, for invariant outputs:

    >>> import torch, probsym as ps
    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True)
    ... class Median(ps.Estimator):
    ...     k: int
    ...     def __call__(self, p, x, orbit, source):
    ...         g = p.transport(x, source.draw(p, x, self.k))               # elements (K, B)
    ...         samples = orbit(x, g)                                       # g_k f(g_k^-1 x), tensors (K, B, ...)
    ...         middle = [tensor.median(0).values for tensor in samples.tensors]
    ...         return ps.Estimate(samples.build(middle), None, samples.counts)
    >>> space = ps.O(3)
    >>> phi = ps.symmetrize(torch.nn.Linear(3, 1), ps.Rep(space), ps.Rep(), "haar", eval_samples=Median(5)).eval()
    >>> phi(torch.randn(2, 3)).shape
    torch.Size([2, 1])
    """

    @abstractmethod
    def __call__(self, p: EquivariantDistribution, x: Inputs, orbit: OrbitMap, source: Source) -> Estimate:
        """The estimate for all inputs of the batch.

        Args:
            p: the distribution p(g|x). x: the bound inputs of a call, B of them.
            orbit: (x, g) -> the samples g_k f(g_k^-1 x). It takes any batch of inputs, such as x.select(keep).
            source: where randomness comes from, and whether statistics are wanted.
        """

    def independent_parts(self, p: EquivariantDistribution, x: Inputs, source: Source) -> Iterator[IndependentPart]:
        """This estimate as the mean of independent ones, in parts that are evaluated one after the other.

        For what is computed of single estimates, such as the standard error of a derivative: in `x.tile(times)` each of
        them has inputs of its own.

        Raises:
            ValueError: the estimator cannot be taken apart; names it.
        """
        raise ValueError(
            f"estimator: {self!r} is no mean of a known number of independent estimates, of which an error could be "
            "told; take MonteCarlo(k)"
        )
