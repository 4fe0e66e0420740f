"""Enumeration: exact, hybrid, and no row evaluated twice."""

import math
from itertools import permutations

import pytest
import torch
from torch import nn

import probsym as ps
from cases import PADDED, RAGGED, SETTINGS, Base, Setting, padded, particles, rotated, seeded
from probsym.distributions.base import Support
from probsym.estimators.exact import weighted_moments
from probsym.reps import Inputs, as_spec
from probsym.reps.unique_rows import UniqueRows


class Counted(nn.Module):
    """A model that notes how many rows it sees."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.rows = model, 0

    def forward(self, *args, **kwargs):
        first = next(iter(kwargs.values())) if kwargs else args[0]
        self.rows += len(first)
        return self.model(*args, **kwargs)


def image_net() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 16), nn.Tanh(), nn.Linear(16, 2)).double()


def test_equal_poses_are_evaluated_once():
    """Orbits of images with 8, 4, 2 and 1 poses under D(4)."""
    generic = torch.randn(6, 6, dtype=torch.float64)
    flipped = generic + generic.flip(-1)
    half = flipped + flipped.rot90(2)
    x = torch.stack([generic, flipped, half, torch.full_like(generic, -0.0)])
    counted = Counted(image_net())
    phi = ps.symmetrize(counted, ps.Rep(ps.D(4)), ps.Rep(), "haar", eval_samples=ps.Exact()).eval()
    y = phi(x)
    assert counted.rows == 8 + 4 + 2 + 1
    expected = torch.stack(
        [counted.model(p) for q in range(4) for p in (x.rot90(q, (1, 2)), x.flip(-1).rot90(q, (1, 2)))]
    ).mean(0)
    assert torch.allclose(y, expected, atol=1e-12)
    counted.rows = 0
    phi.train()(x, estimator=ps.Exact())
    assert counted.rows == 8 * 4


def test_gradients_of_equal_poses_are_kept_apart():
    """Equal poses are different functions of the input; weights get the same gradient either way."""
    x = torch.zeros(2, 6, 6, dtype=torch.float64, requires_grad=True)
    phi = ps.symmetrize(image_net(), ps.Rep(ps.D(4)), ps.Rep(), "haar", eval_samples=ps.Exact()).eval()
    for wanted in ([x], list(phi.model.parameters())):
        values = x if wanted[0] is x else x.detach()
        shared = torch.autograd.grad(phi.eval()(values).square().sum(), wanted)
        plain = torch.autograd.grad(phi.train()(values, estimator=ps.Exact()).square().sum(), wanted)
        assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(shared, plain, strict=True))


@pytest.mark.parametrize("setting", ["S x E(3)", "padded S x E(3)", "ragged S x E(3)", "labels", "Axis x E(3)"])
def test_inactive_rows_are_left_out(setting):
    """Supports of different sizes: frames of a symmetric input are many, of the others few, in every layout."""
    s = SETTINGS[setting]()
    phi = s.symmetrized("haar")
    x = phi.bind((), s.call)
    g = phi.distribution.transport(x, phi.draw_noise(**s.call, samples=4))
    active = torch.rand(4, x.count) < 0.5
    active[0] = True
    whole, part = phi.orbit(x, g), phi.orbit(x, g, active)
    masks = whole.structure.align(active, whole.tensors)
    for a, b, mask in zip(whole.tensors, part.tensors, masks, strict=True):
        assert torch.allclose(a.masked_fill(~mask, 0), b.masked_fill(~mask, 0), atol=1e-12)


def test_frames_of_unequal_number():
    space = ps.O(2)
    square = torch.tensor([[1.0, 0], [0, 1], [-1, 0], [0, -1]], dtype=torch.float64)
    x = torch.stack([square, torch.randn(4, 2, dtype=torch.float64), torch.randn(4, 2, dtype=torch.float64)])
    nodes = ps.S("nodes")
    counted = Counted(nn.Sequential(nn.Flatten(), nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 1)).double())
    phi = ps.symmetrize(counted, ps.Rep(nodes, space), ps.Rep(), "frame").eval()
    estimate = phi.estimate(x)
    assert estimate.samples[0] > estimate.samples[1] == estimate.samples[2]
    assert counted.rows <= int(estimate.samples.sum())
    alone = torch.cat([phi(x[i : i + 1]) for i in range(3)])
    assert torch.allclose(estimate.mean, alone, atol=1e-10)


def test_rows_that_are_almost_equal_are_kept():
    x = torch.zeros(3, 4)
    x[1, 0], x[2, 3] = 1e-45, -0.0
    distinct = UniqueRows(Inputs.bind(ps.Rep(None), (x,), {}), torch.ones(3, dtype=torch.bool))
    assert distinct.keep.tolist() == [True, True, False]


def test_hybrid_enumerates_the_finite_factors():
    """D(4) on the image, SO(3) on a vector: exactly D(4)-equivariant at every k, error bars from the k samples."""
    image, space = ps.D(4), ps.SO(3)

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Linear(28, 32), nn.Tanh(), nn.Linear(32, 28)).double()

        def forward(self, x, v):
            y = self.net(torch.cat([x.flatten(1), v], 1))
            return y[:, :25].view_as(x), y[:, 25:]

    x, v = torch.randn(3, 5, 5, dtype=torch.float64), torch.randn(3, 3, dtype=torch.float64)
    phi = ps.symmetrize(
        Counted(Model()), {"x": ps.Rep(image), "v": ps.Rep(space)}, (ps.Rep(image), ps.Rep(space)), "haar"
    ).eval()
    seeded = lambda: torch.Generator().manual_seed(0)  # noqa: E731
    estimate = phi.estimate(x=x, v=v, estimator=ps.Hybrid(5), generator=seeded())
    assert phi.model.rows == 3 * 8 * 5
    assert estimate.samples.tolist() == [40] * 3
    assert all((e > 0).all() and e.isfinite().all() for e in estimate.stderr)
    turned = phi(x=x.rot90(1, (1, 2)), v=v, estimator=ps.Hybrid(5), generator=seeded())
    assert torch.allclose(turned[0], estimate.mean[0].rot90(1, (1, 2)), atol=1e-12)
    assert torch.allclose(turned[1], estimate.mean[1], atol=1e-12)
    chunked = phi(x=x, v=v, estimator=ps.Hybrid(5, chunk=3), generator=seeded())
    assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(chunked, estimate.mean, strict=True))
    truth = phi.estimate(x=x, v=v, samples=20_000, generator=seeded())
    long = phi.estimate(x=x, v=v, estimator=ps.Hybrid(500), generator=seeded())
    for a, b, ea, eb in zip(long.mean, truth.mean, long.stderr, truth.stderr, strict=True):
        assert ((a - b).abs() < 6 * (ea**2 + eb**2).sqrt()).all()


def orders_alone(s: Setting, sizes: tuple[int, ...]) -> list[list[torch.Tensor]]:
    """The outputs of a padded setting for each input alone, averaged over its own orders."""
    found = []
    for b, n in enumerate(sizes):
        one = {k: v[b : b + 1] for k, v in s.call.items()}
        outputs = []
        for order in permutations(range(n)):
            place = torch.tensor([*order, *range(n, one["mask"].shape[1])])
            nodes, whole = s.model(**{k: v[:, place] for k, v in one.items()})
            outputs.append((nodes[:, place.argsort()][0, :n], whole[0]))
        found.append([torch.stack(parts).mean(0) for parts in zip(*outputs, strict=True)])
    return found


@pytest.mark.parametrize(("chunk", "width"), [(None, 4), (5, 4), (5, 5), (None, 11)])
def test_small_graphs_of_unequal_size_are_exact(chunk, width):
    """Each is averaged over its own n! orders, in padded and in ragged batches, the model untouched by padding."""
    sizes = (4, 2, 3)
    s = padded(ps.O(3), sizes=sizes, n=width)
    expected = orders_alone(s, sizes)
    model = Counted(s.model)
    reps = lambda nodes: ({"pos": ps.Rep(nodes), "charge": ps.Rep(nodes)}, (ps.Rep(nodes), ps.Rep()))  # noqa: E731
    phi = ps.symmetrize(model, *reps(PADDED), "haar").eval()
    estimate = phi.estimate(**s.call, estimator=ps.Exact(chunk))
    assert estimate.samples.tolist() == [24, 2, 6]
    assert model.rows == 24 + 2 + 6
    assert all((e == 0).all() for e in estimate.stderr)
    for b, (nodes, whole) in enumerate(expected):
        assert torch.allclose(estimate.mean[0][b, : sizes[b]], nodes, atol=1e-12)
        assert torch.allclose(estimate.mean[1][b], whole, atol=1e-12)
    trained = phi.train()(**s.call, estimator=ps.Exact(chunk))
    assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(trained, estimate.mean, strict=True))
    flat = {k: v[s.call["mask"]] for k, v in s.call.items()} | {"batch": s.call["mask"].nonzero()[:, 0]}
    flat.pop("mask")
    base = Base(4 * width, as_spec(reps(RAGGED)[1], "output"), s.model.shapes, width).double()
    base.load_state_dict(s.model.state_dict())
    y = ps.symmetrize(base, *reps(RAGGED), "haar").eval()(**flat, estimator=ps.Exact(chunk))
    assert torch.allclose(y[0], torch.cat([nodes for nodes, _ in expected]), atol=1e-12)
    assert torch.allclose(y[1], torch.stack([whole for _, whole in expected]), atol=1e-12)


@pytest.mark.parametrize("setting", ["padded S x E(3)", "ragged S x E(3)"])
def test_hybrid_enumerates_the_orders_of_small_graphs(setting):
    """Exactly equivariant under other orders at every k: the list of an input is its own group."""
    s = SETTINGS[setting]()
    phi = s.symmetrized("haar")
    x = phi.bind((), s.call)
    estimate = phi.estimate(**s.call, estimator=ps.Hybrid(3), generator=seeded())
    assert estimate.samples.tolist() == [72, 6, 18]
    nodes = x.signature.node_axes[0]
    h = x.stored(nodes).haar((x.count,), generator=seeded(1))
    space = next(f for f in s.group.factors if f != nodes)
    h = s.group.join(h, space.identity((x.count,), dtype=torch.float64))
    moved = phi(**x.act(h).kwargs, estimator=ps.Hybrid(3), generator=seeded())
    right = [rep.act(h, y) for rep, y in zip(phi.output, estimate.mean, strict=True)]
    assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(moved, right, strict=True))


def test_hybrid_evaluates_equal_poses_of_a_sample_once():
    """Images with 8, 4 and 1 poses under D(4): so many rows a rotation, and the mean over all eight."""
    image, space = ps.D(4), ps.SO(3)
    net = nn.Sequential(nn.Linear(39, 16), nn.Tanh(), nn.Linear(16, 2)).double()

    class Model(nn.Module):
        def forward(self, x, v):
            return net(torch.cat([x.flatten(1), v], 1))

    generic = torch.randn(6, 6, dtype=torch.float64)
    x = torch.stack([generic, generic + generic.flip(-1), torch.ones_like(generic)])
    v = torch.randn(3, 3, dtype=torch.float64)
    phi = ps.symmetrize(
        Counted(Model()), {"x": ps.Rep(image), "v": ps.Rep(space)}, ps.Rep(), "haar", eval_samples=ps.Hybrid(5)
    ).eval()
    y = phi(x=x, v=v, generator=torch.Generator().manual_seed(0))
    assert phi.model.rows == 5 * (8 + 4 + 1)
    phi.model.rows = 0
    every = phi.train()(x=x, v=v, estimator=ps.Hybrid(5), generator=torch.Generator().manual_seed(0))
    assert phi.model.rows == 5 * 3 * 8
    assert torch.allclose(y, every, atol=1e-12)


def test_hybrid_samples_the_rest_in_blocks():
    """Signs listed, cosets of the octahedron sampled: exact to degree 3 in the vector, with the spread of blocks."""
    flips, space = ps.Signs(2), ps.SO(3)

    class Model(nn.Module):
        def forward(self, s, v):
            t, u = s[:, 0] + 2 * s[:, 1].exp(), v[:, 0]
            return torch.stack([t * (1 + u + u**2) + u**3, t * (2 * u).sin().exp()], 1)

    s = torch.randn(2, dtype=torch.float64).expand(1000, 2)
    v = torch.tensor([0.6, 0, 0.8], dtype=torch.float64).expand(1000, 3)
    phi = ps.symmetrize(Model(), {"s": ps.Rep(flips), "v": ps.Rep(space)}, ps.Rep(), "haar").eval()
    assert phi.estimate(s=s, v=v, estimator=ps.Hybrid(24, design="octahedral")).stderr.isinf().all()
    plain, design = (
        phi.estimate(s=s, v=v, estimator=ps.Hybrid(96, chunk=3, design=name), generator=seeded())
        for name in (None, "octahedral")
    )
    assert design.samples.tolist() == [4 * 96] * 1000
    assert torch.allclose(design.mean[:, 0], 2 * s[:, 1].cosh() * (1 + v.square().sum(1) / 3), atol=1e-11)
    assert (design.stderr[:, 0] < 1e-11).all()
    for estimate in (plain, design):
        ratio = estimate.stderr[:, 1].square().mean().sqrt() / estimate.mean[:, 1].std()
        assert 0.85 < ratio < 1.15
    assert design.mean[:, 1].std() < plain.mean[:, 1].std() / 2
    gap = design.mean[:, 1].mean() - plain.mean[:, 1].mean()
    assert gap.abs() < 6 * (design.mean[:, 1].var() + plain.mean[:, 1].var()).div(1000).sqrt()
    with pytest.raises(ValueError, match="fits no factor"):
        phi(s=s, v=v, estimator=ps.Hybrid(24, design="shifts"))
    with pytest.raises(ValueError, match=r"24.*25"):
        ps.Hybrid(25, design="octahedral")


def test_hybrid_of_products_and_frames():
    s = particles(ps.E(3))
    nodes, space = s.group.factors[1], s.group.factors[0]
    phi = s.symmetrized(ps.Haar(nodes) * ps.Frame(space))
    estimate = phi.estimate(**s.call, estimator=ps.Hybrid(3))
    assert estimate.samples.tolist() == [24 * 8] * 3
    assert (estimate.stderr == 0).all()
    assert torch.allclose(estimate.mean, phi(**s.call, estimator=ps.Exact()), atol=1e-10)
    learned = s.symmetrized(ps.Frame(space) * ps.Learned(ps.distributions.DefaultNet(s.inputs, nodes), nodes))
    estimate = learned.estimate(**s.call, estimator=ps.Hybrid(3))
    assert estimate.samples.tolist() == [24] * 3
    assert (estimate.stderr > 0).all()
    assert learned.estimate(**s.call, estimator=ps.Hybrid(1)).stderr.isinf().all()


@pytest.mark.parametrize("chunk", [None, 1, 3])
def test_one_number_for_all_weights_is_a_plain_mean(chunk):
    """The same as with weights that have to be looked at, whatever the chunks; the outputs of the model stay as are."""
    kept = []

    class Keeping(nn.Linear):
        def forward(self, x):
            y = super().forward(x)
            kept.append((y, y.clone()))
            return y

    x, space = torch.randn(3, 4, dtype=torch.float64), ps.Signs(4)
    phi = ps.symmetrize(Keeping(4, 2).double(), ps.Rep(space), ps.Rep(), "haar", eval_samples=ps.Exact(chunk)).eval()
    bound = phi.bind((x,), {})
    support = phi.distribution.support(bound)
    uneven = Support(support.element, support.weight.contiguous(), support.exact, {})
    with torch.no_grad():
        plain, looked = (weighted_moments(bound, phi.orbit, s, chunk, False, False).mean() for s in (support, uneven))
    assert torch.allclose(plain, looked, atol=1e-14)
    assert all(torch.equal(y, copy) for y, copy in kept)
    estimate = phi.estimate(x)
    assert torch.allclose(estimate.mean, plain, atol=1e-14)
    assert estimate.samples.tolist() == [16] * 3


def test_signs_are_a_finite_group():
    s = rotated(ps.O(1))
    phi = s.symmetrized("haar")
    estimate = phi.estimate(**s.call, estimator=ps.Exact())
    assert estimate.samples.tolist() == [2] * 3
    flipped = {k: -v for k, v in s.call.items()}
    for a, b, sign in zip(phi(**flipped, estimator=ps.Exact()), estimate.mean, (-1, -1, 1, 1), strict=True):
        assert torch.allclose(a, sign * b, atol=1e-12)


def test_what_is_refused():
    s = rotated(ps.SO(3))
    phi = s.symmetrized("haar")
    for estimator in (ps.Exact(), ps.Hybrid(4)):
        with pytest.raises(TypeError, match="MonteCarlo"):
            phi(**s.call, estimator=estimator)
    for make in (lambda: ps.Exact(0), lambda: ps.Hybrid(0), lambda: ps.Hybrid(1, chunk=0)):
        with pytest.raises(ValueError, match="at least 1"):
            make()
    assert math.factorial(4) == ps.S(4).order()
