"""`degenerate` is true exactly where `project` uses its fallback, near every deficiency, in every size and dtype."""

import itertools

import pytest
import torch

import probsym as ps
from probsym.kernels import orthonormal
from probsym.kernels.orthonormal import lacks_columns, orthonormalise
from probsym.reps import Layout
from probsym.testing import assert_group

KINDS = [torch.float32, torch.float64]
FINITE = [ps.C(3), ps.C(4), ps.D(4), ps.Shift((2, 3)), ps.Signs(4), ps.S(5)]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def deficient(d, m, rank, away, kind, rows=64, seed=0):
    """Columns (rows, d, m) of the given rank, with repetitions and zeros among them, moved by `away` roundings."""
    g = seeded(seed)
    options = {"generator": g, "dtype": torch.float64}
    z = torch.randn(rows, d, rank, **options) @ torch.randn(rows, rank, m, **options)
    if m > 1:
        source = torch.randint(0, m, (rows // 4, 1, m), generator=g).expand(-1, d, -1)
        z[: rows // 4] = z[: rows // 4].gather(-1, source)
        z[rows // 4 : rows // 2, :, 0] = 0
    noise = torch.randn(rows, d, m, **options)
    return (z + away * torch.finfo(kind).eps * noise).to(kind)


def used_ties(z, special, kind, times=40, seed=1):
    """How far the matrices of `times` different ties are apart, for each row."""
    d = z.shape[-2]
    ties = torch.randn(times, len(z), d, d, generator=seeded(seed), dtype=torch.float64).to(kind)
    q = orthonormalise(z.expand(times, *z.shape), ties, special)
    unit = torch.eye(d, dtype=kind)
    assert (q.mT @ q - unit).abs().max() < 100 * torch.finfo(kind).eps
    assert not special or (torch.linalg.det(q) > 0).all()
    return (q - q[:1]).abs().amax((0, 2, 3))


@pytest.mark.parametrize("closed", [True, False], ids=["closed form", "general way"])
@pytest.mark.parametrize("special", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("d", [1, 2, 3, 4, 5])
def test_flags_and_ties_of_columns(d, kind, special, closed, monkeypatch):
    """Without a flag two ties give the same bits; with one, one of 40 ties differs, but for once in 2^39 rows."""
    if not closed:
        monkeypatch.setattr(orthonormal, "may_peek", lambda x: False)
    for m in {0, 1, d - 1, d, d + 1}:
        for rank in range(max(min(d, m) - 2, 0), min(d, m) + 1):
            for away in (0, 1, 1e3):
                z = deficient(d, m, rank, away, kind)
                flags, apart = lacks_columns(z, special), used_ties(z, special, kind)
                assert (apart[~flags] == 0).all()
                assert (apart[flags] > 1e-3).all()
                if away == 0 and m:
                    lacking = torch.linalg.matrix_rank(z, rtol=100 * torch.finfo(kind).eps) < d - special
                    assert (flags != lacking).sum() <= 1  # residuals and singular values are not quite the same


@pytest.mark.parametrize("special", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("d", [2, 3])
def test_a_row_does_not_depend_on_its_batch(d, kind, special):
    """The closed form of a batch of one and the general way of a mixed batch judge alike, and give the same matrix."""
    for m, away in itertools.product((d, d + 2), (30, 50, 100, 200, 400, 1e4)):
        z = deficient(d, m, d - 1, away, kind)
        fallback = torch.randn(len(z), d, d, generator=seeded(3)).to(kind)
        flags, q = lacks_columns(z, special), orthonormalise(z, fallback, special)
        for i in range(len(z)):
            assert torch.equal(lacks_columns(z[i : i + 1], special), flags[i : i + 1])
            apart = (orthonormalise(z[i : i + 1], fallback[i : i + 1], special) - q[i]).abs().max()
            assert apart < 0.2  # rounding over residuals of 100 roundings; another fallback would be of order one


@pytest.mark.parametrize("group", [family(3) for family in (ps.O, ps.SO, ps.E, ps.SE)], ids=repr)
def test_later_columns_take_the_place_of_dependent_ones(group):
    v, w, u = torch.randn(3, 4, 3, dtype=torch.float64).unsqueeze(-1)
    full = [(v, v, w, u), (0 * v, v, w, u), (v, 2 * v, -v, w, u), (v, w, v + w, u)]
    flat = [(v, v, w), (v, w, v), (0 * v, v, w)]
    thin = [(v, v, v), (v,), (0 * v, 0 * v)]
    for few, columns in [*((0, c) for c in full), *((1, c) for c in flat), *((2, c) for c in thin)]:
        z = torch.cat(columns, -1)
        z = (z[..., 0], z) if group.anchored else z
        g = [group.project(z, torch.randn(4, 3, 3, dtype=torch.float64)).matrix for _ in range(20)]
        moved = any(bool((h != g[0]).any()) for h in g)
        expected = few > int(group.special)
        assert group.degenerate(z).tolist() == [expected] * 4
        assert moved == expected
        if not few:
            inside = g[0].mT @ torch.cat([v, w], -1)  # v along the first axis, w in the plane of the first two
            assert inside[..., 1:, 0].abs().max() < 1e-12
            assert inside[..., 2, 1].abs().max() < 1e-12


@pytest.mark.parametrize("size", [1e-30, 1e-24, 1e-20, 1e-10, 1e10, 1e15, 3e19, 1e25])
@pytest.mark.parametrize("special", [False, True])
@pytest.mark.parametrize("d", [1, 2, 3, 4])
def test_sizes_whose_squares_leave_the_range(d, special, size):
    """The same matrix as at size one, no flag, gradients of the right size."""
    z, fallback = torch.randn(8, d, d + 1, generator=seeded()), torch.randn(8, d, d, generator=seeded(1))
    found = []
    for s in (1.0, size):
        leaf = (z * s).requires_grad_()
        assert not lacks_columns(leaf, special).any()
        q = orthonormalise(leaf, fallback, special)
        if q.requires_grad:
            (q * torch.linspace(-1, 1, d)).sum().backward()
        found.append((q.detach(), torch.zeros_like(z) if leaf.grad is None else leaf.grad * s))
    assert torch.allclose(found[0][0], found[1][0], atol=1e-5)
    assert torch.allclose(found[0][1], found[1][1], rtol=1e-3, atol=1e-4 * float(found[0][1].abs().max()) + 1e-12)


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("special", [False, True])
@pytest.mark.parametrize("surplus", [0, 1, 3])
def test_closed_form_and_general_way_agree_near_dependence(dim, special, surplus, monkeypatch):
    """Values, gradients and flags, also where a surplus column dwarfs those that are used."""
    for angle, huge in itertools.product((1.0, 1e-3, 1e-6, 1e-9, 1e-11), (1.0, 1e6, 1e13)):
        g = seeded(int(-torch.tensor(angle).log10()))
        z = (
            torch.randn(20, dim, 1, generator=g).double()
            + angle * torch.randn(20, dim, dim + surplus, generator=g).double()
        )
        z[..., dim:] *= huge
        fallback = torch.randn(20, dim, dim, generator=g).double()
        found = []
        for peek in (True, False):
            with monkeypatch.context() as patch:
                if not peek:
                    patch.setattr(orthonormal, "may_peek", lambda x: False)
                leaf = z.clone().requires_grad_()
                q = orthonormalise(leaf, fallback, special)
                (q * torch.linspace(-1, 1, dim)).sum().backward()
                found.append((q.detach(), leaf.grad, lacks_columns(z, special)))
        (a, slope, flags), (b, other, said) = found
        error = 1e-13 / angle
        assert torch.equal(flags, said)
        assert (a - b).abs().max() < 100 * error
        assert (slope - other).abs().max() <= 1e3 * error * (1 + slope.abs().max())


# ---------------------------------------------------------------- scores and signs


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("group", FINITE, ids=repr)
def test_flags_and_ties_of_scores(group, kind):
    """Scores equal up to rounding, at any size: the flag says what 40 ties find (wrong once in 2^39 rows)."""
    eps, shape = torch.finfo(kind).eps, group.draw_noise(()).shape
    base = torch.randint(-1, 2, (60, *shape), generator=seeded()).double()
    blur = torch.randn(60, *shape, generator=seeded(1), dtype=torch.float64)
    ties = torch.randn(40, 60, *shape, generator=seeded(2), dtype=torch.float64).to(kind)
    for away, size in itertools.product((0, 1, 30, 100, 1e3, 1e5), (1e-30, 1.0, 1e25)):
        z = ((base + away * eps * blur) * size).to(kind)
        flags = group.degenerate(z)
        g = group.project(z.expand(40, *z.shape), ties)
        parts = list(g.tensors.values())
        differs = [(t != t[:1]).reshape(40, 60, -1).any(-1).any(0) for t in parts]
        assert torch.equal(torch.stack(differs).any(0), flags)
        if away == 1e5:
            assert flags.sum() <= 4  # differences of a thousandth of `away` are rare


def test_layouts_of_scores():
    """Padding and other graphs neither fallback nor set the scale."""
    z = torch.tensor([[1.0, 1 + 1e-7, 9.0], [1.0, 2.0, 2.0], [1.0, 1 + 1e-3, 1e9]])
    mask = torch.tensor([[1, 1, 1], [1, 1, 0], [1, 1, 0]], dtype=torch.bool)
    assert ps.S("n", mask="m").stored(Layout(3, mask)).degenerate(z).tolist() == [True, False, False]
    batch = torch.tensor([0, 0, 0, 1, 1, 2, 2])
    flat = z[mask]
    ragged = ps.S("n", batch="b").stored(Layout(7, batch=batch, count=3))
    assert ragged.degenerate(flat).tolist() == [True, False, False]


@pytest.mark.parametrize("group", FINITE, ids=repr)
def test_infinite_scores_exclude_and_do_not_tie(group):
    """A score of -inf says: not this one. It must not set the scale of what is equal up to rounding."""
    z = group.draw_noise((50,), generator=seeded())
    flat = z.flatten(1)
    flat[:, 1] = -torch.inf
    assert not group.degenerate(z).any()
    a, b = (group.project(z, group.draw_noise((50,), generator=seeded(s))) for s in (1, 2))
    assert all(torch.equal(tensor, b.tensors[name]) for name, tensor in a.tensors.items())


def test_the_checker_of_groups_notices_a_wrong_flag():
    class Never(ps.Signs):
        def degenerate(self, z):
            return torch.zeros(z.shape[:-1], dtype=torch.bool)

    class Always(ps.Signs):
        def degenerate(self, z):
            return torch.ones(z.shape[:-1], dtype=torch.bool)

    class Often(ps.Signs):
        def degenerate(self, z):
            return z[..., 0] > 0

    with pytest.raises(AssertionError, match="must not use its fallback where degenerate is false"):
        assert_group(Never(3))
    with pytest.raises(AssertionError, match="generic features must not all be degenerate"):
        assert_group(Always(3))
    with pytest.raises(AssertionError, match="fallback where degenerate is"):
        assert_group(Often(3))
