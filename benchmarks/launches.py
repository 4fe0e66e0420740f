"""How many operations a training step dispatches: on a GPU each is a launch or more, which small batches wait for.

Counts, not times: the same on every machine with the same release of torch.
"""

from __future__ import annotations

import copy
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from bases import Case, cases
from timing import place, table
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import probsym as ps

BASES = ("MLP", "transformer", "ViT")
BATCH = 16
WHERE = "MLP"  # the base whose places are listed
MOST = 20  # places
LIBRARY = Path(ps.__file__).parent
# What computes nothing, beside views: memory that is only set aside, and questions about dtypes.
NOTHING = ("aten::_unsafe_view", "aten::empty", "aten::empty_like", "aten::new_empty", "aten::promote_types")


class Launches(TorchDispatchMode):
    """Counts the operations that run while it is entered, and the functions of the library that ask for them.

    Views are left out. A value that is read counts: on a GPU it waits for all launches before it.

    >>> x = torch.ones(3)
    >>> with Launches() as launches:
    ...     y = (x.unsqueeze(0) + 1).sum()
    >>> launches.count
    2
    """

    def __init__(self) -> None:
        super().__init__()
        self.places: Counter[str] = Counter()

    @property
    def count(self) -> int:
        return self.places.total()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if not func.is_view and func._schema.name not in NOTHING:
            self.places[_caller()] += 1
        return func(*args, **(kwargs or {}))


def _caller() -> str:
    """The innermost function of the library among the callers; what autograd or the base model calls has none."""
    frame = sys._getframe(2)
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(LIBRARY):
            if path.name == "symmetrizer.py":
                return "the base model and all around it"
            return f"`{path.relative_to(LIBRARY).as_posix()}`, {frame.f_code.co_name}"
        frame = frame.f_back  # type: ignore[assignment]
    return "autograd, backward, and the loss"


def step(module: nn.Module, call: dict[str, Tensor], target: Tensor) -> Launches:
    """The operations of one training step without the optimizer."""
    module.zero_grad()
    with Launches() as launches:
        (module(**call) - target).square().mean().backward()
    return launches


def counted(case: Case, b: int) -> Iterator[tuple[str, Launches, Launches]]:
    """The bare model, phi with the uniform and phi with a learned p: their steps on the CPU and without values.

    Without values, as on a GPU: there the library looks at none, so that no closed form of common cases is taken.
    Tensors on the device "meta" have none to look at.
    """
    call = case.call(b)
    with torch.no_grad():
        target = torch.randn_like(case.model(**call))
    modules: dict[str, Callable[[], nn.Module]] = {
        "bare": lambda: case.model,
        "haar": lambda: case.symmetrized(1, "haar").train(),
        "learned": lambda: case.symmetrized(1).train(),
    }
    for name, make in modules.items():
        module = make()
        step(module, call, target)  # the first call looks at the values of its arguments
        here = step(module, call, target)
        elsewhere = copy.deepcopy(module).to("meta")
        there = step(elsewhere, {key: value.to("meta") for key, value in call.items()}, target.to("meta"))
        yield name, here, there


def launches(quick: bool) -> None:
    """Operations of a training step, bare, under the uniform and under a learned p, and where they come from."""
    if place.device.type != "cpu":
        raise ValueError(f"launches: counted on the CPU, got {place.device}")
    most: list[tuple[str, int]] = []

    def rows() -> Iterator[list[object]]:
        for name in BASES:
            found = {p: (here, there) for p, here, there in counted(cases()[name], BATCH)}
            bare, bare_there = found["bare"]
            haar, haar_there = found["haar"]
            learned, learned_there = found["learned"]
            if name == WHERE:
                most.extend((learned.places - bare.places).most_common(MOST))
            yield [
                name,
                bare.count,
                haar.count,
                learned.count,
                learned.count - bare.count,
                haar_there.count - bare_there.count,
                learned_there.count - bare_there.count,
            ]

    columns = ["base model", "bare", "Haar", "learned p", "a learned p adds", "Haar adds, no values read",
               "a learned p adds, no values read"]  # fmt: skip
    table(f"Operations of a training step, k = 1, B = {BATCH}", columns, rows())
    title = f"Where those that a learned p adds come from, {WHERE}"
    table(title, ["place", "operations"], [[where, number] for where, number in most])
