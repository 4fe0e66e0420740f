"""What every kind of symmetry costs: training step and evaluation beside the bare model on as many rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from timing import alternate, milliseconds, spread, table
from torch import Tensor, nn

import probsym as ps

BATCH = 32


@dataclass(frozen=True)
class Member:
    """A group and a way to average over it, around a model.

    Args:
        model: of one argument x. rep: of x. output: of what it returns. values: one batch of x.
        distribution: as `symmetrize` takes it.
    """

    model: nn.Module
    rep: ps.Rep
    output: ps.Rep
    values: Tensor
    distribution: Any


class Points(nn.Module):
    """A small transformer on the entries of each point (B, N, D), complex ones as pairs; one number per input."""

    def __init__(self, entries: int) -> None:
        super().__init__()
        self.embed = nn.Linear(entries, 64)
        layer = nn.TransformerEncoderLayer(64, 4, 128, dropout=0.0, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(64, 1)

    def forward(self, x: Tensor) -> Tensor:
        if x.is_complex():
            x = torch.view_as_real(x).flatten(2)
        return self.head(self.layers(self.embed(x)).mean(1))


def pixels(channels: int = 1) -> nn.Module:
    """A small convolutional net on images (B, 28, 28)."""
    return nn.Sequential(
        nn.Unflatten(1, (channels, -1)),
        nn.Conv2d(channels, 32, 3, 2, 1), nn.ReLU(),
        nn.Conv2d(32, 64, 3, 2, 1), nn.ReLU(),
        nn.Conv2d(64, 64, 3, 1, 1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 1),
    )  # fmt: skip


def points(group: ps.Group, size: int, distribution: Any, slot: Any = None, values: Tensor | None = None) -> Member:
    """Twenty points in a fixed order; what a group does at each of them."""
    if values is None:
        kind = torch.complex64 if group.defining.is_complex else torch.float32
        values = torch.randn(BATCH, 20, size, dtype=kind)
    entries = 2 * size if values.is_complex() else size
    return Member(Points(entries), ps.Rep(None, slot or group), ps.Rep(), values, distribution)


def images(group: ps.Group, distribution: Any) -> Member:
    return Member(pixels(), ps.Rep(group), ps.Rep(), torch.randn(BATCH, 28, 28), distribution)


def momenta() -> Tensor:
    """Four-vectors of particles with mass."""
    space = torch.randn(BATCH, 20, 3)
    return torch.cat([(space.square().sum(-1, keepdim=True) + 0.1).sqrt(), space], -1)


def members() -> dict[str, Callable[[], Member]]:
    """Rows of the table, made when they are timed."""
    space = ps.SO(3)
    gravity = ps.SO(3, about="z")
    mirror = ps.Finite(generators=1, name="mirror")
    lorentz = ps.Lorentz()
    return {
        "SO(3), haar": lambda: points(space, 3, "haar"),
        "SO(3), frame": lambda: points(space, 3, "frame"),
        "SO(3), WeightedFrame": lambda: points(space, 3, ps.WeightedFrame(space)),
        "SO(3), learned": lambda: points(space, 3, "learned"),
        "SO(3), Recursive": lambda: points(space, 3, "recursive"),
        "SO(3) about z, haar": lambda: points(gravity, 3, "haar"),
        "SO(3), irreps l = 3, haar": lambda: points(space, 7, "haar", space.irrep(3)),
        "Octahedral, haar": lambda: points(ps.Octahedral(), 3, "haar"),
        "Octahedral, learned": lambda: points(ps.Octahedral(), 3, "learned"),
        "Finite (swap), haar": lambda: points(mirror, 3, "haar", mirror.permutation([[1, 0, 2]])),
        "Lorentz, learned": lambda: points(lorentz, 4, "learned", values=momenta()),
        "U(2), haar": lambda: points(ps.U(2), 2, "haar"),
        "U(2), learned": lambda: points(ps.U(2), 2, "learned"),
        "C(4) on images, haar": lambda: images(ps.C(4), "haar"),
        "C(4) on images, learned (Scored)": lambda: images(ps.C(4), "learned"),
        "C(4) on images, canonical (Scored)": lambda: images(ps.C(4), "canonical"),
        "C(8) on images with a disc, haar": lambda: images(ps.C(8, mask="disc"), "haar"),
        "Shift on images, haar": lambda: images(ps.Shift((28, 28)), "haar"),
    }


def stepped(module: nn.Module, x: Tensor, **options: Any) -> Callable[[], None]:
    """One training step without the optimizer: forward and backward."""

    def step() -> None:
        module.zero_grad()
        module(x, **options).square().mean().backward()

    return step


def evaluated(module: nn.Module, x: Tensor, **options: Any) -> Callable[[], None]:
    def call() -> None:
        with torch.no_grad():
            module(x, **options)

    return call


def costs(quick: bool) -> None:
    """Every group with its distributions, beside the bare model on as many rows."""
    repeats = 5 if quick else 21

    def rows() -> Iterator[list[object]]:
        for name, make in members().items():
            torch.manual_seed(0)
            member = make()
            phi = ps.symmetrize(member.model, member.rep, member.output, member.distribution, example=member.values)

            # 1. A training step, with as many poses as the distribution takes by itself.
            poses = float(phi.train().estimate(member.values).samples.float().mean())
            copies = member.values.repeat(max(round(poses), 1), *[1] * (member.values.ndim - 1))
            training = alternate(
                {"bare": stepped(member.model, copies), "phi": stepped(phi, member.values)}, repeats, 2, 20
            )

            # 2. An evaluation, in the same way.
            phi.eval()
            with torch.no_grad():
                poses_evaluated = float(phi.estimate(member.values).samples.float().mean())
            copies = member.values.repeat(max(round(poses_evaluated), 1), *[1] * (member.values.ndim - 1))
            evaluation = alternate(
                {"bare": evaluated(member.model, copies), "phi": evaluated(phi, member.values)}, repeats, 2, 20
            )
            yield [
                name,
                f"{poses:.3g}",
                milliseconds(training["bare"]),
                spread(training, "phi", "bare"),
                f"{poses_evaluated:.3g}",
                milliseconds(evaluation["bare"]),
                spread(evaluation, "phi", "bare"),
            ]

    columns = ["group and distribution", "poses", "bare step", "phi / bare", "poses", "bare evaluation", "phi / bare"]
    table(f"What each symmetry costs: {BATCH} inputs, step with backward, and evaluation", columns, rows())
