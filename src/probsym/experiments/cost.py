"""What a training costs, in a unit that no machine changes: floating-point operations of its matrix products."""

from __future__ import annotations

from torch.utils.flop_counter import FlopCounterMode

from .batches import Shuffled, reseed, stream
from .recipe import Recipe
from .training import Problem


def training_flops(problem: Problem, recipe: Recipe) -> int:
    """Operations of the first step, forward and backward, times the number of steps.

    Schedules that change the number of samples later are not followed.
    """
    batch = Shuffled(problem.train, recipe.batch_size, recipe.seed)[0]
    reseed(stream(recipe.seed, "cost"))
    problem.begin(0)
    problem.model.train()
    with FlopCounterMode(display=False) as counter:
        problem.loss(problem.model, batch).backward()
    problem.model.zero_grad(set_to_none=True)
    return counter.get_total_flops() * recipe.steps
