"""Elements, actions, image grids and sums in at least single precision: half inputs, autocast, TF32 and its like."""

import contextlib

import pytest
import torch
from torch.overrides import TorchFunctionMode

import probsym as ps
from narrow_settings import SETTINGS

HALF = [torch.bfloat16, torch.float16]
SPACES = [family(d) for family in (ps.O, ps.SO, ps.E, ps.SE) for d in (1, 2, 3, 4)]
OTHERS = [ps.S("nodes", size=4), ps.C(4), ps.D(4), ps.C(8), ps.D(3, border="border"), ps.Shift(4), ps.Signs(4)]


class Products(TorchFunctionMode):
    """Collects the dtypes that matrix products run in."""

    kinds = (torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__, torch.bmm, torch.mm, torch.einsum,
             torch.nn.functional.linear, torch.baddbmm, torch.addmm, torch.tensordot)  # fmt: skip

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in self.kinds:
            tensors = [a for a in args if isinstance(a, torch.Tensor)]
            self.seen += [a.dtype for a in tensors if a.dtype != torch.float64]
        return func(*args, **(kwargs or {}))


def slots(group):
    """Reps with one slot of the group, and the shape of what they act on after the batch."""
    if group in SPACES:
        d = group.dim
        return {
            ps.Rep(group): (d, 2), ps.Rep(None, group): (5, d), ps.Rep(group.vector, group.vector): (d, d),
            ps.Rep(group.det): (3,), ps.Rep(group.det, group.vector, None): (d, 2),
        }  # fmt: skip
    found = {ps.Rep(group): (4, 4)}
    if isinstance(group, ps.S):
        found[ps.Rep(group, group)] = (4, 4)
    if isinstance(group, ps.C | ps.D):
        found[ps.Rep(group.regular)] = (group.order(), 2)
    return found


def element(group, shape, kind):
    """The same random element in any dtype, up to its rounding."""
    generator = torch.Generator().manual_seed(1)
    z, fallback = (group.draw_noise(shape, dtype=torch.float64, generator=generator) for _ in range(2))
    g = group.project((z[..., 0] * 100, z) if group.anchored else z, fallback)
    return g.map(lambda t, _: t.to(kind) if t.is_floating_point() else t)


def images(g, group, kind):
    """g x, g^-1 x and (g h) x on every slot, and the x that they were made of."""
    found = {}
    h = element(group, (2, 3), kind).select(torch.tensor([1, 0]))
    for rep, shape in slots(group).items():
        x = torch.randn(3, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(5)) * 50
        for name, e in (("g", g), ("inverse", g.inverse()), ("composed", g @ h)):
            found[rep, name] = rep.act(e, x.to(kind), 1)
    return found


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("group", [*SPACES, *OTHERS], ids=repr)
def test_no_setting_narrows_elements_and_actions(group, setting):
    """float32 results stay within float32 rounding of those in float64, and no product runs in less."""
    exact = images(element(group, (2, 3), torch.float64), group, torch.float64)
    with SETTINGS[setting](), Products() as products:
        g = element(group, (2, 3), torch.float32)
        found = images(g, group, torch.float32)
    assert products.seen == []
    for key, y in found.items():
        assert y.dtype == torch.float32
        assert (y - exact[key]).abs().max() < 1e-5 * (1 + exact[key].abs().max())


@pytest.mark.parametrize("setting", [*SETTINGS, None])
@pytest.mark.parametrize("kind", HALF)
@pytest.mark.parametrize("group", [*SPACES, *OTHERS], ids=repr)
def test_half_precision_is_rounded_once(group, kind, setting):
    """An action on half precision is that in float64, rounded: origins and rotations are not in half precision."""
    g = element(group, (2, 3), torch.float32)
    with SETTINGS[setting]() if setting else contextlib.nullcontext():
        for rep, shape in slots(group).items():
            x = (torch.randn(3, *shape, generator=torch.Generator().manual_seed(5)) * 50).to(kind)
            y = rep.act(g, x, 1)
            exact = rep.act(g.map(lambda t, _: t.double() if t.is_floating_point() else t), x.double(), 1)
            assert y.dtype == kind
            rounding = torch.finfo(kind).eps / 2 + 1e-5
            assert ((y.double() - exact).abs() <= rounding * exact.abs() + 1e-4).all()


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("group", SPACES, ids=repr)
def test_projections_and_their_gradients(group, setting):
    """`project`, also of deficient columns, and backward inside of the setting."""
    d = group.dim
    z = torch.randn(6, d, d, generator=torch.Generator().manual_seed(0))
    z[0] = z[0, :, :1]
    fallback = torch.randn(6, d, d, generator=torch.Generator().manual_seed(1))

    def pull(z, fallback):
        leaf = z.clone().requires_grad_()
        g = group.project((leaf[..., 0], leaf) if group.anchored else leaf, fallback).matrix
        if g.requires_grad:
            (g * torch.linspace(-1, 1, d)).sum().backward()
        return g.detach(), leaf.grad

    exact = pull(z.double(), fallback.double())
    with SETTINGS[setting](), Products() as products:
        found = pull(z, fallback)
    assert products.seen == []
    assert (found[0] - exact[0]).abs().max() < 1e-4
    assert found[1] is None or (found[1] - exact[1]).abs().max() < 1e-3 * exact[1].abs().max() + 1e-4


def test_the_watch_notices_a_product():
    with Products() as products:
        torch.eye(2) @ torch.eye(2)
        torch.einsum("ij,jk->ik", torch.eye(2), torch.eye(2))
    assert len(products.seen) >= 3


# ---------------------------------------------------------------- images


def wave(size, kind):
    line = torch.linspace(-1, 1, size, dtype=torch.float64)
    return ((line[:, None] * 2 + line).sin()[None, None]).to(kind)


@pytest.mark.parametrize(
    ("border", "size"),
    [("zeros", 17), ("zeros", 513), ("border", 65), ("border", 257), ("reflection", 65), ("reflection", 257)],
)
@pytest.mark.parametrize("kind", [*HALF, torch.float32])
@pytest.mark.parametrize("family", [ps.C, ps.D])
def test_image_grids(family, kind, size, border):
    """Half precision cannot number the pixels of an image of more than 256: their places must not be in it."""
    group = family(8, border=border)
    g = group.numbered(torch.arange(group.order()))
    rep, x = ps.Rep(None, group), wave(size, kind)
    y, exact = rep.act(g, x.expand(group.order(), -1, -1, -1), 1), rep.act(g, wave(size, torch.float64)[0], 0)
    exact = exact.reshape(y.shape)
    assert y.dtype == kind
    assert y.isfinite().all()
    away = (y.double() - exact).abs()[..., size // 5 : -(size // 5), size // 5 : -(size // 5)]
    assert away.max() < 4 * torch.finfo(kind).eps + 1e-3 * (kind == torch.float32 and size > 256)


def test_grids_follow_the_images_and_not_the_default_dtype():
    group, x = ps.C(8), wave(33, torch.float64)
    g = group.numbered(torch.tensor([1]))
    exact = ps.Rep(None, group).act(g, x)
    try:
        torch.set_default_dtype(torch.bfloat16)
        assert torch.equal(ps.Rep(None, group).act(g, x), exact)
    finally:
        torch.set_default_dtype(torch.float32)


# ---------------------------------------------------------------- whole calls


def call(storage, kind):
    pos = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0)) * 10 + 100
    if storage == "padded":
        return {"pos": pos.to(kind), "mask": torch.ones(2, 4, dtype=torch.bool)}, ps.S("n", mask="mask")
    if storage == "ragged":
        batch = torch.arange(2).repeat_interleave(4)
        return {"pos": pos.flatten(0, 1).to(kind), "batch": batch}, ps.S("n", batch="batch")
    return {"pos": pos.to(kind)}, ps.S("n")


class Look(torch.nn.Module):
    def forward(self, pos, mask=None, batch=None):
        self.seen = pos
        return pos


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("distribution", ["haar", "frame", "learned", "canonical"])
@pytest.mark.parametrize("storage", ["dense", "padded", "ragged"])
def test_the_identity_comes_back_and_distances_keep(storage, distribution, setting):
    kwargs, nodes = call(storage, torch.float32)
    space = ps.E(3)
    phi = ps.symmetrize(Look(), {"pos": ps.Rep(nodes, space)}, ps.Rep(nodes, space), distribution).eval()
    phi(**kwargs)
    with SETTINGS[setting]():
        y = phi(**kwargs, samples=1)

    def distances(x):
        x = x.reshape(2, 4, 3).double()
        return torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist").flatten(1).sort(-1).values

    assert (y - kwargs["pos"]).abs().max() < 1e-3
    assert (distances(phi.model.seen) - distances(kwargs["pos"])).abs().max() < 1e-3


@pytest.mark.parametrize("kind", HALF)
def test_sums_of_the_straight_through_gradient(kind):
    """Sums over channels pass the largest number of float16; the gradient of p stays that of float32."""
    nodes, found = ps.S("nodes"), []
    x = (torch.rand(2, 5, 300, generator=torch.Generator().manual_seed(0)) * 100).to(kind)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(1500, 5)).double()

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, x):
            return self.net(x.double() / 100)

    class Model(torch.nn.Module):
        def forward(self, x):
            return 10 * x * torch.arange(5, dtype=x.dtype)[:, None]

    for seen in (x, x.double()):
        phi = ps.symmetrize(Model(), ps.Rep(nodes), ps.Rep(nodes), ps.Learned(Net(), nodes))
        phi.zero_grad()
        noise = phi.draw_noise(x.float(), samples=1, generator=torch.Generator().manual_seed(0))
        phi(seen, noise=noise).double().square().mean().mul(1e-3).backward()
        found.append(net[1].weight.grad.clone())
        net.zero_grad()
    assert found[1].norm() > 0
    assert (found[0] - found[1]).norm() < 0.05 * found[1].norm()
