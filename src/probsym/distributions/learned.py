"""Distributions made by a net: the paper's learned p(g|x) and its limit without noise, canonicalization."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from probsym.distributions.base import SAMPLES_PER_PAGE, Noise, ProjectedDistribution, Support, draw_options
from probsym.distributions.default_net import DefaultNet
from probsym.distributions.diagnostics import fill, gathered, lazily, merged
from probsym.distributions.features import check_features
from probsym.distributions.geometry import centred, centroid, is_point, place_of, root, size, space_slot
from probsym.distributions.relax import Relaxation
from probsym.distributions.score_function import ScoreFunction, plackett_luce, score_weights
from probsym.groups import Element, Group
from probsym.kernels.orthonormal import tolerance
from probsym.kernels.precision import complex_dtype, without_autocast
from probsym.kernels.sizes import largest_entry, of_unit_size
from probsym.kernels.values import differentiated, drawn_once, readable
from probsym.members import register
from probsym.nets.rounding import NOISE
from probsym.reps import Inputs, Layout, Leaf, Rep

RELAXATION = Relaxation()


class NetDistribution(ProjectedDistribution):
    """Distributions whose features come from a net that is called like the model; base of `Learned` and `Canonical`.

    A subclass gives `features`, in which `net_features(x)` are the checked features of the net; it may also give noise
    of its own (`feature_noise`, `feature_noise_rep`), such as noise that the group leaves alone.

    Args:
        net: called like the model; returns a dict of features by factor, see `Learned`.
        group: the group of the elements.
        relaxation: what carries gradients to the scores of S_n.

    Raises:
        TypeError: net is no module.
    """

    def __init__(self, net: nn.Module, group: Group, relaxation: Relaxation = RELAXATION) -> None:
        super().__init__(group)
        if not isinstance(net, nn.Module):
            raise TypeError(f"net: expected an nn.Module that is called like the model, got {type(net).__name__}")
        if relaxation.by_weights:
            raise ValueError(f"relaxation: {type(self).__name__} has no law of orders, which a ScoreFunction needs")
        self.net = net
        self.relaxation: Relaxation | ScoreFunction = relaxation

    @property
    def _sorted(self) -> list[Group]:
        """The factors whose features are scores that `project` sorts."""
        return [f for f in self.group.factors if f.feature_kind == "scores"]

    def net_features(self, x: Inputs) -> dict[Group, Any]:
        """The net's features by factor, in float32 or better also under autocast.

        Scores come from inputs without gradient: sorting is piecewise constant, so the exact derivative of an output
        with respect to the inputs (a force) has no part through it, and the relaxed one must not pollute it.
        """
        z = self._call_net(x)
        if self.relaxation.by_weights:
            return z  # the exact derivative of an average has a part through the law of the orders
        if self._sorted and any(differentiated(leaf.value) for leaf in x.leaves.values()):
            apart = self._call_net(x.map(lambda leaf: leaf.value.detach()))
            for f in self._sorted:
                z[f] = apart[f]
        return z

    def _call_net(self, x: Inputs) -> dict[Group, Any]:
        with without_autocast(x.device):
            # 1. the library's own net reads the bound inputs as they are; a subclass of it may not
            if type(self.net) is DefaultNet and self.net.declares(x):
                return self.checked(self.net(x), x)

            # 2. any other net is called like the model, with tensors of its own that it may write into
            if not getattr(self.net, "reads_only", False):
                x = x.owned()
            return self.checked(called_like_model(self.net, x, type(self).__name__), x)

    def checked(self, features: Any, x: Inputs) -> dict[Group, Any]:
        """What the net returned, by factor, checked and in the precision of the inputs.

        These are features as `project` reads them; a distribution whose net returns something else says so here.

        Raises:
            TypeError, ValueError: names the factor, what was expected and what came.
        """
        return check_features(features, x, self.group)

    def move_noise(self, x: Inputs, h: Element, noise: Noise) -> Noise:
        """h eps; noise that turns with a frame which the features determine moves as their group says."""
        moved = super().move_noise(x, h, noise)
        followers = [f for f in self.group.factors if f.moves_noise_with_features]
        if not followers:
            return moved
        z = self.net_features(x)
        for part in ("features", "fallback"):
            for f in followers:
                if f in noise[part]:  # noise at the input has other keys
                    moved[part][f] = f.move_noise(h[f], z[f], noise[part][f])
        return moved

    def project(self, x: Inputs, factor: Group, z: Any, fallback: Tensor) -> Element:
        g = super().project(x, factor, z, fallback)
        if factor.feature_kind == "scores":
            g = self.relaxation.attach(g, z)  # type: ignore[arg-type]
            if self.relaxation.by_weights:
                return g  # its samples get the weights that pass the gradient on
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
        if any(tensor.requires_grad for tensor in g.tensors.values()):
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

    def _jumps(self, factors: Iterable[Group]) -> str:
        """What derivatives with respect to the inputs leave out of random elements of these factors."""
        reasons: list[str] = []
        for f in factors:
            if f.trivial:
                continue
            if f.feature_kind == "scores":
                if not self.relaxation.by_weights:
                    reasons.append(f"how the probabilities of the orders of {f!r} change with the inputs")
            elif f.finite:
                reasons.append(f"how the probabilities of the elements of {f!r} change with the inputs")
            elif f.isometric and not f.special:
                reasons.append(f"how the probability of a reflection of {f!r} changes with the inputs")
        return "; ".join(reasons)

    def degenerate(self, x: Inputs, z: Mapping[Group, Any]) -> Tensor:
        """Inputs (*shape, B) for which the fallback noise decides."""
        flags = [x.stored(f).degenerate(z[f]) for f in self.group.factors]
        return torch.stack(torch.broadcast_tensors(*flags)).any(0)

    def diagnose(self, x: Inputs, z: Mapping[Group, Any]) -> dict[str, Tensor]:
        """`degenerate`: number of inputs with ties; `entropy` of the soft permutations (row plus column, nats).

        Both cost something, the entropy more than the elements themselves. They are computed when they are read, of at
        most 64 samples.
        """
        # 1. how they are computed
        first = {f: _first(f, z[f], x.layouts.get(f)) for f in self.group.factors}  # type: ignore[call-overload]

        def degenerate() -> Tensor:
            flags = self.degenerate(x, first)
            return flags.reshape(math.prod(flags.shape[:-1]), x.count).any(0).sum()

        def entropy() -> Tensor:
            entropies = [self.relaxation.entropy(first[f], x.layouts[f]) for f in self._sorted]  # type: ignore
            return torch.stack(entropies).sum()

        wanted = {"degenerate": degenerate}
        if self._sorted and not self.relaxation.by_weights:
            wanted["entropy"] = entropy

        # 2. when: a compiler follows no function that waits to be called, and a transform's tensors do not outlive it
        tensors: list[Tensor] = []
        for value in first.values():
            if isinstance(value, tuple):
                tensors += value
            else:
                tensors.append(value)
        if x.readable and readable(*tensors):
            return gathered({name: lazily(compute) for name, compute in wanted.items()})
        return {name: compute() for name, compute in wanted.items()}


def called_like_model(net: nn.Module, x: Inputs, owner: str) -> Any:
    """What a net of p returns for the arguments of the model.

    Args:
        owner: the distribution whose net it is, for messages.

    Raises:
        TypeError: its `forward` cannot take them; says so.
    """
    if torch.compiler.is_compiling():
        return net(*x.args, **x.kwargs)
    try:
        return net(*x.args, **x.kwargs)
    except TypeError:
        # An error of the call itself is about the names of arguments; torch would not say whose net this is.
        try:
            inspect.signature(net.forward).bind(*x.args, **x.kwargs)
        except TypeError as error:
            raise TypeError(
                f"net of {owner}: {type(net).__name__}.forward is called with the arguments of the model, by the same "
                f"names, and cannot take them: {error}"
            ) from error
        raise


def _first(factor: Group, value: Any, layout: Layout | None) -> Any:
    """The features of the first samples, of which no more memory is held."""
    if isinstance(value, tuple):
        origin, vectors = value
        if origin.ndim > 2:
            origin = origin[:SAMPLES_PER_PAGE]
        return origin, _first(factor, vectors, layout)
    packed = layout is not None and layout.ragged
    own = 0 if packed else 1
    for slot in factor.feature_slots:
        own += 1 if slot is None else slot.num_axes
    if value.ndim > own and len(value) > SAMPLES_PER_PAGE:
        return value[:SAMPLES_PER_PAGE].clone()
    return value


@register
class Learned(NetDistribution):
    """The paper's p(g|x): noise outsourced through an equivariant net, arXiv 2306.02866, section 2.2.

        g = project(net(x) / |net(x)| + scale eps)    noise="late", one pass of the net per input
                                                      noise="gumbel", the same with Gumbel noise on the scores of S_n,
                                                      which makes the law of an order known: see `log_prob`
        g = project(net(x + scale |x| eps))           noise="input", as in the paper, one pass per sample;
                                                      the centroid, and with it the origin, is that of x

    Args:
        net: called like the model, with tensors of its own (an attribute `reads_only = True` of a net that never writes
            into its arguments spares the copy). It returns a dict of features by factor: scores (B, N) for S_n, vectors
            (B, D, M) for O and SO, (origin (B, D), vectors (B, D, M)) for E and SE (or vectors alone: the centroid is
            the origin), what `project` takes for any other group. A single factor may come without the dict.
        group: the group of the elements. Those of C, D, Shift, Signs and O(1) carry no gradient to the net: in training
            mode with gradients, features of them that require a gradient are refused. Such a net is frozen
            (`requires_grad_(False)`); one that serves other factors as well detaches its features of these.
        noise: where the noise enters.
        scale: its size: late, relative to the size of the features (root mean square of the vectors, standard deviation
            of the scores); at the input, relative to the size of the centred points, and absolute for node features.
        relaxation: how a gradient gets through the sort to the scores of S_n: by the soft permutation of a `Relaxation`
            (biased, small variance), or by a `ScoreFunction` (unbiased; needs noise="gumbel", or adds such noise to the
            scores of noise="input").

    Raises:
        ValueError: `noise` or `scale` out of range; a `ScoreFunction` without Gumbel noise, or with two sizes of it;
            noise that is added to features for a group whose noise does not move as they do; at the call, features of
            the wrong shape, or in training features of a group whose elements carry no gradient.
        TypeError: at the call, `Exact()`: the probabilities of the elements are not known, even of finitely many.
    """

    def __init__(
        self,
        net: nn.Module,
        group: Group,
        noise: str = "late",
        scale: float = 1.0,
        relaxation: Relaxation | ScoreFunction = RELAXATION,
    ) -> None:
        super().__init__(net, group)
        if noise not in PLACES:
            raise ValueError(f"noise: expected one of {', '.join(map(repr, PLACES))}, got {noise!r}")
        if not scale > 0:
            raise ValueError(f"scale: expected a positive number, got {scale}")
        relaxation.check_noise(noise)
        if noise != "input":
            for f in group.factors:
                if not f.takes_noise:
                    raise ValueError(
                        f"noise={noise!r} adds noise to the features, but the noise of {f!r} does not move as they do: "
                        "derive from NetDistribution and let the noise enter in a way that the group leaves alone"
                    )
        self.relaxation = relaxation
        self.scale = scale
        self.place = PLACES[noise]

    def describe(self) -> dict[str, Any]:
        """The arguments of the constructor, for `probsym.save`."""
        return {
            "net": self.net,
            "group": self.group,
            "noise": self.place.name,
            "scale": self.scale,
            "relaxation": self.relaxation,
        }

    def noise(self, x: Inputs, shape: tuple[int, ...] = (), generator: torch.Generator | None = None) -> Noise:
        # Noise at the input comes after the draw for the features, which it replaces: so a seed gives the samples that
        # it has always given.
        drawn = super().noise(x, shape, generator)
        noise = {**drawn, "features": self.place.noise(x, shape, generator, drawn["features"])}
        if self._orders_apart:
            noise["orders"] = {f: drawn["features"][f] for f in self._sorted}
        return noise

    def feature_noise_rep(self, x: Inputs) -> Any:
        return self.place.noise_rep(x, super().feature_noise_rep(x))

    def noise_rep(self, x: Inputs) -> Any:
        reps = super().noise_rep(x)
        if self._orders_apart:
            reps["orders"] = {f: Rep(*f.noise_slots) for f in self._sorted}
        return reps

    @property
    def _orders_apart(self) -> bool:
        """Whether scores get Gumbel noise besides that at the input."""
        return self.relaxation.by_weights and self.place.name == "input"

    def features(self, x: Inputs, noise: Mapping[Any, Tensor]) -> Mapping[Group, Any]:
        return self.place.features(self, x, noise)

    def transport(self, x: Inputs, noise: Noise, diagnostics: dict[str, Tensor] | None = None) -> Element:
        if not self.relaxation.by_weights:
            return super().transport(x, noise, diagnostics)

        # 1. The scores that say the law of the orders (given noise at the input, if that is where it is), and with
        #    Gumbel noise.
        clean, z, scale = self.place.lawful(self, x, noise)

        # 2. The elements.
        g = self.project_all(x, z, noise["fallback"])
        if diagnostics is not None:
            fill(diagnostics, self.diagnose(x, z))

        # 3. Weights of value one, whose gradient is that of the law of the orders.
        log_p = self._log_prob(x, clean, g, scale)
        sample_shape = log_p.shape[:-1]
        weights = score_weights(log_p.reshape(math.prod(sample_shape), x.count))
        if weights is None:
            return g
        return g.weighted(weights.reshape(*sample_shape, x.count))

    def log_prob(self, x: Inputs, g: Element) -> Tensor:
        """log p(order|x) of the permutations in g, batch shape (K, B): (K, B), in nats.

        With Gumbel noise the order of the nodes has the law of Plackett and Luce: the first place goes to node i with
        probability proportional to exp(-score_i / scale), the second to one of the others in the same way, and so on.

            log p = sum_r [ l_r - log sum_{s >= r} exp l_s ],    l_r = -score / scale of the node in place r

        The scores are those of the net with mean zero and variance one over the nodes of each input.

        Poses and other factors of a product are independent of the order, given x; their density is not counted.

        Args:
            x: bound inputs, as of `phi.bind`.

        Raises:
            ValueError: another noise than "gumbel", or a group without permutations of nodes.
        """
        if self.place.name != "gumbel":
            raise ValueError(f"log_prob: the law of the orders is known with noise='gumbel', got {self.place.name!r}")
        if not self._sorted:
            raise ValueError(f"log_prob: {self.group!r} has no permutations of nodes")
        return self._log_prob(x, self.net_features(x), g, self.scale)

    @property
    def left_out_of_forces(self) -> str:
        return self._jumps(self.group.factors)

    def _log_prob(self, x: Inputs, clean: Mapping[Group, Any], g: Element, scale: float) -> Tensor:
        total: Tensor | None = None
        for f in self._sorted:
            layout: Layout = x.layouts[f]  # type: ignore[index]
            preference = -standardised(clean[f], layout) / scale
            order: Any = g[f]
            own = plackett_luce(preference, order, layout)
            total = own if total is None else total + own
        if total is None:
            raise ValueError(f"{self.group!r} has no permutations of nodes")
        return total

    def support(self, x: Inputs, generator: torch.Generator | None = None) -> Support:
        raise TypeError(
            f"{self.brief} is the law of a net and noise, so that the probabilities of its elements are not known: "
            "use MonteCarlo(k) instead of Exact()"
        )

    def extra_repr(self) -> str:
        return f"{self.group!r}, noise={self.place.name!r}, scale={self.scale}"


class Late:
    """Noise added to the features at unit size: the net runs once per input, however many samples.

    Scores are standardised and vectors scaled to unit root mean square, so that the concentration of p is bounded by
    `scale`. Left free, p grows into a point mass, and the base model overfits as a canonicalized one does: see
    docs/appendix/lab-notes.md. What other groups make of their features, `Group.add_noise` says.
    """

    def __init__(self, name: str, gumbel: bool) -> None:
        self.name = name
        self.gumbel = gumbel  # whether noise on scores is Gumbel noise

    def noise(self, x: Inputs, shape: tuple[int, ...], generator: torch.Generator | None, drawn: Any) -> Any:
        return drawn

    def noise_rep(self, x: Inputs, reps: Any) -> Any:
        return reps

    def features(self, p: Learned, x: Inputs, noise: Mapping[Group, Tensor]) -> Mapping[Group, Any]:
        return self.noisy(x, p.net_features(x), noise, p.scale)

    def lawful(self, p: Learned, x: Inputs, noise: Noise) -> tuple[Mapping[Group, Any], Mapping[Group, Any], float]:
        """Features whose scores say the law of the orders, the same with noise, and the size of that on the scores."""
        clean = p.net_features(x)
        return clean, self.noisy(x, clean, noise["features"], p.scale), p.scale

    def noisy(
        self, x: Inputs, clean: Mapping[Group, Any], noise: Mapping[Group, Tensor], scale: float
    ) -> Mapping[Group, Any]:
        """The features with noise, from those of the net."""
        z: dict[Group, Any] = {}
        for f, eps in noise.items():
            if f.noise_slots:
                z[f] = self._add(x, f, clean[f], eps, scale)
            else:
                z[f] = eps
        return z

    def _add(self, x: Inputs, factor: Group, value: Any, eps: Tensor, scale: float) -> Any:
        if isinstance(value, tuple):
            origin, vectors = value
            return origin, self._add(x, factor, vectors, eps, scale)
        if factor.feature_kind == "scores":
            value = standardised(value, x.layouts[factor])  # type: ignore[index]
            if self.gumbel:
                eps = minus_gumbel(eps)
        elif factor.feature_kind == "columns":
            value = unit_size(value)
            # a net may give more or fewer columns than the noise has; the first ones of both are used
            used = min(value.shape[-1], eps.shape[-1])
            if value.shape[-1] != eps.shape[-1]:
                value, eps = value[..., :used], eps[..., :used]
        return factor.add_noise(value, eps, scale)


def minus_gumbel(eps: Tensor) -> Tensor:
    """The logarithm of exponential noise, which is minus Gumbel noise, since scores are sorted upwards.

    Made from normal noise, that designs know to arrange.
    """
    return torch.log(-torch.special.log_ndtr(eps))


def unit_size(vectors: Tensor) -> Tensor:
    """Vectors (*shape, D, M) of each input divided by their root mean square length."""
    if not vectors.numel():
        return vectors
    scaled, _ = of_unit_size(vectors, (-2, -1), vectors.shape[-1])
    return scaled


def standardised(scores: Tensor, layout: Layout) -> Tensor:
    """Scores (*shape, N) of each input with mean zero and variance one; scores equal up to rounding become zero.

    They are equal where the variance is rounding next to the mean square. Derivatives are finite there too, and right
    up to the second: the third is that of torch's layer norm, which is wrong (torch 2.13).
    """
    if not scores.numel():
        return scores
    batch_dims = scores.ndim - 1
    mask = layout.padded_mask()
    least = 10 * tolerance(scores.dtype) ** 2  # variance over mean square that is no rounding

    # 1. padded, of moderate size
    z = layout.pad(scores, batch_dims)
    if mask is not None:
        z = z.masked_fill(~mask, 0)
    z = z / largest_entry(z, (-1,))

    # 2. all nodes exist: a layer norm, whose small number keeps derivatives finite where scores are equal
    if mask is None:
        normal, _, inverse_deviation = torch.native_layer_norm(z, z.shape[-1:], None, None, 1e-6 * least)
        # The largest entry is one, and so is the mean of equal scores; or all are zero, which are equal too.
        real = inverse_deviation < least**-0.5
        return layout.unpad(normal * real, batch_dims)

    # 3. padded ones: both branches of `where` have finite gradients
    count = mask.sum(-1, keepdim=True).clamp_min(1)
    mean = z.sum(-1, keepdim=True) / count
    z = (z - mean) * mask
    square = z.square().sum(-1, keepdim=True) / count
    real = square > least * (square + mean.square()).detach()
    return layout.unpad(torch.where(real, z / torch.where(real, square, 1.0).sqrt(), 0.0), batch_dims)


class AtInput:
    """Noise added to points, vectors and node features before the net, as in the paper.

    That of the points has mean zero over the points of an input, so that their centroid, about which the elements turn,
    stays that of the clean points. No equivariant net sees the difference but for its origin.

    Inputs along which a group acts that changes lengths (boosts) get none: no Gaussian noise moves with it.
    """

    name = "input"

    def _targets(self, x: Inputs) -> dict[Any, Leaf]:
        """The leaves that get noise: all points and vectors, then node features, pairs of nodes only if there are no
        others."""
        spatial: list[Any] = []
        single: list[Any] = []
        pairs: list[Any] = []
        for path, leaf in x.leaves.items():
            slots = [slot for slot, _ in leaf.rep.axes]
            if not (leaf.value.is_floating_point() or leaf.value.is_complex()):
                continue
            if not all(slot.differences.isometric for slot in slots):
                continue
            roles = [slot.role for slot in slots]
            if "point" in roles or "vector" in roles:
                spatial.append(path)
            if roles.count("nodes") == 1:
                single.append(path)
            elif roles.count("nodes") > 1:
                pairs.append(path)
        chosen = dict.fromkeys([*spatial, *(single or pairs)])
        if not chosen:
            raise ValueError("noise='input' needs a floating input with a node or space axis; use noise='late'")
        return {path: x.leaves[path] for path in chosen}

    def noise(self, x: Inputs, shape: tuple[int, ...], generator: torch.Generator | None, drawn: Any) -> Any:
        options = draw_options(x, generator)
        noise: dict[Any, Tensor] = {}
        for path, leaf in self._targets(x).items():
            kind = complex_dtype(x.dtype) if leaf.value.is_complex() else x.dtype
            noise[path] = torch.randn(*shape, *leaf.value.shape, **{**options, "dtype": kind})
        return noise

    def noise_rep(self, x: Inputs, reps: Any) -> Any:
        return {path: _linear(leaf) for path, leaf in self._targets(x).items()}

    def lawful(self, p: Learned, x: Inputs, noise: Noise) -> tuple[Mapping[Group, Any], Mapping[Group, Any], float]:
        """As that of `Late`, given the noise at the input: its scores with Gumbel noise of the ScoreFunction's size."""
        scale: float = p.relaxation.scale  # type: ignore[assignment, union-attr]
        clean = self.features(p, x, noise["features"])
        z = dict(clean)
        for f, eps in noise["orders"].items():
            scores = standardised(clean[f], x.layouts[f])
            z[f] = f.add_noise(scores, minus_gumbel(eps), scale)
        return clean, z, scale

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
        for space in x.group.factors:
            if not (space.anchored and _has_points(x, space)):
                continue
            drift = centroid(moved, space)
            drift = drift.reshape(times, x.count, drift.shape[-1])
            for leaf in x.leaves.values():
                if is_point(leaf, space):
                    steps[leaf.name] = steps[leaf.name] - _along(x, leaf, space, drift)

        # 3. The net sees the clean inputs where nothing was added, integers among them, and zeros at padding.
        noisy = {leaf.name for path, leaf in x.leaves.items() if path in noise}

        def perturbed(leaf: Leaf) -> Tensor:
            if leaf.name in noisy:
                return leaf.value + _at_nodes(x, leaf, steps[leaf.name])
            return leaf.value.expand(times, *leaf.value.shape)

        z = p.net_features(x.fold(perturbed, times))
        return {f: _unfolded(z[f], sample, times) for f in z}


PLACES: dict[str, Late | AtInput] = {
    place.name: place for place in (Late("late", False), Late("gumbel", True), AtInput())
}


def _linear(leaf: Leaf) -> Rep:
    """The Rep of a difference of two such tensors, channels spelt out: points become vectors."""
    moved = [None if slot is None else slot.differences for slot in leaf.rep.slots]
    return Rep(*moved, *[None] * len(leaf.channels))


def _size(x: Inputs, leaf: Leaf) -> Tensor | float:
    """Size of the centred points or vectors of an input, to be broadcast on it; 1 for node features.

    Also 1 for points that lie closer together than the rounding of their coordinates, as for those in one place: noise
    of the size of that rounding would be lost in it, and the net would take what is left for directions.
    """
    slot = space_slot(leaf)
    if slot is None:
        return 1.0
    space = slot.group
    origin = centroid(x, space) if slot.role == "point" else None
    if leaf.rep.on_edges:
        scale = _edge_size(x, leaf, origin)
    else:
        scale = size(*centred(x, leaf, space, origin))
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

    # 1. the vectors of each edge, (edges, M, D)
    slot = space_slot(leaf)
    place = next(at for other, at in leaf.rep.axes if other is slot)
    vectors = leaf.value.to(x.dtype).movedim(place, -1)
    vectors = vectors.reshape(len(vectors), math.prod(vectors.shape[1:-1]), vectors.shape[-1])
    if origin is not None:
        vectors = vectors - origin[owner].unsqueeze(1)

    # 2. the largest entry of each graph, next to which squares do not overflow
    largest = vectors.detach().abs().amax((1, 2))
    largest = largest.new_zeros(x.count).scatter_reduce(0, owner, largest, "amax")
    largest = torch.where(largest > 0, largest, 1.0)

    # 3. the mean square over the edges of each graph
    square = (vectors / largest[owner, None, None]).square().sum(-1).mean(1)
    total = square.new_zeros(x.count).index_add(0, owner, square)
    number = torch.bincount(owner, minlength=x.count).clamp_min(1)
    return root(total / number) * largest


def _has_points(x: Inputs, space: Group) -> bool:
    """Whether `centroid` finds points of the space."""
    return any(is_point(leaf, space) and not leaf.rep.on_edges for leaf in x.leaves.values())


def _at_nodes(x: Inputs, leaf: Leaf, steps: Tensor) -> Tensor:
    """The steps (K, B, ...) of a leaf, zero where it is padding."""
    batch_dims = 1 + leaf.rep.batch_dims
    for axis, places in leaf.rep.nodes:
        steps = x.layouts[axis].clear(steps, batch_dims, *(batch_dims + place for place in places))
    return steps


def _along(x: Inputs, leaf: Leaf, space: Group, vectors: Tensor) -> Tensor:
    """One vector per input and sample (K, B, D), shaped to broadcast on the points (K, B, ...) of a leaf."""
    if leaf.rep.ragged is not None:
        vectors = vectors.index_select(1, x.owner(leaf))
    axis = 1 + leaf.rep.batch_dims + place_of(leaf, space)
    shape = [*vectors.shape[:2], *[1] * (leaf.value.ndim - 1)]
    shape[axis] = vectors.shape[2]
    return vectors.reshape(shape)


def _unfolded(value: Any, sample: tuple[int, ...], times: int) -> Any:
    """Features of rows (K B, ...) as those of samples (*shape, B, ...)."""
    if isinstance(value, tuple):
        return tuple(_unfolded(part, sample, times) for part in value)
    return value.reshape(*sample, value.shape[0] // max(times, 1), *value.shape[1:])


@register
class Canonical(NetDistribution):
    """A point mass at project(net(x)), Kaba et al. (arXiv 2211.06489).

    Where net(x) is degenerate (equal scores, deficient rank: a symmetric input) no single element is equivariant; the
    missing part is drawn at random. Such an input has an infinite standard error (one draw), the others zero, and
    `diagnostics["degenerate"]` counts them.

    Args:
        net, group, relaxation: as for `Learned`.
    """

    default_samples = (None, None)
    has_enumerate_support = True

    def features(self, x: Inputs, noise: Mapping[Group, Tensor]) -> Mapping[Group, Any]:
        return self.net_features(x)

    def support(self, x: Inputs, generator: torch.Generator | None = None) -> Support:
        """The one element; a draw where the input is degenerate."""
        noise = drawn_once(lambda: self.noise(x, (1,), generator))
        z = self.net_features(x)
        parts: dict[Group, Element] = {}
        for f in self.group.factors:
            parts[f] = self.project(x, f, z[f], noise["fallback"][f])
        degenerate = self.degenerate(x, z)
        weight = torch.ones(1, x.count, dtype=x.dtype, device=x.device)
        diagnostics = merged(self.diagnose(x, z), {"degenerate": degenerate.sum()})
        return Support(self.group.join(*parts.values()), weight, ~degenerate, diagnostics)
