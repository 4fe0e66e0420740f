"""Distributions made by a net: the paper's learned p(g|x) and its limit without noise, canonicalization."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from probsym.distributions.base import PAGE, Noise, ProjectedDistribution, Support, draw_options
from probsym.distributions.diagnostics import gathered, lazily, merged
from probsym.distributions.features import check_features
from probsym.distributions.geometry import centred, centroid, is_point, moderate, root, size
from probsym.distributions.relax import Relaxation
from probsym.groups import E, Element, Group, IsometryGroup, Layout, NodeAxis, Permutation, S
from probsym.groups.axis import Nodes
from probsym.groups.euclidean import Point
from probsym.groups.orthogonal import Vector
from probsym.kernels.orthonormal import tolerance
from probsym.kernels.values import differentiated, may_peek, traced, undisturbed
from probsym.members import register
from probsym.nets.rounding import NOISE
from probsym.reps import Inputs, Leaf, Rep


class NetDistribution(ProjectedDistribution):
    """Shared by `Learned` and `Canonical`: a net called like the model, and its straight-through gradient."""

    def __init__(self, net: nn.Module, group: Group, relaxation: Relaxation) -> None:
        super().__init__(group)
        if not isinstance(net, nn.Module):
            raise TypeError(f"net: expected an nn.Module that is called like the model, got {type(net).__name__}")
        self.net = net
        self.relaxation = relaxation

    def net_features(self, x: Inputs) -> dict[Group, Any]:
        """The net's ambient features by factor, in float32 or better also under autocast.

        Scores come from inputs without gradient: sorting is piecewise constant, so the exact derivative of an output
        with respect to the inputs (a force) has no part through it, and the relaxed one must not pollute it.
        """
        found = self._call_net(x)
        sorted_by = [f for f in self.group.factors if isinstance(f, S)]
        if sorted_by and any(differentiated(leaf.value) for leaf in x.leaves.values()):
            apart = self._call_net(x.map(lambda leaf: leaf.value.detach()))
            found.update({f: apart[f] for f in sorted_by})
        return found

    def _call_net(self, x: Inputs) -> dict[Group, Any]:
        if not getattr(self.net, "reads_only", False):
            x = x.owned()
        with torch.autocast(x.device.type, enabled=False):
            return check_features(self.net(*x.args, **x.kwargs), x, self.group)

    def project(self, x: Inputs, factor: Group, z: Any, fallback: Tensor) -> Element:
        g = super().project(x, factor, z, fallback)
        if isinstance(g, Permutation):
            g = self.relaxation.attach(g, z)
        if self.training and torch.is_grad_enabled():
            self._refuse_lost_gradient(factor, z, g)
        return g

    def _refuse_lost_gradient(self, factor: Group, z: Any, g: Element) -> None:
        """The net of a group whose elements carry no gradient would train for nothing, without a word.

        The features and the element are asked, not the group: features that a net detaches are meant to stay as they
        are, and so is a frozen net.
        """
        features = z[-1] if isinstance(z, tuple) else z
        if not features.requires_grad:
            return
        if any(isinstance(part, Tensor) and part.requires_grad for part in vars(g).values()):
            return
        if not any(parameter.requires_grad for parameter in self.net.parameters()):
            return
        joint = len(self.group.factors) > 1
        detached = f", or let it detach its features of {factor!r}" if joint else ""
        raise ValueError(
            f"net: elements of {factor!r} carry no gradient, so that training would leave the net of {self.brief} as "
            f"it is. Train with distribution='haar' over it instead; or freeze the net with "
            f"requires_grad_(False){detached}; a net that is already trained runs in evaluation mode"
        )

    def degenerate(self, x: Inputs, z: Mapping[Group, Any]) -> Tensor:
        """Inputs (*shape, B) for which the fallback noise decides."""
        flags = [f.degenerate(z[f], x.layouts.get(f)) for f in self.group.factors]  # type: ignore[call-overload]
        return torch.stack(torch.broadcast_tensors(*flags)).any(0)

    def diagnose(self, x: Inputs, z: Mapping[Group, Any]) -> dict[str, Tensor]:
        """`degenerate`: number of inputs with ties; `entropy` of the soft permutations (row plus column, nats).

        Both cost something, the entropy more than the elements themselves. They are computed when they are read, of at
        most 64 samples.
        """
        first = {f: _first(f, z[f], x.layouts.get(f)) for f in self.group.factors}  # type: ignore[call-overload]

        def degenerate() -> Tensor:
            flags = self.degenerate(x, first)
            return flags.reshape(math.prod(flags.shape[:-1]), x.count).any(0).sum()

        def entropy() -> Tensor:
            found = [self.relaxation.entropy(first[f], x.layouts[f]) for f in self.group.factors if isinstance(f, S)]
            return torch.stack(found).sum()

        wanted = {"degenerate": degenerate}
        if any(isinstance(f, S) for f in self.group.factors):
            wanted["entropy"] = entropy
        return gathered({name: compute() if traced() else lazily(compute) for name, compute in wanted.items()})


def _first(factor: Group, value: Any, layout: Layout | None) -> Any:
    """The ambient features of the first samples, of which no more memory is held."""
    if isinstance(value, tuple):
        origin, vectors = value
        return (origin[:PAGE] if origin.ndim > 2 else origin, _first(factor, vectors, layout))
    packed = layout is not None and layout.ragged
    own = (0 if packed else 1) + sum(1 if slot is None else slot.num_axes for slot in factor.noise_slots)
    return value[:PAGE].clone() if value.ndim > own and len(value) > PAGE else value


@register
class Learned(NetDistribution):
    """The paper's p(g|x): noise outsourced through an equivariant net, arXiv 2306.02866, section 2.2.

        g = project(net(x) / |net(x)| + scale eps)    noise="late", one pass of the net an input
        g = project(net(x + scale |x| eps))           noise="input", as in the paper, one pass a sample;
                                                      the centroid, and with it the origin, is that of x

    Args:
        net: called like the model, with tensors of its own (an attribute `reads_only = True` of a net that never writes
            into its arguments spares the copy); returns a dict of ambient features by factor: scores (B, N) for S_n,
            vectors (B, D, M) for O and SO, (origin (B, D), vectors (B, D, M)) for E and SE (or vectors alone: the
            centroid is the origin). A single factor may come without the dict.
        group: the group of the elements. Those of C, D, Shift, Signs and O(1) carry no gradient to the net: in training
            mode with gradients, features of them that require a gradient are refused. Such a net is frozen
            (`requires_grad_(False)`); one that serves other factors as well detaches its features of these.
        noise: where the noise enters.
        scale: its size: late, relative to the size of the features (root mean square of the vectors, standard deviation
            of the scores); at the input, relative to the size of the centred points, and absolute for node features.
        relaxation: the soft permutation that carries gradients to the scores of S_n.

    Raises:
        ValueError: `noise` or `scale` out of range; at the call, features of the wrong shape, or in training features
            of a group whose elements carry no gradient.
        TypeError: at the call, `Exact()`: the probabilities of the elements are not known, even of finitely many.
    """

    def __init__(
        self,
        net: nn.Module,
        group: Group,
        noise: str = "late",
        scale: float = 1.0,
        relaxation: Relaxation = Relaxation(),  # noqa: B008
    ) -> None:
        super().__init__(net, group, relaxation)
        if noise not in PLACES:
            raise ValueError(f"noise: expected one of {', '.join(map(repr, PLACES))}, got {noise!r}")
        if not scale > 0:
            raise ValueError(f"scale: expected a positive number, got {scale}")
        self.scale = scale
        self.place = PLACES[noise]

    def noise(self, x: Inputs, shape: tuple[int, ...] = (), generator: torch.Generator | None = None) -> Noise:
        noise = super().noise(x, shape, generator)
        return {**noise, "z": self.place.noise(x, shape, generator, noise["z"])}

    def noise_rep(self, x: Inputs) -> Any:
        reps = super().noise_rep(x)
        return {**reps, "z": self.place.noise_rep(x, reps["z"])}

    def features(self, x: Inputs, noise: Mapping[Any, Tensor]) -> Mapping[Group, Any]:
        return self.place.features(self, x, noise)

    def support(self, x: Inputs, generator: torch.Generator | None = None) -> Support:
        raise TypeError(
            f"{self.brief} is the law of a net and noise, so that the probabilities of its elements are not known: "
            "use MonteCarlo(k) instead of Exact()"
        )

    def describe(self) -> dict[str, Any]:
        """The arguments of the constructor, for `probsym.save`."""
        return {
            "net": self.net,
            "group": self.group,
            "noise": self.place.name,
            "scale": self.scale,
            "relaxation": self.relaxation,
        }

    def extra_repr(self) -> str:
        return f"{self.group!r}, noise={self.place.name!r}, scale={self.scale}"


class Late:
    """Noise added to the features at unit size: the net runs once an input, however many samples.

    Scores are standardised and vectors scaled to unit root mean square, so that the concentration of p is bounded by
    `scale`. Left free, p grows into a point mass, and the base model overfits as a canonicalized one does: see
    docs/appendix/lab-notes.md.
    """

    name = "late"

    def noise(self, x: Inputs, shape: tuple[int, ...], generator: torch.Generator | None, z: Any) -> Any:
        return z

    def noise_rep(self, x: Inputs, reps: Any) -> Any:
        return reps

    def features(self, p: Learned, x: Inputs, noise: Mapping[Group, Tensor]) -> Mapping[Group, Any]:
        features = p.net_features(x)
        return {f: self._add(x, f, features[f], eps, p.scale) if f.noise_slots else eps for f, eps in noise.items()}

    def _add(self, x: Inputs, factor: Group, value: Any, eps: Tensor, scale: float) -> Any:
        if isinstance(value, tuple):
            return (value[0], self._add(x, factor, value[1], eps, scale))
        if isinstance(factor, NodeAxis):
            value = standardised(value, x.layouts[factor])
        elif isinstance(factor, IsometryGroup):
            value, used = unit_size(value), min(value.shape[-1], eps.shape[-1])
            if value.shape[-1] != eps.shape[-1]:
                value, eps = value[..., :used], eps[..., :used]
        return torch.add(value, eps, alpha=scale)


def unit_size(vectors: Tensor) -> Tensor:
    """Vectors (*shape, D, M) of each input divided by their root mean square length."""
    vectors = moderate(vectors, (-2, -1))
    square = vectors.square().sum((-2, -1), keepdim=True) / max(vectors.shape[-1], 1)
    return vectors / root(square)


def standardised(scores: Tensor, layout: Layout) -> Tensor:
    """Scores (*shape, N) of each input with mean zero and variance one; scores equal up to rounding become zero."""
    lead, mask = scores.ndim - 1, layout.padded_mask()
    z = layout.pad(scores, lead)
    z = moderate(z if mask is None else z.masked_fill(~mask, 0), (-1,))
    if mask is None:
        square, mean = torch.var_mean(z, -1, correction=0, keepdim=True)
        z, size = z - mean, (square + mean.square()).detach()
    else:
        count = mask.sum(-1, keepdim=True).clamp_min(1)
        size = z.detach().square().sum(-1, keepdim=True) / count
        z = (z - z.sum(-1, keepdim=True) / count) * mask
        square = z.square().sum(-1, keepdim=True) / count
    real = square > 10 * tolerance(z.dtype) ** 2 * size
    if may_peek(z) and bool(real.all()):
        return layout.unpad(z / square.sqrt(), lead)
    return layout.unpad(torch.where(real, z / torch.where(real, square, 1.0).sqrt(), 0.0), lead)


class AtInput:
    """Noise added to points, vectors and node features before the net, as in the paper.

    That of the points has mean zero over the points of an input, so that their centroid, about which the elements turn,
    stays that of the clean points. No equivariant net sees the difference but for its origin.
    """

    name = "input"

    def _targets(self, x: Inputs) -> dict[Any, Leaf]:
        floating = {path: leaf for path, leaf in x.leaves.items() if leaf.value.is_floating_point()}
        spatial = [p for p, leaf in floating.items() if any(isinstance(s, Point | Vector) for s, _ in leaf.rep.axes)]
        nodal = [p for p, leaf in floating.items() if any(isinstance(s, Nodes) for s, _ in leaf.rep.axes)]
        single = [p for p in nodal if sum(isinstance(s, Nodes) for s, _ in floating[p].rep.axes) == 1]
        chosen = dict.fromkeys([*spatial, *(single or nodal)])
        if not chosen:
            raise ValueError("noise='input' needs a floating input with a node or space axis; use noise='late'")
        return {path: floating[path] for path in chosen}

    def noise(self, x: Inputs, shape: tuple[int, ...], generator: torch.Generator | None, z: Any) -> Any:
        options = draw_options(x, generator)
        return {path: torch.randn(*shape, *leaf.value.shape, **options) for path, leaf in self._targets(x).items()}

    def noise_rep(self, x: Inputs, reps: Any) -> Any:
        return {path: _linear(leaf) for path, leaf in self._targets(x).items()}

    def features(self, p: Learned, x: Inputs, noise: Mapping[Any, Tensor]) -> Mapping[Group, Any]:
        path, eps = next(iter(noise.items()))
        sample = eps.shape[: eps.ndim - x.leaves[path].value.ndim]
        times = sample.numel()

        # 1. What the noise adds to each leaf, (K, B, ...).
        steps: dict[str, Tensor] = {}
        for path, leaf in x.leaves.items():
            shape = (times, *leaf.value.shape)
            if path in noise:
                steps[leaf.name] = p.scale * _size(x, leaf) * noise[path].reshape(shape)
            else:
                steps[leaf.name] = torch.zeros_like(leaf.value).expand(shape)

        # 2. The points as a whole stay where they are: their centroid is the origin of the elements.
        moved = x.fold(lambda leaf: steps[leaf.name], times)
        for space in (f for f in x.group.factors if isinstance(f, E) and _has_points(x, f)):
            drift = centroid(moved, space).reshape(times, x.count, space.dim)
            for leaf in x.leaves.values():
                if is_point(leaf, space):
                    steps[leaf.name] = steps[leaf.name] - _along(x, leaf, space, drift)

        # 3. The net sees the clean inputs where nothing was added, integers among them, and zeros at padding.
        noisy = {leaf.name for path, leaf in x.leaves.items() if path in noise}

        def perturbed(leaf: Leaf) -> Tensor:
            if leaf.name in noisy:
                return leaf.value + _at_nodes(x, leaf, steps[leaf.name])
            return leaf.value.expand(times, *leaf.value.shape)

        features = p.net_features(x.fold(perturbed, times))
        return {f: _split(features[f], sample, times) for f in features}


PLACES: dict[str, Late | AtInput] = {place.name: place for place in (Late(), AtInput())}


def _linear(leaf: Leaf) -> Rep:
    """The Rep of a difference of two such tensors, channels spelt out: points become vectors."""
    moved = (slot.group.vector if isinstance(slot, Point) else slot for slot in leaf.rep.slots)
    return Rep(*moved, *[None] * len(leaf.channels))


def _size(x: Inputs, leaf: Leaf) -> Tensor | float:
    """Size of the centred points or vectors of an input, to be broadcast on it; 1 for node features.

    Also 1 for points that lie closer together than the rounding of their coordinates, as for those in one place: noise
    of the size of that rounding would be lost in it, and the net would take what is left for directions.
    """
    space = next((s.group for s, _ in leaf.rep.axes if isinstance(s, Point | Vector)), None)
    if space is None:
        return 1.0
    origin = centroid(x, space) if is_point(leaf, space) else None
    scale = _edge_size(x, leaf, origin) if leaf.rep.on_edges else size(*centred(x, leaf, space, origin))
    if origin is not None:
        eps = max(torch.finfo(kind).eps for kind in (leaf.value.dtype, x.dtype))
        rounding = NOISE * eps * origin.detach().abs().amax(-1)
        scale = torch.where(scale > rounding, scale, 1.0)
    if leaf.rep.ragged is not None:
        scale = scale.index_select(0, x.owner(leaf))
    return scale.reshape(scale.shape[0], *[1] * (leaf.value.ndim - 1))


def _edge_size(x: Inputs, leaf: Leaf, origin: Tensor | None) -> Tensor:
    """Root mean square length (B,) of the vectors on the edges of each graph of a ragged batch."""
    owner = x.owner(leaf)
    place = next(at for slot, at in leaf.rep.axes if isinstance(slot, Point | Vector))
    vectors = leaf.value.to(x.dtype).movedim(place, -1)
    vectors = vectors.reshape(len(vectors), math.prod(vectors.shape[1:-1]), vectors.shape[-1])  # (edges, M, D)
    if origin is not None:
        vectors = vectors - origin[owner].unsqueeze(1)
    largest = vectors.detach().abs().amax((1, 2))
    largest = largest.new_zeros(x.count).scatter_reduce(0, owner, largest, "amax")
    largest = torch.where(largest > 0, largest, 1.0)
    square = (vectors / largest[owner, None, None]).square().sum(-1).mean(1)
    total = square.new_zeros(x.count).index_add(0, owner, square)
    number = torch.bincount(owner, minlength=x.count).clamp_min(1)
    return root(total / number) * largest


def _has_points(x: Inputs, space: IsometryGroup) -> bool:
    """Whether `centroid` finds points of the space."""
    return any(is_point(leaf, space) and not leaf.rep.on_edges for leaf in x.leaves.values())


def _at_nodes(x: Inputs, leaf: Leaf, steps: Tensor) -> Tensor:
    """The steps (K, B, ...) of a leaf, zero where it is padding."""
    lead = 1 + leaf.rep.batch_dims()
    for axis, places in leaf.rep.nodes:
        steps = x.layouts[axis].clear(steps, lead, *(lead + place for place in places))
    return steps


def _along(x: Inputs, leaf: Leaf, space: IsometryGroup, vectors: Tensor) -> Tensor:
    """One vector an input and sample (K, B, D), shaped to broadcast on the points (K, B, ...) of a leaf."""
    if leaf.rep.ragged is not None:
        vectors = vectors.index_select(1, x.owner(leaf))
    place = next(at for slot, at in leaf.rep.axes if isinstance(slot, Point) and slot.group == space)
    axis = 1 + leaf.rep.batch_dims() + place
    shape = [*vectors.shape[:2], *[1] * (leaf.value.ndim - 1)]
    shape[axis] = vectors.shape[2]
    return vectors.reshape(shape)


def _split(value: Any, sample: tuple[int, ...], times: int) -> Any:
    if isinstance(value, tuple):
        return tuple(_split(v, sample, times) for v in value)
    return value.reshape(*sample, value.shape[0] // max(times, 1), *value.shape[1:])


@register
class Canonical(NetDistribution):
    """A point mass at project(net(x)), Kaba et al. (arXiv 2211.06489).

    Where net(x) is degenerate (equal scores, deficient rank: a symmetric input) no single element is equivariant; the
    missing part is drawn at random. Such an input has an infinite standard error (one draw), the others zero, and
    `aux["degenerate"]` counts them.

    Args:
        net, group, relaxation: as for `Learned`.
    """

    default_samples = (None, None)
    has_enumerate_support = True

    def __init__(self, net: nn.Module, group: Group, relaxation: Relaxation = Relaxation()) -> None:  # noqa: B008
        super().__init__(net, group, relaxation)

    def features(self, x: Inputs, noise: Mapping[Group, Tensor]) -> Mapping[Group, Any]:
        return self.net_features(x)

    def support(self, x: Inputs, generator: torch.Generator | None = None) -> Support:
        """The one element; a draw where the input is degenerate."""
        with undisturbed():
            noise = self.noise(x, (1,), generator)
        z = self.net_features(x)
        parts = {f: self.project(x, f, z[f], noise["fallback"][f]) for f in self.group.factors}
        degenerate = self.degenerate(x, z)
        weight = torch.ones(1, x.count, dtype=x.dtype, device=x.device)
        diagnostics = merged(self.diagnose(x, z), {"degenerate": degenerate.sum()})
        return Support(self.join(parts), weight, ~degenerate, diagnostics)
