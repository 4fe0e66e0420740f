"""The net that `distribution="learned"` and `"canonical"` take when none is given, chosen by the declared Reps."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from probsym.distributions.features import NodeFeatures, Viewpoint
from probsym.distributions.geometry import centroid
from probsym.groups import Group
from probsym.groups.orthogonal import in_space
from probsym.kernels.orthonormal import tolerance
from probsym.kernels.values import may_peek, readable, recorded
from probsym.members import register
from probsym.nets import GIN, DeepSets, FormWeights, InvariantWeights, MomentWeights
from probsym.nets.masking import EdgeList, Segments, mean, spread
from probsym.nets.rounding import uncertain
from probsym.reps import Inputs, NodeAxis, Signature, leaves

NetBuilder: TypeAlias = Callable[[Group, bool], nn.Module]
"""Makes the net of a group: (group, whether it also gives scores of the nodes) -> module."""

NETS: dict[str, NetBuilder] = {}
"""The nets that orient by features of other kinds than scores and columns, by `feature_kind`; `net_for` fills it."""


def net_for(kind: str) -> Callable[[NetBuilder], NetBuilder]:
    """Give the groups of one `feature_kind` a default net, so that "learned" and "canonical" serve them; a decorator.

    The net is called with what the inputs hold along the defining slot of the group, and what nodes know beside it:

        net(vectors (B, N, D, C), scalars (B, N, F) or None, mask) -> (scores (B, N) or None, features of `project`)

    N is 1 where no node axis carries the vectors. Of a ragged batch the nodes lie one after the other, (1, sum N, ...),
    and the mask is `nets.masking.Segments`; else it is (B, N) or None. The vectors are as they came, in the dtype of
    the inputs; scalars are in the dtype of the net. A method `rounding(vectors, mask)`, if it has one, tells the
    relative rounding (B,) of the invariants that the scores are made of, where that is more than one of their dtype:
    what differs by less is a tie.

    Raises:
        ValueError: the kind has a net already.
    """

    def decorate(builder: NetBuilder) -> NetBuilder:
        other = NETS.get(kind)
        # A module that is loaded again defines the same builder once more.
        if other is not None and (other.__module__, other.__qualname__) != (builder.__module__, builder.__qualname__):
            raise ValueError(f"kind: {kind!r} has a net already, made by {other.__module__}.{other.__qualname__}")
        NETS[kind] = builder
        return builder

    return decorate


@net_for("four-vectors")
def _four_vectors(group: Group, scores: bool) -> nn.Module:
    # a momentum that says where it is at rest, and three more that say a rotation there
    return FormWeights("lorentz", columns=4, scores=scores)


@net_for("complex columns")
def _complex_columns(group: Group, scores: bool) -> nn.Module:
    (slot, _) = group.feature_slots
    columns = 1 if slot is None else slot.sizes[0] or 1
    return FormWeights("hermitian", columns=columns, scores=scores)


BUILDING = threading.RLock()
COVERED_ROUNDING_IN_EPS = 16  # of scores: their common size, which they are lifted by, covers as much already


@dataclass(frozen=True)
class _View:
    """One net's place: the factors it serves, and the node axis and space from which it sees the inputs."""

    axis: NodeAxis | None
    space: Group | None
    scores: bool


@register
class DefaultNet(nn.Module):
    """Ambient features for every factor, from nets that see all declared inputs.

    Any space gives a net on the node axis that carries its vectors, with the scores of that axis from a joint head:
    `InvariantWeights` if an input holds pairs of these nodes, else `MomentWeights`, whose cost is linear in the nodes
    and edges. Groups of other kinds have nets of theirs (`net_for`): Lorentz, U and SU `FormWeights`. Another S_n with
    pairs or edges gives a GIN, without them DeepSets. Channel counts are fixed by the first call, which may come from
    several threads at once or under `torch.inference_mode`. Ragged batches are never padded.

    Args:
        spec: Reps of the inputs. group: the factors to serve.
        version: of nets as models were saved with them. 1 had no `MomentWeights`, and looked at all pairs of nodes; 1
            and 2 had a virtual node in each GIN.
    """

    reads_only = True  # it never writes into its arguments, which need not be copied for it

    def __init__(self, spec: Any, group: Group, version: int = 3) -> None:
        super().__init__()
        for f in group.factors:
            if f.feature_kind not in ("scores", "columns", *NETS) and not f.trivial:
                other_way = ", or use Haar" if f.compact else ""
                raise ValueError(
                    f"no default net orients by {f!r}: give Learned or Canonical a net that returns features of "
                    f"shape (B, ...) along {', '.join(map(repr, f.feature_slots))}{other_way}"
                )
        if version not in (1, 2, 3):
            raise ValueError(f"version: expected 1, 2 or 3, got {version!r}; a newer release of probsym may know it")
        self.spec = spec
        self.group = group
        self.version = version
        self.signature = Signature(spec)
        self.views = _views(spec, group)
        self.viewpoints = [Viewpoint(self.signature, view.axis, view.space) for view in self.views]
        self.nets = nn.ModuleList()
        for view, viewpoint in zip(self.views, self.viewpoints, strict=True):
            self.nets.append(_net(spec, view, viewpoint, version))
        self.built = False

    def declares(self, x: Inputs) -> bool:
        """Whether a bound call has the Reps that this net was made for, so that the net can read it as it is.

        False while a compiler records, which cannot compare containers: the net then binds the arguments again.
        """
        return not recorded() and x.signature.spec == self.signature.spec

    def forward(self, *args: Any, **kwargs: Any) -> dict[Group, Any]:
        """The arguments of the model -> {S: scores (B, N), O: vectors (B, D, D), E: (centroid, vectors)}.

        Args:
            args, kwargs: the arguments of the model; or bound `Inputs` alone, which are not bound a second time.
        """
        bound = len(args) == 1 and isinstance(args[0], Inputs)
        x = args[0] if bound else Inputs.bind(self.signature, args, kwargs)
        # Layers are made from new tensors: within a function transform these would belong to it.
        buildable = not self.built and x.readable and readable(torch.empty(0))
        if not self.built and not buildable:
            self._refuse_unbuilt()

        # 1. the inputs as each net sees them
        seen: list[NodeFeatures] = []
        for view, viewpoint, net in zip(self.views, self.viewpoints, self.nets, strict=True):
            seen.append(self._see(x, view, viewpoint, net))
        if buildable:
            self._build(seen)

        # 2. what each net makes of them, by factor
        z: dict[Group, Any] = {}
        for view, net, features in zip(self.views, self.nets, seen, strict=True):
            scores, frame = _called(net, features)
            if frame is not None and view.space is not None:
                frame = in_space(frame, view.space)
                z[view.space] = frame
                if view.space.anchored:
                    origin = features.origins.get(view.space)
                    if origin is None:
                        origin = centroid(x, view.space)
                    z[view.space] = (origin, frame)
            if view.scores and view.axis is not None and scores is not None:
                z[view.axis] = self._scores(x, view.axis, features, scores)
        return z

    def _see(self, x: Inputs, view: _View, viewpoint: Viewpoint, net: nn.Module) -> NodeFeatures:
        """The inputs from one viewpoint, in the dtype of its net."""
        seen = viewpoint.read(x, sparse=not (isinstance(net, InvariantWeights) or viewpoint.paired))
        if view.space is not None and seen.vectors is None:
            raise ValueError(f"no input holds points or vectors of {view.space!r}: nothing to orient it by")
        if view.space is not None and view.space.feature_kind in NETS:
            kept = seen.vectors
            seen = replace(_cast(replace(seen, vectors=None), next(net.parameters()).dtype), vectors=kept)
            rounding = getattr(net, "rounding", None)
            if rounding is not None:
                seen = replace(seen, rounding=rounding(kept, seen.mask))
            return seen
        if isinstance(net, DeepSets) and seen.scalars is None:
            raise ValueError(
                f"no input tells the nodes of {view.axis!r} apart that the default net can see (node axes, points and "
                "vectors): give Learned or Canonical a net of your own, or use Haar"
            )
        return _cast(seen, next(net.parameters()).dtype)

    def _refuse_unbuilt(self) -> None:
        """A compiler or exporter cannot follow how lazy layers are made."""
        if any(isinstance(p, nn.UninitializedParameter) for p in self.parameters()):
            raise ValueError(
                "the default net of p is not built yet, which cannot be compiled: pass example= to symmetrize, a "
                "sample input that fixes its channel counts, or call the model once before"
            )

    def _build(self, seen: list[NodeFeatures]) -> None:
        """Fix the channel counts of lazy layers, by a call with zeros of one node.

        Parameters that are made in inference mode could not be trained later.
        """
        with BUILDING, torch.inference_mode(False), torch.no_grad():
            if self.built:
                return
            for net, features in zip(self.nets, seen, strict=True):
                if any(isinstance(p, nn.UninitializedParameter) for p in net.parameters()):
                    _called(net, _single(features))
            self.built = True

    def _scores(self, x: Inputs, axis: NodeAxis, seen: NodeFeatures, scores: Tensor) -> Tensor:
        """Scores in the layout of the inputs, so large that what rounding tells apart is equal next to their size.

        Who sorts them knows the rounding of their own dtype alone, not that of the coordinates and of the net.
        """
        layout = x.layouts[axis]
        packed = isinstance(seen.mask, Segments)
        eps = torch.finfo(x.dtype).eps
        error = torch.finfo(scores.dtype).eps
        known = error <= eps and (seen.rounding is None or _below(seen.rounding, COVERED_ROUNDING_IN_EPS * eps))
        scores = scores.to(x.dtype)
        if not known:
            rounding = scores.new_zeros(x.count) if seen.rounding is None else seen.rounding.to(x.dtype)
            with torch.no_grad():
                shift = mean(scores.abs(), seen.mask) * uncertain(scores, rounding + error)
            scores = torch.add(scores, spread(shift, seen.mask), alpha=1 / tolerance(x.dtype))
        if packed:
            return scores.squeeze(0)
        return layout.unpad(scores, 0)


def _below(x: Tensor, limit: float) -> bool:
    """Whether all are below a limit, where it may be asked."""
    return may_peek(x) and (not x.numel() or float(x.max()) < limit)


def _views(spec: Any, group: Group) -> tuple[_View, ...]:
    """One view for each space, on a node axis that carries it, and one for each S that no space serves along."""
    views: list[_View] = []
    served: set[Group] = set()
    for space in group.factors:
        if space.feature_kind not in ("columns", *NETS):
            continue
        axis = _carrier(spec, space)
        joint = axis is not None and axis.feature_kind == "scores" and axis in group.factors and axis not in served
        views.append(_View(axis, space, joint))
        if joint:
            served.add(axis)  # type: ignore[arg-type]
    alone = [f for f in group.factors if f.feature_kind == "scores" and f not in served]
    views += [_View(axis, None, True) for axis in alone]  # type: ignore[arg-type]
    return tuple(views)


def _carrier(spec: Any, space: Group) -> NodeAxis | None:
    """The node axis whose nodes have points or vectors of a space; one that is permuted before one that is not."""
    axes: list[NodeAxis] = []
    for rep in leaves(spec).values():
        if space not in rep.group.factors:
            continue
        for slot, _ in rep.axes:
            if slot.role in ("nodes", "labels", "edges"):
                axes.append(slot.group)  # type: ignore[arg-type]
    for axis in axes:
        if not axis.trivial:
            return axis
    if not axes:
        return None
    return axes[0]


def _net(spec: Any, view: _View, viewpoint: Viewpoint, version: int) -> nn.Module:
    """The net of one view, see `DefaultNet`."""
    if view.space is not None and view.space.feature_kind in NETS:
        return NETS[view.space.feature_kind](view.space, view.scores)
    if view.space is not None and (viewpoint.paired or version == 1):
        return InvariantWeights(scores=view.scores)
    if view.space is not None:
        return MomentWeights(scores=view.scores, messages=viewpoint.labelled)
    # an axis of nodes alone: GIN where an input tells of edges or pairs of them
    for rep in leaves(spec).values():
        own_axes = [slot for slot, _ in rep.axes if slot.group == view.axis]
        if rep.labelled == view.axis or len(own_axes) > 1:
            if version < 3:
                return GIN()
            return GIN(pooling="mean")
    return DeepSets()


def _called(net: nn.Module, seen: NodeFeatures) -> tuple[Tensor | None, Tensor | None]:
    """Scores (B, N) and frame (B, D, D) of a net, None where it has none."""
    if isinstance(net, MomentWeights):
        return net(seen.vectors, seen.scalars, seen.edges, seen.mask, seen.rounding)
    if isinstance(net, InvariantWeights):
        return net(seen.vectors, seen.scalars, seen.pairs, seen.mask, seen.rounding)
    if isinstance(net, GIN):
        pairs = seen.pairs if seen.edges is None else seen.edges
        return net(seen.scalars, pairs, seen.mask, seen.shape).squeeze(-1), None
    if isinstance(net, DeepSets):
        return net(seen.scalars, seen.mask).squeeze(-1), None
    return net(seen.vectors, seen.scalars, seen.mask)


def _single(seen: NodeFeatures) -> NodeFeatures:
    """One node with as many features, all zero, and no edges."""

    def zeros(x: Tensor | None, *front: int) -> Tensor | None:
        if x is None:
            return None
        return torch.zeros(*front, *x.shape[len(front) :], dtype=x.dtype, device=x.device)

    edges = None
    if seen.edges is not None:
        nothing = torch.zeros(0, dtype=torch.long, device=seen.edges.kind.device)
        edges = EdgeList(nothing, nothing, torch.zeros_like(seen.edges.kind[:0]))
    return NodeFeatures(
        scalars=zeros(seen.scalars, 1, 1),
        vectors=zeros(seen.vectors, 1, 1),
        pairs=zeros(seen.pairs, 1, 1, 1),
        edges=edges,
        mask=None,
        origins={},
        shape=(1, 1),
    )


def _cast(seen: NodeFeatures, dtype: torch.dtype) -> NodeFeatures:
    """The features in the dtype of a net."""
    changed: dict[str, Any] = {}
    for name in ("scalars", "vectors", "pairs"):
        value = getattr(seen, name)
        if value is not None and value.dtype != dtype:
            changed[name] = value.to(dtype)
    if seen.edges is not None and seen.edges.kind.dtype != dtype:
        changed["edges"] = replace(seen.edges, kind=seen.edges.kind.to(dtype))
    if not changed:
        return seen
    return replace(seen, **changed)
