"""EXP-classify without features that solve it: how clear is the gradient that a learned order gets, and is it right?

For an MLP on the adjacency, with noise at the input of the net of p, of one fixed batch and many draws of the noise:

    one step    cosine of the gradient of one step to the net of p with the mean over the others, mean over steps
    signal      |E g|^2 / E |g - E g|^2, the squared mean over the variance of a step, unbiased: negative if it is none
    claimed     E g along d, where d has the direction of the mean of the first half of the draws, g is from the second
    true        the slope of the loss along d, by finite differences with the same noise on both sides

at the start, and after some steps of training by the score function. A mean gradient that is right has claimed = true.

    python experiments/scripts/exp_order_gradients.py --data FOLDER --out FILE        --steps 0: at the start alone
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

import probsym as ps
from probsym.files import write
from probsym_experiments.batches import Batch, Shuffled, Tensors, reseed, rows, stream
from probsym_experiments.graphs.exp_classify import Config, losses
from probsym_experiments.graphs.exp_data import load
from probsym_experiments.runner import commit

SAMPLES = 5
STEP = 0.1  # of finite differences: about a hundredth of the norm of the weights
WAYS = {
    "score function, 0.1": {"symmetrizer": "ps-score", "temperature": 0.1},
    "score function, 1": {"symmetrizer": "ps-score", "temperature": 1.0},
    "straight-through, 0.01": {"symmetrizer": "ps", "temperature": 0.01},
    "straight-through, 0.1": {"symmetrizer": "ps", "temperature": 0.1},
}
FIRST = "score function, 0.1"  # trains


def model(way: dict[str, Any], example: Batch) -> ps.Symmetrizer:
    """An MLP of width 512, and p with noise at the input, with the weights of seed 1."""
    config = Config(
        noise="input",
        scale=0.289,
        walks=0,
        sinkhorn=2,
        entropy_weight=0.0,
        train_samples=SAMPLES,
        hidden=[512, 512],
        **way,
    )
    phi = config.model(example)
    assert isinstance(phi, ps.Symmetrizer)
    return phi.train()


def gradients(phi: ps.Symmetrizer, batch: Batch, draws: int) -> Tensor:
    """Gradients of the loss to the net of p (draws, parameters), each of its own noise."""
    weights = list(phi.distribution.parameters())
    every = []
    for draw in range(draws):
        reseed(stream(1, "draw", draw))
        of_weights = torch.autograd.grad(losses(phi, batch).mean(), weights)
        every.append(torch.cat([one.reshape(-1) for one in of_weights]).double())
    return torch.stack(every)


def clarity(every: Tensor) -> dict[str, float]:
    """Of gradients (draws, parameters)."""
    draws = len(every)
    total = every.sum(0)
    others = (total - every) / (draws - 1)
    variance = every.var(0).sum()
    # The squared norm of the mean has the variance of the mean in it.
    square = (total / draws).square().sum() - variance / draws
    return {"one step": float(cosine_similarity(every, others, 1).mean()), "signal": float(square / variance)}


def slopes(phi: ps.Symmetrizer, batch: Batch, direction: Tensor, draws: int) -> Tensor:
    """Slopes of the loss (draws,) along a direction of the weights of the net of p, one for each draw of the noise."""
    weights = list(phi.distribution.parameters())
    sizes = [weight.numel() for weight in weights]
    parts = [part.view_as(weight) for part, weight in zip(direction.float().split(sizes), weights, strict=True)]
    found = []
    with torch.no_grad():
        for draw in range(draws):
            both = []
            for sign in (1, -2):  # forth, and back twice as far
                for weight, part in zip(weights, parts, strict=True):
                    weight += sign * STEP * part
                reseed(stream(1, "slope", draw))
                both.append(losses(phi, batch).mean().double())
            for weight, part in zip(weights, parts, strict=True):
                weight += STEP * part
            found.append((both[0] - both[1]) / (2 * STEP))
    return torch.stack(found)


def measure(state: dict[str, Tensor], example: Batch, batch: Batch, draws: int, after: int) -> list[dict[str, Any]]:
    """A row for every way, for a model with these weights."""
    found = []
    for name, way in WAYS.items():
        phi = model(way, example)
        phi.load_state_dict(state)
        every = gradients(phi, batch, draws)
        half = draws // 2
        direction = torch.nn.functional.normalize(every[:half].mean(0), dim=0)
        claimed = every[half:] @ direction
        true = slopes(phi, batch, direction, draws)
        row: dict[str, Any] = {"after": after, "way": name, **clarity(every)}
        for kind, values in (("claimed", claimed), ("true", true)):
            row[kind] = float(values.mean())
            row[f"{kind}_error"] = float(values.std() / len(values) ** 0.5)
        found.append(row)
        print(row, flush=True)
    return found


def train(phi: ps.Symmetrizer, data: Batch, steps: int, batch_size: int) -> list[float]:
    """Losses of the steps."""
    batches = Shuffled(Tensors(data), batch_size, 1)
    optimizer = torch.optim.Adam(phi.parameters(), lr=1e-3)
    found = []
    for step in range(steps):
        reseed(stream(1, "step", step))
        loss = losses(phi, batches[step]).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(phi.parameters(), 0.1)
        optimizer.step()
        found.append(loss.item())
    return found


def table(found: list[dict[str, Any]]) -> dict[str, Any]:
    """As `benchmarks/fill.py` reads it."""
    shown = []
    for row in found:
        shown_of_row = [str(row["after"]), row["way"], f"{row['one step']:.2f}", f"{row['signal']:.2f}"]
        for kind in ("claimed", "true"):
            shown_of_row.append(f"{1000 * row[kind]:.2f} +- {1000 * row[f'{kind}_error']:.2f}")
        shown.append(shown_of_row)
    columns = [
        "steps before",
        "gradient",
        "one step with the mean",
        "signal / variance",
        "slope claimed, 1e-3",
        "true, 1e-3",
    ]
    return {"title": "Gradient of an order on EXP-classify", "columns": columns, "rows": shown}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of exp.npz")
    parser.add_argument("--out", type=Path, help="write the numbers, as JSON")
    parser.add_argument("--draws", type=int, default=40, help="steps whose gradients are compared")
    parser.add_argument("--steps", type=int, default=300, help="steps of training before the second measurement")
    parser.add_argument("--batch", type=int, default=50, help="graphs of a batch")
    given = parser.parse_args()
    torch.set_num_threads(1)
    facts = {
        "command": f"python experiments/scripts/exp_order_gradients.py --steps {given.steps} --draws {given.draws}",
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "torch": torch.__version__,
        "threads": 1,
        "processor": "",
        "device": "cpu",
        "commit": commit(),
        "load_at_start": round(os.getloadavg()[0], 2),
    }

    # 1. At the start.
    data = Config().split(load(given.data))["train"]
    batch = rows(data, slice(0, given.batch))
    phi = model(WAYS[FIRST], data)
    found = measure(phi.state_dict(), data, batch, given.draws, 0)

    # 2. After training.
    curve: list[float] = []
    if given.steps:
        curve = train(phi, data, given.steps, given.batch)
        found += measure(phi.state_dict(), data, batch, given.draws, given.steps)
    if given.out is not None:
        result = {**facts, "tables": [table(found)], "gradients": found, "training_loss": curve}
        write(given.out, json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
