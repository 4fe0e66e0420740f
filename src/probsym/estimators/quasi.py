"""Designs through the noise: antithetic pairs, scrambled Sobol points, strata."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor
from torch.quasirandom import SobolEngine

from probsym.distributions import Noise
from probsym.distributions.base import samples_of
from probsym.estimators.base import Integrand, positive
from probsym.estimators.design import Design, Drawn, map_noise, paths, repeat
from probsym.members import register
from probsym.reps import Rep

BITS = SobolEngine.MAXBIT


@register
@dataclass(frozen=True)
class Antithetic(Design):
    """Pairs of noise (eps, -eps), which have the same law.

    Exact for functions that are odd in the noise: O(d) turns into g and -g, SO(3) into g and g times a half turn, the
    scores of S_n into both orders.
    """

    @property
    def size(self) -> int:
        return 2

    def sharing(self, integrand: Integrand) -> int:
        return 2

    def push(self, integrand: Integrand, noise: Noise) -> Drawn:
        return integrand.push(map_noise(integrand, noise, lambda path, rep, eps: _mirrored(eps)))


def _mirrored(eps: Tensor) -> Tensor:
    """eps_1, -eps_1, eps_2, -eps_2, ..."""
    sign = torch.tensor([1, -1], device=eps.device, dtype=eps.dtype).repeat(len(eps))
    return repeat(eps, 2) * sign.reshape(-1, *[1] * (eps.ndim - 1))


class _Uniform(Design):
    """Standard normal noise from evenly spread points of the unit cube, one cube an input.

    Every point alone is uniform, so each sample has the law of p and the mean is unbiased for any p. Points are not
    spread out evenly after a rotation of the noise, so the spread of the estimate, though not its mean, depends on the
    pose of the input.
    """

    @property
    @abstractmethod
    def block(self) -> int:
        """Points in a block."""

    @property
    def size(self) -> int:
        return self.block

    @abstractmethod
    def points(
        self, blocks: int, count: int, dim: int, generator: torch.Generator | None, device: torch.device
    ) -> Tensor:
        """(J * block, B, dim) in (0, 1), float64, independent between blocks."""

    def arrange(self, integrand: Integrand, noise: Noise) -> Noise:
        """The noise with its entries exchanged for evenly spread ones."""
        x, k, sizes = integrand.x, samples_of(noise), {}
        for path in paths(integrand.p.noise_rep(x)):
            sizes[path] = 0
        map_noise(integrand, noise, lambda path, rep, eps: sizes.update({path: _entries(integrand, rep, eps)}) or eps)
        total = min(sum(sizes.values()), SobolEngine.MAXDIM)
        if not total:
            return noise
        z = _normal(self.points(k // self.block, x.count, total, integrand.generator, x.device))
        first = dict(zip(sizes, accumulate([0, *sizes.values()]), strict=False))

        def exchanged(path: tuple[object, ...], rep: Rep, eps: Tensor) -> Tensor:
            start, stop = first[path], first[path] + sizes[path]
            if not sizes[path] or stop > total:
                return eps
            rows = z[..., start:stop].to(eps.dtype)
            if rep.ragged is None:
                return rows.reshape(eps.shape)
            layout = x.layouts[rep.ragged]
            return layout.unpad(rows.reshape(k, x.count, layout.padded_size, *eps.shape[2:]), 1)

        return map_noise(integrand, noise, exchanged)


def _entries(integrand: Integrand, rep: Rep, eps: Tensor) -> int:
    """Numbers that one input draws; 0 for noise that stays as it is: trivial, or on the edges of a ragged batch."""
    if rep.ragged is None:
        return math.prod(eps.shape[2:]) if eps.shape[2:] else 0
    return 0 if rep.on_edges else integrand.x.layouts[rep.ragged].padded_size * math.prod(eps.shape[2:])


def _normal(u: Tensor) -> Tensor:
    tiny = 2.0 ** -(BITS + 2)
    return torch.special.ndtri(u.clamp(tiny, 1 - tiny))


@register
@dataclass(frozen=True)
class Sobol(_Uniform):
    """Scrambled Sobol points (Owen 1998; torch.quasirandom), turned into noise by the inverse normal distribution.

    Each block has a random linear scramble of its own, and each input a digital shift of its own. Noise of more than
    21,201 entries an input stays random beyond them.

    Args:
        block: points of one scramble, best a power of two; the more, the better, but the fewer independent blocks.
    """

    block: int = 32

    def __post_init__(self) -> None:
        object.__setattr__(self, "block", positive("block", self.block))

    def points(
        self, blocks: int, count: int, dim: int, generator: torch.Generator | None, device: torch.device
    ) -> Tensor:
        seeds = torch.randint(2**31 - 1, (blocks,), generator=generator, device=device).tolist()
        drawn = [SobolEngine(dim, scramble=True, seed=seed).draw(self.block, dtype=torch.float64) for seed in seeds]
        digits = (torch.stack(drawn).to(device) * 2**BITS).long()
        shift = torch.randint(2**BITS, (blocks, 1, count, dim), generator=generator, device=device)
        return (((digits[:, :, None] ^ shift) + 0.5) / 2**BITS).flatten(0, 1)


@register
@dataclass(frozen=True)
class Stratified(_Uniform):
    """Latin hypercubes (McKay 1979): in a block of m points every entry of the noise falls once into each m-th.

    Args:
        block: m.
    """

    block: int = 16

    def __post_init__(self) -> None:
        object.__setattr__(self, "block", positive("block", self.block))

    def points(
        self, blocks: int, count: int, dim: int, generator: torch.Generator | None, device: torch.device
    ) -> Tensor:
        shape = (blocks, self.block, count, dim)
        order, place = torch.rand(2, *shape, generator=generator, dtype=torch.float64, device=device)
        return ((order.argsort(1) + place) / self.block).flatten(0, 1)
