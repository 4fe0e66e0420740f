"""How to train, as data: the fields that every trained experiment shares."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field

from .checks import at_least
from .errors import UserError, choose


def cosine(step: int, steps: int, warmup: int) -> float:
    """(1 + cos(pi step / steps)) / 2, from the first step on."""
    return 0.5 * (1 + math.cos(math.pi * step / steps))


def linear(step: int, steps: int, warmup: int) -> float:
    """From 1 at the end of the warm-up to 0 one step after the last, which is steps - 1."""
    return 1 - max(0, step - warmup) / max(1, steps - warmup)


def linear_published(step: int, steps: int, warmup: int) -> float:
    """To 0 two steps after the last, as in the published code, where the end of the rise lasts for two steps."""
    if 0 < warmup == step:
        return 1 - 1 / warmup
    return 1 - max(0, step - warmup) / max(1, steps + 1 - warmup)


SCHEDULES = {"cosine": cosine, "linear": linear, "linear-published": linear_published}

# Names that Lightning's Trainer knows and the training loop works with; nothing else reaches it.
ACCELERATORS = dict.fromkeys(("auto", "cpu", "gpu", "cuda", "mps"))
STRATEGIES = dict.fromkeys(("auto", "ddp", "ddp_find_unused_parameters_true", "ddp_find_unused_parameters_false"))
PRECISIONS = dict.fromkeys(("32-true", "bf16-mixed", "16-mixed", "bf16-true", "16-true", "64-true"))


@dataclass(kw_only=True)
class TrainerOptions:
    """What Lightning's Trainer is told; none of it is part of a run's identity, so that a run may resume elsewhere.

    Args:
        accelerator: cpu, gpu, cuda, mps or auto.
        devices: How many, -1 for all, the numbers of GPUs such as 0,2, or auto.
        num_nodes: Machines.
        strategy: auto, ddp, or ddp_find_unused_parameters_true where a part of the model has no gradient.
        precision: 32-true, bf16-mixed, 16-mixed, bf16-true, 16-true or 64-true.
        threads: CPU threads of torch, recorded in the result; a resumed run keeps those that it began with, since sums
            split among other numbers of threads round otherwise. None takes as many as torch does by itself.
        checkpoint_minutes: A checkpoint is written at the first validation after this long, and at the end.
        progress: Show a progress bar.
        tensorboard: Write TensorBoard logs beside metrics.csv.
    """

    accelerator: str = "auto"
    devices: int | str = "auto"
    num_nodes: int = 1
    strategy: str = "auto"
    precision: str = "32-true"
    threads: int | None = None
    checkpoint_minutes: float = 2.0
    progress: bool = True
    tensorboard: bool = False

    def __post_init__(self) -> None:
        choose("trainer.accelerator", ACCELERATORS, self.accelerator)
        choose("trainer.strategy", STRATEGIES, self.strategy)
        choose("trainer.precision", PRECISIONS, self.precision)
        if not re.fullmatch(r"auto|-1|[1-9]\d*|\d+(,\d+)+", str(self.devices)):
            raise UserError(f"trainer.devices: expected auto, a positive number or numbers; got {self.devices!r}")
        at_least(self, 1, "num_nodes")
        at_least(self, 0, "checkpoint_minutes")
        if self.threads is not None:
            at_least(self, 1, "threads")


@dataclass(kw_only=True)
class Recipe:
    """Adam with weight decay, linear warm-up, decay, clipping, and the best validation checkpoint.

    Args:
        seed: Of the weights, the order of the data and all samples.
        steps: Optimizer steps.
        batch_size: Over all devices together.
        keep_rest: Whether the samples that are left at the end of a pass are a smaller batch, and not dropped.
        lr: Peak learning rate.
        schedule: How it decays: cosine, linear, or linear-published, that of the published code with warmup_from_zero.
        lr_end: Its share that is left at the last step; 1 keeps it constant.
        warmup: Steps over which it rises linearly.
        warmup_from_zero: Whether the first of them has rate 0, and not the first share of the rise.
        weight_decay: Decoupled (AdamW), unless `l2`.
        l2: Whether it is a part of the gradient instead, as in Adam.
        clip: Largest norm of the gradient; 0 is no clipping.
        ema: Decay of the moving average of the weights that is validated and tested; 0 is none.
        validate_every: Steps between validations.
        validate_first: Steps before the first of them; 0 is as many as between two.
        patience: Validations without a better one, one after the other, after which the training ends; 0 is never.
        trainer: Options of Lightning's Trainer.
    """

    seed: int = 1
    steps: int = 20_000
    batch_size: int = 100
    keep_rest: bool = False
    lr: float = 1e-3
    schedule: str = "cosine"
    lr_end: float = 0.0
    warmup: int = 0
    warmup_from_zero: bool = False
    weight_decay: float = 0.0
    l2: bool = False
    clip: float = 1.0
    ema: float = 0.0
    validate_every: int = 500
    validate_first: int = 0
    patience: int = 0
    trainer: TrainerOptions = field(default_factory=TrainerOptions)

    def __post_init__(self) -> None:
        at_least(self, 1, "steps", "batch_size", "validate_every")
        at_least(self, 0, "seed", "lr", "lr_end", "warmup", "weight_decay", "clip", "ema", "patience", "validate_first")
        choose("schedule", SCHEDULES, self.schedule)
        if self.schedule == "linear-published" and self.warmup and not self.warmup_from_zero:
            raise UserError("warmup_from_zero: expected true with schedule linear-published; got false")
        if self.ema >= 1:
            raise UserError(f"ema: expected less than 1; got {self.ema}")

    def share(self, step: int) -> float:
        """Of every peak learning rate, at a step: min(1, (step + 1) / warmup) * (end + (1 - end) * schedule).

        With `warmup_from_zero` the rise is step / warmup.
        """
        risen = step + 1
        if self.warmup_from_zero and self.warmup:
            risen = step
        rise = min(1.0, risen / max(1, self.warmup))
        return rise * (self.lr_end + (1 - self.lr_end) * SCHEDULES[self.schedule](step, self.steps, self.warmup))

    def rate(self, step: int) -> float:
        """Learning rate of a step."""
        return self.lr * self.share(step)

    def validation_after(self, step: int) -> int:
        """The step after which the next validation comes.

        >>> recipe = Recipe(steps=12, validate_every=5, validate_first=1)
        >>> [recipe.validation_after(step) for step in (0, 1, 5, 6, 11)]
        [1, 6, 6, 11, 12]
        """
        first = self.validate_first or self.validate_every
        if step < first:
            due = first
        else:
            due = first + ((step - first) // self.validate_every + 1) * self.validate_every
        return min(due, self.steps)

    @property
    def validations(self) -> int:
        """How many there are, that after the last step included.

        >>> Recipe(steps=12, validate_every=5, validate_first=1).validations
        4
        """
        first = min(self.validate_first or self.validate_every, self.steps)
        return 1 + math.ceil((self.steps - first) / self.validate_every)
