"""What the frames need to know of the inputs, by factor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from probsym.distributions.frames.columns import read_columns
from probsym.distributions.frames.directions import SpaceView
from probsym.distributions.frames.node_keys import NodeView, view_nodes
from probsym.distributions.frames.principal_axes import principal_axes
from probsym.distributions.geometry import pieces
from probsym.groups import IsometryGroup
from probsym.reps import Inputs, Leaf, NodeAxis


@dataclass(frozen=True, eq=False)
class Views:
    """The inputs as seen from every factor (B batch).

    Args:
        none: (B,), false: no input.
        spaces: by space; nodes: by node axis.
    """

    none: Tensor
    spaces: dict[IsometryGroup, SpaceView]
    nodes: dict[NodeAxis, NodeView]

    @property
    def continuous_stabilizer(self) -> Tensor:
        """Inputs that a continuous group leaves alone: collinear or coincident points (B,)."""
        result = self.none
        for view in self.spaces.values():
            result = result | (view.axes.null > 1)
        return result

    @property
    def degenerate(self) -> Tensor:
        """Inputs whose frames are not the signs of distinct axes with an order of distinct keys (B,)."""
        result = self.none
        for view in self.spaces.values():
            result = result | view.axes.degenerate
        for nodes in self.nodes.values():
            result = result | nodes.tied
        return result

    @property
    def unsure(self) -> Tensor:
        """Inputs of which rounding decides the axes of a space or the equal nodes (B,)."""
        result = self.none
        for view in self.spaces.values():
            result = result | view.axes.unsure
        for nodes in self.nodes.values():
            result = result | nodes.unsure
        return result


def view_inputs(x: Inputs, spaces: Sequence[IsometryGroup], nodes: Sequence[NodeAxis], spread: bool = False) -> Views:
    """The views of all factors, in float64.

    NaN and infinity are read as zero: they spoil the output of their own input, not the frames of others.

    Args:
        spread: as in `SpaceView`.
    """
    eps = {}
    for leaf in x.leaves.values():
        for piece in pieces(leaf):
            if piece.value.is_floating_point():
                eps[piece.name] = torch.finfo(piece.value.dtype).eps
    wide = x.map(_widened)
    space_views = {}
    for space in spaces:
        data, origin = read_columns(wide, space, eps)
        space_views[space] = SpaceView(space, data, principal_axes(data), origin, spread)
    node_views = {axis: view_nodes(wide, axis, eps) for axis in nodes}
    none = torch.zeros(x.count, dtype=torch.bool, device=x.device)
    return Views(none, space_views, node_views)


def _widened(leaf: Leaf) -> Tensor:
    if not leaf.value.is_floating_point():
        return leaf.value
    return leaf.value.double().nan_to_num(0.0, 0.0, 0.0)
