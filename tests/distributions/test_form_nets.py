"""Lorentz, U and SU by name: the default net weights vectors by invariants of the form that the group keeps."""

import math
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import nn

import probsym as ps
from probsym.distributions import NETS, net_for
from probsym.groups.lorentz import boost_to, four_velocity
from probsym.nets import FormWeights
from probsym.testing import assert_distribution, assert_equivariant, equivariance_error
from probsym.testing.elements import draw_elements

SIZES = torch.tensor([5, 3, 4])
MASK = torch.arange(5) < SIZES[:, None]
AXES = {"dense": ps.S("particles"), "padded": ps.S("particles", mask="mask"),
        "ragged": ps.S("particles", batch="batch"), "in order": ps.Axis("particles")}  # fmt: skip
GROUPS = {"lorentz": ps.Lorentz(), "beam": ps.Lorentz("beam"), "unitary": ps.U(2, "spin"), "special": ps.SU(2, "spin")}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=1, kind=torch.float64):
    return torch.randn(*shape, generator=seeded(seed), dtype=kind)


class Model(nn.Module):
    """A number and a vector of each input and each particle, without any symmetry."""

    def __init__(self, entries, dim, is_complex):
        super().__init__()
        self.dim, self.is_complex = dim, is_complex
        parts = 2 if is_complex else 1
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.each = nn.Linear(parts * dim + 2, 8)
            self.last = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 1 + parts * dim))

    def forward(self, vectors, features, mask=None, batch=None):
        flat = torch.view_as_real(vectors).flatten(-2) if self.is_complex else vectors
        place = torch.arange(flat.shape[-2]).to(flat)[:, None] if batch is None else place_of(batch).to(flat)
        h = torch.tanh(self.each(torch.cat([flat, features], -1) + 0.1 * place))
        if mask is not None:
            h = h * mask[..., None]
        if batch is None:
            pooled = h.sum(1)
        else:
            pooled = h.new_zeros(int(batch.max()) + 1, 8).index_add(0, batch, h)
        energy, vector = self.last(pooled).split([1, self.last[2].out_features - 1], -1)
        if self.is_complex:
            vector = torch.view_as_complex(vector.unflatten(-1, (self.dim, 2)).contiguous())
        return {"number": energy, "vector": vector}


def place_of(batch):
    """The place of each node in its graph."""
    first = torch.cumsum(torch.bincount(batch), 0) - torch.bincount(batch)
    return (torch.arange(len(batch)) - first[batch])[:, None]


def vectors_of(group, kind):
    if kind == "complex":
        return normal(3, 5, 2, kind=torch.complex128)
    momentum = four_velocity(normal(3, 5, 3))
    if kind == "massless":
        momentum = torch.cat([momentum[..., 1:].norm(dim=-1, keepdim=True), momentum[..., 1:]], -1)
    return momentum * (0.5 + normal(3, 5, 1, seed=2).abs())


def call(storage, vectors):
    x = {"vectors": vectors, "features": normal(3, 5, 2, seed=3)}
    if storage == "padded":
        return {**{key: value * MASK[..., None] for key, value in x.items()}, "mask": MASK}
    if storage == "ragged":
        return {**{key: value[MASK] for key, value in x.items()}, "batch": torch.arange(3).repeat_interleave(SIZES)}
    return x


def symmetrized(name, storage, distribution):
    group, axis = GROUPS[name], AXES[storage]
    is_complex = name in ("unitary", "special")
    model = Model(0, 2 if is_complex else 4, is_complex)
    inputs = {"vectors": ps.Rep(axis, group), "features": ps.Rep(axis)}
    with torch.random.fork_rng():
        torch.manual_seed(1)
        phi = ps.symmetrize(model, inputs, {"number": ps.Rep(), "vector": ps.Rep(group)}, distribution).double().eval()
        x = call(storage, vectors_of(group, "complex" if is_complex else "massive"))
        phi(**x)
    return phi, x


@pytest.mark.parametrize("distribution", ["canonical", "learned"])
@pytest.mark.parametrize(
    ("name", "storage"),
    [("lorentz", "dense"), ("lorentz", "padded"), ("lorentz", "ragged"), ("lorentz", "in order"), ("beam", "padded"),
     ("unitary", "padded"), ("unitary", "ragged"), ("special", "in order")],
)  # fmt: skip
def test_it_moves_with_the_input(name, storage, distribution):
    """Coupled noise, in double precision; the bare model fails, and every parameter of the net gets a gradient."""
    phi, x = symmetrized(name, storage, distribution)
    assert_distribution(phi, x)
    if distribution == "canonical":
        assert assert_equivariant(phi, x).samples == 0
        assert not equivariance_error(phi.model, x, phi.inputs, phi.output).passed
        return
    y = phi.train()(**x, generator=seeded())
    (y["number"].square().sum() + y["vector"].abs().square().sum()).backward()
    net = dict(phi.distribution.named_parameters())
    for key, parameter in net.items():
        assert parameter.grad.isfinite().all(), key
    assert sum(bool(parameter.grad.abs().max() > 1e-9) for parameter in net.values()) >= len(net) - 1  # scores: no bias


def test_all_storages_give_the_same():
    """The canonical pose of an input does not depend on how the batch is stored."""
    padded, x = symmetrized("lorentz", "padded", "canonical")
    ragged, y = symmetrized("lorentz", "ragged", "canonical")
    ragged.load_state_dict(padded.state_dict())
    for key, value in padded(**x).items():
        assert torch.allclose(ragged(**y)[key], value, rtol=1e-9, atol=1e-10)
    # what is written in padding does not matter, and the unit of energy turns up in the outputs of the model alone
    spoilt = {**x, "vectors": torch.where(MASK[..., None], x["vectors"], math.nan)}
    assert torch.equal(padded(**spoilt)["vector"], padded(**x)["vector"])
    elements = []
    for unit in (1.0, 1e3):
        bound = padded.bind((), {**x, "vectors": unit * x["vectors"]})
        elements.append(padded.distribution.support(bound).element[GROUPS["lorentz"]].matrix)
    assert torch.allclose(*elements, rtol=1e-9)


# ---------------------------------------------------------------- inputs that leave something open


def parallel(*shape):
    one = four_velocity(normal(*shape, 1, 3)).expand(*shape, 5, 4)
    return one * (0.5 + normal(*shape, 5, 1, seed=2).abs())


def rays(*shape):
    """Parallel massless momenta."""
    one = normal(*shape, 1, 3)
    one = torch.cat([one.norm(dim=-1, keepdim=True), one], -1).expand(*shape, 5, 4)
    return one * (0.5 + normal(*shape, 5, 1, seed=2).abs())


def test_parallel_momenta_turn_with_their_rest_frame():
    """No rotation is determined; noise that turns by Wigner's rotation makes even this exact."""
    for distribution in ("canonical", "learned"):
        phi, x = symmetrized("lorentz", "dense", distribution)
        x = {**x, "vectors": parallel(3)}
        assert_distribution(phi, x)
        assert_equivariant(phi, x)
        assert all(value.isfinite().all() for value in phi(**x).values())
    canonical, _ = symmetrized("lorentz", "dense", "canonical")
    x["vectors"][0] = vectors_of(GROUPS["lorentz"], "massive")[0]
    estimate = canonical.estimate(**x)
    assert estimate.diagnostics["degenerate"] == 2
    assert estimate.stderr["vector"].isinf().tolist() == [[False] * 4, [True] * 4, [True] * 4]


@pytest.mark.parametrize("gamma", [1.0, 10.0, 100.0])
@pytest.mark.parametrize("storage", ["dense", "ragged"])
def test_ties_are_ties_in_every_frame(gamma, storage):
    """Two of these momenta are mirror images. Rounding of E^2 - p^2 grows by gamma^2, and must not tell them apart."""
    momenta = torch.tensor([[1, 0.7, 0, 0], [1, -0.7, 0, 0], [2, 0, 0.3, 0.5], [1.5, 0, -0.6, 0.2]]).double()
    u = nn.functional.normalize(normal(6, 3), dim=-1) * (gamma**2 - 1) ** 0.5
    x = (boost_to(four_velocity(u)) @ momenta.mT).mT
    axis, group = AXES[storage], GROUPS["lorentz"]
    rep = {"x": ps.Rep(axis, group)}
    phi = ps.symmetrize(nn.Identity(), rep, rep["x"], "canonical").double().eval()
    for given, tied in ((x, True), (x + 0.3 * x.flip(1)[..., :1] * x, False)):
        call = {"x": given}
        if storage == "ragged":
            call = {"x": given.flatten(0, 1), "batch": torch.arange(6).repeat_interleave(4)}
        bound = phi.bind((), call)
        scores = phi.distribution.net_features(bound)[axis]
        assert bound.stored(axis).degenerate(scores).tolist() == [tied] * 6


def test_large_boosts_lose_the_square_of_gamma_and_no_more():
    """Products of fourth order, taken where the momenta were measured, would lose eps gamma^4: 1e-3 here."""
    phi, x = symmetrized("lorentz", "in order", "canonical")
    before = phi(**x)["number"]
    u = nn.functional.normalize(normal(3, 3), dim=-1) * 1e3
    moved = {**x, "vectors": (boost_to(four_velocity(u)) @ x["vectors"].mT).mT}
    assert (phi(**moved)["number"] - before).abs().max() < 1e-5


def test_massless_particles():
    """Two or more that are not parallel have a rest frame; without masses their products say how they lie."""
    phi, x = symmetrized("lorentz", "dense", "canonical")
    x = {**x, "vectors": vectors_of(GROUPS["lorentz"], "massless")}
    assert assert_equivariant(phi, x).samples == 0
    assert_distribution(phi, x)


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
@pytest.mark.parametrize("distribution", ["canonical", "learned"])
@pytest.mark.parametrize("name", ["lorentz", "beam"])
def test_nothing_is_infinite(name, distribution, kind):
    """Light-like totals, zeros, one particle: outputs and gradients. What has no rest frame is degenerate."""
    phi, x = symmetrized(name, "dense", distribution)
    phi = phi.to(kind)
    one = torch.zeros(3, 5, 4, dtype=torch.float64)
    one[:, 0] = parallel(3)[:, 0]
    for vectors in (rays(3), torch.zeros(3, 5, 4, dtype=torch.float64), one, 1e-20 * one, 1e15 * one):
        given = {"vectors": vectors.to(kind).requires_grad_(), "features": x["features"].to(kind)}
        y = phi(**given, generator=seeded())
        total = y["number"].sum() + y["vector"].sum()
        (slope,) = torch.autograd.grad(total, given["vectors"])
        assert total.isfinite()
        assert slope.isfinite().all()
    if (name, distribution) == ("lorentz", "canonical"):
        estimate = phi.estimate(vectors=rays(3).to(kind), features=given["features"])
        assert estimate.diagnostics["degenerate"] == 3
        assert estimate.stderr["vector"].isinf().all()


def test_float32_is_equivariant_up_to_its_rounding():
    phi, x = symmetrized("lorentz", "dense", "canonical")
    x = {key: value.float() for key, value in x.items()}
    assert assert_equivariant(phi.float(), x).passed
    single = ps.symmetrize(Model(0, 4, False), phi.inputs, phi.output, "learned", 1, 1).eval()
    assert single(vectors=x["vectors"][:1], features=x["features"][:1])["vector"].shape == (1, 4)
    with torch.autocast("cpu", torch.bfloat16):
        assert single(**x)["vector"].isfinite().all()


# ---------------------------------------------------------------- saving, names, refusals


@pytest.mark.parametrize("name", ["lorentz", "unitary"])
def test_it_comes_back_from_a_folder(name, tmp_path):
    phi, x = symmetrized(name, "padded", "learned")
    ps.save(phi, tmp_path)
    again = ps.load(tmp_path, model=Model(0, phi.model.dim, phi.model.is_complex)).eval()
    for key, value in phi(**x, generator=seeded()).items():
        assert torch.equal(again(**x, generator=seeded())[key], value)


def test_what_has_no_uniform_distribution_says_what_to_take():
    rep = ps.Rep(AXES["dense"], GROUPS["lorentz"])
    with pytest.raises(ValueError, match=r"Lorentz\(\) is not compact .*: take 'canonical' or 'learned', or learn one"):
        ps.symmetrize(nn.Identity(), rep, rep, "haar")
    with pytest.raises(ValueError, match=r"no frames are known for Lorentz\(\); take 'canonical' or 'learned'"):
        ps.symmetrize(nn.Identity(), rep, rep, "frame")
    with pytest.raises(ValueError, match=r"no input holds points or vectors of Lorentz\(\)"):
        ps.symmetrize(nn.Identity(), ps.Rep(GROUPS["lorentz"], GROUPS["lorentz"]), ps.Rep(), "canonical")(
            torch.ones(2, 4, 4)
        )
    with pytest.raises(ValueError, match="form: expected one of 'lorentz', 'hermitian', got 'euclid'"):
        FormWeights("euclid", 3)


@dataclass(frozen=True, repr=False)
class OwnSpin(ps.U):
    """A group of a reader's own, with features of a kind of its own."""

    feature_kind: ClassVar[str] = "tests/own spin"


class OwnNet(nn.Module):
    """Two sums of spinors, weighted by their lengths."""

    def __init__(self):
        super().__init__()
        self.net = nn.Linear(1, 2)

    def forward(self, vectors, scalars, mask):
        weights = self.net(vectors.abs().square().sum((2, 3)).to(self.net.weight.dtype).unsqueeze(-1))
        return None, torch.einsum("bndc,bnm->bdm", vectors, weights.to(vectors.dtype))


def test_a_kind_of_ones_own_has_a_net_of_ones_own(monkeypatch):
    group = OwnSpin(2)
    rep = ps.Rep(AXES["in order"], group)
    with pytest.raises(ValueError, match=r"no default net orients by OwnSpin\(2\)"):
        ps.symmetrize(Model(0, 2, True), rep, ps.Rep(group), "learned")
    monkeypatch.setitem(NETS, "tests/own spin", lambda group, scores: OwnNet())

    class Flat(nn.Module):
        def forward(self, x):
            return (x * torch.arange(1, 4).unsqueeze(-1)).sum(1) ** 2

    phi = ps.symmetrize(Flat(), rep, ps.Rep(group), "canonical").double().eval()
    assert assert_equivariant(phi, normal(3, 3, 2, kind=torch.complex128)).samples == 0
    with pytest.raises(ValueError, match="'four-vectors' has a net already"):
        net_for("four-vectors")(lambda group, scores: OwnNet())


def test_a_net_sees_both_parts_of_complex_numbers():
    """Scores of nodes that differ in the imaginary part alone are no ties."""
    nodes = ps.S("nodes")
    phi = ps.symmetrize(nn.Identity(), ps.Rep(nodes, None), ps.Rep(nodes, None), "canonical").eval()
    x = torch.complex(torch.ones(2, 4, 1), torch.arange(4.0)[:, None].expand(2, 4, 1))
    assert phi.estimate(x).diagnostics["degenerate"] == 0
    assert phi.estimate(x.real + 0j).diagnostics["degenerate"] == 2


def test_elements_of_the_net_are_those_of_the_input():
    """The rest frame: momenta seen from the canonical pose have a total of zero momentum, if all weights are equal."""
    group = GROUPS["lorentz"]
    net = FormWeights("lorentz", 4, scores=False).double()
    p = vectors_of(group, "massive")
    net(p.unsqueeze(-1))
    nn.init.zeros_(net.weights.weight)
    nn.init.ones_(net.weights.bias)
    _, columns = net(p.unsqueeze(-1))
    g = group.project(columns, normal(3, 3, 4))
    total = ps.Rep(None, group).act(g.inverse(), p).sum(1)
    assert total[:, 1:].abs().max() < 1e-12
    assert torch.allclose(columns[..., 0] / columns[:, :1, 0], p.sum(1) / p.sum(1)[:, :1])
    h = draw_elements(group, (3,), {group: group}, seeded(5))
    _, moved = net(ps.Rep(None, group).act(h, p).unsqueeze(-1))
    assert torch.allclose(moved, h.matrix @ columns, rtol=1e-8, atol=1e-9)
