"""Rows of a batch that are worth evaluating: active, and not equal to another."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from probsym.kernels.values import differentiated, readable
from probsym.reps.inputs import Inputs
from probsym.reps.rep import Rep

MAX_HASHED_ENTRIES = 256  # per row and tensor; rows with equal hashes are compared in full


class UniqueRows:
    """A batch without its inactive rows, and with one of each set of bitwise equal rows.

    Equal rows are found by a 64-bit hash and then compared. They are not looked for in ragged batches, nor where
    gradients flow to the rows: equal rows may be different functions of the input. Under a compiler or a function
    transform no row may be left out, since nothing may depend on a value.

    Args:
        rows: the whole batch of R inputs.
        active: (R,) bool, the rows whose output matters.
        deduplicate: whether to look for equal rows.

    Attributes:
        inputs: the smaller batch.
    """

    def __init__(self, rows: Inputs, active: Tensor, deduplicate: bool = True) -> None:
        self.rows = rows
        self.active = active
        self.keep: Tensor | None = None  # (R,) bool, the rows that are evaluated; None for all
        self.inputs = rows
        self.readable = rows.readable and readable(active)
        if not self.readable:
            return

        # The row that stands for each row: the first one equal to it, or itself.
        every = torch.arange(rows.count, device=active.device)
        self.source = every.clone()
        learns = any(differentiated(leaf.value) for leaf in rows.leaves.values())
        ragged = any(layout.ragged for layout in rows.layouts.values())
        if deduplicate and not learns and not ragged:
            chosen = active.nonzero().squeeze(-1)
            self.source[chosen] = chosen[_first_equal(rows, chosen)]

        keep = active & (self.source == every)
        if bool(keep.all()):
            return
        if not bool(keep.any()):
            keep[:1] = True  # a model need not bear an empty batch
        self.keep = keep
        self.inputs = rows.select(keep)

    def restore(self, out: Tensor, rep: Rep) -> Tensor:
        """The output for all rows from that of the smaller batch; zero for inactive rows, whatever the model made."""
        if not self.readable:
            return self._without_inactive(out, rep)
        if self.keep is None:
            return out
        if rep.ragged is None:
            place = (self.keep.cumsum(0) - 1)[self.source].clamp_min(0)
            return self._without_inactive(out[place], rep)

        # Ragged: rows of nodes or edges, of which those of the evaluated graphs come in order.
        layout = self.rows.layouts[rep.ragged]
        if rep.on_edges:
            smaller = self.inputs.layouts[rep.ragged]
            owner = layout.edges[smaller.edges_of(rep.slots[0], len(out))]  # type: ignore[arg-type]
        else:
            owner = layout.owner(rep.slots[0], layout.size)
        every = out.new_zeros(len(owner), *out.shape[1:]).index_put((self.keep[owner],), out)
        return _masked(every, self.active[owner])

    def _without_inactive(self, out: Tensor, rep: Rep) -> Tensor:
        """An output of all rows, with zeros in those of inactive inputs."""
        active = self.active
        if rep.ragged is not None:
            layout = self.rows.layouts[rep.ragged]
            active = active[layout.owner(rep.slots[0], len(out))]
        return _masked(out, active)


def _masked(out: Tensor, active: Tensor) -> Tensor:
    """Zeros in the inactive rows (R,) of an output (R, ...), NaN or not."""
    return out.masked_fill(~active.reshape(-1, *[1] * (out.ndim - 1)), 0)


def _first_equal(rows: Inputs, chosen: Tensor) -> Tensor:
    """For each of the chosen rows (C,) the place among them of the first one equal to it."""
    # Rows are equal if all their tensors are, masks included.
    parts = [leaf.value for leaf in rows.leaves.values()]
    parts += [layout.mask for layout in rows.layouts.values() if layout.mask is not None]
    code = torch.stack([_hash(part) for part in parts]).sum(0)[chosen]

    # The first row with the same hash. The sort is stable, so that it comes first in every run of equal hashes.
    every = torch.arange(len(chosen), device=chosen.device)
    ordered, order = code.sort(stable=True)
    starts_run = torch.nn.functional.pad(ordered[1:] != ordered[:-1], (1, 0), value=True)
    if bool(starts_run.all()):
        return every
    first = torch.empty_like(chosen)
    first[order] = order[starts_run.nonzero().squeeze(-1)][starts_run.cumsum(0) - 1]

    # Equal hashes do not prove equal rows.
    same = torch.ones_like(chosen, dtype=torch.bool)
    for part in parts:
        same = same & _flat(part[chosen] == part[chosen[first]]).all(1)
    return torch.where(same, first, every)


def _flat(value: Tensor) -> Tensor:
    """(R, ...) -> (R, F), also without other axes."""
    return value.reshape(len(value), math.prod(value.shape[1:]))


def _hash(value: Tensor) -> Tensor:
    """A 64-bit number per row, from the bits of evenly spaced entries; 0 and -0 are the same."""
    if value.is_complex():
        value = torch.view_as_real(value)
    if value.is_floating_point():
        bits = {2: torch.int16, 4: torch.int32, 8: torch.int64}[value.element_size()]
        value = (value.detach() + 0.0).contiguous().view(bits)  # -0.0 + 0.0 is 0.0
    flat = _flat(value)
    step = max(1, flat.shape[1] // MAX_HASHED_ENTRIES)
    flat = flat[:, ::step].long()

    # A linear hash with fixed random odd factors.
    generator = torch.Generator(value.device).manual_seed(flat.shape[1])
    factor = torch.randint(-(2**62), 2**62, (flat.shape[1],), generator=generator, device=value.device)
    return (flat * (2 * factor + 1)).sum(1)
