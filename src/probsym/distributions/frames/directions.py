"""The axes of one space where the principal axes leave some of them equal: the completion for O, SO, E and SE.

Repeated eigenvalues are resolved first by vector inputs, then by points in a fixed order, and otherwise by enumerating
all equally extreme data directions. One function per rule; `orient` applies them axis by axis:

| degeneracy                            | rule                        | enumerated       | sampled          |
|---------------------------------------|-----------------------------|------------------|------------------|
| none: distinct eigenvalues            | `signs.choose_signs`        | all signs        | side of a vector |
| equal eigenvalues, vectors are given  | `principal_axes`, from the  | nothing          | nothing          |
|                                       | vectors' covariance         |                  |                  |
| still equal, columns in a fixed order | `_first_long_column`        | nothing          | nothing          |
| still equal, columns without an order | `_extreme_columns`: longest | each of them     | one of them      |
|                                       | and nearest to settled axes |                  |                  |
| columns with the same direction       | `_coinciding`: their sum    | as one option    | as one option    |
| one dimension of an eigenspace left   | `_direction_without_column` | both signs       | side of a vector |
| no data in an eigenspace: collinear   | `_direction_without_column` | the signs of one | basis and signs  |
| or coincident points                  |                             | random basis     |                  |
| the same, for outputs of degree two   | `_exchange_null_axes`       | cyclic exchanges | nothing          |
| the same, for higher degrees          | `Frame.support`             | never            | whole frames     |
| more frames than `max_support`        | `Listing.give_up`           | never            | whole frames     |

Each rule moves with the input and the noise, so that transport(h x, h eps) = h transport(x, eps).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from probsym.distributions.frames.columns import Columns
from probsym.distributions.frames.principal_axes import Axes, unit
from probsym.distributions.frames.search import Choice, Listing, Paths, SpaceState
from probsym.distributions.frames.signs import choose_signs
from probsym.distributions.frames.tolerances import (
    EQUAL_DIRECTIONS_DISTANCE,
    LONG_FRACTION_OF_LONGEST,
    SURE_DISTANCE_IN_ROUNDING_ERRORS,
    ZERO_LENGTH_IN_EPS,
    is_thin,
    is_zero,
    least_eigenvalue_gap,
    most_turn,
)
from probsym.groups import IsometryGroup


@dataclass(frozen=True, eq=False)
class SpaceView:
    """What a frame needs to know of the inputs in one space (B batch, D space).

    Args:
        space: the factor.
        data: its columns.
        axes: their principal axes.
        origin: (B, D).
        spread: whether the null axes are also exchanged cyclically, which makes outputs of degree two exact.
    """

    space: IsometryGroup
    data: Columns
    axes: Axes
    origin: Tensor
    spread: bool = False


def orient(paths: Paths, view: SpaceView) -> None:
    """Choose a frame of the space for every path: `paths.spaces[space]`."""
    space = view.space

    # 1. the principal axes, which may be all there is to it
    dim = view.axes.vectors.shape[-1]
    free = torch.ones(len(paths.owner), dim, dtype=torch.bool, device=paths.owner.device)
    paths.spaces[space] = SpaceState(view.axes.vectors[paths.owner], free, view.axes.error[paths.owner])

    # 2. where axes share an eigenspace, directions of the data take their places one by one
    if bool(view.axes.unresolved[paths.owner].any()):
        for axis in range(dim):
            _settle(paths, view, axis)
        if view.spread and isinstance(paths, Listing):
            _exchange_null_axes(paths, view)
    paths.suspect(paths.spaces[space].error > most_turn(view.data.eps))

    # 3. signs
    choose_signs(paths, space)


@dataclass(frozen=True, eq=False)
class _Candidates:
    """Columns that may give an axis (R paths, C candidates; padded where paths have fewer).

    Args:
        columns: (R, C), their numbers.
        same: (R, C, C), which of them count as one.
        options: (R, C + 1), the first of each direction; the last option is none of them.
        preference: (R, C + 1), noise that decides between options when one is drawn; None in a listing.
    """

    columns: Tensor
    same: Tensor
    options: Tensor
    preference: Tensor | None


def _settle(paths: Paths, view: SpaceView, j: int) -> None:
    """Replace axis j by a direction of the data, where it shares its eigenspace with others.

    The direction is that of a chosen column, less what earlier axes of the eigenspace have of it. If no data is left
    there, noise takes its place; if one dimension is left, nothing but the sign is to be chosen.
    """
    if not bool(_is_wide(view.axes.cluster[paths.owner], j).any()):
        return

    # 1. choose a column; from here on there is one row per path that continues
    candidates = _candidates(paths, view, j)
    choice = paths.choose(candidates.options, candidates.preference)
    state = paths.spaces[view.space]
    remaining = _remaining(paths, view, j)

    # 2. its direction: the sum of all columns that count as this one
    index, has_column, column = _chosen_column(paths, view, candidates, choice)
    without = _direction_without_column(paths, view, j, remaining)
    column = torch.where(has_column[:, None], column, without)

    # 3. what rounding makes of it
    error = _turned_by_rounding(paths, view, remaining @ column.unsqueeze(-1), index, has_column)

    # 4. less what earlier axes of the eigenspace have of it; twice, because the first projection leaves an error of
    #    eps / |residual| outside of the eigenspace
    for _ in range(2):
        column = unit((remaining @ column.unsqueeze(-1)).squeeze(-1))

    # 5. only where axis j needed it
    wide = _is_wide(view.axes.cluster[paths.owner], j)
    column = torch.where(wide[:, None], column, state.matrix[..., j])
    matrix = torch.cat([state.matrix[..., :j], column.unsqueeze(-1), state.matrix[..., j + 1 :]], -1)
    free = state.free.clone()
    free[:, j] = ~has_column  # a column has a sign of its own
    paths.spaces[view.space] = SpaceState(matrix, free, torch.maximum(state.error, error))


def _is_wide(cluster: Tensor, j: int) -> Tensor:
    """Whether axis j shares its eigenspace with others (R,)."""
    return (cluster == cluster[:, j : j + 1]).sum(-1) > 1


def _is_last(cluster: Tensor, j: int) -> Tensor:
    """Whether axis j is the last one of its eigenspace (R,)."""
    if j + 1 == cluster.shape[1]:
        return torch.ones_like(cluster[:, j], dtype=torch.bool)
    return cluster[:, j] != cluster[:, j + 1]


def _remaining(paths: Paths, view: SpaceView, j: int) -> Tensor:
    """Projector (R, D, D) on the eigenspace of axis j less the axes already settled in it."""
    cluster = view.axes.cluster[paths.owner]
    mine = (cluster == cluster[:, j : j + 1])[:, None]
    before = torch.arange(cluster.shape[1], device=cluster.device) < j
    whole = view.axes.vectors[paths.owner] * mine
    settled = paths.spaces[view.space].matrix * (mine & before)
    return whole @ whole.mT - settled @ settled.mT


def _candidates(paths: Paths, view: SpaceView, j: int) -> _Candidates:
    """The columns that may give axis j: of the first argument with a component in what remains of the eigenspace.

    An axis that is the last of its eigenspace has both signs instead of a column, unless the columns have an order.
    """
    data = view.data
    owner = paths.owner
    cluster = view.axes.cluster[owner]
    wide = _is_wide(cluster, j)

    # 1. of a ragged batch no more columns than the largest of the inputs in question has
    used = data.present[owner[wide].unique()].any(0).nonzero().squeeze(-1)
    if not len(used):
        used = torch.zeros_like(cluster[0, :1])
    value = data.value.detach()[..., used][owner]
    argument_of = data.argument[used]

    # 2. what each argument has in the remaining space; the first one that has anything decides
    seen = _remaining(paths, view, j).detach() @ value
    energy = data.sum_by_argument(seen.square().sum(1), argument_of)
    rounding = data.rounding[owner]
    has_data = ~is_zero(energy, rounding)
    any_data = has_data.any(-1)
    argument = has_data.to(torch.uint8).argmax(-1, keepdim=True)
    ordered = data.ordered[argument]
    use = wide & any_data & (ordered.squeeze(-1) | ~_is_last(cluster, j))

    # 3. arguments up to that one which are so small that rounding may decide whether they have anything
    number = torch.arange(has_data.shape[1], device=has_data.device)
    asked = number <= torch.where(any_data[:, None], argument, has_data.shape[1])
    paths.suspect(wide & (is_thin(energy, rounding, data.eps) & asked).any(-1))

    # 4. the rule for ordered or for unordered columns
    error = (rounding / energy.clamp_min(1e-300)).sqrt().gather(1, argument)
    allowed = data.present[:, used][owner] & (argument_of == argument) & use[:, None]
    length = seen.square().sum(1).sqrt()
    longest = length.masked_fill(~allowed, 0).amax(-1, keepdim=True)
    slack = SURE_DISTANCE_IN_ROUNDING_ERRORS * (error * longest + paths.spaces[view.space].error[:, None])
    lengths = _Lengths(length, longest, slack, allowed)
    first = _first_long_column(paths, lengths, ordered)
    extreme = _extreme_columns(paths, view, j, value, lengths, ~ordered)
    chosen = torch.where(ordered, first, extreme)

    # 5. as a table of candidates, no wider than the path with the most needs
    most = max(1, int(chosen.sum(-1).max()))
    is_candidate, columns = chosen.to(torch.uint8).topk(most, -1)
    is_candidate = is_candidate.bool()
    directions = seen.mT.gather(1, columns[..., None].expand(-1, -1, value.shape[1]))
    same = _coinciding(paths, directions, is_candidate, error, data.eps)
    columns = used[columns]

    # 6. the options: the first column of each direction, or none
    options = torch.cat([is_candidate & ~same.tril(-1).any(-1), ~use[:, None]], -1)
    preference = None
    if not isinstance(paths, Listing):
        preference = _pooled(paths.noise_of(view.space).preference[paths.draw, :, j], columns, same)
    return _Candidates(columns, same, options, preference)


@dataclass(frozen=True, eq=False)
class _Lengths:
    """Lengths of the columns in the remaining space (R paths, M columns).

    Args:
        length: (R, M); longest: (R, 1), of the allowed ones.
        slack: (R, 1), how close to a border a length or component must be for rounding to decide.
        allowed: (R, M), the columns that the rule may pick.
    """

    length: Tensor
    longest: Tensor
    slack: Tensor
    allowed: Tensor


def _first_long_column(paths: Paths, lengths: _Lengths, applies: Tensor) -> Tensor:
    """Columns in a fixed order: the first one of at least a tenth of the longest (R, M).

    Args:
        applies: (R, 1), the paths whose columns are ordered; the others are not suspected.
    """
    border = LONG_FRACTION_OF_LONGEST * lengths.longest
    long = lengths.allowed & (lengths.length >= border)
    number = long.cumsum(-1)
    up_to_first = number <= 1
    near_border = (lengths.length - border).abs() <= lengths.slack
    paths.suspect((applies & lengths.allowed & up_to_first & near_border).any(-1))
    return long & (number == 1)


def _extreme_columns(
    paths: Paths, view: SpaceView, j: int, value: Tensor, lengths: _Lengths, applies: Tensor
) -> Tensor:
    """Columns without an order: the longest, among these the nearest to each earlier axis of the eigenspace (R, M).

    Args:
        value: (R, D, M), the columns.
        applies: (R, 1), the paths whose columns have no order; the others are not suspected.
    """
    equal = least_eigenvalue_gap(view.data.eps)
    longest = lengths.longest
    slack = lengths.slack

    # 1. the longest ones
    border = (1 - equal) * longest
    kept = lengths.allowed & (lengths.length >= border)
    near_border = (lengths.length - border).abs() <= slack
    paths.suspect((applies & lengths.allowed & near_border).any(-1))

    # 2. of these the nearest to the axes that were settled before, in turn
    cluster = view.axes.cluster[paths.owner]
    matrix = paths.spaces[view.space].matrix.detach()
    for k in range(j):
        component = (matrix[..., k].unsqueeze(1) @ value).squeeze(1)
        nearest = component.masked_fill(~kept, -torch.inf).amax(-1, keepdim=True)
        border = nearest - equal * (longest + nearest.abs())
        same_eigenspace = (cluster[:, k] == cluster[:, j])[:, None]
        near_border = (component - border).abs() <= slack
        paths.suspect((applies & same_eigenspace & kept & near_border).any(-1))
        kept = kept & ((component >= border) | ~same_eigenspace)
    return kept


def _coinciding(paths: Paths, columns: Tensor, is_candidate: Tensor, error: Tensor, eps: float) -> Tensor:
    """Which candidates (R, C) point the same way and count as one: (R, C, C).

    Args:
        columns: (R, C, D), what remains of them.
        error: (R, 1), relative rounding of their lengths.
    """
    tolerance = max(EQUAL_DIRECTIONS_DISTANCE, ZERO_LENGTH_IN_EPS * eps)
    directions = unit(columns)
    distance = torch.cdist(directions, directions, compute_mode="donot_use_mm_for_euclid_dist")
    both = is_candidate[:, :, None] & is_candidate[:, None, :]
    near_border = (distance - tolerance).abs() < SURE_DISTANCE_IN_ROUNDING_ERRORS * error[..., None]
    paths.suspect((both & near_border).flatten(1).any(-1))
    return (distance <= tolerance) & both


def _pooled(preference: Tensor, columns: Tensor, same: Tensor) -> Tensor:
    """Noise of each option (R, C + 1): its columns' sum over the root of their number, normal whatever the number.

    Args:
        preference: (R, M), noise of every column.
        columns: (R, C), the numbers of the candidates.
    """
    noise = preference.gather(1, columns)
    share = same.to(noise.dtype)
    pooled = (share @ noise.unsqueeze(-1)).squeeze(-1) / share.sum(-1).clamp_min(1).sqrt()
    return torch.nn.functional.pad(pooled, (0, 1))


def _chosen_column(
    paths: Paths, view: SpaceView, candidates: _Candidates, choice: Choice
) -> tuple[Tensor, Tensor, Tensor]:
    """The number of the chosen column (R,), whether there is one (R,), and the sum of all that count as it (R, D)."""
    columns = choice.follow(candidates.columns)
    same = choice.follow(candidates.same)
    count = columns.shape[1]
    has_column = choice.option < count
    option = choice.option.clamp_max(count - 1)[:, None]
    index = columns.gather(1, option).squeeze(1)
    share = same.to(view.data.value.dtype).gather(1, option[..., None].expand(-1, -1, count))
    column = (share @ view.data.value[paths.owner[:, None], :, columns]).squeeze(1)
    return index, has_column, column


def _direction_without_column(paths: Paths, view: SpaceView, j: int, remaining: Tensor) -> Tensor:
    """A direction for axis j where no column gives one: noise, or what is left if one dimension is left (R, D)."""
    axes = view.axes.vectors[paths.owner]
    left = (remaining @ axes).detach().square().sum(1).argmax(-1)
    rest = axes[torch.arange(len(left), device=left.device), :, left]
    last = _is_last(view.axes.cluster[paths.owner], j)
    return torch.where(last[:, None], rest, paths.noise_of(view.space).basis[paths.draw, :, j])


def _turned_by_rounding(paths: Paths, view: SpaceView, left: Tensor, index: Tensor, has_column: Tensor) -> Tensor:
    """The angle (R,) by which the rounding of a column may turn its axis: relative to what is left of it (R, D, 1)."""
    data = view.data
    number = data.sum_by_argument(data.present.double())
    rounding_of_one = (data.rounding / number.clamp_min(1))[paths.owner, data.argument[index]].sqrt()
    length = left.detach().square().sum((1, 2)).sqrt()
    return torch.where(has_column, rounding_of_one / length.clamp_min(1e-150), 0.0)


def _exchange_null_axes(paths: Paths, view: SpaceView) -> None:
    """Follow every cyclic exchange of the axes that see no data.

    With all signs, the mean of u_i u_j f_ij over these is a multiple of the projector on the null space: an output of
    degree two does not feel the basis either.
    """
    null = view.axes.null[paths.owner]
    number = torch.arange(view.axes.vectors.shape[-1], device=null.device)
    choice = paths.choose(number < torch.where(null > 1, null, 1)[:, None])
    null = view.axes.null[paths.owner, None]
    turned = (number + choice.option[:, None]) % null.clamp_min(1)
    index = torch.where(number < null, turned, number)
    state = paths.spaces[view.space]
    matrix = state.matrix.gather(-1, index[:, None].expand_as(state.matrix))
    paths.spaces[view.space] = replace(state, matrix=matrix)
