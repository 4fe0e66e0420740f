"""Every group with every distribution in every storage: exactly equivariant, or refused by name.

For each cell of the table in docs/symmetries.md. By coupled noise in float64, the poses g^-1 x that the model sees are
those of h x as well:

    transport(h x, h eps)^-1 h x = transport(x, eps)^-1 x

`python tests/test_every_symmetry.py` writes the table.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import probsym as ps
from probsym.distributions import EquivariantDistribution
from probsym.reps import Inputs
from probsym.testing.elements import random_elements

PAGE = Path(__file__).parents[1] / "docs" / "symmetries.md"
SIZES = (4, 2, 3)  # nodes of the three inputs


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# ---------------------------------------------------------------- groups


@dataclass(frozen=True)
class Symmetry:
    """A group that acts on something at every node.

    Args:
        group: beside the permutations of the nodes; None for these alone.
        slot: what stands at a node: how the group acts on it. shape: its sizes.
        draw: values for n nodes; standard normal numbers unless given.
    """

    group: ps.Group | None
    slot: Any
    shape: tuple[int, ...]
    draw: Callable[[int, torch.Generator], Tensor] | None = None

    def values(self, nodes: int, generator: torch.Generator) -> Tensor:
        if self.draw is not None:
            return self.draw(nodes, generator)
        kind = torch.complex128 if self.slot is not None and _slot(self.slot).is_complex else torch.float64
        return torch.randn(nodes, *self.shape, generator=generator, dtype=kind)


def _slot(slot: Any) -> Any:
    return slot.defining if isinstance(slot, ps.Group) else slot


def massive(nodes: int, generator: torch.Generator) -> Tensor:
    """Four-vectors (nodes, 4) of particles with mass: energy first."""
    momentum = torch.randn(nodes, 3, generator=generator, dtype=torch.float64)
    energy = (momentum.square().sum(-1, keepdim=True) + 0.5).sqrt()
    return torch.cat([energy, momentum], -1)


def plain(group: ps.Group, *shape: int) -> Symmetry:
    return Symmetry(group, group, shape)


SYMMETRIES = {
    "S": Symmetry(None, None, (2,)),
    "O(2)": plain(ps.O(2), 2),
    "O(3)": plain(ps.O(3), 3),
    "SO(3)": plain(ps.SO(3), 3),
    "E(3)": plain(ps.E(3), 3),
    "SE(3)": plain(ps.SE(3), 3),
    "SE(3) about z": plain(ps.SE(3, about="z"), 3),
    "O(3), irreps l = 2": Symmetry(ps.O(3, "space"), ps.O(3, "space").irrep(2), (5,)),
    "Tetrahedral": plain(ps.Tetrahedral(), 3),
    "Octahedral": plain(ps.Octahedral(), 3),
    "Icosahedral": plain(ps.Icosahedral(), 3),
    "Finite (swap)": Symmetry(None, None, (2,)),  # given below, where its slot is
    "C(4) on images": plain(ps.C(4), 4, 4),
    "D(4) on images": plain(ps.D(4), 4, 4),
    "Shift": plain(ps.Shift((2, 3)), 2, 3),
    "Signs": plain(ps.Signs(3), 3),
    "Lorentz": Symmetry(ps.Lorentz(), ps.Lorentz(), (4,), massive),
    "U(2)": plain(ps.U(2), 2),
    "SU(2)": plain(ps.SU(2), 2),
}
SWAP = ps.Finite(generators=1, name="swap")
SYMMETRIES["Finite (swap)"] = Symmetry(SWAP, SWAP.permutation([[1, 0, 2]]), (3,))
STORAGES = ("dense", "padded", "ragged")


def call_of(symmetry: Symmetry, storage: str) -> tuple[ps.S, dict[str, Tensor]]:
    """The node axis and the arguments of a call with three inputs."""
    generator = seeded()
    if storage == "dense":
        return ps.S("nodes"), {"x": torch.stack([symmetry.values(4, generator) for _ in SIZES])}
    graphs = [symmetry.values(n, generator) for n in SIZES]
    lengths = torch.tensor(SIZES)
    if storage == "padded":
        mask = torch.arange(4) < lengths[:, None]
        return ps.S("nodes", mask="mask"), {"x": nn.utils.rnn.pad_sequence(graphs, batch_first=True), "mask": mask}
    batch = torch.arange(3).repeat_interleave(lengths)
    return ps.S("nodes", batch="batch"), {"x": torch.cat(graphs), "batch": batch}


# ---------------------------------------------------------------- distributions


class Flat(nn.Module):
    """A net without any symmetry: one number per input, from sums over nodes of functions of every entry."""

    def __init__(self, out: int = 1) -> None:
        super().__init__()
        self.out = out

    def forward(self, x: Tensor, mask: Tensor | None = None, batch: Tensor | None = None) -> Tensor:
        if x.is_complex():
            x = torch.view_as_real(x)
        rows = x.flatten(1) if batch is not None else x.flatten(2)
        weights = torch.linspace(0.3, 1.7, rows.shape[-1], dtype=rows.dtype)
        number = (rows * weights).sin().sum(-1) + (rows[..., :1] * 0.7).cos().sum(-1)
        if batch is not None:
            total = number.new_zeros(int(batch.max()) + 1).index_add(0, batch, number)
        else:
            total = (number if mask is None else number * mask).sum(1)
        return torch.stack([total, *[(total * (i + 2)).sin() for i in range(self.out - 1)]], -1)


def by_name(name: str) -> Callable[[Symmetry, ps.S, Any], EquivariantDistribution]:
    """What `distribution=` makes of a name; finite groups beside uniform orders, since their nets see no nodes."""

    def made(symmetry: Symmetry, nodes: ps.S, spec: Any) -> EquivariantDistribution:
        if symmetry.group is None:
            return ps.distributions.by_name(name, spec, nodes)
        if symmetry.group.finite:
            return ps.distributions.by_name(name, spec, symmetry.group) * ps.Haar(nodes)
        return ps.distributions.by_name(name, spec, nodes * symmetry.group)

    return made


def scored(symmetry: Symmetry, nodes: ps.S, spec: Any) -> EquivariantDistribution:
    if symmetry.group is None:
        return ps.Scored(Flat(), nodes)
    return ps.Scored(Flat(), symmetry.group) * ps.Haar(nodes)


def weighted_frame(symmetry: Symmetry, nodes: ps.S, spec: Any) -> EquivariantDistribution:
    if symmetry.group is None:
        return ps.WeightedFrame(nodes)
    return ps.WeightedFrame(symmetry.group) * ps.Haar(nodes)


DISTRIBUTIONS: dict[str, Callable[[Symmetry, ps.S, Any], EquivariantDistribution]] = {
    "haar": by_name("haar"),
    "frame": by_name("frame"),
    "WeightedFrame": weighted_frame,
    "canonical": by_name("canonical"),
    "learned": by_name("learned"),
    "Scored": scored,
    "Recursive": by_name("recursive"),
}
# What a cell says beside "yes": the distribution is refused when it is made, or called, and says why.
REFUSED = "no"


def cell(symmetry: Symmetry, name: str, storage: str) -> str:
    """ "yes" where the poses move exactly with the input, "exact" where they can be listed too, "no" where refused.

    Raises:
        AssertionError: the poses do not move with the input, or they are no poses.
    """
    nodes, call = call_of(symmetry, storage)
    rep = ps.Rep(nodes, symmetry.slot)
    torch.manual_seed(0)
    try:
        p = DISTRIBUTIONS[name](symmetry, nodes, {"x": rep})
        phi = ps.symmetrize(Flat(), {"x": rep}, ps.Rep(), p, example=call).double()
        x = phi.bind((), call)
        p = phi.distribution
        noise = p.noise(x, (2,), seeded(1))
        with torch.no_grad():
            g = p.transport(x, noise)
    except (ValueError, TypeError):
        return REFUSED

    # 1. A random element moves the input, and the noise as its Rep says.
    h = random_elements(p.group, x, seeded(2))
    moved = x.act(h)
    with torch.no_grad():
        expected = poses(x, g)
        found = poses(moved, p.transport(moved, p.move_noise(x, h, noise)))
    assert expected.isfinite().all()
    assert torch.allclose(found, expected, atol=1e-8 * float(1 + expected.abs().max()))

    # 2. The same input in the same storage with other noise gives another pose, unless there is one only.
    if p.has_enumerate_support:
        estimate = phi.eval().estimate(**call, estimator=ps.Exact(), generator=seeded(3))
        assert estimate.mean.isfinite().all()
        return "exact"
    return "yes"


def poses(x: Inputs, g: ps.Element) -> Tensor:
    """g^-1 x of all samples."""
    inverse = g.inverse()
    rows = x.fold(lambda leaf: leaf.rep.act(inverse, leaf.value, leaf.rep.batch_dims), g.shape[0])
    (leaf,) = rows.leaves.values()
    return leaf.value


def table() -> str:
    """The table of the page, in Markdown."""
    lines = ["| on every node | " + " | ".join(DISTRIBUTIONS) + " |", "|---" * (len(DISTRIBUTIONS) + 1) + "|"]
    for title, symmetry in SYMMETRIES.items():
        row = [title]
        for name in DISTRIBUTIONS:
            by_storage = {storage: cell(symmetry, name, storage) for storage in STORAGES}
            kinds = set(by_storage.values())
            if len(kinds) == 1:
                row.append(kinds.pop())
            else:
                row.append(", ".join(f"{kind} ({storage})" for storage, kind in by_storage.items()))
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines) + "\n"


def written(title: str, name: str) -> str:
    """What the page says in a cell."""
    rows = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    heads = [word.strip() for word in rows[0].strip("|").split("|")]
    for line in rows:
        cells = [word.strip() for word in line.strip("|").split("|")]
        if cells[0] == title:
            return cells[heads.index(name)]
    raise KeyError(title)


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("name", DISTRIBUTIONS)
@pytest.mark.parametrize("title", SYMMETRIES)
def test_cell(title: str, name: str, storage: str) -> None:
    says = written(title, name)
    found = cell(SYMMETRIES[title], name, storage)
    assert found == says or f"{found} ({storage})" in says


def test_a_pose_that_stays_is_found() -> None:
    """The control: a distribution that always takes the identity moves with no input."""

    class Still(ps.EquivariantDistribution):
        def noise(self, x, shape=(), generator=None):
            return torch.zeros(*shape, x.count)

        def noise_rep(self, x):
            return ps.Rep()

        def transport(self, x, noise, diagnostics=None):
            parts = [x.stored(f).identity((len(noise), x.count), dtype=x.dtype) for f in self.group.factors]
            return self.group.join(*parts)

    DISTRIBUTIONS["still"] = lambda symmetry, nodes, spec: Still(nodes * symmetry.group)
    try:
        with pytest.raises(AssertionError):
            cell(SYMMETRIES["O(3)"], "still", "dense")
    finally:
        del DISTRIBUTIONS["still"]


if __name__ == "__main__":
    text = PAGE.read_text(encoding="utf-8")
    start, end = "<!-- table: every symmetry -->\n", "<!-- end -->"
    before, _, rest = text.partition(start)
    _, _, after = rest.partition(end)
    PAGE.write_text(before + start + table() + end + after, encoding="utf-8")
