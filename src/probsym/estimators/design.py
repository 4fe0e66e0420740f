"""What a design is, and how it takes noise and elements apart."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from probsym.distributions import Noise
from probsym.distributions.base import PAGE, joined, samples_of, sliced
from probsym.estimators.base import Integrand
from probsym.groups import Element, Group
from probsym.groups.base import ProductElement
from probsym.members import register
from probsym.reps import Rep, build, leaves

Drawn = tuple[Element, dict[str, Tensor]]


class Design(ABC):
    """How the k samples of one estimate depend on one another: in blocks, which are independent.

    Noise that is given from outside has the sample shape (k,), as for independent samples: cosets and pairs use the
    first of each block, the other designs use it as it is.
    """

    @property
    @abstractmethod
    def size(self) -> int | None:
        """Samples in a block; None where it depends on the group or the data."""

    def length(self, integrand: Integrand) -> int:
        """Samples in a block.

        Raises:
            ValueError: the design fits no factor of the group.
        """
        return int(self.size)  # type: ignore[arg-type]

    def sharing(self, integrand: Integrand) -> int:
        """Consecutive samples that are made from one draw of the noise."""
        return 1

    def arrange(self, integrand: Integrand, noise: Noise) -> Noise:
        """Independent draws made dependent within blocks."""
        return noise

    def push(self, integrand: Integrand, noise: Noise) -> Drawn:
        """Elements (K, B) in blocks of consecutive samples, and counters."""
        return integrand.push(noise)

    def weights(self, integrand: Integrand) -> Tensor | None:
        """Weights (M, B) of the samples of a block, of mean one; None where all are equal."""
        return None

    def noise(self, integrand: Integrand, k: int) -> Iterator[Noise]:
        """What `push` takes, in pages of whole blocks: fresh noise of k samples, or what was given.

        Raises:
            ValueError: the design fits no factor of the group, k is not a multiple of the block, or noise was given
                for another number of samples.
        """
        block, share = self.length(integrand), self.sharing(integrand)
        page = max(PAGE // block, 1) * block
        check_multiple(k, block, self)
        if integrand.noise is None:
            for fresh in integrand.p.noise_pages(integrand.x, k // share, integrand.generator, page // share):
                yield self.arrange(integrand, fresh)
            return
        given = samples_of(integrand.noise)
        if given != k:
            raise ValueError(f"noise: expected {k} samples, as many as the estimator takes, got {given}")
        for start in range(0, k, page):
            yield sliced(integrand.noise, slice(start, start + page, share))

    def draw(self, integrand: Integrand, k: int) -> Drawn:
        """The elements of all samples, and counters."""
        return self.push(integrand, joined(list(self.noise(integrand, k))))

    def pages(self, integrand: Integrand, k: int) -> Iterator[Drawn]:
        """The same page by page, so that neither the noise nor the elements of all samples are held at once."""
        # backward needs all elements anyway, and one pass of the net of p makes them
        if torch.is_grad_enabled():
            yield self.draw(integrand, k)
            return
        for noise in self.noise(integrand, k):
            yield self.push(integrand, noise)


@register
@dataclass(frozen=True)
class IID(Design):
    """Independent samples: plain Monte Carlo."""

    @property
    def size(self) -> int:
        return 1


def check_multiple(k: int, block: int, design: Design) -> None:
    if k % block:
        raise ValueError(f"k: expected a multiple of {block}, the block of {design!r}, got {k}")


def map_noise(integrand: Integrand, noise: Noise, fn: Callable[[tuple[Any, ...], Rep, Tensor], Tensor]) -> Noise:
    """fn(path, rep, tensor) on every tensor of the noise."""

    def at(path: tuple[Any, ...], rep: Rep) -> Tensor:
        eps = noise
        for key in path:
            eps = eps[key]
        return fn(path, rep, eps)

    return build(integrand.p.noise_rep(integrand.x), at)


def paths(spec: Any) -> list[tuple[Any, ...]]:
    return list(leaves(spec))


def is_other(path: tuple[Any, ...], chosen: Container[Group]) -> bool:
    """Whether the noise at this path belongs to a factor that is neither among the chosen nor trivial."""
    return any(isinstance(key, Group) and key not in chosen and bool(key.noise_slots) for key in path)


def repeat(tensor: Tensor, times: int) -> Tensor:
    """Every row `times` times in a row: (J, ...) -> (J times, ...)."""
    return tensor.unsqueeze(1).expand(-1, times, *tensor.shape[1:]).flatten(0, 1)


def exchange(g: Element, factor: Group, part: Element) -> Element:
    """g with the part of one factor exchanged."""
    if g.group == factor:
        return part
    return ProductElement(g.group, {f: part if f == factor else g[f] for f in g.group.factors})
