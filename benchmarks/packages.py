"""Beside other packages (extra `bench`): frames of frame-averaging-pytorch, D4 of ttach, and the time of the import."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from functools import partial

import torch
from agreement import gap
from timing import alternate, milliseconds, spread, table
from torch import Tensor, nn

import probsym as ps
from nets import MLP

TOLERANCE = 1e-5  # on outputs of about 0.1 to 1, in float32


class Points(nn.Module):
    """An MLP on all coordinates, vectors out."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.net = MLP(3 * n, (256, 256), 3 * n)

    def forward(self, pos: Tensor) -> Tensor:
        return self.net(pos.flatten(1)).view_as(pos)


@torch.no_grad()
def frames(quick: bool) -> None:
    """The same eight frames of E(3), evaluation."""
    if importlib.util.find_spec("frame_averaging_pytorch") is None:
        print("\nframes: frame-averaging-pytorch is not installed, skipped")
        return
    from frame_averaging_pytorch import FrameAverage

    budget = 20
    if quick:
        budget = 5

    def rows() -> Iterator[list[object]]:
        space = ps.E(3)
        for b, n in ((1, 5), (100, 5), (100, 50), (1000, 20)):
            model = Points(n)
            ours = ps.symmetrize(model, {"pos": ps.Rep(None, space)}, ps.Rep(None, space.vector), "frame").eval()
            theirs = FrameAverage(model, dim=3)
            x = torch.randn(b, n, 3)
            largest = gap(ours(pos=x), theirs(x), TOLERANCE)
            times = alternate({"ours": partial(ours, pos=x), "theirs": partial(theirs, x)}, 21, 3, budget)
            yield [
                b,
                n,
                largest,
                milliseconds(times["theirs"]),
                milliseconds(times["ours"]),
                spread(times, "ours", "theirs"),
            ]

    columns = ["B", "points", "largest difference", "frame-averaging-pytorch", "probsym", "ratio"]
    table("Frame averaging over E(3), float32", columns, rows())


@torch.no_grad()
def images(quick: bool) -> None:
    """The mean over the eight poses of D4, evaluation."""
    if importlib.util.find_spec("ttach") is None:
        print("\nimages: ttach is not installed, skipped")
        return
    import ttach

    budget = 20
    if quick:
        budget = 5

    def rows() -> Iterator[list[object]]:
        image = ps.Rep(None, ps.D(4))
        for b, size in ((1, 32), (32, 32), (8, 128)):
            # 1. Two nets on the same features: one that classifies, and one whose output is an image.
            x = torch.randn(b, 3, size, size)
            convolutions = [nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1), nn.ReLU()]
            label = nn.Sequential(*convolutions, nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(512, 10)).eval()
            dense = nn.Sequential(*convolutions, nn.Conv2d(32, 3, 3, padding=1)).eval()
            kinds = [
                ("label", label, ps.Rep(), ttach.ClassificationTTAWrapper),
                ("dense", dense, image, ttach.SegmentationTTAWrapper),
            ]

            # 2. Each averaged by both packages.
            for kind, net, output, wrapper in kinds:
                ours = ps.symmetrize(net, image, output, "haar", eval_samples=ps.Exact()).eval()
                theirs = wrapper(net, ttach.aliases.d4_transform(), merge_mode="mean")
                largest = gap(ours(x), theirs(x), TOLERANCE)
                times = alternate({"ours": partial(ours, x), "theirs": partial(theirs, x)}, 15, 3, budget)
                yield [
                    kind,
                    b,
                    size,
                    largest,
                    milliseconds(times["theirs"]),
                    milliseconds(times["ours"]),
                    spread(times, "ours", "theirs"),
                ]

    columns = ["output", "B", "size", "largest difference", "ttach", "probsym", "ratio"]
    table("Image averaging over D4, float32", columns, rows())


def imports(quick: bool) -> None:
    """A fresh interpreter each."""
    repeats = 9
    if quick:
        repeats = 3
    times = alternate({"probsym": partial(fresh, "probsym"), "torch": partial(fresh, "torch")}, repeats, 1)
    row = [milliseconds(times["torch"]), milliseconds(times["probsym"]), spread(times, "probsym", "torch")]
    table("Import, with the start of the interpreter", ["torch", "probsym", "ratio"], [row])


def fresh(module: str) -> None:
    """Imports the module in an interpreter of its own."""
    subprocess.run([sys.executable, "-c", f"import {module}"], check=True)
