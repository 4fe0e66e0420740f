"""The points and vectors of one space as columns: the data whose directions make the axes of a frame."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from probsym.distributions.frames.tolerances import FLOAT64_EPS
from probsym.distributions.geometry import centred, centroid, columns, exists, is_point, spatial
from probsym.groups import IsometryGroup
from probsym.groups.orthogonal import turned_axes
from probsym.reps import Inputs, Leaf


@dataclass(frozen=True, eq=False)
class Columns:
    """Points (first) and vectors of one space as columns (B batch, D space, M columns, L arguments that hold them).

    The arguments are compared in stages, each at unit size: all points together, then the vectors of one argument after
    another.

    Args:
        value: (B, D, M) in float64, zero where `present` (B, M) is false.
        present: which columns exist.
        argument: (M,), the argument that each column comes from, numbered 0 ... L-1.
        stage: (L,), which arguments are compared together: 0 for all with points, a number for each with vectors.
        ordered: (L,), whether the order of the columns of an argument has a meaning.
        rounding: (B, L), sum of squares that rounding leaves where there should be zero.
        eps: relative rounding of the coarsest dtype among them.
    """

    value: Tensor
    present: Tensor
    argument: Tensor
    stage: Tensor
    ordered: Tensor
    rounding: Tensor
    eps: float

    @property
    def stages(self) -> int:
        return int(self.stage[-1]) + 1

    def of_stage(self, number: int) -> tuple[Tensor, Tensor]:
        """The columns of one stage (B, D, m) and their rounding (B,)."""
        arguments = self.stage == number
        return self.value[..., arguments[self.argument]], self.rounding[:, arguments].sum(-1)

    def sum_by_argument(self, squares: Tensor, argument: Tensor | None = None) -> Tensor:
        """Sums over the columns of each argument: (..., M) -> (..., L); `argument` where these are not all columns."""
        if argument is None:
            argument = self.argument
        share = argument[:, None] == torch.arange(len(self.stage), device=argument.device)
        return squares @ share.to(squares.dtype)


@dataclass(frozen=True, eq=False)
class _Part:
    """One argument as columns: the fields of `Columns` before it is scaled."""

    value: Tensor
    present: Tensor
    stage: int
    ordered: bool
    rounding: Tensor


def oriented(x: Inputs, space: IsometryGroup) -> list[Leaf]:
    """The arguments with points, then those with vectors.

    What lies on the edges of a ragged batch is left out: such arguments are not padded to a common number of columns.
    """
    points = []
    vectors = []
    for leaf in spatial(x, space):
        if leaf.rep.on_edges:
            continue
        if is_point(leaf, space):
            points.append(leaf)
        else:
            vectors.append(leaf)
    return points + vectors


def is_ordered(leaf: Leaf, space: IsometryGroup) -> bool:
    """Whether nothing but `None` axes and channels number the columns: the order of an `Axis` means nothing."""
    return all(slot.group == space for slot, _ in leaf.rep.axes)


def read_columns(x: Inputs, space: IsometryGroup, eps: Mapping[str, float]) -> tuple[Columns, Tensor]:
    """The columns of a space and its origin (B, D): the centroid for E and SE, zero for O and SO.

    Where the space keeps an axis, the columns are those in the plane that it turns. They are judged next to the
    rounding of all coordinates, so that points above each other have no direction there.

    Args:
        x: the inputs in float64.
        eps: relative rounding of every argument, by name.

    Raises:
        ValueError: the group moves points, and no argument holds any.
    """
    origin = centroid(x, space) if space.anchored else None
    leaves = oriented(x, space)

    # 1. each argument about the origin, with the rounding of its coordinates as they came
    parts: list[_Part] = []
    for leaf in leaves:
        raw, present = columns(x, leaf, space)
        value, _ = centred(x, leaf, space, origin)
        present = exists(raw, present)
        rounding = eps[leaf.name] ** 2 * (raw * present[:, None]).detach().square().sum((1, 2))
        if space.kept_axes:
            value = value[:, list(turned_axes(space))]
        stage = 0
        if parts and not is_point(leaf, space):
            stage = parts[-1].stage + 1
        parts.append(_Part(value, present, stage, is_ordered(leaf, space), rounding))

    if origin is None:
        origin = torch.zeros(x.count, space.dim, dtype=torch.float64, device=x.device)

    # 2. without any data, one column that does not exist: nothing is known of the axes
    if not any(part.value.shape[-1] for part in parts):
        nothing = origin.new_zeros(x.count, len(turned_axes(space)), 1)
        parts = [_Part(nothing, nothing[:, 0] > 0, 0, True, nothing[:, 0, 0])]

    coarsest = max((eps[leaf.name] for leaf in leaves), default=FLOAT64_EPS)
    return _joined(parts, coarsest), origin


def _joined(parts: list[_Part], eps: float) -> Columns:
    """All columns, those of one stage divided by its largest coordinate."""
    device = parts[0].value.device
    by_stage: list[list[Tensor]] = [[] for _ in range(parts[-1].stage + 1)]
    for part in parts:
        by_stage[part.stage].append(part.value)
    sizes = [_largest_coordinate(values) for values in by_stage]
    values = []
    roundings = []
    for part in parts:
        size = sizes[part.stage]
        values.append(part.value / size[:, None, None])
        roundings.append(part.rounding / size.square())
    widths = torch.tensor([part.value.shape[-1] for part in parts], device=device)
    return Columns(
        value=torch.cat(values, -1),
        present=torch.cat([part.present for part in parts], -1),
        argument=torch.repeat_interleave(torch.arange(len(parts), device=device), widths),
        stage=torch.tensor([part.stage for part in parts], device=device),
        ordered=torch.tensor([part.ordered for part in parts], device=device),
        rounding=torch.stack(roundings, -1),
        eps=eps,
    )


def _largest_coordinate(values: list[Tensor]) -> Tensor:
    """Largest magnitude of a coordinate (B,), so that squares neither vanish nor overflow; one where all are zero."""
    flat = torch.cat([value.detach().flatten(1) for value in values], 1).abs()
    if not flat.shape[1]:
        return torch.ones_like(flat.sum(1))
    largest = flat.amax(1)
    return torch.where(largest > 0, largest, 1.0)
