"""Frames of S_n: sort the nodes by a key, and branch over the nodes that no key tells apart.

After the Laplacian sort frame of Puny et al. (arXiv 2110.03336), which sorts by sum_k c_k u_k^2 with eigenvectors u_k.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from probsym.distributions.features import node_features
from probsym.distributions.frame_axes import NOISE, SURE
from probsym.distributions.frame_paths import Paths, Sampling
from probsym.distributions.geometry import centred, centroid, columns, dense, is_point, size, spatial
from probsym.groups import IsometryGroup, NodeAxis, S
from probsym.groups.axis import Nodes
from probsym.reps import Inputs, Leaf

EXACT = 1e-9  # keys are of order one, computed in float64: what differs by less is the same
CLOSE = 1e-3  # the same where points and vectors have a share in the keys: far above their rounding in float32
DIGITS = 1e-12  # float64 itself moves keys by less
MOVED = 16  # rounding of points moves the gap of two keys by less than so many times its relative size


@dataclass(frozen=True, eq=False)
class NodeView:
    """What a frame needs to know of the inputs on one node axis.

    Args:
        axis: the factor.
        classes: nodes with equal keys share a number (B, N); padding has numbers of its own.
        relations: for inputs of similar size, which they are (b,), and a number for each pair of nodes (b, n, n).
        vectors: points and vectors of the nodes by space (B, N, D, C), centred and of unit size.
        error: relative rounding of the points and vectors (B,). eps: of their coarsest dtype.
        unsure: whether rounding decides which keys are equal (B,).
    """

    axis: S
    classes: Tensor
    relations: list[tuple[Tensor, Tensor]]
    vectors: dict[IsometryGroup, Tensor]
    error: Tensor
    eps: float
    unsure: Tensor

    @property
    def tied(self) -> Tensor:
        return tied(self.classes)

    def relation_to(self, owner: Tensor, node: Tensor) -> Tensor:
        """The relations of all nodes to one node (R,) of an input (R,): (R, N), zero on padding; any for no node."""
        found = torch.zeros(len(owner), self.classes.shape[1], dtype=torch.float64, device=owner.device)
        for inputs, relation in self.relations:
            place = torch.full_like(self.error, -1, dtype=torch.long).index_put((inputs,), _count(inputs))[owner]
            rows = (place >= 0).nonzero().squeeze(-1)
            if len(rows):
                n = relation.shape[1]
                found[rows, :n] = relation[place[rows], node[rows].clamp_max(n - 1)]
        return found


def _count(inputs: Tensor) -> Tensor:
    return torch.arange(len(inputs), device=inputs.device)


def view_nodes(x: Inputs, axis: S, eps: dict[str, float]) -> NodeView:
    """Keys and pair relations of the nodes, invariant to every other group.

    All pair inputs, and for each space the scalar products of the points and vectors, add up to one matrix Q of generic
    weights; scalars of the nodes, s, go on the diagonal,

        M = Laplacian of (Q + Q^T) / 2  +  diag(s)  +  c (Q Q^T - Q^T Q),        key_i = h(M)_ii + c' s_i.

    h(M) = sum_l h(l) P_l depends on the spectral projectors P_l alone: neither on signs or bases of eigenvectors, nor
    on which eigenvalues count as equal, and smoothly on the input. For a generic h, key_i = key_j exactly if the
    diagonals of all projectors agree on i and j, which is the order of Puny et al. For points, Q is equivalent to the
    matrix of their distances.

    Where one number is all that the inputs tell of each node, nodes are sorted by it, in ascending order.

    The graphs of a ragged batch are looked at by size: N^2 numbers for each, whatever the largest of the batch.

    Args:
        x: the inputs in float64; eps: relative rounding of every leaf, by name.
    """
    layout = x.layouts[axis]
    shape = (x.count, layout.padded_size)
    mask = layout.padded_mask()
    place = torch.arange(shape[1], device=x.device)
    present = torch.ones(shape, dtype=torch.bool, device=x.device) if mask is None else mask
    classes = place.expand(shape).clone()
    cleaned, error = _cleaned(x, eps)
    spaces = [f for f in x.group.factors if isinstance(f, IsometryGroup)]
    coarsest = max((eps[leaf.name] for space in spaces for leaf in spatial(x, space)), default=0.0)
    unsure = error < 0
    numbers = _numbers(x, axis)
    vectors: dict[IsometryGroup, Tensor] = {}
    relations: list[tuple[Tensor, Tensor]] = []
    for inputs in _by_size(layout.sizes) if layout.ragged and x.count else [torch.arange(x.count, device=x.device)]:
        whole = len(inputs) == x.count
        part = cleaned if whole else cleaned.select(torch.zeros_like(unsure).index_fill(0, inputs, True))
        n = part.layouts[axis].padded_size
        found = _vectors(part, axis, present[inputs, :n])
        for space, v in found.items():
            room = vectors.setdefault(space, v.new_zeros(*shape, *v.shape[2:]))
            room[inputs, :n] = v
        if n < 2 or not len(inputs):
            continue
        pairs, scalars = _data(part, axis, found, present[inputs, :n])
        key, relation = _spectral(pairs, scalars)
        relations.append((inputs, relation))
        padded_apart = torch.where(present[inputs, :n], 0, 1 + place[:n])
        if numbers is not None:
            classes[inputs, :n] = split(padded_apart, numbers[inputs, :n], torch.zeros_like(error[inputs]))
            continue
        classes[inputs, :n], unsure[inputs] = parted(padded_apart, key, *_tolerance(error[inputs], coarsest))
    return NodeView(axis, classes, relations, vectors, error, coarsest, unsure)


def _numbers(x: Inputs, axis: S) -> Tensor | None:
    """The numbers of the nodes (B, N), if one for each is all that the inputs tell of them; zero on padding."""
    known = [leaf for leaf in x.leaves.values() if leaf.rep.labelled == axis or _has(leaf, axis)]
    if len(known) != 1:
        return None
    leaf = known[0]
    if leaf.rep.labelled is not None or leaf.rep.ndim != 1 or math.prod(leaf.channels) != 1 or leaf.rep.on_edges:
        return None
    value = dense(x, leaf)
    value = value.reshape(value.shape[:2])
    mask = x.layouts[axis].padded_mask()
    return value if mask is None else value.masked_fill(~mask, 0)


def _has(leaf: Leaf, axis: S) -> bool:
    return any(slot.group == axis for slot, _ in leaf.rep.axes)


def _by_size(sizes: Tensor) -> list[Tensor]:
    """The inputs (B,) in parts whose sizes differ by less than a factor of two, in order within each."""
    scale = sizes.clamp_min(1).double().log2()
    part = (scale.max() - scale).long()
    return [(part == number).nonzero().squeeze(-1) for number in part.unique()]


def _vectors(x: Inputs, axis: S, present: Tensor) -> dict[IsometryGroup, Tensor]:
    """Points and vectors of the nodes by space (B, N, D, C), zero on padding."""
    found: dict[IsometryGroup, Tensor] = {}
    for space in x.group.factors:
        if isinstance(space, IsometryGroup) and (v := node_features(x, axis, space).vectors) is not None:
            found[space] = v.detach().double() * present[..., None, None]
    return found


def _tolerance(error: Tensor, eps: float, moved: int = MOVED) -> tuple[Tensor, Tensor]:
    """Gaps (R,) below which keys are equal, and how close to that a gap must be for rounding to decide (R,).

    Permutations do not round: without points, equal is equal to the precision of float64. Points and vectors are known
    to a relative `error` only, which moves a key by up to three times its size in all that was measured (at most 16
    times that of the matrix M of `view_nodes`, the operator Lipschitz constant of h); the gap of two keys moves by less
    than `MOVED` times it. Ties cost little, since coordinates in the frame resolve them. So the tolerance is far above
    the rounding and the same for all poses, near the origin and far; `eps` is that of the dtype alone.
    """
    tolerance = max(CLOSE, 4 * moved * eps)
    return torch.where(error > 0, tolerance, EXACT), DIGITS + moved * error


def _zeros(x: Inputs, shape: tuple[int, ...]) -> Tensor:
    return torch.zeros(shape, dtype=torch.float64, device=x.device)


def _cleaned(x: Inputs, eps: dict[str, float]) -> tuple[Inputs, Tensor]:
    """All inputs at size one, so that nothing later divides by a sum that is zero but for rounding.

    Points and vectors are centred, of root mean square one, and zero where they are rounding; other values are divided
    by the largest of their channel. Also returns the relative rounding of the points and vectors (B,).
    """
    spaces = {leaf.name: s for s in x.group.factors if isinstance(s, IsometryGroup) for leaf in spatial(x, s)}
    errors = [torch.zeros(x.count, dtype=torch.float64, device=x.device)]

    def clean(leaf: Leaf) -> Tensor:
        space = spaces.get(leaf.name)
        if space is None or leaf.rep.on_edges:
            return _scaled(x, leaf)
        raw, present = columns(x, leaf, space)
        value, _ = centred(x, leaf, space, centroid(x, space) if is_point(leaf, space) else None)
        noise = eps[leaf.name] * size(raw, present)
        extent = size(value, present)
        real = (extent > NOISE * noise) & (value != 0).any(-1).any(-1)
        errors.append(torch.where(real, noise / extent, 0.0))
        value = torch.where(real[:, None, None], value / extent[:, None, None], 0.0)
        return _restored(x, leaf, space, value)

    with torch.no_grad():
        cleaned = x.map(clean)
    return cleaned, torch.stack(errors).amax(0)


def _scaled(x: Inputs, leaf: Leaf) -> Tensor:
    """Values without directions, divided by the largest magnitude of each channel of each input."""
    rep = leaf.rep
    if rep.labelled is not None or rep.on_edges or any(isinstance(slot.group, IsometryGroup) for slot, _ in rep.axes):
        return leaf.value
    value = dense(x, leaf).double()
    for slot, place in rep.axes:
        if isinstance(slot, Nodes) and (mask := x.layouts[slot.group].padded_mask()) is not None:
            view = mask.reshape(len(mask), *[1] * place, mask.shape[1], *[1] * (value.ndim - place - 2))
            value = value.masked_fill(~view, 0)
    axes = tuple(1 + place for slot, place in rep.axes if slot.num_axes)
    value = _relative(value, axes) if axes and value.numel() else value
    return value if rep.ragged is None else x.layouts[rep.ragged].unpad(value, 0)


def _restored(x: Inputs, leaf: Leaf, space: IsometryGroup, value: Tensor) -> Tensor:
    """The inverse of `geometry.columns`: (B, D, M) in the shape of the leaf."""
    ragged = leaf.rep.ragged
    place = 1 + next(p for slot, p in leaf.rep.axes if slot.group == space)
    shape = list(leaf.value.shape)
    if ragged is not None:
        shape = [x.count, x.layouts[ragged].padded_size, *leaf.value.shape[1:]]
    shape.pop(place)
    value = value.reshape(shape[0], space.dim, *shape[1:]).movedim(1, place)
    return value if ragged is None else x.layouts[ragged].unpad(value, 0)


def _data(x: Inputs, axis: NodeAxis, vectors: dict[IsometryGroup, Tensor], present: Tensor) -> tuple[Tensor, Tensor]:
    """One number a pair (B, N, N) and one a node (B, N) from all cleaned inputs, of order one, zero on padding."""
    seen = node_features(x, axis, None)
    pairs, scalars = _zeros(x, (*present.shape, present.shape[1])), _zeros(x, tuple(present.shape))
    both = present[:, :, None] & present[:, None, :]
    if seen.pairs is not None:
        value = seen.pairs.detach().double() * both[..., None]
        pairs = pairs + value @ _generic(value.shape[-1], 0.3, x.device)
    for i, v in enumerate(vectors.values()):
        left, right, own = (_generic(v.shape[-1], phase + i, x.device) for phase in (0.7, 1.1, 1.9))
        mixing = torch.outer(left, right) + torch.diag(own)
        gram = torch.einsum("bndc,ce,bmde->bnm", v, mixing, v)
        top = gram.abs().amax((1, 2), keepdim=True).clamp_min(1)  # less than one: averages over other axes
        pairs = pairs + (0.6 + 0.1 * i) * gram / top
    if seen.scalars is not None:
        value = seen.scalars.detach().double() * present[..., None]
        scalars = scalars + value @ _generic(value.shape[-1], 2.3, x.device)
    return pairs, scalars


def _relative(value: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Divided by the largest magnitude over the axes, exactly the same whatever their order."""
    top = value.abs().amax(axes, keepdim=True)
    return value / torch.where(top > 0, top, 1.0)


def _generic(count: int, phase: float, device: torch.device) -> Tensor:
    """Fixed weights (count,) between 1/2 and 3/2, divided by the root of their number, without simple relations."""
    k = torch.arange(1, count + 1, dtype=torch.float64, device=device)
    return (1 + 0.5 * torch.sin(3.7 * k * k + k + phase)) / max(count, 1) ** 0.5


def _spectral(pairs: Tensor, scalars: Tensor) -> tuple[Tensor, Tensor]:
    """Keys (B, N) and relations (B, N, N) of `view_nodes`; padding neither has a share nor changes a scale."""
    even = (pairs + pairs.mT) / 2
    loops = even.diagonal(dim1=-2, dim2=-1)
    links = even - torch.diag_embed(loops)
    degree = links.sum(-1)
    unit = pairs / _bound(pairs)
    matrix = torch.diag_embed(degree + 0.8 * loops + scalars) - links
    matrix = matrix / _bound(matrix) + 0.3 * (unit @ unit.mT - unit.mT @ unit)
    value, vector = torch.linalg.eigh(matrix)
    smooth = torch.cos(5 * value + 0.3) + torch.sin(11 * value + 0.7)
    function = (vector * smooth[:, None]) @ vector.mT
    key = function.diagonal(dim1=-2, dim2=-1) + 0.37 * scalars + 0.21 * degree / _bound(links).squeeze(-1)
    flow = function @ (unit - unit.mT) @ function  # which way directed edges lead, also between far nodes
    return key, function + 0.5 * pairs - 0.3 * pairs.mT + 0.4 * flow


def _bound(matrix: Tensor) -> Tensor:
    """Largest sum of magnitudes in a row (B, 1, 1), no less than any eigenvalue; at least one."""
    return matrix.abs().sum(-1).amax(-1)[:, None, None].clamp_min(1)


def split(classes: Tensor, value: Tensor, tolerance: Tensor) -> Tensor:
    """Split every class of nodes (R, N) by a value, at gaps above the tolerance (R,); numbers ascend with the value.

    >>> split(torch.tensor([[0, 1, 0, 0]]), torch.tensor([[2.0, 0.0, 1.0, 2.0]]), torch.tensor([0.1])).tolist()
    [[1, 2, 0, 1]]
    """
    return parted(classes, value, tolerance, torch.zeros_like(tolerance))[0]


def parted(classes: Tensor, value: Tensor, tolerance: Tensor, slack: Tensor) -> tuple[Tensor, Tensor]:
    """`split`, and the rows of which a gap is within `slack` (R,) of the tolerance, so that rounding decides (R,)."""
    order = torch.argsort(value, dim=-1, stable=True)
    order = order.gather(-1, torch.argsort(classes.gather(-1, order), dim=-1, stable=True))
    value, old = value.gather(-1, order), classes.gather(-1, order)
    gap, other = value.diff(dim=-1), old.diff(dim=-1) != 0
    new = other | (gap > tolerance[:, None])
    unsure = ~other & ((gap - tolerance[:, None]).abs() < slack[:, None])
    number = torch.nn.functional.pad(new.long().cumsum(-1), (1, 0)) if old.shape[-1] else old
    return torch.empty_like(classes).scatter_(-1, order, number), unsure.any(-1)


def tied(classes: Tensor) -> Tensor:
    """Rows of which some class has two nodes (R,)."""
    return (classes.sort(-1).values.diff(dim=-1) == 0).any(-1)


def arrange(paths: Paths, view: NodeView) -> None:
    """Choose an order of the nodes for every path; `held[axis]` becomes the place of every node (R, N).

    Nodes with equal keys are told apart by their coordinates in the frames already chosen. Where that fails, as in a
    cycle, each node of the first class in turn is put first, and its relations split the classes further: a cycle of n
    nodes has 2n orders. Noise `held["noise", axis]` (R, N) decides between nodes when orders are drawn: a class is part
    of an earlier one, less the node that won there, so its members are exchangeable and the choice is uniform.
    """
    classes = view.classes[paths.owner]
    if bool(tied(classes).any()):
        for space, vectors in view.vectors.items():
            if space in paths.held:
                error = view.error[paths.owner] + paths.held["error", space]
                coordinates = _coordinates(paths, space, vectors)
                classes, unsure = parted(classes, coordinates, *_tolerance(error, view.eps, SURE))
                paths.suspect(unsure)
    paths.held[view.axis] = classes
    for _ in range(paths.rounds):
        if not bool(tied(paths.held[view.axis]).any()):
            return
        _put_first(paths, view)
    if isinstance(paths, Sampling):
        classes = paths.held[view.axis]
        below = torch.full_like(paths.weight, -1.0)
        paths.held[view.axis] = split(classes, paths.held["noise", view.axis], below)


def _coordinates(paths: Paths, space: IsometryGroup, vectors: Tensor) -> Tensor:
    """A generic function of the coordinates of each node in the chosen frame (R, N), of order one."""
    local = torch.einsum("rndc,rde->rnec", vectors[paths.owner], paths.held[space].detach()).flatten(2)
    return local @ _generic(local.shape[-1], 0.5, local.device)


def _put_first(paths: Paths, view: NodeView) -> None:
    """Choose a node of the first class that has several, and split all classes by their relation to it."""
    classes = paths.held[view.axis]
    count = torch.zeros_like(classes).scatter_add_(-1, classes, torch.ones_like(classes)).gather(-1, classes)
    several = count > 1
    first = classes.masked_fill(~several, classes.shape[-1]).amin(-1, keepdim=True)
    options = torch.nn.functional.pad(classes == first, (0, 1))
    options[:, -1] = ~several.any(-1)
    noise = None
    if isinstance(paths, Sampling):
        noise = torch.nn.functional.pad(paths.held["noise", view.axis], (0, 1))
    option = paths.choose(options, noise)
    classes, last = paths.held[view.axis], classes.shape[-1] - 1
    value = view.relation_to(paths.owner, option.clamp_max(last))
    node = torch.arange(last + 1, device=option.device)
    value = value.masked_fill(node == option[:, None], -1e3)
    paths.held[view.axis], unsure = parted(classes, value, *_tolerance(view.error[paths.owner], view.eps))
    paths.suspect(unsure)
