"""Outputs of some thirty calls, stored before the code was rearranged in 2026-11: the same seeds give the same numbers.

On the machine that stored them they were bit-equal after it. Other machines add up in another order.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import probsym as ps
from probsym.distributions import DefaultNet

STORED = Path(__file__).parent / "data" / "stored" / "outputs.npz"
BATCH, NODES = 3, 5
GRAPH = torch.tensor([0] * 4 + [1] * 2 + [2] * 5)
MASK = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1], [1, 1, 0, 0, 0]], dtype=torch.bool)
METHODS = ("learned", "haar", "frame", "canonical")


class Flat(nn.Module):
    """A net without symmetry, on all numbers of an input."""

    def __init__(self, entries, shape):
        super().__init__()
        torch.manual_seed(0)
        self.shape = shape
        self.net = nn.Sequential(nn.Linear(entries, 32), nn.Tanh(), nn.Linear(32, int(np.prod(shape)))).double()

    def forward(self, *args, **kwargs):
        numbers = [t.flatten(1) for t in (*args, *kwargs.values())]
        return self.net(torch.cat(numbers, 1)).reshape(-1, *self.shape)


class Masked(Flat):
    def forward(self, pos, mask):
        return super().forward(pos * mask[..., None])


class PerNode(nn.Module):
    """Looks at each node of a ragged batch and at its place in its graph."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(3, 16).double()
        self.second = nn.Linear(16, 3).double()

    def forward(self, pos, batch):
        place = torch.arange(len(batch), dtype=torch.float64) - torch.searchsorted(batch, batch).double()
        return self.second(torch.tanh(self.first(pos) + place[:, None]))


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def normal(seed, *shape):
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


@pytest.fixture(scope="module")
def stored():
    with np.load(STORED) as file:
        return dict(file)


def same(stored, name, value):
    np.testing.assert_allclose(value.detach().numpy(), stored[name], rtol=1e-10, atol=1e-12)


def same_estimate(stored, name, estimate):
    same(stored, name, estimate.mean)
    same(stored, f"{name}.stderr", estimate.stderr)


def particles(method):
    nodes, space = ps.S("nodes"), ps.E(3, "space")
    x = {"pos": normal(1, BATCH, NODES, 3), "vel": normal(2, BATCH, NODES, 3)}
    reps = {"pos": ps.Rep(nodes, space), "vel": ps.Rep(nodes, space.vector)}
    model = Flat(2 * NODES * 3, (NODES, 3))
    torch.manual_seed(7)
    phi = ps.symmetrize(model, reps, ps.Rep(nodes, space), method, example=x)
    return phi.double().eval(), x


def samples_of(method, k):
    """Frames and canonical poses are exact unless a number of samples is given."""
    if method in ("learned", "haar"):
        return {"samples": k}
    return {}


@pytest.mark.parametrize("method", METHODS)
@torch.no_grad()
def test_particles(stored, method):
    phi, x = particles(method)
    options = {} if method == "canonical" else {"samples": 6}
    same_estimate(stored, f"nbody-{method}", phi.estimate(**x, generator=seeded(5), **options))
    if method in ("learned", "haar"):
        same(stored, f"nbody-{method}-sample", phi.sample(**x, samples=3, generator=seeded(6)))


def test_training(stored):
    phi, x = particles("learned")
    phi.train()
    y = phi(**x, samples=4, generator=seeded(8))
    y.square().sum().backward()
    same(stored, "nbody-learned-train", y)
    slopes = [p.grad.flatten() for p in phi.distribution.parameters() if p.grad is not None]
    same(stored, "nbody-learned-grad", torch.cat(slopes))


@pytest.mark.parametrize("method", METHODS)
@torch.no_grad()
def test_graphs(stored, method):
    """The default net of graphs had a virtual node then: version 2 of it."""
    nodes = ps.S("nodes")
    reps = (ps.Rep(nodes, nodes),)
    half = normal(3, BATCH, NODES, NODES)
    adjacency = half + half.mT
    model = Flat(NODES * NODES, (1,))
    torch.manual_seed(9)
    distribution = method
    if method == "learned":
        distribution = ps.Learned(DefaultNet(reps, nodes, version=2), nodes)
    elif method == "canonical":
        distribution = ps.Canonical(DefaultNet(reps, nodes, version=2), nodes)
    phi = ps.symmetrize(model, reps, ps.Rep(), distribution, example=(adjacency,)).double().eval()
    same_estimate(stored, f"graph-{method}", phi.estimate(adjacency, generator=seeded(5), **samples_of(method, 8)))


@pytest.mark.parametrize("method", METHODS)
@torch.no_grad()
def test_ragged(stored, method):
    nodes, space = ps.S("nodes", batch="batch"), ps.O(3)
    x = {"pos": normal(4, len(GRAPH), 3), "batch": GRAPH}
    model = PerNode()
    torch.manual_seed(11)
    inputs = {"pos": ps.Rep(nodes, space), "batch": None}
    phi = ps.symmetrize(model, inputs, ps.Rep(nodes, space), method, example=x).double().eval()
    same_estimate(stored, f"ragged-{method}", phi.estimate(**x, generator=seeded(5), **samples_of(method, 4)))


@pytest.mark.parametrize("method", METHODS)
@torch.no_grad()
def test_padded(stored, method):
    nodes, space = ps.S("nodes", mask="mask"), ps.SO(3)
    x = {"pos": normal(1, BATCH, NODES, 3), "mask": MASK}
    model = Masked(NODES * 3, (NODES, 3))
    torch.manual_seed(13)
    inputs = {"pos": ps.Rep(nodes, space), "mask": None}
    phi = ps.symmetrize(model, inputs, ps.Rep(nodes, space), method, example=x).double().eval()
    same_estimate(stored, f"padded-{method}", phi.estimate(**x, generator=seeded(5), **samples_of(method, 4)))


@pytest.mark.parametrize("group", [ps.C(4), ps.D(4), ps.Shift(8)], ids=repr)
@torch.no_grad()
def test_images(stored, group):
    image = normal(20, 2, 8, 8, 3)
    phi = ps.symmetrize(Flat(192, (8, 8, 2)), (ps.Rep(group),), ps.Rep(group), "haar").double().eval()
    same_estimate(stored, f"image-{group!r}", phi.estimate(image, samples=3, generator=seeded(5)))
    same_estimate(stored, f"image-{group!r}-exact", phi.estimate(image, estimator=ps.Exact()))


@torch.no_grad()
def test_signs(stored):
    signs = ps.Signs(4)
    phi = ps.symmetrize(Flat(4, (4,)), (ps.Rep(signs),), ps.Rep(signs), "haar").double().eval()
    same_estimate(stored, "signs", phi.estimate(normal(21, 3, 4), estimator=ps.Exact()))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("chunk", {"estimator": ps.MonteCarlo(6, chunk=2)}),
        ("sobol", {"estimator": ps.MonteCarlo(32, design="sobol")}),
        ("octahedral", {"estimator": ps.MonteCarlo(48, design="octahedral")}),
        ("hybrid", {"estimator": ps.Hybrid(2)}),
        ("adaptive", {"tol": 0.05}),
    ],
)
@torch.no_grad()
def test_estimators(stored, name, options):
    phi, x = particles("haar")
    same_estimate(stored, f"haar-{name}", phi.estimate(**x, generator=seeded(5), **options))
