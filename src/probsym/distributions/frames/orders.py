"""The order of the nodes where keys leave some of them equal: the completion for S_n.

One function per rule; `arrange` applies them in this order:

| degeneracy                                | rule                    | enumerated        | sampled         |
|-------------------------------------------|-------------------------|-------------------|-----------------|
| none: all keys differ                     | `node_keys.view_nodes`  | nothing           | nothing         |
| equal keys, nodes with points or vectors  | `_split_by_coordinates` | nothing           | nothing         |
| still equal: symmetric graphs, coincident | `_put_first`, as often  | each node of the  | one of them     |
| points                                    | as needed               | first such class  |                 |
| still equal after log2(`max_support`)     | `_sort_by_noise`        | never             | all orders      |
| such choices                              |                         |                   |                 |
"""

from __future__ import annotations

import torch
from torch import Tensor

from probsym.distributions.frames.node_keys import NodeView, generic_weights
from probsym.distributions.frames.partitions import split, split_and_check, tied
from probsym.distributions.frames.search import Listing, Paths
from probsym.distributions.frames.tolerances import coordinate_tolerance, key_tolerance
from probsym.groups import IsometryGroup

# Below all relations, which are of order one: the node that was put first comes first.
FIRST_RELATION = -1e3


def arrange(paths: Paths, view: NodeView) -> None:
    """Choose an order of the nodes for every path: `paths.orders[axis]`, the place of every node (R, N).

    Noise decides between nodes when orders are drawn. A class is part of an earlier one, less the node that won there,
    so its members are exchangeable and the choice is uniform.
    """
    # 1. the order of the keys
    paths.orders[view.axis] = view.classes[paths.owner]

    # 2. coordinates in the frames already chosen
    if bool(tied(paths.orders[view.axis]).any()):
        for space, vectors in view.vectors.items():
            if space in paths.spaces:
                _split_by_coordinates(paths, view, space, vectors)

    # 3. one node after the other
    for _ in range(paths.rounds):
        if not bool(tied(paths.orders[view.axis]).any()):
            return
        _put_first(paths, view)

    # 4. a listing has given up all that is still tied now
    if not isinstance(paths, Listing):
        _sort_by_noise(paths, view)


def _split_by_coordinates(paths: Paths, view: NodeView, space: IsometryGroup, vectors: Tensor) -> None:
    """Tell equal nodes apart by a generic function, of order one, of their coordinates in the chosen frame."""
    state = paths.spaces[space]
    local = torch.einsum("rndc,rde->rnec", vectors[paths.owner], state.matrix.detach()).flatten(2)
    coordinate = local @ generic_weights(local.shape[-1], 0.5, local.device)
    error = view.error[paths.owner] + state.error
    tolerance, slack = coordinate_tolerance(error, view.eps)
    classes, unsure = split_and_check(paths.orders[view.axis], coordinate, tolerance, slack)
    paths.orders[view.axis] = classes
    paths.suspect(unsure)


def _put_first(paths: Paths, view: NodeView) -> None:
    """Choose a node of the first class that has several, and split all classes by their relation to it.

    A cycle of n nodes has 2n orders: n for the first node, two for its neighbours, whose relations to it are equal.
    """
    # 1. the first class with several nodes; for paths without one the last option, none of them
    classes = paths.orders[view.axis]
    members = torch.zeros_like(classes).scatter_add_(-1, classes, torch.ones_like(classes))
    several = members.gather(-1, classes) > 1
    first = classes.masked_fill(~several, classes.shape[-1]).amin(-1, keepdim=True)
    options = torch.nn.functional.pad(classes == first, (0, 1))
    options[:, -1] = ~several.any(-1)

    # 2. one of its nodes
    preference = None
    if not isinstance(paths, Listing):
        preference = torch.nn.functional.pad(_noise_of_nodes(paths, view), (0, 1))
    choice = paths.choose(options, preference)

    # 3. its relations to the others split all classes
    classes = paths.orders[view.axis]
    count = classes.shape[-1]
    value = view.relations_to(paths.owner, choice.option.clamp_max(count - 1))
    chosen = torch.arange(count, device=classes.device) == choice.option[:, None]
    value = value.masked_fill(chosen, FIRST_RELATION)
    tolerance, slack = key_tolerance(view.error[paths.owner], view.eps)
    paths.orders[view.axis], unsure = split_and_check(classes, value, tolerance, slack)
    paths.suspect(unsure)


def _sort_by_noise(paths: Paths, view: NodeView) -> None:
    """Put nodes that are still equal in the order of their noise."""
    below_any_gap = torch.full_like(paths.weight, -1.0)
    paths.orders[view.axis] = split(paths.orders[view.axis], _noise_of_nodes(paths, view), below_any_gap)


def _noise_of_nodes(paths: Paths, view: NodeView) -> Tensor:
    """The noise of every node (R, N)."""
    if paths.noise is None:
        raise RuntimeError("orders are drawn by noise")
    return paths.noise.nodes[view.axis][paths.draw]
