"""Beside other packages (extra `bench`): frames of frame-averaging-pytorch, D4 of ttach, and the time of the import."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Iterator

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

    def rows() -> Iterator[list[object]]:
        for b, n in ((1, 5), (100, 5), (100, 50), (1000, 20)):
            model, space = Points(n), ps.E(3)
            ours = ps.symmetrize(model, {"pos": ps.Rep(None, space)}, ps.Rep(None, space.vector), "frame").eval()
            theirs, x = FrameAverage(model, dim=3), torch.randn(b, n, 3)
            largest = gap(ours(pos=x), theirs(x), TOLERANCE)
            functions = {"ours": lambda: ours(pos=x), "theirs": lambda: theirs(x)}  # noqa: B023
            times = alternate(functions, 21, 3, 5 if quick else 20)
            yield [b, n, largest, milliseconds(times["theirs"]), milliseconds(times["ours"]),
                   spread(times, "ours", "theirs")]  # fmt: skip

    columns = ["B", "points", "largest difference", "frame-averaging-pytorch", "probsym", "ratio"]
    table("Frame averaging over E(3), float32", columns, rows())


@torch.no_grad()
def images(quick: bool) -> None:
    """The mean over the eight poses of D4, evaluation."""
    if importlib.util.find_spec("ttach") is None:
        print("\nimages: ttach is not installed, skipped")
        return
    import ttach

    def rows() -> Iterator[list[object]]:
        for b, size in ((1, 32), (32, 32), (8, 128)):
            convolutions = [nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1), nn.ReLU()]
            x, group = torch.randn(b, 3, size, size), ps.D(4)
            label = nn.Sequential(*convolutions, nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(512, 10)).eval()
            dense = nn.Sequential(*convolutions, nn.Conv2d(32, 3, 3, padding=1)).eval()
            for kind, net, out, wrapper in (
                ("label", label, ps.Rep(), ttach.ClassificationTTAWrapper),
                ("dense", dense, ps.Rep(None, group), ttach.SegmentationTTAWrapper),
            ):
                ours = ps.symmetrize(net, ps.Rep(None, group), out, "haar", eval_samples=ps.Exact()).eval()
                theirs = wrapper(net, ttach.aliases.d4_transform(), merge_mode="mean")
                largest = gap(ours(x), theirs(x), TOLERANCE)
                functions = {"ours": lambda: ours(x), "theirs": lambda: theirs(x)}  # noqa: B023
                times = alternate(functions, 15, 3, 5 if quick else 20)
                yield [kind, b, size, largest, milliseconds(times["theirs"]), milliseconds(times["ours"]),
                       spread(times, "ours", "theirs")]  # fmt: skip

    columns = ["output", "B", "size", "largest difference", "ttach", "probsym", "ratio"]
    table("Image averaging over D4, float32", columns, rows())


def imports(quick: bool) -> None:
    """A fresh interpreter each."""

    def fresh(module: str) -> None:
        subprocess.run([sys.executable, "-c", f"import {module}"], check=True)

    times = alternate({m: lambda m=m: fresh(m) for m in ("probsym", "torch")}, 3 if quick else 9, 1)  # type: ignore[misc]
    row = [milliseconds(times["torch"]), milliseconds(times["probsym"]), spread(times, "probsym", "torch")]
    table("Import, with the start of the interpreter", ["torch", "probsym", "ratio"], [row])
