"""What the default net of p costs on clouds of many points and on molecules."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from steps import trainer
from timing import alternate, milliseconds, spread, table
from torch import Tensor, nn

import probsym as ps
from nets import AtomTransformer


class PointNet(nn.Module):
    """An MLP of each point and the largest of each feature: (B, N, 3) to (B, 128)."""

    def __init__(self) -> None:
        super().__init__()
        self.point = nn.Sequential(nn.Linear(3, 64), nn.ReLU(), nn.Linear(64, 128))

    def forward(self, pos: Tensor) -> Tensor:
        return self.point(pos).amax(1)


def points(quick: bool) -> None:
    """phi with a learned and with the uniform p against the bare model, k = 1: 64 to 1,024 points, and molecules."""
    cloud = ps.Rep(ps.Axis("points"), ps.SO(3))
    atoms = ps.Rep(ps.S("atoms"), ps.E(3, "space"))
    cases: list[tuple[str, nn.Module, ps.Rep, int, int]] = [
        ("PointNet, SO(3)", PointNet(), cloud, 32, 64),
        ("PointNet, SO(3)", PointNet(), cloud, 32, 256),
        ("PointNet, SO(3)", PointNet(), cloud, 32, 1024),
        ("transformer, S_n x E(3)", AtomTransformer(29), atoms, 100, 29),
    ]
    budget = 60
    if quick:
        cases = cases[:1]
        budget = 10

    def rows() -> Iterator[list[object]]:
        for name, model, rep, batch, count in cases:
            pos = torch.randn(batch, count, 3)
            with torch.no_grad():
                target = torch.randn_like(model(pos))
            functions = {"bare": trainer(model, {"pos": pos}, target)}
            for p in ("learned", "haar"):
                phi = ps.symmetrize(model, {"pos": rep}, ps.Rep(), p, train_samples=1, example={"pos": pos}).train()
                functions[p] = trainer(phi, {"pos": pos}, target)
            times = alternate(functions, 21, 3, budget)
            yield [
                name,
                batch,
                count,
                milliseconds(times["bare"]),
                spread(times, "learned", "bare"),
                spread(times, "haar", "bare"),
            ]

    columns = ["base model, group", "B", "N", "bare step", "learned p / bare", "Haar / bare"]
    table("Training step on many points, k = 1", columns, rows())
