"""Weighted frames of O, SO, E and SE: exact and continuous averages, since weights vanish where a frame would jump."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from probsym.distributions.base import EquivariantDistribution, Noise, Support, draw_options
from probsym.distributions.frames.columns import oriented
from probsym.distributions.frames.noise import preference_rep, preference_shape
from probsym.distributions.geometry import centred, centroid, exists, is_point
from probsym.groups import Element, Group
from probsym.groups.orthogonal import in_space, turned_axes
from probsym.groups.permutation import LARGEST_LIST
from probsym.groups.whole import positive
from probsym.kernels.orthonormal import lacks_columns
from probsym.kernels.values import readable
from probsym.members import register
from probsym.nets.rounding import NOISE
from probsym.reps import Inputs, Rep

# Powers in the typical size of a Gram determinant, sum q^5 / sum q^4: close to the largest, smooth, never above it.
LARGE = 5


@dataclass(frozen=True, eq=False)
class _Tuples:
    """All tuples of d - 1 columns (T of them: M^(d-1), repeated columns included) with their weights.

    Args:
        columns: points about the origin, or vectors (B, D, M), zero where there is none.
        index: the columns of each tuple (T, d - 1).
        weight: (B, T), sums to one.
        degenerate: (B,), where no tuple determines a pose: weights are equal, and what is missing is drawn.
        unsure: (B,), where the rounding of the coordinates turns every pose noticeably.
        origin: (B, D), or None.
    """

    columns: Tensor
    index: Tensor
    weight: Tensor
    degenerate: Tensor
    unsure: Tensor
    origin: Tensor | None


@register
class WeightedFrame(EquivariantDistribution):
    """A pose for each tuple of points, weighted so that the average is a continuous function of the input.

        phi(x) = sum_T w_T(x) g_T f(g_T^-1 x),      g_T = Gram-Schmidt of the d - 1 points of T about the centroid

        w_T = max(q_T / q - threshold, 0)^2, normalised,   q_T = Gram determinant of T,   q = sum_T q_T^5 / sum_T q_T^4

    No single pose moves continuously with all inputs, and averages over a few of equal weight, such as `Frame`, jump
    next to symmetric shapes (arXiv 2402.16077). Here a pose jumps only where its tuple becomes dependent (a point at
    the centroid, two in line with it), and there q_T, and with it the weight, is zero. The weights are continuously
    differentiable, so energies are smooth and forces are their exact gradients.

    Tuples with less than `threshold` of the typical large q have weight zero and are not evaluated. For SO and SE each
    tuple gives one pose, for O and E two: the last axis takes both signs.

    **Cost.** M^(d-1) tuples of M points are looked at, pairs in 3-d. Of random clouds of 8, 20 and 50 points in 3-d
    10, 31 and 87 pairs count on average, one evaluation of the model each (two for O and E). All points of all
    arguments count; without points all vectors do.

    **Where it is not exact.** Collinear points in 3-d (in d dimensions, points that span less than d - 1) have
    rotations that leave them alone. Their poses are completed at random, `samples` of them, and the estimate has a
    standard error; the average is not continuous there, which no weights could achieve. Next to it, poses move as fast
    as the cloud bends. Where rounding decides, the standard error is infinite.

    About an axis of space (`about="z"`) the poses are those of the points as seen along it, one for each point.

    Sampled, it works beside a permuted axis too, since the tuples have no order: `WeightedFrame(space) * Haar(nodes)`.

    Args:
        group: O(d), SO(d), E(d) or SE(d), with d at least 2.
        threshold: in [0, 1); larger is cheaper, smaller is smoother.
        samples: poses that are drawn for an input that determines none.

    Raises:
        ValueError: another group, `threshold` or `samples` out of range; at the call, more than 40,320 tuples.

    >>> import probsym as ps
    >>> space = ps.SE(3)
    >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(15, 1))
    >>> phi = ps.symmetrize(net, ps.Rep(None, space), ps.Rep(), ps.WeightedFrame(space)).eval()
    >>> pos = torch.randn(2, 5, 3)
    >>> estimate = phi.estimate(pos)
    >>> estimate.stderr.tolist()
    [[0.0], [0.0]]
    """

    default_samples = (None, None)
    has_enumerate_support = True

    def __init__(self, group: Group, threshold: float = 0.5, samples: int = 16) -> None:
        super().__init__(group)
        factors: tuple[Any, ...] = group.factors
        if len(factors) != 1 or not factors[0].isometric or factors[0].dim < 2:
            raise ValueError(
                f"group: expected one of O(d), SO(d), E(d) and SE(d) with d at least 2, got {group!r}; multiply "
                "distributions for further factors"
            )
        if not 0 <= threshold < 1:
            raise ValueError(f"threshold: expected a number of at least 0 and less than 1, got {threshold!r}")
        self.space = factors[0]
        self.turned = len(turned_axes(self.space))  # dimensions in which it turns, two about an axis of space
        self.threshold = float(threshold)
        self.samples = positive("samples", samples)

    def describe(self) -> dict[str, Any]:
        """The arguments of the constructor, for `probsym.save`."""
        return {"group": self.group, "threshold": self.threshold, "samples": self.samples}

    def extra_repr(self) -> str:
        return f"{self.group!r}, threshold={self.threshold}, samples={self.samples}"

    # ---------------------------------------------------------------- the exact average

    def support(self, x: Inputs, generator: torch.Generator | None = None) -> Support:
        tuples = self._tuples(x)

        # 1. Of an input that determines no pose a few tuples are enough.
        weight = tuples.weight
        first = (weight > 0).cumsum(1) <= self.samples
        weight = torch.where(tuples.degenerate[:, None] & ~first, 0.0, weight)
        weight = weight / weight.sum(1, keepdim=True)

        # 2. Tuples of weight zero are left out, as far as all inputs do without.
        listed = torch.arange(weight.shape[1], device=x.device).expand_as(weight)
        if x.readable and readable(weight) and x.count:
            active = weight.detach() > 0
            most = int(active.sum(1).max())
            listed = active.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :most]
            weight = weight.gather(1, listed)
        places = listed.T  # (M, B)

        # 3. Their poses. The noise matters where a tuple is dependent, and of O and E for the sign of the last axis.
        options = draw_options(x, generator)
        fallback = torch.randn(*places.shape, self.space.dim, self.space.dim, **options)
        element = self._poses(x, tuples, tuples.index[places], fallback)
        weight = weight.T
        draws = (weight > 0).sum(0)
        if not self.space.special:
            element = _with_mirrored(element)
            weight = torch.cat([weight, weight]) / 2

        diagnostics = {"degenerate": tuples.degenerate.sum(), "unsure": tuples.unsure.sum()}
        return Support(element, weight, ~tuples.degenerate, diagnostics, tuples.unsure, draws)

    # ---------------------------------------------------------------- samples

    def noise(self, x: Inputs, shape: tuple[int, ...] = (), generator: torch.Generator | None = None) -> Noise:
        """ "fallback" completes poses; "choice" has Gumbel noise for each column, which moves as the columns do."""
        options = draw_options(x, generator)
        dim = self.space.dim
        fallback = torch.randn(*shape, x.count, dim, dim, **options)
        choice: dict[str, Tensor] = {}
        for leaf in self._leaves(x):
            uniform = torch.rand(*shape, *preference_shape(leaf, self.space), **options)
            least = torch.finfo(uniform.dtype).tiny
            choice[leaf.name] = -torch.log(-torch.log(uniform.clamp(least, 1 - torch.finfo(uniform.dtype).eps)))
        return {"fallback": fallback, "choice": choice}

    def noise_rep(self, x: Inputs) -> Any:
        choice = {leaf.name: preference_rep(leaf, self.space) for leaf in self._leaves(x)}
        return {"fallback": Rep(*self.space.noise_slots), "choice": choice}

    def transport(self, x: Inputs, noise: Noise, diagnostics: dict[str, Tensor] | None = None) -> Element:
        """One tuple per sample, drawn by its weight: the first column by its share, then the second given the first."""
        tuples = self._tuples(x)
        if diagnostics is not None:
            diagnostics["degenerate"] = tuples.degenerate.sum()
            diagnostics["unsure"] = tuples.unsure.sum()
        fallback = noise["fallback"]
        shape = fallback.shape[:-3]
        count = tuples.columns.shape[-1]
        positions = self.turned - 1
        gumbel = self._gumbel(x, noise["choice"], shape)  # (K, B, M, D)

        # The weights of tuples that begin with the columns chosen so far, (K, B, M, ..., M): one axis less each time.
        table = tuples.weight.detach().reshape(x.count, *[count] * positions).expand(*shape, *[-1] * (positions + 1))
        chosen: list[Tensor] = []
        for position in range(positions):
            share = table.reshape(*shape, x.count, count, count ** (positions - 1 - position)).sum(-1)
            column = (share.log() + gumbel[..., position]).argmax(-1)  # (K, B)
            chosen.append(column)
            picked = column.reshape(*column.shape, *[1] * (table.ndim - column.ndim))
            table = table.take_along_dim(picked, len(shape) + 1).squeeze(len(shape) + 1)
        return self._poses(x, tuples, torch.stack(chosen, -1), fallback)

    def _gumbel(self, x: Inputs, choice: dict[str, Tensor], shape: tuple[int, ...]) -> Tensor:
        """The noise of all columns (*K, B, M, D), in the order of `_tuples`."""
        parts: list[Tensor] = []
        for leaf in self._leaves(x):
            value = choice[leaf.name]
            if leaf.rep.ragged is not None:
                value = x.layouts[leaf.rep.ragged].pad(value, len(shape))
            columns = math.prod(value.shape[len(shape) + 1 : -1])
            parts.append(value.reshape(*shape, x.count, columns, self.turned))
        joined = torch.cat(parts, -2)
        missing = self.turned - 1 - joined.shape[-2]
        if missing > 0:
            joined = torch.cat([joined, joined.new_zeros(*shape, x.count, missing, self.turned)], -2)
        return joined

    # ---------------------------------------------------------------- tuples and their poses

    def _leaves(self, x: Inputs) -> list[Any]:
        """The arguments whose columns orient: those with points, else those with vectors."""
        leaves = oriented(x, self.space)
        points = [leaf for leaf in leaves if is_point(leaf, self.space)]
        chosen = points or leaves
        if not chosen:
            raise ValueError(f"WeightedFrame: no input holds points or vectors of {self.space!r}: nothing to orient by")
        return chosen

    def _tuples(self, x: Inputs) -> _Tuples:
        # 1. The columns of all arguments, about the origin.
        origin = centroid(x, self.space) if self.space.anchored else None
        parts: list[Tensor] = []
        present_parts: list[Tensor] = []
        eps = torch.finfo(x.dtype).eps
        for leaf in self._leaves(x):
            value, present = centred(x, leaf, self.space, origin)
            if self.space.kept_axes:
                value = value[:, list(turned_axes(self.space))]
            parts.append(value)
            present_parts.append(exists(value, present))
            if leaf.value.is_floating_point():
                eps = max(eps, torch.finfo(leaf.value.dtype).eps)
        columns = torch.cat(parts, -1)
        present = torch.cat(present_parts, -1)

        # 2. Too few for one tuple: columns of zeros, which determine nothing.
        positions = self.turned - 1
        missing = positions - columns.shape[-1]
        if missing > 0:
            columns = torch.cat([columns, columns.new_zeros(*columns.shape[:-1], missing)], -1)
            present = torch.cat([present, present.new_zeros(*present.shape[:-1], missing)], -1)
        count = columns.shape[-1]
        if count**positions > LARGEST_LIST:
            raise ValueError(
                f"WeightedFrame: {count} points in {self.turned} dimensions make {count**positions} tuples, more "
                f"than {LARGEST_LIST}: use Haar, or a Frame, which need none"
            )

        # 3. Heights: how far each point of a tuple lies from the span of those before it.
        size = columns.detach().abs().amax((1, 2))
        scale = torch.where(size > 0, size, 1.0)
        heights = _heights((columns / scale[:, None, None]).mT, positions)  # (B, T, d - 1), squared

        # 4. A height that rounding of the coordinates may have made is none.
        with torch.no_grad():
            far = size if origin is None else size + origin.abs().amax(-1)
            rounding = (NOISE * eps * far / scale).clamp_max(1.0)
            index = _indices(count, positions, x.device)
            # nor is such a column a direction
            none = torch.linalg.vector_norm(columns.detach() / scale[:, None, None], dim=1) <= rounding[:, None]
        columns = columns.masked_fill(none[:, None], 0)
        with torch.no_grad():
            chosen = columns[..., index].permute(0, 2, 1, 3)  # (B, T, D, d - 1)
            lowest = heights.amin(-1).sqrt()
            lacking = (lowest <= rounding[:, None]) | lacks_columns(chosen, special=True)
            degenerate = lacking.all(-1)
            unsure = ~degenerate & (lowest.masked_fill(lacking, 0).amax(-1) < 2 * rounding)

        # 5. Weights: of the Gram determinants, relative to what is typical of the large ones.
        gram = heights.prod(-1).masked_fill(lacking, 0)
        largest = gram.detach().amax(-1, keepdim=True)
        gram = gram / torch.where(largest > 0, largest, 1.0)
        fourth = gram.pow(LARGE - 1).sum(-1, keepdim=True)
        typical = gram.pow(LARGE).sum(-1, keepdim=True) / torch.where(fourth > 0, fourth, 1.0)
        ratio = gram / torch.where(typical > 0, typical, 1.0)
        weight = (ratio - self.threshold).clamp_min(0).square()

        # 6. Equal ones where nothing is determined: of the tuples that exist, else of all.
        existing = present[:, index].all(-1)
        existing = existing | ~existing.any(-1, keepdim=True)
        weight = torch.where(degenerate[:, None], existing.to(weight.dtype), weight)
        weight = weight / weight.sum(-1, keepdim=True)
        return _Tuples(columns, index, weight, degenerate, unsure, origin)

    def _poses(self, x: Inputs, tuples: _Tuples, index: Tensor, fallback: Tensor) -> Element:
        """Elements (*K, B) of tuples by the numbers (*K, B, d - 1) of their columns."""
        columns = tuples.columns.expand(*index.shape[:-2], *tuples.columns.shape)
        picked = index.unsqueeze(-2).expand(*index.shape[:-1], self.turned, index.shape[-1])
        z: Any = in_space(columns.gather(-1, picked), self.space)
        if tuples.origin is not None:
            z = (tuples.origin, z)
        return x.stored(self.space).project(z, fallback)


def _indices(count: int, positions: int, device: torch.device) -> Tensor:
    """The columns of every tuple (M^P, P), the last position fastest."""
    number = torch.arange(count**positions, device=device)
    index: list[Tensor] = []
    for position in range(positions):
        index.append(number // count ** (positions - 1 - position) % count)
    return torch.stack(index, -1)


def _heights(points: Tensor, positions: int) -> Tensor:
    """Squared distances of each point of a tuple from the span of those before it: (B, M, D) to (B, M^P, P)."""
    batch, count, dim = points.shape
    bases: list[Tensor] = []  # unit vectors of the prefix of a tuple, each (B, T, D)
    heights = points.new_ones(batch, 1, 0)
    for _ in range(positions):
        # 1. Every prefix is followed by every point.
        prefixes = heights.shape[1]
        rest = points[:, None].expand(batch, prefixes, count, dim)
        for basis in bases:
            along = (rest * basis[:, :, None]).sum(-1, keepdim=True)
            rest = rest - along * basis[:, :, None]
        square = rest.square().sum(-1)  # (B, T, M)

        # 2. The longer tuples become the prefixes of the next position.
        earlier = heights[:, :, None].expand(-1, -1, count, -1)
        heights = torch.cat([earlier, square.unsqueeze(-1)], -1).flatten(1, 2)
        safe = torch.where(square > 0, square, 1.0).rsqrt()
        unit = (rest * safe.unsqueeze(-1)).flatten(1, 2)
        bases = [basis[:, :, None].expand(-1, -1, count, -1).flatten(1, 2) for basis in bases]
        bases.append(unit)
    return heights


def _with_mirrored(element: Any) -> Element:
    """The elements along the first batch dim, and the same with the other sign of the last axis that is turned."""
    signs = torch.ones_like(element.matrix[..., :1, :])
    signs[..., turned_axes(element.group)[-1]] = -1
    mirrored = element.matrix * signs
    doubled = element.map(lambda tensor, _: torch.cat([tensor, tensor]))
    return replace(doubled, matrix=torch.cat([element.matrix, mirrored]))
