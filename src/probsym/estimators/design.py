"""What a design is, and how it takes noise and elements apart."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from probsym.distributions import Noise
from probsym.estimators.base import Integrand
from probsym.groups import Element, Group
from probsym.groups.base import ProductElement
from probsym.reps import Rep, build, leaves

Drawn = tuple[Element, int, dict[str, Tensor]]


class Design(ABC):
    """How the k samples of one estimate depend on one another: in blocks, which are independent.

    Noise that is given from outside has the sample shape (k,), as for independent samples: cosets and pairs use the
    first of each block, the other designs use it as it is.
    """

    @property
    def size(self) -> int | None:
        """Samples in a block, where neither the group nor the data matters."""
        return None

    @abstractmethod
    def draw(self, integrand: Integrand, k: int) -> Drawn:
        """Elements (K, B) in blocks of consecutive samples, the size of a block, and counters.

        Raises:
            ValueError: the design fits no factor of the group, or k is not a multiple of the block.
        """

    def pages(self, integrand: Integrand, k: int) -> Iterator[Drawn]:
        """The same part by part, where the samples need not be held together."""
        yield self.draw(integrand, k)


@dataclass(frozen=True)
class Independent(Design):
    """Independent samples: plain Monte Carlo."""

    @property
    def size(self) -> int:
        return 1

    def draw(self, integrand: Integrand, k: int) -> Drawn:
        g, aux = integrand.draw(k)
        return g, 1, aux

    def pages(self, integrand: Integrand, k: int) -> Iterator[Drawn]:
        # backward needs all elements anyway, and one pass of the net of p makes them
        if torch.is_grad_enabled():
            yield self.draw(integrand, k)
            return
        count = k if integrand.noise is None else noise_count(integrand, integrand.noise)
        for g, aux in integrand.pages(count):
            yield g, 1, aux


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


def noise_count(integrand: Integrand, noise: Noise) -> int:
    """Leading size K of the noise."""
    eps = noise
    for key in next(iter(paths(integrand.p.noise_rep(integrand.x))), ()):
        eps = eps[key]
    return len(eps)


def is_other(path: tuple[Any, ...], chosen: Container[Group]) -> bool:
    """Whether the noise at this path belongs to a factor that is neither among the chosen nor trivial."""
    return any(isinstance(key, Group) and key not in chosen and bool(key.ambient) for key in path)


def repeat(tensor: Tensor, times: int) -> Tensor:
    """Every row `times` times in a row: (J, ...) -> (J times, ...)."""
    return tensor.unsqueeze(1).expand(-1, times, *tensor.shape[1:]).flatten(0, 1)


def exchange(g: Element, factor: Group, part: Element) -> Element:
    """g with the part of one factor exchanged."""
    if g.group == factor:
        return part
    return ProductElement(g.group, {f: part if f == factor else g[f] for f in g.group.factors})
