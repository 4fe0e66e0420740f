"""The checker of slots: the ways in which a group acts on an axis."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from probsym.groups import Element, Slot
from probsym.reps import Rep
from probsym.testing.elements import as_real, distance, draw_elements, probe_sizes, seeded, stored_alone
from probsym.testing.groups import BATCH_SHAPES, DEFAULT_NODES

CHANNELS = 2


def assert_slot(
    slot: Slot,
    *,
    n: int | None = None,
    tolerance: float = 1e-10,
    generator: torch.Generator | None = None,
) -> None:
    """Check the laws of one slot, wherever its axes stand and whatever the batch shape.

        (ab)x = a(bx),    e x = x,    |g x| = |x| if it says `isometric`,
        samples that share x are moved as copies of x are, each by its own element, channels are moved alike,
        `sizes` and `misfit` agree, outputs have the dtype of their inputs (float64, float32, bfloat16, complex64, and
        integers where `requires_float` is false; complex outputs of real inputs are allowed),
        equality by value, hash, repr.

    A slot that `interpolates` is an action only nearly: there the first line is left out, and all else is asked.

    All are exact, in float64 over batch shapes (), (1,) and (3, 1, 2). Elements are drawn by the group's `project`;
    `assert_group` checks the group itself.

    Args:
        slot: any slot, also a user's own, such as `space.vector`.
        n: size of a node axis that does not know its own; 4 unless given.

    Raises:
        AssertionError: names the law that fails.

    >>> from probsym.groups import E
    >>> assert_slot(E(3).vector)
    """
    checks = _Checks(slot, n, tolerance, seeded(generator))
    checks.structure()
    checks.sizes_agree()
    for shape in BATCH_SHAPES:
        checks.action(shape)
    checks.dtypes()


class _Checks:
    """The laws of one slot, with what all of them share."""

    def __init__(self, slot: Slot, n: int | None, tolerance: float, generator: torch.Generator) -> None:
        self.slot = slot
        self.tolerance = tolerance
        self.generator = generator
        if n is None and getattr(slot.group, "size", 0) is None:
            n = DEFAULT_NODES
        self.stored = stored_alone(slot.group, {slot.group: n})
        self.size: tuple[int, ...] = ()
        if slot.role not in ("labels", "edges"):
            self.size = probe_sizes(slot, self.stored[slot.group])

    def fail(self, law: str, detail: str = "") -> None:
        raise AssertionError(f"{self.slot!r}: {law}{detail}")

    def same(self, law: str, a: Tensor, b: Tensor, of: str) -> None:
        gap = distance([as_real(a)], [as_real(b)])
        if not gap <= self.tolerance:
            self.fail(law, f" fails{of}: difference {gap:.1e}, tolerance {self.tolerance:.0e}")

    # ------------------------------------------------------------ what it is

    def structure(self) -> None:
        other = copy.deepcopy(self.slot)
        if other != self.slot or hash(other) != hash(self.slot):
            self.fail("equality and hash must be by value")
        if " at 0x" in repr(self.slot) or repr(other) != repr(self.slot):
            self.fail("repr must show the value")

    def sizes_agree(self) -> None:
        sizes = self.slot.sizes
        if len(sizes) != self.slot.num_axes:
            self.fail(f"sizes must tell {self.slot.num_axes} axes, its num_axes", f": got {sizes}")
        if len(self.size) == self.slot.num_axes and self.slot.misfit(self.size) is not None:
            self.fail("misfit must accept its sizes", f": refused {self.size}")
        if None not in sizes and sizes:
            wrong = tuple(size + 1 for size in self.size)
            if self.slot.misfit(wrong) is None:
                self.fail("misfit must refuse other sizes than its own", f": accepted {wrong}")

    # ------------------------------------------------------------ what it does

    def draw(self, shape: tuple[int, ...]) -> Element:
        return draw_elements(self.slot.group, shape, self.stored, self.generator)

    def tensor(self, *shape: int) -> Tensor:
        options: dict[str, Any] = {"generator": self.generator, "device": self.generator.device}
        if self.slot.role == "labels":
            return torch.randint(-1, self.stored[self.slot.group].layout.size, shape, **options)
        kind = torch.complex128 if self.slot.is_complex else torch.float64
        return torch.randn(*shape, dtype=kind, **options)

    def action(self, shape: tuple[int, ...]) -> None:
        e = self.stored[self.slot.group].identity(shape, dtype=torch.float64)
        a = self.draw(shape)
        b = self.draw(shape)
        for front in ((), (3,)):
            of = f" for batch shape {shape} and {len(front)} axes before it"
            rep = Rep(*[None] * len(front), self.slot)
            own = self.own_axes()
            x = self.slot.representative(self.tensor(*front, *own, CHANNELS), len(front))

            # 1. the result has the batch dims of g in front of all axes of x
            moved = rep.act(a, x, 0)
            if tuple(moved.shape) != (*shape, *x.shape):
                self.fail("g x must have the batch shape of g and the axes of x", f"{of}: got {tuple(moved.shape)}")

            # 2. an action
            if not self.slot.interpolates:
                self.same_action(rep, e, a, b, x, of)

            # 3. copies of x, and channels one by one
            copies = x.expand(*shape, *x.shape).contiguous()
            self.same("samples that share x must be moved as copies of it", moved, rep.act(a, copies), of)
            if self.slot.role != "labels":
                alone = torch.stack([rep.act(a, x[..., channel], 0) for channel in range(CHANNELS)], -1)
                self.same("channels must be moved alike", moved, alone, of)

            # 4. every sample by its own element
            if shape:
                last = (-1,) * len(shape)
                single = a.map(lambda tensor, _: tensor[(-1,) * len(shape)])
                self.same("every sample must be moved by its own element", moved[last], rep.act(single, x, 0), of)

            # 5. lengths
            if self.slot.isometric and self.slot.role != "labels":
                axes = tuple(range(len(front), len(front) + self.slot.num_axes))
                before = x.abs().square()
                after = moved.abs().square()
                if axes:
                    before = before.sum(axes)
                    after = after.sum(tuple(len(shape) + axis for axis in axes))
                self.same("isometric |g x| = |x|", after, before.expand_as(after), of)

    def same_action(self, rep: Rep, e: Element, a: Element, b: Element, x: Tensor, of: str) -> None:
        """The laws of an action, which interpolation does not keep."""
        self.same("action (ab)x = a(bx)", rep.act(a @ b, x, 0), rep.act(a, rep.act(b, x, 0)), of)
        still = rep.act(e, x, 0)
        self.same("action e x = x", still, x.expand_as(still), of)
        moved = rep.act(a, x, 0)
        self.same("action a^-1 (a x) = x", rep.act(a.inverse(), moved), x.expand_as(moved), of)

    def own_axes(self) -> tuple[int, ...]:
        """Sizes of the axes that the slot takes; of labels and edges some of any size."""
        if self.slot.role == "edges":
            return (3,)
        return self.size

    def dtypes(self) -> None:
        g = self.draw((2,))
        rep = Rep(self.slot)
        if self.slot.role == "labels":
            return
        x = self.slot.representative(self.tensor(*self.own_axes(), CHANNELS), 0)
        kinds = [torch.float64, torch.float32, torch.bfloat16]
        if self.slot.is_complex:
            kinds = [torch.complex64]
        for kind in kinds:
            moved = rep.act(g, x.to(kind), 0)
            complex_of_real = moved.is_complex() and not kind.is_complex
            if moved.dtype != kind and not complex_of_real:
                self.fail("outputs must have the dtype of the inputs", f": expected {kind}, got {moved.dtype}")
        if self.slot.requires_float or self.slot.is_complex:
            return
        whole = (10 * x).long()
        moved = rep.act(g, whole, 0)
        if moved.dtype != torch.long:
            self.fail("integers must stay integers where requires_float is false", f": got {moved.dtype}")
        self.same("integers must move as numbers do", moved, rep.act(g, whole.double(), 0), "")
