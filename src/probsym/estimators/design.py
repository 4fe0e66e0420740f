"""What a design is, and how it takes noise apart."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from probsym.distributions import EquivariantDistribution, Noise
from probsym.distributions.base import SAMPLES_PER_PAGE, joined, sliced
from probsym.distributions.diagnostics import Diagnostics
from probsym.estimators.estimator import Source
from probsym.groups import Element, Group
from probsym.members import register
from probsym.reps import Inputs, Rep, build, leaves
from probsym.reps.containers import Path


class Design(ABC):
    """How the k samples of one estimate depend on one another: in blocks of consecutive samples, which are independent.

    A design of one's own says how many samples a block has (`size`), and either rearranges the noise of a block
    (`arrange`) or makes several samples of one draw (`samples_per_draw` and `transport`). `ps.save` writes a frozen
    dataclass once it is registered (`probsym.saving.register`). Pairs of noise (eps, -eps):

    >>> import torch, probsym as ps
    >>> from dataclasses import dataclass
    >>> from probsym.estimators.design import map_noise
    >>> @dataclass(frozen=True)
    ... class Mirrored(ps.designs.Design):
    ...     size = 2
    ...     def samples_per_draw(self, p, x):
    ...         return 2
    ...     def transport(self, p, x, noise, diagnostics=None):
    ...         mirror = lambda path, rep, eps: torch.stack([eps, -eps], 1).flatten(0, 1)
    ...         return p.transport(x, map_noise(p, x, noise, mirror), diagnostics)
    >>> space = ps.O(3)
    >>> phi = ps.symmetrize(torch.nn.Linear(3, 1, bias=False), ps.Rep(space), ps.Rep(), "haar").eval()
    >>> phi(torch.randn(2, 3), estimator=ps.MonteCarlo(4, design=Mirrored())).abs().max() < 1e-6
    tensor(True)

    Noise that is given from outside has the sample shape (k,), as for independent samples: designs that make several
    samples of a draw use the first of each block, the others use it as it is.
    """

    @property
    @abstractmethod
    def size(self) -> int | None:
        """Samples in a block; None where it depends on the group or the data."""

    def block_size(self, p: EquivariantDistribution, x: Inputs) -> int:
        """Samples in a block, for these inputs.

        Raises:
            ValueError: the design fits no factor of the group.
        """
        if self.size is None:
            raise NotImplementedError(f"{type(self).__name__}: where size is None, block_size tells it")
        return self.size

    def samples_per_draw(self, p: EquivariantDistribution, x: Inputs) -> int:
        """Consecutive samples that are made from one draw of the noise."""
        return 1

    def arrange(self, p: EquivariantDistribution, x: Inputs, noise: Noise, generator: torch.Generator | None) -> Noise:
        """Independent draws made dependent within blocks."""
        return noise

    def transport(
        self, p: EquivariantDistribution, x: Inputs, noise: Noise, diagnostics: dict[str, Tensor] | None = None
    ) -> Element:
        """Elements (K, B) in blocks of consecutive samples.

        Args:
            diagnostics: filled with scalars about the elements, as by the `transport` of p.
        """
        return p.transport(x, noise, diagnostics)

    def weights(self, p: EquivariantDistribution, x: Inputs) -> Tensor | None:
        """Weights (M, B) of the samples of a block, of mean one; None where all are equal."""
        return None

    # ---------------------------------------------------------------- what estimators call

    def elements(
        self,
        p: EquivariantDistribution,
        x: Inputs,
        k: int,
        source: Source,
        diagnostics: dict[str, Tensor] | None = None,
    ) -> Element:
        """The elements of all k samples."""
        noise = joined(list(self.noise_pages(p, x, k, source)))
        return self.transport(p, x, noise, diagnostics)

    def element_pages(
        self, p: EquivariantDistribution, x: Inputs, k: int, source: Source
    ) -> Iterator[tuple[Element, dict[str, Tensor]]]:
        """The same page by page, with diagnostics: neither the noise nor the elements of all samples are held at once.

        With gradients there is one page, since backward needs all elements anyway, and one pass of the net of p makes
        them.
        """
        pages: Iterator[Noise] = self.noise_pages(p, x, k, source)
        if torch.is_grad_enabled():
            pages = iter([joined(list(pages))])
        for noise in pages:
            if source.statistics:
                diagnostics = Diagnostics()
                yield self.transport(p, x, noise, diagnostics), diagnostics
            else:
                yield self.transport(p, x, noise), {}

    def noise_pages(self, p: EquivariantDistribution, x: Inputs, k: int, source: Source) -> Iterator[Noise]:
        """What `transport` takes, in pages of whole blocks: fresh noise of k samples, or what was given.

        Raises:
            ValueError: the design fits no factor of the group, k is not a multiple of the block, or noise was given
                for another number of samples or for other inputs.
        """
        block = self.block_size(p, x)
        check_multiple(k, block, self)
        page = max(SAMPLES_PER_PAGE // block, 1) * block  # samples in a page
        shared = self.samples_per_draw(p, x)
        if source.noise is None:
            for fresh in p.noise_pages(x, k // shared, source.generator, page // shared):
                yield self.arrange(p, x, fresh, source.generator)
            return
        source.check_noise(p, x, k)
        for start in range(0, k, page):
            yield sliced(source.noise, slice(start, start + page, shared))


@register
@dataclass(frozen=True)
class IID(Design):
    """Independent samples: plain Monte Carlo."""

    @property
    def size(self) -> int:
        return 1


def check_multiple(k: int, block: int, design: Design) -> None:
    """Refuse a number of samples that is not a whole number of blocks."""
    if k % block:
        raise ValueError(f"k: expected a multiple of {block}, the block of {design!r}, got {k}")


def map_noise(p: EquivariantDistribution, x: Inputs, noise: Noise, fn: Callable[[Path, Rep, Tensor], Tensor]) -> Noise:
    """fn(path, rep, tensor) on every tensor of the noise of p; a path holds the factor that the tensor belongs to."""

    def at(path: Path, rep: Rep) -> Tensor:
        eps = noise
        for key in path:
            eps = eps[key]
        return fn(path, rep, eps)

    return build(p.noise_rep(x), at)


def noise_paths(p: EquivariantDistribution, x: Inputs) -> list[Path]:
    """Where each tensor of the noise of p stands."""
    return list(leaves(p.noise_rep(x)))


def belongs_to_another(path: Path, chosen: Container[Group]) -> bool:
    """Whether the noise at this path belongs to a factor that is neither among the chosen nor trivial."""
    for key in path:
        if isinstance(key, Group) and key not in chosen and key.noise_slots:
            return True
    return False


def repeat(tensor: Tensor, times: int) -> Tensor:
    """Every row `times` times in a row: (J, ...) -> (J times, ...)."""
    return tensor.unsqueeze(1).expand(-1, times, *tensor.shape[1:]).flatten(0, 1)
