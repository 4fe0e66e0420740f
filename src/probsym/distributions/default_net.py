"""The net that `distribution="learned"` and `"canonical"` take when none is given, chosen by the declared Reps."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from probsym.distributions.features import NodeFeatures, Viewpoint
from probsym.distributions.geometry import centroid
from probsym.groups import E, Group, LinearGroup, NodeAxis, S
from probsym.nets import GIN, DeepSets, InvariantWeights
from probsym.reps import Inputs, Signature, leaves


@dataclass(frozen=True)
class _View:
    """One net's place: the factors it serves, and the node axis and space from which it sees the inputs."""

    axis: NodeAxis | None
    space: LinearGroup | None
    scores: bool


class DefaultNet(nn.Module):
    """Ambient features for every factor, from nets that see all declared inputs.

    Any space gives `InvariantWeights` on the node axis that carries its vectors, with the scores of that axis from a
    joint head; another S_n with pair inputs gives a GIN, without them DeepSets. Channel counts are fixed by the first
    call.

    Args:
        spec: Reps of the inputs. group: the factors to serve.
    """

    reads_only = True  # it never writes into its arguments, which need not be copied for it

    def __init__(self, spec: Any, group: Group) -> None:
        super().__init__()
        strange = [f for f in group.factors if not isinstance(f, LinearGroup | NodeAxis)]
        if strange:
            raise ValueError(
                f"no default net orients by {strange[0]!r}: give Learned or Canonical a net that returns features of "
                f"shape (B, ...) along {', '.join(map(repr, strange[0].ambient))}, or use Haar"
            )
        self.signature = Signature(spec)
        self.views = _views(spec, group)
        self.viewpoints = [Viewpoint(self.signature, view.axis, view.space) for view in self.views]
        self.nets = nn.ModuleList(_net(spec, view) for view in self.views)

    def forward(self, *args: Any, **kwargs: Any) -> dict[Group, Any]:
        """The arguments of the model -> {S: scores (B, N), O: vectors (B, D, D), E: (centroid, vectors)}."""
        x = Inputs.bind(self.signature, args, kwargs)
        found: dict[Group, Any] = {}
        for view, viewpoint, net in zip(self.views, self.viewpoints, self.nets, strict=True):
            seen = _cast(viewpoint.read(x), next(net.parameters()).dtype)
            if view.space is None:
                found[view.axis] = self._scores(x, view.axis, self._graph(net, seen))  # type: ignore[index, arg-type]
                continue
            if seen.vectors is None:
                raise ValueError(f"no input holds points or vectors of {view.space!r}: nothing to orient it by")
            scores, frame = net(seen.vectors, seen.scalars, seen.pairs, seen.mask)
            space = view.space
            found[space] = frame
            if isinstance(space, E):
                found[space] = (seen.origins[space] if space in seen.origins else centroid(x, space), frame)
            if view.scores:
                found[view.axis] = self._scores(x, view.axis, scores)  # type: ignore[index, arg-type]
        return found

    def _graph(self, net: nn.Module, seen: NodeFeatures) -> Tensor:
        if isinstance(net, GIN):
            return net(seen.scalars, seen.pairs, seen.mask).squeeze(-1)
        return net(seen.scalars, seen.mask).squeeze(-1)

    def _scores(self, x: Inputs, axis: NodeAxis, scores: Tensor) -> Tensor:
        return x.layouts[axis].unpad(scores, 0)


def _views(spec: Any, group: Group) -> tuple[_View, ...]:
    reps = leaves(spec).values()
    views: list[_View] = []
    served: set[Group] = set()
    for space in (f for f in group.factors if isinstance(f, LinearGroup)):
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


def _net(spec: Any, view: _View) -> nn.Module:
    if view.space is not None:
        return InvariantWeights(scores=view.scores)
    paired = any(
        rep.labelled == view.axis or sum(slot.group == view.axis for slot, _ in rep.axes) > 1
        for rep in leaves(spec).values()
    )
    return GIN() if paired else DeepSets()


def _cast(seen: NodeFeatures, dtype: torch.dtype) -> NodeFeatures:
    parts = {key: getattr(seen, key) for key in ("scalars", "vectors", "pairs")}
    other = {key: value.to(dtype) for key, value in parts.items() if value is not None and value.dtype != dtype}
    return replace(seen, **other) if other else seen
