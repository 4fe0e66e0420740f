"""Designs through the noise: antithetic pairs, scrambled Sobol points, strata."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.quasirandom import SobolEngine

from probsym.distributions import EquivariantDistribution, Noise
from probsym.distributions.base import samples_of
from probsym.estimators.design import Design, map_noise, noise_paths, repeat
from probsym.groups import Element
from probsym.groups.whole import positive
from probsym.members import register
from probsym.reps import Inputs, Rep
from probsym.reps.containers import Path

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

    def samples_per_draw(self, p: EquivariantDistribution, x: Inputs) -> int:
        return 2

    def transport(
        self, p: EquivariantDistribution, x: Inputs, noise: Noise, diagnostics: dict[str, Tensor] | None = None
    ) -> Element:
        pairs = map_noise(p, x, noise, lambda path, rep, eps: _mirrored(eps))
        return p.transport(x, pairs, diagnostics)


def _mirrored(eps: Tensor) -> Tensor:
    """eps_1, -eps_1, eps_2, -eps_2, ..."""
    sign = torch.tensor([1, -1], device=eps.device, dtype=eps.dtype).repeat(len(eps))
    return repeat(eps, 2) * sign.reshape(-1, *[1] * (eps.ndim - 1))


class UniformPoints(Design):
    """Standard normal noise from evenly spread points of the unit cube, one cube per input.

    Every point alone is uniform, so each sample has the law of p and the mean is unbiased for any p. Points are not
    spread out evenly after a rotation of the noise, so the spread of the estimate, though not its mean, depends on the
    pose of the input.
    """

    @abstractmethod
    def points(
        self, blocks: int, count: int, dim: int, generator: torch.Generator | None, device: torch.device
    ) -> Tensor:
        """(J * size, B, dim) in (0, 1), float64, independent between J blocks."""

    @property
    @abstractmethod
    def size(self) -> int:
        """Points in a block."""

    def arrange(self, p: EquivariantDistribution, x: Inputs, noise: Noise, generator: torch.Generator | None) -> Noise:
        """The noise with its entries exchanged for evenly spread ones."""
        k = samples_of(noise)

        # 1. Which coordinates of the cube belong to which tensor of the noise.
        sizes = dict.fromkeys(noise_paths(p, x), 0)

        def measure(path: Path, rep: Rep, eps: Tensor) -> Tensor:
            sizes[path] = _entries_per_input(x, rep, _parts(eps))
            return eps

        map_noise(p, x, noise, measure)
        first = {}
        dim = 0
        for path, size in sizes.items():
            first[path] = dim
            dim += size
        dim = min(dim, SobolEngine.MAXDIM)
        if dim == 0:
            return noise

        # 2. Normal numbers from the points.
        z = _normal(self.points(k // self.size, x.count, dim, generator, x.device))

        # 3. They take the place of the independent ones.
        def exchange(path: Path, rep: Rep, eps: Tensor) -> Tensor:
            start = first[path]
            stop = start + sizes[path]
            if start == stop or stop > dim:
                return eps
            parts = _parts(eps)
            rows = z[..., start:stop].to(parts.dtype)
            if rep.ragged is None:
                rows = rows.reshape(parts.shape)
            else:
                layout = x.layouts[rep.ragged]
                rows = layout.unpad(rows.reshape(k, x.count, layout.padded_size, *parts.shape[2:]), 1)
            if eps.is_complex():
                return torch.view_as_complex(rows * 0.5**0.5)  # as torch.randn: the mean of |eps|^2 is one
            return rows

        return map_noise(p, x, noise, exchange)


def _parts(eps: Tensor) -> Tensor:
    """The real numbers that were drawn: of complex ones both parts, along a new last axis."""
    if eps.is_complex():
        return torch.view_as_real(eps)
    return eps


def _entries_per_input(x: Inputs, rep: Rep, eps: Tensor) -> int:
    """Numbers that one input draws; 0 for noise that stays as it is: trivial, or on the edges of a ragged batch."""
    trailing = eps.shape[2:]
    if rep.ragged is None:
        return math.prod(trailing) if trailing else 0
    if rep.on_edges:
        return 0
    return x.layouts[rep.ragged].padded_size * math.prod(trailing)


def _normal(u: Tensor) -> Tensor:
    """Standard normal numbers from uniform ones, whose 0 and 1 would be infinite."""
    tiny = 2.0 ** -(BITS + 2)
    return torch.special.ndtri(u.clamp(tiny, 1 - tiny))


@register
@dataclass(frozen=True)
class Sobol(UniformPoints):
    """Scrambled Sobol points (Owen 1998; torch.quasirandom), turned into noise by the inverse normal distribution.

    Each block has a random linear scramble of its own, and each input a digital shift of its own. Noise of more than
    21,201 entries per input stays random beyond them.

    Args:
        block: points of one scramble, best a power of two; the more, the better, but the fewer independent blocks.
    """

    block: int = 32

    def __post_init__(self) -> None:
        object.__setattr__(self, "block", positive("block", self.block))

    @property
    def size(self) -> int:
        return self.block

    def points(
        self, blocks: int, count: int, dim: int, generator: torch.Generator | None, device: torch.device
    ) -> Tensor:
        seeds = torch.randint(2**31 - 1, (blocks,), generator=generator, device=device).tolist()
        drawn = []
        for seed in seeds:
            engine = SobolEngine(dim, scramble=True, seed=seed)
            drawn.append(engine.draw(self.block, dtype=torch.float64))
        digits = (torch.stack(drawn).to(device) * 2**BITS).long()
        shift = torch.randint(2**BITS, (blocks, 1, count, dim), generator=generator, device=device)
        return (((digits[:, :, None] ^ shift) + 0.5) / 2**BITS).flatten(0, 1)


@register
@dataclass(frozen=True)
class Stratified(UniformPoints):
    """Latin hypercubes (McKay 1979): in a block of m points every entry of the noise falls once into each m-th.

    Args:
        block: m.
    """

    block: int = 16

    def __post_init__(self) -> None:
        object.__setattr__(self, "block", positive("block", self.block))

    @property
    def size(self) -> int:
        return self.block

    def points(
        self, blocks: int, count: int, dim: int, generator: torch.Generator | None, device: torch.device
    ) -> Tensor:
        shape = (blocks, self.block, count, dim)
        order, place = torch.rand(2, *shape, generator=generator, dtype=torch.float64, device=device)
        return ((order.argsort(1) + place) / self.block).flatten(0, 1)
