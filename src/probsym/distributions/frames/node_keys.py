"""Keys by which the nodes of S_n are sorted, and relations that tell further nodes apart.

After the Laplacian sort frame of Puny et al. (arXiv 2110.03336), which sorts by the diagonals of the spectral
projectors of the graph Laplacian. `reference.laplacian_keys` is the same for one generic graph.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from probsym.distributions.features import node_features
from probsym.distributions.frames.partitions import split, split_and_check, tied
from probsym.distributions.frames.tolerances import ZERO_LENGTH_IN_EPS, key_tolerance
from probsym.distributions.geometry import (
    centred,
    centroid,
    columns,
    dense,
    is_point,
    node_axes,
    pieces,
    put_together,
    size,
    spatial,
)
from probsym.groups import IsometryGroup
from probsym.groups.orthogonal import turned_axes
from probsym.reps import Inputs, Leaf, NodeAxis


@dataclass(frozen=True, eq=False)
class Relations:
    """A number for each pair of nodes, of inputs of similar size.

    Args:
        inputs: (b,), which inputs these are.
        value: (b, n, n), zero on padding.
    """

    inputs: Tensor
    value: Tensor


@dataclass(frozen=True, eq=False)
class NodeView:
    """What a frame needs to know of the inputs on one node axis (B batch, N nodes, D space, C channels).

    Args:
        axis: the factor.
        keys: (B, N), what the nodes are sorted by; zero on padding.
        classes: (B, N), nodes with equal keys share a number, ascending with the key; padding has numbers of its own.
        relations: of each pair of nodes, by size of the inputs.
        vectors: points and vectors of the nodes by space (B, N, D, C), centred and of unit size.
        error: (B,), relative rounding of the points and vectors.
        eps: of their coarsest dtype.
        unsure: (B,), whether rounding decides which keys are equal.
    """

    axis: NodeAxis
    keys: Tensor
    classes: Tensor
    relations: list[Relations]
    vectors: dict[IsometryGroup, Tensor]
    error: Tensor
    eps: float
    unsure: Tensor

    @property
    def tied(self) -> Tensor:
        """Inputs with nodes of equal keys (B,)."""
        return tied(self.classes)

    def relations_to(self, owner: Tensor, node: Tensor) -> Tensor:
        """The relations of all nodes to one node (R,) of an input (R,): (R, N), zero on padding; any for no node."""
        result = torch.zeros(len(owner), self.classes.shape[1], dtype=torch.float64, device=owner.device)
        for part in self.relations:
            # the place of each input in this part, -1 for those of others
            place = torch.full_like(self.error, -1, dtype=torch.long)
            place = place.index_put((part.inputs,), torch.arange(len(part.inputs), device=owner.device))[owner]
            rows = (place >= 0).nonzero().squeeze(-1)
            if len(rows):
                n = part.value.shape[1]
                result[rows, :n] = part.value[place[rows], node[rows].clamp_max(n - 1)]
        return result


def view_nodes(x: Inputs, axis: NodeAxis, eps: Mapping[str, float]) -> NodeView:
    """Keys and pair relations of the nodes, invariant to every other group.

    All pair inputs, and for each space the scalar products of the points and vectors, add up to one matrix Q of generic
    weights; scalars of the nodes, s, go on the diagonal,

        M = Laplacian of (Q + Q^T) / 2  +  diag(s)  +  c (Q Q^T - Q^T Q),        key_i = h(M)_ii + c' s_i.

    h(M) = sum_l h(l) P_l depends on the spectral projectors P_l alone: neither on signs or bases of eigenvectors, nor
    on which eigenvalues count as equal, and smoothly on the input. For a generic h, key_i = key_j exactly if the
    diagonals of all projectors agree on i and j, which is the order of Puny et al. For points, Q is equivalent to the
    matrix of their distances. `reference.laplacian_keys` is the same for one graph.

    Where one number is all that the inputs tell of each node, nodes are sorted by it, in ascending order.

    The graphs of a ragged batch are looked at by size: N^2 numbers for each, whatever the largest of the batch.

    Args:
        x: the inputs in float64.
        eps: relative rounding of every argument, by name.
    """
    layout = x.layouts[axis]
    shape = (x.count, layout.padded_size)
    place = torch.arange(shape[1], device=x.device)
    present = layout.padded_mask()
    if present is None:
        present = torch.ones(shape, dtype=torch.bool, device=x.device)

    # 1. all inputs at size one, with their rounding
    scaled, error = _at_unit_size(x, eps)
    spaces: list[Any] = [factor for factor in x.group.factors if factor.isometric]
    coarsest = max((eps[leaf.name] for space in spaces for leaf in spatial(x, space)), default=0.0)
    numbers = _numbers(x, axis)

    # 2. keys and relations, of inputs of similar size together
    keys = torch.zeros(shape, dtype=torch.float64, device=x.device)
    classes = place.expand(shape).clone()
    unsure = error < 0
    vectors: dict[IsometryGroup, Tensor] = {}
    relations: list[Relations] = []
    for inputs in _by_size(x, layout.sizes if layout.ragged else None):
        part = scaled
        if len(inputs) < x.count:
            part = scaled.select(torch.zeros_like(unsure).index_fill(0, inputs, True))
        n = part.layouts[axis].padded_size
        exists = present[inputs, :n]
        vectors_here = _vectors(part, axis, exists)
        for space, value in vectors_here.items():
            room = vectors.setdefault(space, value.new_zeros(*shape, *value.shape[2:]))
            room[inputs, :n] = value
        if n < 2 or not len(inputs):
            continue
        pairs, scalars = _data(part, axis, vectors_here, exists)
        key, relation = spectral_keys(pairs, scalars)
        relations.append(Relations(inputs, relation))

        # 3. nodes with equal keys share a class
        padding_apart = torch.where(exists, 0, 1 + place[:n])
        if numbers is not None:
            key = numbers[inputs, :n]
            classes[inputs, :n] = split(padding_apart, key, torch.zeros_like(error[inputs]))
        else:
            tolerance, slack = key_tolerance(error[inputs], coarsest)
            classes[inputs, :n], unsure[inputs] = split_and_check(padding_apart, key, tolerance, slack)
        keys[inputs, :n] = key.to(keys.dtype)
    return NodeView(axis, keys, classes, relations, vectors, error, coarsest, unsure)


def _numbers(x: Inputs, axis: NodeAxis) -> Tensor | None:
    """The numbers of the nodes (B, N), if one for each is all that the inputs tell of them; zero on padding."""
    leaves = []
    for leaf in x.leaves.values():
        on_axis = any(slot.group == axis for slot, _ in leaf.rep.axes)
        if on_axis or leaf.rep.labelled == axis:
            leaves.append(leaf)
    if len(leaves) != 1:
        return None
    leaf = leaves[0]
    if leaf.rep.labelled is not None or leaf.rep.on_edges:
        return None
    if leaf.rep.ndim != 1 or math.prod(leaf.channels) != 1:
        return None
    value = dense(x, leaf)
    value = value.reshape(value.shape[:2])
    mask = x.layouts[axis].padded_mask()
    if mask is None:
        return value
    return value.masked_fill(~mask, 0)


def _by_size(x: Inputs, sizes: Tensor | None) -> list[Tensor]:
    """The inputs (B,) in parts whose sizes differ by less than a factor of two, in order within each.

    Args:
        sizes: (B,); None for inputs that are stored at one size anyway.
    """
    if sizes is None or not x.count:
        return [torch.arange(x.count, device=x.device)]
    scale = sizes.clamp_min(1).double().log2()
    part = (scale.max() - scale).long()
    return [(part == number).nonzero().squeeze(-1) for number in part.unique()]


def _vectors(x: Inputs, axis: NodeAxis, present: Tensor) -> dict[IsometryGroup, Tensor]:
    """Points and vectors of the nodes by space (B, N, D, C), zero on padding."""
    vectors: dict[IsometryGroup, Tensor] = {}
    spaces: list[Any] = [factor for factor in x.group.factors if factor.isometric]
    for space in spaces:
        value = node_features(x, axis, space).vectors
        if value is not None:
            vectors[space] = value.detach().double() * present[..., None, None]
    return vectors


def _at_unit_size(x: Inputs, eps: Mapping[str, float]) -> tuple[Inputs, Tensor]:
    """All inputs at size one, so that nothing later divides by a sum that is zero but for rounding.

    Points and vectors are centred, of root mean square one, and zero where they are rounding; other values are divided
    by the largest of their channel. Also returns the relative rounding of the points and vectors (B,).
    """
    space_of: dict[str, Any] = {}
    spaces: list[Any] = [factor for factor in x.group.factors if factor.isometric]
    for space in spaces:
        for leaf in spatial(x, space):
            space_of[leaf.name] = space
    errors = [torch.zeros(x.count, dtype=torch.float64, device=x.device)]

    def scale(leaf: Leaf) -> Tensor:
        return put_together(leaf, [scaled_piece(piece) for piece in pieces(leaf)])

    def scaled_piece(leaf: Leaf) -> Tensor:
        space = space_of.get(leaf.name)
        if space is None or leaf.rep.on_edges:
            return _by_largest(x, leaf)
        raw, present = columns(x, leaf, space)
        origin = centroid(x, space) if is_point(leaf, space) else None
        value, _ = centred(x, leaf, space, origin)
        rounding = eps[leaf.name] * size(raw, present)
        # in the plane that is turned and along an axis that is kept, each part is judged by itself
        parts = torch.zeros_like(value)
        for axes in (turned_axes(space), space.kept_axes):
            if not axes:
                continue
            part = value[:, list(axes)]
            extent = size(part, present)
            real = (extent > ZERO_LENGTH_IN_EPS * rounding) & (part != 0).any(-1).any(-1)
            errors.append(torch.where(real, rounding / extent, 0.0))
            parts[:, list(axes)] = torch.where(real[:, None, None], part / extent[:, None, None], 0.0)
        return _from_columns(x, leaf, space, parts)

    with torch.no_grad():
        scaled = x.map(scale)
    return scaled, torch.stack(errors).amax(0)


def _by_largest(x: Inputs, leaf: Leaf) -> Tensor:
    """Values without directions, divided by the largest magnitude of each channel of each input."""
    rep = leaf.rep
    if rep.labelled is not None or rep.on_edges:
        return leaf.value
    if any(slot.group.isometric for slot, _ in rep.axes):
        return leaf.value
    value = dense(x, leaf).double()
    for axis, place in node_axes(leaf):
        mask = x.layouts[axis].padded_mask()
        if mask is not None:
            view = mask.reshape(len(mask), *[1] * place, mask.shape[1], *[1] * (value.ndim - place - 2))
            value = value.masked_fill(~view, 0)
    axes = tuple(1 + place for slot, place in rep.axes if slot.num_axes)
    if axes and value.numel():
        # exactly the same number whatever the order of the nodes
        largest = value.abs().amax(axes, keepdim=True)
        value = value / torch.where(largest > 0, largest, 1.0)
    if rep.ragged is None:
        return value
    return x.layouts[rep.ragged].unpad(value, 0)


def _from_columns(x: Inputs, leaf: Leaf, space: IsometryGroup, value: Tensor) -> Tensor:
    """The inverse of `geometry.columns`: (B, D, M) in the shape of the input."""
    ragged = leaf.rep.ragged
    place = 1 + next(p for slot, p in leaf.rep.axes if slot.group == space)
    shape = list(leaf.value.shape)
    if ragged is not None:
        shape = [x.count, x.layouts[ragged].padded_size, *leaf.value.shape[1:]]
    shape.pop(place)
    value = value.reshape(shape[0], space.dim, *shape[1:]).movedim(1, place)
    if ragged is None:
        return value
    return x.layouts[ragged].unpad(value, 0)


def _data(x: Inputs, axis: NodeAxis, vectors: Mapping[IsometryGroup, Tensor], present: Tensor) -> tuple[Tensor, Tensor]:
    """One number per pair (B, N, N) and one per node (B, N) from all scaled inputs, of order one, zero on padding."""
    seen = node_features(x, axis, None)
    count, n = present.shape
    pairs = torch.zeros(count, n, n, dtype=torch.float64, device=x.device)
    scalars = torch.zeros(count, n, dtype=torch.float64, device=x.device)
    both = present[:, :, None] & present[:, None, :]
    if seen.pairs is not None:
        value = seen.pairs.detach().double() * both[..., None]
        pairs = pairs + value @ generic_weights(value.shape[-1], 0.3, x.device)
    for i, value in enumerate(vectors.values()):
        # every scalar product between two channels, with a weight of its own
        channels = value.shape[-1]
        left = generic_weights(channels, 0.7 + i, x.device)
        right = generic_weights(channels, 1.1 + i, x.device)
        own = generic_weights(channels, 1.9 + i, x.device)
        mixing = torch.outer(left, right) + torch.diag(own)
        products = torch.einsum("bndc,ce,bmde->bnm", value, mixing, value)
        # less than one stays: averages over other axes may cancel
        largest = products.abs().amax((1, 2), keepdim=True).clamp_min(1)
        pairs = pairs + (0.6 + 0.1 * i) * products / largest
    if seen.scalars is not None:
        value = seen.scalars.detach().double() * present[..., None]
        scalars = scalars + value @ generic_weights(value.shape[-1], 2.3, x.device)

    # coordinates along an axis that a space keeps are scalars, which only a look with that space sees
    for i, space in enumerate(vectors):
        if not space.kept_axes:
            continue
        heights = node_features(x, axis, space).scalars
        if heights is not None:
            value = heights.detach().double() * present[..., None]
            scalars = scalars + value @ generic_weights(value.shape[-1], 2.9 + i, x.device)
    return pairs, scalars


def generic_weights(count: int, phase: float, device: torch.device) -> Tensor:
    """Fixed weights (count,) between 1/2 and 3/2, divided by the root of their number, without simple relations."""
    k = torch.arange(1, count + 1, dtype=torch.float64, device=device)
    return (1 + 0.5 * torch.sin(3.7 * k * k + k + phase)) / max(count, 1) ** 0.5


def spectral_keys(pairs: Tensor, scalars: Tensor) -> tuple[Tensor, Tensor]:
    """Keys (B, N) and relations (B, N, N) of `view_nodes`; padding neither has a share nor changes a scale.

    Args:
        pairs: Q (B, N, N).
        scalars: s (B, N).
    """
    # 1. the Laplacian of the symmetric part, loops and scalars on the diagonal, of norm at most one
    even = (pairs + pairs.mT) / 2
    loops = even.diagonal(dim1=-2, dim2=-1)
    links = even - torch.diag_embed(loops)
    degree = links.sum(-1)
    matrix = torch.diag_embed(degree + 0.8 * loops + scalars) - links

    # 2. and what directed edges add
    unit = pairs / _bound(pairs)
    matrix = matrix / _bound(matrix) + 0.3 * (unit @ unit.mT - unit.mT @ unit)

    # 3. a smooth function of it, which does not depend on the basis of any eigenspace
    value, vector = torch.linalg.eigh(matrix)
    smooth = torch.cos(5 * value + 0.3) + torch.sin(11 * value + 0.7)
    function = (vector * smooth[:, None]) @ vector.mT
    key = function.diagonal(dim1=-2, dim2=-1) + 0.37 * scalars + 0.21 * degree / _bound(links).squeeze(-1)

    # 4. relations; the last term tells which way directed edges lead, also between far nodes
    flow = function @ (unit - unit.mT) @ function
    return key, function + 0.5 * pairs - 0.3 * pairs.mT + 0.4 * flow


def _bound(matrix: Tensor) -> Tensor:
    """Largest sum of magnitudes in a row (B, 1, 1), no less than any eigenvalue; at least one."""
    return matrix.abs().sum(-1).amax(-1)[:, None, None].clamp_min(1)
