"""Handwritten digits in any quarter turn: a p that scores poses against the uniform one, a fixed one and none.

    python benchmarks/scored_digits.py --out FILE       a run that the file holds already is not repeated
    python benchmarks/scored_digits.py --quick          to see that it works
    python benchmarks/scored_digits.py --probe FOLDER   a frozen DINOv2 in this folder beside it, with a linear head

The digits are those of scikit-learn (8 x 8 pixels; 1,000 to train, 597 to test), each turned once by a random quarter
turn, in training and in testing. All methods have the same small CNN, optimizer and epochs. They differ in p, and so in
how often they call the CNN. Nothing was chosen by the test digits: the settings are the first that were tried, on
another 200 digits.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from report import circumstances
from torch import Tensor, nn

import probsym as ps
from probsym.files import write

TURNS = ps.C(4)
IMAGES = ps.Rep(None, TURNS)
FEATURES = ps.Rep(TURNS.regular)  # one entry for every turn
TRAINED, VALIDATED, TESTED = 1000, 200, 597
BATCH, LEARNING_RATE = 50, 3e-3


# ---------------------------------------------------------------- data


def digits(seed: int) -> dict[str, tuple[Tensor, Tensor]]:
    """Upright images (N, 1, 8, 8) in [0, 1] and labels (N,), in another order for every seed."""
    from sklearn.datasets import load_digits

    data = load_digits()
    image = torch.tensor(data.images / 16, dtype=torch.float32).unsqueeze(1)
    label = torch.tensor(data.target)
    order = torch.randperm(len(image), generator=torch.Generator().manual_seed(seed))
    train, _, test = order.split([TRAINED, VALIDATED, TESTED])
    return {"train": (image[train], label[train]), "test": (image[test], label[test])}


def random_turns(count: int, seed: int) -> ps.Element:
    """A quarter turn for every image."""
    return TURNS.numbered(torch.randint(4, (count,), generator=torch.Generator().manual_seed(seed)))


# ---------------------------------------------------------------- methods


def cnn(width: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(2 * width, 2 * width, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8 * width, outputs),
    )


class FixedScores(nn.Module):
    """Scores of the four turns from a net that stays as it was made: what a canonical pose could do before."""

    def __init__(self) -> None:
        super().__init__()
        self.net = cnn(4, 1).requires_grad_(False)

    def forward(self, image: Tensor) -> Tensor:
        return torch.cat([self.net(image.rot90(-turn, (2, 3))) for turn in range(4)], 1)


def scored(temperature: float) -> ps.Scored:
    return ps.Scored(cnn(4, 1), TURNS, temperature)


# by name: p, estimators in training and in evaluation, calls of the CNN per image in both
Method = tuple[Callable[[], Any], Any, Any, int, int]
METHODS: dict[str, Method] = {
    "none": (lambda: None, None, None, 1, 1),
    "canonical, fixed net": (lambda: ps.Canonical(FixedScores(), TURNS), None, None, 1, 1),
    "haar, one draw": (lambda: "haar", 1, ps.Exact(), 1, 4),
    "haar, exact": (lambda: "haar", ps.Exact(), ps.Exact(), 4, 4),
    "scored, best pose": (lambda: scored(0), None, None, 1, 1),
    "scored, two draws": (lambda: scored(1), 2, ps.Exact(), 2, 4),
    "scored, exact": (lambda: scored(1), ps.Exact(), ps.Exact(), 4, 4),
}


def fitted(model: nn.Module, call: Callable[[Tensor], Tensor], label: Tensor, epochs: int, seed: int) -> nn.Module:
    """A model trained by cross-entropy; `call` makes the logits of the images with these numbers."""
    generator = torch.Generator().manual_seed(seed)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(parameters, LEARNING_RATE)
    steps = epochs * (len(label) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps)
    model.train()
    for _ in range(epochs):
        order = torch.randperm(len(label), generator=generator)
        for index in order[: len(label) // BATCH * BATCH].split(BATCH):
            loss = nn.functional.cross_entropy(call(index), label[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return model.eval()


@torch.no_grad()
def accuracy(phi: nn.Module, label: Tensor, *inputs: Tensor) -> float:
    return float((phi(*inputs).argmax(-1) == label).float().mean())


def one_call(phi: ps.Symmetrizer) -> ps.Symmetrizer:
    """The same with the best pose alone."""
    best = ps.Scored(phi.distribution.net, TURNS, 0)
    return ps.Symmetrizer(phi.model, phi.inputs, phi.output, best).eval()


def run(method: str, seed: int, epochs: int) -> dict[str, Any]:
    """One training: everything that is measured of it."""
    data = digits(seed)
    image, label = data["train"]
    image = IMAGES.act(random_turns(len(image), seed), image)
    test_image, test_label = data["test"]
    test_image = IMAGES.act(random_turns(len(test_image), seed + 1000), test_image)
    make, in_training, in_evaluation, calls, test_calls = METHODS[method]
    torch.manual_seed(seed)
    model: nn.Module = cnn(8, 10)
    p = make()
    phi = model if p is None else ps.symmetrize(model, IMAGES, ps.Rep(), p, in_training, in_evaluation)
    started = time.perf_counter()
    fitted(phi, lambda index: phi(image[index]), label, epochs, seed)
    found: dict[str, Any] = {
        "method": method,
        "seed": seed,
        "epochs": epochs,
        "seconds": time.perf_counter() - started,
        "calls": [calls, test_calls],
        "test": accuracy(phi, test_label, test_image),
    }
    if isinstance(p, ps.Scored):
        found["test_one_call"] = accuracy(one_call(phi), test_label, test_image)
    return found


# ---------------------------------------------------------------- a frozen backbone


class Head(nn.Module):
    """A linear head on the features of a frozen backbone, which were computed for all four poses.

    They lie on an axis with one entry per turn, as in a group convolution: entry g is what the backbone makes of
    g^-1 x. So the first one belongs to the pose that is seen.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.linear = nn.Linear(features, 10)

    def forward(self, image: Tensor, features: Tensor) -> Tensor:
        return self.linear(features[:, 0])


class OfImage(nn.Module):
    """Scores of the image alone; they are not to see the features, whose cost they save."""

    def __init__(self) -> None:
        super().__init__()
        self.net = cnn(8, 1)

    def forward(self, image: Tensor, features: Tensor) -> Tensor:
        return self.net(image)


@torch.no_grad()
def features_of(folder: str, image: Tensor, pixels: int = 56) -> Tensor:
    """The class token of every pose (N, 4, 384), the upright one first."""
    from transformers import AutoModel

    backbone = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    found = []
    for batch in image.split(50):
        poses = torch.stack([batch.rot90(-turn, (2, 3)) for turn in range(4)], 1)
        seen = nn.functional.interpolate(poses.flatten(0, 1), size=(pixels, pixels), mode="bicubic")
        tokens = backbone(pixel_values=4 * seen.expand(-1, 3, -1, -1) - 2).last_hidden_state
        found.append(tokens[:, 0].unflatten(0, (-1, 4)))
    return torch.cat(found)


def probe(folder: str, seed: int, epochs: int, sizes: tuple[int, int]) -> dict[str, Any]:
    """Accuracies of a linear head, trained and tested upright, and in quarter turns with and without a p."""
    started = time.perf_counter()
    data = digits(seed)
    used: dict[str, tuple[Tensor, ...]] = {}
    for (split, (image, label)), count in zip(data.items(), sizes, strict=True):
        image, label = image[:count], label[:count]
        features = features_of(folder, image)
        turns = random_turns(count, seed + len(split))
        used[split] = (image, features, IMAGES.act(turns, image), FEATURES.act(turns, features), label)
    image, upright, moved, features, label = used["train"]
    test_image, test_upright, test_moved, test_features, test_label = used["test"]
    inputs = (IMAGES, FEATURES)
    torch.manual_seed(seed)

    # 1. upright, and what becomes of it in other poses
    head = Head(features.shape[-1])
    fitted(head, lambda index: head(image[index], upright[index]), label, epochs, seed)
    average = ps.symmetrize(head, inputs, ps.Rep(), "haar", eval_samples=ps.Exact()).eval()
    found: dict[str, Any] = {
        "seed": seed,
        "trained": sizes[0],
        "tested": sizes[1],
        "upright": accuracy(head, test_label, test_image, test_upright),
        "turned: none": accuracy(head, test_label, test_moved, test_features),
        "turned: haar, exact": accuracy(average, test_label, test_moved, test_features),
    }

    # 2. p alone trained in any pose, for the head that knows upright images
    p = ps.Scored(OfImage(), TURNS)
    phi = ps.symmetrize(head.requires_grad_(False), inputs, ps.Rep(), p, ps.Exact(), ps.Exact())
    fitted(phi, lambda index: phi(moved[index], features[index]), label, epochs, seed)
    found["turned: scored"] = accuracy(phi, test_label, test_moved, test_features)
    found["turned: scored, one call"] = accuracy(one_call(phi), test_label, test_moved, test_features)

    # 3. both trained in any pose
    for name, q in (("haar, exact", "haar"), ("scored", ps.Scored(OfImage(), TURNS))):
        both = ps.symmetrize(Head(features.shape[-1]), inputs, ps.Rep(), q, ps.Exact(), ps.Exact())
        fitted(both, lambda index, both=both: both(moved[index], features[index]), label, epochs, seed)
        found["turned in training too: " + name] = accuracy(both, test_label, test_moved, test_features)
        if name == "scored":
            alone = accuracy(one_call(both), test_label, test_moved, test_features)
            found["turned in training too: scored, one call"] = alone
    found["seconds"] = time.perf_counter() - started
    return found


# ---------------------------------------------------------------- report


def tables(runs: list[dict[str, Any]], probes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The tables of the documentation: mean over seeds, and the range."""

    def cell(values: list[float]) -> str:
        if not values:
            return "-"
        return f"{statistics.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"

    rows = []
    for method in METHODS:
        own = [found for found in runs if found["method"] == method]
        if not own:
            continue
        in_training, in_evaluation = own[0]["calls"]
        once = [found["test_one_call"] for found in own if "test_one_call" in found]
        rows.append([
            method,
            str(in_training),
            str(in_evaluation),
            cell([found["test"] for found in own]),
            cell(once),
        ])  # fmt: skip
    columns = ["p", "calls of the model in training", "in evaluation", "accuracy", "with one call"]
    made = [{"title": "Digits in any quarter turn", "columns": columns, "rows": rows}]
    if probes:
        names = [name for name in probes[0] if name not in ("seed", "seconds", "trained", "tested", "commit")]
        rows = [[name, cell([found[name] for found in probes])] for name in names]
        made.append({"title": "A frozen DINOv2 with a linear head", "columns": ["", "accuracy"], "rows": rows})
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, help="results as JSON; runs that it holds are not repeated")
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--probe", type=Path, help="a folder with a DINOv2 of Hugging Face layout")
    options = parser.parse_args()
    torch.set_num_threads(1)
    epochs, seeds, sizes = options.epochs, options.seeds, (TRAINED, TESTED)
    if options.quick:
        epochs, seeds, sizes = 1, seeds[:1], (100, 50)

    runs: list[dict[str, Any]] = []
    probes: list[dict[str, Any]] = []
    if options.out and options.out.exists():
        before = json.loads(options.out.read_text())
        runs, probes = before["runs"], before["probes"]
    facts = circumstances(1)
    facts["command"] = "python benchmarks/scored_digits.py"

    def keep() -> None:
        if options.out:
            content = {**facts, "tables": tables(runs, probes), "runs": runs, "probes": probes}
            write(options.out, json.dumps(content, indent=1) + "\n")

    for seed in seeds:
        for method in options.methods:
            if not any(found["method"] == method and found["seed"] == seed for found in runs):
                runs.append({**run(method, seed, epochs), "commit": facts["commit"]})
                print(json.dumps(runs[-1]), flush=True)
                keep()
        if options.probe and not any(found["seed"] == seed for found in probes):
            probes.append({**probe(str(options.probe), seed, epochs, sizes), "commit": facts["commit"]})
            print(json.dumps(probes[-1]), flush=True)
            keep()
    for each in tables(runs, probes):
        print("\n" + each["title"] + "\n\n" + " | ".join(each["columns"]))
        for row in each["rows"]:
            print(" | ".join(row))


if __name__ == "__main__":
    main()
