"""The net that `distribution="learned"` and `"canonical"` take when none is given, chosen by the declared Reps."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from probsym.distributions.features import NodeFeatures, Viewpoint
from probsym.distributions.geometry import centroid
from probsym.groups import E, Group, IsometryGroup, NodeAxis, S
from probsym.kernels.orthonormal import tolerance
from probsym.kernels.values import may_peek, traced
from probsym.members import register
from probsym.nets import GIN, DeepSets, InvariantWeights, MomentWeights
from probsym.nets.masking import EdgeList, Segments, mean, spread
from probsym.nets.rounding import uncertain
from probsym.reps import Inputs, Signature, leaves

BUILDING = threading.RLock()
SMALL = 16  # times the eps of scores: rounding that their common size, which they are lifted by, covers already


@dataclass(frozen=True)
class _View:
    """One net's place: the factors it serves, and the node axis and space from which it sees the inputs."""

    axis: NodeAxis | None
    space: IsometryGroup | None
    scores: bool


@register
class DefaultNet(nn.Module):
    """Ambient features for every factor, from nets that see all declared inputs.

    Any space gives a net on the node axis that carries its vectors, with the scores of that axis from a joint head:
    `InvariantWeights` if an input holds pairs of these nodes, else `MomentWeights`, whose cost is linear in the nodes
    and edges. Another S_n with pairs or edges gives a GIN, without them DeepSets. Channel counts are fixed by the first
    call, which may come from several threads at once or under `torch.inference_mode`. Ragged batches are never padded.

    Args:
        spec: Reps of the inputs. group: the factors to serve.
        version: 1 rebuilds the net of models saved before `MomentWeights`, which looked at all pairs of nodes.
    """

    reads_only = True  # it never writes into its arguments, which need not be copied for it

    def __init__(self, spec: Any, group: Group, version: int = 2) -> None:
        super().__init__()
        strange = [f for f in group.factors if not isinstance(f, IsometryGroup | NodeAxis)]
        if strange:
            raise ValueError(
                f"no default net orients by {strange[0]!r}: give Learned or Canonical a net that returns features of "
                f"shape (B, ...) along {', '.join(map(repr, strange[0].noise_slots))}, or use Haar"
            )
        if version not in (1, 2):
            raise ValueError(f"version: expected 1 or 2, got {version!r}; a newer release of probsym may know it")
        self.spec = spec
        self.group = group
        self.version = version
        self.signature = Signature(spec)
        self.views = _views(spec, group)
        self.viewpoints = [Viewpoint(self.signature, view.axis, view.space) for view in self.views]
        places = zip(self.views, self.viewpoints, strict=True)
        self.nets = nn.ModuleList(_net(spec, view, viewpoint, version) for view, viewpoint in places)
        self.built = False

    def forward(self, *args: Any, **kwargs: Any) -> dict[Group, Any]:
        """The arguments of the model -> {S: scores (B, N), O: vectors (B, D, D), E: (centroid, vectors)}."""
        if not self.built and traced():
            self._refuse_unbuilt()
        x = Inputs.bind(self.signature, args, kwargs)
        seen = [self._see(x, *place) for place in zip(self.views, self.viewpoints, self.nets, strict=True)]
        if not self.built and not traced():
            self._build(seen)
        found: dict[Group, Any] = {}
        for view, net, features in zip(self.views, self.nets, seen, strict=True):
            scores, frame = _called(net, features)
            if frame is not None:
                space = view.space
                found[space] = frame  # type: ignore[index]
                if isinstance(space, E):
                    origins = features.origins
                    found[space] = (origins[space] if space in origins else centroid(x, space), frame)
            if view.scores:
                found[view.axis] = self._scores(x, view.axis, features, scores)  # type: ignore[index, arg-type]
        return found

    def _see(self, x: Inputs, view: _View, viewpoint: Viewpoint, net: nn.Module) -> NodeFeatures:
        """The inputs from one viewpoint, in the dtype of its net."""
        seen = viewpoint.read(x, sparse=not (isinstance(net, InvariantWeights) or viewpoint.paired))
        if view.space is not None and seen.vectors is None:
            raise ValueError(f"no input holds points or vectors of {view.space!r}: nothing to orient it by")
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
        known = error <= eps and (seen.rounding is None or _below(seen.rounding, SMALL * eps))
        scores = scores.to(x.dtype)
        if not known:
            rounding = scores.new_zeros(x.count) if seen.rounding is None else seen.rounding.to(x.dtype)
            with torch.no_grad():
                share = uncertain(scores, rounding + error) / tolerance(x.dtype)
                shift = mean(scores.abs(), seen.mask) * share
            scores = scores + spread(shift, seen.mask)
        return scores.squeeze(0) if packed else layout.unpad(scores, 0)


def _below(x: Tensor, limit: float) -> bool:
    """Whether all are below a limit, where it may be asked."""
    return may_peek(x) and (not x.numel() or float(x.max()) < limit)


def _views(spec: Any, group: Group) -> tuple[_View, ...]:
    reps = leaves(spec).values()
    views: list[_View] = []
    served: set[Group] = set()
    for space in (f for f in group.factors if isinstance(f, IsometryGroup)):
        carriers = [
            slot.group
            for rep in reps
            if space in rep.group.factors
            for slot, _ in rep.axes
            if isinstance(slot.group, NodeAxis)
        ]
        axis = next(iter(sorted(carriers, key=lambda a: not isinstance(a, S))), None)
        joint = isinstance(axis, S) and axis in group.factors and axis not in served
        views.append(_View(axis, space, joint))
        served |= {axis} if joint and axis is not None else set()
    views += [_View(f, None, True) for f in group.factors if isinstance(f, S) and f not in served]
    return tuple(views)


def _net(spec: Any, view: _View, viewpoint: Viewpoint, version: int) -> nn.Module:
    if view.space is not None and (viewpoint.paired or version == 1):
        return InvariantWeights(scores=view.scores)
    if view.space is not None:
        return MomentWeights(scores=view.scores, messages=viewpoint.labelled)
    paired = any(
        rep.labelled == view.axis or sum(slot.group == view.axis for slot, _ in rep.axes) > 1
        for rep in leaves(spec).values()
    )
    return GIN() if paired else DeepSets()


def _called(net: nn.Module, seen: NodeFeatures) -> tuple[Tensor | None, Tensor | None]:
    """Scores (B, N) and frame (B, D, D) of a net, None where it has none."""
    if isinstance(net, MomentWeights):
        return net(seen.vectors, seen.scalars, seen.edges, seen.mask, seen.rounding)
    if isinstance(net, InvariantWeights):
        return net(seen.vectors, seen.scalars, seen.pairs, seen.mask, seen.rounding)
    if isinstance(net, GIN):
        pairs = seen.pairs if seen.edges is None else seen.edges
        return net(seen.scalars, pairs, seen.mask, seen.shape).squeeze(-1), None
    return net(seen.scalars, seen.mask).squeeze(-1), None


def _single(seen: NodeFeatures) -> NodeFeatures:
    """One node with as many features, all zero, and no edges."""

    def zeros(x: Tensor | None, *front: int) -> Tensor | None:
        return None if x is None else torch.zeros(*front, *x.shape[len(front) :], dtype=x.dtype, device=x.device)

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
    parts = {key: getattr(seen, key) for key in ("scalars", "vectors", "pairs")}
    other = {key: value.to(dtype) for key, value in parts.items() if value is not None and value.dtype != dtype}
    if seen.edges is not None and seen.edges.kind.dtype != dtype:
        other["edges"] = replace(seen.edges, kind=seen.edges.kind.to(dtype))
    return replace(seen, **other) if other else seen
