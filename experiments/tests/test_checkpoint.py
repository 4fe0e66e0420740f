"""Checkpoints that are not as they were written: refused in one line, or the run ends as if nothing had happened."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from probsym_experiments.batches import Tensors
from probsym_experiments.checkpoint import read
from probsym_experiments.errors import UserError
from probsym_experiments.evaluation import score, trained
from probsym_experiments.recipe import Recipe, TrainerOptions
from probsym_experiments.training import CHECKPOINT, Problem, Progress, fit


class Stop(Exception):
    pass


def train(
    out: Path, steps: int = 4, seed: int = 1, resume: bool = False, stop: int | None = None
) -> tuple[dict[str, Tensor], Progress]:
    """A linear model after a few steps, all of it a function of the arguments.

    Args:
        stop: The step at which the training breaks off; the checkpoint is that of the validation before.
    """
    torch.manual_seed(seed)
    net = torch.nn.Linear(2, 1)
    data = Tensors({"x": torch.randn(8, 2)})

    def begin(step: int) -> None:
        if step == stop:
            raise Stop

    problem = Problem(
        net,
        lambda model, batch: model(batch["x"]).square().mean(),
        lambda model, batch: model(batch["x"]).square()[:, 0],
        data,
        data,
        begin,
    )
    trainer = TrainerOptions(accelerator="cpu", progress=False, checkpoint_minutes=0.0)
    recipe = Recipe(steps=steps, seed=seed, validate_every=2, batch_size=4, ema=0.9, trainer=trainer)
    progress = fit(problem, recipe, out, resume)
    return net.state_dict(), progress


def same(one: Any, other: Any) -> bool:
    """Whether two checkpoints are equal to the last bit."""
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other or (one != one and other != other))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkpoint, which no test changes."""
    out = tmp_path_factory.mktemp("written")
    train(out)
    return out / CHECKPOINT


def earlier(path: Path) -> bytes:
    """The same checkpoint as earlier versions wrote it: without a digest."""
    torch.save(torch.load(path, weights_only=True), path)
    return path.read_bytes()


@pytest.mark.parametrize("signed", [True, False])
def test_one_flipped_bit_is_refused_or_changes_nothing(signed: bool, written: Path, tmp_path: Path) -> None:
    """At 300 places: anywhere, and among the last 2,000 bytes, where the archive keeps its index."""
    path = tmp_path / CHECKPOINT
    path.write_bytes(written.read_bytes())
    whole = path.read_bytes() if signed else earlier(path)
    expected = read(path)
    draw = random.Random(0)
    places = [draw.randrange(8 * len(whole)) for _ in range(150)]
    places += [8 * len(whole) - 1 - draw.randrange(16_000) for _ in range(150)]
    refused = 0
    for place in places:
        damaged = bytearray(whole)
        damaged[place // 8] ^= 1 << place % 8
        path.write_bytes(damaged)
        try:
            found = read(path)
        except UserError:
            refused += 1
        else:
            assert same(found, expected), place
    assert refused > 150


def test_a_flipped_bit_that_torch_does_not_see(written: Path, tmp_path: Path) -> None:
    """The reason for it all: torch.load takes other weights without a word, and the run is refused."""
    path = tmp_path / CHECKPOINT
    weight = read(written)["state_dict"]["model.weight"]
    place = written.read_bytes().index(weight.numpy().tobytes())
    damaged = bytearray(written.read_bytes())
    damaged[place + 2] ^= 1
    path.write_bytes(damaged)
    assert not torch.equal(torch.load(path, weights_only=True)["state_dict"]["model.weight"], weight)
    with pytest.raises(UserError, match="damaged checkpoint"):
        train(tmp_path, resume=True)


@pytest.mark.parametrize("signed", [True, False])
def test_a_whole_checkpoint_goes_on_to_the_same_end(signed: bool, tmp_path: Path) -> None:
    """The negative control: with another weight in the checkpoint it ends elsewhere."""
    straight, history = train(tmp_path / "straight", steps=6)
    parts = tmp_path / "parts"
    with pytest.raises(Stop):
        train(parts, steps=6, stop=5)
    assert read(parts / CHECKPOINT)["global_step"] == 4
    if not signed:
        earlier(parts / CHECKPOINT)
    kept = read(parts / CHECKPOINT)
    resumed, again = train(parts, steps=6, resume=True)
    assert same(resumed, straight)
    assert again.history == history.history
    kept["state_dict"]["model.weight"] += 1
    torch.save(kept, parts / CHECKPOINT)
    other, _ = train(parts, steps=6, resume=True)
    assert not same(other, straight)


def truncated(content: bytes) -> bytes:
    return content[: len(content) // 2]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "one byte": lambda content: b"P",
    "truncated": truncated,
    "last byte lost": lambda content: content[:-1],
    "appended": lambda content: content + b"\0",
    "text": lambda content: b"no checkpoint",
    "zeros": lambda content: bytes(len(content)),
    "front lost": lambda content: content[100:],
    "twice": lambda content: content + content,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_one_clear_error(damage: str, written: Path, tmp_path: Path) -> None:
    path = tmp_path / CHECKPOINT
    path.write_bytes(DAMAGES[damage](written.read_bytes()))
    with pytest.raises(UserError, match=r"last\.ckpt: damaged checkpoint") as error:
        train(tmp_path, resume=True)
    assert "\n" not in str(error.value)


CONTENTS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a tensor": lambda state: torch.zeros(3),
    "a list": lambda state: [1, 2],
    "weights alone": lambda state: state["state_dict"],
    "no progress": lambda state: {name: value for name, value in state.items() if name != "progress"},
    "progress of another kind": lambda state: state | {"progress": {"foo": 1}},
    "progress is none": lambda state: state | {"progress": None},
    "no weights": lambda state: state | {"state_dict": {}},
    "other weights": lambda state: state | {"state_dict": {"model.weight": torch.zeros(1, 3)}},
    "weights are text": lambda state: state | {"state_dict": dict.fromkeys(state["state_dict"], "a")},
    "no optimizer": lambda state: state | {"optimizer_states": []},
    "optimizer of another kind": lambda state: state | {"optimizer_states": [{"state": 1}]},
    "loops of another kind": lambda state: state | {"loops": {"fit_loop": 1}},
    "run of another kind": lambda state: state | {"run": "{"},
    "run is a number": lambda state: state | {"run": 3},
}


@pytest.mark.parametrize("content", CONTENTS)
def test_other_content_is_one_clear_error(content: str, written: Path, tmp_path: Path) -> None:
    torch.save(CONTENTS[content](torch.load(written, weights_only=True)), tmp_path / CHECKPOINT)
    with pytest.raises(UserError, match=r"--resume: .*last\.ckpt: ") as error:
        train(tmp_path, resume=True)
    assert "\n" not in str(error.value)


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    ran = tmp_path / "ran"

    class Attack:
        def __reduce__(self) -> Any:
            return Path.touch, (ran,)

    torch.save({"state_dict": Attack()}, tmp_path / CHECKPOINT)
    with pytest.raises(UserError, match="damaged checkpoint"):
        train(tmp_path, resume=True)
    assert not ran.exists()


@pytest.mark.parametrize("other", [{"seed": 2}, {"steps": 8}])
def test_a_checkpoint_of_another_run_is_refused(other: dict[str, int], written: Path, tmp_path: Path) -> None:
    (tmp_path / CHECKPOINT).write_bytes(written.read_bytes())
    name = next(iter(other))
    with pytest.raises(UserError, match=f"checkpoint of another run .*{name}"):
        train(tmp_path, resume=True, **other)


def test_a_failure_of_the_training_is_not_blamed_on_the_checkpoint(
    written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / CHECKPOINT).write_bytes(written.read_bytes())
    state = torch.load(tmp_path / CHECKPOINT, weights_only=True)
    state["run"] = state["run"].replace('"steps": 4', '"steps": 8')
    torch.save(state, tmp_path / CHECKPOINT)

    def fail(*arguments: Any) -> None:
        raise RuntimeError("of the model")

    monkeypatch.setattr("probsym_experiments.training.Training.training_step", fail)
    with pytest.raises(RuntimeError, match="of the model"):
        train(tmp_path, steps=8, resume=True)


VALUES = [5.0, 4.0, 4.0, 3.0, 6.0, 3.0, 3.0, 2.0, 1.0, 0.5]


def judged(
    out: Path, patience: int, resume: bool = False, stop: int | None = None
) -> tuple[dict[str, Tensor], Progress, list[int]]:
    """A linear model whose validations have the values above, one after each step: weights, progress, steps made."""
    torch.manual_seed(0)
    net = torch.nn.Linear(2, 1)
    data = Tensors({"x": torch.randn(8, 2)})
    steps: list[int] = []

    def begin(step: int) -> None:
        if step == stop:
            raise Stop
        steps.append(step)

    problem = Problem(
        net,
        lambda model, batch: model(batch["x"]).square().mean(),
        lambda model, batch: torch.full((len(batch["x"]),), VALUES[steps[-1]]),
        data,
        data,
        begin,
    )
    trainer = TrainerOptions(accelerator="cpu", progress=False, checkpoint_minutes=0.0)
    recipe = Recipe(steps=len(VALUES), validate_every=1, batch_size=4, patience=patience, trainer=trainer)
    progress = fit(problem, recipe, out, resume)
    return net.state_dict(), progress, steps


def ends_after(values: list[float], patience: int) -> int:
    """Validations until `patience` of them in a row are not below all before; 0 is never."""
    best = float("inf")
    waited = 0
    for number, value in enumerate(values):
        waited += 1
        if value < best:
            best = value
            waited = 0
        if patience and waited == patience:
            return number + 1
    return len(values)


@pytest.mark.parametrize("patience", [0, 1, 2, 3, 4])
def test_training_ends_when_its_patience_does(patience: int, tmp_path: Path) -> None:
    _, progress, steps = judged(tmp_path, patience)
    expected = ends_after(VALUES, patience)
    assert [row["valid"] for row in progress.history] == VALUES[:expected]
    assert steps == list(range(expected))
    assert progress.steps == expected
    assert progress.best == min(VALUES[:expected])


def test_a_resumed_run_ends_early_at_the_same_step(tmp_path: Path) -> None:
    """Broken off while it waits, it goes on waiting; at its end it makes no further step. Without patience it would."""
    straight, history, _ = judged(tmp_path / "straight", 3)
    parts = tmp_path / "parts"
    with pytest.raises(Stop):
        judged(parts, 3, stop=6)
    assert read(parts / CHECKPOINT)["global_step"] == 6
    resumed, again, steps = judged(parts, 3, resume=True)
    assert steps == [6]
    assert same(resumed, straight)
    assert again.history == history.history
    resumed, again, steps = judged(parts, 3, resume=True)
    assert not steps
    assert same(resumed, straight)
    assert again.history == history.history


def test_what_a_run_that_ended_early_cost(tmp_path: Path) -> None:
    """The steps that were made and their operations, not those of the recipe."""
    _, progress, _ = judged(tmp_path, 3)
    recipe = Recipe(steps=len(VALUES))
    outcome = trained([score(torch.ones(1, 2), 1, exact=True)], 1, recipe, progress, 1000, {"base": 3}, {})
    assert (outcome.steps, outcome.train_flops) == (7, 700)
