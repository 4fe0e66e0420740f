"""Rows of a batch that are worth evaluating: needed, and not equal to another."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from probsym.kernels.values import differentiated
from probsym.reps.inputs import Inputs
from probsym.reps.rep import Rep

LOOK = 256


class UniqueRows:
    """A batch without the rows that nobody needs, and with one of each set of bitwise equal rows.

    Equal rows are found by a 64-bit hash of up to `LOOK` entries and then compared. In ragged batches only unneeded
    graphs are left out; so it is where gradients flow to the rows, since equal rows may be different functions of the
    input.

    Args:
        rows: the whole batch of R inputs.
        needed: (R,) bool.
        alike: whether equal rows are worth looking for.

    Attributes:
        inputs: the smaller batch.
    """

    def __init__(self, rows: Inputs, needed: Tensor, alike: bool = True) -> None:
        self.rows, self.needed = rows, needed
        self.source = torch.arange(rows.count, device=needed.device)
        learns = any(differentiated(leaf.value) for leaf in rows.leaves.values())
        if alike and not learns and not any(layout.ragged for layout in rows.layouts.values()):
            chosen = needed.nonzero().squeeze(-1)
            self.source[chosen] = chosen[_first_equal(rows, chosen)]
        self.keep = needed & (self.source == torch.arange(rows.count, device=needed.device))
        self.all = bool(self.keep.all())
        if not self.all and not bool(self.keep.any()):
            self.keep[:1] = True  # a model need not bear an empty batch
        self.inputs = rows if self.all else rows.select(self.keep)

    def restore(self, out: Tensor, rep: Rep) -> Tensor:
        """The output for all rows from that of the smaller batch; zero for rows that nobody needs."""
        if self.all:
            return out
        if rep.ragged is None:
            place = (self.keep.cumsum(0) - 1)[self.source].clamp_min(0)
            return out[place].masked_fill(~self.needed.reshape(-1, *[1] * (out.ndim - 1)), 0)
        layout = self.rows.layouts[rep.ragged]
        owner: Tensor = layout.batch  # type: ignore[assignment]
        if rep.on_edges:
            smaller = self.inputs.layouts[rep.ragged]
            owner = layout.edges[smaller.edges_of(rep.slots[0], len(out))]  # type: ignore[arg-type]
        every = out.new_zeros(len(owner), *out.shape[1:]).index_put((self.keep[owner],), out)
        return every.masked_fill(~self.needed[owner].reshape(-1, *[1] * (out.ndim - 1)), 0)


def _first_equal(rows: Inputs, chosen: Tensor) -> Tensor:
    """For each of the chosen rows the place of the first one equal to it."""
    parts = [leaf.value for leaf in rows.leaves.values()]
    parts += [layout.mask for layout in rows.layouts.values() if layout.mask is not None]
    code = torch.stack([_hash(part) for part in parts]).sum(0)[chosen]
    every = torch.arange(len(chosen), device=chosen.device)
    ordered, order = code.sort(stable=True)
    fresh = torch.nn.functional.pad(ordered[1:] != ordered[:-1], (1, 0), value=True)
    if bool(fresh.all()):
        return every
    first = torch.empty_like(chosen)
    first[order] = order[fresh.nonzero().squeeze(-1)][fresh.cumsum(0) - 1]
    pairs = ((part[chosen], part[chosen[first]]) for part in parts)
    same = torch.stack([_flat(a == b).all(1) for a, b in pairs]).all(0)
    return torch.where(same, first, every)


def _flat(value: Tensor) -> Tensor:
    """(B, ...) -> (B, F), also without other axes."""
    return value.reshape(len(value), math.prod(value.shape[1:]))


def _hash(value: Tensor) -> Tensor:
    """A 64-bit number a row, from the bits of evenly spaced entries; 0 and -0 are the same."""
    if value.is_complex():
        value = torch.view_as_real(value)
    if value.is_floating_point():
        bits = {2: torch.int16, 4: torch.int32, 8: torch.int64}[value.element_size()]
        value = (value.detach() + 0.0).contiguous().view(bits)
    flat = _flat(value)
    flat = flat[:, :: max(1, flat.shape[1] // LOOK)].long()
    generator = torch.Generator(value.device).manual_seed(flat.shape[1])
    factor = torch.randint(-(2**62), 2**62, (flat.shape[1],), generator=generator, device=value.device)
    return (flat * (2 * factor + 1)).sum(1)
