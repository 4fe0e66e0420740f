"""An ablation of the paper: a learned p(g|x) whose noise is drawn once and for all."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

import probsym as ps
from probsym.distributions import Noise
from probsym.distributions.base import joined
from probsym.groups import Element
from probsym.reps import Inputs
from probsym.saving import register

from .batches import stream


@register(name="experiments/FixedNoise")
class FixedNoise(ps.EquivariantDistribution):
    """p with the same noise at every call, so that the average is over the same k poses for ever.

    It is the same for every input too, or every input has its own if `index` names the argument that numbers them, as
    in the published code.

    Such a model is not equivariant, not even in distribution: relabelling the nodes does not relabel the noise
    (arXiv 2306.02866, "PS (fixed noise)"). Ties are broken by fixed noise too. It is drawn on the CPU, so that a model
    has the same noise on every device, and each sample by itself, so that k samples begin those of any larger k.

    Args:
        p: What the noise goes into. seed: Of the noise. index: Name of an argument (B,) that numbers the inputs.
    """

    def __init__(self, p: ps.EquivariantDistribution, seed: int = 0, index: str | None = None) -> None:
        super().__init__(p.group)
        self.p = p
        self.seed = seed
        self.index = index

    def noise(self, x: Inputs, shape: tuple[int, ...] = (), generator: torch.Generator | None = None) -> Noise:
        # 1. One input on the CPU, as large as the largest: it tells the shapes of the noise.
        one = x.map(lambda leaf: leaf.value[:1].cpu())
        layouts = {axis: type(layout)(layout.size) for axis, layout in x.layouts.items()}
        one = Inputs(one.values, one.signature, layouts)

        # 2. Its noise, sample by sample, and the same for every input.
        if self.index is None:
            drawn = self._draw(one, math.prod(shape), self.seed)
            return _spread(drawn, shape, x.count, x.device)

        # 3. Or that of each input, one beside the other.
        of_inputs = []
        for number in x.kwargs[self.index].tolist():
            of_inputs.append(self._draw(one, math.prod(shape), stream(self.seed, "fixed noise", int(number))))
        return _beside(of_inputs, shape, x.device)

    def _draw(self, one: Inputs, count: int, seed: int) -> Noise:
        """`count` samples for one input, (count, 1, ...)."""
        generator = torch.Generator().manual_seed(seed)
        samples = []
        for _ in range(count):
            samples.append(self.p.noise(one, (1,), generator))
        return joined(samples)

    def noise_pages(
        self, x: Inputs, k: int, generator: torch.Generator | None = None, page: int = 0
    ) -> Iterator[Noise]:
        """All of it: drawn page by page, every page would be the first."""
        yield self.noise(x, (k,), generator)

    def noise_rep(self, x: Inputs) -> Any:
        return self.p.noise_rep(x)

    def transport(self, x: Inputs, noise: Noise, diagnostics: dict[str, Tensor] | None = None) -> Element:
        return self.p.transport(x, noise, diagnostics)


def _spread(noise: Any, shape: tuple[int, ...], count: int, device: torch.device) -> Any:
    """The noise (K, 1, ...) of one input, given to `count` inputs on a device: (*shape, count, ...)."""
    if isinstance(noise, Tensor):
        trailing = noise.shape[2:]
        for_all = noise.to(device, non_blocking=True).expand(-1, count, *trailing)
        return for_all.reshape(*shape, count, *trailing)
    return {key: _spread(value, shape, count, device) for key, value in noise.items()}


def _beside(noises: list[Any], shape: tuple[int, ...], device: torch.device) -> Any:
    """The noises (K, 1, ...) of several inputs as one: (*shape, B, ...)."""
    first = noises[0]
    if isinstance(first, Tensor):
        together = torch.cat(noises, 1).to(device, non_blocking=True)
        return together.reshape(*shape, *together.shape[1:])
    return {key: _beside([noise[key] for noise in noises], shape, device) for key in first}
