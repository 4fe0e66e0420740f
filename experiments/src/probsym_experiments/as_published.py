"""The paper's p(g|x) as the code that was published with it has it, to the letter."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

import probsym as ps
from probsym.distributions import NetDistribution
from probsym.distributions.base import draw_options
from probsym.distributions.diagnostics import gathered, lazily, merged
from probsym.reps import Inputs, Leaf, Rep
from probsym.saving import register

LAWS = dict.fromkeys(("uniform", "normal"))
TIES = 1e-6  # what is added to scores against ties, and to columns against dependent ones
LEAST_NORM = 1e-6  # of scores


@register(name="experiments/AsPublished")
class AsPublished(NetDistribution):
    """p(g|x) of github.com/jw9730/lps (arXiv 2306.02866, section 2.2), with noise of absolute size at the input.

        s, V  = net(x + scale eps)                     eps uniform on [0, 1], or standard normal
        order = that of s + t, downwards               t uniform on [0, 1e-6], so that no two scores are equal
        pose  = Gram-Schmidt(V + 1e-6 eps')            eps' standard normal; over SO its first column is turned over
                                                       where the determinant is negative

    The gradient of an order is that of the soft permutation of (s + t) / |s + t|. `ps.Learned(noise="input")` differs:
    its noise is Gaussian, relative to the size of the points and centred, and its scores are as the net gives them.

    Args:
        net: Called like the model; gives scores (B, N), and columns (B, D, D) by factor if there are two.
        group: S_n, O or SO, or a product of them.
        inputs: Names of the arguments to which noise is added.
        law: uniform or normal. Uniform noise does not turn with space, so it is for arguments of nodes alone.
        scale: Of the noise; 0 is none, so that one pose is left (the paper's canonicalization).
        relaxation: How orders get a gradient.

    Raises:
        ValueError: an unknown law, a negative scale; at the call, uniform noise for an argument in space.

    The entropy among the diagnostics is a mean over the nodes of each input, then over inputs.
    """

    def __init__(
        self,
        net: nn.Module,
        group: ps.Group,
        inputs: Sequence[str],
        law: str,
        scale: float,
        relaxation: ps.Relaxation,
    ) -> None:
        super().__init__(net, group, relaxation)
        if law not in LAWS:
            raise ValueError(f"law: expected one of {', '.join(LAWS)}; got {law!r}")
        if not scale >= 0:
            raise ValueError(f"scale: expected a number of at least zero; got {scale}")
        for factor in group.factors:
            if factor.anchored:
                raise ValueError(f"group: expected S_n, O or SO, with data about the origin; got {factor!r}")
        self.inputs = tuple(inputs)
        self.law = law
        self.scale = scale

    @property
    def default_samples(self) -> tuple[int | None, int | None]:  # type: ignore[override]
        """Without noise one pose is all that there is."""
        if not self.scale:
            return 1, 1
        return 1, 10

    def feature_noise(self, x: Inputs, shape: tuple[int, ...] = (), generator: torch.Generator | None = None) -> Any:
        options = draw_options(x, generator)

        # 1. What is added to the inputs.
        inputs = {}
        for name, leaf in self._noisy(x).items():
            if self.law == "uniform":
                inputs[name] = torch.rand(*shape, *leaf.value.shape, **options)
            else:
                inputs[name] = torch.randn(*shape, *leaf.value.shape, **options)

        # 2. What is added to scores and columns.
        features = {}
        for factor, like in self._factor_noise(x, shape, generator).items():
            features[factor] = like
            if factor.feature_kind == "scores":
                features[factor] = torch.rand(like.shape, **options)
        return {"inputs": inputs, "features": features}

    def feature_noise_rep(self, x: Inputs) -> Any:
        inputs = {}
        for name, leaf in self._noisy(x).items():
            moved = [None if slot is None else slot.differences for slot in leaf.rep.slots]
            inputs[name] = Rep(*moved, *[None] * len(leaf.channels))
        return {"inputs": inputs, "features": self._factor_reps()}

    def features(self, x: Inputs, noise: Mapping[str, Mapping[Any, Tensor]]) -> Mapping[ps.Group, Any]:
        # 1. The net sees the inputs with noise, one row a sample and input.
        added: dict[str, Tensor] = {}
        sample = torch.Size()
        for name, leaf in self._noisy(x).items():
            eps = noise["inputs"][name]
            sample = eps.shape[: eps.ndim - leaf.value.ndim]
            added[leaf.name] = self.scale * eps.reshape(math.prod(sample), *leaf.value.shape)
        times = math.prod(sample)

        def noisy(leaf: Leaf) -> Tensor:
            if leaf.name in added:
                return leaf.value + added[leaf.name]
            return leaf.value.expand(times, *leaf.value.shape)

        of_rows = self.net_features(x.fold(noisy, times))

        # 2. Rows become samples. Scores get unit norm and, since ours are sorted upwards, the other sign. Over SO it is
        # the first column that makes the determinant one, where `project` would turn the last.
        z: dict[ps.Group, Any] = {}
        for factor, rows in of_rows.items():
            value = rows.reshape(*sample, x.count, *rows.shape[1:]) + TIES * noise["features"][factor]
            if factor.feature_kind == "scores":
                mask = x.layouts[factor].padded_mask()  # type: ignore[index]
                if mask is not None:
                    value = value.masked_fill(~mask, 0)
                norm = torch.linalg.vector_norm(value, dim=-1, keepdim=True)
                value = -value / norm.clamp_min(LEAST_NORM)
            elif isinstance(factor, ps.SO):
                mirrored = torch.linalg.det(value.detach()) < 0
                first = torch.arange(factor.dim, device=value.device) == 0
                value = torch.where(mirrored[..., None, None] & first, -value, value)
            z[factor] = value
        return z

    def diagnose(self, x: Inputs, z: Mapping[ps.Group, Any]) -> dict[str, Tensor]:
        found = super().diagnose(x, z)
        ordered = [factor for factor in self.group.factors if factor.feature_kind == "scores"]
        if not ordered:
            return found
        relaxation = self.relaxation
        assert isinstance(relaxation, ps.Relaxation)

        def entropy() -> Tensor:
            means = []
            for factor in ordered:
                layout = x.layouts[factor]  # type: ignore[index]
                means.append(relaxation.entropies(z[factor], layout).mean())
            return torch.stack(means).sum()

        return merged(found, gathered({"entropy": lazily(entropy)}))

    def _noisy(self, x: Inputs) -> dict[str, Leaf]:
        """The arguments to which noise is added."""
        chosen = {}
        for name in self.inputs:
            leaf = x.leaves[("kwargs", name)]
            roles = [slot.role for slot, _ in leaf.rep.axes]
            if self.law == "uniform" and ("point" in roles or "vector" in roles):
                raise ValueError(f"law: uniform noise does not turn with space, in which {name!r} lies; use normal")
            chosen[name] = leaf
        return chosen
