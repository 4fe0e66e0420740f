"""One training loop for all experiments: Lightning's Trainer, made cheap enough for steps of five milliseconds.

A Lightning epoch is the stretch of steps up to the next validation, so that nothing but arithmetic happens between
validations. All randomness of a step is a function of (seed, rank, step) (`batches.stream`), so a run that was killed
goes on from its checkpoint exactly as if nothing had happened. Checkpoints follow validations; one that a signal asks
for follows the step that was being made.

Two things are done here that Lightning has callbacks for. Its WeightAveraging copies the whole module with its data,
takes the first weights as they are instead of averaging them in, and on a GPU waits for every step. Its CSVLogger
appends, so after a kill the rows since the last checkpoint would stand twice.
"""

from __future__ import annotations

import csv
import io
import logging
import math
import signal
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric
from tqdm import tqdm

from probsym.files import write

from .average import Average
from .batches import Batch, Pages, Shuffled, Source, Steps, reseed, stream
from .checkpoint import Checkpoints
from .errors import UserError
from .interruption import Interrupted, listen
from .recipe import Recipe

CHECKPOINT = "last.ckpt"
PAGE = 500  # samples validated at a time


@dataclass(frozen=True)
class Problem:
    """What is learned from what.

    Args:
        model: Trained in place.
        loss: (model, batch) to the scalar that is minimised.
        judge: (model, batch) to what `metric` is updated with, such as one error a sample.
        train: Samples to learn from.
        valid: Samples on which `metric` picks the weights that are kept.
        begin: Told the number of each step before it; schedules follow it.
        metric: Of the whole of `valid`, over all processes; the mean of what `judge` says unless given.
        groups: Parameters with learning rates of their own, as torch.optim takes them; None is one group at the
            recipe's rate.
        page: Samples judged at a time.
    """

    model: nn.Module
    loss: Callable[[nn.Module, Batch], Tensor]
    judge: Callable[[nn.Module, Batch], Tensor]
    train: Source
    valid: Source
    begin: Callable[[int], None] = lambda step: None
    metric: Callable[[], Metric] = partial(MeanMetric, nan_strategy="disable")  # a NaN is told, not skipped
    groups: Callable[[], list[dict[str, Any]]] | None = None
    page: int = PAGE


@dataclass
class Progress:
    """What a run has come to; all of it lies in the checkpoint."""

    best: float = math.nan  # of the metric
    weights: dict[str, Tensor] = field(default_factory=dict)  # of the best validation
    history: list[dict[str, float]] = field(default_factory=list)  # one row a validation: metrics.csv
    seconds: float = 0.0  # spent so far, interrupted runs included
    cpu_seconds: float = 0.0  # of all threads
    earlier: tuple[float, float] = (0.0, 0.0)  # of both, in interrupted runs

    @property
    def steps(self) -> int:
        """Optimizer steps that were made; fewer than those of the recipe if it ended early."""
        return int(self.history[-1]["step"])


def fit(problem: Problem, recipe: Recipe, out: Path, resume: bool = False) -> Progress:
    """Trains `problem.model` and leaves in it, in evaluation mode, the weights of the best validation.

    With `resume`, goes on from the checkpoint in `out` if there is one. Only the first process returns.
    Raises UserError if the loss becomes NaN, and Interrupted, with a checkpoint in `out`, once a signal asks for it.
    """
    # 1. The parts of the run. A checkpoint belongs to a recipe; how the Trainer runs may change on the way.
    path = out / CHECKPOINT
    module = Training(problem, recipe)
    keeper = Keeper(path, recipe)
    callbacks: list[pl.Callback] = [keeper]
    if recipe.patience:
        mode = "min"
        if module.metric.higher_is_better:
            mode = "max"
        # After validations, and so before the keeper writes what it counted.
        callbacks.append(EarlyStopping("valid", patience=recipe.patience, mode=mode, check_on_train_epoch_end=False))
    if recipe.trainer.progress:
        callbacks.append(Bar())
    identity = asdict(recipe)
    del identity["trainer"]
    checkpoints = Checkpoints(identity)
    trainer = make_trainer(recipe, out, callbacks, checkpoints)
    begin_from = None
    if resume and path.exists():
        begin_from = path

    # 2. Train. Errors before the first step come from a checkpoint that is not of this run, if one was loaded.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")  # advice about loggers and worker processes
        try:
            trainer.fit(module, ckpt_path=begin_from, weights_only=True)
        except Interrupted:
            if trainer.is_global_zero:
                raise
        except UserError:
            raise
        except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            if checkpoints.loaded is None or keeper.started or isinstance(error, torch.OutOfMemoryError):
                raise
            reason = " ".join(str(error).split())
            raise UserError(f"--resume: {path}: does not fit this run ({type(error).__name__}: {reason})") from error
    if not trainer.is_global_zero:
        raise SystemExit(0)  # what follows is for one process

    # 3. Leave the best weights in the model.
    problem.model.load_state_dict(module.progress.weights)
    problem.model.to(trainer.strategy.root_device).eval()
    return module.progress


def make_trainer(recipe: Recipe, out: Path, callbacks: list[pl.Callback], checkpoints: Checkpoints) -> pl.Trainer:
    """Lightning's Trainer for a recipe; raises UserError for options that do not go together on this machine."""
    options = recipe.trainer
    logger: TensorBoardLogger | bool = False
    if options.tensorboard:
        logger = TensorBoardLogger(out, name="tensorboard", version="")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)  # which devices it found, and advice
    try:
        return pl.Trainer(
            accelerator=options.accelerator,
            devices=options.devices,
            num_nodes=options.num_nodes,
            strategy=options.strategy,
            precision=options.precision,  # type: ignore[arg-type]  # Lightning checks the name
            gradient_clip_val=recipe.clip or None,
            max_epochs=recipe.validations,
            logger=logger,
            callbacks=callbacks,
            plugins=[checkpoints],
            default_root_dir=out,
            use_distributed_sampler=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            log_every_n_steps=recipe.validate_every,
        )
    except (MisconfigurationException, ModuleNotFoundError, ValueError, TypeError) as error:
        asked = f"accelerator {options.accelerator}, devices {options.devices}, strategy {options.strategy}"
        raise UserError(f"trainer: {asked}, precision {options.precision}: {error}") from error


class Training(pl.LightningModule):
    """A `Problem` under a `Recipe`, as Lightning wants it."""

    def __init__(self, problem: Problem, recipe: Recipe):
        super().__init__()
        self.problem = problem
        self.recipe = recipe
        self.model = problem.model
        self.progress = Progress()
        self.average: Average | None = None
        if recipe.ema:
            self.average = Average(self.model, recipe.ema)
        self.metric = problem.metric()
        self.valid = math.nan  # the last value of it
        # Of the training losses since the last validation.
        self.loss_sum = torch.zeros(())
        self.loss_count = 0

    def setup(self, stage: str) -> None:
        world = self.trainer.world_size
        if min(self.recipe.batch_size, len(self.problem.train)) % world:
            raise UserError(f"batch_size: expected a multiple of the {world} processes; got {self.recipe.batch_size}")
        rest = len(self.problem.train) % self.recipe.batch_size
        if self.recipe.keep_rest and rest % world:
            raise UserError(f"keep_rest: expected false with {world} processes and a rest of {rest} samples; got true")
        if len(self.problem.valid) < world:
            raise UserError(
                f"expected a validation sample for each of {world} processes; got {len(self.problem.valid)}"
            )

    def configure_optimizers(self) -> torch.optim.Optimizer:
        if self.problem.groups is not None:
            groups = self.problem.groups()
        else:
            weights = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
            groups = [{"params": weights, "lr": self.recipe.lr}]
        for group in groups:
            group["peak"] = group["lr"]  # the schedule changes the rate
        # Lightning does not clip gradients that a fused optimizer unscales itself.
        clipped_in_mixed_precision = bool(self.recipe.clip) and self.trainer.precision.endswith("mixed")
        fused = not clipped_in_mixed_precision
        optimizer: type[torch.optim.Adam] = torch.optim.AdamW
        if self.recipe.l2:
            optimizer = torch.optim.Adam
        return optimizer(groups, lr=self.recipe.lr, weight_decay=self.recipe.weight_decay, fused=fused)

    def on_fit_start(self) -> None:
        if self.average:
            self.average.to(self.device)

    def train_dataloader(self) -> Steps:
        recipe = self.recipe
        batches = Shuffled(
            self.problem.train,
            recipe.batch_size,
            recipe.seed,
            self.global_rank,
            self.trainer.world_size,
            recipe.keep_rest,
        )

        def until_next_validation() -> tuple[int, int]:
            return self.global_step, recipe.validation_after(self.global_step)

        return Steps(batches, until_next_validation)

    def val_dataloader(self) -> Pages:
        return Pages(self.problem.valid, self.problem.page, self.global_rank, self.trainer.world_size)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        reseed(stream(self.recipe.seed, "step", self.global_rank, self.global_step))
        share = self.recipe.share(self.global_step)
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = group["peak"] * share
        self.problem.begin(self.global_step)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        loss = self.problem.loss(self.model, batch)
        # Not .item(), which would wait for the GPU at every step.
        self.loss_sum = self.loss_sum.to(loss.device) + loss.detach()
        self.loss_count += 1
        return loss

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        if self.average:
            self.average.update()

    def on_validation_start(self) -> None:
        if self.average:
            self.average.swap()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        # The same draws at every validation, whatever the number of processes.
        page = batch_idx * self.trainer.world_size + self.global_rank
        reseed(stream(self.recipe.seed, "valid", page))
        self.metric.update(self.problem.judge(self.model, batch))

    def on_validation_epoch_end(self) -> None:
        self.valid = float(self.metric.compute())
        self.metric.reset()
        self.log("valid", self.valid, logger=False)  # for EarlyStopping

    def on_validation_end(self) -> None:
        step = self.global_step
        train = self._mean_loss()
        valid = self.valid
        if not math.isfinite(train + valid):
            raise UserError(f"lr: training diverged before step {step} (loss {train}); try less than {self.recipe.lr}")

        # Keep the weights if they are the best so far.
        if self.metric.higher_is_better:
            better = valid > self.progress.best
        else:
            better = valid < self.progress.best
        if better or not self.progress.weights:
            self.progress.best = valid
            self.progress.weights = {}
            for name, value in self.model.state_dict().items():
                self.progress.weights[name] = value.detach().cpu().clone()

        numbers = {"lr": self.recipe.rate(step - 1), "train_loss": train, "valid": valid}
        self.progress.history.append({"step": step, **numbers})
        for logger in self.loggers:
            logger.log_metrics(numbers, step)
        if self.average:
            self.average.swap()

    def _mean_loss(self) -> float:
        """Of the steps since it was last asked for, over all processes."""
        mean = self.trainer.strategy.reduce(self.loss_sum / self.loss_count, reduce_op="mean")
        self.loss_sum = torch.zeros(())
        self.loss_count = 0
        return float(mean)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        mean = self.trainer.strategy.reduce(self.loss_sum.to(self.device, copy=True), reduce_op="mean")
        average = None
        if self.average:
            average = self.average.state()
        checkpoint["progress"] = vars(self.progress) | {"average": average, "loss": (mean, self.loss_count)}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        # Earlier versions wrote neither "cpu_seconds" nor "loss".
        saved = {"cpu_seconds": math.nan, "loss": (torch.zeros(()), 0)} | checkpoint["progress"]
        average = saved.pop("average")
        if average is not None:
            assert self.average is not None  # the recipe is the same
            self.average.load(average)
        self.loss_sum, self.loss_count = saved.pop("loss")
        self.progress = Progress(**saved)
        self.progress.earlier = self.progress.seconds, self.progress.cpu_seconds


ASK_EVERY = 16  # steps after which several processes ask each other whether to end


class Keeper(pl.Callback):
    """Keeps the run on disk: metrics.csv at each validation, the checkpoint every few minutes and at the end.

    A signal ends the training, with a checkpoint, after the step that it meets and the validation due then, if any.
    """

    def __init__(self, path: Path, recipe: Recipe):
        self.path = path
        self.recipe = recipe
        self.signal: int | None = None
        self.started = False
        # When the last checkpoint was written.
        self.wall = time.monotonic()
        self.cpu = time.process_time()

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.started = True
        # A checkpoint of a run that had come to an early end has nothing to go on with.
        stopper = trainer.early_stopping_callback
        if stopper is not None and stopper.wait_count >= stopper.patience:
            trainer.should_stop = True
        # Instead of Lightning, which would stop within a validation. It restores the handlers that were there.
        listen(self._remember)

    def _remember(self, number: int, frame: Any) -> None:
        self.signal = number

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *args: Any) -> None:
        if trainer.world_size > 1 and trainer.global_step % ASK_EVERY:
            return  # asking all processes waits for them
        validation_is_due = trainer.global_step == self.recipe.validation_after(trainer.global_step - 1)
        if not validation_is_due and self._asked(trainer):
            self._save(trainer, module)
            raise Interrupted(self.signal or signal.SIGTERM)

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        assert isinstance(module, Training)
        if trainer.is_global_zero:
            write(self.path.parent / "metrics.csv", table(module.progress.history))
        asked = self._asked(trainer)
        minutes = (time.monotonic() - self.wall) / 60
        ended = trainer.should_stop or trainer.global_step >= self.recipe.steps
        due = ended or minutes > self.recipe.trainer.checkpoint_minutes
        if asked or trainer.strategy.broadcast(due):  # the first process decides for all
            self._save(trainer, module)
        if asked:
            raise Interrupted(self.signal or signal.SIGTERM)

    def _asked(self, trainer: pl.Trainer) -> bool:
        """Whether any process was asked to end."""
        return trainer.strategy.reduce_boolean_decision(self.signal is not None, all=False)

    def _save(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        assert isinstance(module, Training)
        wall = time.monotonic()
        cpu = time.process_time()
        module.progress.seconds += wall - self.wall
        module.progress.cpu_seconds += cpu - self.cpu
        self.wall = wall
        self.cpu = cpu
        trainer.save_checkpoint(self.path)


def table(rows: list[dict[str, float]]) -> str:
    """Rows as CSV."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


class Bar(pl.Callback):
    """Steps of the whole run, refreshed every fiftieth."""

    bar = tqdm(disable=True)  # until training starts

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        assert isinstance(module, Training)
        self.bar = tqdm(
            total=module.recipe.steps,
            initial=trainer.global_step,
            unit="step",
            disable=not trainer.is_global_zero,
            dynamic_ncols=True,
        )

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        if trainer.global_step % 50 == 0:
            self.bar.update(trainer.global_step - self.bar.n)

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        assert isinstance(module, Training)
        row = module.progress.history[-1]
        self.bar.set_postfix(train=f"{row['train_loss']:.4g}", valid=f"{row['valid']:.4g}")
        self.bar.update(trainer.global_step - self.bar.n)

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.bar.close()

    def on_exception(self, trainer: pl.Trainer, module: pl.LightningModule, exception: BaseException) -> None:
        self.bar.close()  # what is told next begins a line
