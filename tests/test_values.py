"""Values at every call: what is refused, by name; padding, which never matters; bad rows, which spoil themselves."""

import math

import pytest
import torch
from torch import nn

import probsym as ps
from cases import PADDED, RAGGED, SETTINGS, close, randn, seeded
from probsym.reps import Inputs, leaves

SOME = ["S", "labels", "E(3)", "SO(3)", "S x E(3)", "padded S x E(3)", "ragged S x E(3)", "Axis x E(3)", "S x S x O(2)"]
DISTRIBUTIONS = ["haar", "learned", "learned-input", "canonical", "frame"]
BAD = {"NaN": math.nan, "infinite values": math.inf}


def ways(phi):
    """Every way to ask, in training and in evaluation."""
    for mode in (False, True):
        for ask in (phi, phi.estimate, phi.sample):
            phi.train(mode)
            yield ask
    phi.eval()


# ---------------------------------------------------------------- checks


@pytest.mark.parametrize("setting", SOME)
@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_bad_values_are_refused_at_every_call(setting, distribution):
    """After a first call with good ones; in one entry of one input."""
    s = SETTINGS[setting]()
    phi = s.symmetrized(distribution)
    for name, value in s.call.items():
        if value.is_floating_point():
            for says, bad in BAD.items():
                spoilt = value.clone()
                spoilt.select(0, 1).view(-1)[0] = bad
                for ask in ways(phi):
                    with pytest.raises(ValueError, match=f"{name}: expected finite values, got {says}"):
                        ask(**{**s.call, name: spoilt})
    phi(**s.call)


def test_the_input_is_named():
    x = torch.randn(4, 5, 3)
    x[2, 1, 1] = math.nan
    rep = ps.Rep(ps.S("n"), ps.O(3))
    with pytest.raises(ValueError, match="got NaN in input 2 of 4"):
        ps.symmetrize(nn.Identity(), rep, rep, "haar")(x)
    nodes = ps.S("n", batch="batch")
    x = {"x": torch.tensor([1.0, 2.0, math.inf]), "batch": torch.tensor([0, 0, 1])}
    with pytest.raises(ValueError, match=r"x: .* got infinite values in input 1 of 2"):
        ps.symmetrize(Keep(), {"x": nodes}, ps.Rep(nodes), "haar")(**x)


class Keep(nn.Module):
    def forward(self, x, **kwargs):
        return x


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float32, torch.complex64], ids=str)
def test_large_values_are_fine(kind):
    """Their sum overflows, and they do not; complex values are looked at as well."""
    rep = ps.Rep(ps.S("n"))
    phi = ps.symmetrize(nn.Identity(), rep, rep, "haar").eval()
    x = torch.full((2, 8), torch.finfo(kind).max, dtype=kind)
    assert torch.equal(phi(x, samples=1), x)
    x[1, 1] = math.nan
    with pytest.raises(ValueError, match="got NaN"):
        phi(x, samples=1)


@pytest.mark.parametrize("distribution", ["haar", "learned", "canonical", "frame"])
def test_masks_and_node_numbers_are_checked_at_every_call(distribution):
    s = SETTINGS["padded S x E(3)"]()
    phi = s.symmetrized(distribution)
    holes = s.call["mask"].clone()
    holes[1] = holes[1].flip(0)
    for mask, says in (
        (s.call["mask"].flip(1), "'mask': expected the nodes first"),
        (holes, "'mask': expected the nodes first"),
        (s.call["mask"][:1], r"'mask': expected a bool mask of shape .3, 4."),
    ):
        for ask in ways(phi):
            with pytest.raises(ValueError, match=says):
                ask(**{**s.call, "mask": mask})
    s = SETTINGS["ragged S x E(3)"]()
    phi = s.symmetrized(distribution)
    edges = s.call["edge_index"]
    for changes, says in (
        ({"edge_index": edges + 5}, "edge_index: expected node numbers below 9, got 13"),
        ({"edge_index": (edges + 5).int()}, "edge_index: expected node numbers below 9, got 13"),
        ({"edge_index": torch.tensor([[0, 1], [1, 8]])}, r"edge_index: .* one graph, got \[1, 8\] of two graphs"),
        ({"batch": s.call["batch"] - 1}, "'batch': .* from 0 to 1, got numbers from -1 to 1"),
    ):
        for ask in ways(phi):
            with pytest.raises(ValueError, match=says):
                ask(**{**s.call, **changes})
    s = SETTINGS["labels"]()
    phi = s.symmetrized(distribution)
    for ask in ways(phi):
        with pytest.raises(ValueError, match="edge_index: expected node numbers below 4, got 5"):
            ask(**{**s.call, "edge_index": s.call["edge_index"].clamp_min(2) + 2})


def test_graphs_are_checked_against_pyg():
    """More graphs in the batch vector than the `Batch` says that there are."""
    geometric = pytest.importorskip("torch_geometric.data")
    nodes = ps.S("n", batch="batch")

    class ByData(nn.Module):
        def forward(self, data):
            return data.x

    phi = ps.symmetrize(ByData(), ({"x": nodes},), ps.Rep(nodes), "haar")
    data = geometric.Batch.from_data_list([geometric.Data(x=torch.randn(n, 2)) for n in (3, 2)])
    phi(data)
    data.batch = torch.tensor([0, 0, 0, 1, 2])
    with pytest.raises(ValueError, match=r"'batch': .* from 0 to 1, got numbers from 0 to 2"):
        phi(data)


def test_the_look_is_not_traced(monkeypatch):
    """Transforms and compilers cannot follow a look at values."""
    looked = []
    look = Inputs.check_values
    monkeypatch.setattr(Inputs, "check_values", lambda self: (looked.append(self), look(self)))
    s = SETTINGS["S x E(3)"]()
    phi = s.symmetrized("haar")
    looked.clear()
    phi(**s.call)
    assert len(looked) == 1
    many = {key: value.expand(2, *value.shape) for key, value in s.call.items()}
    torch.func.vmap(lambda call: phi(**call, samples=1), randomness="different")(many)
    assert len(looked) == 1


# ---------------------------------------------------------------- padding


def filled(call, bad):
    """The padded nodes of every floating tensor overwritten."""
    mask = call["mask"]
    return {k: v.clone().masked_fill_(~mask.reshape(*mask.shape, *[1] * (v.ndim - 2)), bad)
            if v.is_floating_point() else v for k, v in call.items()}  # fmt: skip


def run(phi, call):
    """Outputs and gradients by name: of the weights, and of the inputs."""
    call = {key: v.clone().requires_grad_() if v.is_floating_point() else v for key, v in call.items()}
    y = phi(**call, generator=seeded())
    total = sum(v.square().sum() for v in (y if isinstance(y, tuple) else (y,)))
    sources = [*phi.parameters(), *(v for v in call.values() if v.requires_grad)]
    slopes = torch.autograd.grad(total, sources, allow_unused=True)
    return y, tuple(g for g in slopes if g is not None)


@pytest.mark.parametrize("bad", [math.nan, math.inf, 7.0])
@pytest.mark.parametrize("setting", ["padded S x E(3)", "padded S x SE(2)"])
@pytest.mark.parametrize("distribution", [*DISTRIBUTIONS, "product"])
def test_padded_nodes_never_matter(setting, distribution, bad):
    """Neither for outputs nor for gradients, which are zero at the padding."""
    s = SETTINGS[setting]()
    phi = s.symmetrized(distribution)
    for mode in (False, True):
        phi.train(mode)
        (found, slopes), (expected, wanted) = run(phi, filled(s.call, bad)), run(phi, filled(s.call, 0.0))
        assert close(found, expected, 0)
        assert close(slopes, wanted, 0)
        assert all(slope.isfinite().all() for slope in slopes)


class Pairs(nn.Module):
    """A sum over pairs of nodes that reads all of its arguments, the padding too."""

    def forward(self, x, pair, mask):
        return x + (pair @ x.unsqueeze(-1)).squeeze(-1)


@pytest.mark.parametrize("axis", [PADDED, ps.Axis("nodes", mask="mask")], ids=repr)
@pytest.mark.parametrize("distribution", ["haar", "learned", "canonical", "frame"])
def test_padded_pairs_never_matter(axis, distribution):
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0], [1, 1, 1, 1]]).bool()
    x, pair = randn(3, 4), randn(3, 4, 4)
    reps = {"x": ps.Rep(axis), "pair": ps.Rep(axis, axis), "v": ps.Rep(ps.O(2))}

    class Base(Pairs):
        def forward(self, x, pair, v, mask):
            return super().forward(x, pair, mask) * v.sum(-1, keepdim=True)

    phi = ps.symmetrize(Base(), reps, ps.Rep(axis), distribution).double().eval()
    pairs = mask[:, :, None] & mask[:, None]
    calls = [
        {"x": x.masked_fill(~mask, bad), "pair": pair.masked_fill(~pairs, bad), "v": randn(3, 2), "mask": mask}
        for bad in (0.0, math.nan)
    ]
    phi(**calls[0])
    (expected, wanted), (found, slopes) = (run(phi, call) for call in calls)
    assert close(found, expected, 0)
    assert close(slopes, wanted, 0)
    assert found.isfinite().all()


@pytest.mark.parametrize("storage", ["dense", "ragged"])
@pytest.mark.parametrize("distribution", ["haar", "learned", "frame"])
def test_padded_edges_never_matter(storage, distribution):
    """Edges with negative node numbers: their features and vectors are zero for everybody."""
    axis, space = (RAGGED if storage == "ragged" else ps.S("nodes")), ps.O(3)
    if storage == "ragged":
        edges = torch.tensor([[0, 1, -1, 3, -1], [1, 2, -1, 4, -1]])
        marks, shape = {"batch": torch.tensor([0, 0, 0, 1, 1])}, (5,)
        absent = (edges < 0).any(0)
    else:
        edges = torch.tensor([[[0, 1, -1], [1, 2, -1]], [[0, -1, -1], [1, -1, -1]]])
        marks, shape = {}, (2, 4)
        absent = (edges < 0).any(1)

    class Sums(nn.Module):
        def forward(self, x, bond, arrow, edge_index, batch=None):
            if batch is not None:
                return x * (bond.sum() + arrow.sum())
            return x * (bond.sum(1) + arrow.sum((1, 2)))[:, None, None]

    reps = {"x": ps.Rep(axis, space), "bond": axis.edges, "arrow": ps.Rep(axis.edges, space), "edge_index": axis.labels}
    phi = ps.symmetrize(Sums(), reps, ps.Rep(axis, space), distribution).double().eval()
    calls = []
    for bad in (0.0, math.nan, math.inf):
        bond = randn(*absent.shape).masked_fill(absent, bad)
        arrow = randn(*absent.shape, 3).masked_fill(absent[..., None], bad)
        calls.append({"x": randn(*shape, 3), "bond": bond, "arrow": arrow, "edge_index": edges, **marks})
    phi(**calls[0])
    expected, wanted = run(phi, calls[0])
    for call in calls[1:]:
        found, slopes = run(phi, call)
        assert close(found, expected, 0)
        assert close(slopes, wanted, 0)
        assert found.isfinite().all()


# ---------------------------------------------------------------- bad rows


class Breaking(nn.Module):
    """The base model, whose outputs are NaN or infinite for the inputs marked by a nonzero flag."""

    def __init__(self, model, output, bad):
        super().__init__()
        self.model, self.output, self.bad = model, output, bad

    def forward(self, flag, **kwargs):
        y = self.model(**kwargs)
        parts = []
        for path, rep in leaves(self.output).items():
            value = y
            for key in path:
                value = value[key]
            marked = flag[:, 0] > 0
            if rep.ragged is not None:
                marked = marked[kwargs["batch"]]
            parts.append(value.masked_fill(marked.reshape(-1, *[1] * (value.ndim - 1)), self.bad))
        if isinstance(y, dict):
            return dict(zip(y, parts, strict=True))
        return tuple(parts) if isinstance(y, tuple) else parts[0]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("setting", ["S", "SO(3)", "S x E(3)", "padded S x E(3)", "ragged S x E(3)"])
@pytest.mark.parametrize("distribution", ["haar", "learned", "canonical", "frame"])
def test_a_bad_output_spoils_its_own_input(setting, distribution, bad):
    """For every estimator; the outputs of the other inputs are the same bits."""
    s = SETTINGS[setting]()
    reps = {**s.inputs, "flag": ps.Rep()}
    phi = ps.symmetrize(Breaking(s.model, s.output, bad), reps, s.output, distribution).double().eval()
    p = phi.distribution
    estimators = [ps.MonteCarlo(4), ps.MonteCarlo(4, chunk=1), ps.Adaptive(1.0, max_samples=8, chunk=4)]
    if p.has_enumerate_support:
        estimators += [ps.Exact(), ps.Exact(chunk=1), ps.Hybrid(1)]
    if ps.S("nodes") in phi.group.factors:
        estimators.append(ps.MonteCarlo(4, design="shifts"))
        estimators += [ps.Hybrid(2)] if distribution == "haar" else []
    flags = torch.zeros(3, 1, dtype=torch.float64), torch.tensor([[0.0], [1.0], [0.0]], dtype=torch.float64)
    for estimator in estimators:
        whole, part = (
            phi.estimate(**s.call, flag=flag, estimator=estimator, generator=seeded()) for flag in flags
        )  # fmt: skip
        for rep, a, b in zip(leaves(s.output).values(), flat(whole.mean), flat(part.mean), strict=True):
            own = torch.tensor([False, True, False])
            if rep.ragged is not None:
                own = own[s.call["batch"]]
            assert torch.equal(a[~own], b[~own])
            assert not b[own].isfinite().all()


def flat(y):
    if isinstance(y, dict):
        return tuple(y.values())
    return y if isinstance(y, tuple) else (y,)


@pytest.mark.parametrize("setting", ["S", "S x E(3)", "padded S x E(3)", "ragged S x E(3)"])
@pytest.mark.parametrize("times", [1, 3])
def test_rows_that_nobody_needs_are_finite(setting, times):
    """Whatever the model makes of them, for one sample at once and under a transform too."""
    s = SETTINGS[setting]()

    class Nothing(nn.Module):
        def forward(self, **kwargs):
            y = s.model(**kwargs)
            found = [v * math.nan for v in flat(y)]
            return (
                dict(zip(y, found, strict=True))
                if isinstance(y, dict)
                else tuple(found)
                if len(found) > 1
                else found[0]
            )

    phi = ps.symmetrize(Nothing(), s.inputs, s.output, "haar").eval()
    x = phi.bind((), s.call)
    g = phi.distribution.transport(x, phi.draw_noise(**s.call, samples=times))
    needed = torch.zeros(times, 3, dtype=torch.bool)
    needed[0, 1] = True
    for part in (needed, torch.zeros_like(needed)):
        for rep, y in zip(leaves(s.output).values(), phi.orbit(x, g, part).tensors, strict=True):
            marks = part if rep.ragged is None else part[:, s.call["batch"]]
            assert y[~marks].isfinite().all()
            assert bool(part.any()) == bool(y[marks].isnan().any())


@pytest.mark.parametrize("chunk", [None, 1])
def test_frames_of_weight_zero(chunk):
    """A symmetric cloud has more frames than its neighbour, whose spare rows do not count, whatever comes of them.

    The model breaks down unless its rows are poses of the inputs.
    """
    space = ps.O(2)
    square = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    x = torch.stack([square, randn(4, 2, kind=torch.float32)])
    lengths = x.norm(dim=-1).sum(-1)

    class Poses(nn.Module):
        def forward(self, x):
            off = (x.norm(dim=-1).sum(-1, keepdim=True) - lengths).abs().amin(-1)
            return (x / (off < 1e-3).float()[:, None, None]).nan_to_num(posinf=math.nan, neginf=math.nan)

    phi = ps.symmetrize(Poses(), ps.Rep(None, space), ps.Rep(None, space), ps.Frame(space)).eval()
    for mode in (False, True):
        assert torch.allclose(phi.train(mode)(x, estimator=ps.Exact(chunk)), x, atol=1e-5)
