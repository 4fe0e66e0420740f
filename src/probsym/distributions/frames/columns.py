"""The points and vectors of one space as columns: the data whose directions make the axes of a frame."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from probsym.distributions.frames.tolerances import FLOAT64_EPS
from probsym.distributions.geometry import centred, centroid, columns, exists, is_point, spatial
from probsym.groups import IsometryGroup
from probsym.reps import Inputs, Leaf


@dataclass(frozen=True, eq=False)
class Columns:
    """Points (first) and vectors of one space as columns (B batch, D space, M columns, L inputs of this space).

    The inputs are compared in stages, each at unit size: all points together, then one input of vectors after another.

    Args:
        value: (B, D, M) in float64, zero where `present` (B, M) is false.
        present: which columns exist.
        block: (M,), the input that each column comes from, numbered 0 ... L-1.
        stage: (L,), the same number for all inputs of points, one for each of vectors: what is compared together.
        ordered: (L,), whether the order of the columns of an input has a meaning.
        rounding: (B, L), sum of squares that rounding leaves where there should be zero.
        eps: relative rounding of the coarsest dtype among them.
    """

    value: Tensor
    present: Tensor
    block: Tensor
    stage: Tensor
    ordered: Tensor
    rounding: Tensor
    eps: float

    @property
    def stages(self) -> int:
        return int(self.stage[-1]) + 1

    def of_stage(self, number: int) -> tuple[Tensor, Tensor]:
        """The columns of one stage (B, D, m) and their rounding (B,)."""
        blocks = self.stage == number
        return self.value[..., blocks[self.block]], self.rounding[:, blocks].sum(-1)

    def sum_by_input(self, squares: Tensor, block: Tensor | None = None) -> Tensor:
        """Sums over the columns of each input: (..., M) -> (..., L); `block` where these are not all columns."""
        if block is None:
            block = self.block
        share = block[:, None] == torch.arange(len(self.stage), device=block.device)
        return squares @ share.to(squares.dtype)


@dataclass(frozen=True, eq=False)
class _Block:
    """One input as columns: the fields of `Columns` before it is scaled."""

    value: Tensor
    present: Tensor
    stage: int
    ordered: bool
    rounding: Tensor


def oriented(x: Inputs, space: IsometryGroup) -> list[Leaf]:
    """The points, then the vectors of an input; those on the edges of a ragged batch have no fixed number."""
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

    Args:
        x: the inputs in float64.
        eps: relative rounding of every input, by name.

    Raises:
        ValueError: the group moves points, and no input holds any.
    """
    origin = centroid(x, space) if space.anchored else None
    leaves = oriented(x, space)

    # 1. each input about the origin, with the rounding of its coordinates as they came
    blocks: list[_Block] = []
    for leaf in leaves:
        raw, present = columns(x, leaf, space)
        value, _ = centred(x, leaf, space, origin)
        present = exists(raw, present)
        rounding = eps[leaf.name] ** 2 * (raw * present[:, None]).detach().square().sum((1, 2))
        stage = 0
        if blocks and not is_point(leaf, space):
            stage = blocks[-1].stage + 1
        blocks.append(_Block(value, present, stage, is_ordered(leaf, space), rounding))

    if origin is None:
        origin = torch.zeros(x.count, space.dim, dtype=torch.float64, device=x.device)

    # 2. without any data, one column that does not exist: nothing is known of the axes
    if not any(block.value.shape[-1] for block in blocks):
        nothing = origin.new_zeros(x.count, space.dim, 1)
        blocks = [_Block(nothing, nothing[:, 0] > 0, 0, True, nothing[:, 0, 0])]

    coarsest = max((eps[leaf.name] for leaf in leaves), default=FLOAT64_EPS)
    return _joined(blocks, coarsest), origin


def _joined(blocks: list[_Block], eps: float) -> Columns:
    """All columns, those of one stage divided by its largest coordinate."""
    device = blocks[0].value.device
    by_stage: list[list[Tensor]] = [[] for _ in range(blocks[-1].stage + 1)]
    for block in blocks:
        by_stage[block.stage].append(block.value)
    sizes = [_largest_coordinate(values) for values in by_stage]
    values = []
    roundings = []
    for block in blocks:
        size = sizes[block.stage]
        values.append(block.value / size[:, None, None])
        roundings.append(block.rounding / size.square())
    widths = torch.tensor([block.value.shape[-1] for block in blocks], device=device)
    return Columns(
        value=torch.cat(values, -1),
        present=torch.cat([block.present for block in blocks], -1),
        block=torch.repeat_interleave(torch.arange(len(blocks), device=device), widths),
        stage=torch.tensor([block.stage for block in blocks], device=device),
        ordered=torch.tensor([block.ordered for block in blocks], device=device),
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
