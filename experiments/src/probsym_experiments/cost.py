"""What a training costs, in a unit that no machine changes: floating-point operations of its matrix products."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from .batches import Shuffled, reseed, stream
from .recipe import Recipe
from .training import Problem

Shape = tuple[int, ...]


def attention(query: Shape, key: Shape, value: Shape, *rest: Any, **more: Any) -> int:
    """Q K' and its product with V; causal attention is counted as if it saw everything."""
    return sdpa_flop_count(query, key, value)


def attention_backward(grad: Shape, query: Shape, key: Shape, value: Shape, *rest: Any, **more: Any) -> int:
    """Two products for the gradient of each of them. What a kernel computes again to save memory is not counted."""
    return 2 * sdpa_flop_count(query, key, value)


# torch knows no formula for the kernel of CPUs, and counts with the others what they compute again.
FORMULAS: dict[Any, Callable[..., int]] = {}
for kernel in ("flash_attention", "flash_attention_for_cpu", "efficient_attention", "cudnn_attention"):
    forward = getattr(torch.ops.aten, f"_scaled_dot_product_{kernel}")
    backward = getattr(torch.ops.aten, f"_scaled_dot_product_{kernel}_backward")
    FORMULAS[forward] = attention
    FORMULAS[backward] = attention_backward


def counter() -> FlopCounterMode:
    """Counts the operations of the matrix products within it, attention's included, alike on every device."""
    return FlopCounterMode(display=False, custom_mapping=FORMULAS)


def training_flops(problem: Problem, recipe: Recipe) -> int:
    """Operations of the first step, forward and backward, times the number of steps.

    Schedules that change the number of samples later are not followed, and the short batches of `keep_rest` count as
    whole ones. The model stays as it is, statistics included.
    """
    batch = Shuffled(problem.train, recipe.batch_size, recipe.seed)[0]
    reseed(stream(recipe.seed, "cost"))
    problem.begin(0)
    problem.model.train()
    buffers = {name: value.clone() for name, value in problem.model.named_buffers()}
    with counter() as counted:
        problem.loss(problem.model, batch).backward()
    problem.model.zero_grad(set_to_none=True)
    for name, value in problem.model.named_buffers():
        value.copy_(buffers[name])
    return counted.get_total_flops() * recipe.steps
