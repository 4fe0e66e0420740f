"""Frames of O, SO, E and SE: signs of the principal axes, and directions of the data where axes are equivalent.

After frame averaging, Puny et al. (arXiv 2110.03336), extended to all inputs that PCA leaves undetermined.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from probsym.distributions.frame_axes import GAP, NOISE, SURE, Axes, Columns, is_thin, most_turn, unit
from probsym.distributions.frame_paths import Listing, Paths
from probsym.groups import IsometryGroup

ALIKE = 1e-3  # directions of columns closer than this are one: their mean


@dataclass(frozen=True, eq=False)
class SpaceView:
    """What a frame needs to know of the inputs in one space.

    Args:
        space: the factor. data: its columns. axes: their principal axes. origin: (B, D).
        spread: whether the null axes are also exchanged cyclically, which makes outputs of degree two exact.
    """

    space: IsometryGroup
    data: Columns
    axes: Axes
    origin: Tensor
    spread: bool = False


def orient(paths: Paths, view: SpaceView) -> None:
    """Choose a frame of the space for every path; `held[space]` becomes the matrix (R, D, D).

    `held["error", space]` becomes the angle by which rounding may turn it (R,).

    Reads `held["noise", space]` (R, D, D + 1), whose first D columns fill axes that no data determines and whose last
    gives signs, and `held["picks", space]` (R, M, D), a preference for each column; where any axes are unresolved.
    """
    space = view.space
    paths.held["error", space] = view.axes.error[paths.owner]
    paths.held[space] = view.axes.vectors[paths.owner]
    paths.held["free", space] = torch.ones(len(paths.owner), space.dim, dtype=torch.bool, device=paths.owner.device)
    if bool(view.axes.unresolved[paths.owner].any()):
        for axis in range(space.dim):
            _settle(paths, view, axis)
        if view.spread and isinstance(paths, Listing):
            _rotate_null(paths, view)
    paths.suspect(paths.held["error", space] > most_turn(view.data.eps))
    _sign(paths, view)


def signed(frame: Tensor, special: bool) -> Tensor:
    """A frame (B, D, D) with all signs of its axes, or those of determinant one: (M, B, D, D)."""
    if special:
        parity = torch.linalg.det(frame.detach()).sign()
        frame = torch.cat([frame[..., :-1], frame[..., -1:] * parity[:, None, None]], -1)
    return frame * torch.from_numpy(_all_signs(frame.shape[-1], special)).to(frame)


@cache
def _all_signs(dim: int, special: bool) -> np.ndarray:
    """Signs of the columns (M, 1, D, D) in the order of `_pattern_signs`, for `special` those of product one.

    Every row has its copy, so that a product runs over whole matrices. In numpy: a tensor that a compiler, an exporter
    or inference mode made must not outlive its call in a cache.
    """
    signs = 1.0 - 2.0 * (np.arange(2**dim)[:, None] >> np.arange(dim) & 1)
    signs = signs[signs.prod(-1) > 0] if special else signs
    return signs[:, None, None].repeat(dim, 2)


def _settle(paths: Paths, view: SpaceView, j: int) -> None:
    """Replace axis j by a direction of the data, where it shares its eigenspace with others.

    The direction is that of a chosen column, less what earlier axes of the eigenspace have of it. If no data is left
    there, noise takes its place; if one dimension is left, nothing but the sign is to be chosen.
    """
    if not bool(_is_wide(view.axes.cluster[paths.owner], j).any()):
        return
    columns, same, options, noise = _candidates(paths, view, j)
    paths.held["columns"], paths.held["same"] = columns, same
    option = paths.choose(options, noise)
    columns, same = paths.held.pop("columns"), paths.held.pop("same")
    owner, frame = paths.owner, paths.held[view.space]
    found = option < columns.shape[1]
    option = option.clamp_max(columns.shape[1] - 1)[:, None]
    index = columns.gather(1, option).squeeze(1)
    room = _remaining(paths, view, j)
    share = same.to(frame.dtype).gather(1, option[..., None].expand(-1, -1, same.shape[2]))
    column = (share @ view.data.value[owner[:, None], :, columns]).squeeze(1)
    column = torch.where(found[:, None], column, _spare(paths, view, j, room))
    _add_error(paths, view, room @ column.unsqueeze(-1), index, found)
    # twice: the first projection leaves an error of eps / |residual| outside of the eigenspace
    for _ in range(2):
        column = unit((room @ column.unsqueeze(-1)).squeeze(-1))
    cluster = view.axes.cluster[owner]
    column = torch.where(_is_wide(cluster, j)[:, None], column, frame[..., j])
    paths.held[view.space] = torch.cat([frame[..., :j], column.unsqueeze(-1), frame[..., j + 1 :]], -1)
    free = paths.held["free", view.space].clone()
    free[:, j] = ~found
    paths.held["free", view.space] = free


def _add_error(paths: Paths, view: SpaceView, left: Tensor, index: Tensor, found: Tensor) -> None:
    """The rounding of a column, relative to what is left of it (R, D, 1), turns the axis that it gives."""
    block = view.data.block[index]
    number = view.data.energy(view.data.present.double())
    rounding = (view.data.rounding / number.clamp_min(1))[paths.owner, block].sqrt()
    length = left.detach().square().sum((1, 2)).sqrt()
    turned = torch.where(found, rounding / length.clamp_min(1e-150), 0.0)
    paths.held["error", view.space] = torch.maximum(paths.held["error", view.space], turned)


def _is_wide(cluster: Tensor, j: int) -> Tensor:
    return (cluster == cluster[:, j : j + 1]).sum(-1) > 1


def _is_last(cluster: Tensor, j: int) -> Tensor:
    end = torch.ones_like(cluster[:, j], dtype=torch.bool)
    return end if j + 1 == cluster.shape[1] else cluster[:, j] != cluster[:, j + 1]


def _remaining(paths: Paths, view: SpaceView, j: int) -> Tensor:
    """Projector (R, D, D) on the eigenspace of axis j less the axes already settled in it."""
    cluster = view.axes.cluster[paths.owner]
    mine = (cluster == cluster[:, j : j + 1])[:, None]
    before = torch.arange(cluster.shape[1], device=cluster.device) < j
    whole = view.axes.vectors[paths.owner] * mine
    settled = paths.held[view.space] * (mine & before)
    return whole @ whole.mT - settled @ settled.mT


def _spare(paths: Paths, view: SpaceView, j: int, room: Tensor) -> Tensor:
    """A direction without data: noise, or what is left of the eigenspace when one dimension is left (R, D)."""
    axes = view.axes.vectors[paths.owner]
    left = (room @ axes).detach().square().sum(1).argmax(-1)
    rest = axes[torch.arange(len(left), device=left.device), :, left]
    last = _is_last(view.axes.cluster[paths.owner], j)
    return torch.where(last[:, None], rest, paths.held["noise", view.space][..., j])


def _candidates(paths: Paths, view: SpaceView, j: int) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Columns that may give axis j: their numbers (R, C), which of them are one (R, C, C), options (R, C + 1), noise.

    The first input with a component in what remains of the eigenspace decides. Ordered: its first column of at least a
    tenth of the largest. Unordered: its largest, among these the closest to the earlier axes of the eigenspace; the
    last axis has both signs instead. Columns that point the same way count as one, their sum, and pool their noise. The
    last option is none of them.
    """
    data, owner = view.data, paths.owner
    cluster = view.axes.cluster[owner]
    wide = _is_wide(cluster, j)
    # of a ragged batch no more columns than the largest of the inputs in question has
    near = data.present[owner[wide].unique()].any(0).nonzero().squeeze(-1)
    near = near if len(near) else torch.zeros_like(cluster[0, :1])
    x, of_block = data.value.detach()[..., near][owner], data.block[near]
    seen = _remaining(paths, view, j).detach() @ x
    energy = data.energy(seen.square().sum(1), of_block)
    rounding = data.rounding[owner]
    has = energy > NOISE**2 * rounding
    block = has.to(torch.uint8).argmax(-1, keepdim=True)
    ordered = data.ordered[block]
    use = wide & has.any(-1) & (ordered.squeeze(-1) | ~_is_last(cluster, j))
    asked = torch.arange(has.shape[1], device=has.device) <= torch.where(has.any(-1, keepdim=True), block, has.shape[1])
    paths.suspect(wide & (is_thin(energy, rounding, data.eps) & asked).any(-1))
    error = (rounding / energy.clamp_min(1e-300)).sqrt().gather(1, block)
    allowed = data.present[:, near][owner] & (of_block == block) & use[:, None]
    chosen = _extreme(paths, view, j, (x, seen), allowed, ordered, error)

    width = max(1, int(chosen.sum(-1).max()))
    chosen, columns = chosen.to(torch.uint8).topk(width, -1)
    chosen = chosen.bool()
    distance = _distances(seen.mT.gather(1, columns[..., None].expand(-1, -1, x.shape[1])))
    columns = near[columns]
    both = chosen[:, :, None] & chosen[:, None, :]
    tolerance = max(ALIKE, NOISE * data.eps)
    same = (distance <= tolerance) & both
    paths.suspect((both & ((distance - tolerance).abs() < SURE * error[..., None])).flatten(1).any(-1))
    options = torch.cat([chosen & ~same.tril(-1).any(-1), ~use[:, None]], -1)
    noise = None if isinstance(paths, Listing) else _pooled(paths, view, j, columns, same)
    return columns, same, options, noise


def _extreme(
    paths: Paths,
    view: SpaceView,
    j: int,
    found: tuple[Tensor, Tensor],
    allowed: Tensor,
    ordered: Tensor,
    error: Tensor,
) -> Tensor:
    """The columns among the allowed ones (R, M) that the rule of `_candidates` picks, lengths known to `error` (R, 1).

    `found` are the columns and what remains of them (R, D, M). Paths with a column so close to a border that rounding
    may have put it on its side are suspect.
    """
    x, seen = found
    near = max(GAP, 16 * view.data.eps)
    length = seen.square().sum(1).sqrt()
    top = length.masked_fill(~allowed, 0).amax(-1, keepdim=True)
    slack = SURE * (error * top + paths.held["error", view.space][:, None])
    early = allowed & (length >= 0.1 * top)
    first = early & (early.cumsum(-1) == 1)
    before = early.cumsum(-1) <= 1
    paths.suspect((ordered & allowed & before & ((length - 0.1 * top).abs() <= slack)).any(-1))
    largest = allowed & (length >= (1 - near) * top)
    paths.suspect((~ordered & allowed & ((length - (1 - near) * top).abs() <= slack)).any(-1))
    cluster = view.axes.cluster[paths.owner]
    for k in range(j):
        dot = (paths.held[view.space][..., k].detach().unsqueeze(1) @ x).squeeze(1)
        best = dot.masked_fill(~largest, -torch.inf).amax(-1, keepdim=True)
        border = best - near * (top + best.abs())
        mine = (cluster[:, k] == cluster[:, j])[:, None]
        paths.suspect((~ordered & mine & largest & ((dot - border).abs() <= slack)).any(-1))
        largest = largest & ((dot >= border) | ~mine)
    return torch.where(ordered, first, largest)


def _distances(columns: Tensor) -> Tensor:
    """Distances between the directions of columns (R, C, D): (R, C, C)."""
    directions = unit(columns)
    return torch.cdist(directions, directions, compute_mode="donot_use_mm_for_euclid_dist")


def _pooled(paths: Paths, view: SpaceView, j: int, columns: Tensor, same: Tensor) -> Tensor:
    """Noise of each option (R, C + 1): its columns' sum over the root of their number, normal whatever the number."""
    noise = paths.held["picks", view.space][..., j].gather(1, columns)
    share = same.to(noise.dtype)
    pooled = (share @ noise.unsqueeze(-1)).squeeze(-1) / share.sum(-1).clamp_min(1).sqrt()
    return torch.nn.functional.pad(pooled, (0, 1))


def _rotate_null(paths: Listing, view: SpaceView) -> None:
    """Follow every cyclic exchange of the null axes.

    With all signs, the mean of u_i u_j f_ij over these is a multiple of the projector on the null space: an output of
    degree two does not feel the basis either.
    """
    null = view.axes.null[paths.owner]
    steps = torch.arange(view.space.dim, device=null.device)
    shift = paths.choose(steps < torch.where(null > 1, null, 1)[:, None])
    null = view.axes.null[paths.owner, None]
    turned = (steps + shift[:, None]) % null.clamp_min(1)
    index = torch.where(steps < null, turned, steps)
    frame = paths.held[view.space]
    paths.held[view.space] = frame.gather(-1, index[:, None].expand_as(frame))


def _sign(paths: Paths, view: SpaceView) -> None:
    """Choose the signs of all free axes; for SO and SE those of determinant one."""
    space = view.space
    frame, free = paths.held[space], paths.held["free", space]
    parity = torch.ones_like(paths.weight)
    if space.special:
        parity = torch.linalg.det(frame.detach()).sign()
        # no axis is free to be turned: the last one follows from the others
        turn = torch.where(free.any(-1), 1.0, parity)
        frame = torch.cat([frame[..., :-1], frame[..., -1:] * turn[:, None, None]], -1)
        parity = parity * turn
    paths.held[space] = frame
    if isinstance(paths, Listing):
        signs = _listed_signs(paths, space, parity)
    else:
        signs = _drawn_signs(frame.detach(), free, parity, paths.held["noise", space][..., -1], space.special)
    paths.held[space] = paths.held[space] * signs[:, None]
    del paths.held["free", space]


def _drawn_signs(frame: Tensor, free: Tensor, parity: Tensor, z: Tensor, special: bool) -> Tensor:
    """sign <u, z> of every free axis (R, D); a wrong determinant is mended at the least decided one."""
    along = (z.unsqueeze(1) @ frame).squeeze(1)
    signs = torch.where(free & (along < 0), -1.0, 1.0).to(frame.dtype)
    if special:
        weakest = along.abs().masked_fill(~free, torch.inf).argmin(-1, keepdim=True)
        wrong = signs.prod(-1, keepdim=True) * parity[:, None] < 0
        signs = torch.where(wrong & (torch.arange(frame.shape[-1], device=free.device) == weakest), -signs, signs)
    return signs


def _listed_signs(paths: Listing, space: IsometryGroup, parity: Tensor) -> Tensor:
    """All signs of the free axes that give determinant one if the group is special, one path each (R, D)."""
    paths.held["parity"] = parity
    number = paths.held["free", space].sum(-1)
    many = number - int(space.special) >= paths.rounds
    if bool(many.any()):
        paths.give_up(torch.zeros_like(paths.overflow).index_fill(0, paths.owner[many], True))
    number = paths.held["free", space].sum(-1)
    pattern = torch.arange(2 ** (int(number.max()) if len(number) else 0), device=number.device)
    options = pattern < 2 ** number[:, None]
    if space.special:
        signs = _pattern_signs(pattern, paths.held["free", space][:, None])
        options = options & (signs.prod(-1) * paths.held["parity"][:, None] > 0)
    option = paths.choose(options)
    del paths.held["parity"]
    return _pattern_signs(option, paths.held["free", space])


def _pattern_signs(pattern: Tensor, free: Tensor) -> Tensor:
    """Signs of the axes (..., D): minus where the bit of a free axis is set; pattern (...), free (..., D)."""
    rank = (free.cumsum(-1) - 1).clamp_min(0)
    return torch.where(free & ((pattern[..., None] >> rank) & 1).bool(), -1.0, 1.0).double()
