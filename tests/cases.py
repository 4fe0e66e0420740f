"""What the property tests walk: settings (Reps, data, a base model without symmetry) and distributions."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import probsym as ps
from probsym.distributions import DefaultNet, PlainNet
from probsym.groups import product
from probsym.reps import as_spec, build, group_of, leaves
from probsym.testing.elements import expand_samples, random_elements

NODES = ps.S("nodes")
PADDED = ps.S("nodes", mask="mask")
RAGGED = ps.S("nodes", batch="batch")


class Base(nn.Module):
    """An MLP on the flattened arguments: it knows no symmetry, and keeps the inputs of a batch apart.

    Args:
        width: nodes of the largest graph of a ragged batch. shapes: output shapes after the batch, by path.
    """

    def __init__(self, features: int, output: Any, shapes: dict[Any, tuple[int, ...]], width: int = 0, seed: int = 0):
        super().__init__()
        self.output, self.shapes, self.width = output, shapes, width
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            total = sum(math.prod(s) for s in shapes.values())
            self.layers = nn.Sequential(nn.Linear(features, 32), nn.Tanh(), nn.Linear(32, total))

    def forward(self, **kwargs: Any) -> Any:
        batch, mask = kwargs.pop("batch", None), kwargs.pop("mask", None)
        place = None if batch is None else self._place(batch)
        rows = torch.cat([self._rows(key, value, batch, place) for key, value in kwargs.items()], 1)
        flat = self.layers(rows.to(self.layers[0].weight.dtype))
        parts = dict(zip(self.shapes, flat.split([math.prod(s) for s in self.shapes.values()], 1), strict=True))

        def output(path: Any, rep: ps.Rep) -> Tensor:
            y = parts[path].reshape(flat.shape[0], *self.shapes[path])
            if place is not None and rep.ragged is not None:
                return y.flatten(0, 1)[place]
            if mask is not None and rep.slots and isinstance(rep.slots[0], type(PADDED.defining)):
                return y * mask.reshape(*mask.shape, *[1] * (y.ndim - 2))
            return y

        return build(self.output, output)

    def _place(self, batch: Tensor) -> Tensor:
        sizes = torch.bincount(batch)
        order = torch.argsort(batch, stable=True)
        rank = torch.empty_like(batch)
        rank[order] = torch.arange(len(batch), device=batch.device) - (sizes.cumsum(0) - sizes)[batch[order]]
        return batch * self.width + rank

    def _rows(self, key: str, value: Tensor, batch: Tensor | None, place: Tensor | None) -> Tensor:
        if place is None:
            return value.flatten(1)
        count = int(batch.max()) + 1
        if key == "edge_index":
            pairs = torch.zeros(count * self.width * self.width, dtype=torch.get_default_dtype(), device=place.device)
            pairs[place[value[0]] * self.width + place[value[1]] % self.width] = 1.0
            return pairs.reshape(count, -1)
        if len(value) != len(batch):
            return value.flatten(1)
        dense = value.new_zeros(count * self.width, *value.shape[1:])
        return dense.index_copy(0, place, value).reshape(count, -1)


@dataclass
class Setting:
    """Reps of inputs and output, a call, and the base model."""

    inputs: Any
    output: Any
    call: dict[str, Tensor]
    model: Base

    @property
    def group(self) -> ps.Group:
        return group_of(self.inputs, self.output)

    def symmetrized(self, distribution: Any, **kwargs: Any) -> ps.Symmetrizer:
        p = DISTRIBUTIONS[distribution](self) if distribution in DISTRIBUTIONS else distribution
        phi = ps.symmetrize(self.model, self.inputs, self.output, p, **kwargs).to(dtype(self.call)).eval()
        phi(**self.call)
        return phi


def dtype(call: dict[str, Tensor]) -> torch.dtype:
    return next(v.dtype for v in call.values() if v.is_floating_point())


def make_setting(inputs: Any, output: Any, call: dict[str, Tensor], shapes: Any, width: int = 0) -> Setting:
    """A call with its Reps, and a base model without symmetry whose outputs have these shapes after the batch."""
    rows = {k: v for k, v in call.items() if k not in ("batch", "mask")}
    ragged = call.get("batch")
    features = 0
    for key, value in rows.items():
        if ragged is None or len(value) == int(ragged.max()) + 1:
            features += math.prod(value.shape[1:])
        else:
            features += width * width if key == "edge_index" else width * math.prod(value.shape[1:])
    shapes = dict(zip(leaves(output), shapes, strict=True))
    kind = next(v.dtype for v in call.values() if v.is_floating_point())
    return Setting(
        as_spec(inputs, "inputs"), as_spec(output, "output"), call, Base(features, output, shapes, width).to(kind)
    )


def randn(*shape: int, seed: int = 1, kind: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + 7 * len(shape)), dtype=torch.float64).to(
        kind
    )


def sets(b: int = 3, n: int = 4, kind: torch.dtype = torch.float64) -> Setting:
    call = {"x": randn(b, n, 2, kind=kind), "a": randn(b, n, n, kind=kind)}
    inputs = {"x": ps.Rep(NODES), "a": ps.Rep(NODES, NODES)}
    output = {"node": ps.Rep(NODES), "pair": ps.Rep(NODES, NODES), "all": ps.Rep()}
    return make_setting(inputs, output, call, [(n, 2), (n, n), (3,)])


def rotated(group: ps.Group, b: int = 3, kind: torch.dtype = torch.float64) -> Setting:
    """Vectors in a fixed order, and a pseudoscalar."""
    d = group.dim
    call = {"v": randn(b, 4, d, kind=kind), "s": randn(b, 1, seed=2, kind=kind)}
    inputs = {"v": ps.Rep(None, group), "s": ps.Rep(group.det)}
    output = (ps.Rep(group), ps.Rep(group.det), ps.Rep(group, group), ps.Rep())
    return make_setting(inputs, output, call, [(d,), (1,), (d, d), (2,)])


def moved(group: ps.Group, b: int = 3, kind: torch.dtype = torch.float64) -> Setting:
    """Points and vectors in a fixed order, away from the origin."""
    d = group.dim
    call = {"x": randn(b, 4, d, kind=kind) + 2, "v": randn(b, 4, d, seed=2, kind=kind)}
    inputs = {"x": ps.Rep(None, group), "v": ps.Rep(None, group.vector)}
    output = (ps.Rep(None, group), ps.Rep(group.vector), ps.Rep(group.vector, group.det), ps.Rep())
    return make_setting(inputs, output, call, [(4, d), (d,), (d, 1), (2,)])


def particles(group: ps.Group, b: int = 3, n: int = 4, kind: torch.dtype = torch.float64) -> Setting:
    d = group.dim
    call = {
        "pos": randn(b, n, d, kind=kind) + 2,
        "vel": randn(b, n, d, seed=2, kind=kind),
        "edge": randn(b, n, n, 1, kind=kind),
    }
    inputs = {"pos": ps.Rep(NODES, group), "vel": ps.Rep(NODES, group.vector), "edge": ps.Rep(NODES, NODES)}
    return make_setting(inputs, ps.Rep(NODES, group), call, [(n, d)])


def padded(
    group: ps.Group, kind: torch.dtype = torch.float64, sizes: tuple[int, ...] = (4, 2, 3), n: int = 4
) -> Setting:
    d, b = group.dim, len(sizes)
    mask = torch.arange(n) < torch.tensor(sizes)[:, None]
    pos, charge = (randn(b, n, d, kind=kind) + 2) * mask[..., None], randn(b, n, 1, kind=kind) * mask[..., None]
    call = {"pos": pos, "charge": charge, "mask": mask}
    inputs = {"pos": ps.Rep(PADDED, group), "charge": ps.Rep(PADDED)}
    return make_setting(inputs, (ps.Rep(PADDED, group), ps.Rep()), call, [(n, d), (2,)])


def ragged(group: ps.Group, kind: torch.dtype = torch.float64) -> Setting:
    d, batch = group.dim, torch.tensor([0, 0, 0, 0, 1, 1, 2, 2, 2])
    edges = torch.tensor([[0, 1, 2, 4, 6, 7], [1, 2, 3, 5, 7, 8]])
    call = {"pos": randn(9, d, kind=kind) + 2, "charge": randn(9, 1, kind=kind), "edge_index": edges, "batch": batch}
    inputs = {"pos": ps.Rep(RAGGED, group), "charge": ps.Rep(RAGGED), "edge_index": RAGGED.labels}
    return make_setting(inputs, (ps.Rep(RAGGED, group), ps.Rep()), call, [(4, d), (2,)], width=4)


def graphs(b: int = 3, n: int = 4, kind: torch.dtype = torch.float64) -> Setting:
    """Node numbers as data, -1 for padding."""
    edges = torch.randint(0, n, (b, 2, 5), generator=torch.Generator().manual_seed(0))
    edges[0, :, -1] = -1
    call = {"x": randn(b, n, 2, kind=kind), "edge_index": edges}
    inputs = {"x": ps.Rep(NODES), "edge_index": ps.Rep(NODES.labels)}
    return make_setting(inputs, ps.Rep(NODES), call, [(n, 2)])


def fixed(group: ps.Group, kind: torch.dtype = torch.float64) -> Setting:
    """A named axis on which nothing acts."""
    atoms, d = ps.Axis("atoms"), group.dim
    call = {"pos": randn(3, 4, d, kind=kind) + 2, "kind": randn(3, 4, 2, kind=kind)}
    inputs = {"pos": ps.Rep(atoms, group), "kind": ps.Rep(atoms)}
    return make_setting(inputs, ps.Rep(atoms, group.vector), call, [(4, d)])


def two_axes(kind: torch.dtype = torch.float64) -> Setting:
    rows, cols, space = ps.S("rows"), ps.S("cols"), ps.O(2)
    call = {"m": randn(3, 3, 4, kind=kind), "w": randn(3, 3, 2, kind=kind), "c": randn(3, 4, kind=kind)}
    inputs = {"m": ps.Rep(rows, cols), "w": ps.Rep(rows, space), "c": ps.Rep(cols)}
    return make_setting(inputs, (ps.Rep(cols, rows), ps.Rep(rows, space)), call, [(4, 3), (3, 2)])


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def entry(y, path):
    for key in path:
        y = y[key]
    return y


def coupled_error(phi, call, samples=3, seed=0):
    """Largest |phi(hx, h eps) - h phi(x, eps)| over samples and outputs, for one random h an input."""
    x = phi.bind((), call)
    h = random_elements(phi.group, x, seeded(seed))
    eps = phi.draw_noise(**call, samples=samples, generator=seeded(seed))
    left = phi.sample(**x.act(h).kwargs, noise=phi.distribution.move_noise(x, h, eps))
    right = phi.sample(**call, noise=eps)
    gaps = [
        (entry(left, path) - rep.act(expand_samples(h, samples), entry(right, path))).abs().max()
        for path, rep in leaves(phi.output).items()
    ]
    return torch.stack(gaps).max().item()


def close(a, b, tolerance=1e-10):
    if isinstance(a, dict | tuple):
        keys = a if isinstance(a, dict) else range(len(a))
        return all(close(a[k], b[k], tolerance) for k in keys)
    return a.shape == b.shape and bool(((a - b).abs() <= tolerance).all())


LINEAR = [ps.O(2), ps.O(3), ps.SO(2), ps.SO(3)]
EUCLIDEAN = [ps.E(2), ps.E(3), ps.SE(2), ps.SE(3)]
SETTINGS: dict[str, Callable[..., Setting]] = {
    "S": sets,
    "labels": graphs,
    **{repr(g): (lambda g=g, **k: rotated(g, **k)) for g in LINEAR},
    **{repr(g): (lambda g=g, **k: moved(g, **k)) for g in EUCLIDEAN},
    **{f"S x {g!r}": (lambda g=g, **k: particles(g, **k)) for g in (ps.E(3), ps.SE(2), ps.O(3))},
    "padded S x E(3)": lambda **k: padded(ps.E(3), **k),
    "padded S x SE(2)": lambda **k: padded(ps.SE(2), **k),
    "ragged S x E(3)": lambda **k: ragged(ps.E(3), **k),
    "ragged S x SO(2)": lambda **k: ragged(ps.SO(2), **k),
    "Axis x E(3)": lambda **k: fixed(ps.E(3), **k),
    "S x S x O(2)": two_axes,
}


def _haar(s: Setting, group: ps.Group | None = None) -> ps.Haar:
    group = group or s.group
    return ps.Haar(group, origin="centroid" if any(f.anchored for f in group.factors) else None)


def _product(s: Setting) -> ps.EquivariantDistribution:
    """Uniform permutations times a learned distribution over the rest (or half and half)."""
    factors = s.group.factors
    if len(factors) == 1:
        return _haar(s)
    return _haar(s, factors[-1]) * ps.Learned(DefaultNet(s.inputs, product(factors[:-1])), product(factors[:-1]))


DISTRIBUTIONS: dict[str, Callable[[Setting], ps.EquivariantDistribution]] = {
    "haar": _haar,
    "learned": lambda s: ps.Learned(DefaultNet(s.inputs, s.group), s.group),
    "learned-input": lambda s: ps.Learned(DefaultNet(s.inputs, s.group), s.group, noise="input", scale=0.3),
    "canonical": lambda s: ps.Canonical(DefaultNet(s.inputs, s.group), s.group),
    "frame": lambda s: ps.Frame(s.group),
    "recursive": lambda s: ps.Recursive(PlainNet(s.inputs, s.group), s.group),
    "product": _product,
}
