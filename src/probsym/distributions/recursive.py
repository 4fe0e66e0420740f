"""A learned p(g|x) without an equivariant net: a uniform element first, then what a plain net makes of the pose."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from probsym.distributions.base import Noise, Support
from probsym.distributions.default_net import BUILDING
from probsym.distributions.features import NodeFeatures, Viewpoint, check_features
from probsym.distributions.geometry import centroid
from probsym.distributions.haar import Haar
from probsym.distributions.learned import RELAXATION, NetDistribution
from probsym.distributions.relax import Relaxation
from probsym.groups import Element, Group, product
from probsym.groups.orthogonal import embedded, turned_axes
from probsym.groups.whole import positive
from probsym.kernels.precision import matmul
from probsym.kernels.values import drawn_once, readable
from probsym.members import register
from probsym.nets.masking import Segments, Where, keep, mean, spread
from probsym.reps import Inputs, Layout, NodeAxis, Rep, Signature, leaves

# ---------------------------------------------------------------- heads: from numbers to rotations


class Head(ABC):
    """How numbers that a net returns become a rotation gamma of d-space, smoothly.

    A head of one's own is a frozen dataclass with `size`, the number of numbers, and `rotation`.
    """

    name: ClassVar[str]

    @abstractmethod
    def size(self, dim: int) -> int:
        """How many numbers it reads for a rotation of d-space.

        Raises:
            ValueError: it knows no rotations of that space.
        """

    @abstractmethod
    def rotation(self, z: Tensor, dim: int) -> Tensor:
        """Rotations (*shape, D, D) for numbers z (*shape, size)."""


@register
@dataclass(frozen=True)
class SmallAngle(Head):
    """Rotations by less than `limit`, in any dimension: the Cayley transform of a bounded antisymmetric matrix.

        gamma = (1 - A)^-1 (1 + A),    A = b / sqrt(1 + |b|^2 / tan(limit / 2)^2),    b = a / 2

    for the d (d - 1) / 2 numbers a, written below the diagonal of an antisymmetric matrix. To first order it is the
    exponential map of a, without its series at zero. In 3-d the angle is 2 arctan |A|, about the axis a. It is smooth
    in all numbers, with bounded derivatives: singular nowhere.

    Args:
        limit: in radians, below pi.

    Raises:
        ValueError: a limit that is not between 0 and pi.

    >>> turn = SmallAngle(limit=2.0).rotation(torch.tensor([0.0, 0.0, 1e9]), 3)
    >>> torch.arccos((turn.trace() - 1) / 2)
    tensor(2.0000)
    """

    limit: float = 3.0
    name: ClassVar[str] = "small-angle"

    def __post_init__(self) -> None:
        if not 0 < self.limit < math.pi:
            raise ValueError(f"limit: expected an angle between 0 and pi, got {self.limit}")

    def size(self, dim: int) -> int:
        return dim * (dim - 1) // 2

    def rotation(self, z: Tensor, dim: int) -> Tensor:
        b = z / 2
        a = b * (1 + b.square().sum(-1, keepdim=True) / math.tan(self.limit / 2) ** 2).rsqrt()
        if dim == 3:
            return quaternion_rotation(torch.cat([torch.ones_like(a[..., :1]), a], -1))
        # one antisymmetric matrix for each pair of axes i > j: what turns axis j into axis i
        planes = z.new_zeros(self.size(dim), dim, dim)
        rows, columns = torch.tril_indices(dim, dim, -1, device=z.device)
        number = torch.arange(self.size(dim), device=z.device)
        planes[number, rows, columns] = 1
        planes[number, columns, rows] = -1
        skew = matmul(a, planes.flatten(1)).unflatten(-1, (dim, dim))
        one = torch.eye(dim, dtype=z.dtype, device=z.device)
        return torch.linalg.solve(one - skew, one + skew)


@register
@dataclass(frozen=True)
class UnitQuaternion(Head):
    """Rotations of 3-space by quaternions z / |z|: all of SO(3), no angle preferred.

    It is singular at z = 0 alone, four conditions at once: next to it a gradient is as large as 1/r where the volume of
    a shell is r^3 dr, so that the tail index of a force is 4 and its variance finite. At z = 0 itself gamma is the
    identity.

    >>> UnitQuaternion().rotation(torch.tensor([0.0, 0.0, 0.0, 3.0]), 3).diag()       # half a turn about the third axis
    tensor([-1., -1.,  1.])
    """

    name: ClassVar[str] = "quaternion"

    def size(self, dim: int) -> int:
        if dim != 3:
            raise ValueError(f"head='quaternion': expected a space of 3 dimensions, got {dim}; use 'small-angle'")
        return 4

    def rotation(self, z: Tensor, dim: int) -> Tensor:
        return quaternion_rotation(z)


def quaternion_rotation(q: Tensor) -> Tensor:
    """Rotations (*shape, 3, 3) of quaternions (*shape, 4), real part first, of any length; the identity for zero."""
    # Next to the largest entry, whose square may be out of range. Its derivative cancels: any multiple will do.
    largest = q.detach().abs().amax(-1, keepdim=True)
    q = q / torch.where(largest > 0, largest, 1)
    square = q.square().sum(-1, keepdim=True)
    w, x, y, z = (q * torch.where(square > 0, square, 1).rsqrt()).unbind(-1)
    entries = [
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(entries, -1).unflatten(-1, (3, 3))


HEADS: dict[str, Head | None] = {"small-angle": SmallAngle(), "quaternion": UnitQuaternion(), "project": None}
"""What `Recursive(head="...")` understands; None leaves everything to `project` of the group."""


def _head(head: str | Head) -> Head | None:
    """The head that a name stands for.

    Raises:
        ValueError, TypeError: unknown name, or no head.
    """
    if isinstance(head, Head):
        return head
    if not isinstance(head, str):
        raise TypeError(f"head: expected one of {', '.join(map(repr, HEADS))} or a Head, got {type(head).__name__}")
    if head not in HEADS:
        raise ValueError(f"head: expected one of {', '.join(map(repr, HEADS))} or a Head, got {head!r}")
    return HEADS[head]


def _head_for(head: str | Head, factor: Group) -> Head | None:
    """The head of a factor; None for one without rotations, such as signs on a line, which `project` serves."""
    if not factor.isometric or factor.dim < 2:  # type: ignore[attr-defined]  # isometric groups have a dimension
        return None
    return _head(head)


# ---------------------------------------------------------------- the distribution


@register
class Recursive(NetDistribution):
    """A learned p whose net need not be equivariant: g = h gamma(h^-1 x), h uniform (arXiv 2406.11814, 2410.06262).

        h ~ Haar(G),    z = net(h^-1 x),    g = h gamma(z) = project(h z, h fallback)       (docs/theory.md, eq. 9)

    h is made of noise that moves with the group, so that h^-1 x is the same pose for all h' x with noise h' eps, and g
    moves from the left: transport(h' x, h' eps) = h' g. For E and SE, h turns about the centroid of the points.

    The net runs once a sample. It is called like the model, on the pose h^-1 x, and returns for each factor

        O, SO, E, SE    what the head reads: (B, D (D - 1) / 2) for "small-angle", (B, 4) for "quaternion" (3-d alone);
                        with "project" vectors (B, D, M), for E and SE also (origin (B, D), vectors)
        S_n             scores (B, N), in a ragged batch (sum N,)
        any other       what `project` of the group reads
        None            this factor stays uniform

    in a dict by factor; a single factor may come without it. Forces: the element is a smooth function of x with the
    noise held, and a head of small angles is singular nowhere. Gram-Schmidt ("project", and `Learned`) has forces of
    infinite variance. The heads make rotations: for O and E the handedness stays uniform. About an axis of space
    (`about="z"`) they make rotations of the plane, by one number.

    Args:
        net: called like the model, with tensors of its own; `PlainNet(inputs, group)` is one.
        group: the group of the elements: compact factors, and E and SE.
        head: "small-angle", "quaternion", "project", or a `Head` such as `SmallAngle(limit=1.0)`; for factors with
            matrices of two and more dimensions.
        relaxation: the soft permutation that carries gradients to the scores of S_n.

    Raises:
        ValueError: a group without a uniform distribution, an unknown head, a head that does not know the dimension; at
            the call, features of the wrong shape, or in training of a finite group other than S_n, whose elements carry
            no gradient to the net.
        TypeError: net is no module; at the call, features of the wrong type, or `Exact()` for an infinite group. Finite
            ones are listed up to 8! elements, at one call of the net for each.

    >>> import probsym as ps
    >>> space = ps.SE(3, "space")
    >>> class Net(nn.Linear):                                           # any net: it sees the coordinates of the pose
    ...     def forward(self, pos):
    ...         return super().forward(pos.flatten(1))
    >>> p = Recursive(Net(15, 3), space)
    >>> ps.testing.assert_distribution(p, {"pos": torch.randn(2, 5, 3)}, {"pos": Rep(None, space)})
    """

    def __init__(
        self, net: nn.Module, group: Group, head: str | Head = "small-angle", relaxation: Relaxation = RELAXATION
    ) -> None:
        super().__init__(net, group, relaxation)
        _head(head)
        self.head = head
        compact = all(f.compact for f in group.factors)
        self.uniform = Haar(group, origin=None if compact else "centroid")
        for f in group.factors:
            head_of_factor = self._head_of(f)
            if head_of_factor is not None:
                head_of_factor.size(len(turned_axes(f)))

    @property
    def has_enumerate_support(self) -> bool:  # type: ignore[override]
        return self.group.finite

    def _head_of(self, factor: Group) -> Head | None:
        """What makes rotations of a factor; None where `project` does."""
        return _head_for(self.head, factor)

    # ---------------------------------------------------------------- the noise is that of h

    def feature_noise(self, x: Inputs, shape: tuple[int, ...] = (), generator: torch.Generator | None = None) -> Noise:
        return self.uniform.noise(x, shape, generator)

    def feature_noise_rep(self, x: Inputs) -> Any:
        return self.uniform.noise_rep(x)

    def features(self, x: Inputs, noise: Mapping[str, Any]) -> Mapping[Group, Any]:
        z = self._features_at(x, self.uniform.transport(x, noise))
        unlearned = self.uniform.features(x, noise["features"])
        for f, value in z.items():
            if value is None:
                z[f] = unlearned[f]
        return z

    def _features_at(self, x: Inputs, h: Element) -> dict[Group, Any]:
        """h z for z = net(h^-1 x) and h of batch shape (*shape, B); None for a factor that the net leaves uniform."""
        sample = h.shape[:-1]
        times = math.prod(sample)

        # 1. The pose h^-1 x, samples as rows. Groups of the inputs that p does not cover leave it alone.
        flat = h.map(lambda tensor, _: tensor.reshape(times, *tensor.shape[len(sample) :]))
        others = [f for f in x.group.factors if f not in self.group.factors]
        still = [x.stored(f).identity((times, x.count), dtype=x.dtype, device=x.device) for f in others]
        inverse = product([*self.group.factors, *others]).join(flat, *still).inverse()
        pose = x.fold(lambda leaf: leaf.rep.act(inverse, leaf.value, leaf.rep.batch_dims), times)

        # 2. What the net makes of it, as samples again, moved back by h.
        def moved(rep: Rep, value: Tensor) -> Tensor:
            rows = value.shape[0] // max(times, 1)
            return rep.act(h, value.reshape(*sample, rows, *value.shape[1:]))

        z: dict[Group, Any] = dict.fromkeys(self.group.factors)
        for f, value in self.net_features(pose).items():
            head = self._head_of(f)
            features = Rep(*f.feature_slots)
            if value is None:
                continue
            if head is not None:
                columns = moved(features, embedded(head.rotation(value, len(turned_axes(f))), f))
                z[f] = (centroid(x, f), columns) if f.anchored else columns
            elif f.anchored:
                origin, vectors = value
                z[f] = (moved(Rep(f.defining), origin), moved(features, vectors))
            else:
                z[f] = moved(features, value)
        return z

    def checked(self, features: Any, x: Inputs) -> dict[Group, Any]:
        factors = [f for f in self.group.factors if not f.trivial]
        if not isinstance(features, Mapping):
            if len(factors) != 1:
                raise TypeError(f"net: expected a dict of features by factor, got {type(features).__name__}")
            features = {factors[0]: features}
        checked: dict[Group, Any] = dict.fromkeys(self.group.factors)
        for f in factors:
            if f not in features:
                raise ValueError(
                    f"net: expected features for {f!r}, or None to leave it uniform, got only "
                    f"{', '.join(map(repr, features))}"
                )
            value = features[f]
            head = self._head_of(f)
            if value is None:
                continue
            if head is None:
                checked[f] = check_features({f: value}, x, f)[f]
                continue
            size = head.size(len(turned_axes(f)))
            if not isinstance(value, Tensor) or not value.is_floating_point():
                found = value.dtype if isinstance(value, Tensor) else type(value).__name__
                raise TypeError(f"net: expected real features of {f!r} for head={self.head!r}, got {found}")
            if value.shape != (x.count, size):
                raise ValueError(
                    f"net: expected features of {f!r} of shape ({x.count}, {size}) for head={self.head!r}, got "
                    f"{tuple(value.shape)}"
                )
            checked[f] = value.to(x.dtype)
        return checked

    def support(self, x: Inputs, generator: torch.Generator | None = None) -> Support:
        """h gamma(h^-1 x) for every h of a finite group, each with the weight of h; some may be equal.

        Where the net leaves a tie for some h, one draw decides, and the input is not exact.
        """
        listed = self.uniform.support(x)
        fallback = drawn_once(lambda: self.fallback_noise(x, (1,), generator))
        exact = listed.exact
        parts: dict[Group, Element] = {}
        for f, value in self._features_at(x, listed.element).items():
            if value is None:
                parts[f] = listed.element[f]
                continue
            parts[f] = self.project(x, f, value, fallback[f])
            tied = x.stored(f).degenerate(value) & (listed.weight > 0)
            exact = exact & ~tied.any(0)
        one_draw = torch.ones(x.count, dtype=torch.long, device=x.device)
        diagnostics = {"degenerate": (~exact).sum()}
        element = self.group.join(*parts.values())
        return Support(element, listed.weight, exact, diagnostics, draws=one_draw, uniform=listed.uniform)

    @property
    def left_out_of_forces(self) -> str:
        # heads make rotations, which move smoothly: the handedness stays uniform
        return self._jumps(f for f in self.group.factors if self._head_of(f) is None)

    def extra_repr(self) -> str:
        return f"{self.group!r}, head={self.head!r}"


# ---------------------------------------------------------------- the default net


@dataclass(frozen=True)
class _Place:
    """Where the features of a factor are computed: its node axis and the space whose coordinates are seen there."""

    factor: Group
    axis: NodeAxis | None
    space: Group | None
    outputs: int


@register
class PlainNet(nn.Module):
    """A net for `Recursive`: functions of the nodes and of their mean, on coordinates as they are in the pose.

    Each factor has layers of its own: rotations are read off the mean over the nodes, scores off the nodes, which know
    their place in the order of the pose. It sees the declared inputs as nodes do: points about their centroid, points
    and vectors scaled to unit size, scalars; of pairs and edges their mean and number at a node. Widths are fixed by
    the first call, or by `example=` of `symmetrize`.

    Args:
        spec: Reps of the inputs. group: the factors to serve.
        head: that of `Recursive`.
        hidden: width of the layers.

    Raises:
        ValueError: a factor that is neither S_n nor made of rotations.

    >>> import probsym as ps
    >>> nodes, space = ps.S("nodes"), ps.E(3, "space")
    >>> inputs = {"pos": Rep(nodes, space)}
    >>> z = PlainNet(inputs, nodes * space)(pos=torch.randn(2, 5, 3))
    >>> z[nodes].shape, z[space].shape
    (torch.Size([2, 5]), torch.Size([2, 3]))
    """

    reads_only = True  # it never writes into its arguments, which need not be copied for it

    def __init__(self, spec: Any, group: Group, head: str | Head = "small-angle", hidden: int = 64) -> None:
        super().__init__()
        self.spec = spec
        self.group = group
        self.head = head
        self.hidden = positive("hidden", hidden)
        self.signature = Signature(spec)
        self.places: list[_Place] = []
        self.nets = nn.ModuleList()
        for f in group.factors:
            if f.trivial:
                continue
            if f.feature_kind not in ("scores", "columns"):
                raise ValueError(
                    f"no default net orients by {f!r}: give Recursive a net that returns features of shape (B, ...) "
                    f"along {', '.join(map(repr, f.feature_slots))}, or use Haar"
                )
            place = _place(spec, group, f, head)
            self.places.append(place)
            self.nets.append(_Sines(self.hidden, place.outputs, of_nodes=place.axis == f))
        self.viewpoints = [Viewpoint(self.signature, place.axis, place.space) for place in self.places]

    def forward(self, *args: Any, **kwargs: Any) -> dict[Group, Tensor]:
        """The arguments of the model -> {S: scores (B, N), O, SO, E, SE: numbers for the head (B, size)}."""
        x = Inputs.bind(self.signature, args, kwargs)
        z: dict[Group, Tensor] = {}
        for place, viewpoint, net in zip(self.places, self.viewpoints, self.nets, strict=True):
            seen = viewpoint.read(x, sparse=not viewpoint.paired)
            numbers = net(_coordinates(x, place, seen), seen.mask).to(x.dtype)
            f = place.factor
            if f.feature_kind == "scores":
                packed = isinstance(seen.mask, Segments)
                z[f] = numbers.squeeze(0) if packed else x.layouts[f].unpad(numbers, 0)  # type: ignore[index]
            elif _head_for(self.head, f) is None:
                z[f] = numbers.unflatten(-1, (f.dim, f.dim))  # type: ignore[attr-defined]
            else:
                z[f] = numbers
        return z


class _Sines(nn.Module):
    """out(rho(mean_i phi(x_i))), or out(rho(phi(x_i), mean_j phi(x_j))) of each node (arXiv 1703.06114).

    Flat functions have nearly the same mean over the nodes in every pose, and gamma would be a constant, which changes
    nothing. Sines of several times a linear map tell poses of unit size apart from the start.
    """

    sharpness: ClassVar[tuple[float, float]] = (6.0, 12.0)  # of phi and rho

    def __init__(self, hidden: int, outputs: int, of_nodes: bool) -> None:
        super().__init__()
        self.of_nodes = of_nodes
        self.inner = nn.LazyLinear(hidden)
        self.phi = nn.Linear(hidden, hidden)
        self.rho = nn.Linear(2 * hidden if of_nodes else hidden, hidden)
        # scores are sorted, so that a bias of all of them would not be felt
        self.out = nn.Linear(hidden, outputs, bias=not of_nodes)

    def forward(self, nodes: Tensor, where: Where) -> Tensor:
        nodes = keep(nodes, where).to(self.phi.weight.dtype)
        self._build(nodes)
        of_phi, of_rho = self.sharpness
        h = silu(self.phi((of_phi * self.inner(nodes)).sin()))
        pooled = mean(h, where)
        if not self.of_nodes:
            return self.out((of_rho * self.rho(pooled)).sin())
        both = torch.cat([h, spread(pooled, where).expand_as(h)], -1)
        return self.out((of_rho * self.rho(both)).sin()).squeeze(-1)

    def _build(self, nodes: Tensor) -> None:
        """Fix the width of the lazy layer; parameters made in inference mode could not be trained later."""
        if not isinstance(self.inner.weight, nn.UninitializedParameter):
            return
        if not readable(nodes, torch.empty(0)):
            raise ValueError(
                "the default net of p is not built yet, which cannot be compiled: pass example= to symmetrize, a "
                "sample input that fixes its channel counts, or call the model once before"
            )
        with BUILDING, torch.inference_mode(False), torch.no_grad():
            self.inner(torch.zeros(1, 1, nodes.shape[-1], dtype=nodes.dtype, device=nodes.device))


def _place(spec: Any, group: Group, factor: Group, head: str | Head) -> _Place:
    """The node axis and the space that a factor stands beside in the inputs, and how many numbers it takes."""
    # 1. what stands beside it, the factors of p first: what p does not cover must not be told apart
    axes: list[NodeAxis] = []
    spaces: list[Group] = []
    for rep in leaves(spec).values():
        slots = [slot for slot, _ in rep.axes]
        if factor not in [slot.group for slot in slots]:
            continue
        axes += [slot.group for slot in slots if slot.role in ("nodes", "labels", "edges")]  # type: ignore[misc]
        spaces += [slot.group for slot in slots if slot.group.isometric and slot.group in group.factors]
    axes.sort(key=lambda axis: axis.trivial)

    # 2. scores belong to the axis itself, rotations to the space
    if factor.feature_kind == "scores":
        return _Place(factor, factor, spaces[0] if spaces else None, 1)  # type: ignore[arg-type]
    dim: int = factor.dim  # type: ignore[attr-defined]
    chosen = _head_for(head, factor)
    outputs = dim * dim if chosen is None else chosen.size(len(turned_axes(factor)))
    return _Place(factor, axes[0] if axes else None, factor, outputs)


def _coordinates(x: Inputs, place: _Place, seen: NodeFeatures) -> Tensor:
    """All that is seen of each node as channels (B, N, F), in a ragged batch (1, sum N, F)."""
    b, n = seen.shape
    parts: list[Tensor] = [torch.ones(b, n, 1, dtype=x.dtype, device=x.device)]
    if seen.scalars is not None:
        parts.append(seen.scalars.expand(b, n, -1))
    if seen.vectors is not None:
        parts.append(seen.vectors.flatten(2).expand(b, n, -1))
    if seen.pairs is not None:
        parts.append(_pair_means(seen.pairs, seen.mask))
    if seen.edges is not None:
        count = seen.edges.kind.new_zeros(b * n, seen.edges.kind.shape[-1])
        parts.append(count.index_add(0, seen.edges.end, seen.edges.kind).unflatten(0, (b, n)))
    if place.axis is not None and place.axis == place.factor:
        parts.append(_ranks(x.layouts[place.axis], seen.mask, x.device).expand(b, n, 1))
    return torch.cat([part.to(x.dtype) for part in parts], -1)


def _pair_means(pairs: Tensor, mask: Where) -> Tensor:
    """What the pairs (B, N, N, P) of a node hold on average, in both directions: (B, N, 2 P)."""
    if isinstance(mask, Tensor):
        pairs = keep(pairs, mask.unsqueeze(2) & mask.unsqueeze(1))
    n = max(pairs.shape[1], 1)
    return torch.cat([pairs.sum(1), pairs.sum(2)], -1) / n


def _ranks(layout: Layout, where: Where, device: torch.device) -> Tensor:
    """The place of each node in the order of its graph, between 0 and 1: (1 or B, N, 1), packed (1, sum N, 1)."""
    if isinstance(where, Segments):
        rank = layout.position % max(layout.padded_size, 1)
        return ((rank + 0.5) / where.sizes[where.index])[None, :, None]
    rank = torch.arange(layout.padded_size, device=device) + 0.5
    if not layout.uneven:
        return (rank / max(layout.size, 1))[None, :, None]
    return (rank / layout.sizes.clamp_min(1)[:, None])[..., None]
