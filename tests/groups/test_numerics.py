"""`project` where it is hard: near-collinear, deficient, tiny, huge."""

import pytest
import torch

import probsym as ps
from probsym.kernels.orthonormal import orthonormalise

GROUPS = [family(d) for family in (ps.O, ps.SO) for d in (1, 2, 3, 4)]


def orthogonality(g):
    return (g.mT @ g - torch.eye(g.shape[-1], dtype=g.dtype)).abs().max().item()


def finite_gradient(value, z):
    """In one dimension the sign of z has no gradient at all, and no columns have none."""
    if not value.requires_grad:
        return z.shape[-2] == 1 or not z.numel()
    return bool(torch.autograd.grad(value, z)[0].isfinite().all())


def near_collinear(d, angle, kind=torch.float32, m=500):
    generator = torch.Generator().manual_seed(d)
    first = torch.randn(m, d, 1, generator=generator, dtype=torch.float64)
    rest = torch.randn(m, d, d, generator=generator, dtype=torch.float64)
    return (first + angle * rest).to(kind), torch.randn(m, d, d, generator=generator, dtype=torch.float64).to(kind)


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("angle", [1e-1, 1e-3, 1e-5, 1e-7, 0.0])
@pytest.mark.parametrize("size", [1.0, 1e-20, 1e20])
def test_near_collinear_columns(group, angle, size):
    """Textbook Gram-Schmidt has an error of 0.13 at 1e-3; ours stays below 1e-5, with a finite gradient."""
    z, fallback = near_collinear(group.dim, angle)
    z = (z * size).requires_grad_()
    g = group.project(z, fallback).matrix
    assert g.dtype == torch.float32
    assert orthogonality(g) < 1e-5
    assert (torch.linalg.det(g) > 0).all() or not group.special
    assert finite_gradient((g * torch.randn_like(g)).sum() * size, z)


@pytest.mark.parametrize("group", GROUPS)
def test_rank_zero_and_one(group):
    d = group.dim
    for z in (torch.zeros(4, d, d), torch.randn(4, d, 1).expand(4, d, d), torch.zeros(4, d, 0), torch.randn(4, d, 1)):
        z = z.clone().requires_grad_()
        g = group.project(z, torch.randn(4, d, d)).matrix
        assert orthogonality(g) < 1e-6
        assert finite_gradient(g.square().sum() + g.sum(), z)
        lacking = torch.linalg.matrix_rank(z, rtol=1e-5) < d - group.special if z.shape[-1] else d > group.special
        assert (group.degenerate(z) == lacking).all()


def test_first_column_is_kept_and_few_columns_suffice():
    z, fallback = torch.randn(5, 3, 2), torch.randn(5, 3, 3)
    g = ps.O(3).project(z, fallback).matrix
    assert torch.allclose(g[..., 0], torch.nn.functional.normalize(z[..., 0], dim=-1), atol=1e-6)
    assert torch.allclose((g[..., :2].mT @ z).triu(), g[..., :2].mT @ z, atol=1e-5)
    assert not torch.allclose(g, ps.O(3).project(z, torch.randn(5, 3, 3)).matrix)
    assert torch.allclose(
        ps.SO(3).project(z, fallback).matrix, ps.SO(3).project(z, torch.randn(5, 3, 3)).matrix, atol=1e-5
    )


def test_gradient_is_that_of_gram_schmidt():
    z = torch.randn(3, 3, 3, dtype=torch.float64, requires_grad=True)
    fallback = torch.randn(3, 3, 3, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda z: orthonormalise(z, fallback), z)
    assert torch.autograd.gradcheck(lambda z: orthonormalise(z, fallback, True), z)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_low_precision_is_widened(kind):
    z, fallback = near_collinear(3, 0.1, kind)
    g = ps.SO(3).project(z, fallback).matrix
    assert g.dtype == torch.float32
    assert orthogonality(g) < 1e-5


def test_autocast_does_not_narrow():
    z, fallback = near_collinear(3, 1e-3)
    with torch.autocast("cpu", torch.bfloat16):
        g = ps.O(3).project(z, fallback).matrix
    assert g.dtype == torch.float32
    assert orthogonality(g) < 1e-5


def test_scores_of_any_size():
    z = torch.tensor([[3.0, 1.0, 2.0]])
    for size in (1e-20, 1.0, 1e20):
        assert ps.S(3).project(size * z, torch.zeros(1, 3)).index.tolist() == [[2, 0, 1]]
        assert not ps.S(3).degenerate(size * z).any()
    assert ps.S(0).project(torch.zeros(2, 0), torch.zeros(2, 0)).index.shape == (2, 0)


@pytest.mark.parametrize("special", [False, True])
@pytest.mark.parametrize("dim", [2, 3])
def test_closed_form_has_first_and_second_derivatives(dim, special):
    """Forces that are trained on need the second one."""
    torch.manual_seed(0)
    z = torch.randn(4, dim, dim, dtype=torch.float64, requires_grad=True)
    fallback = torch.randn(4, dim, dim, dtype=torch.float64)

    def frame(z):
        return orthonormalise(z, fallback, special)

    assert "GramSchmidt" in str(frame(z).grad_fn.next_functions) + str(frame(z).grad_fn)
    assert torch.autograd.gradcheck(frame, (z,))
    assert torch.autograd.gradgradcheck(frame, (z,))
