"""Five shapes as point clouds in any orientation: a small PointNet as it is, and averaged in five ways.

    python benchmarks/shapes.py --out FILE      a run that the file holds already is not repeated
    python benchmarks/shapes.py --quick         to see that it works

Ellipsoids, boxes, cylinders, cones and tori of random proportions; 64 noisy points on the surface of each; 1,000 clouds
to train, 500 to test. Each cloud is turned once by a random rotation, in training and in testing; "none, upright in
training" has seen them upright alone. All methods have the same network, optimizer and number of steps; nothing was
chosen by the test clouds.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from report import circumstances
from torch import Tensor, nn

import probsym as ps
from probsym.files import write

SPACE = ps.SO(3, "space")
CLOUDS = ps.Rep(ps.Axis("points"), SPACE)
TURNED = ps.Rep(None, SPACE)
SHAPES = ("ellipsoid", "box", "cylinder", "cone", "torus")
POINTS, TRAINED, TESTED = 64, 1000, 500
NOISE = 0.05  # of a coordinate, in units of the size of a cloud
BATCH, EPOCHS, LEARNING_RATE = 50, 60, 3e-3


# ---------------------------------------------------------------- data


def surface(shape: str, count: int, generator: torch.Generator) -> Tensor:
    """Points on `count` surfaces of size one, upright (count, POINTS, 3)."""
    a, b, c = torch.rand(3, count, POINTS, generator=generator)
    angle = 2 * math.pi * a
    around = torch.stack([angle.cos(), angle.sin()], -1)
    height = (2 * b - 1).unsqueeze(-1)
    if shape == "ellipsoid":
        return nn.functional.normalize(torch.randn(count, POINTS, 3, generator=generator), dim=-1)
    if shape == "box":
        points = 2 * torch.rand(count, POINTS, 3, generator=generator) - 1
        face = nn.functional.one_hot((3 * c).long().clamp_max(2), 3).bool()
        return torch.where(face, points.sign(), points)
    if shape == "cylinder":
        # Half of the points lie on the two ends.
        end = (c < 0.5).unsqueeze(-1)
        return torch.cat([torch.where(end, c.mul(2).sqrt().unsqueeze(-1), 1.0) * around,
                          torch.where(end, height.sign(), height)], -1)  # fmt: skip
    if shape == "cone":
        # Uniform on its side: twice as dense where it is twice as wide.
        width = b.sqrt().unsqueeze(-1)
        return torch.cat([width * around, 1 - 2 * width], -1)
    tube = 2 * math.pi * b
    ring = (1 + 0.4 * tube.cos()).unsqueeze(-1) * around
    return torch.cat([ring, 0.4 * tube.sin().unsqueeze(-1)], -1)


def clouds(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Upright clouds (count, POINTS, 3) about their centroids, of size one, and what each is (count,)."""
    each = count // len(SHAPES)
    made = torch.cat([surface(shape, each, generator) for shape in SHAPES])
    label = torch.arange(len(SHAPES)).repeat_interleave(each)
    made = made * (0.6 + 0.8 * torch.rand(len(made), 1, 3, generator=generator))  # proportions
    made = made - made.mean(1, keepdim=True)
    made = made / made.square().sum(-1).mean(1).sqrt()[:, None, None]
    return made + NOISE * torch.randn(made.shape, generator=generator), label


def data(seed: int, upright: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Clouds and labels to train with, and to test with."""
    generator = torch.Generator().manual_seed(seed)
    train, label = clouds(TRAINED, generator)
    test, test_label = clouds(TESTED, generator)
    turns = SPACE.haar((TRAINED,), generator=generator)
    if not upright:
        train = TURNED.act(turns, train)
    test = TURNED.act(SPACE.haar((TESTED,), generator=generator), test)
    return train, label, test, test_label


# ---------------------------------------------------------------- methods


class PointNet(nn.Module):
    """The largest of what a network makes of each point, and a network on that: it knows no rotation."""

    def __init__(self) -> None:
        super().__init__()
        self.points = nn.Sequential(nn.Linear(3, 64), nn.ReLU(), nn.Linear(64, 128))
        self.cloud = nn.Sequential(nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, len(SHAPES)))

    def forward(self, pos: Tensor) -> Tensor:
        return self.cloud(self.points(pos).amax(1))


# by name: p, samples in training and in evaluation
METHODS: dict[str, tuple[str | None, int | None, int | None]] = {
    "none, upright in training": (None, None, None),
    "none": (None, None, None),
    "canonical": ("canonical", None, None),
    "frame": ("frame", None, None),
    "learned": ("learned", 1, 20),
    "haar": ("haar", 1, 20),
}


def run(method: str, seed: int, epochs: int) -> dict[str, Any]:
    """One training, and its accuracy on the test clouds."""
    train, label, test, test_label = data(seed, upright="upright" in method)
    p, in_training, in_evaluation = METHODS[method]
    torch.manual_seed(seed)
    model: nn.Module = PointNet()
    phi = model
    if p is not None:
        phi = ps.symmetrize(model, CLOUDS, ps.Rep(), p, in_training, in_evaluation, example=train[:2])
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(phi.parameters(), LEARNING_RATE)
    steps = epochs * (TRAINED // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps)
    started = time.process_time()
    for _ in range(epochs):
        for index in torch.randperm(TRAINED, generator=generator).split(BATCH):
            loss = nn.functional.cross_entropy(phi(train[index]), label[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    phi.eval()
    with torch.no_grad():
        right = [phi(part).argmax(-1) == answer for part, answer in batches(test, test_label)]
    return {
        "method": method,
        "seed": seed,
        "epochs": epochs,
        "cpu_seconds": time.process_time() - started,
        "test": float(torch.cat(right).float().mean()),
    }


def batches(test: Tensor, label: Tensor) -> list[tuple[Tensor, Tensor]]:
    return list(zip(test.split(100), label.split(100), strict=True))


# ---------------------------------------------------------------- report


def tables(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The table of the documentation: mean over seeds, and the range."""
    rows = []
    for method, (_, in_training, in_evaluation) in METHODS.items():
        found = [one["test"] for one in runs if one["method"] == method]
        if not found:
            continue
        samples = [str(count) if count is not None else "-" for count in (in_training, in_evaluation)]
        rows.append([method, *samples, f"{statistics.mean(found):.3f} ({min(found):.3f} to {max(found):.3f})"])
    columns = ["p", "samples in training", "in evaluation", "accuracy"]
    return [{"title": "Five shapes in any orientation", "columns": columns, "rows": rows}]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, help="results as JSON; runs that it holds are not repeated")
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    options = parser.parse_args()
    torch.set_num_threads(1)
    epochs: int = EPOCHS
    seeds: list[int] = options.seeds
    if options.quick:
        epochs = 1
        seeds = seeds[:1]
    runs: list[dict[str, Any]] = []
    if options.out and options.out.exists():
        runs = json.loads(options.out.read_text())["runs"]
    facts = circumstances(1)
    facts["command"] = "python benchmarks/shapes.py"
    for seed in seeds:
        for method in options.methods:
            if any(one["method"] == method and one["seed"] == seed for one in runs):
                continue
            runs.append(run(method, seed, epochs))
            print(json.dumps(runs[-1]), flush=True)
            if options.out:
                content = {**facts, "tables": tables(runs), "runs": runs}
                write(options.out, json.dumps(content, indent=1) + "\n")
    for row in tables(runs)[0]["rows"]:
        print(" | ".join(row))


if __name__ == "__main__":
    main()
